/* SPDX-License-Identifier: MIT */
/*
 * err - fill in struct vgpu_err
 */
#ifndef GUEST_ERR_H
#define GUEST_ERR_H

#include "guest/include/vgpu.h"

/**
 * err_set() - note a failure and the sentence that explains it
 * @err:  NULL is fine
 * @code: what the caller is going to return
 *
 * Control characters in the text become '?': parts of it come from elsewhere and go to a terminal.
 *
 * Return: @code.
 */
#define err_set(err, code, ...)              \
    ({                                       \
        int code_ = (code);                  \
        err_fill((err), code_, __VA_ARGS__); \
        code_;                               \
    })

/** err_fill() - what err_set() does, without its value */
void err_fill(struct vgpu_err *err, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** err_clean() - replace the control characters in @text by '?' */
void err_clean(char *text);

#endif
