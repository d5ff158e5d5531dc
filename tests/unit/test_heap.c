/* SPDX-License-Identifier: MIT */
/* test_heap.c - the heap gives items in order, and lets any of them go early */
#include "common/core/heap.h"
#include "tests/unit/unit.h"

struct item {
    uint64_t key;
    uint32_t index;
    bool in;
};

static bool less(const void *a, const void *b)
{
    return ((const struct item *)a)->key < ((const struct item *)b)->key;
}

static void set_index(void *item, uint32_t index)
{
    ((struct item *)item)->index = index;
}

START_TEST(random_operations)
{
    static struct item items[500];
    struct heap h = {.less = less, .set_index = set_index};
    uint64_t seed = 5 + (uint64_t)_i;
    uint64_t last = 0;
    size_t in = 0;

    for (int step = 0; step < 30000; step++) {
        struct item *it = &items[unit_below(&seed, N_ELEMS(items))];

        if (it->in) {
            ck_assert_ptr_eq(heap_remove(&h, it->index), it);
            in--;
        } else {
            it->key = unit_below(&seed, 1000);
            ck_assert_int_eq(heap_insert(&h, it), 0);
            in++;
        }
        it->in = !it->in;
        ck_assert_uint_eq(h.count, in);
        ck_assert_int_eq(heap_check(&h), 0);
    }
    while (heap_first(&h)) {
        struct item *it = heap_remove(&h, 0);

        ck_assert_uint_ge(it->key, last);
        last = it->key;
        it->in = false;
    }
    ck_assert_ptr_null(heap_remove(&h, 0));
    heap_fini(&h);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("heap");
    TCase *tc = tcase_create("heap");

    tcase_add_loop_test(tc, random_operations, 0, 3);
    suite_add_tcase(s, tc);
    return unit_run(s);
}
