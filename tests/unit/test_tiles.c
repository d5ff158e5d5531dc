/* SPDX-License-Identifier: MIT */
/* test_tiles.c - tiles cover a picture exactly once, with all the margin there is */
#include <stdlib.h>
#include <string.h>

#include "guest/cmd/tiles.h"
#include "tests/unit/unit.h"

/* clang-format off */
static const struct {
    const char *name;
    uint32_t width, height, side, margin;
    uint64_t count;
} cases[] = {
    { "one pixel",                 1,   1,  8,  3, 1 },
    { "smaller than a tile",       5,   7,  8,  3, 1 },
    { "exactly one tile",          8,   8,  8,  3, 1 },
    { "one pixel more than one",   9,   8,  8,  3, 2 },
    { "several, the last smaller", 50, 33, 16,  4, 12 },
    { "margin larger than a tile", 40, 40,  8, 13, 25 },
    { "margin larger than all",    40, 40,  8, 99, 25 },
    { "no margin",                 31, 17,  8,  0, 12 },
    { "a line",                    65535, 1, 4096, 40, 16 },
};
/* clang-format on */

static uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static void check_margin(const struct tiles *s, const struct tile *t)
{
    ck_assert_uint_eq(t->in_x, t->x - (t->x < s->margin ? t->x : s->margin));
    ck_assert_uint_eq(t->in_y, t->y - (t->y < s->margin ? t->y : s->margin));
    ck_assert_uint_le(t->in_x + t->in_w, s->width);
    ck_assert_uint_le(t->in_y + t->in_h, s->height);
    ck_assert(t->in_x + t->in_w == s->width || t->in_x + t->in_w == t->x + t->w + s->margin);
    ck_assert(t->in_y + t->in_h == s->height || t->in_y + t->in_h == t->y + t->h + s->margin);
}

START_TEST(cover)
{
    struct tiles s;
    uint8_t *seen = calloc(cases[_i].width, cases[_i].height);

    ck_assert_ptr_nonnull(seen);
    tiles_init(&s, cases[_i].width, cases[_i].height, cases[_i].side, cases[_i].margin);
    ck_assert_msg(tiles_count(&s) == cases[_i].count, "%s", cases[_i].name);
    for (uint64_t i = 0; i < tiles_count(&s); i++) {
        struct tile t = tiles_get(&s, i);

        ck_assert_uint_le(larger(t.w, t.h), s.side);
        check_margin(&s, &t);
        for (uint32_t y = t.y; y < t.y + t.h; y++) {
            for (uint32_t x = t.x; x < t.x + t.w; x++) {
                seen[(size_t)y * s.width + x]++;
            }
        }
    }
    for (size_t i = 0; i < (size_t)s.width * s.height; i++) {
        ck_assert_msg(seen[i] == 1, "%s: pixel %zu is in %u tiles", cases[_i].name, i, seen[i]);
    }
    free(seen);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("tiles");
    TCase *tc = tcase_create("tiles");

    tcase_add_loop_test(tc, cover, 0, (int)N_ELEMS(cases));
    suite_add_tcase(s, tc);
    return unit_run(s);
}
