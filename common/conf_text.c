/* SPDX-License-Identifier: MIT */
#include "common/conf_text.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "common/conf.h"
#include "common/core/request.h"

struct unit {
    const char *suffix;
    uint64_t factor;
};

static const struct unit count_units[] = {{"", 1}, {NULL, 0}};
static const struct unit size_units[] = {{"", 1},
                                         {"K", UINT64_C(1) << 10},
                                         {"M", UINT64_C(1) << 20},
                                         {"G", UINT64_C(1) << 30},
                                         {"T", UINT64_C(1) << 40},
                                         {NULL, 0}};
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {NULL, 0}};
static const struct unit spin_units[] = {{"us", 1}, {"ms", 1000}, {NULL, 0}};

static int parse_scaled(const char *text, const struct unit *units, uint64_t *ret_value)
{
    uint64_t value = 0;
    const char *c = text;

    if (!isdigit((unsigned char)*c)) {
        return -EINVAL;
    }
    for (; isdigit((unsigned char)*c); c++) {
        if (__builtin_mul_overflow(value, UINT64_C(10), &value) ||
            __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value)) {
            return -ERANGE;
        }
    }
    for (; units->suffix; units++) {
        if (strcmp(units->suffix, c) == 0) {
            return __builtin_mul_overflow(value, units->factor, ret_value) ? -ERANGE : 0;
        }
    }
    return -EINVAL;
}

static int parse_spin(const char *text, uint64_t *ret_value)
{
    if (strcmp(text, "auto") == 0) {
        *ret_value = CONF_AUTO;
        return 0;
    }
    return parse_scaled(text, spin_units, ret_value);
}

static int parse_band(const char *text, uint64_t *ret_value)
{
    for (uint32_t band = 0; band < VGPU_BANDS; band++) {
        if (strcmp(text, vgpu_band_name(band)) == 0) {
            *ret_value = band;
            return 0;
        }
    }
    return -EINVAL;
}

int conf_text_number(enum conf_type type, const char *text, uint64_t *ret_value)
{
    switch (type) {
    case CONF_COUNT:
        return parse_scaled(text, count_units, ret_value);
    case CONF_SIZE:
        return parse_scaled(text, size_units, ret_value);
    case CONF_DURATION:
        return parse_scaled(text, duration_units, ret_value);
    case CONF_SPIN:
        return parse_spin(text, ret_value);
    case CONF_BAND:
        return parse_band(text, ret_value);
    }
    return -EINVAL;
}

const char *conf_text_form(enum conf_type type)
{
    static const char *const forms[] = {
        [CONF_COUNT] = "a whole number",
        [CONF_SIZE] = "a number of bytes such as 4096, 64K, 256M or 1G",
        [CONF_DURATION] = "a duration such as 500ms, 60s, 5m or 1h",
        [CONF_SPIN] = "a short time such as 0us, 50us or 1ms, or auto",
        [CONF_BAND] = "batch, normal, high or realtime",
    };

    return forms[type];
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int conf_text_uuid(const char *text, uint8_t ret_uuid[16])
{
    uint8_t uuid[16];
    size_t n = 0;

    if (strlen(text) != 36) {
        return -EINVAL;
    }
    for (size_t i = 0; i < 36;) {
        int high, low;

        if (i == 8 || i == 13 || i == 18 || i == 23) {
            if (text[i++] != '-') {
                return -EINVAL;
            }
            continue;
        }
        high = hex_digit(text[i]);
        low = hex_digit(text[i + 1]);
        if (high < 0 || low < 0) {
            return -EINVAL;
        }
        uuid[n++] = (uint8_t)(high << 4 | low);
        i += 2;
    }
    memcpy(ret_uuid, uuid, sizeof(uuid));
    return 0;
}

bool conf_text_is_name(const char *text)
{
    size_t length = strlen(text);

    if (length == 0 || length > CONF_NAME_MAX || text[0] == '.') {
        return false;
    }
    for (const char *c = text; *c; c++) {
        if (!isalnum((unsigned char)*c) && !strchr("._-", *c)) {
            return false;
        }
    }
    return true;
}

/* Optimal string alignment distance (Damerau-Levenshtein without repeated edits), words < 32 bytes. */
static size_t distance(const char *a, const char *b)
{
    size_t rows[3][33];
    size_t *before = rows[0], *previous = rows[1], *current = rows[2];
    size_t na = strlen(a), nb = strlen(b);

    if (na > 32 || nb > 32) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= nb; j++) {
        before[j] = 0;
        previous[j] = j;
    }
    for (size_t i = 1; i <= na; i++) {
        size_t *reuse = before;

        current[0] = i;
        for (size_t j = 1; j <= nb; j++) {
            size_t best = previous[j - 1] + (a[i - 1] != b[j - 1]);

            best = previous[j] + 1 < best ? previous[j] + 1 : best;
            best = current[j - 1] + 1 < best ? current[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best) {
                best = before[j - 2] + 1;
            }
            current[j] = best;
        }
        before = previous;
        previous = current;
        current = reuse;
    }
    return previous[nb];
}

const char *conf_text_nearest(const char *text, const char *const *candidates, size_t count)
{
    const char *nearest = NULL;
    size_t least = strlen(text) / 3 + 2; /* further away is no typing error */

    for (size_t i = 0; i < count; i++) {
        size_t d = distance(text, candidates[i]);

        if (d < least) {
            least = d;
            nearest = candidates[i];
        }
    }
    return nearest;
}
