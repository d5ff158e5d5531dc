/* SPDX-License-Identifier: MIT */
#include "common/conf_schema.h"

#include "common/conf.h"

#define MANY 65535

#define TEXT(type, key) \
    CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, key, 0, 256)
#define NEEDED(type, key) CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER, struct type, key, 0, 256)
#define LIST(type, key, entry)                                                                    \
    CYAML_FIELD_SEQUENCE(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, key, entry, \
                         0, MANY)
#define MAP(type, key, fields)                                                                \
    CYAML_FIELD_MAPPING_PTR(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct type, key, \
                            fields)

#define MEDIATOR_FIELD(key, type, min, max, standard, help) TEXT(conf_raw_mediator, key),
#define BAND_FIELD(key, type, min, max, standard, help) TEXT(conf_raw_band, key),
#define POOL_FIELD(key, type, min, max, standard, help) TEXT(conf_raw_pool, key),
#define TENANT_FIELD(key, type, min, max, standard, help) TEXT(conf_raw_tenant, key),
#define VM_FIELD(key, type, min, max, standard, help) TEXT(conf_raw_vm, key),

static const cyaml_schema_value_t string_entry = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, 256)};

static const cyaml_schema_field_t mediator_fields[] = {CONF_MEDIATOR_KEYS(MEDIATOR_FIELD)
                                                           CYAML_FIELD_END};

static const cyaml_schema_field_t band_fields[] = {CONF_BAND_KEYS(BAND_FIELD) CYAML_FIELD_END};

static const cyaml_schema_field_t bands_fields[] = {
    MAP(conf_raw_bands, realtime, band_fields), MAP(conf_raw_bands, high, band_fields),
    MAP(conf_raw_bands, normal, band_fields), MAP(conf_raw_bands, batch, band_fields),
    CYAML_FIELD_END};

static const cyaml_schema_field_t pool_fields[] = {
    NEEDED(conf_raw_pool, name), TEXT(conf_raw_pool, id),
    CONF_POOL_KEYS(POOL_FIELD) MAP(conf_raw_pool, bands, bands_fields), CYAML_FIELD_END};
static const cyaml_schema_value_t pool_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_raw_pool, pool_fields)};

static const cyaml_schema_field_t tenant_fields[] = {
    NEEDED(conf_raw_tenant, name), CONF_TENANT_KEYS(TENANT_FIELD) CYAML_FIELD_END};
static const cyaml_schema_value_t tenant_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_raw_tenant, tenant_fields)};

static const cyaml_schema_field_t vm_fields[] = {NEEDED(conf_raw_vm, name),
                                                 TEXT(conf_raw_vm, uuid),
                                                 TEXT(conf_raw_vm, tenant),
                                                 TEXT(conf_raw_vm, socket),
                                                 TEXT(conf_raw_vm, uid),
                                                 LIST(conf_raw_vm, pools, &string_entry),
                                                 CONF_VM_KEYS(VM_FIELD) CYAML_FIELD_END};
static const cyaml_schema_value_t vm_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_raw_vm, vm_fields)};

static const cyaml_schema_field_t root_fields[] = {
    NEEDED(conf_raw, version),          MAP(conf_raw, mediator, mediator_fields),
    LIST(conf_raw, pools, &pool_entry), LIST(conf_raw, tenants, &tenant_entry),
    LIST(conf_raw, vms, &vm_entry),     CYAML_FIELD_END};

const cyaml_schema_value_t conf_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct conf_raw, root_fields)};
