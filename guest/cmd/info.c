/* SPDX-License-Identifier: MIT */
/* info.c - `vgpu info` and `vgpu reset` */
#include <inttypes.h>
#include <string.h>

#include "common/core/request.h"
#include "guest/cmd/cmd.h"
#include "guest/cmd/device.h"

#define INFO_DEADLINE_MS 3000u
#define RESET_TIMEOUT_MS 10000
#define LIST_MAX 64u

static const char info_help[] =
    "Usage: vgpu info [--all] [OPTIONS]\n"
    "\n"
    "Says what this VM has: the device and how it is reached, and, from the mediator of the host,\n"
    "the VM's name, tenant, pool, limits, and the operations that the pool offers now.\n"
    "\n"
    "      --all             list the devices of this machine instead; needs no privilege\n";

static const char info_examples[] =
    "\n"
    "Examples:\n"
    "  vgpu info\n"
    "  vgpu info --json --deadline 1\n"
    "  vgpu info --all\n"
    "\n"
    "Exit codes: 0; 3 no usable device; 5 no mediator answered (what the device says is printed\n"
    "all the same).\n";

struct bit_name {
    uint32_t bit;
    const char *name;
};
static const struct bit_name features[] = {
    {VGPU_FEATURE_SHM, "shm"},
    {VGPU_FEATURE_RING, "ring"},
    {VGPU_FEATURE_EVENT_IDX, "event-idx"},
    {VGPU_FEATURE_OBJECT, "object"},
    {VGPU_FEATURE_PROGRAM, "program"},
    {VGPU_FEATURE_LAUNCH, "launch"},
    {VGPU_FEATURE_MSIX, "msix"},
    {VGPU_FEATURE_GPA_RING, "gpa-ring"},
    {VGPU_FEATURE_SESSION, "session"},
};
#define N_FEATURES (sizeof(features) / sizeof(features[0]))

static void print_size(const char *label, uint64_t bytes)
{
    if (bytes >= 1u << 20) {
        printf("%-10s %.6g MiB\n", label, (double)bytes / (1 << 20));
    } else {
        printf("%-10s %" PRIu64 " bytes\n", label, bytes);
    }
}

static const char *state_name(uint32_t status)
{
    static const char *const names[] = {"idle", "busy", "done", "error"};
    uint32_t state = status & VGPU_STATUS_STATE_MASK;

    return state < 4 ? names[state] : "unknown";
}

static void print_rings(const struct vgpu_device *d)
{
    if (d->ring >= 0) {
        printf("%-10s %d of %u is this process's, %u entries of %u bytes\n", "ring", d->ring,
               d->rings, d->ring_entries, d->slot_bytes);
    } else {
        printf("%-10s none: %s\n", "ring", d->no_ring);
    }
    if (d->spin_us) {
        printf("%-10s at most %u us while requests end faster than that\n", "spin", d->spin_us);
    } else {
        printf("%-10s never\n", "spin");
    }
}

static void print_device(const struct vgpu_device *d)
{
    printf("%-10s %s, ABI %u.%u\n", "device", d->address, d->abi_version >> 16,
           d->abi_version & 0xffff);
    printf("%-10s %s\n", "path", d->path);
    print_rings(d);
    if (d->arena[0]) {
        print_size("arena", d->arena_bytes);
        printf("%-10s %s\n", "mapping", d->arena);
    } else {
        printf("%-10s none: only requests of up to 1 KiB\n", "arena");
    }
    printf("%-10s", "features");
    for (size_t i = 0; i < N_FEATURES; i++) {
        if (d->features & features[i].bit) {
            printf(" %s", features[i].name);
        }
    }
    printf("%s\n", d->features ? "" : " none");
    printf("%-10s %s, %s%s%s, resets %u\n", "state",
           d->status & VGPU_STATUS_BACKEND_UP ? "served" : "no mediator serves it",
           state_name(d->status), d->status & VGPU_STATUS_RESETTING ? ", resetting" : "",
           d->status & VGPU_STATUS_BROKEN ? ", BROKEN (`vgpu reset` heals it)" : "",
           d->reset_epoch);
    printf("%-10s %.3g s, when a request asks for none\n", "deadline", d->deadline_ms / 1e3);
    if (d->rejects) {
        printf("%-10s %u doorbells refused, the last with %s\n", "rejects", d->rejects,
               vgpu_code_name((int)d->reject_error));
    }
}

static void print_info(const struct vgpu_info *i)
{
    printf("%-10s %s (number %u), tenant %s\n", "vm", i->vm, i->vm_id, i->tenant);
    printf("%-10s %s (number %u), %u worker%s: %s\n", "pool", i->pool, i->pool_id, i->workers,
           i->workers == 1 ? "" : "s", i->backends[0] ? i->backends : "none");
    printf("%-10s %s, at most %s\n", "band", vgpu_band_name(i->band), vgpu_band_name(i->band_max));
    printf("%-10s", "ops");
    for (uint32_t op = VGPU_OP_FIRST_COMPUTE; op <= VGPU_OP_NUMBER_MAX; op++) {
        if (i->ops >> op & 1) {
            printf(" %s", vgpu_op_name(op));
        }
    }
    printf("%s\n", i->ops ? "" : " none now");
    print_size("request", i->max_bytes);
    printf("%-10s %.3g s\n", "job", i->max_job_ms / 1e3);
    printf("%-10s %u waiting, %u running\n", "queue", i->queued, i->running);
}

static void json_field(const char *name, const char *text)
{
    printf(", \"%s\": ", name);
    cmd_json_string(stdout, text);
}

static void json_device(const struct vgpu_device *d)
{
    printf("\"device\": {\"address\": ");
    cmd_json_string(stdout, d->address);
    json_field("path", d->path);
    json_field("mapping", d->arena);
    json_field("no_ring", d->no_ring);
    printf(", \"rings\": %u, \"ring\": %d, \"ring_entries\": %u, \"slot_bytes\": %u, "
           "\"depth\": %u, \"spin_us\": %u",
           d->rings, d->ring, d->ring_entries, d->slot_bytes, d->depth, d->spin_us);
    printf(", \"abi\": \"%u.%u\", \"features\": [", d->abi_version >> 16, d->abi_version & 0xffff);
    for (size_t i = 0, n = 0; i < N_FEATURES; i++) {
        if (d->features & features[i].bit) {
            printf("%s\"%s\"", n++ ? ", " : "", features[i].name);
        }
    }
    printf("], \"shm_bytes\": %" PRIu64 ", \"arena_bytes\": %" PRIu64, d->shm_bytes,
           d->arena_bytes);
    printf(", \"backend_up\": %s, \"state\": \"%s\", \"resetting\": %s, \"broken\": %s",
           d->status & VGPU_STATUS_BACKEND_UP ? "true" : "false", state_name(d->status),
           d->status & VGPU_STATUS_RESETTING ? "true" : "false",
           d->status & VGPU_STATUS_BROKEN ? "true" : "false");
    printf(", \"vm_id\": %u, \"pool_id\": %u, \"band\": %u, \"deadline_ms\": %u", d->vm_id,
           d->pool_id, d->priority, d->deadline_ms);
    printf(", \"backend_gen\": %u, \"reset_epoch\": %u, \"rejects\": %u}", d->backend_gen,
           d->reset_epoch, d->rejects);
}

static void json_info(const struct vgpu_info *i)
{
    printf(", \"vm\": ");
    cmd_json_string(stdout, i->vm);
    json_field("tenant", i->tenant);
    json_field("pool", i->pool);
    json_field("backends", i->backends);
    json_field("band", vgpu_band_name(i->band));
    json_field("band_max", vgpu_band_name(i->band_max));
    printf(", \"vm_id\": %u, \"pool_id\": %u, \"workers\": %u, \"ops\": [", i->vm_id, i->pool_id,
           i->workers);
    for (uint32_t op = VGPU_OP_FIRST_COMPUTE, n = 0; op <= VGPU_OP_NUMBER_MAX; op++) {
        if (i->ops >> op & 1) {
            printf("%s\"%s\"", n++ ? ", " : "", vgpu_op_name(op));
        }
    }
    printf("], \"max_bytes\": %" PRIu64 ", \"max_job_ms\": %u, \"queued\": %u, \"running\": %u",
           i->max_bytes, i->max_job_ms, i->queued, i->running);
}

static int list_all(const struct cmd *c)
{
    struct vgpu_found found[LIST_MAX];
    size_t count;
    int r = device_list(found, LIST_MAX, &count);

    if (r) {
        return cmd_fail(c, EXIT_NO_DEVICE, "cannot look for PCI devices: %s; is /sys mounted?",
                        vgpu_code_text(r));
    }
    printf("%s", c->json ? "{\"ok\": true, \"devices\": [" : "");
    for (size_t i = 0; i < count && i < LIST_MAX; i++) {
        if (!c->json) {
            printf("%zu  %s  shm %.6g MiB%s%s\n", i, found[i].address,
                   (double)found[i].shm_bytes / (1 << 20), found[i].driver[0] ? "  driver " : "",
                   found[i].driver);
            continue;
        }
        printf("%s{\"address\": ", i ? ", " : "");
        cmd_json_string(stdout, found[i].address);
        json_field("driver", found[i].driver);
        printf(", \"shm_bytes\": %" PRIu64 "}", found[i].shm_bytes);
    }
    printf("%s", c->json ? "]}\n" : "");
    if (count == 0 && !c->json) {
        fprintf(stderr, "%s: this machine has no vGPU\n", c->name);
    }
    return count ? EXIT_OK : EXIT_NO_DEVICE;
}

static int show(const struct cmd *c, struct vgpu *gpu)
{
    uint32_t deadline_ms = c->request.deadline_ms ? c->request.deadline_ms : INFO_DEADLINE_MS;
    struct vgpu_device device;
    struct vgpu_info info;
    struct vgpu_err err = {.text = ""};
    int r = vgpu_info(gpu, deadline_ms, &info, &err);
    int d = vgpu_describe(gpu, &device);

    if (d) {
        return cmd_fail(c, EXIT_NO_DEVICE, "%s", vgpu_code_text(d));
    }
    if (c->json) {
        printf("{\"ok\": %s, ", r ? "false" : "true");
        json_device(&device);
        if (r == 0) {
            json_info(&info);
        } else {
            printf(", \"exit\": %d", cmd_exit_code(r));
            json_field("error", err.text);
        }
        printf("}\n");
        return cmd_exit_code(r);
    }
    print_device(&device);
    if (r) {
        return cmd_fail(c, cmd_exit_code(r), "the mediator did not describe this VM: %s", err.text);
    }
    print_info(&info);
    return EXIT_OK;
}

static void print_info_help(void)
{
    printf("%s%s%s", info_help, cmd_options_help, info_examples);
}

int info_main(int argc, char **argv)
{
    enum { OPT_ALL = 'a' };
    static const struct option options[] = {{"all", no_argument, NULL, OPT_ALL}, CMD_OPTIONS};
    struct vgpu *gpu;
    struct cmd c;
    bool all = false;
    int option, r;

    cmd_init(&c, "vgpu info");
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            print_info_help();
            return EXIT_OK;
        }
        if (option == OPT_ALL) {
            all = true;
        } else if ((r = cmd_option(&c, option)) != 0) {
            return r;
        }
    }
    if (optind < argc) {
        return cmd_fail(&c, EXIT_USAGE, "unexpected argument \"%s\" (see --help)", argv[optind]);
    }
    if (all) {
        return list_all(&c);
    }
    r = cmd_open(&c, &gpu);
    if (r == 0) {
        r = show(&c, gpu);
        vgpu_close(gpu);
    }
    return r;
}

static const char reset_help[] =
    "Usage: vgpu reset [OPTIONS]\n"
    "\n"
    "Starts the device's life anew: whatever any process of this VM has in flight ends with\n"
    "DEVICE_RESET. Heals a device that `vgpu info` calls BROKEN.\n"
    "\n";

int reset_main(int argc, char **argv)
{
    static const struct option options[] = {CMD_OPTIONS};
    struct vgpu_err err;
    struct vgpu *gpu;
    struct cmd c;
    int option, r;

    cmd_init(&c, "vgpu reset");
    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        if (option == 'h') {
            printf("%s%s\nExample:\n  vgpu reset --device 0\n", reset_help, cmd_options_help);
            return EXIT_OK;
        }
        if ((r = cmd_option(&c, option)) != 0) {
            return r;
        }
    }
    if (optind < argc) {
        return cmd_fail(&c, EXIT_USAGE, "unexpected argument \"%s\" (see --help)", argv[optind]);
    }
    r = cmd_open(&c, &gpu);
    if (r) {
        return r;
    }
    r = vgpu_reset(gpu, c.request.deadline_ms ? (int)c.request.deadline_ms : RESET_TIMEOUT_MS,
                   &err);
    if (r) {
        r = cmd_fail(&c, cmd_exit_code(r), "%s", err.text);
    } else {
        printf("%s\n", c.json ? "{\"ok\": true}" : "the device was reset");
    }
    vgpu_close(gpu);
    return r;
}
