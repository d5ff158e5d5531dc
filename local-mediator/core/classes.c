/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/classes.h"

struct need classes_need(uint16_t op, const uint8_t *body, uint32_t body_len)
{
    struct need need = {.op = (uint8_t)op, .dtype = CLASSES_ANY_DTYPE};

    switch (op) {
    case VGPU_OP_AXPY:
    case VGPU_OP_REDUCE:
    case VGPU_OP_GEMM:
    case VGPU_OP_FFT:
    case VGPU_OP_SORT:
    case VGPU_OP_DENOISE:
        /* The body of each starts with its dtype. An unknown one is for the worker to refuse. */
        if (body_len > 0 && vgpu_dtype_size(body[0])) {
            need.dtype = body[0];
        }
        break;
    default:
        break;
    }
    return need;
}

bool classes_offers(const struct offer *offer, struct need need)
{
    if (need.op > VGPU_OP_NUMBER_MAX || !(offer->ops >> need.op & 1)) {
        return false;
    }
    return need.dtype == CLASSES_ANY_DTYPE || (need.dtype < 64 && offer->dtypes >> need.dtype & 1);
}

int classes_get(struct classes *c, struct need need, uint8_t *ret_class)
{
    uint32_t vacant = SCHED_CLASSES;

    for (uint32_t i = 0; i < SCHED_CLASSES; i++) {
        if (!c->rows[i].references) {
            vacant = i < vacant ? i : vacant;
        } else if (c->rows[i].need.op == need.op && c->rows[i].need.dtype == need.dtype) {
            c->rows[i].references++;
            *ret_class = (uint8_t)i;
            return 0;
        }
    }
    if (vacant == SCHED_CLASSES) {
        return CLASSES_E_FULL;
    }
    c->rows[vacant].need = need;
    c->rows[vacant].references = 1;
    *ret_class = (uint8_t)vacant;
    return 0;
}

void classes_put(struct classes *c, uint8_t class_index)
{
    if (c->rows[class_index].references) {
        c->rows[class_index].references--;
    }
}

uint64_t classes_mask(const struct classes *c, const struct offer *offer)
{
    uint64_t mask = 0;

    for (uint32_t i = 0; i < SCHED_CLASSES; i++) {
        if (c->rows[i].references && classes_offers(offer, c->rows[i].need)) {
            mask |= UINT64_C(1) << i;
        }
    }
    return mask;
}
