/* SPDX-License-Identifier: MIT */
/*
 * check - the rules that several operations share (for the files of this folder only)
 *
 * Every function returns an enum vgpu_error and writes a sentence to @why when it is not OK.
 */
#ifndef VGPU_WORKER_OPS_CHECK_H
#define VGPU_WORKER_OPS_CHECK_H

#include <stddef.h>
#include <stdint.h>

#include "gpu-worker/ops/ops.h"

/**
 * check_fail() - write a sentence
 *
 * Return: @error.
 */
uint32_t check_fail(uint32_t error, char *why, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** check_reserved() - @bytes bytes at @field are zero, else RESERVED_SET */
uint32_t check_reserved(const void *field, size_t bytes, char *why);

/** check_size() - @value is in 1..@max, else BAD_SHAPE; @name is for the sentence */
uint32_t check_size(const char *name, uint64_t value, uint64_t max, char *why);

/** check_choice() - @value is at most @max, else BAD_PARAM */
uint32_t check_choice(const char *name, uint32_t value, uint32_t max, char *why);

/** check_buffers() - the directions are exactly those of @pattern ('i' and 'o'), else BAD_BUFFER */
uint32_t check_buffers(const struct request *r, const char *pattern, char *why);

/** check_length() - buffer @index has exactly @bytes, else BAD_SHAPE */
uint32_t check_length(const struct request *r, uint32_t index, uint64_t bytes, char *why);

/** check_length_range() - buffer @index has @least to @most bytes, else BAD_SHAPE: the padding of
 *  the last row may be there or not */
uint32_t check_length_range(const struct request *r, uint32_t index, uint64_t least, uint64_t most,
                            char *why);

/**
 * check_product() - multiply @count factors
 * @ret: their product; written only on VGPU_E_OK
 *
 * Return: VGPU_E_OK or VGPU_E_OVERFLOW.
 */
uint32_t check_product(const uint64_t *factors, size_t count, uint64_t *ret, char *why);

/** check_vector_bytes() - bytes of @n elements that lie @stride elements apart; OVERFLOW */
uint32_t check_vector_bytes(uint64_t n, uint64_t stride, uint64_t element_bytes, uint64_t *ret,
                            char *why);

#endif
