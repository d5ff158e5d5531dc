/* SPDX-License-Identifier: MIT */
#include "local-mediator/registry.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "local-mediator/history.h"
#include "local-mediator/vm.h"

#define TENANTS_MAX 65536u

/* ---- tenants ---- */

static struct tenant *find_tenant(struct mediator *m, const char *name)
{
    for (uint32_t i = 0; i < m->n_tenants; i++) {
        if (strcmp(m->tenants[i]->c.name, name) == 0) {
            return m->tenants[i];
        }
    }
    return NULL;
}

static int add_tenant(struct mediator *m, struct tenant **ret_tenant)
{
    struct tenant **tenants;
    struct tenant *tenant;

    if (m->n_tenants >= TENANTS_MAX) {
        return -ENOSPC;
    }
    tenants = realloc(m->tenants, (m->n_tenants + 1) * sizeof(void *));
    if (!tenants) {
        return -ENOMEM;
    }
    m->tenants = tenants;
    tenant = calloc(1, sizeof(*tenant));
    if (!tenant) {
        return -ENOMEM;
    }
    tenant->index = m->n_tenants;
    m->tenants[m->n_tenants++] = tenant;
    *ret_tenant = tenant;
    return 0;
}

static int tell_scheduler(const struct tenant *tenant, struct pool *pool)
{
    const struct sched_tenant_config config = {
        .weight = (uint32_t)tenant->c.weight,
        .caps = {.max_jobs = (uint32_t)tenant->c.max_queued, .max_bytes = tenant->c.max_bytes},
    };

    return sched_tenant_set(pool->sched, tenant->index, &config);
}

static int apply_tenants(struct mediator *m, const struct conf *conf)
{
    for (uint32_t i = 0; i < conf->n_tenants; i++) {
        struct tenant *tenant = find_tenant(m, conf->tenants[i].name);
        int r = tenant ? 0 : add_tenant(m, &tenant);

        if (r < 0) {
            return r;
        }
        tenant->c = conf->tenants[i];
        for (uint32_t p = 0; p < m->n_pools && r == 0; p++) {
            r = tell_scheduler(tenant, m->pools[p]);
        }
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* ---- pools ---- */

static struct pool *find_pool(struct mediator *m, const char *name, uint32_t *ret_index)
{
    for (uint32_t i = 0; i < m->n_pools; i++) {
        if (strcmp(m->pools[i]->c.name, name) == 0) {
            *ret_index = i;
            return m->pools[i];
        }
    }
    return NULL;
}

static int add_pool(struct mediator *m, struct pool **ret_pool)
{
    const struct sched_caps none = {.max_jobs = UINT32_MAX, .max_bytes = UINT64_MAX};
    struct pool *pool;
    int r;

    if (m->n_pools >= CONF_POOLS_MAX) {
        return -ENOSPC;
    }
    pool = calloc(1, sizeof(*pool));
    r = pool ? sched_new(&none, &pool->sched) : -ENOMEM;
    if (r < 0) {
        free(pool);
        return r;
    }
    m->pools[m->n_pools++] = pool;
    for (uint32_t i = 0; i < m->n_tenants && r == 0; i++) {
        r = tell_scheduler(m->tenants[i], pool);
    }
    *ret_pool = pool;
    return r;
}

/* A pool that is gone keeps its place, for what it has queued and for its workers. */
static bool pools_fit(struct mediator *m, const struct conf *conf)
{
    uint32_t count = m->n_pools;

    for (uint32_t i = 0; i < conf->n_pools; i++) {
        uint32_t index;

        count += !find_pool(m, conf->pools[i].name, &index);
    }
    return count <= CONF_POOLS_MAX;
}

static int apply_pools(struct mediator *m, const struct conf *conf)
{
    for (uint32_t i = 0; i < m->n_pools; i++) {
        m->pools[i]->removed = true;
    }
    for (uint32_t i = 0; i < conf->n_pools; i++) {
        uint32_t index;
        struct pool *pool = find_pool(m, conf->pools[i].name, &index);
        int r = pool ? 0 : add_pool(m, &pool);
        struct sched_caps caps = {.max_jobs = (uint32_t)conf->pools[i].max_queued,
                                  .max_bytes = conf->pools[i].max_bytes};

        if (r < 0) {
            return r;
        }
        pool->c = conf->pools[i];
        pool->removed = false;
        sched_set_caps(pool->sched, &caps);
    }
    return 0;
}

/* ---- VMs ---- */

/* Where the pools of the file are among the mediator's. */
static uint64_t translate_pools(struct mediator *m, const struct conf *conf, uint64_t pools)
{
    uint64_t mask = 0;

    for (uint32_t i = 0; i < conf->n_pools; i++) {
        uint32_t index = 0;

        if ((pools >> i & 1) && find_pool(m, conf->pools[i].name, &index)) {
            mask |= UINT64_C(1) << index;
        }
    }
    return mask;
}

static const struct conf_vm *in_file(const struct conf *conf, const char *name)
{
    for (uint32_t i = 0; i < conf->n_vms; i++) {
        if (strcmp(conf->vms[i].name, name) == 0) {
            return &conf->vms[i];
        }
    }
    return NULL;
}

static int apply_vm(struct mediator *m, const struct conf *conf, const struct conf_vm *c)
{
    struct tenant *tenant = find_tenant(m, conf->tenants[c->tenant].name);
    uint64_t pools = translate_pools(m, conf, c->pools);
    uint32_t index = 0;
    struct pool *pool = find_pool(m, conf->pools[c->pool].name, &index);
    struct vm *vm = vm_find(m, c->name);

    return vm ? vm_configure(vm, c, tenant, pool, pools) : vm_add(m, c, tenant, pool, pools);
}

/* First of all, so that a new socket may be where another one was. */
static void remove_vms(struct mediator *m, const struct conf *conf)
{
    struct vm *vm = TAILQ_FIRST(&m->vms);

    while (vm) {
        struct vm *next = TAILQ_NEXT(vm, link);
        const struct conf_vm *c = vm->removed ? NULL : in_file(conf, vm->c.name);

        if (!vm->removed && !c) {
            vm_remove(vm, "no longer in the pool file");
        } else if (c && !vm_keeps(vm, c)) {
            vm_remove(vm, "its socket, uid or uuid changed in the pool file");
        }
        vm = next;
    }
}

static int apply_vms(struct mediator *m, const struct conf *conf)
{
    int result = 0;

    remove_vms(m, conf);
    for (uint32_t i = 0; i < conf->n_vms; i++) {
        int r = apply_vm(m, conf, &conf->vms[i]);

        result = result ? result : r;
    }
    return result;
}

int registry_apply(struct mediator *m, const struct conf *conf)
{
    int r;

    if (!pools_fit(m, conf)) {
        log_error("too many pools: those that were removed count until the mediator is restarted",
                  LOG_U("most", CONF_POOLS_MAX));
        return -ENOSPC;
    }
    r = history_resize(m, (uint32_t)conf->mediator.history);
    if (r < 0) {
        return r;
    }
    m->c = conf->mediator;
    r = apply_pools(m, conf);
    r = r < 0 ? r : apply_tenants(m, conf);
    return r < 0 ? r : apply_vms(m, conf);
}

void registry_log_errors(const struct conf_errors *errors)
{
    uint32_t shown = errors->count < CONF_ERRORS_MAX ? errors->count : CONF_ERRORS_MAX;

    for (uint32_t i = 0; i < shown; i++) {
        log_error("pool file", LOG_S("error", errors->text[i]));
    }
    if (errors->count > shown) {
        log_error("pool file", LOG_U("more_errors", errors->count - shown));
    }
}

int registry_reload(struct mediator *m)
{
    CLEANUP(conf_freep) struct conf *conf = NULL;
    struct conf_errors *errors = malloc(sizeof(*errors));
    int r = errors ? conf_load(m->config_path, &conf, errors) : -ENOMEM;

    if (r != 0) {
        if (errors) {
            registry_log_errors(errors);
        }
        log_error("reload refused: the old configuration stays", LOG_S("file", m->config_path));
    } else {
        r = registry_apply(m, conf);
        log_at(r < 0 ? LOG_LEVEL_ERROR : LOG_LEVEL_INFO, "reloaded", LOG_S("file", m->config_path),
               LOG_U("vms", m->n_vms), LOG_S("result", r < 0 ? strerror(-r) : "ok"));
    }
    free(errors);
    return r;
}

void registry_fini(struct mediator *m)
{
    for (uint32_t i = 0; i < m->n_tenants; i++) {
        free(m->tenants[i]);
    }
    free(m->tenants);
    for (uint32_t i = 0; i < m->n_pools; i++) {
        sched_free(m->pools[i]->sched);
        free(m->pools[i]);
    }
    free(m->history);
}
