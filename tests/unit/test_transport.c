/* SPDX-License-Identifier: MIT */
/*
 * test_transport.c - requests through the windows and through a ring of a simulated device: results,
 * ends of every kind, and many threads at once
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "common/clock.h"
#include "common/core/request.h"
#include "guest/lib/client.h"
#include "tests/lib/fakedev/fake.h"
#include "tests/unit/unit.h"

#define SHM (UINT64_C(8) << 20)
#define LIMIT_MS 20000 /* longest time that anything may take; never reached when all is well */

static struct fake *fake;
static struct vgpu *gpu;
static uint32_t rings;          /* of the device: 0, all goes through the windows */
static atomic_uint states_seen; /* bit n: on_state() was called with state n */

static void on_state(void *arg, enum vgpu_state state)
{
    (void)arg;
    atomic_fetch_or(&states_seen, 1u << state);
}

static int try_open(const struct fake_config *config, struct vgpu_err *err)
{
    struct vgpu_options options = {.on_state = on_state};
    struct place place;
    struct transport *t;
    int r;

    fake = fake_new(config);
    place = fake_place(fake);
    r = path_open(&place, VGPU_PATH_AUTO, &t, err);
    return r ? r : client_new(t, &options, &gpu);
}

static void open_with(struct fake_config config)
{
    struct vgpu_err err;

    atomic_store(&states_seen, 0);
    config.shm_bytes = config.shm_bytes ? config.shm_bytes : SHM;
    config.rings = rings;
    ck_assert_int_eq(try_open(&config, &err), 0);
}

static void close_all(void)
{
    vgpu_close(gpu);
    fake_free(fake);
}

static struct vgpu_request *new_request(uint32_t deadline_ms, uint8_t retry_busy)
{
    struct vgpu_request_options o = {
        .deadline_ms = deadline_ms, .band = VGPU_BAND_DEFAULT, .retry_busy = retry_busy};
    struct vgpu_request *req = vgpu_request_new(gpu);

    ck_assert_ptr_nonnull(req);
    vgpu_request_set(req, &o);
    return req;
}

/* ---- results ---- */

static const uint64_t echo_sizes[] = {1, 7, 64, 255, 256, 257, 960, 4096, 100000, 1 << 20};

START_TEST(echo)
{
    uint64_t n = echo_sizes[_i];
    uint8_t *in = malloc(n), *out = calloc(1, n);
    struct vgpu_request *req;
    struct vgpu_err err = {.text = ""};

    open_with((struct fake_config){0});
    ck_assert(in && out);
    for (uint64_t i = 0; i < n; i++) {
        in[i] = (uint8_t)(i * 7 + 3);
    }
    req = new_request(0, 0);
    ck_assert_int_eq(vgpu_echo(req, in, out, n), 0);
    ck_assert_msg(vgpu_run(req, &err) == 0, "%lu: %s", (unsigned long)n, err.text);
    ck_assert_mem_eq(in, out, n);
    ck_assert_uint_ne(vgpu_result(req)->worker, 0);
    ck_assert_str_eq(vgpu_result_text(req), "");
    ck_assert_int_eq(vgpu_run(req, &err), 0); /* the same request once more */
    vgpu_request_free(req);
    ck_assert_uint_eq(gpu->arena.used == NULL, 1); /* nothing of the staging is left */
    close_all();
    free(in);
    free(out);
}
END_TEST

START_TEST(echo_in_place)
{
    struct vgpu_request *req;
    uint8_t *in, *out, bytes[VGPU_WINDOW_SIZE];
    struct vgpu_req_hdr hdr;
    struct vgpu_buf bufs[2];

    open_with((struct fake_config){0});
    in = vgpu_alloc(gpu, 5000);
    out = vgpu_alloc(gpu, 5000);
    ck_assert(in && out);
    memset(in, 0x42, 5000);
    req = new_request(0, 0);
    vgpu_echo(req, in, out, 5000);
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    ck_assert_mem_eq(in, out, 5000);
    ck_assert_uint_ge(fake_last_request(fake, bytes), sizeof(hdr) + sizeof(bufs));
    memcpy(bufs, bytes + sizeof(hdr), sizeof(bufs));
    ck_assert_uint_eq(bufs[0].kind, VGPU_BUF_ARENA);
    ck_assert_uint_eq(bufs[0].offset, (uint64_t)(in - gpu->transport->limits.arena));
    ck_assert_uint_eq(bufs[1].offset, (uint64_t)(out - gpu->transport->limits.arena));
    /* In and out at the same place of the arena: the device sees it and says so. */
    vgpu_echo(req, in, in, 5000);
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_OVERLAP);
    /* Elsewhere that is fine, since both are copied. */
    uint8_t same[600];
    memset(same, 9, sizeof(same));
    vgpu_echo(req, same, same, sizeof(same));
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    vgpu_request_free(req);
    vgpu_free(gpu, in);
    vgpu_free(gpu, out);
    close_all();
}
END_TEST

START_TEST(without_arena)
{
    struct fake_config config = {0};
    struct vgpu_request *req;
    struct vgpu_device device;
    struct vgpu_err err;
    uint8_t in[2000] = {1, 2, 3}, out[2000] = {0};

    ck_assert_int_eq(try_open(&config, &err), 0);
    req = new_request(0, 0);
    vgpu_echo(req, in, out, 900);
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    ck_assert_mem_eq(in, out, 900);
    vgpu_echo(req, in, out, 2000);
    ck_assert_int_eq(vgpu_run(req, &err), -EMSGSIZE);
    ck_assert_ptr_nonnull(strstr(err.text, "no arena"));
    ck_assert_ptr_null(vgpu_alloc(gpu, 64));
    ck_assert_int_eq(errno, ENOTSUP);
    ck_assert_uint_eq(vgpu_available(gpu), 0);
    ck_assert_int_eq(vgpu_describe(gpu, &device), 0);
    ck_assert_uint_eq(device.arena_bytes, 0);
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(arena_too_small)
{
    static uint8_t data[UINT64_C(5) << 20];
    struct vgpu_request *req;
    struct vgpu_err err;
    void *big;

    open_with((struct fake_config){0});
    req = new_request(0, 0);
    vgpu_echo(req, data, data, sizeof(data)); /* twice 5 MiB do not fit 8 MiB */
    ck_assert_int_eq(vgpu_run(req, &err), -ENOMEM);
    ck_assert_ptr_nonnull(strstr(err.text, "buffer 1 needs 5242880 bytes of the arena"));
    big = vgpu_alloc(gpu, 7 << 20); /* what was staged has been given back */
    ck_assert_ptr_nonnull(big);
    ck_assert_ptr_null(vgpu_alloc(gpu, 2 << 20));
    ck_assert_int_eq(errno, ENOMEM);
    vgpu_free(gpu, big);
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(info_and_describe)
{
    struct vgpu_info info;
    struct vgpu_device device;
    struct vgpu_err err;

    open_with((struct fake_config){0});
    ck_assert_int_eq(vgpu_info(gpu, 0, &info, &err), 0);
    ck_assert_str_eq(info.vm, "vm-fake");
    ck_assert_uint_eq(info.workers, 2);
    ck_assert_int_eq(vgpu_describe(gpu, &device), 0);
    ck_assert_uint_eq(device.vm_id, 7);
    ck_assert_uint_eq(device.shm_bytes, SHM);
    ck_assert_uint_eq(device.arena_bytes, gpu->transport->limits.arena_bytes);
    ck_assert_uint_eq(device.rings, rings);
    ck_assert_int_eq(device.ring, rings ? 0 : -1);
    ck_assert_uint_eq(device.depth, rings ? 62 : 1);
    ck_assert_str_eq(device.path, rings ? "simulated: ring 0 of 1, 62 requests at a time, polled"
                                        : "simulated: BAR 0 windows, polled");
    ck_assert_str_eq(device.no_ring, rings ? "" : "the device offers none");
    close_all();
}
END_TEST

/* ---- errors ---- */

START_TEST(error_with_text)
{
    struct vgpu_request *req;
    struct vgpu_err err;
    uint8_t in[8] = {0}, out[8] = {5, 5};

    open_with((struct fake_config){.error = VGPU_E_NO_MEMORY});
    req = new_request(0, 0);
    vgpu_echo(req, in, out, 8);
    ck_assert_int_eq(vgpu_run(req, &err), VGPU_E_NO_MEMORY);
    ck_assert_str_eq(err.text, "NO_MEMORY: the worker can never hold what this request needs: as "
                               "the test?wants it"); /* no control characters get through */
    ck_assert_str_eq(err.text, vgpu_result_text(req));
    ck_assert_uint_eq(out[0], 5); /* outputs are untouched after a failure */
    vgpu_request_free(req);
    close_all();
}
END_TEST

static const struct {
    uint32_t nonsense;
    int result;
} nonsenses[] = {
    {1, -EPROTO},         /* a response to another request */
    {2, VGPU_E_INTERNAL}, /* longer than the window */
    {3, -EPROTO},         /* STATUS says error, ERROR and the response say none */
    {4, -EPROTO},         /* without the payload that it should have */
};

START_TEST(nonsense)
{
    struct vgpu_request *req;
    uint8_t in[8] = {1}, out[8] = {0};

    open_with((struct fake_config){.nonsense = nonsenses[_i].nonsense});
    req = new_request(0, 0);
    vgpu_echo(req, in, out, 8);
    ck_assert_int_eq(vgpu_run(req, NULL), nonsenses[_i].result);
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM});
    ck_assert_int_eq(vgpu_run(req, NULL), 0); /* the device is usable all the same */
    vgpu_request_free(req);
    close_all();
}
END_TEST

/* clang-format off */
static const struct {
    const char *name;
    struct fake_config config;
    int result;
    const char *says;
} unusable[] = {
    { "another magic",  { .magic = 0x12345678 },  -EPROTO,          "another device" },
    { "unplugged",      { .magic = UINT32_MAX },  -ENODEV,          "does not answer" },
    { "a later major",  { .abi = 0x00020003 },    -EPROTONOSUPPORT, "version 2.3" },
    { "arena outside",  { .shm_bytes = SHM, .arena_offset = 1 << 24 }, -EPROTO, "BAR 2 has" },
    { "arena askew",    { .shm_bytes = SHM, .arena_offset = 0x8001 },  -EPROTO, "BAR 2 has" },
};
/* clang-format on */

START_TEST(open_errors)
{
    struct vgpu_err err;

    ck_assert_msg(try_open(&unusable[_i].config, &err) == unusable[_i].result, "%s: %s",
                  unusable[_i].name, err.text);
    ck_assert_msg(strstr(err.text, unusable[_i].says) != NULL, "%s: %s", unusable[_i].name,
                  err.text);
    ck_assert_int_eq(err.code, unusable[_i].result);
    fake_free(fake);
}
END_TEST

START_TEST(later_minor_is_fine)
{
    open_with((struct fake_config){.abi = VGPU_ABI_VERSION + 7});
    close_all();
}
END_TEST

START_TEST(busy_is_an_error_unless_asked)
{
    struct vgpu_request *req;
    uint8_t in[8] = {1}, out[8] = {0};
    uint64_t start_ns;

    open_with((struct fake_config){.busy = 1, .retry_ms = 30});
    req = new_request(0, 0);
    vgpu_echo(req, in, out, 8);
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_BUSY);
    ck_assert_uint_eq(vgpu_result(req)->retry_after_ms, 30);
    vgpu_request_free(req);
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM, .busy = 3, .retry_ms = 30});
    req = new_request(0, 1);
    vgpu_echo(req, in, out, 8);
    start_ns = clock_now_ns();
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    ck_assert_uint_ge(clock_now_ns() - start_ns, 90 * CLOCK_NS_PER_MS);
    ck_assert_mem_eq(in, out, 8);
    vgpu_request_free(req);
    /* No longer than the deadline. */
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM, .busy = 1000, .retry_ms = 20});
    req = new_request(100, 1);
    vgpu_echo(req, in, out, 8);
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_BUSY);
    vgpu_request_free(req);
    close_all();
}
END_TEST

/* ---- ends that are not results ---- */

START_TEST(cancel_in_flight_and_queued)
{
    struct vgpu_request *flying, *queued;
    uint8_t in[8] = {0}, out[8];

    open_with((struct fake_config){.delay_ms = LIMIT_MS});
    flying = new_request(0, 0);
    queued = new_request(0, 0);
    vgpu_echo(flying, in, out, 8);
    vgpu_echo(queued, in, out, 8);
    ck_assert_int_eq(vgpu_submit(flying), 0);
    ck_assert_int_eq(vgpu_submit(queued), 0);
    ck_assert_int_eq(vgpu_submit(queued), -EBUSY);
    ck_assert_int_eq(vgpu_request_begin(queued, VGPU_OP_ECHO), -EBUSY);
    ck_assert_int_eq(vgpu_poll(flying), -EINPROGRESS);
    ck_assert_int_eq(vgpu_wait(queued, 20), -ETIMEDOUT);
    ck_assert_int_eq(vgpu_cancel(queued), 0);
    ck_assert_int_eq(vgpu_wait(queued, LIMIT_MS), VGPU_E_CANCELLED);
    ck_assert_int_eq(vgpu_cancel(flying), 0);
    ck_assert_int_eq(vgpu_wait(flying, LIMIT_MS), VGPU_E_CANCELLED);
    ck_assert_int_eq(vgpu_cancel(flying), 0); /* too late is not an error */
    vgpu_request_free(flying);
    vgpu_request_free(queued);
    close_all();
}
END_TEST

START_TEST(free_cancels)
{
    struct vgpu_request *req;
    uint8_t in[8] = {0}, out[8];

    open_with((struct fake_config){.delay_ms = LIMIT_MS});
    req = new_request(0, 0);
    vgpu_echo(req, in, out, 8);
    ck_assert_int_eq(vgpu_submit(req), 0);
    vgpu_request_free(req);
    ck_assert_uint_eq(fake_served(fake), rings ? 2 : 1); /* in a ring a cancel is a request too */
    close_all();
}
END_TEST

START_TEST(deadline_of_the_device)
{
    struct vgpu_request *first, *second;
    uint8_t in[8] = {0}, out[8];

    open_with((struct fake_config){.delay_ms = LIMIT_MS});
    first = new_request(50, 0);
    second = new_request(80, 0);
    vgpu_echo(first, in, out, 8);
    vgpu_echo(second, in, out, 8);
    vgpu_submit(first);
    vgpu_submit(second);
    ck_assert_int_eq(vgpu_wait(second, LIMIT_MS), VGPU_E_DEADLINE);
    ck_assert_int_eq(vgpu_wait(first, LIMIT_MS), VGPU_E_DEADLINE);
    vgpu_request_free(first);
    vgpu_request_free(second);
    close_all();
}
END_TEST

/* A device that never ends a request: the library does, and later resets the device. */
START_TEST(deadline_of_the_library)
{
    struct vgpu_request *req;
    struct vgpu_device device;
    static uint8_t data[2000];
    uint8_t *mine;

    open_with((struct fake_config){.hang = 1, .ignore_cancel = 1});
    mine = vgpu_alloc(gpu, 4096);
    req = new_request(50, 0);
    vgpu_echo(req, data, mine, sizeof(data));
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_DEADLINE);
    ck_assert_ptr_nonnull(strstr(vgpu_result_text(req), "gave it up"));
    vgpu_free(gpu, mine); /* allowed, but the device may still write there: */
    ck_assert_ptr_nonnull(gpu->arena.put_off);
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM});
    vgpu_echo(req, data, data, 8);
    vgpu_request_set(req, &(struct vgpu_request_options){.deadline_ms = LIMIT_MS});
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    ck_assert_ptr_null(gpu->arena.put_off);
    vgpu_describe(gpu, &device);
    ck_assert_uint_eq(device.reset_epoch, 0); /* a cancel was enough once the device listened */
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(hung_device_is_reset)
{
    struct vgpu_request *req;
    struct vgpu_device device;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.hang = 1, .ignore_cancel = 1});
    req = new_request(50, 0);
    vgpu_echo(req, data, data, 8);
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_DEADLINE);
    vgpu_request_set(req, &(struct vgpu_request_options){.deadline_ms = 5000});
    ck_assert_int_eq(vgpu_submit(req), 0);
    while (vgpu_describe(gpu, &device) == 0 && device.reset_epoch == 0) {
        ck_assert_int_eq(vgpu_wait(req, 10), -ETIMEDOUT);
    }
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM});
    ck_assert_int_eq(vgpu_cancel(req), 0);
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(reset)
{
    struct vgpu_request *req;
    struct vgpu_err err;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.delay_ms = LIMIT_MS});
    req = new_request(0, 0);
    vgpu_echo(req, data, data, 8);
    ck_assert_int_eq(vgpu_submit(req), 0);
    ck_assert_int_eq(vgpu_reset(gpu, LIMIT_MS, &err), 0);
    ck_assert_int_eq(vgpu_wait(req, LIMIT_MS), VGPU_E_DEVICE_RESET);
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM, .deaf = 1});
    ck_assert_int_eq(vgpu_reset(gpu, 50, &err), -ETIMEDOUT);
    ck_assert_ptr_nonnull(strstr(err.text, "50 ms"));
    /* While it is resetting, requests wait, and it is said. */
    vgpu_request_set(req, &(struct vgpu_request_options){.deadline_ms = 50});
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_DEADLINE);
    ck_assert(atomic_load(&states_seen) & 1u << VGPU_STATE_RESETTING);
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(left_behind_request)
{
    struct vgpu_request *req;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.busy_at_start = 1, .delay_ms = LIMIT_MS});
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM, .hang = 1});
    req = new_request(LIMIT_MS, 0);
    vgpu_echo(req, data, data, 8);
    ck_assert_int_eq(vgpu_submit(req), 0);
    while (fake_served(fake) == 0) { /* the other one, by a cancel */
        ck_assert_int_eq(vgpu_wait(req, 10), -ETIMEDOUT);
    }
    fake_set(fake, &(struct fake_config){.shm_bytes = SHM});
    ck_assert_int_eq(vgpu_wait(req, LIMIT_MS), 0);
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(no_backend)
{
    struct vgpu_request *req;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.up_after_ms = 150});
    req = new_request(0, 0);
    vgpu_echo(req, data, data, 8);
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    ck_assert(atomic_load(&states_seen) & 1u << VGPU_STATE_NO_BACKEND);
    ck_assert(atomic_load(&states_seen) & 1u << VGPU_STATE_UP);
    vgpu_request_free(req);
    close_all();

    open_with((struct fake_config){.up_after_ms = LIMIT_MS});
    req = new_request(60, 0);
    vgpu_echo(req, data, data, 8);
    ck_assert_int_eq(vgpu_run(req, NULL), VGPU_E_NO_BACKEND);
    vgpu_request_free(req);
    close_all();
}
END_TEST

START_TEST(unplugged)
{
    struct vgpu_request *req, *queued;
    struct vgpu_device device;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.delay_ms = LIMIT_MS});
    req = new_request(0, 0);
    queued = new_request(0, 0);
    vgpu_echo(req, data, data, 8);
    vgpu_echo(queued, data, data, 8);
    vgpu_submit(req);
    vgpu_submit(queued);
    fake_unplug(fake);
    ck_assert_int_eq(vgpu_wait(queued, LIMIT_MS), -ENODEV);
    ck_assert_int_eq(vgpu_wait(req, LIMIT_MS), -ENODEV);
    ck_assert_int_eq(vgpu_run(req, NULL), -ENODEV);
    ck_assert_int_eq(vgpu_describe(gpu, &device), -ENODEV);
    vgpu_request_free(req);
    vgpu_request_free(queued);
    close_all();
}
END_TEST

START_TEST(wait_any)
{
    struct vgpu_request *reqs[4] = {NULL};
    uint8_t data[4][8] = {{0}};
    size_t i;

    open_with((struct fake_config){0});
    ck_assert_int_eq(vgpu_wait_any(reqs, 4, 10, &i), -EINVAL);
    for (i = 1; i < 4; i++) {
        reqs[i] = new_request(0, 0);
    }
    ck_assert_int_eq(vgpu_wait_any(reqs, 4, 10, &i), -EINVAL); /* none was submitted */
    for (i = 1; i < 3; i++) {
        vgpu_echo(reqs[i], data[i], data[i], 8);
        vgpu_submit(reqs[i]);
    }
    for (unsigned n = 0; n < 2; n++) {
        ck_assert_int_eq(vgpu_wait_any(reqs, 4, LIMIT_MS, &i), 0);
        ck_assert(i == 1 || i == 2);
        ck_assert_int_eq(vgpu_poll(reqs[i]), 0);
        vgpu_request_free(reqs[i]);
        reqs[i] = NULL;
    }
    vgpu_request_free(reqs[3]);
    close_all();
}
END_TEST

/* ---- threads ---- */

#define THREADS 8u
#define PER_THREAD 4u
#define ROUNDS 40u

static void check_echo(const uint8_t *in, const uint8_t *out, size_t n)
{
    ck_assert_msg(memcmp(in, out, n) == 0, "an echo came back changed");
}

/* A thread keeps several requests of different sizes under way, and cancels some. */
static void *hammer(void *arg)
{
    static const size_t sizes[PER_THREAD] = {8, 200, 3000, 70000};
    struct vgpu_request *reqs[PER_THREAD];
    uint8_t *in[PER_THREAD], *out[PER_THREAD];
    uint64_t random = 1 + (uint64_t)(uintptr_t)arg;
    uint64_t ended = 0;

    for (unsigned i = 0; i < PER_THREAD; i++) {
        reqs[i] = new_request(0, 0);
        in[i] = i == 2 ? vgpu_alloc(gpu, sizes[i]) : malloc(sizes[i]);
        out[i] = malloc(sizes[i]);
        ck_assert(in[i] && out[i]);
        memset(in[i], (int)(random + i), sizes[i]);
    }
    for (unsigned round = 0; round < ROUNDS; round++) {
        bool cancelled[PER_THREAD] = {false};

        for (unsigned i = 0; i < PER_THREAD; i++) {
            memset(out[i], 0, sizes[i]);
            ck_assert_int_eq(vgpu_echo(reqs[i], in[i], out[i], sizes[i]), 0);
            ck_assert_int_eq(vgpu_submit(reqs[i]), 0);
            cancelled[i] = unit_below(&random, 8) == 0;
            if (cancelled[i]) {
                vgpu_cancel(reqs[i]);
            }
        }
        for (unsigned i = 0; i < PER_THREAD; i++) {
            int r = round % 2 ? vgpu_wait(reqs[i], -1) : vgpu_poll(reqs[i]);

            r = r == -EINPROGRESS ? vgpu_wait(reqs[i], LIMIT_MS) : r;
            ck_assert_msg(r == 0 || (cancelled[i] && r == VGPU_E_CANCELLED), "result %d", r);
            if (r == 0) {
                check_echo(in[i], out[i], sizes[i]);
            }
            ended++;
        }
    }
    for (unsigned i = 0; i < PER_THREAD; i++) {
        vgpu_request_free(reqs[i]);
        free(out[i]);
    }
    vgpu_free(gpu, in[2]);
    free(in[0]);
    free(in[1]);
    free(in[3]);
    return (void *)(uintptr_t)ended;
}

START_TEST(many_threads)
{
    pthread_t threads[THREADS];
    uint64_t ended = 0;

    open_with((struct fake_config){.busy = 0});
    for (unsigned i = 0; i < THREADS; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, (void *)(uintptr_t)(i + 1)), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        void *n;

        ck_assert_int_eq(pthread_join(threads[i], &n), 0);
        ended += (uintptr_t)n;
    }
    ck_assert_uint_eq(ended, THREADS * PER_THREAD * ROUNDS);
    ck_assert_ptr_null(gpu->arena.used);
    ck_assert_uint_eq(gpu->requests, 0);
    close_all();
}
END_TEST

struct waiter {
    struct vgpu_request *req;
    int result;
};

static void *wait_for(void *arg)
{
    struct waiter *w = arg;

    w->result = vgpu_wait(w->req, -1);
    return NULL;
}

/* The thread that drives leaves; one that only slept takes over. */
START_TEST(driver_leaves)
{
    struct vgpu_request *short_one, *long_one;
    struct waiter w;
    pthread_t thread;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.delay_ms = 100});
    short_one = new_request(0, 0);
    long_one = new_request(0, 0);
    vgpu_echo(short_one, data, data, 8);
    vgpu_echo(long_one, data, data, 8);
    vgpu_submit(short_one);
    vgpu_submit(long_one);
    w = (struct waiter){.req = long_one};
    ck_assert_int_eq(pthread_create(&thread, NULL, wait_for, &w), 0);
    ck_assert_int_eq(vgpu_wait(short_one, LIMIT_MS), 0);
    pthread_join(thread, NULL);
    ck_assert_int_eq(w.result, 0);
    vgpu_request_free(short_one);
    vgpu_request_free(long_one);
    close_all();
}
END_TEST

/* Waiting costs little: an idle second is not spent on reading registers. */
START_TEST(naps)
{
    struct vgpu_request *req;
    uint64_t before;
    uint8_t data[8] = {0};

    open_with((struct fake_config){.delay_ms = 400});
    req = new_request(0, 0);
    vgpu_echo(req, data, data, 8);
    before = fake_accesses(fake);
    ck_assert_int_eq(vgpu_run(req, NULL), 0);
    ck_assert_uint_lt(fake_accesses(fake) - before, 3000);
    vgpu_request_free(req);
    close_all();
}
END_TEST

static void use_windows(void)
{
    rings = 0;
}

static void use_ring(void)
{
    rings = 1;
}

static void add_for_both(Suite *s, void (*setup)(void))
{
    TCase *results = tcase_create("results"), *errors = tcase_create("errors");
    TCase *ends = tcase_create("ends"), *threads = tcase_create("threads");
    TCase *all[] = {results, errors, ends, threads};

    tcase_add_loop_test(results, echo, 0, (int)N_ELEMS(echo_sizes));
    tcase_add_test(results, echo_in_place);
    tcase_add_test(results, arena_too_small);
    tcase_add_test(results, info_and_describe);
    tcase_add_test(errors, error_with_text);
    tcase_add_test(errors, busy_is_an_error_unless_asked);
    tcase_add_test(ends, cancel_in_flight_and_queued);
    tcase_add_test(ends, free_cancels);
    tcase_add_test(ends, deadline_of_the_device);
    tcase_add_test(ends, deadline_of_the_library);
    tcase_add_test(ends, reset);
    tcase_add_test(ends, no_backend);
    tcase_add_test(ends, unplugged);
    tcase_add_test(ends, wait_any);
    tcase_add_test(threads, many_threads);
    tcase_add_test(threads, driver_leaves);
    tcase_add_test(threads, naps);
    for (size_t i = 0; i < N_ELEMS(all); i++) {
        tcase_add_checked_fixture(all[i], setup, NULL);
        tcase_set_timeout(all[i], 60);
        suite_add_tcase(s, all[i]);
    }
}

int main(void)
{
    Suite *s = suite_create("transport");
    TCase *windows = tcase_create("windows");

    add_for_both(s, use_windows);
    add_for_both(s, use_ring);
    tcase_add_test(windows, without_arena);
    tcase_add_loop_test(windows, nonsense, 0, (int)N_ELEMS(nonsenses));
    tcase_add_loop_test(windows, open_errors, 0, (int)N_ELEMS(unusable));
    tcase_add_test(windows, later_minor_is_fine);
    tcase_add_test(windows, hung_device_is_reset);
    tcase_add_test(windows, left_behind_request);
    tcase_set_timeout(windows, 60);
    suite_add_tcase(s, windows);
    return unit_run(s);
}
