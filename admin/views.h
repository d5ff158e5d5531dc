/* SPDX-License-Identifier: MIT */
/* views - what each command shows of its answer; the answers are described in README.md */
#ifndef VGPU_ADMIN_VIEWS_H
#define VGPU_ADMIN_VIEWS_H

#include <jansson.h>
#include <stdio.h>

struct view {
    const char *command;
    const char *help;
    /* prints the answer for people; 0 or -errno */
    int (*print)(FILE *out, const json_t *answer);
};

/** view_find() - the view of a command; NULL when there is no such command */
const struct view *view_find(const char *command);

/** view_at() - the views by index, in the order of the help text; NULL past the last */
const struct view *view_at(size_t index);

#endif
