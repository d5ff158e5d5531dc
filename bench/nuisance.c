/* SPDX-License-Identifier: MIT */
/*
 * nuisance - plays a VM that makes trouble, until it is ended or @SECONDS have passed
 *
 * usage: bench-nuisance SOCKET storm|flood|break SECONDS
 *
 *   storm  rings all its doorbells without a pause and submits nothing
 *   flood  keeps as many echoes in flight as its ring takes, on all rings
 *   break  submits a descriptor that breaks the ring, ends, and comes back as another VM
 *
 * Prints "VALUE KIND.acts N" at the end: doorbells, answers, or broken rings.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/shmclient.h"
#include "bench/stats.h"
#include "bench/typical.h"
#include "common/clock.h"

static uint8_t request[VGPU_REQ_MAX];
static const char *path;

static uint64_t storm(struct shmclient *c, uint64_t until_ns)
{
    const uint64_t one = 1;
    uint64_t acts = 0;

    while (clock_now_ns() < until_ns) {
        for (int i = 0; i < 256; i++) {
            if (write(c->kick[i % c->shape.rings], &one, sizeof(one)) != sizeof(one) &&
                errno != EAGAIN) {
                die("kick");
            }
        }
        acts += 256;
    }
    return acts;
}

static uint64_t flood(struct shmclient *c, uint64_t until_ns)
{
    uint32_t len = typical_echo(160, request);
    struct vgpu_completion done;
    uint64_t acts = 0;

    while (clock_now_ns() < until_ns) {
        for (uint32_t r = 0; r < c->shape.rings; r++) {
            while (c->ring[r].in_use < c->shape.entries) {
                c->tag++;
                memcpy(request + offsetof(struct vgpu_req_hdr, tag), &c->tag, sizeof(c->tag));
                shmclient_submit(c, r, request, len, c->tag);
            }
            shmclient_publish(c, r);
            while (shmclient_collect(c, r, &done)) { /* answers, BUSY among them */
                shmclient_done(c, r, &done);
                acts++;
            }
        }
    }
    return acts;
}

/* A descriptor with the length of no request; the mediator ends the ring. A new VM does it again. */
static uint64_t break_rings(struct shmclient *c, uint64_t until_ns)
{
    const struct shmclient_shape shape = c->shape;
    uint64_t acts = 0;

    while (clock_now_ns() < until_ns) {
        struct pollfd called = {.fd = c->call[0], .events = POLLIN};

        ring_submit(&c->ring[0], 0, 0, 1);
        shmclient_publish(c, 0);
        while (!(ring_driver_flags(&c->ring[0]) & VGPU_RING_BROKEN)) {
            poll(&called, 1, 100);
        }
        shmclient_close(c);
        shmclient_open(c, path, &shape);
        acts++;
    }
    return acts;
}

static const struct {
    const char *name;
    uint64_t (*act)(struct shmclient *c, uint64_t until_ns);
} kinds[] = {{"storm", storm}, {"flood", flood}, {"break", break_rings}};

int main(int argc, char **argv)
{
    const struct shmclient_shape shape = SHMCLIENT_SHAPE(UINT64_C(64) << 20);
    static struct shmclient c;
    uint64_t seconds = argc == 4 ? strtoull(argv[3], NULL, 10) : 0;

    for (size_t i = 0; seconds && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        uint64_t acts;

        if (strcmp(argv[2], kinds[i].name) != 0) {
            continue;
        }
        path = argv[1];
        shmclient_open(&c, path, &shape);
        acts = kinds[i].act(&c, clock_now_ns() + seconds * CLOCK_NS_PER_S);
        printf("VALUE %s.acts %llu\n", kinds[i].name, (unsigned long long)acts);
        return 0; /* without a word to the mediator: it copes */
    }
    fprintf(stderr, "usage: bench-nuisance SOCKET storm|flood|break SECONDS\n");
    return 2;
}
