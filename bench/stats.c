/* SPDX-License-Identifier: MIT */
/* See stats.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/stats.h"

_Noreturn void die(const char *what)
{
    fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what, strerror(errno));
    exit(1);
}

void stats_init(struct stats *s, size_t room)
{
    s->ns = calloc(room ? room : 1, sizeof(*s->ns));
    s->n = 0;
    s->room = room;
    if (!s->ns) {
        die("memory for the samples");
    }
}

void stats_fini(struct stats *s)
{
    free(s->ns);
    s->ns = NULL;
}

void stats_add(struct stats *s, uint64_t ns)
{
    if (s->n < s->room) {
        s->ns[s->n++] = ns;
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

void stats_report(struct stats *s, const char *name)
{
    size_t n = s->n;

    if (n == 0) {
        return;
    }
    qsort(s->ns, n, sizeof(*s->ns), compare);
    printf("BENCH %s n=%zu min_ns=%" PRIu64 " p50_ns=%" PRIu64 " p99_ns=%" PRIu64 " max_ns=%" PRIu64
           "\n",
           name, n, s->ns[0], s->ns[n / 2], s->ns[n - 1 - n / 100], s->ns[n - 1]);
    fflush(stdout);
}
