/* SPDX-License-Identifier: MIT */
/* fuzz_vgpu_stub.c - any sequence of guest accesses and mediator messages: no crash, invariants hold,
 * and nothing is written to the arena but the output of the request in flight */
#include <stdlib.h>
#include <string.h>

#include "stub/vgpu_relay.h"

#define SHM_SIZE (UINT64_C(1) << 20)
#define SINK 4096u
#define LENGTH 1024u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t take(struct input *in, size_t n)
{
    uint32_t value = 0;

    if (n > in->left) {
        in->left = 0;
        return 0;
    }
    memcpy(&value, in->at, n);
    in->at += n;
    in->left -= n;
    return value;
}

/* A request with one ARENA input at 0 and one output at SINK. */
static void ring(struct vgpu_bar0 *b, struct vgpu_relay *r, uint32_t flags)
{
    struct vgpu_req_hdr hdr = {.size = 96,
                               .version = VGPU_REQ_VERSION,
                               .op = VGPU_OP_ECHO,
                               .flags = flags & VGPU_REQ_FLAGS,
                               .band = VGPU_BAND_DEFAULT,
                               .nbufs = 2};
    struct vgpu_buf bufs[2] = {
        {.kind = VGPU_BUF_ARENA, .dir = VGPU_BUF_IN, .offset = 0, .length = LENGTH},
        {.kind = VGPU_BUF_ARENA, .dir = VGPU_BUF_OUT, .offset = SINK, .length = LENGTH}};

    memcpy(b->request_window, &hdr, sizeof(hdr));
    memcpy(b->request_window + sizeof(hdr), bufs, sizeof(bufs));
    b->request_len = hdr.size;
    if (vgpu_bar0_write(b, VGPU_REG_DOORBELL, 1, 4) & VGPU_BAR0_SUBMIT) {
        vgpu_relay_submit(r, 0);
    }
}

static void guest_write(struct vgpu_bar0 *b, struct vgpu_relay *r, struct input *in)
{
    unsigned size = 1u << (take(in, 1) & 3);
    uint32_t offset = take(in, 2) % VGPU_BAR_REGS_SIZE & ~(size - 1);
    uint32_t todo;

    if (offset == VGPU_REG_DOORBELL) {
        return; /* the guest of this test submits by ring() only, so that the output is known */
    }
    todo = vgpu_bar0_write(b, offset, take(in, 4), size);
    if (todo & VGPU_BAR0_RESET) {
        vgpu_relay_reset(r);
    }
    if (todo & VGPU_BAR0_CANCEL) {
        vgpu_relay_give_up(r, VGPU_E_CANCELLED);
    }
    if (todo & VGPU_BAR0_WISH) {
        vgpu_relay_wish(r);
    }
}

/* A message with a right head; type and body are the fuzzer's. */
static void hear(struct vgpu_bar0 *b, struct vgpu_relay *r, struct input *in)
{
    static uint64_t bytes[VGPU_MSG_MAX / 8];
    char why[VGPU_RELAY_WHY_MAX];
    struct vgpu_msg msg = {.magic = VGPU_MSG_MAGIC, .type = (uint16_t)take(in, 1)};
    size_t n = take(in, 2) % 2048;

    n = n < in->left ? n : in->left;
    msg.length = (uint32_t)(sizeof(msg) + n);
    msg.epoch = b->epoch;
    memcpy(bytes, &msg, sizeof(msg));
    memcpy((uint8_t *)bytes + sizeof(msg), in->at, n);
    in->at += n;
    in->left -= n;
    if (vgpu_relay_receive(r, bytes, msg.length, why) != 0) {
        vgpu_relay_disconnected(r);
    }
}

static void step(struct vgpu_bar0 *b, struct vgpu_relay *r, struct input *in)
{
    struct vgpu_frame frame;

    switch (take(in, 1) % 6) {
    case 0:
        ring(b, r, take(in, 1));
        break;
    case 1:
        guest_write(b, r, in);
        break;
    case 2:
        if (r->link == VGPU_RELAY_DOWN) {
            vgpu_relay_connected(r);
        }
        break;
    case 3:
        vgpu_relay_expire(r, take(in, 2));
        break;
    case 4:
        if (vgpu_relay_next(r, 0, &frame)) {
            vgpu_relay_sent(r);
        }
        break;
    default:
        hear(b, r, in);
        break;
    }
    if (vgpu_relay_check(r) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t arena[SHM_SIZE - VGPU_SHM_CONTROL_SIZE];
    static struct vgpu_bar0 bar0;
    static struct vgpu_relay relay;
    const struct vgpu_bar0_config config = {
        .shm_size = SHM_SIZE, .deadline_ms = 1000, .band = VGPU_BAND_DEFAULT};
    const struct vgpu_relay_config relay_config = {.boot_id = 1};
    struct input in = {data, size};
    size_t i;

    vgpu_bar0_init(&bar0, &config);
    vgpu_relay_init(&relay, &relay_config, &bar0, arena);
    while (in.left > 0) {
        step(&bar0, &relay, &in);
    }
    memset(arena + SINK, 0, LENGTH);
    for (i = 0; i < 4 * SINK; i++) {
        if (arena[i] != 0) {
            abort();
        }
    }
    return 0;
}
