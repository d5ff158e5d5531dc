#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The floor of ops.sort: numpy's stable sort of 1 Mi random F32 keys, in one process.

usage: sort_floor.py N
"""
import sys
import time

import numpy


def main():
    n = int(sys.argv[1])
    keys = numpy.random.default_rng(1).random(1 << 20, dtype=numpy.float32)
    samples = []
    for _ in range(n + 1):
        begin = time.monotonic_ns()
        numpy.sort(keys, kind="stable")
        samples.append(time.monotonic_ns() - begin)
    samples = sorted(samples[1:])
    print(f"BENCH sort n={n} min_ns={samples[0]} p50_ns={samples[n // 2]} "
          f"p99_ns={samples[n - 1 - n // 100]} max_ns={samples[-1]}")


if __name__ == "__main__":
    main()
