/* SPDX-License-Identifier: MIT */
/* progress.c - see progress.h */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "guest/cmd/cmd.h"
#include "guest/cmd/progress.h"

#define BAR_WIDTH 20
#define LINE_MS 100   /* shortest time between two drawings of the line */
#define PLAIN_MS 2000 /* and between two plain lines */

int progress_mode(const char *name, int fd, enum progress_mode *ret)
{
    if (strcmp(name, "never") == 0) {
        *ret = PROGRESS_NEVER;
    } else if (strcmp(name, "json") == 0) {
        *ret = PROGRESS_JSON;
    } else if (strcmp(name, "auto") == 0) {
        *ret = isatty(fd) ? PROGRESS_LINE : PROGRESS_NEVER;
    } else if (strcmp(name, "always") == 0) {
        *ret = isatty(fd) ? PROGRESS_LINE : PROGRESS_PLAIN;
    } else {
        return -1;
    }
    return 0;
}

void progress_init(struct progress *p, enum progress_mode mode, int fd, const char *unit,
                   uint64_t total)
{
    *p = (struct progress){.mode = mode, .fd = fd, .unit = unit, .total = total};
    p->start_ms = cmd_now_ms();
}

/* A progress line that cannot be written is not worth failing for. */
static void put(const struct progress *p, const char *text, int len)
{
    if (len > 0 && write(p->fd, text, (size_t)len) < 0) {
        return;
    }
}

static void show_json(const struct progress *p, const struct progress_step *s)
{
    char text[320];
    double elapsed_ms = cmd_now_ms() - p->start_ms;

    put(p, text,
        snprintf(text, sizeof(text),
                 "{\"event\": \"step\", \"done\": %" PRIu64 ", \"total\": %" PRIu64
                 ", \"index\": %" PRIu64
                 ", \"worker\": %u, \"attempts\": %u, \"ms\": %.1f, \"run_ms\": %.1f, "
                 "\"queued_ms\": %.1f, \"elapsed_ms\": %.0f}\n",
                 p->done, p->total, s->index, s->worker, s->attempts, s->ms, s->run_ms,
                 s->queued_ms, elapsed_ms));
}

static int describe(const struct progress *p, const struct progress_step *s, char *text,
                    size_t size)
{
    double seconds = (cmd_now_ms() - p->start_ms) / 1e3;
    double rate = seconds > 0 ? (double)p->done / seconds : 0;
    double eta_s = rate > 0 ? (double)(p->total - p->done) / rate : 0;

    return snprintf(text, size,
                    "%3.0f %%  %" PRIu64 "/%" PRIu64 " %s  %.1f/s  ETA %.0f s  last: worker %u, "
                    "%.0f ms",
                    100.0 * (double)p->done / (double)p->total, p->done, p->total, p->unit, rate,
                    eta_s, s->worker, s->ms);
}

static void show_line(const struct progress *p, const struct progress_step *s)
{
    static const char full[] = "####################";
    static const char none[] = "....................";
    char text[256], line[320];
    int filled = (int)(BAR_WIDTH * p->done / p->total);

    describe(p, s, text, sizeof(text));
    put(p, line,
        snprintf(line, sizeof(line), "\r[%.*s%.*s] %s\033[K", filled, full, BAR_WIDTH - filled,
                 none, text));
}

static void show_plain(const struct progress *p, const struct progress_step *s)
{
    char text[256], line[260];

    describe(p, s, text, sizeof(text));
    put(p, line, snprintf(line, sizeof(line), "%s\n", text));
}

void progress_step(struct progress *p, const struct progress_step *step)
{
    double now_ms;

    p->done++;
    if (p->mode == PROGRESS_NEVER) {
        return;
    }
    if (p->mode == PROGRESS_JSON) {
        show_json(p, step);
        return;
    }
    now_ms = cmd_now_ms();
    if (p->done < p->total &&
        now_ms - p->shown_ms < (p->mode == PROGRESS_LINE ? LINE_MS : PLAIN_MS)) {
        return;
    }
    p->shown_ms = now_ms;
    (p->mode == PROGRESS_LINE ? show_line : show_plain)(p, step);
}

void progress_end(struct progress *p, const char *how)
{
    char text[160];

    if (p->mode == PROGRESS_LINE && p->shown_ms > 0) {
        put(p, "\n", 1);
    } else if (p->mode == PROGRESS_JSON) {
        put(p, text,
            snprintf(text, sizeof(text),
                     "{\"event\": \"%s\", \"done\": %" PRIu64 ", \"total\": %" PRIu64
                     ", \"elapsed_ms\": %.0f}\n",
                     how, p->done, p->total, cmd_now_ms() - p->start_ms));
    }
}
