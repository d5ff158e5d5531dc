/* SPDX-License-Identifier: MIT */
/* file.c - see file.h */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/cmd/file.h"
#include "guest/lib/err.h"

static int fail(const struct file *f, int error, struct vgpu_err *err)
{
    return err_set(err, -error, "cannot write %s: %s", f->path, strerror(error));
}

int file_create(struct file *f, const char *path, struct vgpu_err *ret_err)
{
    struct stat st;

    f->path = path;
    f->fd = -1;
    f->temporary[0] = 0;
    /* What is no plain file, such as /dev/stdout, is written to directly. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        f->fd = open(path, O_WRONLY | O_CLOEXEC);
        return f->fd < 0 ? fail(f, errno, ret_err) : 0;
    }
    if (snprintf(f->temporary, sizeof(f->temporary), "%s.%d.tmp", path, (int)getpid()) >=
        (int)sizeof(f->temporary)) {
        f->temporary[0] = 0;
        return fail(f, ENAMETOOLONG, ret_err);
    }
    f->fd = open(f->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (f->fd < 0) {
        int error = errno;

        f->temporary[0] = 0;
        return fail(f, error, ret_err);
    }
    return 0;
}

int file_write(struct file *f, const void *data, size_t len, struct vgpu_err *ret_err)
{
    const char *p = data;

    while (len) {
        ssize_t n = write(f->fd, p, len);

        if (n < 0 && errno != EINTR) {
            return fail(f, errno, ret_err);
        }
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int file_commit(struct file *f, struct vgpu_err *ret_err)
{
    int r = close(f->fd) == 0 ? 0 : errno;

    f->fd = -1;
    if (r == 0 && f->temporary[0] && rename(f->temporary, f->path) != 0) {
        r = errno;
    }
    if (r) {
        return fail(f, r, ret_err);
    }
    f->temporary[0] = 0;
    return 0;
}

void file_drop(struct file *f)
{
    if (f->fd >= 0) {
        close(f->fd);
        f->fd = -1;
    }
    if (f->temporary[0]) {
        unlink(f->temporary);
        f->temporary[0] = 0;
    }
}
