#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Sum up `vgpuctl jobs --json` by VM and worker: who ran what, where, how long.

usage: vgpuctl ... jobs --json | who_ran.py
"""
import collections
import json
import sys

COLUMNS = (("VM", "%-8s"), ("TENANT", "%-10s"), ("BAND", "%-8s"), ("OP", "%-8s"), ("WORKER", "%-7s"),
           ("JOBS", "%5s"), ("RUN AGAIN", "%9s"), ("FAILED", "%6s"), ("RUN s", "%7s"), ("MEAN ms", "%8s"),
           ("WAITED ms", "%9s"))


def rows(jobs):
    """One row per (vm, tenant, band, op, worker), in that order; requests that the mediator answered
    itself are left out."""
    groups = collections.defaultdict(list)
    for job in (job for job in jobs if job["worker"] or job["state"] == "failed"):
        groups[tuple(str(job[key] or "-") for key in ("vm", "tenant", "band", "op", "worker"))].append(job)
    for key, group in sorted(groups.items()):
        run_ms = sum(job["run_ms"] for job in group)
        waited_ms = sum(job["queued_ms"] for job in group) / len(group)
        again = sum(job["attempts"] > 1 for job in group)
        failed = sum(job["state"] == "failed" for job in group)
        yield (*key, len(group), again, failed, f"{run_ms / 1000:.1f}", f"{run_ms / len(group):.0f}",
               f"{waited_ms:.0f}")


def main():
    form = "  ".join(width for _, width in COLUMNS)
    print(form % tuple(name for name, _ in COLUMNS))
    for row in rows(json.load(sys.stdin)["jobs"]):
        print(form % row)


if __name__ == "__main__":
    main()
