/* SPDX-License-Identifier: MIT */
#include "local-mediator/vmconn.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "local-mediator/core/layout.h"
#include "local-mediator/job.h"
#include "local-mediator/listen.h"
#include "local-mediator/shm.h"
#include "local-mediator/vm.h"

/* Device features that this mediator can serve: on the socket path all that need nothing of it. */
#define DEVICE_FEATURES_SHM (VGPU_FEATURE_SHM | VGPU_FEATURE_RING | VGPU_FEATURE_EVENT_IDX)

#define SEND(vc, message) msgconn_send(&(vc)->conn, &(message).msg, sizeof(message), NULL)

static void on_closed(struct msgconn *c)
{
    struct vmconn *vc = c->user;
    struct vm *vm = vc->vm;

    TAILQ_REMOVE(&vm->conns, vc, link);
    vm->n_conns--;
    free(vc);
    vm_put(vm);
}

/* The connection is over, whoever ended it. */
static void vmconn_close(struct vmconn *vc)
{
    struct vm *vm = vc->vm;

    if (vm->conn == vc) {
        vm->conn = NULL;
        if (vc->shm) {
            job_drop_all(vm, "its VM's connection broke");
            shm_close(vc->shm);
            vc->shm = NULL;
        } else {
            job_orphan_all(vm, vc);
            vm_drop_staging(vm); /* orphans have their own references */
        }
    }
    msgconn_close(&vc->conn, on_closed);
}

static void on_end(struct msgconn *c, const char *why, bool bad)
{
    struct vmconn *vc = c->user;
    struct vm *vm = vc->vm;
    uint32_t suppressed = 0;

    if (log_limit_pass(&vm->log_limit, mediator_now(vm->m), &suppressed)) {
        log_at(bad ? LOG_LEVEL_WARN : LOG_LEVEL_INFO, "vm connection ended",
               LOG_S("vm", vm->c.name), LOG_U("pid", vc->pid), LOG_S("why", why),
               LOG_S("state", session_name(vc->state)), LOG_U("suppressed", suppressed));
    }
    vmconn_close(vc);
}

static void refuse(struct vmconn *vc, uint32_t reason, const char *text)
{
    struct vgpu_refused message = {.reason = reason};
    uint32_t suppressed = 0;

    if (log_limit_pass(&vc->vm->log_limit, mediator_now(vc->vm->m), &suppressed)) {
        log_warn("vm refused", LOG_S("vm", vc->vm->c.name), LOG_U("pid", vc->pid),
                 LOG_U("reason", reason), LOG_S("why", text), LOG_U("suppressed", suppressed));
    }
    seqpacket_start(&message.msg, VGPU_MSG_REFUSED, sizeof(message) + strlen(text), vc->epoch);
    msgconn_send(&vc->conn, &message.msg, sizeof(message), text);
    vc->state = SESSION_REFUSED;
    vmconn_close(vc);
}

/* ---- the handshake ---- */

struct pool *vmconn_pool(const struct vmconn *vc)
{
    struct mediator *m = vc->vm->m;

    for (uint32_t i = 0; i < m->n_pools && vc->pool_wish; i++) {
        if (m->pools[i]->c.id == vc->pool_wish && !m->pools[i]->removed &&
            (vc->vm->pools >> i & 1)) {
            return m->pools[i];
        }
    }
    return vc->vm->pool;
}

static bool may_connect(struct vmconn *vc, const struct vgpu_hello *hello, uint32_t uid)
{
    struct vm *vm = vc->vm;
    uint32_t want = vm->c.own_uid ? vm->m->euid : vm->c.uid;
    char text[200];

    if (uid != want) {
        snprintf(text, sizeof(text), "this socket is for uid %u, the process that connects has %u",
                 want, uid);
        refuse(vc, VGPU_REFUSED_PEER, text);
    } else if (vm->conn) {
        snprintf(text, sizeof(text), "VM %s is connected already, by pid %u", vm->c.name,
                 vm->conn->pid);
        refuse(vc, VGPU_REFUSED_ALREADY_CONNECTED, text);
    } else if (hello->version_min > VGPU_LOCAL_VERSION_MAX ||
               hello->version_max < VGPU_LOCAL_VERSION_MIN ||
               hello->version_min > hello->version_max) {
        snprintf(text, sizeof(text), "this mediator speaks versions %u to %u, the stub %u to %u",
                 VGPU_LOCAL_VERSION_MIN, VGPU_LOCAL_VERSION_MAX, hello->version_min,
                 hello->version_max);
        refuse(vc, VGPU_REFUSED_VERSION, text);
    } else if (!vm->c.any_uuid && memcmp(hello->uuid, vm->c.uuid, 16) != 0) {
        snprintf(text, sizeof(text),
                 "the VM's uuid is not the one that the pool file gives for VM %s", vm->c.name);
        refuse(vc, VGPU_REFUSED_UNKNOWN_VM, text);
    } else {
        return true;
    }
    return false;
}

static void send_hello_ack(struct vmconn *vc)
{
    struct mediator *m = vc->vm->m;
    struct vgpu_hello_ack ack = {
        .version = VGPU_LOCAL_VERSION_MAX,
        .features = vc->shm ? VGPU_LOCAL_FEATURE_SHM : 0,
        .device_features = vc->shm ? DEVICE_FEATURES_SHM : 0,
        .vm_id = vc->vm->number,
        .pool_id = vmconn_pool(vc)->c.id,
        .band = vm_clamp_band(vc->vm, vc->band_wish),
        .up = !m->draining,
        .mediator_gen = m->generation,
        .max_bytes = vm_max_bytes(vc->vm),
        .deadline_ms = (uint32_t)m->c.deadline,
    };

    seqpacket_start(&ack.msg, VGPU_MSG_HELLO_ACK, sizeof(ack), vc->epoch);
    SEND(vc, ack);
}

/* Memory for ARENA buffers: the device's own, or what stands in for it. */
static int prepare_memory(struct vmconn *vc, const struct vgpu_hello *hello,
                          struct seqpacket_message *message)
{
    struct vm *vm = vc->vm;
    int fds[SEQPACKET_FDS_MAX];
    int r;

    if (!(hello->features & VGPU_LOCAL_FEATURE_SHM)) {
        return vm_prepare_staging(vm, hello->arena_size);
    }
    vm_drop_staging(vm);
    for (unsigned i = 0; i < message->n_fds; i++) {
        fds[i] = seqpacket_take_fd(message, i);
    }
    r = shm_new(vm, hello, fds, &vc->shm);
    if (r < 0) {
        return r;
    }
    r = shm_listen(vc->shm);
    if (r < 0) {
        shm_close(vc->shm);
        vc->shm = NULL;
    }
    return r;
}

static const char *check_hello(const struct vgpu_hello *hello,
                               const struct seqpacket_message *message)
{
    const char *wrong = layout_check(hello);

    return wrong ? wrong : shm_check_fds(hello, message->fds, message->n_fds);
}

static void log_connected(const struct vmconn *vc, const struct vgpu_hello *hello)
{
    const struct vm *vm = vc->vm;

    log_info("vm connected", LOG_S("vm", vm->c.name), LOG_U("pid", vc->pid),
             LOG_U("connection", hello->conn_gen), LOG_U("epoch", vc->epoch),
             LOG_S("datapath", vc->shm ? "shm" : "socket"), LOG_U("rings", hello->rings),
             LOG_U("arena_bytes", vc->arena_size), LOG_S("pool", vmconn_pool(vc)->c.name),
             LOG_S("band", vgpu_band_name(vm_clamp_band(vm, vc->band_wish))));
}

static void greet(struct vmconn *vc, struct seqpacket_message *message)
{
    const struct vgpu_hello *hello = (const struct vgpu_hello *)message->msg;
    struct vm *vm = vc->vm;
    uint32_t uid = UINT32_MAX, pid = 0;
    const char *wrong;
    int r;

    vc->epoch = hello->msg.epoch;
    listen_peer(vc->conn.sp.fd, &uid, &pid);
    if (!may_connect(vc, hello, uid)) {
        return;
    }
    wrong = check_hello(hello, message);
    if (wrong) {
        refuse(vc, VGPU_REFUSED_MALFORMED, wrong);
        return;
    }
    vc->boot_id = hello->boot_id;
    vc->arena_size = hello->arena_size;
    vc->pool_wish = hello->pool_wish;
    vc->band_wish = hello->band_wish;
    r = prepare_memory(vc, hello, message);
    if (r < 0) {
        log_error("no memory for a vm", LOG_S("vm", vm->c.name), LOG_S("why", strerror(-r)));
        refuse(vc, VGPU_REFUSED_FULL, "the mediator has no memory for this VM now");
        return;
    }
    vc->state = SESSION_OPEN;
    vm->conn = vc;
    job_drop_other_lives(vm, vc->boot_id, vc->epoch);
    if (vc->shm) {
        shm_adopt(vc->shm, vc->epoch);
    }
    send_hello_ack(vc);
    log_connected(vc, hello);
    if (vc->shm) {
        mediator_now(vm->m);
        shm_start(vc->shm, vc->epoch);
    }
}

void vmconn_send_state(struct vm *vm)
{
    struct vmconn *vc = vm->conn;
    struct vgpu_state state = {.up = !vm->m->draining};

    if (!vc) {
        return;
    }
    /* A reset that waits for writers is the new life already, and nothing is broken in it. */
    state.broken = vc->shm && vc->shm->broken && vc->state != SESSION_RESETTING;
    state.pool_id = vmconn_pool(vc)->c.id;
    state.band = vm_clamp_band(vm, vc->band_wish);
    seqpacket_start(&state.msg, VGPU_MSG_STATE, sizeof(state), vc->epoch);
    SEND(vc, state);
}

/* ---- resets ---- */

static void acknowledge_reset(struct vmconn *vc)
{
    struct vgpu_reset ack;

    if (vc->shm) {
        shm_reset(vc->shm, vc->epoch);
    }
    seqpacket_start(&ack.msg, VGPU_MSG_RESET_ACK, sizeof(ack), vc->epoch);
    SEND(vc, ack);
    vc->state = SESSION_OPEN;
}

static void reset(struct vmconn *vc, uint32_t epoch)
{
    struct vm *vm = vc->vm;
    uint32_t suppressed = 0;

    if (!session_is_newer(epoch, vc->epoch)) {
        on_end(&vc->conn, "RESET to an epoch that is not newer", true);
        return;
    }
    if (log_limit_pass(&vm->log_limit, mediator_now(vm->m), &suppressed)) {
        log_info("vm reset", LOG_S("vm", vm->c.name), LOG_U("epoch", epoch),
                 LOG_U("writers", vm->n_writers), LOG_U("suppressed", suppressed));
    }
    vc->epoch = epoch;
    vc->last_seq = 0;
    vc->state = SESSION_RESETTING;
    if (vc->shm) {
        shm_stop(vc->shm);
    }
    job_drop_all(vm, "device reset");
    vmconn_writers_changed(vm);
}

void vmconn_writers_changed(struct vm *vm)
{
    if (vm->conn && vm->conn->state == SESSION_RESETTING && !vm->n_writers) {
        acknowledge_reset(vm->conn);
    }
}

/* ---- messages in ---- */

static const char *cancel(struct vmconn *vc, const struct vgpu_cancel_msg *message)
{
    if (message->reason != VGPU_E_CANCELLED && message->reason != VGPU_E_DEADLINE) {
        return "CANCEL with a reason that is none";
    }
    job_cancel_seq(vc, message->seq, message->reason);
    return NULL;
}

static void act(struct vmconn *vc, enum session_action action, struct seqpacket_message *message)
{
    const char *wrong = NULL;

    switch (action) {
    case SESSION_GREET:
        greet(vc, message);
        break;
    case SESSION_REQUEST:
        wrong = job_request(vc, (const struct vgpu_request *)message->msg, message->length);
        break;
    case SESSION_DATA:
        wrong = job_input(vc, (const struct vgpu_data *)message->msg, message->length);
        break;
    case SESSION_CANCEL:
        wrong = cancel(vc, (const struct vgpu_cancel_msg *)message->msg);
        break;
    case SESSION_RESET:
        reset(vc, message->msg->epoch);
        break;
    case SESSION_WISH:
        vc->band_wish = ((const struct vgpu_wish *)message->msg)->band;
        vmconn_send_state(vc->vm);
        break;
    case SESSION_IGNORE:
        break;
    case SESSION_BAD:
        wrong = "a message out of its state";
        break;
    }
    if (wrong) {
        on_end(&vc->conn, wrong, true);
    }
}

static void on_message(struct msgconn *c, struct seqpacket_message *message)
{
    struct vmconn *vc = c->user;

    mediator_now(vc->vm->m);
    if (vc->state != SESSION_NEW &&
        session_is_late(message->msg->type, message->msg->epoch, vc->epoch)) {
        return;
    }
    act(vc, session_action(vc->state, message->msg->type), message);
}

/* ---- answers out ---- */

static int send_output(struct vmconn *vc, struct job *job)
{
    struct vgpu_data data = {.seq = job->seq};
    uint64_t left = job->request.bufs[job->cursor_buffer].length - job->cursor_offset;
    const uint8_t *bytes =
        job->staging->bytes + job->spans[job->cursor_buffer].offset + job->cursor_offset;

    left = left < VGPU_DATA_CHUNK ? left : VGPU_DATA_CHUNK;
    data.buffer = job->cursor_buffer;
    data.offset = job->cursor_offset;
    seqpacket_start(&data.msg, VGPU_MSG_DATA, sizeof(data) + left, vc->epoch);
    job->cursor_offset += left;
    vc->vm->bytes_out += left;
    return msgconn_send(&vc->conn, &data.msg, sizeof(data), bytes);
}

static int send_response(struct vmconn *vc, struct job *job)
{
    struct vgpu_response message = {.seq = job->seq};

    seqpacket_start(&message.msg, VGPU_MSG_RESPONSE, sizeof(message) + job->response_len,
                    vc->epoch);
    return msgconn_send(&vc->conn, &message.msg, sizeof(message), job->response);
}

/* Send what the socket takes. When it is closed the end of the connection follows from the loop. */
static void pump(struct vmconn *vc)
{
    struct job *job;
    int r = 0;

    while (r == 0 && (job = TAILQ_FIRST(&vc->sending)) && !msgconn_pending(&vc->conn)) {
        if (job->success && job->staging && job_next_buffer(job, VGPU_BUF_OUT)) {
            r = send_output(vc, job);
            continue;
        }
        r = send_response(vc, job);
        if (r == 0) {
            job_answered(job);
        }
    }
}

void vmconn_answer(struct vmconn *vc, struct job *job)
{
    TAILQ_INSERT_TAIL(&vc->sending, job, send_link);
    job->sending = true;
    job->cursor_buffer = 0;
    job->cursor_offset = 0;
    pump(vc);
}

void vmconn_send_accept(struct vmconn *vc, struct job *job)
{
    struct vgpu_accept accept = {.seq = job->seq};

    seqpacket_start(&accept.msg, VGPU_MSG_ACCEPT, sizeof(accept), vc->epoch);
    SEND(vc, accept);
}

static void on_drained(struct msgconn *c)
{
    struct vmconn *vc = c->user;

    if (vc->vm->conn == vc) {
        /* In this order: what job_accepts_left() refuses must not end jobs that it has yet to see. */
        pump(vc);
        job_accepts_left(vc->vm);
    }
}

static const struct msgconn_ops vmconn_ops = {on_message, on_drained, on_end};

/* ---- coming and going ---- */

void vmconn_on_connect(struct listener *l, int fd)
{
    struct vm *vm = l->user;
    struct vmconn *vc = vm->n_conns < VM_CONNS_MAX ? calloc(1, sizeof(*vc)) : NULL;
    uint32_t uid = 0;

    if (!vc) {
        close(fd);
        return;
    }
    listen_peer(fd, &uid, &vc->pid);
    vc->vm = vm;
    vc->state = SESSION_NEW;
    vc->since_ns = mediator_now(vm->m);
    TAILQ_INIT(&vc->sending);
    if (msgconn_open(&vc->conn, &vm->m->loop, fd, MSGCHECK_STUB, &vmconn_ops, vc) < 0) {
        close(fd);
        free(vc);
        return;
    }
    TAILQ_INSERT_TAIL(&vm->conns, vc, link);
    vm->n_conns++;
}

void vmconn_close_all(struct vm *vm)
{
    struct vmconn *vc;

    TAILQ_FOREACH (vc, &vm->conns, link) {
        vmconn_close(vc);
    }
}

void vmconn_tick(struct vm *vm, uint64_t now_ns)
{
    struct vmconn *vc;

    TAILQ_FOREACH (vc, &vm->conns, link) {
        if (vc->state == SESSION_NEW && vc->conn.open &&
            now_ns - vc->since_ns > HELLO_TIMEOUT_MS * CLOCK_NS_PER_MS) {
            on_end(&vc->conn, "no HELLO within 5 s", true);
        }
    }
}
