/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vgpu_relay.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "vgpu_relay.h"

void vgpu_relay_init(struct vgpu_relay *r, const struct vgpu_relay_config *config,
                     struct vgpu_bar0 *bar0, void *shm)
{
    memset(r, 0, sizeof(*r));
    r->config = *config;
    r->bar0 = bar0;
    r->shm = shm;
    r->arena = r->shm + bar0->config.layout.arena_offset;
}

/* ---- cursors ------------------------------------------------------------------------------- */

static const struct request *in_flight(const struct vgpu_relay *r)
{
    return &r->bar0->req.parsed;
}

/* Moves @c past buffers that are finished or not ARENA buffers of direction @dir. */
static void cursor_settle(const struct vgpu_relay *r, struct vgpu_cursor *c, uint8_t dir)
{
    const struct request *q = in_flight(r);

    while (c->index < q->hdr.nbufs) {
        const struct vgpu_buf *buf = &q->bufs[c->index];

        if (buf->kind == VGPU_BUF_ARENA && buf->dir == dir && c->offset < buf->length) {
            return;
        }
        c->index++;
        c->offset = 0;
    }
}

static void cursor_rewind(const struct vgpu_relay *r, struct vgpu_cursor *c, uint8_t dir)
{
    c->index = 0;
    c->offset = 0;
    cursor_settle(r, c, dir);
}

static bool cursor_at_end(const struct vgpu_relay *r, const struct vgpu_cursor *c)
{
    return c->index >= in_flight(r)->hdr.nbufs;
}

static uint8_t *cursor_bytes(const struct vgpu_relay *r, const struct vgpu_cursor *c)
{
    return r->arena + in_flight(r)->bufs[c->index].offset + c->offset;
}

static uint64_t cursor_left(const struct vgpu_relay *r, const struct vgpu_cursor *c)
{
    return in_flight(r)->bufs[c->index].length - c->offset;
}

/* ---- events from the device ---------------------------------------------------------------- */

static void rewind_request(struct vgpu_relay *r)
{
    r->sent = false;
    cursor_rewind(r, &r->in, VGPU_BUF_IN);
    cursor_rewind(r, &r->out, VGPU_BUF_OUT);
}

static void forget_request(struct vgpu_relay *r)
{
    r->sent = false;
    r->sent_before = false;
    r->accepted = false;
    r->exposed = false;
    r->given_up = VGPU_E_OK;
}

/* Ends the request in flight with an error of the device's own. */
static void end_request(struct vgpu_relay *r, uint32_t error)
{
    r->exposed = false;
    r->given_up = VGPU_E_OK;
    vgpu_bar0_fail(r->bar0, error, NULL);
}

void vgpu_relay_connected(struct vgpu_relay *r)
{
    r->link = VGPU_RELAY_HELLO;
    r->conn_gen++;
    r->say_hello = true;
}

void vgpu_relay_disconnected(struct vgpu_relay *r)
{
    struct vgpu_backend backend = r->bar0->backend;

    r->link = VGPU_RELAY_DOWN;
    r->say_hello = false;
    r->say_reset = false;
    r->say_wish = false;
    r->cancel_seq = 0;
    r->sent_before |= r->sent;
    if (vgpu_bar0_busy(r->bar0)) {
        rewind_request(r);
    }
    backend.up = false;
    vgpu_bar0_set_backend(r->bar0, &backend);
    if (!r->writers) {
        vgpu_bar0_reset_done(r->bar0);
    }
}

void vgpu_relay_writers_gone(struct vgpu_relay *r)
{
    if (!r->writers) {
        return;
    }
    r->writers = false;
    r->exposed = false;
    if (r->given_up != VGPU_E_OK) {
        end_request(r, r->given_up);
    }
    if (r->bar0->flags & VGPU_STATUS_RESETTING) {
        /* They may have written to their pages after the reset had zeroed them. */
        vgpu_layout_zero_rings(&r->bar0->config.layout, r->shm);
        vgpu_bar0_reset_done(r->bar0);
    }
}

void vgpu_relay_submit(struct vgpu_relay *r, uint64_t now_ms)
{
    r->deadline_ms = now_ms + r->bar0->req.deadline_ms;
    forget_request(r);
    rewind_request(r);
}

void vgpu_relay_give_up(struct vgpu_relay *r, uint32_t error)
{
    bool unheard = r->link != VGPU_RELAY_UP && !r->accepted;

    if (!vgpu_relay_waits(r)) {
        return;
    }
    if (r->sent) {
        r->cancel_seq = r->bar0->seq;
        r->cancel_reason = error;
    }
    if (error == VGPU_E_DEADLINE && unheard) {
        error = VGPU_E_NO_BACKEND;
    }
    if (r->exposed) {
        r->given_up = error;
    } else {
        end_request(r, error);
    }
}

void vgpu_relay_expire(struct vgpu_relay *r, uint64_t now_ms)
{
    if (vgpu_relay_waits(r) && now_ms >= r->deadline_ms) {
        vgpu_relay_give_up(r, VGPU_E_DEADLINE);
    }
}

void vgpu_relay_reset(struct vgpu_relay *r)
{
    /* A HELLO that has not gone out carries the new epoch, and with it the whole message. */
    r->say_reset = r->link != VGPU_RELAY_DOWN && !r->say_hello;
    vgpu_bar0_reset(r->bar0, r->say_reset || r->writers);
    vgpu_layout_zero_rings(&r->bar0->config.layout, r->shm);
    r->cancel_seq = 0;
    forget_request(r);
}

void vgpu_relay_wish(struct vgpu_relay *r)
{
    r->say_wish = r->link != VGPU_RELAY_DOWN && !r->say_hello;
}

/* ---- what to send -------------------------------------------------------------------------- */

static void frame_start(const struct vgpu_relay *r, struct vgpu_frame *f, enum vgpu_msg_type type,
                        size_t head_len)
{
    memset(f, 0, sizeof(*f));
    f->head.msg.magic = VGPU_MSG_MAGIC;
    f->head.msg.type = (uint16_t)type;
    f->head.msg.epoch = r->bar0->epoch;
    f->head_len = head_len;
}

static void make_hello(const struct vgpu_relay *r, struct vgpu_frame *f)
{
    const struct vgpu_layout *l = &r->bar0->config.layout;
    struct vgpu_hello *m = &f->head.hello;

    frame_start(r, f, VGPU_MSG_HELLO, sizeof(*m));
    m->version_min = VGPU_LOCAL_VERSION_MIN;
    m->version_max = VGPU_LOCAL_VERSION_MAX;
    memcpy(m->uuid, r->config.uuid, sizeof(m->uuid));
    m->boot_id = r->config.boot_id;
    m->arena_size = l->arena_size;
    m->conn_gen = r->conn_gen;
    m->pool_wish = r->config.pool_wish;
    m->band_wish = r->bar0->wish;
    if (vgpu_relay_shm(r)) {
        m->features = VGPU_LOCAL_FEATURE_SHM;
        m->rings = (uint16_t)l->rings;
        m->ring_entries = l->entries;
        m->slot_bytes = l->slot_bytes;
        m->shm_size = l->shm_size;
        m->ring_offset = l->ring_offset;
        m->ring_stride = l->ring_stride;
        m->arena_offset = l->arena_offset;
    }
}

static void make_cancel(const struct vgpu_relay *r, struct vgpu_frame *f)
{
    frame_start(r, f, VGPU_MSG_CANCEL, sizeof(f->head.cancel));
    f->head.cancel.seq = r->cancel_seq;
    f->head.cancel.reason = r->cancel_reason;
}

static void make_request(const struct vgpu_relay *r, uint64_t now_ms, struct vgpu_frame *f)
{
    struct vgpu_request *m = &f->head.request;
    uint64_t left_ms = now_ms < r->deadline_ms ? r->deadline_ms - now_ms : 1;

    frame_start(r, f, VGPU_MSG_REQUEST, sizeof(*m));
    m->seq = r->bar0->seq;
    m->flags = r->sent_before ? VGPU_REQUEST_AGAIN : 0;
    m->flags |= r->accepted ? VGPU_REQUEST_ACCEPTED : 0;
    m->deadline_left_ms = left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX;
    f->body = r->bar0->req.bytes;
    f->body_len = r->bar0->req.len;
}

static void make_data(const struct vgpu_relay *r, struct vgpu_frame *f)
{
    struct vgpu_data *m = &f->head.data;
    uint64_t left = cursor_left(r, &r->in);

    frame_start(r, f, VGPU_MSG_DATA, sizeof(*m));
    m->seq = r->bar0->seq;
    m->buffer = r->in.index;
    m->offset = r->in.offset;
    f->body = cursor_bytes(r, &r->in);
    f->body_len = left < VGPU_DATA_CHUNK ? (size_t)left : VGPU_DATA_CHUNK;
}

/* RESET before all else of the new life; CANCEL before the request that took its place. */
static bool choose(const struct vgpu_relay *r, enum vgpu_msg_type *ret)
{
    bool request = vgpu_bar0_busy(r->bar0);

    if (r->say_hello) {
        *ret = VGPU_MSG_HELLO;
    } else if (r->link != VGPU_RELAY_UP) {
        return false;
    } else if (r->say_reset) {
        *ret = VGPU_MSG_RESET;
    } else if (r->cancel_seq != 0) {
        *ret = VGPU_MSG_CANCEL;
    } else if (r->say_wish) {
        *ret = VGPU_MSG_WISH;
    } else if (request && !r->sent && r->bar0->backend.up) {
        *ret = VGPU_MSG_REQUEST;
    } else if (request && r->sent && !vgpu_relay_shm(r) && !cursor_at_end(r, &r->in)) {
        *ret = VGPU_MSG_DATA;
    } else {
        return false;
    }
    return true;
}

bool vgpu_relay_next(struct vgpu_relay *r, uint64_t now_ms, struct vgpu_frame *ret)
{
    if (!choose(r, &r->next)) {
        return false;
    }
    switch (r->next) {
    case VGPU_MSG_HELLO:
        make_hello(r, ret);
        break;
    case VGPU_MSG_RESET:
        frame_start(r, ret, VGPU_MSG_RESET, sizeof(ret->head.reset));
        break;
    case VGPU_MSG_CANCEL:
        make_cancel(r, ret);
        break;
    case VGPU_MSG_WISH:
        frame_start(r, ret, VGPU_MSG_WISH, sizeof(ret->head.wish));
        ret->head.wish.band = r->bar0->wish;
        break;
    case VGPU_MSG_REQUEST:
        make_request(r, now_ms, ret);
        break;
    default:
        make_data(r, ret);
        break;
    }
    ret->head.msg.length = (uint32_t)(ret->head_len + ret->body_len);
    r->next_bytes = (uint32_t)ret->body_len;
    return true;
}

static bool has_arena_outputs(const struct request *q)
{
    uint32_t i;

    for (i = 0; i < q->hdr.nbufs; i++) {
        if (q->bufs[i].kind == VGPU_BUF_ARENA && q->bufs[i].dir == VGPU_BUF_OUT) {
            return true;
        }
    }
    return false;
}

void vgpu_relay_sent(struct vgpu_relay *r)
{
    switch (r->next) {
    case VGPU_MSG_HELLO:
        r->say_hello = false;
        r->writers = vgpu_relay_shm(r);
        break;
    case VGPU_MSG_RESET:
        r->say_reset = false;
        break;
    case VGPU_MSG_CANCEL:
        r->cancel_seq = 0;
        break;
    case VGPU_MSG_WISH:
        r->say_wish = false;
        break;
    case VGPU_MSG_REQUEST:
        r->sent = true;
        r->exposed = r->writers && has_arena_outputs(in_flight(r));
        break;
    default:
        r->in.offset += r->next_bytes;
        cursor_settle(r, &r->in, VGPU_BUF_IN);
        break;
    }
}

/* ---- what came in -------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static int protocol_error(char *why, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    vsnprintf(why, VGPU_RELAY_WHY_MAX, fmt, args);
    va_end(args);
    return VGPU_RELAY_E_PROTOCOL;
}

/* Ends what a mediator of another process must not run twice, and offers the rest again. */
static void resubmit(struct vgpu_relay *r, bool new_mediator)
{
    if (!vgpu_bar0_busy(r->bar0)) {
        return;
    }
    if (new_mediator && r->accepted && (in_flight(r)->hdr.flags & VGPU_REQ_NO_RETRY)) {
        end_request(r, VGPU_E_BACKEND_RESTARTED);
        return;
    }
    rewind_request(r);
}

static int on_hello_ack(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    struct vgpu_hello_ack m;
    struct vgpu_backend backend = r->bar0->backend;
    bool new_mediator;

    (void)len;
    memcpy(&m, bytes, sizeof(m));
    if (m.version < VGPU_LOCAL_VERSION_MIN || m.version > VGPU_LOCAL_VERSION_MAX) {
        return protocol_error(why, "HELLO_ACK chooses version %u, which was not offered",
                              m.version);
    }
    if (m.reserved0 || m.reserved1 || m.reserved2) {
        return protocol_error(why, "HELLO_ACK has reserved bits");
    }
    if (m.features != (vgpu_relay_shm(r) ? VGPU_LOCAL_FEATURE_SHM : 0)) {
        return protocol_error(why, "HELLO_ACK chooses features 0x%x; this device has datapath=%s",
                              m.features, vgpu_relay_shm(r) ? "shm" : "socket");
    }
    if (m.band >= VGPU_BANDS || m.up > 1 || m.deadline_ms == 0) {
        return protocol_error(why, "HELLO_ACK has band %u, up %u, deadline_ms %u", m.band, m.up,
                              m.deadline_ms);
    }
    new_mediator = !backend.known || m.mediator_gen != r->mediator_gen;
    r->mediator_gen = m.mediator_gen;
    r->link = VGPU_RELAY_UP;
    backend.known = true;
    backend.gen = (uint32_t)m.mediator_gen;
    backend.up = m.up != 0;
    backend.features = m.device_features;
    backend.vm_id = m.vm_id;
    backend.pool_id = m.pool_id;
    backend.band = m.band;
    backend.deadline_ms = m.deadline_ms;
    vgpu_bar0_set_backend(r->bar0, &backend);
    resubmit(r, new_mediator);
    return 0;
}

static int on_refused(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    struct vgpu_refused m;
    const char *text = (const char *)bytes + sizeof(m);
    size_t i, n = len - sizeof(m);

    (void)r;
    memcpy(&m, bytes, sizeof(m));
    n = n < VGPU_RELAY_WHY_MAX - 32 ? n : VGPU_RELAY_WHY_MAX - 32;
    snprintf(why, VGPU_RELAY_WHY_MAX, "reason %u: %.*s", m.reason, (int)n, text);
    for (i = 0; why[i] != '\0'; i++) {
        if ((unsigned char)why[i] < ' ') {
            why[i] = '?';
        }
    }
    return VGPU_RELAY_E_REFUSED;
}

static int on_data(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    struct vgpu_data m;
    size_t n = len - sizeof(m);

    memcpy(&m, bytes, sizeof(m));
    if (vgpu_relay_shm(r)) {
        return protocol_error(why, "DATA: this device has datapath=shm");
    }
    if (n == 0 || n > VGPU_DATA_CHUNK || m.reserved) {
        return protocol_error(why, "DATA carries %zu bytes or has reserved bits", n);
    }
    if (!vgpu_bar0_busy(r->bar0) || m.seq != r->bar0->seq) {
        return 0;
    }
    if (!r->sent || cursor_at_end(r, &r->out)) {
        return protocol_error(why, "DATA for request %llu was not expected",
                              (unsigned long long)m.seq);
    }
    if (m.buffer != r->out.index || m.offset != r->out.offset || n > cursor_left(r, &r->out)) {
        return protocol_error(why,
                              "DATA of %zu bytes for buffer %u at %llu; expected buffer %u at "
                              "%llu, at most %llu",
                              n, m.buffer, (unsigned long long)m.offset, r->out.index,
                              (unsigned long long)r->out.offset,
                              (unsigned long long)cursor_left(r, &r->out));
    }
    memcpy(cursor_bytes(r, &r->out), (const uint8_t *)bytes + sizeof(m), n);
    r->out.offset += n;
    cursor_settle(r, &r->out, VGPU_BUF_OUT);
    return 0;
}

static int on_accept(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    struct vgpu_accept m;

    (void)len;
    memcpy(&m, bytes, sizeof(m));
    if (!vgpu_bar0_busy(r->bar0) || m.seq != r->bar0->seq) {
        return 0;
    }
    if (!r->sent) {
        return protocol_error(why, "ACCEPT of a request that was not sent");
    }
    r->accepted = true;
    return 0;
}

static int on_response(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    const uint8_t *response = (const uint8_t *)bytes + sizeof(struct vgpu_response);
    size_t n = len - sizeof(struct vgpu_response);
    const struct vgpu_req_hdr *asked = &in_flight(r)->hdr;
    struct vgpu_response m;
    struct vgpu_resp_hdr hdr;

    memcpy(&m, bytes, sizeof(m));
    if (!vgpu_bar0_busy(r->bar0) || m.seq != r->bar0->seq) {
        return 0;
    }
    if (!r->sent) {
        return protocol_error(why, "RESPONSE to a request that was not sent");
    }
    if (response_check(response, n, asked->op, asked->tag, VGPU_PAYLOAD_MAX, &hdr, why) !=
        VGPU_E_OK) {
        return VGPU_RELAY_E_PROTOCOL;
    }
    if (hdr.seq != m.seq) {
        return protocol_error(why, "RESPONSE to request %llu has the header of request %llu",
                              (unsigned long long)m.seq, (unsigned long long)hdr.seq);
    }
    if (hdr.error == VGPU_E_OK && !vgpu_relay_shm(r) && !cursor_at_end(r, &r->out)) {
        return protocol_error(why,
                              "RESPONSE reports success before all output bytes came: buffer "
                              "%u ends at %llu",
                              r->out.index, (unsigned long long)r->out.offset);
    }
    r->exposed = false;
    r->given_up = VGPU_E_OK;
    r->cancel_seq = 0;
    vgpu_bar0_respond(r->bar0, response, (uint32_t)n);
    return 0;
}

static int on_reset_ack(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    (void)bytes;
    (void)len;
    (void)why;
    if (!r->say_reset) {
        vgpu_bar0_reset_done(r->bar0);
    }
    return 0;
}

/* The mediator has dropped the request and answers it no more. One that may still be written to waits
 * for the reset or the end of the connection. */
static void give_up_broken(struct vgpu_relay *r)
{
    if (vgpu_bar0_busy(r->bar0) && !r->exposed) {
        end_request(r, VGPU_E_BROKEN);
    }
}

static int on_state(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    struct vgpu_backend backend = r->bar0->backend;
    struct vgpu_state m;

    (void)len;
    memcpy(&m, bytes, sizeof(m));
    if (m.reserved || m.band >= VGPU_BANDS || m.up > 1 || m.broken > vgpu_relay_shm(r)) {
        return protocol_error(why, "STATE has band %u, up %u, broken %u or reserved bits", m.band,
                              m.up, m.broken);
    }
    backend.pool_id = m.pool_id;
    backend.band = m.band;
    backend.up = m.up != 0;
    vgpu_bar0_set_backend(r->bar0, &backend);
    if (m.broken && m.msg.epoch == r->bar0->epoch) {
        vgpu_bar0_break(r->bar0);
        give_up_broken(r);
    }
    return 0;
}

/* What a mediator may say, when, and how long it must be. */
static const struct incoming {
    enum vgpu_msg_type type;
    enum vgpu_relay_link link;
    bool of_a_life; /* dropped when its epoch is not the current one */
    bool exact;     /* no bytes may follow the fixed part */
    size_t len;
    int (*handle)(struct vgpu_relay *r, const void *bytes, size_t len, char *why);
} incoming[] = {
    /* clang-format off */
    { VGPU_MSG_HELLO_ACK, VGPU_RELAY_HELLO, false, true,  sizeof(struct vgpu_hello_ack), on_hello_ack },
    { VGPU_MSG_REFUSED,   VGPU_RELAY_HELLO, false, false, sizeof(struct vgpu_refused),   on_refused },
    { VGPU_MSG_DATA,      VGPU_RELAY_UP,    true,  false, sizeof(struct vgpu_data),      on_data },
    { VGPU_MSG_ACCEPT,    VGPU_RELAY_UP,    true,  true,  sizeof(struct vgpu_accept),    on_accept },
    { VGPU_MSG_RESPONSE,  VGPU_RELAY_UP,    true,  false, sizeof(struct vgpu_response),  on_response },
    { VGPU_MSG_RESET_ACK, VGPU_RELAY_UP,    true,  true,  sizeof(struct vgpu_reset),     on_reset_ack },
    { VGPU_MSG_STATE,     VGPU_RELAY_UP,    false, true,  sizeof(struct vgpu_state),     on_state },
    /* clang-format on */
};

static const struct incoming *find_incoming(const struct vgpu_relay *r, uint16_t type)
{
    size_t i;

    for (i = 0; i < sizeof(incoming) / sizeof(incoming[0]); i++) {
        if (incoming[i].type == type && incoming[i].link == r->link && !r->say_hello) {
            return &incoming[i];
        }
    }
    return NULL;
}

int vgpu_relay_receive(struct vgpu_relay *r, const void *bytes, size_t len, char *why)
{
    const struct incoming *in;
    struct vgpu_msg msg;

    if (len < sizeof(msg) || len > VGPU_MSG_MAX) {
        return protocol_error(why, "a message of %zu bytes", len);
    }
    memcpy(&msg, bytes, sizeof(msg));
    if (msg.magic != VGPU_MSG_MAGIC || msg.length != len || msg.reserved != 0) {
        return protocol_error(why,
                              "a message of %zu bytes with magic 0x%08x, length %u, reserved %u",
                              len, msg.magic, msg.length, msg.reserved);
    }
    in = find_incoming(r, msg.type);
    if (in == NULL) {
        return protocol_error(why, "a message of type 0x%02x, which does not belong here",
                              msg.type);
    }
    if (len < in->len || (in->exact && len != in->len)) {
        return protocol_error(why, "a message of type 0x%02x with %zu bytes instead of %zu",
                              msg.type, len, in->len);
    }
    if (in->of_a_life && msg.epoch != r->bar0->epoch) {
        return 0;
    }
    return in->handle(r, bytes, len, why);
}

static bool cursor_ok(const struct vgpu_relay *r, const struct vgpu_cursor *c, uint8_t dir)
{
    const struct vgpu_buf *buf;

    if (cursor_at_end(r, c)) {
        return c->index == in_flight(r)->hdr.nbufs && c->offset == 0;
    }
    buf = &in_flight(r)->bufs[c->index];
    return buf->kind == VGPU_BUF_ARENA && buf->dir == dir && c->offset < buf->length;
}

/* What is only there while somebody may write to BAR 2. */
static bool writers_ok(const struct vgpu_relay *r)
{
    bool resetting = (r->bar0->flags & VGPU_STATUS_RESETTING) != 0;

    if (r->writers && !vgpu_relay_shm(r)) {
        return false;
    }
    if (r->exposed && (!r->writers || !vgpu_bar0_busy(r->bar0))) {
        return false;
    }
    if (r->given_up != VGPU_E_OK && !r->exposed) {
        return false;
    }
    return !resetting || r->writers || (!vgpu_relay_shm(r) && r->link != VGPU_RELAY_DOWN);
}

int vgpu_relay_check(const struct vgpu_relay *r)
{
    bool asked = r->cancel_seq != 0 && vgpu_bar0_busy(r->bar0) && r->cancel_seq == r->bar0->seq;

    if (r->link == VGPU_RELAY_DOWN &&
        (r->say_hello || r->say_reset || r->say_wish || r->cancel_seq || r->bar0->backend.up)) {
        return -101;
    }
    if (asked && r->given_up == VGPU_E_OK) {
        return -102;
    }
    if (vgpu_bar0_busy(r->bar0) &&
        (!cursor_ok(r, &r->in, VGPU_BUF_IN) || !cursor_ok(r, &r->out, VGPU_BUF_OUT))) {
        return -103;
    }
    if (r->say_hello && r->link != VGPU_RELAY_HELLO) {
        return -104;
    }
    if (!writers_ok(r)) {
        return -105;
    }
    return vgpu_bar0_check(r->bar0);
}
