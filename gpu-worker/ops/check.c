/* SPDX-License-Identifier: MIT */
/*
 * check.c - rules that several operations share; see check.h
 */
#include "gpu-worker/ops/check.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

uint32_t check_fail(uint32_t error, char *why, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(why, REQUEST_WHY_MAX, format, args);
    va_end(args);
    return error;
}

uint32_t check_reserved(const void *field, size_t bytes, char *why)
{
    const uint8_t *p = field;

    for (size_t i = 0; i < bytes; i++) {
        if (p[i]) {
            return check_fail(VGPU_E_RESERVED_SET, why, "a reserved field of the body is not zero");
        }
    }
    return VGPU_E_OK;
}

uint32_t check_size(const char *name, uint64_t value, uint64_t max, char *why)
{
    if (value == 0 || value > max) {
        return check_fail(VGPU_E_BAD_SHAPE, why, "%s is %" PRIu64 "; it must be 1 to %" PRIu64,
                          name, value, max);
    }
    return VGPU_E_OK;
}

uint32_t check_choice(const char *name, uint32_t value, uint32_t max, char *why)
{
    if (value > max) {
        return check_fail(VGPU_E_BAD_PARAM, why, "%s is %" PRIu32 "; it must be 0 to %" PRIu32,
                          name, value, max);
    }
    return VGPU_E_OK;
}

uint32_t check_buffers(const struct request *r, const char *pattern, char *why)
{
    size_t want = strlen(pattern);

    if (r->hdr.nbufs != want) {
        return check_fail(VGPU_E_BAD_BUFFER, why,
                          "%u buffers; this op with these parameters takes %zu", r->hdr.nbufs,
                          want);
    }
    for (size_t i = 0; i < want; i++) {
        uint8_t dir = pattern[i] == 'i' ? VGPU_BUF_IN : VGPU_BUF_OUT;
        if (r->bufs[i].dir != dir) {
            return check_fail(VGPU_E_BAD_BUFFER, why, "buffer %zu must be %s", i,
                              dir == VGPU_BUF_IN ? "an input" : "an output");
        }
    }
    return VGPU_E_OK;
}

uint32_t check_length(const struct request *r, uint32_t index, uint64_t bytes, char *why)
{
    return check_length_range(r, index, bytes, bytes, why);
}

uint32_t check_length_range(const struct request *r, uint32_t index, uint64_t least, uint64_t most,
                            char *why)
{
    uint64_t length = r->bufs[index].length;

    if (length >= least && length <= most) {
        return VGPU_E_OK;
    }
    if (least == most) {
        return check_fail(VGPU_E_BAD_SHAPE, why,
                          "buffer %" PRIu32 " has %" PRIu64 " bytes; the sizes make %" PRIu64,
                          index, length, least);
    }
    return check_fail(VGPU_E_BAD_SHAPE, why,
                      "buffer %" PRIu32 " has %" PRIu64 " bytes; the sizes make %" PRIu64
                      " to %" PRIu64,
                      index, length, least, most);
}

static uint32_t overflow(char *why)
{
    return check_fail(VGPU_E_OVERFLOW, why, "the sizes multiply to more than 64 bits can hold");
}

uint32_t check_product(const uint64_t *factors, size_t count, uint64_t *ret, char *why)
{
    uint64_t product = 1;

    for (size_t i = 0; i < count; i++) {
        if (__builtin_mul_overflow(product, factors[i], &product)) {
            return overflow(why);
        }
    }
    *ret = product;
    return VGPU_E_OK;
}

uint32_t check_vector_bytes(uint64_t n, uint64_t stride, uint64_t element_bytes, uint64_t *ret,
                            char *why)
{
    uint64_t elements, bytes;

    if (__builtin_mul_overflow(n - 1, stride, &elements) ||
        __builtin_add_overflow(elements, 1, &elements) ||
        __builtin_mul_overflow(elements, element_bytes, &bytes)) {
        return overflow(why);
    }
    *ret = bytes;
    return VGPU_E_OK;
}
