/* SPDX-License-Identifier: MIT */
/* fuzz_msgcheck.c - any datagram with any number of descriptors from any peer: a verdict, no crash, and
 * nothing accepted that is shorter than what a receiver reads */
#include "common/msgcheck.h"
#include "common/seqpacket.h"
#include "proto/vgpu_local.h"
#include "tests/fuzz/fuzz.h"

/* The part of a message that its receiver reads without asking for the length. */
static size_t fixed_bytes(uint16_t type)
{
    switch (type) {
    case VGPU_MSG_HELLO:
        return sizeof(struct vgpu_hello);
    case VGPU_MSG_HELLO_ACK:
        return sizeof(struct vgpu_hello_ack);
    case VGPU_MSG_REQUEST:
        return sizeof(struct vgpu_request) + sizeof(struct vgpu_req_hdr);
    case VGPU_MSG_RESPONSE:
        return sizeof(struct vgpu_response) + sizeof(struct vgpu_resp_hdr);
    case VGPU_MSG_DATA:
        return sizeof(struct vgpu_data) + 1;
    case VGPU_MSG_REGISTER:
        return sizeof(struct vgpu_register);
    case VGPU_MSG_RING:
        return sizeof(struct vgpu_exec_ring);
    case VGPU_MSG_ATTACH:
        return sizeof(struct vgpu_attach);
    default:
        return sizeof(struct vgpu_msg);
    }
}

/* Descriptors that a receiver takes without asking how many there are. */
static unsigned fds_least(uint16_t type)
{
    switch (type) {
    case VGPU_MSG_RING:
        return VGPU_EXEC_RING_FDS;
    case VGPU_MSG_EXECUTOR:
    case VGPU_MSG_ATTACH:
        return 1;
    default:
        return 0;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) uint8_t message[VGPU_MSG_MAX];
    struct vgpu_msg head = {.type = 0};
    unsigned fds;

    if (size < 2 || size - 2 > sizeof(message)) {
        return 0;
    }
    fds = data[1];
    size -= 2;
    memcpy(message, data + 2, size);
    if (size >= sizeof(head)) {
        memcpy(&head, message, sizeof(head));
        head.magic = VGPU_MSG_MAGIC;
        head.length = (uint32_t)size;
        head.reserved = 0;
        memcpy(message, &head, sizeof(head));
    }
    if (!msgcheck_message((enum msgcheck_from)(data[0] % 6), message, size, fds)) {
        fuzz_check(size >= fixed_bytes(head.type) && fds >= fds_least(head.type) &&
                   fds <= SEQPACKET_FDS_MAX);
    }
    return 0;
}
