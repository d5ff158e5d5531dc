/* SPDX-License-Identifier: MIT */
/*
 * adminjson - values of the admin socket's answers
 *
 * Private to adminview.c and adminjobs.c. Without memory an object lacks the key; nothing fails.
 */
#ifndef VGPU_MEDIATOR_ADMINJSON_H
#define VGPU_MEDIATOR_ADMINJSON_H

#include <jansson.h>
#include <stdint.h>

#include "local-mediator/mediator.h"

/** adminjson_text() - a name; what is not UTF-8 becomes "?" */
static inline void adminjson_text(json_t *object, const char *key, const char *text)
{
    json_t *value = json_string(text);

    json_object_set_new(object, key, value ? value : json_string("?"));
}

/** adminjson_seconds() - seconds, to the microsecond */
static inline void adminjson_seconds(json_t *object, const char *key, uint64_t ns)
{
    uint64_t us = ns / 1000;

    json_object_set_new(object, key, json_real((double)us / 1e6));
}

/** adminjson_millis() - milliseconds, to the microsecond */
static inline void adminjson_millis(json_t *object, const char *key, uint64_t ns)
{
    uint64_t us = ns / 1000;

    json_object_set_new(object, key, json_real((double)us / 1e3));
}

/** adminjson_number() - a whole number */
static inline void adminjson_number(json_t *object, const char *key, uint64_t number)
{
    json_object_set_new(object, key, json_integer((json_int_t)number));
}

/** adminjson_view() - an answer of a schema */
static inline json_t *adminjson_view(const char *schema)
{
    json_t *view = json_object();

    adminjson_text(view, "schema", schema);
    return view;
}

/** adminjobs_view() - the answer to "jobs"; NULL when its limit is wrong */
json_t *adminjobs_view(struct mediator *m, const json_t *request);

#endif
