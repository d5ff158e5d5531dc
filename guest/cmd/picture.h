/* SPDX-License-Identifier: MIT */
/*
 * picture - read and write PNG pictures as 8-bit grey or RGB samples
 *
 * Palettes, 1 to 4 bits and 16 bits become 8 bits; an alpha channel is dropped. Samples are taken
 * as stored: no gamma is applied.
 */
#ifndef GUEST_PICTURE_H
#define GUEST_PICTURE_H

#include <stdint.h>

#include "guest/include/vgpu.h"

#define PICTURE_SIDE_MAX 65535u
#define PICTURE_BYTES_MAX (UINT64_C(1) << 30)
#define PICTURE_COMPRESSION_DEFAULT 1

struct picture {
    uint32_t width, height; /* pixels */
    uint32_t channels;      /* 1 or 3 */
    uint32_t stride;        /* bytes from row to row: width * channels */
    uint8_t had_alpha;      /* 1: an alpha channel was dropped */
    uint8_t *samples;       /* malloc()ed */
};

/**
 * picture_read() - read a PNG file
 * @ret:     freed with picture_fini()
 * @ret_err: what is wrong, with the file's name
 *
 * Return: 0; -EINVAL not a PNG picture, damaged or too large; -errno.
 */
int picture_read(const char *path, struct picture *ret, struct vgpu_err *ret_err);

/**
 * picture_write() - write a PNG file; it appears complete or not at all
 * @compression: 0 (none) to 9 (smallest)
 *
 * Return: 0; -errno.
 */
int picture_write(const char *path, const struct picture *p, int compression,
                  struct vgpu_err *ret_err);

/** picture_fini() - free the samples; a picture that is all 0 is fine */
void picture_fini(struct picture *p);

#endif
