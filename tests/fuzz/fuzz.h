/* SPDX-License-Identifier: MIT */
/* fuzz.h - what fuzz targets share: reading their input, a well-formed request to start from */
#ifndef VGPU_TESTS_FUZZ_H
#define VGPU_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proto/vgpu_regs.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *at;
    size_t left;
};

/** fuzz_take() - the next @n bytes, at most 8, as a number; 0 when there are not so many */
static inline uint64_t fuzz_take(struct fuzz_input *in, size_t n)
{
    uint64_t value = 0;

    if (n > in->left) {
        in->left = 0;
        return 0;
    }
    memcpy(&value, in->at, n);
    in->at += n;
    in->left -= n;
    return value;
}

/** fuzz_copy() - the next @n bytes, or as many as there are; the rest of @dst stays as it is */
static inline void fuzz_copy(struct fuzz_input *in, void *dst, size_t n)
{
    n = n < in->left ? n : in->left;
    memcpy(dst, in->at, n);
    in->at += n;
    in->left -= n;
}

/** fuzz_check() - what must be true whatever the input is */
static inline void fuzz_check(int truth)
{
    if (!truth) {
        abort();
    }
}

#define FUZZ_ECHO_BYTES 160u

/** fuzz_echo() - an ECHO of 64 inline bytes, FUZZ_ECHO_BYTES long */
static inline void fuzz_echo(uint8_t *to, uint64_t tag)
{
    const struct vgpu_req_hdr hdr = {.size = FUZZ_ECHO_BYTES,
                                     .version = VGPU_REQ_VERSION,
                                     .op = VGPU_OP_ECHO,
                                     .tag = tag,
                                     .band = VGPU_BAND_DEFAULT,
                                     .nbufs = 2};
    const struct vgpu_buf bufs[2] = {
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_IN, .offset = 96, .length = 64},
        {.kind = VGPU_BUF_INLINE, .dir = VGPU_BUF_OUT, .length = 64},
    };

    memcpy(to, &hdr, sizeof(hdr));
    memcpy(to + sizeof(hdr), bufs, sizeof(bufs));
    memset(to + sizeof(hdr) + sizeof(bufs), 0x5a, 64);
}

#endif
