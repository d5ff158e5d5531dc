/* SPDX-License-Identifier: MIT */
/* names.c - names and sentences of the numbers in proto/vgpu_regs.h; declared in request.h */
#include <stddef.h>

#include "common/core/request.h"

struct row {
    uint32_t number;
    const char *name;
    const char *text;
};

#define ROW_E(name, number, text) {number, #name, text},
static const struct row errors[] = {VGPU_ERRORS(ROW_E)};

static const struct row *error_row(uint32_t error)
{
    return error < sizeof(errors) / sizeof(errors[0]) ? &errors[error] : NULL;
}

const char *vgpu_error_name(uint32_t error)
{
    const struct row *r = error_row(error);

    return r ? r->name : "UNKNOWN";
}

const char *vgpu_error_text(uint32_t error)
{
    const struct row *r = error_row(error);

    return r ? r->text : "an error that this version does not know";
}

const char *vgpu_op_name(uint32_t op)
{
    switch (op) {
    case VGPU_OP_INFO:
        return "info";
    case VGPU_OP_CANCEL:
        return "cancel";
    case VGPU_OP_PROGRAM:
        return "program";
    case VGPU_OP_LAUNCH:
        return "launch";
    case VGPU_OP_ECHO:
        return "echo";
    case VGPU_OP_AXPY:
        return "axpy";
    case VGPU_OP_REDUCE:
        return "reduce";
    case VGPU_OP_GEMM:
        return "gemm";
    case VGPU_OP_FFT:
        return "fft";
    case VGPU_OP_SORT:
        return "sort";
    case VGPU_OP_DENOISE:
        return "denoise";
    default:
        return "unknown";
    }
}

const char *vgpu_band_name(uint32_t band)
{
    static const char *const names[VGPU_BANDS] = {"batch", "normal", "high", "realtime"};

    return band < VGPU_BANDS ? names[band] : "unknown";
}
