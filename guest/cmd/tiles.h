/* SPDX-License-Identifier: MIT */
/*
 * tiles - cut a picture into tiles with margins
 *
 * Pure. The result of a tile depends on the pixels up to `margin` around it; tiles at the border of
 * the picture have less, and there the operation clamps as it would for the whole picture.
 */
#ifndef GUEST_TILES_H
#define GUEST_TILES_H

#include <stdint.h>

struct tiles {
    uint32_t width, height; /* of the picture */
    uint32_t side;          /* of a tile; those at the right and bottom may be smaller */
    uint32_t margin;
    uint32_t columns, rows;
};

struct tile {
    uint32_t x, y, w, h;             /* the tile in the picture */
    uint32_t in_x, in_y, in_w, in_h; /* the tile and its margin in the picture */
};

/** tiles_init() - cut a picture of @width x @height, both not 0 */
void tiles_init(struct tiles *t, uint32_t width, uint32_t height, uint32_t side, uint32_t margin);

/** tiles_count() - how many there are */
uint64_t tiles_count(const struct tiles *t);

/** tiles_get() - number @index, counted from 0 by rows */
struct tile tiles_get(const struct tiles *t, uint64_t index);

#endif
