/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vgpu_bar0.h. */
#include <stdio.h>
#include <string.h>

#include "vgpu_bar0.h"

#define RING_DOORBELL_END (VGPU_REG_RING_DOORBELL + 4u * VGPU_RINGS_MAX)
/* What a mediator may add; the rest is the device's own. */
#define BACKEND_FEATURES (VGPU_FEATURE_OBJECT | VGPU_FEATURE_PROGRAM | VGPU_FEATURE_LAUNCH)
#define BAND_ANY_OK(band) ((band) < VGPU_BANDS || (band) == VGPU_BAND_DEFAULT)

void vgpu_bar0_init(struct vgpu_bar0 *b, const struct vgpu_bar0_config *config)
{
    memset(b, 0, sizeof(*b));
    b->config = *config;
    b->wish = config->band;
    b->backend.band = config->band;
    b->backend.deadline_ms = config->deadline_ms;
}

/* ---- reads --------------------------------------------------------------------------------- */

static uint32_t read_device_reg(const struct vgpu_bar0 *b, uint32_t offset)
{
    switch (offset) {
    case VGPU_REG_MAGIC:
        return VGPU_MAGIC;
    case VGPU_REG_ABI_VERSION:
        return VGPU_ABI_VERSION;
    case VGPU_REG_FEATURES:
        return b->config.features | (b->backend.features & BACKEND_FEATURES);
    case VGPU_REG_VM_ID:
        return b->backend.vm_id;
    case VGPU_REG_POOL_ID:
        return b->backend.pool_id;
    case VGPU_REG_PRIORITY:
        return b->backend.band;
    case VGPU_REG_BACKEND_GEN:
        return b->backend.gen;
    case VGPU_REG_RESET_EPOCH:
        return b->epoch;
    case VGPU_REG_DEADLINE_MS:
        return b->backend.deadline_ms;
    default:
        return 0;
    }
}

static uint32_t read_shm_reg(const struct vgpu_layout *l, uint32_t offset)
{
    switch (offset) {
    case VGPU_REG_RING_COUNT:
        return l->rings;
    case VGPU_REG_RING_ENTRIES:
        return l->entries;
    case VGPU_REG_RING_OFFSET:
        return l->ring_offset;
    case VGPU_REG_RING_STRIDE:
        return l->ring_stride;
    case VGPU_REG_SLOT_BYTES:
        return l->slot_bytes;
    case VGPU_REG_SHM_SIZE_LO:
        return (uint32_t)l->shm_size;
    case VGPU_REG_SHM_SIZE_HI:
        return (uint32_t)(l->shm_size >> 32);
    case VGPU_REG_ARENA_OFFSET_LO:
        return (uint32_t)l->arena_offset;
    case VGPU_REG_ARENA_OFFSET_HI:
        return (uint32_t)(l->arena_offset >> 32);
    case VGPU_REG_ARENA_SIZE_LO:
        return (uint32_t)l->arena_size;
    case VGPU_REG_ARENA_SIZE_HI:
        return (uint32_t)(l->arena_size >> 32);
    default:
        return 0;
    }
}

static uint32_t read_reg(const struct vgpu_bar0 *b, uint32_t offset)
{
    switch (offset) {
    case VGPU_REG_STATUS:
        return b->state | b->flags;
    case VGPU_REG_ERROR:
        return b->error;
    case VGPU_REG_REQUEST_LEN:
        return b->request_len;
    case VGPU_REG_REQUEST_ID:
        return (uint32_t)b->seq;
    case VGPU_REG_RESPONSE_LEN:
        return b->response_len;
    case VGPU_REG_REJECTS:
        return b->rejects;
    case VGPU_REG_REJECT_ERROR:
        return b->reject_error;
    default:
        return offset >= VGPU_REG_RING_COUNT ? read_shm_reg(&b->config.layout, offset)
                                             : read_device_reg(b, offset);
    }
}

/* The 32-bit word at @offset, a multiple of 4. */
static uint32_t read_word(const struct vgpu_bar0 *b, uint32_t offset)
{
    const uint8_t *window;
    uint32_t word;

    if (offset < VGPU_WINDOW_REQUEST) {
        return read_reg(b, offset);
    }
    if (offset >= VGPU_WINDOW_RESPONSE + VGPU_WINDOW_SIZE) {
        return 0;
    }
    window = offset < VGPU_WINDOW_RESPONSE ? b->request_window : b->response_window;
    memcpy(&word, window + offset % VGPU_WINDOW_SIZE, sizeof(word));
    return word;
}

uint64_t vgpu_bar0_read(const struct vgpu_bar0 *b, uint32_t offset, unsigned size)
{
    uint64_t value;

    if (size == 8) {
        return read_word(b, offset) | (uint64_t)read_word(b, offset + 4) << 32;
    }
    value = read_word(b, offset & ~3u) >> (8 * (offset & 3u));
    return size == 4 ? value : value & ((1u << (8 * size)) - 1);
}

/* ---- the window request -------------------------------------------------------------------- */

static void complain(struct vgpu_bar0 *b, const char *what)
{
    snprintf(b->complaint, sizeof(b->complaint), "%s", what);
}

/* Ends the request; the response window already holds @len bytes of response. */
static void end_request(struct vgpu_bar0 *b, uint32_t error, uint32_t len)
{
    uint32_t flags = 0;

    memset(b->response_window + len, 0, VGPU_WINDOW_SIZE - len);
    b->response_len = len;
    b->error = error;
    b->state = error == VGPU_E_OK ? VGPU_STATUS_DONE : VGPU_STATUS_ERROR;
    b->ended = true;
    if (b->req.len >= sizeof(struct vgpu_req_hdr)) {
        memcpy(&flags, b->req.bytes + offsetof(struct vgpu_req_hdr, flags), sizeof(flags));
    }
    if (flags & VGPU_REQ_IRQ) {
        b->irq = true;
    }
}

void vgpu_bar0_respond(struct vgpu_bar0 *b, const void *response, uint32_t len)
{
    struct vgpu_resp_hdr hdr;

    if (!vgpu_bar0_busy(b) || len < sizeof(hdr) || len > VGPU_WINDOW_SIZE) {
        return;
    }
    memcpy(&hdr, response, sizeof(hdr));
    memcpy(b->response_window, response, len);
    end_request(b, hdr.error, len);
}

void vgpu_bar0_fail(struct vgpu_bar0 *b, uint32_t error, const char *text)
{
    uint32_t len;

    if (!vgpu_bar0_busy(b)) {
        return;
    }
    len = response_error(b->response_window, VGPU_WINDOW_SIZE,
                         request_peek_op(b->req.bytes, b->req.len),
                         request_peek_tag(b->req.bytes, b->req.len), error, text);
    memcpy(b->response_window + offsetof(struct vgpu_resp_hdr, seq), &b->seq, sizeof(b->seq));
    end_request(b, error, len);
}

static uint32_t effective_deadline(const struct vgpu_bar0 *b, uint32_t wish_ms)
{
    uint32_t most_ms = b->backend.deadline_ms;

    return wish_ms == 0 || wish_ms > most_ms ? most_ms : wish_ms;
}

/* Copies the request out of the window, once, and validates the copy. */
static uint32_t take_request(struct vgpu_bar0 *b, char *why)
{
    const struct request_limits limits = {
        .max_size = VGPU_WINDOW_SIZE,
        .payload_max = VGPU_PAYLOAD_MAX,
        /* whether objects and programs are offered is for the mediator to say */
        .features = VGPU_FEATURE_OBJECT | VGPU_FEATURE_PROGRAM,
        .arena_size = b->config.layout.arena_size,
    };
    uint32_t error;

    b->req.len = b->request_len < VGPU_WINDOW_SIZE ? b->request_len : VGPU_WINDOW_SIZE;
    memcpy(b->req.bytes, b->request_window, b->req.len);
    if (b->request_len > VGPU_WINDOW_SIZE) {
        snprintf(why, REQUEST_WHY_MAX, "REQUEST_LEN is %u, the request window holds %u bytes",
                 b->request_len, VGPU_WINDOW_SIZE);
        return VGPU_E_BAD_LENGTH;
    }
    error = request_parse(b->req.bytes, b->req.len, &limits, &b->req.parsed, why);
    if (error == VGPU_E_OK) {
        b->req.deadline_ms = effective_deadline(b, b->req.parsed.hdr.deadline_ms);
    }
    return error;
}

static uint32_t reject(struct vgpu_bar0 *b, uint32_t error, const char *why)
{
    b->rejects++;
    b->reject_error = error;
    complain(b, why);
    return 0;
}

static uint32_t doorbell(struct vgpu_bar0 *b)
{
    char why[REQUEST_WHY_MAX];
    uint32_t error;

    if (b->flags & VGPU_STATUS_BROKEN) {
        return reject(b, VGPU_E_BROKEN, "doorbell while the device is broken: reset it first");
    }
    if (b->flags & VGPU_STATUS_RESETTING) {
        return reject(b, VGPU_E_BUSY, "doorbell while a reset is under way");
    }
    if (vgpu_bar0_busy(b)) {
        return reject(b, VGPU_E_BUSY, "doorbell while a request is in flight");
    }
    b->seq++;
    b->state = VGPU_STATUS_BUSY;
    b->error = VGPU_E_OK;
    b->response_len = 0;
    memset(b->response_window, 0, sizeof(b->response_window));
    error = take_request(b, why);
    if (error != VGPU_E_OK) {
        vgpu_bar0_fail(b, error, why);
        complain(b, why);
        return 0;
    }
    return VGPU_BAR0_SUBMIT;
}

/* ---- writes -------------------------------------------------------------------------------- */

static uint32_t write_control(struct vgpu_bar0 *b, uint32_t value)
{
    if (value == VGPU_CONTROL_RESET) {
        return VGPU_BAR0_RESET;
    }
    if (value == VGPU_CONTROL_CANCEL) {
        return vgpu_bar0_busy(b) ? VGPU_BAR0_CANCEL : 0;
    }
    complain(b, "unknown value written to CONTROL");
    return 0;
}

static uint32_t write_priority(struct vgpu_bar0 *b, uint32_t value)
{
    if (!BAND_ANY_OK(value)) {
        complain(b, "PRIORITY takes 0 to 3, or 0xff for the operator's default");
        return 0;
    }
    b->wish = (uint8_t)value;
    if (!b->backend.known) {
        b->backend.band = b->wish;
    }
    return VGPU_BAR0_WISH;
}

static uint32_t write_reg(struct vgpu_bar0 *b, uint32_t offset, uint32_t value)
{
    switch (offset) {
    case VGPU_REG_REQUEST_LEN:
        b->request_len = value;
        return 0;
    case VGPU_REG_PRIORITY:
        return write_priority(b, value);
    case VGPU_REG_CONTROL:
        return write_control(b, value);
    default:
        return 0;
    }
}

/* Only where no ioeventfd took the write before. */
static uint32_t ring_doorbell(struct vgpu_bar0 *b, uint32_t ring)
{
    if (ring >= b->config.layout.rings) {
        complain(b, "doorbell of a ring that does not exist: see RING_COUNT");
        return 0;
    }
    b->kicked = ring;
    return VGPU_BAR0_KICK;
}

static uint32_t write_register(struct vgpu_bar0 *b, uint32_t offset, uint64_t value, unsigned size)
{
    uint32_t todo = 0;

    /* As with an ioeventfd, any width rings a doorbell. */
    if (offset == VGPU_REG_DOORBELL) {
        return doorbell(b);
    }
    if (offset >= VGPU_REG_RING_DOORBELL && offset < RING_DOORBELL_END) {
        return ring_doorbell(b, (offset - VGPU_REG_RING_DOORBELL) / 4);
    }
    if (size >= 4) {
        todo |= write_reg(b, offset, (uint32_t)value);
    }
    if (size == 8) {
        todo |= write_reg(b, offset + 4, (uint32_t)(value >> 32));
    }
    return todo;
}

uint32_t vgpu_bar0_write(struct vgpu_bar0 *b, uint32_t offset, uint64_t value, unsigned size)
{
    if (offset < VGPU_WINDOW_REQUEST) {
        return write_register(b, offset, value, size);
    }
    if (offset < VGPU_WINDOW_RESPONSE) {
        memcpy(b->request_window + (offset - VGPU_WINDOW_REQUEST), &value, size);
    }
    return 0;
}

/* ---- the device's side --------------------------------------------------------------------- */

static uint32_t up_flag(const struct vgpu_bar0 *b)
{
    return b->backend.up && !(b->flags & VGPU_STATUS_RESETTING) ? VGPU_STATUS_BACKEND_UP : 0;
}

static void update_up(struct vgpu_bar0 *b)
{
    uint32_t flags = (b->flags & ~VGPU_STATUS_BACKEND_UP) | up_flag(b);

    if (flags != b->flags) {
        b->flags = flags;
        b->irq = true;
    }
}

void vgpu_bar0_set_backend(struct vgpu_bar0 *b, const struct vgpu_backend *backend)
{
    if (b->backend.band != backend->band || b->backend.pool_id != backend->pool_id ||
        b->backend.gen != backend->gen) {
        b->irq = true;
    }
    b->backend = *backend;
    update_up(b);
}

void vgpu_bar0_reset(struct vgpu_bar0 *b, bool resetting)
{
    struct vgpu_bar0_config config = b->config;
    struct vgpu_backend backend = b->backend;
    uint32_t epoch = b->epoch;
    uint8_t wish = b->wish;

    vgpu_bar0_init(b, &config);
    b->epoch = epoch + 1;
    b->wish = wish;
    b->backend = backend;
    b->flags = resetting ? VGPU_STATUS_RESETTING : 0;
    b->flags |= up_flag(b);
}

void vgpu_bar0_reset_done(struct vgpu_bar0 *b)
{
    if (b->flags & VGPU_STATUS_RESETTING) {
        b->flags &= ~VGPU_STATUS_RESETTING;
        b->irq = true;
        update_up(b);
    }
}

void vgpu_bar0_break(struct vgpu_bar0 *b)
{
    if (!(b->flags & VGPU_STATUS_BROKEN)) {
        b->flags |= VGPU_STATUS_BROKEN;
        b->irq = true;
        complain(b, "the guest broke a rule of its rings: the device is broken until it is reset");
    }
}

int vgpu_bar0_check(const struct vgpu_bar0 *b)
{
    uint32_t i;

    if (b->state > VGPU_STATUS_ERROR || (b->flags & VGPU_STATUS_STATE_MASK)) {
        return -1;
    }
    if ((b->state == VGPU_STATUS_ERROR) != (b->error != VGPU_E_OK)) {
        return -2;
    }
    if (b->response_len > VGPU_WINDOW_SIZE || (vgpu_bar0_busy(b) && b->response_len != 0)) {
        return -3;
    }
    for (i = b->response_len; i < VGPU_WINDOW_SIZE; i++) {
        if (b->response_window[i] != 0) {
            return -4;
        }
    }
    if ((b->flags & VGPU_STATUS_RESETTING) && (b->flags & VGPU_STATUS_BACKEND_UP)) {
        return -5;
    }
    if (vgpu_bar0_busy(b) && (b->req.len != b->req.parsed.hdr.size || b->req.deadline_ms == 0)) {
        return -6;
    }
    if (!BAND_ANY_OK(b->wish) || b->req.len > VGPU_WINDOW_SIZE) {
        return -7;
    }
    return vgpu_layout_check(&b->config.layout);
}
