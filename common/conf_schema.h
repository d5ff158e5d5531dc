/* SPDX-License-Identifier: MIT */
/*
 * conf_schema - the pool file as libcyaml loads it: every scalar a string
 *
 * Private to conf. Numbers are read afterwards (conf.c), so that every error can name its line.
 */
#ifndef VGPU_CONF_SCHEMA_H
#define VGPU_CONF_SCHEMA_H

#include <cyaml/cyaml.h>

#include "common/conf_keys.h"

#define CONF_RAW_MEMBER_(key, type, min, max, standard, help) char *key;

struct conf_raw_mediator {
    CONF_MEDIATOR_KEYS(CONF_RAW_MEMBER_)
};

struct conf_raw_band {
    CONF_BAND_KEYS(CONF_RAW_MEMBER_)
};

struct conf_raw_bands {
    struct conf_raw_band *realtime, *high, *normal, *batch;
};

struct conf_raw_pool {
    char *name;
    char *id;
    CONF_POOL_KEYS(CONF_RAW_MEMBER_)
    struct conf_raw_bands *bands;
};

struct conf_raw_tenant {
    char *name;
    CONF_TENANT_KEYS(CONF_RAW_MEMBER_)
};

struct conf_raw_vm {
    char *name, *uuid, *tenant, *socket, *uid;
    char **pools;
    unsigned pools_count;
    CONF_VM_KEYS(CONF_RAW_MEMBER_)
};

struct conf_raw {
    char *version;
    struct conf_raw_mediator *mediator;
    struct conf_raw_pool *pools;
    unsigned pools_count;
    struct conf_raw_tenant *tenants;
    unsigned tenants_count;
    struct conf_raw_vm *vms;
    unsigned vms_count;
};

/* The whole file: a mapping, loaded as struct conf_raw. */
extern const cyaml_schema_value_t conf_schema;

#endif
