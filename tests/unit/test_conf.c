/* SPDX-License-Identifier: MIT */
/* test_conf.c - the pool file: defaults, values, errors with their lines; its document is complete */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/conf.h"
#include "common/conf_text.h"
#include "tests/unit/unit.h"

static struct conf_errors errors;

static int load(const char *text, struct conf **ret)
{
    char path[] = "/tmp/vgpu-conf-XXXXXX";
    int fd = mkstemp(path), r;

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    r = conf_load(path, ret, &errors);
    unlink(path);
    return r;
}

/* ---- scalars ---- */

/* clang-format off */
static const struct number_case {
    enum conf_type type;
    const char *text;
    int r;
    uint64_t value;
} number_cases[] = {
    {CONF_COUNT, "0", 0, 0},
    {CONF_COUNT, "18446744073709551615", 0, UINT64_MAX},
    {CONF_COUNT, "18446744073709551616", -ERANGE, 0},
    {CONF_COUNT, "", -EINVAL, 0},
    {CONF_COUNT, "-1", -EINVAL, 0},
    {CONF_COUNT, "+1", -EINVAL, 0},
    {CONF_COUNT, " 1", -EINVAL, 0},
    {CONF_COUNT, "1 ", -EINVAL, 0},
    {CONF_COUNT, "0x10", -EINVAL, 0},
    {CONF_COUNT, "1K", -EINVAL, 0},
    {CONF_SIZE, "4096", 0, 4096},
    {CONF_SIZE, "64K", 0, 65536},
    {CONF_SIZE, "256M", 0, UINT64_C(256) << 20},
    {CONF_SIZE, "16777215T", 0, UINT64_C(16777215) << 40},
    {CONF_SIZE, "16777216T", -ERANGE, 0},
    {CONF_SIZE, "1k", -EINVAL, 0},
    {CONF_SIZE, "1MB", -EINVAL, 0},
    {CONF_SIZE, "1.5G", -EINVAL, 0},
    {CONF_DURATION, "500ms", 0, 500},
    {CONF_DURATION, "60s", 0, 60000},
    {CONF_DURATION, "5m", 0, 300000},
    {CONF_DURATION, "2h", 0, 7200000},
    {CONF_DURATION, "60", -EINVAL, 0},
    {CONF_DURATION, "1d", -EINVAL, 0},
    {CONF_SPIN, "0us", 0, 0},
    {CONF_SPIN, "50us", 0, 50},
    {CONF_SPIN, "1ms", 0, 1000},
    {CONF_SPIN, "auto", 0, CONF_AUTO},
    {CONF_SPIN, "50", -EINVAL, 0},
    {CONF_SPIN, "1s", -EINVAL, 0},
    {CONF_BAND, "realtime", 0, VGPU_BAND_REALTIME},
    {CONF_BAND, "batch", 0, VGPU_BAND_BATCH},
    {CONF_BAND, "3", -EINVAL, 0},
};
/* clang-format on */

START_TEST(numbers)
{
    const struct number_case *c = &number_cases[_i];
    uint64_t value = 0;

    ck_assert_msg(conf_text_number(c->type, c->text, &value) == c->r, "'%s'", c->text);
    if (c->r == 0) {
        ck_assert_uint_eq(value, c->value);
    }
}
END_TEST

START_TEST(nearest)
{
    static const char *const keys[] = {"name", "weight", "max_queued", "max_bytes", "max_request"};

    ck_assert_str_eq(conf_text_nearest("nmae", keys, 5), "name");
    ck_assert_str_eq(conf_text_nearest("wieght", keys, 5), "weight");
    ck_assert_str_eq(conf_text_nearest("max_byte", keys, 5), "max_bytes");
    ck_assert_ptr_null(conf_text_nearest("colour", keys, 5));
    ck_assert_ptr_null(conf_text_nearest("", keys, 0));
    ck_assert_ptr_null(
        conf_text_nearest("a word that is longer than any key of the file could be", keys, 5));
}
END_TEST

START_TEST(uuids_and_names)
{
    uint8_t uuid[16];

    ck_assert_int_eq(conf_text_uuid("00112233-4455-6677-8899-aAbBcCdDeEfF", uuid), 0);
    ck_assert_mem_eq(uuid, "\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff", 16);
    ck_assert_int_eq(conf_text_uuid("00112233445566778899aabbccddeeff", uuid), -EINVAL);
    ck_assert_int_eq(conf_text_uuid("00112233-4455-6677-8899-aabbccddeefg", uuid), -EINVAL);
    ck_assert_int_eq(conf_text_uuid("0011223-34455-6677-8899-aabbccddeeff", uuid), -EINVAL);
    ck_assert(conf_text_is_name("vm-1.a_B"));
    ck_assert(!conf_text_is_name("") && !conf_text_is_name("..") && !conf_text_is_name("a/b"));
    ck_assert(!conf_text_is_name("a b") && !conf_text_is_name("\xc3\xa4"));
}
END_TEST

/* ---- whole files ---- */

START_TEST(everything_has_a_default)
{
    CLEANUP(conf_freep) struct conf *c = NULL;

    ck_assert_int_eq(
        load("version: 1\ntenants: [{name: red}]\nvms: [{name: a, tenant: red}]\n", &c), 0);
    ck_assert_uint_eq(c->mediator.heartbeat, 1000);
    ck_assert_uint_eq(c->mediator.deadline, 60000);
    ck_assert_uint_eq(c->n_pools, 1);
    ck_assert_str_eq(c->pools[0].name, "default");
    ck_assert_uint_eq(c->pools[0].id, 1);
    ck_assert_uint_eq(c->pools[0].bands[VGPU_BAND_REALTIME].max_job, 5000);
    ck_assert_uint_eq(c->pools[0].bands[VGPU_BAND_BATCH].max_job, 600000);
    ck_assert_uint_eq(c->n_tenants, 1);
    ck_assert_uint_eq(c->tenants[0].weight, 1);
    ck_assert_uint_eq(c->tenants[0].max_request, UINT64_C(1) << 30);
    ck_assert_uint_eq(c->n_vms, 1);
    ck_assert(c->vms[0].any_uuid && c->vms[0].own_uid && !c->vms[0].socket[0]);
    ck_assert_uint_eq(c->vms[0].band, VGPU_BAND_NORMAL);
    ck_assert_uint_eq(c->vms[0].band_max, VGPU_BAND_NORMAL);
    ck_assert_uint_eq(c->vms[0].pools, 1);
}
END_TEST

START_TEST(values_arrive)
{
    CLEANUP(conf_freep) struct conf *c = NULL;
    static const char text[] =
        "version: 1\n"
        "mediator: {heartbeat: 200ms, drain: 1m}\n"
        "pools:\n"
        "  - {name: one, id: 10, max_queued: 5, bands: {high: {max_job: 7s}}}\n"
        "  - {name: two}\n"
        "tenants:\n"
        "  - {name: red, weight: 3, max_bytes: 8M}\n"
        "vms:\n"
        "  - name: a\n"
        "    uuid: 00112233-4455-6677-8899-aabbccddeeff\n"
        "    tenant: red\n"
        "    pools: [two, one]\n"
        "    band: batch\n"
        "    band_max: realtime\n"
        "    uid: 1000\n"
        "    socket: /run/x/a.sock\n"
        "  - name: lonely\n";

    ck_assert_int_eq(load(text, &c), 0);
    ck_assert_uint_eq(c->mediator.heartbeat, 200);
    ck_assert_uint_eq(c->mediator.drain, 60000);
    ck_assert_uint_eq(c->pools[0].id, 10);
    ck_assert_uint_eq(c->pools[0].max_queued, 5);
    ck_assert_uint_eq(c->pools[0].bands[VGPU_BAND_HIGH].max_job, 7000);
    ck_assert_uint_eq(c->pools[1].id, 2);
    ck_assert_uint_eq(c->tenants[0].weight, 3);
    ck_assert_uint_eq(c->vms[0].pools, 3);
    ck_assert_uint_eq(c->vms[0].pool, 1);
    ck_assert_uint_eq(c->vms[0].band, VGPU_BAND_BATCH);
    ck_assert_uint_eq(c->vms[0].band_max, VGPU_BAND_REALTIME);
    ck_assert_uint_eq(c->vms[0].uid, 1000);
    ck_assert_uint_eq(c->vms[0].uuid[15], 0xff);
    ck_assert_str_eq(c->vms[0].socket, "/run/x/a.sock");
    ck_assert_uint_eq(c->n_tenants, 2);
    ck_assert_str_eq(c->tenants[c->vms[1].tenant].name, "lonely");
}
END_TEST

/* clang-format off */
static const struct bad_case {
    const char *name;
    const char *text;
    const char *line; /* ":N: " */
    const char *complaint;
} bad_cases[] = {
    {"unknown key", "version: 1\nvms:\n  - name: a\n    bnad: high\n", ":4: ", "did you mean 'band'"},
    {"unknown key, nothing near", "version: 1\ncolour: red\n", ":2: ", "known here: version"},
    {"list for mapping", "version: 1\nmediator: []\n", ":2: ", "must be a mapping"},
    {"mapping for scalar", "version: 1\nmediator:\n  drain: {}\n", ":3: ", "mediator.drain must be a single value"},
    {"scalar for the file", "hello\n", ":1: ", "must be a mapping"},
    {"missing name", "version: 1\nvms:\n  - band: high\n", ":3: ", "'name' is missing in vms[0]"},
    {"duplicate pool", "version: 1\npools:\n  - name: a\n  - name: a\n", ":4: ", "line 3"},
    {"duplicate pool id", "version: 1\npools:\n  - {name: a, id: 2}\n  - {name: b}\n", ":4: ", "line 3"},
    {"duplicate tenant", "version: 1\ntenants:\n  - name: a\n  - name: a\n", ":4: ", "line 3"},
    {"empty list of pools", "version: 1\nvms:\n  - name: a\n    pools: []\n", ":4: ", "at least one"},
    {"pool id 0", "version: 1\npools:\n  - name: a\n    id: 0\n", ":4: ", "out of bounds"},
    {"number too large", "version: 1\npools:\n  - name: a\n    max_queued: 99999999999999999999\n", ":4: ", "out of bounds"},
    {"alias", "version: 1\nmediator: &m {drain: 1s}\npools: [{name: a, bands: {high: *m}}]\n", ":2: ", "unknown key 'drain'"},
    {"key that is a list", "version: 1\n? [a]\n: b\n", ":2: ", "must be a word"},
    {"not YAML", "version: '1\n", ":", "not valid YAML"},
};
/* clang-format on */

START_TEST(errors_name_line_and_key)
{
    const struct bad_case *bad = &bad_cases[_i];
    struct conf *c = NULL;

    ck_assert_msg(load(bad->text, &c) == CONF_E_INVALID, "%s", bad->name);
    ck_assert_uint_ge(errors.count, 1);
    ck_assert_msg(strstr(errors.text[0], bad->line) && strstr(errors.text[0], bad->complaint),
                  "%s: %s", bad->name, errors.text[0]);
}
END_TEST

START_TEST(errors_are_bounded)
{
    char text[4096] = "version: 1\n";
    struct conf *c = NULL;

    for (int i = 0; i < 100; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "key%d: 1\n", i);
    }
    ck_assert_int_eq(load(text, &c), CONF_E_INVALID);
    ck_assert_uint_eq(errors.count, 100);
}
END_TEST

START_TEST(no_file)
{
    struct conf *c = NULL;

    ck_assert_int_eq(conf_load("/nonexistent/pool.yaml", &c, &errors), -ENOENT);
    ck_assert_ptr_nonnull(strstr(errors.text[0], "/nonexistent/pool.yaml"));
    ck_assert_int_eq(conf_load("/", &c, &errors), -EINVAL);
}
END_TEST

START_TEST(random_changes_never_crash)
{
    static const char text[] = "version: 1\nmediator: {heartbeat: 1s}\npools: [{name: p, id: 3}]\n"
                               "tenants:\n  - {name: t, weight: 2}\nvms:\n  - name: a\n"
                               "    tenant: t\n    pools: [p]\n    band: high\n    uid: 0\n";
    uint64_t seed = (uint64_t)_i + 1;

    for (int i = 0; i < 150; i++) {
        CLEANUP(conf_freep) struct conf *c = NULL;
        char changed[sizeof(text)];

        memcpy(changed, text, sizeof(text));
        for (int n = 0; n < 3; n++) {
            changed[unit_below(&seed, sizeof(text) - 1)] =
                "\t\n :[]{}-&*!|>'\"%@`#,az09"[unit_below(&seed, 26)];
        }
        ck_assert_int_eq(load(changed, &c) == 0, c != NULL);
    }
}
END_TEST

/* ---- the document ---- */

#define ROW(key, type, min, max, standard, help) {#key, min, max, standard},
static const struct documented {
    const char *key, *min, *max, *standard;
} documented[] = {CONF_MEDIATOR_KEYS(ROW) CONF_POOL_KEYS(ROW) CONF_BAND_KEYS(ROW)
                      CONF_TENANT_KEYS(ROW) CONF_VM_KEYS(ROW)};

/* Return: whether some line of the document has the key with its bounds and default. */
static bool is_documented(const struct documented *d)
{
    char path[512], line[512], key[80], bounds[80];
    const char *root = getenv("VGPU_SOURCE_DIR");
    bool found = false;
    FILE *file;

    snprintf(path, sizeof(path), "%s/docs/pool-file.md", root ? root : ".");
    snprintf(key, sizeof(key), "| `%s` |", d->key);
    snprintf(bounds, sizeof(bounds), "| %s to %s |", d->min, d->max);
    file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s", path);
    while (!found && fgets(line, sizeof(line), file)) {
        found = strstr(line, key) && strstr(line, bounds) &&
                (d->standard[0] == '-' || strstr(line, d->standard));
    }
    fclose(file);
    return found;
}

START_TEST(every_number_is_documented)
{
    ck_assert_msg(is_documented(&documented[_i]), "docs/pool-file.md lacks a row for '%s'",
                  documented[_i].key);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("conf");
    TCase *tc = tcase_create("conf");

    tcase_add_loop_test(tc, numbers, 0, N_ELEMS(number_cases));
    tcase_add_test(tc, nearest);
    tcase_add_test(tc, uuids_and_names);
    tcase_add_test(tc, everything_has_a_default);
    tcase_add_test(tc, values_arrive);
    tcase_add_loop_test(tc, errors_name_line_and_key, 0, N_ELEMS(bad_cases));
    tcase_add_test(tc, errors_are_bounded);
    tcase_add_test(tc, no_file);
    tcase_add_loop_test(tc, random_changes_never_crash, 0, 4);
    tcase_add_loop_test(tc, every_number_is_documented, 0, N_ELEMS(documented));
    suite_add_tcase(s, tc);
    return unit_run(s);
}
