/* SPDX-License-Identifier: MIT */
#include "common/conf_check.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/conf_text.h"
#include "common/core/request.h"

static const char *const band_max_job[VGPU_BANDS] = {"10m", "60s", "30s", "5s"};

struct number {
    const char *key;
    enum conf_type type;
    const char *min, *max, *standard;
};

/* Read one number of the mapping @node; on an error *ret_value keeps what it had. */
static void read_number(struct conf_tree *tree, yaml_node_t *node, const struct number *n,
                        const char *text, uint64_t *ret_value)
{
    uint64_t value, min, max;
    yaml_node_t *at = conf_tree_key(tree, node, n->key);
    int r;

    if (!text) {
        if (strcmp(n->standard, "-") != 0) {
            conf_text_number(n->type, n->standard, ret_value);
        }
        return;
    }
    r = conf_text_number(n->type, text, &value);
    if (r == -EINVAL) {
        conf_tree_error(tree, at, "%s: '%.40s' is not %s", n->key, text, conf_text_form(n->type));
        return;
    }
    conf_text_number(n->type, n->min, &min);
    conf_text_number(n->type, n->max, &max);
    if (r < 0 || ((value < min || value > max) && !(n->type == CONF_SPIN && value == CONF_AUTO))) {
        conf_tree_error(tree, at, "%s: '%.40s' is out of bounds: %s to %s", n->key, text, n->min,
                        n->max);
        return;
    }
    *ret_value = value;
}

#define READ_(key, type, min, max, standard, help)                                   \
    read_number(tree, node, &(struct number){#key, CONF_##type, min, max, standard}, \
                raw ? raw->key : NULL, &ret->key);

static void read_mediator(struct conf_tree *tree, yaml_node_t *node,
                          const struct conf_raw_mediator *raw, struct conf_mediator *ret)
{
    CONF_MEDIATOR_KEYS(READ_)
}

static void read_band(struct conf_tree *tree, yaml_node_t *node, const struct conf_raw_band *raw,
                      struct conf_band *ret)
{
    CONF_BAND_KEYS(READ_)
}

static void read_pool_numbers(struct conf_tree *tree, yaml_node_t *node,
                              const struct conf_raw_pool *raw, struct conf_pool *ret)
{
    CONF_POOL_KEYS(READ_)
}

static void read_tenant_numbers(struct conf_tree *tree, yaml_node_t *node,
                                const struct conf_raw_tenant *raw, struct conf_tenant *ret)
{
    CONF_TENANT_KEYS(READ_)
}

static void read_vm_numbers(struct conf_tree *tree, yaml_node_t *node,
                            const struct conf_raw_vm *raw, struct conf_vm *ret)
{
    CONF_VM_KEYS(READ_)
}

static void read_name(struct conf_tree *tree, yaml_node_t *node, const char *text, char *ret_name)
{
    if (!conf_text_is_name(text)) {
        conf_tree_error(tree, conf_tree_key(tree, node, "name"),
                        "name: '%.70s' is not a name: 1 to %u of A-Z a-z 0-9 . _ -, not starting "
                        "with a dot",
                        text, CONF_NAME_MAX);
        return;
    }
    memcpy(ret_name, text, strlen(text) + 1);
}

/* ---- pools ---- */

static void read_bands(struct conf_tree *tree, yaml_node_t *node, const struct conf_raw_pool *raw,
                       struct conf_pool *ret)
{
    yaml_node_t *bands = conf_tree_key(tree, node, "bands");

    for (uint32_t i = 0; i < VGPU_BANDS; i++) {
        const struct conf_raw_band *all[VGPU_BANDS] = {
            raw->bands ? raw->bands->batch : NULL, raw->bands ? raw->bands->normal : NULL,
            raw->bands ? raw->bands->high : NULL, raw->bands ? raw->bands->realtime : NULL};

        conf_text_number(CONF_DURATION, band_max_job[i], &ret->bands[i].max_job);
        read_band(tree, conf_tree_key(tree, bands, vgpu_band_name(i)), all[i], &ret->bands[i]);
    }
}

static void read_pool(struct conf_tree *tree, yaml_node_t *node, const struct conf_raw_pool *raw,
                      uint32_t index, struct conf_pool *ret)
{
    uint64_t id = index + 1;

    read_name(tree, node, raw->name, ret->name);
    read_number(tree, node, &(struct number){"id", CONF_COUNT, "1", "4294967295", "-"}, raw->id,
                &id);
    ret->id = (uint32_t)id;
    read_pool_numbers(tree, node, raw, ret);
    read_bands(tree, node, raw, ret);
}

static int read_pools(struct conf_tree *tree, const struct conf_raw *raw, struct conf *conf)
{
    static char default_name[] = "default";
    const struct conf_raw_pool only = {.name = default_name};
    yaml_node_t *list = conf_tree_key(tree, conf_tree_root(tree), "pools");
    uint32_t count = raw->pools_count ? raw->pools_count : 1;

    if (count > CONF_POOLS_MAX) {
        conf_tree_error(tree, list, "pools: more than %u", CONF_POOLS_MAX);
        return 0;
    }
    conf->pools = calloc(count, sizeof(*conf->pools));
    if (!conf->pools) {
        return -ENOMEM;
    }
    conf->n_pools = count;
    for (uint32_t i = 0; i < count; i++) {
        read_pool(tree, conf_tree_entry(tree, list, i), raw->pools_count ? &raw->pools[i] : &only,
                  i, &conf->pools[i]);
    }
    return 0;
}

/* ---- tenants ---- */

static int read_tenants(struct conf_tree *tree, const struct conf_raw *raw, struct conf *conf)
{
    yaml_node_t *list = conf_tree_key(tree, conf_tree_root(tree), "tenants");

    /* Room for one more per VM: a VM without a tenant is its own. */
    conf->tenants = calloc((size_t)raw->tenants_count + raw->vms_count + 1, sizeof(*conf->tenants));
    if (!conf->tenants) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < raw->tenants_count; i++) {
        yaml_node_t *node = conf_tree_entry(tree, list, i);
        struct conf_tenant *tenant = &conf->tenants[conf->n_tenants++];

        read_name(tree, node, raw->tenants[i].name, tenant->name);
        read_tenant_numbers(tree, node, &raw->tenants[i], tenant);
    }
    return 0;
}

static bool find_tenant(const struct conf *conf, const char *name, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < conf->n_tenants; i++) {
        if (strcmp(conf->tenants[i].name, name) == 0) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

static void own_tenant(struct conf_tree *tree, struct conf *conf, struct conf_vm *vm)
{
    struct conf_tenant *tenant;

    if (find_tenant(conf, vm->name, &vm->tenant)) {
        return;
    }
    vm->tenant = conf->n_tenants++;
    tenant = &conf->tenants[vm->tenant];
    memcpy(tenant->name, vm->name, sizeof(tenant->name));
    read_tenant_numbers(tree, NULL, NULL, tenant);
}

/* ---- VMs ---- */

static void read_tenant_of_vm(struct conf_tree *tree, yaml_node_t *node, const char *text,
                              struct conf *conf, struct conf_vm *vm)
{
    const char *names[64];
    const char *nearest;
    size_t count = 0;

    if (!text) {
        own_tenant(tree, conf, vm);
        return;
    }
    if (find_tenant(conf, text, &vm->tenant)) {
        return;
    }
    for (; count < conf->n_tenants && count < 64; count++) {
        names[count] = conf->tenants[count].name;
    }
    nearest = conf_text_nearest(text, names, count);
    conf_tree_error(tree, conf_tree_key(tree, node, "tenant"),
                    "tenant: there is no tenant '%.60s'%s%s%s; tenants are listed under 'tenants'",
                    text, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                    nearest ? "'" : "");
}

static void read_pools_of_vm(struct conf_tree *tree, yaml_node_t *node,
                             const struct conf_raw_vm *raw, const struct conf *conf,
                             struct conf_vm *vm)
{
    yaml_node_t *list = conf_tree_key(tree, node, "pools");

    if (list && !raw->pools_count) {
        conf_tree_error(tree, list, "pools: name at least one pool, or leave the key out");
    }
    vm->pools = raw->pools_count ? 0 : 1; /* bit 0: the first pool */
    for (unsigned i = 0; i < raw->pools_count; i++) {
        uint32_t p = 0;

        while (p < conf->n_pools && strcmp(conf->pools[p].name, raw->pools[i]) != 0) {
            p++;
        }
        if (p == conf->n_pools) {
            conf_tree_error(tree, conf_tree_entry(tree, list, i),
                            "pools: there is no pool '%.60s'; pools are listed under 'pools'",
                            raw->pools[i]);
            continue;
        }
        vm->pools |= UINT64_C(1) << p;
        vm->pool = i == 0 ? p : vm->pool;
    }
}

static void read_uid(struct conf_tree *tree, yaml_node_t *node, const char *text,
                     struct conf_vm *vm)
{
    uint64_t number;
    char buffer[4096];
    struct passwd entry, *found = NULL;

    vm->own_uid = !text;
    if (!text) {
        return;
    }
    if (conf_text_number(CONF_COUNT, text, &number) == 0 && number < UINT32_MAX) {
        vm->uid = (uint32_t)number;
        return;
    }
    if (getpwnam_r(text, &entry, buffer, sizeof(buffer), &found) == 0 && found) {
        vm->uid = found->pw_uid;
        return;
    }
    conf_tree_error(tree, conf_tree_key(tree, node, "uid"),
                    "uid: '%.40s' is neither a user of this host nor the number of one", text);
}

static void read_identity(struct conf_tree *tree, yaml_node_t *node, const struct conf_raw_vm *raw,
                          struct conf_vm *vm)
{
    vm->any_uuid = !raw->uuid;
    if (raw->uuid && conf_text_uuid(raw->uuid, vm->uuid) < 0) {
        conf_tree_error(tree, conf_tree_key(tree, node, "uuid"),
                        "uuid: '%.40s' is not of the form 8-4-4-4-12 hexadecimal digits",
                        raw->uuid);
    }
    if (!raw->socket) {
        return;
    }
    if (raw->socket[0] != '/' || strlen(raw->socket) > CONF_PATH_MAX) {
        conf_tree_error(tree, conf_tree_key(tree, node, "socket"),
                        "socket: must be an absolute path of at most %u bytes", CONF_PATH_MAX);
        return;
    }
    memcpy(vm->socket, raw->socket, strlen(raw->socket) + 1);
}

static void read_vm(struct conf_tree *tree, yaml_node_t *node, const struct conf_raw_vm *raw,
                    struct conf *conf, struct conf_vm *vm)
{
    read_name(tree, node, raw->name, vm->name);
    read_identity(tree, node, raw, vm);
    read_tenant_of_vm(tree, node, raw->tenant, conf, vm);
    read_pools_of_vm(tree, node, raw, conf, vm);
    read_uid(tree, node, raw->uid, vm);
    vm->band_max = UINT64_MAX;
    read_vm_numbers(tree, node, raw, vm);
    if (vm->band_max == UINT64_MAX) {
        vm->band_max = vm->band;
    } else if (vm->band_max < vm->band) {
        conf_tree_error(tree, conf_tree_key(tree, node, "band_max"),
                        "band_max: %s is below the VM's band, %s",
                        vgpu_band_name((uint32_t)vm->band_max), vgpu_band_name((uint32_t)vm->band));
    }
}

static int read_vms(struct conf_tree *tree, const struct conf_raw *raw, struct conf *conf)
{
    yaml_node_t *list = conf_tree_key(tree, conf_tree_root(tree), "vms");

    conf->vms = calloc((size_t)raw->vms_count + 1, sizeof(*conf->vms));
    if (!conf->vms) {
        return -ENOMEM;
    }
    conf->n_vms = raw->vms_count;
    for (uint32_t i = 0; i < raw->vms_count; i++) {
        read_vm(tree, conf_tree_entry(tree, list, i), &raw->vms[i], conf, &conf->vms[i]);
    }
    return 0;
}

int conf_check(struct conf_tree *tree, const struct conf_raw *raw, struct conf **ret_conf)
{
    CLEANUP(conf_freep) struct conf *conf = calloc(1, sizeof(*conf));
    yaml_node_t *root = conf_tree_root(tree);
    int r;

    if (!conf) {
        return -ENOMEM;
    }
    if (strcmp(raw->version, "1") != 0) {
        conf_tree_error(tree, conf_tree_key(tree, root, "version"),
                        "version: '%.40s' is not known; this program reads version 1",
                        raw->version);
    }
    read_mediator(tree, conf_tree_key(tree, root, "mediator"), raw->mediator, &conf->mediator);
    r = read_pools(tree, raw, conf);
    r = r == 0 ? read_tenants(tree, raw, conf) : r;
    r = r == 0 ? read_vms(tree, raw, conf) : r;
    r = r == 0 ? conf_check_unique(tree, raw, conf) : r;
    if (r == 0 && !tree->errors->count) {
        *ret_conf = TAKE_PTR(conf);
    }
    return r;
}
