/* SPDX-License-Identifier: MIT */
/*
 * ops.c - the table of operations; see ops.h
 */
#include "gpu-worker/ops/ops.h"

#include "gpu-worker/ops/check.h"

#define F32 OPS_BIT(VGPU_DTYPE_F32)
#define F64 OPS_BIT(VGPU_DTYPE_F64)
#define HALF (OPS_BIT(VGPU_DTYPE_F16) | OPS_BIT(VGPU_DTYPE_BF16))
#define BYTE (OPS_BIT(VGPU_DTYPE_U8) | OPS_BIT(VGPU_DTYPE_I8))
#define WORD (OPS_BIT(VGPU_DTYPE_U32) | OPS_BIT(VGPU_DTYPE_I32))
#define LONG (OPS_BIT(VGPU_DTYPE_U64) | OPS_BIT(VGPU_DTYPE_I64))

#define BODY(type) sizeof(struct type)
#define ZERO(type, field)                                                  \
    {                                                                      \
        offsetof(struct type, field), sizeof(((struct type *)NULL)->field) \
    }

/* clang-format off */
static const struct op op_table[] = {
    { VGPU_OP_ECHO, 0, {{0, 0}}, 0, op_echo_check },
    { VGPU_OP_AXPY, BODY(vgpu_axpy), {ZERO(vgpu_axpy, reserved0)}, F32 | F64, op_axpy_check },
    { VGPU_OP_REDUCE, BODY(vgpu_reduce), {ZERO(vgpu_reduce, reserved0)},
      F32 | F64 | BYTE | WORD, op_reduce_check },
    { VGPU_OP_GEMM, BODY(vgpu_gemm), {ZERO(vgpu_gemm, reserved0)},
      F32 | F64 | HALF, op_gemm_check },
    { VGPU_OP_FFT, BODY(vgpu_fft), {ZERO(vgpu_fft, reserved0)}, F32 | F64, op_fft_check },
    { VGPU_OP_SORT, BODY(vgpu_sort), {ZERO(vgpu_sort, reserved0)},
      F32 | F64 | BYTE | WORD | LONG, op_sort_check },
    { VGPU_OP_DENOISE, BODY(vgpu_denoise),
      {ZERO(vgpu_denoise, reserved0), ZERO(vgpu_denoise, reserved1)},
      F32 | OPS_BIT(VGPU_DTYPE_U8), op_denoise_check },
};
/* clang-format on */

const struct op *ops_find(uint32_t number)
{
    for (size_t i = 0; i < sizeof(op_table) / sizeof(op_table[0]); i++) {
        if (op_table[i].number == number) {
            return &op_table[i];
        }
    }
    return NULL;
}

const void *ops_body(const struct request *r)
{
    return r->bytes + r->body_offset;
}

uint32_t ops_dtype(const struct request *r)
{
    const struct op *op = ops_find(r->hdr.op);

    return op && op->dtypes ? r->bytes[r->body_offset] : 0;
}

static uint32_t check_form(const struct op *op, const struct request *r, char *why)
{
    const uint8_t *body = ops_body(r);

    if (r->hdr.body_len != op->body_bytes) {
        return check_fail(VGPU_E_BAD_LENGTH, why, "the body of %s has %u bytes, not %u",
                          vgpu_op_name(r->hdr.op), op->body_bytes, r->hdr.body_len);
    }
    for (unsigned i = 0; i < OPS_RESERVED; i++) {
        uint32_t e = check_reserved(body + op->reserved[i].offset, op->reserved[i].bytes, why);
        if (e) {
            return e;
        }
    }
    if (op->dtypes && (body[0] > 63 || !(op->dtypes & OPS_BIT(body[0])))) {
        return check_fail(VGPU_E_BAD_DTYPE, why, "%s is not defined for data type %u",
                          vgpu_op_name(r->hdr.op), body[0]);
    }
    return VGPU_E_OK;
}

uint32_t ops_check(const struct request *r, char *why)
{
    const struct op *op = ops_find(r->hdr.op);

    if (!op) {
        return check_fail(VGPU_E_UNSUPPORTED, why, "this worker has no op %u", r->hdr.op);
    }
    uint32_t e = check_form(op, r, why);
    return e ? e : op->check(r, ops_body(r), why);
}
