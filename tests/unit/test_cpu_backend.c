/* SPDX-License-Identifier: MIT */
/* The CPU backend through gpu.h: queue, bands, depth, cancel, completion, capabilities. */
#include <poll.h>
#include <stdbool.h>
#include <string.h>

#include "gpu-worker/gpu.h"
#include "gpu-worker/ops/ops.h"
#include "unit.h"

#define JOBS 64u
#define SIDE 200u

/* A job and all that it points to. */
struct work {
    struct gpu_job job;
    struct request request;
    struct vgpu_denoise body;
    uint8_t in[SIDE * SIDE], out[SIDE * SIDE];
};

static struct work works[JOBS];
static struct gpu *gpu;

static void open_gpu(uint32_t threads, uint32_t depth)
{
    struct gpu_config config = {.threads = threads, .depth = depth};
    char why[GPU_WHY_MAX];

    ck_assert_int_eq(gpu_cpu.open(&config, &gpu, why), 0);
}

static struct work *make(unsigned index, uint16_t op, uint8_t band, uint64_t bytes)
{
    struct work *w = &works[index];

    memset(w, 0, sizeof(*w));
    memset(w->in, (int)index + 1, sizeof(w->in));
    w->request.hdr.op = op;
    w->request.hdr.nbufs = 2;
    w->request.bytes = (const uint8_t *)&w->body;
    w->job.request = &w->request;
    w->job.band = band;
    w->job.user = w;
    w->job.bufs[0] = (struct gpu_buf){.dir = VGPU_BUF_IN, .host = w->in, .length = bytes};
    w->job.bufs[1] = (struct gpu_buf){.dir = VGPU_BUF_OUT, .host = w->out, .length = bytes};
    return w;
}

static struct work *make_echo(unsigned index, uint8_t band)
{
    return make(index, VGPU_OP_ECHO, band, sizeof(works[0].in));
}

/* Takes many seconds unless it is stopped. */
static struct work *make_slow(unsigned index)
{
    struct work *w = make(index, VGPU_OP_DENOISE, VGPU_BAND_NORMAL, SIDE * SIDE);

    w->body = (struct vgpu_denoise){
        .dtype = VGPU_DTYPE_U8,
        .channels = 1,
        .patch = 8,
        .search = 32,
        .sigma = 1,
        .h = 1,
        .width = SIDE,
        .height = SIDE,
        .stride = SIDE,
        .w = SIDE,
        .h_out = SIDE,
    };
    return w;
}

/* Waits on the completion descriptor. */
static struct gpu_job *wait_one(void)
{
    struct gpu_job *job;

    while (gpu_cpu.poll(gpu, &job, 1) == 0) {
        struct pollfd fd = {.fd = gpu_cpu.completion_fd(gpu), .events = POLLIN};

        if (!gpu_cpu.arm(gpu)) {
            ck_assert_int_eq(poll(&fd, 1, 60000), 1);
        }
    }
    return job;
}

static void wait_started(const struct work *w)
{
    while (!atomic_load(&w->job.started_ns)) {
        poll(NULL, 0, 1);
    }
}

START_TEST(every_job_comes_back_once)
{
    open_gpu(3, JOBS);
    for (unsigned round = 0; round < 20; round++) {
        unsigned seen[JOBS] = {0};
        for (unsigned i = 0; i < JOBS; i++) {
            ck_assert_int_eq(gpu_cpu.submit(gpu, &make_echo(i, i % VGPU_BANDS)->job), 0);
        }
        for (unsigned i = 0; i < JOBS; i++) {
            struct work *w = wait_one()->user;
            ck_assert_uint_eq(w->job.error, VGPU_E_OK);
            ck_assert_mem_eq(w->in, w->out, sizeof(w->in));
            ck_assert_uint_eq(seen[w - works]++, 0);
        }
    }
    gpu_cpu.close(gpu);
}
END_TEST

START_TEST(depth_is_a_limit)
{
    open_gpu(1, 2);
    ck_assert_int_eq(gpu_cpu.submit(gpu, &make_slow(0)->job), 0);
    ck_assert_int_eq(gpu_cpu.submit(gpu, &make_echo(1, 0)->job), 0);
    ck_assert_int_eq(gpu_cpu.submit(gpu, &make_echo(2, 0)->job), GPU_E_FULL);
    gpu_cpu.cancel(gpu, &works[0].job, VGPU_E_CANCELLED);
    wait_one();
    ck_assert_int_eq(gpu_cpu.submit(gpu, &works[2].job), 0);
    wait_one();
    wait_one();
    gpu_cpu.close(gpu);
}
END_TEST

START_TEST(higher_bands_first_fifo_within)
{
    static const uint8_t bands[] = {0, 3, 1, 3, 2, 0};
    static const unsigned order[] = {2, 4, 5, 3, 1, 6};

    open_gpu(1, JOBS);
    gpu_cpu.submit(gpu, &make_slow(0)->job);
    wait_started(&works[0]);
    for (unsigned i = 0; i < N_ELEMS(bands); i++) {
        gpu_cpu.submit(gpu, &make_echo(i + 1, bands[i])->job);
    }
    gpu_cpu.cancel(gpu, &works[0].job, VGPU_E_DEADLINE);
    ck_assert_ptr_eq(wait_one()->user, &works[0]);
    ck_assert_uint_eq(works[0].job.error, VGPU_E_DEADLINE);
    for (unsigned i = 0; i < N_ELEMS(order); i++) {
        ck_assert_ptr_eq(wait_one()->user, &works[order[i]]);
    }
    gpu_cpu.close(gpu);
}
END_TEST

START_TEST(a_queued_job_is_cancelled_at_once)
{
    open_gpu(1, JOBS);
    gpu_cpu.submit(gpu, &make_slow(0)->job);
    wait_started(&works[0]);
    gpu_cpu.submit(gpu, &make_echo(1, 0)->job);
    gpu_cpu.submit(gpu, &make_echo(2, 0)->job);
    gpu_cpu.cancel(gpu, &works[2].job, VGPU_E_CANCELLED);
    ck_assert_ptr_eq(wait_one()->user, &works[2]);
    ck_assert_uint_eq(works[2].job.error, VGPU_E_CANCELLED);
    ck_assert_uint_eq(atomic_load(&works[2].job.started_ns), 0);
    gpu_cpu.submit(gpu, &make_echo(3, 0)->job); /* the list's end is right after a removal */
    gpu_cpu.cancel(gpu, &works[0].job, VGPU_E_CANCELLED);
    wait_one();
    ck_assert_ptr_eq(wait_one()->user, &works[1]);
    ck_assert_ptr_eq(wait_one()->user, &works[3]);
    gpu_cpu.close(gpu);
}
END_TEST

/* With the only thread busy a tiny job is done when submit() returns, a larger one waits. */
START_TEST(tiny_jobs_do_not_wait_for_a_thread)
{
    struct gpu_job *job;

    open_gpu(1, JOBS);
    gpu_cpu.submit(gpu, &make_slow(0)->job);
    wait_started(&works[0]);
    gpu_cpu.submit(gpu, &make(1, VGPU_OP_ECHO, 0, 64)->job);
    ck_assert_uint_eq(gpu_cpu.poll(gpu, &job, 1), 1);
    ck_assert_ptr_eq(job, &works[1].job);
    ck_assert_mem_eq(works[1].in, works[1].out, 64);
    ck_assert_uint_eq(works[1].out[64], 0);
    gpu_cpu.submit(gpu, &make_echo(2, 0)->job);
    ck_assert_uint_eq(gpu_cpu.poll(gpu, &job, 1), 0);
    gpu_cpu.cancel(gpu, &works[0].job, VGPU_E_CANCELLED);
    wait_one();
    wait_one();
    gpu_cpu.close(gpu);
}
END_TEST

START_TEST(the_descriptor_says_what_came_after_arming)
{
    struct pollfd fd = {.events = POLLIN};
    struct gpu_job *jobs[4];

    open_gpu(1, JOBS);
    fd.fd = gpu_cpu.completion_fd(gpu);
    ck_assert(!gpu_cpu.arm(gpu));
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    gpu_cpu.submit(gpu, &make_slow(3)->job);
    wait_started(&works[3]);
    for (unsigned i = 0; i < 3; i++) {
        gpu_cpu.submit(gpu, &make_echo(i, 0)->job);
    }
    ck_assert(!gpu_cpu.arm(gpu));
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    gpu_cpu.cancel(gpu, &works[3].job, VGPU_E_CANCELLED);
    ck_assert_int_eq(poll(&fd, 1, 60000), 1);
    for (size_t n = 0; n < 4;) {
        n += gpu_cpu.poll(gpu, jobs, 1);
    }
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    ck_assert_uint_eq(gpu_cpu.poll(gpu, jobs, 4), 0);
    ck_assert(!gpu_cpu.arm(gpu));
    gpu_cpu.close(gpu);
}
END_TEST

/* Who polls is not rung for, and arming tells what is there already. */
START_TEST(no_bell_while_the_owner_polls)
{
    struct pollfd fd = {.events = POLLIN};
    struct gpu_job *job;

    open_gpu(1, JOBS);
    fd.fd = gpu_cpu.completion_fd(gpu);
    gpu_cpu.submit(gpu, &make_echo(0, 0)->job);
    while (gpu_cpu.poll(gpu, &job, 1) == 0) {
    }
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    gpu_cpu.submit(gpu, &make(1, VGPU_OP_ECHO, 0, 64)->job);
    ck_assert(gpu_cpu.arm(gpu));
    ck_assert_uint_eq(gpu_cpu.poll(gpu, &job, 1), 1);
    ck_assert_int_eq(poll(&fd, 1, 0), 0);
    gpu_cpu.close(gpu);
}
END_TEST

START_TEST(what_cannot_be_submitted)
{
    open_gpu(1, 2);
    make_echo(0, VGPU_BANDS);
    ck_assert_int_lt(gpu_cpu.submit(gpu, &works[0].job), 0);
    make(0, VGPU_OP_LAUNCH, 0, 8);
    ck_assert_int_lt(gpu_cpu.submit(gpu, &works[0].job), 0);
    ck_assert_int_eq(gpu_cpu.submit(gpu, &make_echo(0, 0)->job), 0);
    wait_one();
    gpu_cpu.close(gpu);
    gpu_cpu.close(NULL);
}
END_TEST

START_TEST(capabilities_lie_within_the_definition_of_the_ops)
{
    struct gpu_config config = {.threads = 1, .depth = 1};
    struct gpu_caps caps;
    char why[GPU_WHY_MAX];

    ck_assert_int_eq(gpu_cpu.probe(&config, &caps, why), 0);
    ck_assert_uint_gt(strlen(caps.device), 0);
    for (uint32_t op = 0; op < GPU_OPS_MAX; op++) {
        const struct op *definition = ops_find(op);
        bool offered = caps.ops >> op & 1;
        ck_assert_msg(!offered || definition, "op %u", op);
        ck_assert_msg(!caps.op_dtypes[op] ||
                          (offered && !(caps.op_dtypes[op] & ~definition->dtypes)),
                      "op %u", op);
    }
}
END_TEST

START_TEST(objects_are_not_for_the_cpu)
{
    struct gpu_object *object;

    open_gpu(1, 1);
    ck_assert_int_eq(gpu_cpu.object_put(gpu, 1, works[0].in, works[0].in, 8, &object),
                     GPU_E_UNSUPPORTED);
    gpu_cpu.close(gpu);
}
END_TEST

START_TEST(backends_by_name)
{
    ck_assert_ptr_eq(gpu_backend_find("cpu"), &gpu_cpu);
    ck_assert_ptr_nonnull(gpu_backend_find("auto"));
    ck_assert_ptr_null(gpu_backend_find("abacus"));
    ck_assert_ptr_nonnull(strstr(gpu_backend_names(), "cpu"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cpu backend");
    TCase *tc = tcase_create("queue");

    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, every_job_comes_back_once);
    tcase_add_test(tc, depth_is_a_limit);
    tcase_add_test(tc, higher_bands_first_fifo_within);
    tcase_add_test(tc, a_queued_job_is_cancelled_at_once);
    tcase_add_test(tc, tiny_jobs_do_not_wait_for_a_thread);
    tcase_add_test(tc, the_descriptor_says_what_came_after_arming);
    tcase_add_test(tc, no_bell_while_the_owner_polls);
    tcase_add_test(tc, what_cannot_be_submitted);
    tcase_add_test(tc, capabilities_lie_within_the_definition_of_the_ops);
    tcase_add_test(tc, objects_are_not_for_the_cpu);
    tcase_add_test(tc, backends_by_name);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}
