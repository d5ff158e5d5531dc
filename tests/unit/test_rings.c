/* SPDX-License-Identifier: MIT */
/*
 * test_rings.c - the rings of a simulated device: indices that wrap, full rings, devices that lie,
 * resets, and processes that share the rings and die
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/lib/client.h"
#include "tests/lib/fakedev/fake.h"
#include "tests/unit/unit.h"

#define SHM (UINT64_C(32) << 20)
#define LIMIT_MS 20000 /* longest time that anything may take; never reached when all is well */
#define MANY 300u
#define ENTRIES 16u
#define DEPTH (ENTRIES - 2u)

#if defined(__SANITIZE_THREAD__)
#define TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif
#ifndef TSAN
#define TSAN 0
#endif

static struct fake *fake;

static struct fake_config with_rings(struct fake_config c)
{
    c.shm_bytes = SHM;
    c.rings = c.rings ? c.rings : 2;
    c.entries = c.entries ? c.entries : ENTRIES;
    return c;
}

static void start_fake(struct fake_config c)
{
    struct fake_config config = with_rings(c);

    fake = fake_new(&config);
}

static void set_fake(struct fake_config c)
{
    struct fake_config config = with_rings(c);

    fake_set(fake, &config);
}

/* One more process of the VM. */
static struct vgpu *open_process(enum vgpu_path want)
{
    struct vgpu_options options = {.path = want};
    struct place place = fake_place_shared(fake);
    struct transport *t;
    struct vgpu_err err;
    struct vgpu *gpu;

    ck_assert_msg(path_open(&place, want, &t, &err) == 0, "%s", err.text);
    ck_assert_int_eq(client_new(t, &options, &gpu), 0);
    return gpu;
}

static struct vgpu_device describe(struct vgpu *gpu)
{
    struct vgpu_device device;

    ck_assert_int_eq(vgpu_describe(gpu, &device), 0);
    return device;
}

static struct vgpu_request *new_request(struct vgpu *gpu, uint32_t deadline_ms, uint32_t flags)
{
    struct vgpu_request_options o = {
        .deadline_ms = deadline_ms, .band = VGPU_BAND_DEFAULT, .flags = flags};
    struct vgpu_request *req = vgpu_request_new(gpu);

    ck_assert_ptr_nonnull(req);
    vgpu_request_set(req, &o);
    return req;
}

static int echo_once(struct vgpu *gpu, uint64_t bytes)
{
    uint8_t *in = malloc(bytes), *out = calloc(1, bytes);
    struct vgpu_request *req = new_request(gpu, LIMIT_MS, 0);
    int r;

    ck_assert(in && out);
    for (uint64_t i = 0; i < bytes; i++) {
        in[i] = (uint8_t)(i * 5 + 1);
    }
    vgpu_echo(req, in, out, bytes);
    r = vgpu_run(req, NULL);
    if (r == 0) {
        ck_assert_mem_eq(in, out, bytes);
    }
    vgpu_request_free(req);
    free(in);
    free(out);
    return r;
}

/* A request that does not end by itself, with its output in the arena. */
static struct vgpu_request *hanging(struct vgpu *gpu, uint8_t **ret_out)
{
    struct vgpu_request *req = new_request(gpu, LIMIT_MS, 0);
    static const uint8_t in[4096] = {7};

    *ret_out = vgpu_alloc(gpu, sizeof(in));
    ck_assert_ptr_nonnull(*ret_out);
    vgpu_echo(req, in, *ret_out, sizeof(in));
    ck_assert_int_eq(vgpu_submit(req), 0);
    return req;
}

/* The process is killed: its files close, nothing else happens. */
static void die(struct vgpu *gpu, struct vgpu_request *req)
{
    if (req) {
        req->state = REQUEST_ENDED;
        vgpu_request_free(req);
    }
    gpu->nflights = 0;
    vgpu_close(gpu);
}

/* ---- layouts ---- */

/* clang-format off */
static const struct {
    const char *name;
    struct fake_config config;
    const char *says;
} layouts[] = {
    { "not a power of two",     { .entries = 48 },              "about their entries" },
    { "too few entries",        { .entries = 8 },               "about their entries" },
    { "too many entries",       { .entries = 8192 },            "about their entries" },
    { "small slots",            { .slot_bytes = 128 },          "about their entries" },
    { "askew",                  { .ring_offset = 0x10040 },     "about its rings" },
    { "askew, later ones",      { .ring_stride = 0x40040 },     "about its rings" },
    { "in the reserved part",   { .ring_offset = 0x1000 },      "outside of their place" },
    { "one in the other",       { .ring_stride = 0x1000 },      "outside of their place" },
    { "in the arena",           { .ring_offset = 0x100000 },    "outside of their place" },
    { "outside of the BAR",     { .ring_offset = 0xfffff000 },  "outside of their place" },
    { "sum beyond 32 bits",     { .ring_stride = 0xfffff000 },  "outside of their place" },
};
/* clang-format on */

/* A device that talks nonsense about its rings is used by its windows. */
START_TEST(bad_layouts)
{
    struct vgpu_device device;
    struct vgpu *gpu;

    start_fake((struct fake_config){0});
    fake_set_registers(fake, &layouts[_i].config);
    gpu = open_process(VGPU_PATH_AUTO);
    device = describe(gpu);
    ck_assert_msg(device.ring == -1 && device.rings == 0, "%s", layouts[_i].name);
    ck_assert_msg(strstr(device.no_ring, layouts[_i].says) != NULL, "%s: %s", layouts[_i].name,
                  device.no_ring);
    ck_assert_int_eq(echo_once(gpu, 5000), 0);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

START_TEST(wanted_paths)
{
    struct vgpu *gpu;
    struct transport *t;
    struct place place;
    struct vgpu_err err;

    start_fake((struct fake_config){0});
    gpu = open_process(VGPU_PATH_WINDOWS);
    ck_assert_str_eq(describe(gpu).path, "simulated: BAR 0 windows, polled");
    ck_assert_str_eq(describe(gpu).no_ring, "this program asked for the windows");
    ck_assert_int_eq(echo_once(gpu, 5000), 0);
    vgpu_close(gpu);
    gpu = open_process(VGPU_PATH_RING);
    ck_assert_int_eq(describe(gpu).ring, 0);
    ck_assert_int_eq(echo_once(gpu, 5000), 0);
    vgpu_close(gpu);
    fake_free(fake);

    fake = fake_new(&(struct fake_config){.shm_bytes = SHM});
    place = fake_place_shared(fake);
    ck_assert_int_eq(path_open(&place, VGPU_PATH_RING, &t, &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "the device offers none"));
    fake_free(fake);
}
END_TEST

/* ---- many requests ---- */

/* All of a batch are handed in before the first is waited for. */
static void run_batch(struct vgpu *gpu, unsigned n)
{
    struct vgpu_request *reqs[MANY];
    uint32_t in[MANY], out[MANY] = {0};

    for (unsigned i = 0; i < n; i++) {
        reqs[i] = new_request(gpu, LIMIT_MS, 0);
        in[i] = i * 77 + 5;
        vgpu_echo(reqs[i], &in[i], &out[i], sizeof(in[i]));
        ck_assert_int_eq(vgpu_submit(reqs[i]), 0);
    }
    for (unsigned i = 0; i < n; i++) {
        ck_assert_int_eq(vgpu_wait(reqs[i], LIMIT_MS), 0);
        ck_assert_uint_eq(in[i], out[i]);
        vgpu_request_free(reqs[i]);
    }
}

static const struct fake_config orders[] = {
    {.index_start = 0},
    {.index_start = UINT32_MAX - 20},
    {.index_start = UINT32_MAX - 100, .reverse = 1, .delay_ms = 1},
    {.entries = 1024, .reverse = 1},
};

/* More than the ring holds, over the wrap of its indices, in and out of order. */
START_TEST(many_requests)
{
    struct vgpu *gpu;

    start_fake(orders[_i]);
    gpu = open_process(VGPU_PATH_RING);
    run_batch(gpu, MANY);
    run_batch(gpu, 3);
    ck_assert_uint_eq(fake_served(fake), MANY + 3);
    ck_assert_uint_le(fake_doorbells(fake), MANY + 3);
    ck_assert_uint_eq(gpu->nflights, 0);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* Nobody is told to wake up who has not gone to sleep. */
START_TEST(one_doorbell_for_many)
{
    struct vgpu *gpu;
    uint64_t before, began_ns = clock_now_ns();

    start_fake((struct fake_config){.asleep = 1});
    gpu = open_process(VGPU_PATH_RING);
    before = fake_doorbells(fake);
    for (unsigned i = 0; i < DEPTH; i++) {
        struct vgpu_request *req = new_request(gpu, 0, 0);
        uint8_t byte = 1;

        vgpu_echo(req, &byte, &byte, 1);
        ck_assert_int_eq(vgpu_submit(req), 0);
        req->state = REQUEST_ENDED;
        vgpu_request_free(req);
    }
    /* And one more per millisecond in which nothing came, in case that it was not heard. */
    ck_assert_uint_ge(fake_doorbells(fake) - before, 1);
    ck_assert_uint_le(fake_doorbells(fake) - before,
                      1 + (clock_now_ns() - began_ns) / CLOCK_NS_PER_MS);
    die(gpu, NULL);
    fake_free(fake);
}
END_TEST

/* As in an emulator that drops the fence between submit_tail and submit_event. */
START_TEST(doorbells_that_are_not_heard)
{
    struct vgpu *gpu;

    start_fake((struct fake_config){.lose_bells = 3});
    gpu = open_process(VGPU_PATH_RING);
    while (fake_doorbells(fake) <= 3) { /* the device may see a request before it sleeps */
        ck_assert_int_eq(echo_once(gpu, 8), 0);
    }
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* A register is an exit of the VM: with work under way they are left alone. */
START_TEST(few_accesses)
{
    struct vgpu *gpu;
    uint64_t before;

    start_fake((struct fake_config){0});
    gpu = open_process(VGPU_PATH_RING);
    ck_assert_int_eq(echo_once(gpu, 8), 0);
    before = fake_accesses(fake) - fake_doorbells(fake);
    for (unsigned i = 0; i < 200; i++) {
        ck_assert_int_eq(echo_once(gpu, i % 2 ? 8 : 3000), 0);
    }
    /* STATUS is read when nothing came for a while, which a busy machine may bring about. */
    ck_assert_uint_lt(fake_accesses(fake) - fake_doorbells(fake) - before, 50);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

static void *open_in_thread(void *arg)
{
    (void)arg;
    return open_process(VGPU_PATH_AUTO);
}

/* Four that start at the same moment get all four rings. */
START_TEST(rings_for_all)
{
    pthread_t threads[4];
    struct vgpu *gpus[4];
    unsigned have = 0;

    start_fake((struct fake_config){.rings = 4});
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, open_in_thread, NULL), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        void *gpu;

        ck_assert_int_eq(pthread_join(threads[i], &gpu), 0);
        gpus[i] = gpu;
        ck_assert_msg(describe(gpus[i]).ring >= 0, "%s", describe(gpus[i]).no_ring);
        have |= 1u << describe(gpus[i]).ring;
    }
    ck_assert_uint_eq(have, 0xf);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(echo_once(gpus[i], 500), 0);
        vgpu_close(gpus[i]);
    }
    fake_free(fake);
}
END_TEST

START_TEST(ordered)
{
    struct vgpu_request *reqs[3];
    struct vgpu *gpu;
    uint8_t data[3][8] = {{1}};
    static const int want[3] = {VGPU_E_BACKEND_FAULT, VGPU_E_DEPENDENCY, VGPU_E_BACKEND_FAULT};

    start_fake((struct fake_config){.delay_ms = 20, .error = VGPU_E_BACKEND_FAULT, .reverse = 1});
    gpu = open_process(VGPU_PATH_RING);
    for (unsigned i = 0; i < 3; i++) {
        reqs[i] = new_request(gpu, LIMIT_MS, i == 1 ? VGPU_REQ_ORDERED : 0);
        vgpu_echo(reqs[i], data[i], data[i], 8);
        ck_assert_int_eq(vgpu_submit(reqs[i]), 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(vgpu_wait(reqs[i], LIMIT_MS), want[i]);
        vgpu_request_free(reqs[i]);
    }
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

START_TEST(cancel_a_full_ring)
{
    struct vgpu_request *reqs[DEPTH + 4];
    struct vgpu *gpu;
    uint8_t data[8] = {0}, out[DEPTH + 4][8];

    start_fake((struct fake_config){.hang = 1});
    gpu = open_process(VGPU_PATH_RING);
    for (unsigned i = 0; i < N_ELEMS(reqs); i++) {
        reqs[i] = new_request(gpu, LIMIT_MS, 0);
        vgpu_echo(reqs[i], data, out[i], 8);
        ck_assert_int_eq(vgpu_submit(reqs[i]), 0);
    }
    for (unsigned i = 0; i < N_ELEMS(reqs); i++) {
        ck_assert_int_eq(vgpu_cancel(reqs[i]), 0);
    }
    for (unsigned i = 0; i < N_ELEMS(reqs); i++) {
        ck_assert_int_eq(vgpu_wait(reqs[i], LIMIT_MS), VGPU_E_CANCELLED);
        vgpu_request_free(reqs[i]);
    }
    set_fake((struct fake_config){0});
    ck_assert_int_eq(echo_once(gpu, 100), 0);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* ---- devices that lie ---- */

static const struct {
    enum fake_lie lie;
    const char *says;
} lies[] = {
    {FAKE_LIE_JUMP, "complete_tail jumped"},
    {FAKE_LIE_SLOT, "a completion of a slot that is not in flight"},
    {FAKE_LIE_OTHER_SLOT, "a completion of a slot that is not in flight"},
    {FAKE_LIE_LENGTH, "a completion of a response that is larger than its slot"},
    {FAKE_LIE_TAG, "it completed a request that is not in that slot"},
    {FAKE_LIE_BROKEN, ""},
};

START_TEST(lying_device)
{
    struct vgpu_request *req, *other;
    struct vgpu *gpu;
    struct vgpu_err err;
    uint8_t *out, *out2;

    start_fake((struct fake_config){.hang = 1});
    gpu = open_process(VGPU_PATH_RING);
    req = hanging(gpu, &out);
    other = hanging(gpu, &out2);
    set_fake((struct fake_config){.hang = 1, .ring_lie = lies[_i].lie});
    ck_assert_int_eq(vgpu_cancel(other), 0); /* a request that the device answers, with a lie */
    ck_assert_int_eq(vgpu_wait(req, LIMIT_MS), VGPU_E_BROKEN);
    ck_assert_msg(strstr(vgpu_result_text(req), lies[_i].says) != NULL, "%s",
                  vgpu_result_text(req));
    ck_assert_int_gt(vgpu_wait(other, LIMIT_MS), 0);
    ck_assert_uint_ge(gpu->arena.holds, 1); /* the device may still write */
    /* Nothing goes until the device was reset; then everything does. */
    ck_assert_int_eq(vgpu_run(other, &err), VGPU_E_BROKEN);
    ck_assert_ptr_nonnull(strstr(err.text, "vgpu reset"));
    set_fake((struct fake_config){0});
    ck_assert_int_eq(vgpu_reset(gpu, LIMIT_MS, &err), 0);
    for (unsigned i = 0; i < 3 * ENTRIES; i++) {
        ck_assert_int_eq(echo_once(gpu, 3000), 0);
    }
    ck_assert_uint_eq(gpu->arena.holds, 0);
    vgpu_free(gpu, out);
    vgpu_free(gpu, out2);
    vgpu_request_free(req);
    vgpu_request_free(other);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* A response is copied before it is looked at: it may be anything, but always the same. */
START_TEST(changing_responses)
{
    struct vgpu_request *req;
    struct vgpu *gpu;
    uint8_t in[64] = {1}, out[64];

    if (TSAN) {
        return; /* the device races by intention */
    }
    start_fake((struct fake_config){.ring_lie = FAKE_LIE_SCRIBBLE});
    gpu = open_process(VGPU_PATH_RING);
    req = new_request(gpu, LIMIT_MS, 0);
    for (unsigned i = 0; i < 200; i++) {
        int r;

        vgpu_echo(req, in, out, sizeof(in));
        r = vgpu_run(req, NULL);
        ck_assert_msg(r == 0 || r == -EPROTO, "%d %s", r, vgpu_result_text(req));
        if (r == 0) { /* a header that was checked stays as it was */
            ck_assert_uint_eq(vgpu_result(req)->size, sizeof(struct vgpu_resp_hdr) + sizeof(in));
        }
    }
    vgpu_request_free(req);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* ---- away ---- */

/* Nobody serves the ring: the request ends here, its slot and its memory stay in use. */
START_TEST(mediator_away)
{
    struct vgpu_request *reqs[DEPTH + 1];
    struct vgpu *gpu;
    uint8_t byte = 1, *mine;
    unsigned free_before;

    start_fake((struct fake_config){.up_after_ms = LIMIT_MS, .asleep = 1});
    gpu = open_process(VGPU_PATH_RING);
    mine = vgpu_alloc(gpu, 4096);
    for (unsigned i = 0; i < DEPTH; i++) {
        reqs[i] = new_request(gpu, 60, 0);
        vgpu_echo(reqs[i], mine, mine + 64 * (i + 1), 64);
        ck_assert_int_eq(vgpu_submit(reqs[i]), 0);
    }
    for (unsigned i = 0; i < DEPTH; i++) {
        ck_assert_int_eq(vgpu_wait(reqs[i], LIMIT_MS), VGPU_E_NO_BACKEND);
        vgpu_request_free(reqs[i]);
    }
    vgpu_free(gpu, mine);
    ck_assert_uint_eq(gpu->nflights, DEPTH);
    ck_assert_ptr_nonnull(gpu->arena.put_off);
    free_before = gpu->arena.holds;
    ck_assert_uint_eq(free_before, DEPTH);
    /* The ring is full, so the next one never gets to the device. */
    reqs[0] = new_request(gpu, 50, 0);
    vgpu_echo(reqs[0], &byte, &byte, 1);
    ck_assert_int_eq(vgpu_run(reqs[0], NULL), VGPU_E_NO_BACKEND);
    set_fake((struct fake_config){0});
    vgpu_request_set(reqs[0], &(struct vgpu_request_options){.deadline_ms = LIMIT_MS});
    ck_assert_int_eq(vgpu_run(reqs[0], NULL), 0);
    vgpu_request_free(reqs[0]);
    ck_assert_int_eq(echo_once(gpu, 2000), 0);
    ck_assert_ptr_null(gpu->arena.put_off);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

START_TEST(reset_in_flight)
{
    struct vgpu_request *reqs[5];
    struct vgpu *gpu;
    uint8_t *out[5];

    start_fake((struct fake_config){.hang = 1, .index_start = 1000});
    gpu = open_process(VGPU_PATH_RING);
    for (unsigned i = 0; i < 5; i++) {
        reqs[i] = hanging(gpu, &out[i]);
    }
    set_fake((struct fake_config){.hang = 1, .deaf = 1});
    ck_assert_int_eq(vgpu_reset(gpu, 30, NULL), -ETIMEDOUT);
    ck_assert_int_eq(vgpu_wait(reqs[0], 30), -ETIMEDOUT); /* some writer may be left */
    set_fake((struct fake_config){0});
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_int_eq(vgpu_wait(reqs[i], LIMIT_MS), VGPU_E_DEVICE_RESET);
        vgpu_request_free(reqs[i]);
        vgpu_free(gpu, out[i]);
    }
    ck_assert_int_eq(echo_once(gpu, 100), 0);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* ---- several processes ---- */

START_TEST(more_processes_than_rings)
{
    struct vgpu *a, *b, *c;

    start_fake((struct fake_config){0});
    a = open_process(VGPU_PATH_AUTO);
    b = open_process(VGPU_PATH_AUTO);
    c = open_process(VGPU_PATH_AUTO);
    ck_assert_int_eq(describe(a).ring, 0);
    ck_assert_int_eq(describe(b).ring, 1);
    ck_assert_int_eq(describe(c).ring, -1);
    ck_assert_str_eq(describe(c).no_ring,
                     "other processes of this VM have all 2, or left requests in them");
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(echo_once(a, 100), 0);
        ck_assert_int_eq(echo_once(b, 2000), 0);
        ck_assert_int_eq(echo_once(c, 3000), 0);
    }
    vgpu_close(a);
    a = open_process(VGPU_PATH_RING); /* goes on where the one before stopped */
    ck_assert_int_eq(describe(a).ring, 0);
    run_batch(a, 50);
    vgpu_close(a);
    vgpu_close(b);
    vgpu_close(c);
    fake_free(fake);
}
END_TEST

START_TEST(reset_among_processes)
{
    struct vgpu_request *req;
    struct vgpu_err err;
    struct vgpu *a, *b;
    uint8_t *out;

    start_fake((struct fake_config){.hang = 1});
    a = open_process(VGPU_PATH_RING);
    b = open_process(VGPU_PATH_RING);
    req = hanging(a, &out);
    ck_assert_int_eq(vgpu_reset(b, 50, &err), -EBUSY);
    ck_assert_uint_eq(describe(b).reset_epoch, 0);
    set_fake((struct fake_config){0});
    ck_assert_int_eq(vgpu_wait(req, LIMIT_MS), 0);
    ck_assert_int_eq(echo_once(b, 100), 0);
    ck_assert_int_eq(vgpu_reset(b, LIMIT_MS, &err), 0);
    ck_assert_uint_eq(describe(b).reset_epoch, 1);
    ck_assert_int_eq(echo_once(a, 100), 0); /* it notices by itself */
    ck_assert_int_eq(echo_once(b, 100), 0);
    vgpu_free(a, out);
    vgpu_request_free(req);
    vgpu_close(a);
    vgpu_close(b);
    fake_free(fake);
}
END_TEST

/* Alone after a death: the device is reset. */
START_TEST(death_alone)
{
    struct vgpu *gpu;
    uint8_t *out;

    start_fake((struct fake_config){.hang = 1, .rings = 1});
    gpu = open_process(VGPU_PATH_RING);
    die(gpu, hanging(gpu, &out));
    gpu = open_process(VGPU_PATH_RING);
    ck_assert_uint_eq(describe(gpu).reset_epoch, 1);
    set_fake((struct fake_config){0});
    ck_assert_int_eq(echo_once(gpu, 100), 0);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* What the dead process left ends by itself in time: no reset. */
START_TEST(death_with_short_request)
{
    struct vgpu *gpu;
    uint8_t *out;

    start_fake((struct fake_config){.delay_ms = 50, .rings = 1});
    gpu = open_process(VGPU_PATH_RING);
    die(gpu, hanging(gpu, &out));
    gpu = open_process(VGPU_PATH_RING);
    ck_assert_uint_eq(describe(gpu).reset_epoch, 0);
    ck_assert_int_eq(echo_once(gpu, 100), 0);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* A living process has something in flight: nothing is reset, and nobody gets the ring or the
 * memory that the dead one's request still writes to. */
START_TEST(death_among_living)
{
    struct vgpu_request *req, *more;
    struct vgpu *dead, *living, *next;
    uint64_t dead_offset, offset;
    uint8_t *dead_out, *out, *mine;

    start_fake((struct fake_config){.hang = 1});
    dead = open_process(VGPU_PATH_RING);
    living = open_process(VGPU_PATH_RING);
    more = hanging(dead, &dead_out);
    dead_offset = (uint64_t)(dead_out - dead->transport->limits.arena);
    req = hanging(living, &out);
    die(dead, more);
    next = open_process(VGPU_PATH_AUTO);
    ck_assert_int_eq(describe(next).ring, -1);
    ck_assert_uint_eq(describe(next).reset_epoch, 0);
    mine = vgpu_alloc(next, 4096);
    if (mine) {
        offset = (uint64_t)(mine - next->transport->limits.arena);
        ck_assert(offset + 4096 <= dead_offset || offset >= dead_offset + 4096);
    }
    vgpu_free(next, mine);
    set_fake((struct fake_config){0});
    ck_assert_int_eq(vgpu_wait(req, LIMIT_MS), 0);
    vgpu_close(next);
    next = open_process(VGPU_PATH_RING);
    ck_assert_int_eq(describe(next).ring, 0);
    ck_assert_int_eq(echo_once(next, 100), 0);
    vgpu_free(living, out);
    vgpu_request_free(req);
    vgpu_close(next);
    vgpu_close(living);
    fake_free(fake);
}
END_TEST

/* A dead process's request in the windows that even a cancel does not end: whoever runs it may write
 * anywhere, so nobody gets memory before it has ended. */
START_TEST(death_with_a_window_request)
{
    struct vgpu *gpu;
    void *memory;

    start_fake((struct fake_config){.busy_at_start = 1, .hang = 1, .ignore_cancel = 1});
    gpu = open_process(VGPU_PATH_RING);
    ck_assert_ptr_null(vgpu_alloc(gpu, 4096));
    ck_assert_int_eq(errno, ENOMEM);
    ck_assert_ptr_null(vgpu_alloc(gpu, 4096)); /* not waited for again */
    set_fake((struct fake_config){0});
    while ((memory = vgpu_alloc(gpu, 4096)) == NULL) {
        usleep(1000);
    }
    vgpu_free(gpu, memory);
    vgpu_close(gpu);
    fake_free(fake);
}
END_TEST

/* A real process, really killed, that died before it rang. */
START_TEST(killed_process)
{
    struct vgpu *gpu;
    int ready[2], status;
    char byte;
    pid_t child;

    start_fake((struct fake_config){.hang = 1, .rings = 1});
    ck_assert_int_eq(pipe(ready), 0);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        uint8_t *out;

        gpu = open_process(VGPU_PATH_RING);
        hanging(gpu, &out);
        if (write(ready[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    gpu = open_process(VGPU_PATH_AUTO); /* while it lives its ring is its own */
    ck_assert_int_eq(describe(gpu).ring, -1);
    vgpu_close(gpu);
    kill(child, SIGKILL);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status));
    gpu = open_process(VGPU_PATH_RING);
    ck_assert_uint_eq(describe(gpu).reset_epoch, 1);
    set_fake((struct fake_config){0});
    ck_assert_int_eq(echo_once(gpu, 100), 0);
    vgpu_close(gpu);
    close(ready[0]);
    close(ready[1]);
    fake_free(fake);
}
END_TEST

/* ---- all at once ---- */

#define WORKERS 3u
#define ROUNDS 400u

static atomic_uint running; /* workers that are not done */

/* A process that works, in several sizes, and cancels some. */
static void *work(void *arg)
{
    static const uint32_t sizes[] = {4, 900, 5000};
    uint64_t random = 7 + (uintptr_t)arg;
    struct vgpu *gpu = open_process(VGPU_PATH_AUTO);
    static uint8_t zeros[5000];

    for (unsigned round = 0; round < ROUNDS; round++) {
        struct vgpu_request *reqs[6];
        uint8_t out[6][5000];

        for (unsigned i = 0; i < N_ELEMS(reqs); i++) {
            uint32_t bytes = sizes[unit_below(&random, N_ELEMS(sizes))];

            memset(out[i], 1, bytes);
            reqs[i] = new_request(gpu, LIMIT_MS, 0);
            vgpu_echo(reqs[i], zeros, out[i], bytes);
            ck_assert_int_eq(vgpu_submit(reqs[i]), 0);
            if (unit_below(&random, 10) == 0) {
                vgpu_cancel(reqs[i]);
            }
        }
        for (unsigned i = 0; i < N_ELEMS(reqs); i++) {
            int r = vgpu_wait(reqs[i], LIMIT_MS);

            /* Nobody resets a device in which this process has something in flight. */
            ck_assert_msg(r == 0 || r == VGPU_E_CANCELLED, "%s", vgpu_result_text(reqs[i]));
            ck_assert(r != 0 || out[i][0] == 0);
            vgpu_request_free(reqs[i]);
        }
        usleep(500); /* nothing is in flight here: others may reset */
    }
    vgpu_close(gpu);
    atomic_fetch_sub(&running, 1);
    return NULL;
}

/* Processes that come, leave something in flight, and die. */
static void *die_often(void *arg)
{
    (void)arg;
    while (atomic_load(&running)) {
        struct vgpu *gpu = open_process(VGPU_PATH_AUTO);
        struct vgpu_request *req = new_request(gpu, LIMIT_MS, 0);
        static const uint8_t in[2000];
        uint8_t *out = vgpu_alloc(gpu, sizeof(in));

        if (out) {
            vgpu_echo(req, in, out, sizeof(in));
            vgpu_submit(req);
        }
        die(gpu, req);
        usleep(500);
    }
    return NULL;
}

static void *reset_often(void *arg)
{
    struct vgpu *gpu = open_process(VGPU_PATH_AUTO);

    (void)arg;
    while (atomic_load(&running)) {
        int r = vgpu_reset(gpu, 20, NULL);

        ck_assert_msg(r == 0 || r == -EBUSY || r == -ETIMEDOUT, "%d", r);
        usleep(2000);
    }
    vgpu_close(gpu);
    return NULL;
}

START_TEST(all_at_once)
{
    pthread_t threads[WORKERS + 2];

    start_fake((struct fake_config){.rings = 4, .index_start = UINT32_MAX - 50});
    atomic_store(&running, WORKERS);
    for (unsigned i = 0; i < N_ELEMS(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL,
                                        i < WORKERS    ? work
                                        : i == WORKERS ? die_often
                                                       : reset_often,
                                        (void *)(uintptr_t)i),
                         0);
    }
    for (unsigned i = 0; i < N_ELEMS(threads); i++) {
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
    }
    ck_assert_uint_ge(fake_served(fake), WORKERS * ROUNDS * 5);
    fake_free(fake);
}
END_TEST

START_TEST(spin_options)
{
    static const struct {
        uint32_t option;
        uint32_t least, most;
    } cases[] = {{VGPU_SPIN_NEVER, 0, 0}, {17, 17, 17}, {VGPU_SPIN_AUTO, 0, 50}};

    start_fake((struct fake_config){0});
    for (size_t i = 0; i < N_ELEMS(cases); i++) {
        struct vgpu_options options = {.spin_us = cases[i].option};
        struct place place = fake_place_shared(fake);
        struct transport *t;
        struct vgpu *gpu;

        ck_assert_int_eq(path_open(&place, VGPU_PATH_AUTO, &t, NULL), 0);
        ck_assert_int_eq(client_new(t, &options, &gpu), 0);
        ck_assert_uint_ge(describe(gpu).spin_us, cases[i].least);
        ck_assert_uint_le(describe(gpu).spin_us, cases[i].most);
        ck_assert_int_eq(echo_once(gpu, 10), 0);
        vgpu_close(gpu);
    }
    fake_free(fake);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("rings");
    TCase *layout = tcase_create("layout"), *many = tcase_create("many");
    TCase *hostile = tcase_create("hostile"), *shared = tcase_create("shared");

    tcase_add_loop_test(layout, bad_layouts, 0, (int)N_ELEMS(layouts));
    tcase_add_test(layout, wanted_paths);
    tcase_add_test(layout, spin_options);
    tcase_add_loop_test(many, many_requests, 0, (int)N_ELEMS(orders));
    tcase_add_test(many, one_doorbell_for_many);
    tcase_add_test(many, doorbells_that_are_not_heard);
    tcase_add_test(many, few_accesses);
    tcase_add_test(many, ordered);
    tcase_add_test(many, cancel_a_full_ring);
    tcase_add_loop_test(hostile, lying_device, 0, (int)N_ELEMS(lies));
    tcase_add_test(hostile, changing_responses);
    tcase_add_test(hostile, mediator_away);
    tcase_add_test(hostile, reset_in_flight);
    tcase_add_test(shared, rings_for_all);
    tcase_add_test(shared, more_processes_than_rings);
    tcase_add_test(shared, reset_among_processes);
    tcase_add_test(shared, death_alone);
    tcase_add_test(shared, death_with_short_request);
    tcase_add_test(shared, death_among_living);
    tcase_add_test(shared, death_with_a_window_request);
    tcase_add_test(shared, killed_process);
    tcase_add_test(shared, all_at_once);
    for (TCase **tc = (TCase *[]){layout, many, hostile, shared, NULL}; *tc; tc++) {
        tcase_set_timeout(*tc, 60);
        suite_add_tcase(s, *tc);
    }
    return unit_run(s);
}
