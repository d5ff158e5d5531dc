/* SPDX-License-Identifier: MIT */
#include "common/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

static const char *const level_names[] = {"error", "warn", "info", "debug"};
static const int journal_priorities[] = {3, 4, 6, 7};

/* The one piece of global state: every function of the program may log. */
static struct {
    const char *program;
    enum log_level level;
    enum log_format format;
    bool journal;
} sink = {.program = "vgpu", .level = LOG_LEVEL_INFO};

struct line {
    char *bytes;
    size_t size, used;
};

void log_setup(const char *program, enum log_level level, enum log_format format)
{
    sink.program = program;
    sink.level = level;
    sink.format = format;
    sink.journal = getenv("JOURNAL_STREAM") != NULL;
}

bool log_enabled(enum log_level level)
{
    return level <= sink.level;
}

int log_parse_level(const char *text, enum log_level *ret_level)
{
    for (size_t i = 0; i < sizeof(level_names) / sizeof(level_names[0]); i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *ret_level = (enum log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

int log_parse_format(const char *text, enum log_format *ret_format)
{
    if (strcmp(text, "text") == 0) {
        *ret_format = LOG_FORMAT_TEXT;
    } else if (strcmp(text, "json") == 0) {
        *ret_format = LOG_FORMAT_JSON;
    } else {
        return -EINVAL;
    }
    return 0;
}

static void put(struct line *l, const char *text, size_t length)
{
    size_t room = l->size - 1 - l->used;

    if (length > room) {
        length = room;
    }
    memcpy(l->bytes + l->used, text, length);
    l->used += length;
    l->bytes[l->used] = 0;
}

static void put_text(struct line *l, const char *text)
{
    put(l, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void put_format(struct line *l, const char *format,
                                                             ...)
{
    char small[64];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(small, sizeof(small), format, arguments);
    va_end(arguments);
    put_text(l, small);
}

/* Quotes, backslashes and control characters escaped: valid in JSON, and no peer can forge a line. */
static void put_quoted(struct line *l, const char *text)
{
    put_text(l, "\"");
    for (const char *c = text; *c; c++) {
        if (*c == '"' || *c == '\\') {
            put_format(l, "\\%c", *c);
        } else if (*c == '\n') {
            put_text(l, "\\n");
        } else if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            put_format(l, "\\u%04x", (unsigned char)*c);
        } else {
            put(l, c, 1);
        }
    }
    put_text(l, "\"");
}

static bool is_plain(const char *text)
{
    for (const char *c = text; *c; c++) {
        if (*c <= ' ' || *c == '"' || *c == '\\' || *c == '=' || *c == 0x7f) {
            return false;
        }
    }
    return text[0] != 0;
}

static void put_value(struct line *l, const struct log_field *f, bool always_quote)
{
    const char *text = f->kind == LOG_KIND_STRING && f->string ? f->string : "";

    switch (f->kind) {
    case LOG_KIND_UNSIGNED:
        put_format(l, "%" PRIu64, f->number);
        break;
    case LOG_KIND_SIGNED:
        put_format(l, "%" PRId64, f->integer);
        break;
    default:
        if (always_quote || !is_plain(text)) {
            put_quoted(l, text);
        } else {
            put_text(l, text);
        }
    }
}

static void put_json_head(struct line *l, enum log_level level, const char *message,
                          const char *time)
{
    put_text(l, "{");
    if (time) {
        put_text(l, "\"time\":");
        put_quoted(l, time);
        put_text(l, ",");
    }
    put_text(l, "\"level\":");
    put_quoted(l, level_names[level]);
    put_text(l, ",\"program\":");
    put_quoted(l, sink.program);
    put_text(l, ",\"message\":");
    put_quoted(l, message);
}

size_t log_render(enum log_format format, enum log_level level, const char *message,
                  const struct log_field *fields, size_t count, const char *time, char *line,
                  size_t size)
{
    bool json = format == LOG_FORMAT_JSON;
    /* The closing brace always fits, so that a cut json line is at least balanced. */
    struct line l = {.bytes = line, .size = json ? size - 1 : size};

    if (json) {
        put_json_head(&l, level, message, time);
    } else {
        put_text(&l, level_names[level]);
        put_text(&l, " ");
        put_text(&l, message);
    }
    for (size_t i = 0; i < count; i++) {
        if (!fields[i].key) {
            continue;
        }
        if (json) {
            put_text(&l, ",");
            put_quoted(&l, fields[i].key);
            put_text(&l, ":");
        } else {
            put_text(&l, " ");
            put_text(&l, fields[i].key);
            put_text(&l, "=");
        }
        put_value(&l, &fields[i], json);
    }
    if (json) {
        l.size = size;
        put_text(&l, "}");
    }
    return l.used;
}

static void format_time(char *text, size_t size)
{
    uint64_t now_ns = clock_wall_ns();
    time_t seconds = (time_t)(now_ns / CLOCK_NS_PER_S);
    struct tm parts;
    size_t used;

    gmtime_r(&seconds, &parts);
    used = strftime(text, size, "%Y-%m-%dT%H:%M:%S", &parts);
    snprintf(text + used, size - used, ".%06uZ", (unsigned)(now_ns % CLOCK_NS_PER_S / 1000));
}

void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count)
{
    char line[LOG_LINE_MAX + 8];
    char now[40];
    size_t used = 0;
    ssize_t n;

    if (level > sink.level) {
        return;
    }
    if (sink.format == LOG_FORMAT_TEXT && sink.journal) {
        used = (size_t)snprintf(line, 8, "<%d>", journal_priorities[level]);
    }
    format_time(now, sizeof(now));
    used += log_render(sink.format, level, message, fields, count, now, line + used, LOG_LINE_MAX);
    line[used++] = '\n';
    do {
        n = write(STDERR_FILENO, line, used);
    } while (n < 0 && errno == EINTR);
}

bool log_limit_pass(struct log_limit *limit, uint64_t now_ns, uint32_t *ret_suppressed)
{
    if (now_ns - limit->window_ns >= CLOCK_NS_PER_S) {
        limit->window_ns = now_ns;
        limit->count = 0;
    }
    if (limit->count >= limit->burst) {
        limit->suppressed++;
        return false;
    }
    limit->count++;
    *ret_suppressed = limit->suppressed;
    limit->suppressed = 0;
    return true;
}
