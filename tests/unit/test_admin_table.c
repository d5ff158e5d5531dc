/* SPDX-License-Identifier: MIT */
/* test_admin_table.c - vgpuctl's cells and tables */
#include <stdio.h>
#include <string.h>

#include "admin/table.h"
#include "admin/views.h"
#include "tests/unit/unit.h"

static const struct {
    const char *name;
    const char *json;
    enum table_unit unit;
    const char *cell;
} cells[] = {
    {"text stays text", "\"a\"", TABLE_TEXT, "a"},
    {"null is a dash", "null", TABLE_SECONDS, "-"},
    {"true is yes", "true", TABLE_TEXT, "yes"},
    {"a list is joined", "[\"echo\",\"fft\"]", TABLE_TEXT, "echo,fft"},
    {"a count has no point", "12", TABLE_COUNT, "12"},
    {"few bytes", "1023", TABLE_BYTES, "1023B"},
    {"many bytes", "1572864", TABLE_BYTES, "1.5M"},
    {"more bytes than units", "1e18", TABLE_BYTES, "888.2P"},
    {"seconds", "3.21", TABLE_SECONDS, "3.2s"},
    {"minutes", "310", TABLE_SECONDS, "5m10s"},
    {"hours", "7500", TABLE_SECONDS, "2h05m"},
    {"milliseconds", "12.34", TABLE_MILLIS, "12.3"},
};

START_TEST(cell)
{
    char out[TABLE_CELL_MAX];
    json_t *v = json_loads(cells[_i].json, JSON_DECODE_ANY, NULL);

    table_cell(v, cells[_i].unit, out);
    ck_assert_msg(strcmp(out, cells[_i].cell) == 0, "%s: %s", cells[_i].name, out);
    json_decref(v);
}
END_TEST

START_TEST(long_text_is_cut)
{
    char out[TABLE_CELL_MAX];
    char text[300];
    json_t *v;

    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = '\0';
    v = json_string(text);
    table_cell(v, TABLE_TEXT, out);
    ck_assert_uint_eq(strlen(out), TABLE_CELL_MAX - 1);
    json_decref(v);
}
END_TEST

static char *print_view(const char *command, const char *answer)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    json_t *json = json_loads(answer, 0, NULL);

    ck_assert_int_eq(view_find(command)->print(out, json), 0);
    fclose(out);
    json_decref(json);
    return text;
}

START_TEST(views)
{
    char *text = print_view("workers", "{\"workers\":[{\"worker\":\"w0\",\"depth\":2,"
                                       "\"state\":\"up\"},{\"worker\":\"long-name\"}]}");

    ck_assert_ptr_nonnull(strstr(text, "\nw0         -     up     "));
    ck_assert_ptr_nonnull(strstr(text, "\nlong-name  -     -      "));
    free(text);
    text = print_view("jobs", "{}");
    ck_assert_str_eq(text, "no jobs yet\n");
    free(text);
    text = print_view("queues", "{\"mediator\":{\"uptime_s\":3,\"draining\":true}}");
    ck_assert_ptr_nonnull(strstr(text, "up 3.0s, draining"));
    free(text);
    ck_assert_ptr_null(view_find("nonsense"));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("admin table");
    TCase *tc = tcase_create("admin table");

    tcase_add_loop_test(tc, cell, 0, N_ELEMS(cells));
    tcase_add_test(tc, long_text_is_cut);
    tcase_add_test(tc, views);
    suite_add_tcase(s, tc);
    return unit_run(s);
}
