/* SPDX-License-Identifier: MIT */
/* The executor's end of the job ring: what RING may say, a round trip, the call. */
#include "gpu-worker/jobring.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "unit.h"

static const struct ring_shape shape = {16, VGPU_EXEC_SLOT_BYTES};
static struct vgpu_exec_ring ring_message;
static struct seqpacket_message message;
static struct jobring ring;
static char why[GPU_WHY_MAX];
static int memory_fd, kick, call;

/* A good RING message; the tests change it. */
static void make(int seals, off_t bytes)
{
    memset(&ring, 0, sizeof(ring));
    memory_fd = memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(memory_fd, bytes), 0);
    ck_assert_int_eq(fcntl(memory_fd, F_ADD_SEALS, seals), 0);
    kick = eventfd(0, EFD_NONBLOCK);
    call = eventfd(0, EFD_NONBLOCK);
    ring_message = (struct vgpu_exec_ring){
        .entries = shape.entries,
        .slot_bytes = shape.slot_bytes,
        .size = ring_bytes(&shape),
    };
    message = (struct seqpacket_message){
        .msg = &ring_message.msg,
        .length = sizeof(ring_message),
        .n_fds = 3,
        .fds = {dup(memory_fd), dup(kick), dup(call)},
    };
}

static void done(void)
{
    jobring_close(&ring);
    jobring_close(&ring);
    close(memory_fd);
    close(kick);
    close(call);
}

static uint64_t rung(int fd)
{
    uint64_t count = 0;

    return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

static const struct wrong {
    const char *name;
    uint32_t entries, slot_bytes;
    int64_t size; /* added */
    int seals;
    off_t shorter;
} wrongs[] = {
    {"entries that are no power of two", 17, 0, 0, F_SEAL_SHRINK, 0},
    {"too many entries", 8192, 0, 0, F_SEAL_SHRINK, 0},
    {"other slots", 0, 4096, 0, F_SEAL_SHRINK, 0},
    {"another size", 0, 0, 4096, F_SEAL_SHRINK, 0},
    {"not sealed", 0, 0, 0, 0, 0},
    {"a file that is too small", 0, 0, 0, F_SEAL_SHRINK, 4096},
};

START_TEST(refused)
{
    const struct wrong *w = &wrongs[_i];

    make(w->seals, (off_t)ring_bytes(&shape) - w->shorter);
    ring_message.entries = w->entries ? w->entries : ring_message.entries;
    ring_message.slot_bytes = w->slot_bytes ? w->slot_bytes : ring_message.slot_bytes;
    ring_message.size += (uint64_t)w->size;
    why[0] = 0;
    ck_assert_msg(jobring_open(&ring, &message, why) < 0, "%s", w->name);
    ck_assert_msg(strlen(why) > 10, "%s: no sentence", w->name);
    ck_assert_ptr_null(ring.memory);
    ck_assert_int_eq(message.fds[0], -1); /* taken in any case */
    done();
}
END_TEST

START_TEST(a_round_trip)
{
    struct ring_driver driver;
    struct vgpu_completion completion;
    struct vgpu_done end;
    struct vgpu_desc desc;
    static struct job job;
    uint32_t slot;

    make(F_SEAL_SHRINK, (off_t)ring_bytes(&shape));
    ck_assert_msg(jobring_open(&ring, &message, why) == 0, "%s", why);
    void *base = mmap(NULL, ring_bytes(&shape), PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    ck_assert_int_eq(ring_driver_init(&driver, base, &shape, false), 0);
    ck_assert_int_eq(ring_slot_take(&driver, &slot), 0);
    ring_submit(&driver, slot, 100, 42);
    ck_assert(ring_driver_publish(&driver));
    ck_assert_int_eq(ring_take(&ring.end, &desc), 0);
    job.slot = desc.slot;
    job.head = (struct vgpu_job){.job = 42, .attempt = 3};
    memset(job.response, 7, 64);
    jobring_respond(&ring, &job, 64);
    ck_assert_int_eq(ring_collect(&driver, &completion), RING_E_EMPTY);
    jobring_publish(&ring);
    ck_assert_uint_eq(rung(call), 1);
    ck_assert_int_eq(ring_collect(&driver, &completion), 0);
    ck_assert_uint_eq(completion.tag, 42);
    ck_assert_uint_eq(completion.length, sizeof(end) + 64);
    memcpy(&end, ring_response(&driver.map, completion.slot), sizeof(end));
    ck_assert_uint_eq(end.job, 42);
    ck_assert_uint_eq(end.attempt, 3);
    ck_assert_uint_eq(ring_response(&driver.map, completion.slot)[sizeof(end) + 63], 7);
    jobring_publish(&ring);
    ck_assert_msg(rung(call) == 0, "nothing new, nobody is called");
    ring_driver_fini(&driver);
    munmap(base, ring_bytes(&shape));
    done();
}
END_TEST

START_TEST(nobody_is_called_who_does_not_wait)
{
    struct ring_driver driver;
    struct vgpu_completion completion;
    static struct job job;
    uint32_t slot;

    make(F_SEAL_SHRINK, (off_t)ring_bytes(&shape));
    ck_assert_int_eq(jobring_open(&ring, &message, why), 0);
    void *base = mmap(NULL, ring_bytes(&shape), PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    ck_assert_int_eq(ring_driver_init(&driver, base, &shape, false), 0);
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_int_eq(ring_slot_take(&driver, &slot), 0);
        ring_submit(&driver, slot, 100, i);
    }
    ring_driver_publish(&driver);
    for (unsigned i = 0; i < 5; i++) {
        job.slot = i;
        jobring_respond(&ring, &job, 64);
        jobring_publish(&ring);
        ck_assert_uint_eq(rung(call), i == 0);
        ck_assert_int_eq(ring_collect(&driver, &completion), 0);
    }
    ring_driver_fini(&driver);
    munmap(base, ring_bytes(&shape));
    done();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("job ring");
    TCase *tc = tcase_create("ring");

    tcase_add_loop_test(tc, refused, 0, N_ELEMS(wrongs));
    tcase_add_test(tc, a_round_trip);
    tcase_add_test(tc, nobody_is_called_who_does_not_wait);
    suite_add_tcase(suite, tc);
    return unit_run(suite);
}
