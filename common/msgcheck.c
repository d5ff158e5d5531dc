/* SPDX-License-Identifier: MIT */
#include "common/msgcheck.h"

#include <stdbool.h>
#include <string.h>

#include "proto/vgpu_local.h"

/* Senders as bits; the letters of VGPU_MSGS. */
#define SENDER_S 1u
#define SENDER_M 2u
#define SENDER_W 4u
#define SENDER_X 8u
#define SENDER_B (SENDER_S | SENDER_M)
#define SENDER_A (SENDER_M | SENDER_W | SENDER_X)

/* Kinds of connection as bits. */
#define LINK_VM 1u
#define LINK_WORKER 2u
#define LINK_EXECUTOR 4u

struct field {
    uint16_t offset, length;
};

struct spec {
    const char *name;
    uint8_t senders;
    uint8_t links;
    uint8_t fds_min, fds_max;
    uint32_t min, max; /* bytes of the whole message */
    struct field reserved[3];
};

#define MEMBER(type, member)                                              \
    {                                                                     \
        offsetof(struct type, member), sizeof(((struct type *)0)->member) \
    }
#define EXACT(type) sizeof(struct type), sizeof(struct type)
#define TAIL(type, least, most) sizeof(struct type) + (least), sizeof(struct type) + (most)
#define REQUEST_MIN sizeof(struct vgpu_req_hdr)
#define RESPONSE_MIN sizeof(struct vgpu_resp_hdr)
#define TEXT_MAX 1024u

/* One row per message: links, fds, size, reserved fields. */
/* clang-format off */
#define SPEC_HELLO         LINK_VM, 0, VGPU_HELLO_FDS(VGPU_RINGS_MAX), EXACT(vgpu_hello), \
    {MEMBER(vgpu_hello, reserved0), MEMBER(vgpu_hello, reserved1)}
#define SPEC_HELLO_ACK     LINK_VM, 0, 0, EXACT(vgpu_hello_ack), \
    {MEMBER(vgpu_hello_ack, reserved0), MEMBER(vgpu_hello_ack, reserved1), MEMBER(vgpu_hello_ack, reserved2)}
#define SPEC_REFUSED       LINK_VM | LINK_WORKER, 0, 0, TAIL(vgpu_refused, 0, TEXT_MAX), {MEMBER(vgpu_refused, reserved)}
#define SPEC_REQUEST       LINK_VM, 0, 0, TAIL(vgpu_request, REQUEST_MIN, VGPU_REQ_MAX), {{0, 0}}
#define SPEC_DATA          LINK_VM, 0, 0, TAIL(vgpu_data, 1, VGPU_DATA_CHUNK), {MEMBER(vgpu_data, reserved)}
#define SPEC_ACCEPT        LINK_VM, 0, 0, EXACT(vgpu_accept), {{0, 0}}
#define SPEC_RESPONSE      LINK_VM, 0, 0, TAIL(vgpu_response, RESPONSE_MIN, VGPU_REQ_MAX), {{0, 0}}
#define SPEC_CANCEL        LINK_VM, 0, 0, EXACT(vgpu_cancel_msg), {MEMBER(vgpu_cancel_msg, reserved)}
#define SPEC_RESET         LINK_VM, 0, 0, EXACT(vgpu_reset), {{0, 0}}
#define SPEC_RESET_ACK     LINK_VM, 0, 0, EXACT(vgpu_reset), {{0, 0}}
#define SPEC_WISH          LINK_VM, 0, 0, EXACT(vgpu_wish), {MEMBER(vgpu_wish, reserved)}
#define SPEC_STATE         LINK_VM, 0, 0, EXACT(vgpu_state), {MEMBER(vgpu_state, reserved)}
#define SPEC_REGISTER      LINK_WORKER, 0, 0, EXACT(vgpu_register), {MEMBER(vgpu_register, reserved)}
#define SPEC_REGISTER_ACK  LINK_WORKER, 0, 0, EXACT(vgpu_register_ack), {MEMBER(vgpu_register_ack, reserved0)}
#define SPEC_EXECUTOR      LINK_WORKER, 1, 1, EXACT(vgpu_executor), {{0, 0}}
#define SPEC_EXECUTOR_GONE LINK_WORKER, 0, 0, TAIL(vgpu_executor_gone, 0, TEXT_MAX), {{0, 0}}
#define SPEC_KILL_EXECUTOR LINK_WORKER, 0, 0, EXACT(vgpu_kill_executor), {{0, 0}}
#define SPEC_HEARTBEAT     LINK_WORKER | LINK_EXECUTOR, 0, 0, EXACT(vgpu_heartbeat), {{0, 0}}
#define SPEC_DRAIN         LINK_WORKER, 0, 0, EXACT(vgpu_drain), {{0, 0}}
#define SPEC_ATTACH        LINK_EXECUTOR, 1, 2, EXACT(vgpu_attach), {MEMBER(vgpu_attach, reserved)}
#define SPEC_DETACH        LINK_EXECUTOR, 0, 0, EXACT(vgpu_detach), {MEMBER(vgpu_detach, reserved)}
#define SPEC_DETACHED      LINK_EXECUTOR, 0, 0, EXACT(vgpu_detached), {MEMBER(vgpu_detached, reserved)}
#define SPEC_RING          LINK_EXECUTOR, VGPU_EXEC_RING_FDS, VGPU_EXEC_RING_FDS, EXACT(vgpu_exec_ring), {MEMBER(vgpu_exec_ring, reserved)}
#define SPEC_JOB_CANCEL    LINK_EXECUTOR, 0, 0, EXACT(vgpu_job_cancel), {MEMBER(vgpu_job_cancel, reserved)}

#define ROW(name, number, sender, sentence) [number] = {#name, SENDER_##sender, SPEC_##name},
static const struct spec specs[] = {VGPU_MSGS(ROW)};
/* clang-format on */

static const struct {
    uint8_t sender, link;
} ways[] = {
    [MSGCHECK_STUB] = {SENDER_S, LINK_VM},
    [MSGCHECK_TO_STUB] = {SENDER_M, LINK_VM},
    [MSGCHECK_SUPERVISOR] = {SENDER_W, LINK_WORKER},
    [MSGCHECK_TO_SUPERVISOR] = {SENDER_M, LINK_WORKER},
    [MSGCHECK_EXECUTOR] = {SENDER_X, LINK_EXECUTOR},
    [MSGCHECK_TO_EXECUTOR] = {SENDER_M, LINK_EXECUTOR},
};

static const struct spec *find_spec(uint16_t type)
{
    if (type >= sizeof(specs) / sizeof(specs[0]) || !specs[type].name) {
        return NULL;
    }
    return &specs[type];
}

static bool all_zero(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (bytes[i]) {
            return false;
        }
    }
    return true;
}

static bool reserved_zero(const struct spec *spec, const uint8_t *message)
{
    for (size_t i = 0; i < sizeof(spec->reserved) / sizeof(spec->reserved[0]); i++) {
        if (!all_zero(message + spec->reserved[i].offset, spec->reserved[i].length)) {
            return false;
        }
    }
    return true;
}

static const char *check_header(const struct vgpu_msg *msg, size_t length)
{
    if (length < sizeof(*msg)) {
        return "shorter than a message header";
    }
    if (msg->magic != VGPU_MSG_MAGIC) {
        return "wrong magic number";
    }
    if (msg->length != length) {
        return "its length field is not the size of the datagram";
    }
    if (msg->reserved) {
        return "a reserved field is not zero";
    }
    return NULL;
}

const char *msgcheck_message(enum msgcheck_from from, const void *message, size_t length,
                             unsigned fds)
{
    const struct vgpu_msg *msg = message;
    const char *wrong = check_header(msg, length);
    const struct spec *spec;

    if (wrong) {
        return wrong;
    }
    spec = find_spec(msg->type);
    if (!spec) {
        return "unknown message type";
    }
    if (!(spec->senders & ways[from].sender) || !(spec->links & ways[from].link)) {
        return "a message type that this sender may not send here";
    }
    if (length < spec->min) {
        return "shorter than its type";
    }
    if (length > spec->max) {
        return "longer than its type";
    }
    if (fds > spec->fds_max) {
        return "carries file descriptors that do not belong there";
    }
    if (fds < spec->fds_min) {
        return "lacks its file descriptor";
    }
    if (msg->epoch && ways[from].link != LINK_VM) {
        return "its epoch is not zero";
    }
    return reserved_zero(spec, message) ? NULL : "a reserved field is not zero";
}

const char *msgcheck_name(uint16_t type)
{
    const struct spec *spec = find_spec(type);

    return spec ? spec->name : "unknown";
}
