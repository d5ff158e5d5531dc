/* SPDX-License-Identifier: MIT */
#include "local-mediator/region.h"

#include "local-mediator/execconn.h"

struct region *region_ref(struct region *r)
{
    r->references++;
    return r;
}

void region_unref(struct mediator *m, struct region *r)
{
    uint32_t number = r->number;

    if (--r->references == 0) {
        r->free(r);
        exec_forget_region(m, number);
    }
}
