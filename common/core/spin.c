/* SPDX-License-Identifier: MIT */
#include "common/core/spin.h"

void spin_init(struct spin *s, uint64_t cap_ns)
{
    *s = (struct spin){.cap_ns = cap_ns, .gap_ns = SPIN_GAP_MAX * cap_ns};
}

void spin_found(struct spin *s, uint64_t now_ns)
{
    uint64_t most = SPIN_GAP_MAX * s->cap_ns;
    uint64_t gap = now_ns > s->last_ns ? now_ns - s->last_ns : 0;

    gap = gap < most ? gap : most;
    s->gap_ns = s->gap_ns - s->gap_ns / 8 + gap / 8;
    s->last_ns = now_ns;
}

bool spin_on(const struct spin *s, uint64_t now_ns)
{
    uint64_t idle = now_ns > s->last_ns ? now_ns - s->last_ns : 0;

    return s->gap_ns < s->cap_ns && idle < s->cap_ns;
}
