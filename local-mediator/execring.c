/* SPDX-License-Identifier: MIT */
#include "local-mediator/execring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "local-mediator/bell.h"
#include "local-mediator/dispatch.h"
#include "local-mediator/execconn.h"

#define ENTRIES_MIN 128u   /* room for quick jobs, whatever the depth */
#define COLLECT_BUDGET 64u /* completions of one executor before the next one's turn */

/* ---- making it ---- */

static uint32_t entries_for(uint32_t depth)
{
    uint32_t entries = ENTRIES_MIN;

    while (entries < depth + 1 && entries < VGPU_RING_ENTRIES_MAX) { /* the express credit */
        entries *= 2;
    }
    return entries;
}

/* Return: the memfd, mapped at exec->ring_memory; -errno. */
static int make_memory(struct exec *exec, size_t bytes)
{
    CLEANUP(cleanup_fd) int fd = memfd_create("vgpu-jobs", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    void *memory;

    if (fd < 0 || ftruncate(fd, (off_t)bytes) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        return -errno;
    }
    memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return -errno;
    }
    exec->ring_memory = memory;
    exec->ring_bytes = bytes;
    return TAKE_FD(fd);
}

int execring_new(struct exec *exec, uint32_t depth)
{
    const struct ring_shape shape = {entries_for(depth), VGPU_EXEC_SLOT_BYTES};
    int r;

    exec->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    exec->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    exec->ring_fd = make_memory(exec, ring_bytes(&shape));
    exec->by_slot = calloc(shape.entries, sizeof(*exec->by_slot));
    r = exec->ring_fd < 0 ? exec->ring_fd : 0;
    if (exec->kick < 0 || exec->call < 0 || !exec->by_slot) {
        r = -ENOMEM;
    }
    if (r == 0) {
        r = ring_driver_init(&exec->ring, exec->ring_memory, &shape, false);
    }
    if (r < 0) {
        execring_free(exec);
    }
    return r;
}

static void on_bell(uv_poll_t *bell, int status, int events)
{
    const struct exec *exec = bell->data;

    (void)events;
    exec->worker->m->exec_wakes += bell_read(exec->call); /* the poller looks at the ring */
    if (status < 0) { /* its counter was full: libuv stopped the handle */
        uv_poll_start(bell, UV_READABLE, on_bell);
    }
}

int execring_start(struct exec *exec)
{
    struct mediator *m = exec->worker->m;
    const int fds[VGPU_EXEC_RING_FDS] = {exec->ring_fd, exec->kick, exec->call};
    struct vgpu_exec_ring message = {
        .entries = exec->ring.map.shape.entries,
        .slot_bytes = exec->ring.map.shape.slot_bytes,
        .size = exec->ring_bytes,
        .spin_us = (uint32_t)(m->spin_ns / 1000),
    };
    int r = uv_poll_init(&m->loop, &exec->bell, exec->call);

    if (r < 0) {
        return r;
    }
    exec->bell.data = exec;
    exec->handles++;
    uv_poll_start(&exec->bell, UV_READABLE, on_bell);
    seqpacket_start(&message.msg, VGPU_MSG_RING, sizeof(message), 0);
    msgconn_send_fds(&exec->conn, &message.msg, sizeof(message), NULL, fds, VGPU_EXEC_RING_FDS);
    cleanup_fd(&exec->ring_fd); /* the mapping is enough */
    exec->ring_fd = -1;
    return 0;
}

void execring_free(struct exec *exec)
{
    ring_driver_fini(&exec->ring);
    if (exec->ring_memory) {
        munmap(exec->ring_memory, exec->ring_bytes);
        exec->ring_memory = NULL;
    }
    cleanup_fd(&exec->ring_fd);
    cleanup_fd(&exec->kick);
    cleanup_fd(&exec->call);
    exec->ring_fd = exec->kick = exec->call = -1;
    free(exec->by_slot);
    exec->by_slot = NULL;
}

/* ---- which executors have something to do ---- */

/* Busy: while slots are in use, which is until their completions came. */
static void update_busy(struct exec *exec)
{
    struct mediator *m = exec->worker->m;
    bool busy = exec->ring.in_use > 0 && !exec->broken && !exec->closing;

    if (busy == exec->busy) {
        return;
    }
    exec->busy = busy;
    if (busy) {
        TAILQ_INSERT_TAIL(&m->busy_execs, exec, busy_link);
    } else {
        TAILQ_REMOVE(&m->busy_execs, exec, busy_link);
    }
}

static void set_unpublished(struct exec *exec, bool unpublished)
{
    struct mediator *m = exec->worker->m;

    if (unpublished == exec->unpublished) {
        return;
    }
    exec->unpublished = unpublished;
    if (unpublished) {
        TAILQ_INSERT_TAIL(&m->flush_execs, exec, flush_link);
    } else {
        TAILQ_REMOVE(&m->flush_execs, exec, flush_link);
    }
}

void execring_forget(struct exec *exec)
{
    update_busy(exec);
    set_unpublished(exec, false);
}

/* ---- submitting ---- */

bool execring_has_room(const struct exec *exec)
{
    return !exec->broken && exec->ring.in_use < exec->ring.map.shape.entries &&
           !msgconn_pending(&exec->conn);
}

struct attempt *execring_take(struct exec *exec)
{
    struct attempt *a;
    uint32_t slot;

    if (ring_slot_take(&exec->ring, &slot) != 0) {
        return NULL;
    }
    update_busy(exec);
    a = &exec->by_slot[slot];
    *a = (struct attempt){.exec = exec, .slot = slot};
    return a;
}

uint8_t *execring_request(const struct attempt *a)
{
    return ring_request(&a->exec->ring.map, a->slot);
}

void execring_submit(struct attempt *a, uint32_t length)
{
    ring_submit(&a->exec->ring, a->slot, length, a->job_id);
    set_unpublished(a->exec, true);
}

void execring_cancel(struct attempt *a)
{
    if (a->exec->channel && !a->exec->broken) {
        a->cancel_waits = a->exec->cancels_wait = true;
        set_unpublished(a->exec, true);
    }
}

void execring_give_back(struct attempt *a)
{
    ring_slot_give_back(&a->exec->ring, a->slot);
    update_busy(a->exec);
}

/* ---- what is to be shown to executors ---- */

static void send_cancels(struct exec *exec)
{
    struct attempt *a;

    exec->cancels_wait = false;
    TAILQ_FOREACH (a, &exec->attempts, exec_link) {
        struct vgpu_job_cancel cancel = {.job = a->job_id, .attempt = a->number};

        if (a->cancel_waits) {
            a->cancel_waits = false;
            seqpacket_start(&cancel.msg, VGPU_MSG_JOB_CANCEL, sizeof(cancel), 0);
            msgconn_send(&exec->conn, &cancel.msg, sizeof(cancel), NULL);
        }
    }
}

void execring_flush(struct exec *exec)
{
    if (!exec->unpublished || msgconn_pending(&exec->conn)) {
        return; /* an ATTACH comes before the descriptors that need it */
    }
    set_unpublished(exec, false);
    if (ring_driver_publish(&exec->ring)) {
        exec->worker->m->exec_kicks++;
        bell_ring(exec->kick);
    }
    if (exec->cancels_wait) {
        send_cancels(exec);
    }
}

void exec_flush_all(struct mediator *m)
{
    struct exec *exec = TAILQ_FIRST(&m->flush_execs);

    while (exec) {
        struct exec *next = TAILQ_NEXT(exec, flush_link);

        execring_flush(exec);
        exec = next;
    }
}

/* ---- collecting ---- */

/* Return: NULL; what is wrong with it. */
static const char *deliver(struct exec *exec, const struct vgpu_completion *c)
{
    const uint8_t *bytes = ring_response(&exec->ring.map, c->slot);
    struct attempt *a = &exec->by_slot[c->slot];
    struct vgpu_done done;

    if (c->length < sizeof(done) + sizeof(struct vgpu_resp_hdr) ||
        c->length > sizeof(done) + VGPU_REQ_MAX) {
        return "a completion with the length of no response";
    }
    ring_copy_in(&done, bytes, sizeof(done));
    if (c->tag != a->job_id || done.job != a->job_id || done.attempt != a->number) {
        return "a completion of another job than the one in its slot";
    }
    if (c->error || c->reserved || done.reserved) {
        return "a reserved field of a completion is not zero";
    }
    if (a->vm) {
        dispatch_done(a, bytes + sizeof(done), c->length - sizeof(done));
    } else {
        execring_give_back(a); /* it was gone before: the executor unmapped its region */
    }
    return NULL;
}

/* Return: whether there was something. */
static bool collect(struct exec *exec, uint32_t budget)
{
    struct vgpu_completion completion;
    const char *wrong = NULL;
    uint32_t count = 0;

    while (count < budget && !exec->broken && !wrong) {
        int r = ring_collect(&exec->ring, &completion);

        if (r == RING_E_EMPTY) {
            break;
        }
        if (count++ == 0) {
            mediator_now(exec->worker->m);
        }
        wrong = r ? exec->ring.wrong : deliver(exec, &completion);
    }
    if (wrong) {
        exec_broke(exec, wrong);
    }
    return count > 0;
}

void execring_collect(struct exec *exec)
{
    collect(exec, exec->ring.map.shape.entries);
}

bool exec_poll_all(struct mediator *m)
{
    struct exec *exec = TAILQ_FIRST(&m->busy_execs);
    struct exec *last = TAILQ_LAST(&m->busy_execs, exec_head);
    bool any = false;

    while (exec) {
        struct exec *next = exec == last ? NULL : TAILQ_NEXT(exec, busy_link);

        any |= collect(exec, COLLECT_BUDGET); /* takes at most this one from the list */
        exec = next;
    }
    return any;
}

bool exec_arm_all(struct mediator *m)
{
    struct exec *exec;
    bool any = false;

    TAILQ_FOREACH (exec, &m->busy_execs, busy_link) {
        any |= ring_driver_arm(&exec->ring);
    }
    return any;
}
