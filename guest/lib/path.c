/* SPDX-License-Identifier: MIT */
/* path.c - see path.h */
#include <errno.h>
#include <stdio.h>

#include "guest/lib/err.h"
#include "guest/lib/path.h"
#include "guest/lib/ringpath.h"
#include "guest/lib/window.h"

int path_open(struct place *place, enum vgpu_path want, struct transport **ret_transport,
              struct vgpu_err *ret_err)
{
    int r = place_check(place, ret_err);

    if (r) {
        place_fini(place);
        return r;
    }
    if (want == VGPU_PATH_WINDOWS) {
        snprintf(place->no_ring, sizeof(place->no_ring), "this program asked for the windows");
        return window_open(place, ret_transport, ret_err);
    }
    r = ringpath_open(place, ret_transport);
    if (r == 0) {
        return 0;
    }
    if (r < 0 || want == VGPU_PATH_RING) {
        r = err_set(ret_err, r < 0 ? r : -EBUSY, "%s: no ring for this process: %s", place->address,
                    r < 0 ? "memory is short" : place->no_ring);
        place_fini(place);
        return r;
    }
    return window_open(place, ret_transport, ret_err);
}
