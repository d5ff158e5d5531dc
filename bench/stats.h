/* SPDX-License-Identifier: MIT */
/* stats - samples of a benchmark and the line that bench/run.sh reads */
#ifndef BENCH_STATS_H
#define BENCH_STATS_H

#include <stddef.h>
#include <stdint.h>

/* Samples in nanoseconds. */
struct stats {
    uint64_t *ns;
    size_t n, room;
};

/** stats_init() - room for @room samples; ends the program when there is no memory */
void stats_init(struct stats *s, size_t room);

/** stats_fini() - free the samples */
void stats_fini(struct stats *s);

/** stats_add() - one sample; ignored when the room is used up */
void stats_add(struct stats *s, uint64_t ns);

/** stats_report() - sort and print "BENCH name n=.. min_ns=.. p50_ns=.. p99_ns=.. max_ns=.." */
void stats_report(struct stats *s, const char *name);

/** die() - print "program: what: errno's text" and exit with 1 */
_Noreturn void die(const char *what);

#endif
