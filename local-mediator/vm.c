/* SPDX-License-Identifier: MIT */
#include "local-mediator/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "local-mediator/job.h"
#include "local-mediator/listen.h"
#include "local-mediator/vmconn.h"

#define LOG_BURST 5

/* Room for a request, its retries' outputs and what lost workers may still write to. */
#define STAGING_FACTOR 4u
#define STAGING_MIN (UINT64_C(1) << 20)

struct vm *vm_find(struct mediator *m, const char *name)
{
    struct vm *vm;

    TAILQ_FOREACH (vm, &m->vms, link) {
        if (!vm->removed && strcmp(vm->c.name, name) == 0) {
            return vm;
        }
    }
    return NULL;
}

struct vm *vm_first_present(struct mediator *m)
{
    struct vm *vm = TAILQ_FIRST(&m->vms);

    while (vm && vm->removed) {
        vm = TAILQ_NEXT(vm, link);
    }
    return vm;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    struct vm *vm = l->user;

    vm->listening = false;
    vm_put(vm);
}

static int start_listening(struct vm *vm)
{
    struct listen_owner owner = {.uid = vm->c.uid, .change = !vm->c.own_uid};
    char why[256];
    int n, r;

    if (vm->c.socket[0]) {
        n = snprintf(vm->listener.path, sizeof(vm->listener.path), "%s", vm->c.socket);
    } else {
        n = snprintf(vm->listener.path, sizeof(vm->listener.path), "%s/%s/vgpu.sock",
                     vm->m->run_dir, vm->c.name);
    }
    if (n < 0 || (size_t)n >= sizeof(vm->listener.path)) {
        log_error(
            "vm socket refused", LOG_S("vm", vm->c.name),
            LOG_S("why", "the path of its socket is too long; set 'socket' in the pool file"));
        return -ENAMETOOLONG;
    }
    vm->listener.on_connect = vmconn_on_connect;
    vm->listener.paced = true;
    vm->listener.user = vm;
    r = listen_start(&vm->listener, &vm->m->loop, SOCK_SEQPACKET, &owner, why);
    if (r < 0) {
        log_error("vm socket refused", LOG_S("vm", vm->c.name), LOG_S("why", why));
        return r;
    }
    vm->listening = true;
    log_debug("vm socket ready", LOG_S("vm", vm->c.name), LOG_S("socket", vm->listener.path));
    return 0;
}

static void set_configuration(struct vm *vm, const struct conf_vm *c, struct tenant *tenant,
                              struct pool *pool, uint64_t pools)
{
    vm->c = *c;
    vm->tenant = tenant;
    vm->pool = pool;
    vm->pools = pools;
}

int vm_add(struct mediator *m, const struct conf_vm *c, struct tenant *tenant, struct pool *pool,
           uint64_t pools)
{
    struct vm *vm = calloc(1, sizeof(*vm));

    if (!vm) {
        return -ENOMEM;
    }
    vm->m = m;
    vm->number = ++m->next_vm;
    vm->listener.fd = -1;
    vm->log_limit.burst = LOG_BURST;
    TAILQ_INIT(&vm->conns);
    TAILQ_INIT(&vm->jobs);
    TAILQ_INIT(&vm->writers);
    set_configuration(vm, c, tenant, pool, pools);
    TAILQ_INSERT_TAIL(&m->vms, vm, link);
    m->n_vms++;
    return start_listening(vm);
}

bool vm_keeps(const struct vm *vm, const struct conf_vm *c)
{
    bool same_socket =
        strcmp(vm->c.socket, c->socket) == 0 && vm->c.own_uid == c->own_uid && vm->c.uid == c->uid;
    bool same_vm = vm->c.any_uuid == c->any_uuid && memcmp(vm->c.uuid, c->uuid, 16) == 0;

    return same_vm && (same_socket || vm->listener.fd < 0);
}

int vm_configure(struct vm *vm, const struct conf_vm *c, struct tenant *tenant, struct pool *pool,
                 uint64_t pools)
{
    set_configuration(vm, c, tenant, pool, pools);
    vmconn_send_state(vm);
    return vm->listener.fd < 0 && !vm->listening ? start_listening(vm) : 0;
}

void vm_remove(struct vm *vm, const char *why)
{
    if (why) {
        log_info("vm removed", LOG_S("vm", vm->c.name), LOG_S("why", why));
    }
    vm->removed = vm->removing = true;
    listen_stop(&vm->listener, on_listener_closed);
    vmconn_close_all(vm);
    job_drop_all(vm, "its VM was removed");
    vm->removing = false;
    vm_put(vm);
}

void vm_put(struct vm *vm)
{
    struct mediator *m = vm->m;

    if (!vm->removed || vm->removing || vm->listening || vm->n_conns || vm->n_jobs ||
        vm->n_writers) {
        return;
    }
    vm_drop_staging(vm);
    TAILQ_REMOVE(&m->vms, vm, link);
    m->n_vms--;
    free(vm);
}

uint64_t vm_max_bytes(const struct vm *vm)
{
    uint64_t arena = vm->conn ? vm->conn->arena_size : 0;
    uint64_t most = vm->tenant->c.max_request;

    /* A request rarely names a byte twice; this bounds the address space of small devices. */
    return most < 2 * arena ? most : 2 * arena;
}

int vm_prepare_staging(struct vm *vm, uint64_t arena_size)
{
    uint64_t most =
        vm->tenant->c.max_request < 2 * arena_size ? vm->tenant->c.max_request : 2 * arena_size;
    uint64_t size = STAGING_FACTOR * (most < STAGING_MIN ? STAGING_MIN : most);
    struct staging *s;
    char name[96];
    int r;

    if (vm->staging && vm->staging->arena_size == arena_size && vm->staging->region.size >= size) {
        return 0;
    }
    snprintf(name, sizeof(name), "vgpu-staging-%s", vm->c.name);
    r = staging_new(name, (uint32_t)++vm->m->next_region, size, &s);
    if (r < 0) {
        return r;
    }
    vm_drop_staging(vm);
    s->arena_size = arena_size;
    vm->staging = s;
    return 0;
}

void vm_drop_staging(struct vm *vm)
{
    if (vm->staging) {
        region_unref(vm->m, &vm->staging->region);
        vm->staging = NULL;
    }
}

void vm_release_idle(struct vm *vm, uint64_t now_ns)
{
    struct staging *s = vm->staging;
    int r;

    if (!s || !s->dirty) {
        return;
    }
    if (s->ranges.n_alloc) {
        s->idle_ns = 0;
        return;
    }
    if (!s->idle_ns) {
        s->idle_ns = now_ns;
    }
    if (now_ns - s->idle_ns < vm->m->c.idle_memory * UINT64_C(1000000)) {
        return;
    }
    r = staging_release(s);
    if (r < 0) {
        log_warn("staging memory not released", LOG_S("vm", vm->c.name),
                 LOG_S("why", strerror(-r)));
    }
}

uint8_t vm_clamp_band(const struct vm *vm, uint8_t wish)
{
    if (wish >= VGPU_BANDS) {
        return (uint8_t)vm->c.band;
    }
    return wish < vm->c.band_max ? wish : (uint8_t)vm->c.band_max;
}
