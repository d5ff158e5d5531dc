/* SPDX-License-Identifier: MIT */
/*
 * conf - the pool file
 *
 * One YAML file, written by the operator, says which pools, tenants and VMs there are. docs/pool-file.md
 * describes it key by key; conf_keys.h has every number with its bounds and default.
 *
 * conf_load() checks everything before it returns: syntax, unknown keys (with a suggestion), types,
 * bounds, references, duplicates. All errors are reported, up to CONF_ERRORS_MAX, each as
 * "file:line: key: what is wrong and what would be right". Keys of later versions are refused, not
 * ignored. It opens no socket and needs no privilege.
 */
#ifndef VGPU_CONF_H
#define VGPU_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/conf_keys.h"
#include "proto/vgpu_regs.h"

#define CONF_NAME_MAX 63u  /* bytes of a name of a pool, tenant, VM */
#define CONF_PATH_MAX 107u /* bytes of the path of a socket */
#define CONF_ERRORS_MAX 20u
#define CONF_FILE_MAX (16u << 20)
#define CONF_POOLS_MAX 64u

enum {
    CONF_E_INVALID = 1, /* the file says something wrong: see the errors */
};

#define CONF_MEMBER_(key, type, min, max, standard, help) uint64_t key;

struct conf_mediator {
    CONF_MEDIATOR_KEYS(CONF_MEMBER_)
};

struct conf_band {
    CONF_BAND_KEYS(CONF_MEMBER_)
};

struct conf_pool {
    char name[CONF_NAME_MAX + 1];
    uint32_t id; /* >= 1, unique */
    CONF_POOL_KEYS(CONF_MEMBER_)
    struct conf_band bands[VGPU_BANDS];
};

struct conf_tenant {
    char name[CONF_NAME_MAX + 1];
    CONF_TENANT_KEYS(CONF_MEMBER_)
};

struct conf_vm {
    char name[CONF_NAME_MAX + 1];
    bool any_uuid; /* none is configured: the socket alone is the identity */
    uint8_t uuid[16];
    uint32_t tenant; /* index in tenants */
    uint64_t pools;  /* bit n: may use pools[n] */
    uint32_t pool;   /* index of its default pool */
    CONF_VM_KEYS(CONF_MEMBER_)
    bool own_uid;                   /* no uid is configured: the mediator's own */
    uint32_t uid;                   /* of the process that connects */
    char socket[CONF_PATH_MAX + 1]; /* empty: the mediator's default for this name */
};

struct conf {
    struct conf_mediator mediator;
    struct conf_pool *pools; /* at least one */
    uint32_t n_pools;
    struct conf_tenant *tenants;
    uint32_t n_tenants;
    struct conf_vm *vms;
    uint32_t n_vms;
};

/* What was wrong with a file. */
struct conf_errors {
    uint32_t count; /* all of them; only CONF_ERRORS_MAX are kept */
    char text[CONF_ERRORS_MAX][256];
};

/**
 * conf_load() - read and check a pool file
 * @path:       the file
 * @ret_conf:   the configuration, for conf_free(); written only on 0
 * @ret_errors: what is wrong; written on every other outcome
 *
 * Return: 0; CONF_E_INVALID; -errno when the file cannot be read (an error text is there too).
 */
int conf_load(const char *path, struct conf **ret_conf, struct conf_errors *ret_errors);

/** conf_free() - NULL is fine */
void conf_free(struct conf *conf);

/** conf_freep() - for CLEANUP() */
void conf_freep(struct conf **conf);

#endif
