/* SPDX-License-Identifier: MIT */
/* test_log.c - lines that people and programs can read, whatever a peer puts into them */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "tests/unit/unit.h"

#define FIELDS(...) LOG_FIELDS_(__VA_ARGS__), LOG_COUNT_(__VA_ARGS__)

static const char *render(enum log_format format, const struct log_field *fields, size_t count)
{
    static char line[LOG_LINE_MAX];

    log_render(format, LOG_LEVEL_WARN, "vm refused", fields, count, NULL, line, sizeof(line));
    return line;
}

START_TEST(text_lines)
{
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS()), "warn vm refused");
    ck_assert_str_eq(
        render(LOG_FORMAT_TEXT, FIELDS(LOG_S("vm", "a"), LOG_U("n", 7), LOG_I("code", -3))),
        "warn vm refused vm=a n=7 code=-3");
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS(LOG_S("why", "no \"such\" VM"))),
                     "warn vm refused why=\"no \\\"such\\\" VM\"");
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS(LOG_S("e", ""), LOG_S("n", NULL))),
                     "warn vm refused e=\"\" n=\"\"");
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS(LOG_U("most", UINT64_MAX))),
                     "warn vm refused most=18446744073709551615");
}
END_TEST

START_TEST(a_peer_cannot_forge_a_line_or_a_field)
{
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS(LOG_S("t", "x\nerror y"))),
                     "warn vm refused t=\"x\\nerror y\"");
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS(LOG_S("t", "a=b"))),
                     "warn vm refused t=\"a=b\"");
    ck_assert_str_eq(render(LOG_FORMAT_TEXT, FIELDS(LOG_S("t", "\x1b[2J"))),
                     "warn vm refused t=\"\\u001b[2J\"");
    ck_assert_str_eq(render(LOG_FORMAT_JSON, FIELDS(LOG_S("t", "\",\"level\":\"info"))),
                     "{\"level\":\"warn\",\"program\":\"vgpu\",\"message\":\"vm refused\","
                     "\"t\":\"\\\",\\\"level\\\":\\\"info\"}");
}
END_TEST

START_TEST(json_lines)
{
    char line[200];

    log_render(LOG_FORMAT_JSON, LOG_LEVEL_INFO, "up", FIELDS(LOG_S("s", "1"), LOG_U("n", 1)),
               "2026-01-02T03:04:05Z", line, sizeof(line));
    ck_assert_str_eq(line, "{\"time\":\"2026-01-02T03:04:05Z\",\"level\":\"info\","
                           "\"program\":\"vgpu\",\"message\":\"up\",\"s\":\"1\",\"n\":1}");
}
END_TEST

START_TEST(long_lines_are_cut)
{
    char text[4000], line[100];
    size_t length;

    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    for (size_t size = 60; size <= sizeof(line); size++) {
        length = log_render(LOG_FORMAT_TEXT, LOG_LEVEL_INFO, "up", FIELDS(LOG_S("t", text)), NULL,
                            line, size);
        ck_assert_uint_eq(length, size - 1);
        ck_assert_uint_eq(strlen(line), length);
        length = log_render(LOG_FORMAT_JSON, LOG_LEVEL_INFO, "up", FIELDS(LOG_S("t", text)), NULL,
                            line, size);
        ck_assert_uint_eq(strlen(line), length);
        ck_assert_int_eq(line[length - 1], '}');
    }
}
END_TEST

START_TEST(limits)
{
    struct log_limit limit = {.burst = 2};
    uint32_t suppressed = 99;

    ck_assert(log_limit_pass(&limit, 5000000000, &suppressed));
    ck_assert_uint_eq(suppressed, 0);
    ck_assert(log_limit_pass(&limit, 5000000001, &suppressed));
    ck_assert(!log_limit_pass(&limit, 5000000002, &suppressed));
    ck_assert(!log_limit_pass(&limit, 5999999999, &suppressed));
    ck_assert(log_limit_pass(&limit, 6000000000, &suppressed));
    ck_assert_uint_eq(suppressed, 2);
}
END_TEST

START_TEST(names)
{
    enum log_level level = LOG_LEVEL_ERROR;
    enum log_format format = LOG_FORMAT_TEXT;

    ck_assert_int_eq(log_parse_level("debug", &level), 0);
    ck_assert_int_eq(level, LOG_LEVEL_DEBUG);
    ck_assert_int_eq(log_parse_level("loud", &level), -EINVAL);
    ck_assert_int_eq(log_parse_format("json", &format), 0);
    ck_assert_int_eq(format, LOG_FORMAT_JSON);
    ck_assert_int_eq(log_parse_format("", &format), -EINVAL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("log");
    TCase *tc = tcase_create("log");

    tcase_add_test(tc, text_lines);
    tcase_add_test(tc, a_peer_cannot_forge_a_line_or_a_field);
    tcase_add_test(tc, json_lines);
    tcase_add_test(tc, long_lines_are_cut);
    tcase_add_test(tc, limits);
    tcase_add_test(tc, names);
    suite_add_tcase(s, tc);
    return unit_run(s);
}
