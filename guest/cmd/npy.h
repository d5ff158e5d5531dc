/* SPDX-License-Identifier: MIT */
/*
 * npy - read and write arrays in NumPy's .npy format
 *
 * Versions 1.0 and 2.0, little endian, C order, plain numbers. Everything else is refused with a
 * sentence that says what the file has and how to make one that works. The parser takes any bytes.
 */
#ifndef GUEST_NPY_H
#define GUEST_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "guest/include/vgpu.h"

#define NPY_DIMS_MAX 8u
#define NPY_HEADER_MAX 65536u /* longest header that is read */

struct npy {
    char kind;     /* 'f', 'i', 'u', 'c' (complex) or 'b' (bool) */
    uint32_t size; /* bytes of an element */
    uint32_t ndim; /* 0: a single element */
    uint64_t shape[NPY_DIMS_MAX];
    uint64_t count;  /* elements */
    uint64_t bytes;  /* of all elements */
    uint64_t offset; /* of the first element in the file */
};

/**
 * npy_parse() - read the header of a file
 * @data:    beginning of the file
 * @len:     bytes in @data; NPY_HEADER_MAX + 12 always suffice
 * @ret:     what it says; written only on 0
 * @ret_err: what is wrong; may be NULL
 *
 * Return: 0; -EINVAL.
 */
int npy_parse(const void *data, size_t len, struct npy *ret, struct vgpu_err *ret_err);

/**
 * npy_open() - open a file, read its header, and check that all of the data is there
 * @ret:    what the header says
 * @ret_fd: the open file; the caller closes it
 *
 * Return: 0; -EINVAL; -errno of the system. @ret_err names the file.
 */
int npy_open(const char *path, struct npy *ret, int *ret_fd, struct vgpu_err *ret_err);

/**
 * npy_read() - read the data of an open file
 * @a:   from npy_open()
 * @ret: room for a->bytes
 *
 * Return: 0; -errno. @ret_err names the file.
 */
int npy_read(const char *path, int fd, const struct npy *a, void *ret, struct vgpu_err *ret_err);

/** npy_make() - fill in count and bytes from kind, size and shape. Return: 0; -EOVERFLOW. */
int npy_make(struct npy *a);

#define NPY_WRITE_HEADER_MAX 512u

/** npy_header() - make the header of a file of version 1.0. Return: its length, @ret is filled. */
size_t npy_header(const struct npy *a, char ret[NPY_WRITE_HEADER_MAX]);

/**
 * npy_write() - write a file; it appears complete or not at all
 *
 * Return: 0; -errno. @ret_err names the file.
 */
int npy_write(const char *path, const struct npy *a, const void *data, struct vgpu_err *ret_err);

/** npy_dtype() - enum vgpu_dtype of the elements (of their real parts), 0 when there is none */
unsigned npy_dtype(const struct npy *a);

/** npy_set_dtype() - set kind and size from an enum vgpu_dtype */
void npy_set_dtype(struct npy *a, unsigned dtype);

/** npy_describe() - "float32 (3, 4)", in a caller's buffer. Return: @ret. */
const char *npy_describe(const struct npy *a, char *ret, size_t size);

#endif
