/* SPDX-License-Identifier: MIT */
/* fuzz_vgpu_stub.c - any sequence of guest accesses and mediator messages, on both data paths: no crash,
 * invariants hold, and nothing is written to BAR 2 but the output of the request in flight */
#include "stub/vgpu_relay.h"
#include "tests/fuzz/fuzz.h"

#define SHM_SIZE (UINT64_C(1) << 20)
#define SINK 4096u
#define LENGTH 1024u

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

static void guest_write(struct vgpu_bar0 *b, struct vgpu_relay *r, struct fuzz_input *in)
{
    unsigned size = 1u << (fuzz_take(in, 1) & 3);
    uint32_t offset = (uint32_t)fuzz_take(in, 2) % VGPU_BAR_REGS_SIZE & ~(size - 1);
    uint32_t todo;

    if (offset == VGPU_REG_DOORBELL) {
        return; /* the guest of this test submits by ring() only, so that the output is known */
    }
    todo = vgpu_bar0_write(b, offset, fuzz_take(in, size), size);
    fuzz_check(!(todo & VGPU_BAR0_KICK) || b->kicked < b->config.layout.rings);
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

static void receive(struct vgpu_relay *r, const void *bytes, uint32_t length)
{
    char why[VGPU_RELAY_WHY_MAX];

    if (r->link != VGPU_RELAY_DOWN && vgpu_relay_receive(r, bytes, length, why) != 0) {
        vgpu_relay_disconnected(r);
    }
}

/* A message with a right head; type and body are the fuzzer's. */
static void hear(struct vgpu_bar0 *b, struct vgpu_relay *r, struct fuzz_input *in)
{
    static uint64_t bytes[VGPU_MSG_MAX / 8];
    struct vgpu_msg msg = {.magic = VGPU_MSG_MAGIC, .type = (uint16_t)fuzz_take(in, 1)};
    size_t n = fuzz_take(in, 2) % 2048;

    n = n < in->left ? n : in->left;
    msg.length = (uint32_t)(sizeof(msg) + n);
    msg.epoch = b->epoch;
    memcpy(bytes, &msg, sizeof(msg));
    fuzz_copy(in, (uint8_t *)bytes + sizeof(msg), n);
    receive(r, bytes, msg.length);
}

/* What a good mediator says next: those states are hard to reach by chance. */
static void hear_good(struct vgpu_bar0 *b, struct vgpu_relay *r, unsigned which)
{
    const struct vgpu_msg head = {.magic = VGPU_MSG_MAGIC, .epoch = b->epoch};
    struct vgpu_hello_ack ack = {.msg = head,
                                 .version = VGPU_LOCAL_VERSION_MAX,
                                 .features = vgpu_relay_shm(r) ? VGPU_LOCAL_FEATURE_SHM : 0,
                                 .vm_id = 1,
                                 .up = 1,
                                 .mediator_gen = 5,
                                 .deadline_ms = 1000};
    struct vgpu_state broken = {.msg = head, .up = 1, .broken = 1};
    struct vgpu_accept accept = {.msg = head, .seq = b->seq};
    struct vgpu_reset reset = {.msg = head};
    struct {
        struct vgpu_response response;
        struct vgpu_resp_hdr hdr;
    } answer = {{head, b->seq},
                {.size = sizeof(answer.hdr),
                 .version = VGPU_REQ_VERSION,
                 .op = VGPU_OP_ECHO,
                 .error = VGPU_E_CANCELLED,
                 .payload = VGPU_PAYLOAD_TEXT}};
    const struct {
        struct vgpu_msg *msg;
        uint16_t type;
        uint32_t length;
    } messages[] = {
        {&ack.msg, VGPU_MSG_HELLO_ACK, sizeof(ack)},
        {&broken.msg, VGPU_MSG_STATE, sizeof(broken)},
        {&accept.msg, VGPU_MSG_ACCEPT, sizeof(accept)},
        {&reset.msg, VGPU_MSG_RESET_ACK, sizeof(reset)},
        {&answer.response.msg, VGPU_MSG_RESPONSE, sizeof(answer)},
    };
    unsigned i = which % (sizeof(messages) / sizeof(messages[0]));

    messages[i].msg->type = messages[i].type;
    messages[i].msg->length = messages[i].length;
    receive(r, messages[i].msg, messages[i].length);
}

static void step(struct vgpu_bar0 *b, struct vgpu_relay *r, struct fuzz_input *in)
{
    struct vgpu_frame frame;

    switch (fuzz_take(in, 1) % 8) {
    case 0:
        ring(b, r, (uint32_t)fuzz_take(in, 1));
        break;
    case 1:
        guest_write(b, r, in);
        break;
    case 2:
        if (r->link != VGPU_RELAY_DOWN) {
            vgpu_relay_disconnected(r);
        } else if (r->writers) {
            vgpu_relay_writers_gone(r);
        } else {
            vgpu_relay_connected(r);
        }
        break;
    case 3:
        vgpu_relay_expire(r, (uint32_t)fuzz_take(in, 2));
        break;
    case 4:
        if (vgpu_relay_next(r, 0, &frame)) {
            vgpu_relay_sent(r);
        }
        break;
    case 5:
        hear_good(b, r, (unsigned)fuzz_take(in, 1));
        break;
    default:
        hear(b, r, in);
        break;
    }
    fuzz_check(vgpu_relay_check(r) == 0);
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
    uint64_t any = 0, word;

    for (size_t i = 0; i < length; i += sizeof(word)) {
        memcpy(&word, bytes + i, sizeof(word));
        any |= word;
    }
    return any == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t shm[SHM_SIZE];
    static struct vgpu_bar0 bar0;
    static struct vgpu_relay relay;
    const struct vgpu_relay_config relay_config = {.boot_id = 1};
    struct fuzz_input in = {data, size};
    struct vgpu_bar0_config config = {
        .layout = vgpu_layout_make(SHM_SIZE, (uint32_t)fuzz_take(&in, 1) % 4, 16),
        .deadline_ms = 1000,
        .band = VGPU_BAND_DEFAULT};

    uint8_t *around; /* the output, and the start of the arena */

    fuzz_check(vgpu_layout_check(&config.layout) == 0);
    vgpu_bar0_init(&bar0, &config);
    vgpu_relay_init(&relay, &relay_config, &bar0, shm);
    while (in.left > 0) {
        step(&bar0, &relay, &in);
    }
    around = shm + config.layout.arena_offset - SINK;
    memset(around + 2 * SINK, 0, LENGTH);
    fuzz_check(is_zero(around, 5 * SINK) && is_zero(shm, SINK));
    return 0;
}
