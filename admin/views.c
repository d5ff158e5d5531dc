/* SPDX-License-Identifier: MIT */
/* views.c - see views.h */
#include "admin/views.h"

#include <stdbool.h>
#include <string.h>

#include "admin/table.h"

#define N_ELEMS(a) (sizeof(a) / sizeof((a)[0]))

/* clang-format off */
static const struct table_column pool_columns[] = {
    { "POOL", "pool", TABLE_TEXT },
    { "WORKERS", "workers", TABLE_COUNT },
    { "CREDITS", "credits", TABLE_COUNT },
    { "USED", "credits_used", TABLE_COUNT },
};
#define COUNTERS \
    { "QUEUED", "queued", TABLE_COUNT }, { "RUNNING", "running", TABLE_COUNT }, \
    { "BYTES", "queued_bytes", TABLE_BYTES }, { "OLDEST", "oldest_s", TABLE_SECONDS }, \
    { "DONE", "done", TABLE_COUNT }, { "REFUSED", "refused", TABLE_COUNT }, \
    { "BUSY", "busy_s", TABLE_SECONDS }
static const struct table_column band_columns[] = {
    { "POOL", "pool", TABLE_TEXT }, { "BAND", "band", TABLE_TEXT }, COUNTERS,
};
static const struct table_column tenant_columns[] = {
    { "TENANT", "tenant", TABLE_TEXT }, { "WEIGHT", "weight", TABLE_COUNT }, COUNTERS,
};
static const struct table_column worker_columns[] = {
    { "WORKER", "worker", TABLE_TEXT }, { "POOL", "pool", TABLE_TEXT },
    { "STATE", "state", TABLE_TEXT }, { "BACKEND", "backend", TABLE_TEXT },
    { "RUNNING", "running", TABLE_COUNT }, { "DEPTH", "depth", TABLE_COUNT },
    { "DONE", "done", TABLE_COUNT }, { "FAILED", "failed", TABLE_COUNT },
    { "LOST", "lost", TABLE_COUNT }, { "PID", "executor_pid", TABLE_COUNT },
    { "SINCE", "since_s", TABLE_SECONDS }, { "DEVICE", "device", TABLE_TEXT },
};
static const struct table_column vm_columns[] = {
    { "VM", "vm", TABLE_TEXT }, { "TENANT", "tenant", TABLE_TEXT }, { "POOL", "pool", TABLE_TEXT },
    { "BAND", "band", TABLE_TEXT }, { "STATE", "state", TABLE_TEXT },
    { "DATA PATH", "datapath", TABLE_TEXT }, { "RINGS", "rings", TABLE_COUNT },
    { "IN FLIGHT", "in_flight", TABLE_COUNT },
    { "QUEUED", "queued", TABLE_COUNT }, { "RUNNING", "running", TABLE_COUNT },
    { "DONE", "done", TABLE_COUNT }, { "FAILED", "failed", TABLE_COUNT },
    { "IN", "bytes_in", TABLE_BYTES }, { "OUT", "bytes_out", TABLE_BYTES },
    { "SINCE", "since_s", TABLE_SECONDS },
};
static const struct table_column job_columns[] = {
    { "VM", "vm", TABLE_TEXT }, { "TENANT", "tenant", TABLE_TEXT }, { "REQUEST", "request", TABLE_TEXT },
    { "OP", "op", TABLE_TEXT }, { "BAND", "band", TABLE_TEXT }, { "STATE", "state", TABLE_TEXT },
    { "WORKER", "worker", TABLE_TEXT }, { "TRIES", "attempts", TABLE_COUNT },
    { "QUEUED ms", "queued_ms", TABLE_MILLIS }, { "RUN ms", "run_ms", TABLE_MILLIS },
    { "ENDED", "ended_s", TABLE_SECONDS }, { "ERROR", "error", TABLE_TEXT },
};
/* clang-format on */

static int print_queues(FILE *out, const json_t *answer)
{
    const json_t *mediator = json_object_get(answer, "mediator");
    char uptime[TABLE_CELL_MAX];
    int err;

    table_cell(json_object_get(mediator, "uptime_s"), TABLE_SECONDS, uptime);
    fprintf(out, "mediator up %s%s\n\n", uptime,
            json_is_true(json_object_get(mediator, "draining")) ? ", draining: takes no new work"
                                                                : "");
    err = table_print(out, json_object_get(answer, "pools"), pool_columns, N_ELEMS(pool_columns),
                      "no pools");
    fprintf(out, "\n");
    err = err ? err
              : table_print(out, json_object_get(answer, "bands"), band_columns,
                            N_ELEMS(band_columns), "no bands");
    fprintf(out, "\n");
    return err ? err
               : table_print(out, json_object_get(answer, "tenants"), tenant_columns,
                             N_ELEMS(tenant_columns), "no tenants");
}

static int print_workers(FILE *out, const json_t *answer)
{
    return table_print(out, json_object_get(answer, "workers"), worker_columns,
                       N_ELEMS(worker_columns),
                       "no workers; start one with: vgpu-worker --mediator RUN_DIR/worker.sock");
}

static int print_vms(FILE *out, const json_t *answer)
{
    return table_print(out, json_object_get(answer, "vms"), vm_columns, N_ELEMS(vm_columns),
                       "no VMs in the pool file");
}

static int print_jobs(FILE *out, const json_t *answer)
{
    return table_print(out, json_object_get(answer, "jobs"), job_columns, N_ELEMS(job_columns),
                       "no jobs yet");
}

static const struct view views[] = {
    {"queues", "who waits: pools, bands and tenants", print_queues},
    {"workers", "workers, their state and what they did", print_workers},
    {"vms", "VMs of the pool file, connected or not", print_vms},
    {"jobs", "the latest jobs: who ran what, where, how long", print_jobs},
};

const struct view *view_find(const char *command)
{
    for (size_t i = 0; i < N_ELEMS(views); i++) {
        if (strcmp(views[i].command, command) == 0) {
            return &views[i];
        }
    }
    return NULL;
}

const struct view *view_at(size_t index)
{
    return index < N_ELEMS(views) ? &views[index] : NULL;
}
