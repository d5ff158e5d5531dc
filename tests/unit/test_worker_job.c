/* SPDX-License-Identifier: MIT */
/* From a slot of the job ring to a job that may run, and from a run to a response. */
#include "gpu-worker/job.h"

#include <string.h>

#include "gpu-worker/ops/ops.h"
#include "unit.h"

#define REGION_BYTES 8192u

static _Alignas(64) uint8_t memory[REGION_BYTES];
static struct region region = {.id = 5, .base = memory, .bytes = REGION_BYTES};
static struct job job;
static char why[REQUEST_WHY_MAX];

/* A job with an ECHO from the arena to the response and back; tests change it. */
struct message {
    struct vgpu_job msg;
    struct vgpu_req_hdr hdr;
    struct vgpu_buf bufs[2];
    uint8_t data[64];
};

static struct message make(void)
{
    struct message m = {
        .msg = {.job = 9, .attempt = 2, .tenant = 3, .max_job_ms = 100, .band = VGPU_BAND_HIGH},
        .hdr = {.size = sizeof(m) - sizeof(m.msg),
                .version = VGPU_REQ_VERSION,
                .op = VGPU_OP_ECHO,
                .tag = 77,
                .band = VGPU_BAND_DEFAULT,
                .nbufs = 2},
        .bufs = {{.kind = VGPU_BUF_ARENA, .dir = VGPU_BUF_IN, .offset = 128, .length = 40},
                 {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_OUT, .offset = 16, .length = 40}},
    };
    return m;
}

static struct gpu_caps caps_of(uint16_t op, uint64_t dtypes)
{
    struct gpu_caps caps = {.ops = OPS_BIT(op)};

    caps.op_dtypes[op] = dtypes;
    return caps;
}

static uint32_t prepare(const struct message *m, struct region *r)
{
    struct gpu_caps caps = caps_of(VGPU_OP_ECHO, 0);

    why[0] = 0;
    ck_assert_ptr_null(job_load(&job, m, sizeof(*m), m->msg.job));
    return job_prepare(&job, r, &caps, why);
}

START_TEST(buffers_become_addresses)
{
    struct message m = make();

    memset(&job, 0xee, sizeof(job));
    ck_assert_msg(prepare(&m, &region) == VGPU_E_OK, "%s", why);
    ck_assert_ptr_eq(job.gpu.bufs[0].host, memory + 128);
    ck_assert_ptr_eq(job.gpu.bufs[1].host, job.response + sizeof(struct vgpu_resp_hdr) + 16);
    ck_assert_uint_eq(job.gpu.bufs[1].length, 40);
    ck_assert_uint_eq(job.gpu.band, VGPU_BAND_HIGH);
    ck_assert_uint_eq(job.gpu.tenant, 3);
    ck_assert_ptr_eq(job.gpu.user, &job);
    ck_assert_uint_eq(job.head.job, 9);
    ck_assert_uint_eq(job.overran_ns, 0);
}
END_TEST

START_TEST(inline_inputs_are_private)
{
    struct message m = make();

    m.bufs[0] =
        (struct vgpu_buf){.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_IN, .offset = 96, .length = 40};
    memset(m.data, 7, sizeof(m.data));
    ck_assert_msg(prepare(&m, NULL) == VGPU_E_OK, "%s", why);
    memset(m.data, 8, sizeof(m.data));
    ck_assert_uint_eq(*(uint8_t *)job.gpu.bufs[0].host, 7);
}
END_TEST

START_TEST(gaps_of_the_payload_are_zero)
{
    struct message m = make();

    memset(&job, 0xee, sizeof(job));
    ck_assert_uint_eq(prepare(&m, &region), VGPU_E_OK);
    job.gpu.error = VGPU_E_OK;
    job.gpu.run_ns = 123;
    memset(job.gpu.bufs[1].host, 0x55, 40);
    const struct vgpu_resp_hdr *response = (const void *)job.response;
    ck_assert_uint_eq(job_respond(&job), sizeof(*response) + 56);
    ck_assert_uint_eq(response->size, sizeof(*response) + 56);
    ck_assert_uint_eq(response->tag, 77);
    ck_assert_uint_eq(response->op, VGPU_OP_ECHO);
    ck_assert_uint_eq(response->run_ns, 123);
    ck_assert_uint_eq(response->error, VGPU_E_OK);
    for (unsigned i = 0; i < 16; i++) {
        ck_assert_uint_eq(job.response[sizeof(*response) + i], 0);
    }
}
END_TEST

START_TEST(errors_carry_a_sentence)
{
    struct message m = make();
    struct vgpu_resp_hdr header;

    ck_assert_uint_eq(prepare(&m, &region), VGPU_E_OK);
    job.gpu.error = VGPU_E_NO_MEMORY;
    strcpy(job.gpu.why, "not that much");
    uint32_t size = job_respond(&job);
    ck_assert_uint_eq(response_check(job.response, size, VGPU_OP_ECHO, 77, 1000, &header, why),
                      VGPU_E_OK);
    ck_assert_uint_eq(header.error, VGPU_E_NO_MEMORY);
    ck_assert_mem_eq(job.response + sizeof(header), "not that much", 13);
}
END_TEST

START_TEST(a_job_that_overran_has_failed_however_it_ended)
{
    static const uint32_t ends[] = {VGPU_E_OK, VGPU_E_JOB_TOO_LONG, VGPU_E_CANCELLED};
    struct message m = make();

    ck_assert_uint_eq(prepare(&m, &region), VGPU_E_OK);
    job.overran_ns = 1;
    job.gpu.error = ends[_i];
    job_respond(&job);
    ck_assert_uint_eq(((struct vgpu_resp_hdr *)job.response)->error, VGPU_E_JOB_TOO_LONG);
}
END_TEST

START_TEST(outside_the_region)
{
    struct message m = make();

    m.bufs[0].offset = REGION_BYTES;
    ck_assert_uint_eq(prepare(&m, &region), VGPU_E_BAD_BUFFER);
    m.bufs[0].offset = 128;
    ck_assert_uint_eq(prepare(&m, NULL), VGPU_E_BAD_BUFFER);
    m.msg.band = VGPU_BANDS;
    ck_assert_uint_eq(prepare(&m, &region), VGPU_E_INTERNAL);
}
END_TEST

static uint32_t load_and_prepare(const void *bytes, uint32_t length, const struct gpu_caps *caps)
{
    ck_assert_ptr_null(job_load(&job, bytes, length, 0));
    return job_prepare(&job, &region, caps, why);
}

START_TEST(what_the_backend_does_not_offer)
{
    struct gpu_caps caps = caps_of(VGPU_OP_SORT, OPS_BIT(VGPU_DTYPE_U8));
    struct {
        struct vgpu_job msg;
        struct vgpu_req_hdr hdr;
        struct vgpu_buf bufs[2];
        struct vgpu_sort body;
    } m = {.hdr = {.size = sizeof(m) - sizeof(m.msg),
                   .version = VGPU_REQ_VERSION,
                   .op = VGPU_OP_SORT,
                   .nbufs = 2,
                   .body_len = sizeof(m.body)},
           .bufs = {{VGPU_BUF_ARENA, VGPU_BUF_IN, 0, 0, 0, 4},
                    {VGPU_BUF_ARENA, VGPU_BUF_OUT, 0, 0, 64, 4}},
           .body = {.dtype = VGPU_DTYPE_F32, .n = 1}};

    ck_assert_uint_eq(load_and_prepare(&m, sizeof(m), &caps), VGPU_E_UNSUPPORTED);
    m.body.dtype = VGPU_DTYPE_F16;
    ck_assert_uint_eq(load_and_prepare(&m, sizeof(m), &caps), VGPU_E_BAD_DTYPE);
    m.body = (struct vgpu_sort){.dtype = VGPU_DTYPE_U8, .n = 4};
    ck_assert_uint_eq(load_and_prepare(&m, sizeof(m), &caps), VGPU_E_OK);
    caps.ops = OPS_BIT(VGPU_OP_ECHO);
    ck_assert_uint_eq(load_and_prepare(&m, sizeof(m), &caps), VGPU_E_UNSUPPORTED);
    m.hdr.op = 64;
    ck_assert_uint_eq(load_and_prepare(&m, sizeof(m), &caps), VGPU_E_UNSUPPORTED);
}
END_TEST

START_TEST(what_no_mediator_sends)
{
    struct message m = make();

    ck_assert_ptr_nonnull(job_load(&job, &m, sizeof(m), 10));
    ck_assert_ptr_nonnull(job_load(&job, &m, sizeof(m.msg), 9));
    ck_assert_ptr_nonnull(job_load(&job, &m, sizeof(m.msg) + sizeof(m.hdr) - 1, 9));
    ck_assert_ptr_nonnull(job_load(&job, &m, VGPU_EXEC_SLOT_BYTES + 1, 9));
    m.msg.reserved[6] = 1;
    ck_assert_ptr_nonnull(job_load(&job, &m, sizeof(m), 9));
}
END_TEST

START_TEST(a_refusal_has_op_and_tag)
{
    struct message m = make();
    struct vgpu_resp_hdr header;

    ck_assert_ptr_null(job_load(&job, &m, sizeof(m), 9));
    uint32_t size = job_refuse(&job, VGPU_E_BUSY, "no");
    ck_assert_uint_eq(response_check(job.response, size, VGPU_OP_ECHO, 77, 1000, &header, why),
                      VGPU_E_OK);
    ck_assert_uint_eq(header.error, VGPU_E_BUSY);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("worker job");
    TCase *tc = tcase_create("job");

    tcase_add_test(tc, buffers_become_addresses);
    tcase_add_test(tc, inline_inputs_are_private);
    tcase_add_test(tc, gaps_of_the_payload_are_zero);
    tcase_add_test(tc, errors_carry_a_sentence);
    tcase_add_loop_test(tc, a_job_that_overran_has_failed_however_it_ended, 0, 3);
    tcase_add_test(tc, outside_the_region);
    tcase_add_test(tc, what_no_mediator_sends);
    tcase_add_test(tc, a_refusal_has_op_and_tag);
    tcase_add_test(tc, what_the_backend_does_not_offer);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}
