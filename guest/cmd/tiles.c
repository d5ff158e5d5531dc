/* SPDX-License-Identifier: MIT */
/* tiles.c - see tiles.h */
#include "guest/cmd/tiles.h"

static uint32_t min32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void tiles_init(struct tiles *t, uint32_t width, uint32_t height, uint32_t side, uint32_t margin)
{
    *t = (struct tiles){
        .width = width,
        .height = height,
        .side = side,
        .margin = margin,
        .columns = (width - 1) / side + 1,
        .rows = (height - 1) / side + 1,
    };
}

uint64_t tiles_count(const struct tiles *t)
{
    return (uint64_t)t->columns * t->rows;
}

/* Widen [at, at + length) by the margin on both sides, within [0, end). */
static void widen(uint32_t at, uint32_t length, uint32_t margin, uint32_t end, uint32_t *ret_at,
                  uint32_t *ret_length)
{
    uint32_t before = min32(at, margin);
    uint32_t after = min32(end - (at + length), margin);

    *ret_at = at - before;
    *ret_length = before + length + after;
}

struct tile tiles_get(const struct tiles *t, uint64_t index)
{
    struct tile tile = {
        .x = (uint32_t)(index % t->columns) * t->side,
        .y = (uint32_t)(index / t->columns) * t->side,
    };

    tile.w = min32(t->side, t->width - tile.x);
    tile.h = min32(t->side, t->height - tile.y);
    widen(tile.x, tile.w, t->margin, t->width, &tile.in_x, &tile.in_w);
    widen(tile.y, tile.h, t->margin, t->height, &tile.in_y, &tile.in_h);
    return tile;
}
