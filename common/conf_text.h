/* SPDX-License-Identifier: MIT */
/*
 * conf_text - read the scalars of the pool file
 *
 * Pure. All functions: 0; -EINVAL when the text is not of that form; -ERANGE when the number is too
 * large for 64 bits.
 */
#ifndef VGPU_CONF_TEXT_H
#define VGPU_CONF_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum conf_type { CONF_COUNT, CONF_SIZE, CONF_DURATION, CONF_SPIN, CONF_BAND };

#define CONF_AUTO UINT64_MAX /* CONF_SPIN: what suits this machine */

/** conf_text_number() - a scalar of @type: count, bytes, milliseconds, microseconds or band */
int conf_text_number(enum conf_type type, const char *text, uint64_t *ret_value);

/** conf_text_form() - how a scalar of @type is written, for messages */
const char *conf_text_form(enum conf_type type);

/** conf_text_uuid() - 8-4-4-4-12 hexadecimal digits, in text order */
int conf_text_uuid(const char *text, uint8_t ret_uuid[16]);

/** conf_text_is_name() - [A-Za-z0-9._-]+, not starting with '.', at most CONF_NAME_MAX bytes */
bool conf_text_is_name(const char *text);

/**
 * conf_text_nearest() - the candidate that @text most likely stands for
 *
 * Return: one of @candidates, NULL when none is near.
 */
const char *conf_text_nearest(const char *text, const char *const *candidates, size_t count);

#endif
