/* SPDX-License-Identifier: MIT */
/*
 * conf_unique.c - what must appear only once: names, numbers of pools, uuids, sockets
 *
 * Sorts, so that a file with many thousand VMs stays quick.
 */
#include "common/conf_check.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

/* One thing to compare: an entry of a list in the file. */
struct item {
    const void *bytes;
    size_t length;
    size_t index;
};

struct what {
    const char *list; /* "vms" */
    const char *key;  /* "uuid" */
};

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int r;

    if (x->length != y->length) {
        return x->length < y->length ? -1 : 1;
    }
    r = memcmp(x->bytes, y->bytes, x->length);
    if (r != 0) {
        return r;
    }
    return x->index < y->index ? -1 : x->index > y->index;
}

static void report(struct conf_tree *tree, const struct what *what, const struct item *first,
                   const struct item *again)
{
    yaml_node_t *list = conf_tree_key(tree, conf_tree_root(tree), what->list);
    yaml_node_t *earlier = conf_tree_entry(tree, list, first->index);
    yaml_node_t *later = conf_tree_entry(tree, list, again->index);
    yaml_node_t *at = conf_tree_key(tree, later, what->key);
    yaml_node_t *was = conf_tree_key(tree, earlier, what->key);

    was = was ? was : earlier;
    at = at ? at : later;
    if (at && at->type == YAML_SCALAR_NODE) {
        conf_tree_error(tree, at, "%s: '%.60s' is already that of the entry at line %zu", what->key,
                        (const char *)at->data.scalar.value, was ? was->start_mark.line + 1 : 0);
    } else {
        conf_tree_error(tree, at, "%s: its number is already that of the entry at line %zu",
                        what->key, was ? was->start_mark.line + 1 : 0);
    }
}

/* Sorts @items; items of length 0 are not compared. */
static void find_repeated(struct conf_tree *tree, const struct what *what, struct item *items,
                          size_t count)
{
    qsort(items, count, sizeof(*items), compare_items);
    for (size_t i = 1; i < count; i++) {
        if (items[i].length && items[i].length == items[i - 1].length &&
            memcmp(items[i].bytes, items[i - 1].bytes, items[i].length) == 0) {
            report(tree, what, &items[i - 1], &items[i]);
        }
    }
}

int conf_check_unique(struct conf_tree *tree, const struct conf_raw *raw, const struct conf *conf)
{
    size_t most = (size_t)conf->n_pools + raw->tenants_count + conf->n_vms + 1;
    CLEANUP(cleanup_free) struct item *items = calloc(most, sizeof(*items));

    if (!items) {
        return -ENOMEM;
    }
#define FIND(list, key, count, bytes_of, length_of)       \
    for (size_t i = 0; i < (count); i++) {                \
        items[i] = (struct item){bytes_of, length_of, i}; \
    }                                                     \
    find_repeated(tree, &(struct what){list, key}, items, count)

    FIND("pools", "name", conf->n_pools, conf->pools[i].name, strlen(conf->pools[i].name));
    FIND("pools", "id", conf->n_pools, &conf->pools[i].id, sizeof(conf->pools[i].id));
    FIND("tenants", "name", raw->tenants_count, conf->tenants[i].name,
         strlen(conf->tenants[i].name));
    FIND("vms", "name", conf->n_vms, conf->vms[i].name, strlen(conf->vms[i].name));
    FIND("vms", "uuid", conf->n_vms, conf->vms[i].uuid, conf->vms[i].any_uuid ? 0 : 16);
    FIND("vms", "socket", conf->n_vms, conf->vms[i].socket, strlen(conf->vms[i].socket));
#undef FIND
    return 0;
}
