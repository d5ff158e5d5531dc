/* SPDX-License-Identifier: MIT */
/*
 * mmio - 32-bit access to the registers and windows of BAR 0
 *
 * The two functions are a mapped BAR in the product and a simulated device in the tests.
 */
#ifndef GUEST_MMIO_H
#define GUEST_MMIO_H

#include <stdint.h>
#include <string.h>

struct mmio {
    uint32_t (*read)(void *arg, uint32_t offset);
    void (*write)(void *arg, uint32_t offset, uint32_t value);
    void *arg; /* of the functions; for mmio_map() the mapping */
};

/** mmio_map() - accessors of a BAR that is mapped at @base */
struct mmio mmio_map(void *base);

static inline uint32_t mmio_read(const struct mmio *m, uint32_t offset)
{
    return m->read(m->arg, offset);
}

static inline void mmio_write(const struct mmio *m, uint32_t offset, uint32_t value)
{
    m->write(m->arg, offset, value);
}

/** mmio_read64() - two registers, low half first */
static inline uint64_t mmio_read64(const struct mmio *m, uint32_t offset)
{
    uint64_t low = mmio_read(m, offset);

    return low | (uint64_t)mmio_read(m, offset + 4) << 32;
}

/** mmio_copy_to() - copy @len bytes to @offset; the last word is filled up with 0 bytes */
void mmio_copy_to(const struct mmio *m, uint32_t offset, const void *data, uint32_t len);

/** mmio_copy_from() - copy @len bytes from @offset */
void mmio_copy_from(const struct mmio *m, uint32_t offset, void *ret_data, uint32_t len);

/** mmio_barrier() - everything written to memory before is visible before what follows */
static inline void mmio_barrier(void)
{
    __sync_synchronize(); /* on x86 this also drains the write-combining buffers */
}

#endif
