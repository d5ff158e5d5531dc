/* SPDX-License-Identifier: MIT */
/*
 * progress - show how far a job is: a live line, plain lines, or JSON lines
 */
#ifndef GUEST_PROGRESS_H
#define GUEST_PROGRESS_H

#include <stdint.h>

enum progress_mode {
    PROGRESS_NEVER,
    PROGRESS_LINE,  /* one line of a terminal, drawn over and over */
    PROGRESS_PLAIN, /* a line every few seconds */
    PROGRESS_JSON,  /* one JSON object per step */
};

struct progress {
    enum progress_mode mode;
    int fd;
    const char *unit; /* "tiles" */
    uint64_t total;
    uint64_t done;
    double start_ms;
    double shown_ms;
};

/** progress_mode() - read "auto", "always", "never", "json"; auto looks at @fd. Return: 0, -1 */
int progress_mode(const char *name, int fd, enum progress_mode *ret);

/** progress_init() - nothing is done yet */
void progress_init(struct progress *p, enum progress_mode mode, int fd, const char *unit,
                   uint64_t total);

/* One step that was done. */
struct progress_step {
    uint64_t index;  /* which one */
    uint32_t worker; /* that did it; 0: unknown */
    uint32_t attempts;
    double ms;        /* from submission to completion as seen here */
    double run_ms;    /* on the worker */
    double queued_ms; /* at the mediator */
};

/** progress_step() - one more is done; shows it */
void progress_step(struct progress *p, const struct progress_step *step);

/** progress_end() - nothing more comes; @how: "done", "cancelled" or "failed" */
void progress_end(struct progress *p, const char *how);

#endif
