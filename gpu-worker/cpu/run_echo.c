/* SPDX-License-Identifier: MIT */
/*
 * run_echo.c - ECHO on the CPU: copy
 */
#include <string.h>

#include "gpu-worker/cpu/cpu.h"

#define ECHO_PIECE (UINT64_C(1) << 22) /* bytes between looks at the stop flag */

uint32_t run_echo(struct cpu_context *context, const struct gpu_job *job, char *why)
{
    const uint8_t *in = job->bufs[0].host;
    uint8_t *out = job->bufs[1].host;
    uint64_t left = job->bufs[0].length;

    (void)context, (void)why;
    while (left) {
        uint64_t piece = left < ECHO_PIECE ? left : ECHO_PIECE;
        uint32_t stop = cpu_stop(job);
        if (stop) {
            return stop;
        }
        memcpy(out, in, piece);
        out += piece;
        in += piece;
        left -= piece;
    }
    return VGPU_E_OK;
}
