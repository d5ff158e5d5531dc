/* SPDX-License-Identifier: MIT */
/* See driver.h. */
#include "tests/guest/cpu.h"
#include "tests/guest/driver.h"

#define REACHABLE 0x100000000ull

uint32_t reg_read(const struct device *d, uint32_t reg)
{
    return *(volatile uint32_t *)(d->regs + reg);
}

void reg_write(const struct device *d, uint32_t reg, uint32_t value)
{
    __asm__ volatile("" ::: "memory");
    *(volatile uint32_t *)(d->regs + reg) = value;
}

static uint8_t *address(const struct pci_bar *bar)
{
    return (uint8_t *)(uintptr_t)(uint32_t)bar->base;
}

/* All BARs, with memory space off meanwhile; a 64-bit one comes below 4 GiB. */
static const char *place_bars(struct device *d)
{
    uint32_t command = pci_read(d->pci, PCI_COMMAND) & 0xffffu;
    const char *why = NULL;

    pci_write(d->pci, PCI_COMMAND, command & ~(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER));
    for (unsigned i = 0; i < 6; i++) {
        d->bars[i] = pci_bar_get(d->pci, i);
        i += d->bars[i].is_64bit;
    }
    if (d->bars[0].size == 0 || d->bars[0].base == 0) {
        why = "BAR 0 has no address";
    } else if (d->bars[2].size &&
               (d->bars[2].base + d->bars[2].size > REACHABLE || d->bars[2].base == 0)) {
        if (pci_bar_move(d->pci, 2, &d->bars[2])) {
            why = "no hole below 4 GiB is large enough for BAR 2";
        } else {
            say("# moved BAR 2 to 0x%x\n", (uint32_t)d->bars[2].base);
        }
    }
    pci_write(d->pci, PCI_COMMAND, command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    return why;
}

const char *device_move_shm(struct device *d)
{
    uint32_t command = pci_read(d->pci, PCI_COMMAND) & 0xffffu;
    uint32_t arena_offset = (uint32_t)(d->arena - address(&d->bars[2]));
    int moved;

    pci_write(d->pci, PCI_COMMAND, command & ~PCI_COMMAND_MEMORY);
    moved = pci_bar_move(d->pci, 2, &d->bars[2]);
    pci_write(d->pci, PCI_COMMAND, command);
    if (moved) {
        return "no other hole below 4 GiB is large enough for BAR 2";
    }
    d->arena = address(&d->bars[2]) + arena_offset;
    return NULL;
}

static const char *find_arena(struct device *d)
{
    uint64_t offset, size;

    if (!(reg_read(d, REG_FEATURES) & FEATURE_SHM)) {
        return NULL;
    }
    offset = (uint64_t)reg_read(d, REG_ARENA_OFFSET_HI) << 32 | reg_read(d, REG_ARENA_OFFSET_LO);
    size = (uint64_t)reg_read(d, REG_ARENA_SIZE_HI) << 32 | reg_read(d, REG_ARENA_SIZE_LO);
    if (offset > d->bars[2].size || size > d->bars[2].size - offset) {
        return "the arena lies outside BAR 2";
    }
    d->arena = address(&d->bars[2]) + (uint32_t)offset;
    d->arena_size = (uint32_t)size;
    return NULL;
}

const char *device_open(struct device *ret)
{
    const char *why;

    memset(ret, 0, sizeof(*ret));
    ret->pci = pci_find(DOC_VENDOR, DOC_DEVICE);
    if (ret->pci == 0) {
        return "no PCI function 1234:5647";
    }
    why = place_bars(ret);
    if (why) {
        return why;
    }
    ret->regs = address(&ret->bars[0]);
    ret->msix = ret->bars[4].size ? address(&ret->bars[4]) : NULL;
    if (reg_read(ret, REG_MAGIC) != 0x55504756u) {
        return "MAGIC does not read VGPU";
    }
    if (reg_read(ret, REG_ABI_VERSION) >> 16 != 1) {
        return "this driver knows ABI version 1 only";
    }
    return find_arena(ret);
}

struct call call_new(uint16_t op)
{
    return (struct call){.op = op, .band = 0xff, .deadline_ms = 60000};
}

void call_buf(struct call *c, uint8_t kind, uint8_t dir, uint64_t offset, uint64_t length)
{
    c->bufs[c->nbufs++] =
        (struct req_buf){.kind = kind, .dir = dir, .offset = offset, .length = length};
}

uint32_t call_encode(const struct call *c, uint64_t tag, uint8_t *ret)
{
    uint32_t data_at = sizeof(struct req_hdr) + c->nbufs * sizeof(struct req_buf) + c->body_len;
    struct req_hdr h = {
        .size = data_at + c->data_len,
        .version = 1,
        .op = c->op,
        .flags = c->flags,
        .deadline_ms = c->deadline_ms,
        .tag = tag,
        .pool = c->pool,
        .band = c->band,
        .nbufs = c->nbufs,
        .body_len = c->body_len,
    };

    memcpy(ret, &h, sizeof(h));
    for (unsigned i = 0; i < c->nbufs; i++) {
        struct req_buf b = c->bufs[i];

        if (b.kind == INLINE && b.dir == IN) {
            b.offset += data_at;
        }
        memcpy(ret + sizeof(h) + i * sizeof(b), &b, sizeof(b));
    }
    memcpy(ret + data_at - c->body_len, c->body, c->body_len);
    memcpy(ret + data_at, c->data, c->data_len);
    return h.size;
}

void device_write(const struct device *d, const void *bytes, uint32_t len)
{
    uint32_t word;

    for (uint32_t at = 0; at < len; at += 4) {
        word = 0;
        memcpy(&word, (const uint8_t *)bytes + at, len - at < 4 ? len - at : 4);
        reg_write(d, WINDOW_REQUEST + at, word);
    }
    reg_write(d, REG_REQUEST_LEN, len);
}

void device_ring(const struct device *d)
{
    reg_write(d, REG_DOORBELL, 1);
}

/* One exit to the host per look: rest longer the longer it takes, up to about 50 us. */
static void rest(unsigned *looks)
{
    unsigned pauses = *looks < 8 ? 1 : *looks < 64 ? 64 : 1024;

    ++*looks;
    while (pauses--) {
        cpu_pause();
    }
}

bool device_wait_flags(const struct device *d, uint32_t mask, uint32_t value, uint32_t ms)
{
    uint64_t end = cpu_after_ms(ms);
    unsigned looks = 0;

    while ((reg_read(d, REG_STATUS) & mask) != value) {
        if (cpu_tsc() > end) {
            return false;
        }
        rest(&looks);
    }
    return true;
}

uint32_t device_wait(const struct device *d, uint32_t ms)
{
    uint64_t end = cpu_after_ms(ms);
    unsigned looks = 0;
    uint32_t status;

    while (((status = reg_read(d, REG_STATUS)) & STATE_MASK) == STATE_BUSY && cpu_tsc() < end) {
        rest(&looks);
    }
    __asm__ volatile("" ::: "memory"); /* outputs are read after the state */
    return status;
}

void device_read(const struct device *d, struct answer *ret)
{
    uint8_t bytes[WINDOW_SIZE];

    memset(ret, 0, sizeof(*ret));
    ret->state = reg_read(d, REG_STATUS) & STATE_MASK;
    ret->error = reg_read(d, REG_ERROR);
    ret->len = reg_read(d, REG_RESPONSE_LEN);
    for (uint32_t at = 0; at < ret->len && at < WINDOW_SIZE; at += 4) {
        uint32_t word = reg_read(d, WINDOW_RESPONSE + at);

        memcpy(bytes + at, &word, 4);
    }
    if (ret->len >= sizeof(ret->hdr) && ret->len <= WINDOW_SIZE) {
        memcpy(&ret->hdr, bytes, sizeof(ret->hdr));
        memcpy(ret->payload, bytes + sizeof(ret->hdr), ret->len - sizeof(ret->hdr));
    }
}

uint32_t device_call(const struct device *d, const struct call *c, uint32_t ms, struct answer *ret)
{
    static uint8_t bytes[2048];
    static uint64_t tag = 0x5647000000000000ull;
    uint32_t len = call_encode(c, ++tag, bytes);

    device_write(d, bytes, len);
    device_ring(d);
    if ((device_wait(d, ms) & STATE_MASK) == STATE_BUSY) {
        ret->state = STATE_BUSY;
        return ~0u;
    }
    device_read(d, ret);
    return ret->hdr.tag == tag ? ret->error : ~1u;
}
