/* SPDX-License-Identifier: MIT */
/*
 * echo.c - what ECHO demands: one input and one output of the same length
 */
#include "gpu-worker/ops/check.h"

uint32_t op_echo_check(const struct request *r, const void *body, char *why)
{
    (void)body;
    uint32_t e = check_buffers(r, "io", why);

    return e ? e : check_length(r, 1, r->bufs[0].length, why);
}
