/* SPDX-License-Identifier: MIT */
/*
 * log - structured events on standard error, one line each
 *
 *   text:  <level> <message> key=value key="value with spaces"
 *   json:  {"time":"…","level":"info","program":"…","message":"…","key":…}
 *
 * The message is constant, everything that varies is in the fields:
 *
 *   log_info("vm connected", LOG_S("vm", name), LOG_U("pid", pid));
 *
 * When standard error is the journal each text line starts with its priority, "<6>", as sd-daemon(3)
 * says. What a peer can cause goes through a struct log_limit. The writer is never blocked for
 * long: a line is one write(2) of at most LOG_LINE_MAX bytes, longer lines are cut.
 */
#ifndef VGPU_LOG_H
#define VGPU_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX 2048

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };
enum log_kind { LOG_KIND_NONE, LOG_KIND_STRING, LOG_KIND_UNSIGNED, LOG_KIND_SIGNED };

struct log_field {
    const char *key;
    enum log_kind kind;
    union {
        const char *string;
        uint64_t number;
        int64_t integer;
    };
};

/* Fields: a string (NULL is ""), an unsigned and a signed number. */
#define LOG_S(k, v) ((struct log_field){.key = (k), .kind = LOG_KIND_STRING, .string = (v)})
#define LOG_U(k, v) ((struct log_field){.key = (k), .kind = LOG_KIND_UNSIGNED, .number = (v)})
#define LOG_I(k, v) ((struct log_field){.key = (k), .kind = LOG_KIND_SIGNED, .integer = (v)})

#define LOG_FIELDS_(...) ((const struct log_field[]){{.key = NULL}, ##__VA_ARGS__})
#define LOG_COUNT_(...) (sizeof(LOG_FIELDS_(__VA_ARGS__)) / sizeof(struct log_field))
#define log_at(level, message, ...) \
    log_write((level), (message), LOG_FIELDS_(__VA_ARGS__), LOG_COUNT_(__VA_ARGS__))
#define log_error(message, ...) log_at(LOG_LEVEL_ERROR, message, ##__VA_ARGS__)
#define log_warn(message, ...) log_at(LOG_LEVEL_WARN, message, ##__VA_ARGS__)
#define log_info(message, ...) log_at(LOG_LEVEL_INFO, message, ##__VA_ARGS__)
#define log_debug(message, ...) log_at(LOG_LEVEL_DEBUG, message, ##__VA_ARGS__)

/**
 * log_setup() - choose level and format; before that: info, text
 * @program: name for the json format; static
 */
void log_setup(const char *program, enum log_level level, enum log_format format);

/** log_parse_level() - "error", "warn", "info" or "debug". Return: 0, or -EINVAL. */
int log_parse_level(const char *text, enum log_level *ret_level);

/** log_parse_format() - "text" or "json". Return: 0, or -EINVAL. */
int log_parse_format(const char *text, enum log_format *ret_format);

/** log_enabled() - whether events of @level are written: for callers that prepare much for one */
bool log_enabled(enum log_level level);

/** log_write() - write one event; use log_info() and its like. Fields without a key are skipped. */
void log_write(enum log_level level, const char *message, const struct log_field *fields,
               size_t count);

/**
 * log_render() - the line of an event, without its newline
 * @time: text of the time for json, or NULL
 *
 * Return: bytes written to @line (cut at @size - 1, always terminated).
 */
size_t log_render(enum log_format format, enum log_level level, const char *message,
                  const struct log_field *fields, size_t count, const char *time, char *line,
                  size_t size);

/* At most `burst` events per second; zero-initialise and set burst. */
struct log_limit {
    uint32_t burst;
    uint32_t count;
    uint32_t suppressed; /* since the last event that passed */
    uint64_t window_ns;
};

/**
 * log_limit_pass() - may this event be logged?
 * @ret_suppressed: events suppressed since the last one that passed; for a field of this one
 */
bool log_limit_pass(struct log_limit *limit, uint64_t now_ns, uint32_t *ret_suppressed);

#endif
