/* SPDX-License-Identifier: MIT */
/* mmio.c - see mmio.h */
#include "guest/lib/mmio.h"

static uint32_t mapped_read(void *base, uint32_t offset)
{
    return *(volatile uint32_t *)((uint8_t *)base + offset);
}

static void mapped_write(void *base, uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)((uint8_t *)base + offset) = value;
}

struct mmio mmio_map(void *base)
{
    return (struct mmio){.read = mapped_read, .write = mapped_write, .arg = base};
}

void mmio_copy_to(const struct mmio *m, uint32_t offset, const void *data, uint32_t len)
{
    const uint8_t *from = data;

    for (uint32_t i = 0; i < len; i += 4) {
        uint32_t word = 0;

        memcpy(&word, from + i, len - i < 4 ? len - i : 4);
        mmio_write(m, offset + i, word);
    }
}

void mmio_copy_from(const struct mmio *m, uint32_t offset, void *ret_data, uint32_t len)
{
    uint8_t *to = ret_data;

    for (uint32_t i = 0; i < len; i += 4) {
        uint32_t word = mmio_read(m, offset + i);

        memcpy(to + i, &word, len - i < 4 ? len - i : 4);
    }
}
