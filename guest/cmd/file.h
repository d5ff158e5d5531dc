/* SPDX-License-Identifier: MIT */
/*
 * file - write a file so that it appears complete or not at all
 */
#ifndef GUEST_FILE_H
#define GUEST_FILE_H

#include <limits.h>
#include <stddef.h>

#include "guest/include/vgpu.h"

struct file {
    const char *path; /* borrowed */
    char temporary[PATH_MAX];
    int fd;
};

/** file_create() - begin to write; nothing is at @path yet. Return: 0; -errno, and @ret_err. */
int file_create(struct file *f, const char *path, struct vgpu_err *ret_err);

/** file_write() - write all of @data. Return: 0; -errno, and @ret_err. */
int file_write(struct file *f, const void *data, size_t len, struct vgpu_err *ret_err);

/** file_commit() - the file is complete: put it at its path. Return: 0; -errno, and @ret_err. */
int file_commit(struct file *f, struct vgpu_err *ret_err);

/** file_drop() - leave no trace, unless it was committed */
void file_drop(struct file *f);

#endif
