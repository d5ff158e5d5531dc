/* SPDX-License-Identifier: MIT */
/*
 * host - drives a mediator through a VM socket, as QEMU would, and times round trips
 *
 * usage: bench-host SOCKET inline N      an echo of 16 bytes, inline both ways, as in the guest
 *        bench-host SOCKET OP N          a typical job of OP (see bench/typical.c), data in the arena
 *
 * From the first byte sent to the last byte received. The first tenth of the runs is not counted.
 * Two lines are printed: the round trip, and as `….run` what the worker says it took.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/stats.h"
#include "bench/typical.h"
#include "bench/vmclient.h"
#include "common/clock.h"

static void set_tag(uint8_t *request, uint64_t tag)
{
    memcpy(request + offsetof(struct vgpu_req_hdr, tag), &tag, sizeof(tag));
}

static void check(const struct vgpu_resp_hdr *r, uint64_t tag)
{
    if (r->error || r->tag != tag) {
        fprintf(stderr, "bench-host: request %llu ended with error %u: %.*s\n",
                (unsigned long long)tag, r->error, (int)(r->size - sizeof(*r)),
                (const char *)(r + 1));
        exit(1);
    }
}

static void run(struct vmclient *c, const char *name, uint8_t *request, uint32_t len, size_t n)
{
    struct stats all, worker;
    char label[32];

    stats_init(&all, n);
    stats_init(&worker, n);
    for (size_t i = 0; i < n + n / 10 + 1; i++) {
        const struct vgpu_resp_hdr *r;
        uint64_t begin;

        set_tag(request, i + 1);
        begin = clock_now_ns();
        r = vmclient_run(c, request, len);
        if (i > n / 10) {
            stats_add(&all, clock_now_ns() - begin);
            stats_add(&worker, r->run_ns);
        }
        check(r, i + 1);
    }
    stats_report(&all, name);
    snprintf(label, sizeof(label), "%s.run", name);
    stats_report(&worker, label);
    stats_fini(&all);
    stats_fini(&worker);
}

int main(int argc, char **argv)
{
    static uint8_t request[VGPU_REQ_MAX];
    static struct vmclient c;
    const struct typical *op;
    size_t n = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;

    if (n == 0) {
        fprintf(stderr, "usage: bench-host SOCKET inline|OP N\n");
        return 2;
    }
    if (strcmp(argv[2], "inline") == 0) {
        vmclient_open(&c, argv[1], 1 << 20);
        run(&c, "inline", request, typical_echo(16, request), n);
        vmclient_close(&c);
        return 0;
    }
    op = typical_find(argv[2]);
    if (!op) {
        fprintf(stderr, "bench-host: no op '%s'\n", argv[2]);
        return 2;
    }
    vmclient_open(&c, argv[1], TYPICAL_ARENA);
    typical_fill(op, c.arena);
    run(&c, op->name, request, typical_request(op, 0, request), n);
    vmclient_close(&c);
    return 0;
}
