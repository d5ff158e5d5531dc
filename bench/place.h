/* SPDX-License-Identifier: MIT */
/*
 * place - which CPUs the processes of a measurement run on
 *
 * The CPUs that this program was started with, first one thread of every core, then the others: so the
 * first few do not share a core where there are enough. bench/run.sh asks `bench-place` for the same
 * list, to put mediator and worker where the floor's processes are.
 */
#ifndef BENCH_PLACE_H
#define BENCH_PLACE_H

/** place_cpu() - the CPU at @index of the list; -1: there are fewer. First called before place_here(). */
int place_cpu(int index);

/** place_here() - the calling process runs on @cpu alone from now on */
void place_here(int cpu);

#endif
