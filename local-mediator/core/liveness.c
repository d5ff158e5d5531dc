/* SPDX-License-Identifier: MIT */
#include "local-mediator/core/liveness.h"

enum liveness liveness_of(uint64_t heard_ns, uint64_t now_ns, uint64_t period_ns)
{
    uint64_t silent_ns = now_ns > heard_ns ? now_ns - heard_ns : 0;

    if (silent_ns >= LIVENESS_LOST_PERIODS * period_ns) {
        return LIVENESS_LOST;
    }
    return silent_ns >= LIVENESS_TORPID_PERIODS * period_ns ? LIVENESS_TORPID : LIVENESS_UP;
}

const char *liveness_name(enum liveness liveness)
{
    static const char *const names[] = {"up", "torpid", "lost"};

    return liveness <= LIVENESS_LOST ? names[liveness] : "unknown";
}
