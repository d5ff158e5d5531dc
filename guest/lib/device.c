/* SPDX-License-Identifier: MIT */
/* device.c - open, describe, reset and close a device, and its memory; see vgpu.h */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/clock.h"
#include "guest/lib/client.h"
#include "guest/lib/err.h"
#include "guest/lib/pci.h"

#define CLOSE_WAIT_NS (2 * CLOCK_NS_PER_S)
#define CLOSE_AWAY_NS (CLOCK_NS_PER_S / 20) /* while no mediator is there to end anything */
#define SPIN_AUTO_US 50u

static void init_cond(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* Polling takes the CPU from whoever is to answer, if there is only one. */
static uint32_t spin_us(const struct vgpu_options *options)
{
    cpu_set_t cpus;

    switch (options->spin_us) {
    case VGPU_SPIN_NEVER:
        return 0;
    case VGPU_SPIN_AUTO:
        return sched_getaffinity(0, sizeof(cpus), &cpus) == 0 && CPU_COUNT(&cpus) > 1 ? SPIN_AUTO_US
                                                                                      : 0;
    default:
        return options->spin_us;
    }
}

static int init_flights(struct vgpu *gpu)
{
    unsigned n = 1;

    while (n < gpu->transport->limits.depth) {
        n *= 2;
    }
    gpu->flights = calloc(n, sizeof(*gpu->flights));
    if (!gpu->flights) {
        return -ENOMEM;
    }
    gpu->flights_max = n;
    while (n--) {
        gpu->flights[n].next = gpu->unused;
        gpu->unused = &gpu->flights[n];
    }
    return 0;
}

int client_new(struct transport *transport, const struct vgpu_options *options,
               struct vgpu **ret_gpu)
{
    struct vgpu *gpu = calloc(1, sizeof(*gpu));

    if (!gpu) {
        transport->ops->close(transport);
        return -ENOMEM;
    }
    if (options) {
        gpu->options = *options;
    }
    gpu->transport = transport;
    if (init_flights(gpu) != 0) {
        transport->ops->close(transport);
        free(gpu);
        return -ENOMEM;
    }
    gpu->options.spin_us = spin_us(&gpu->options);
    spin_init(&gpu->spin, gpu->options.spin_us * UINT64_C(1000));
    gpu->tail = &gpu->head;
    gpu->state = VGPU_STATE_UP;
    /* Tags that no other process of this VM uses. */
    if (getrandom(&gpu->next_tag, sizeof(gpu->next_tag), GRND_NONBLOCK) != sizeof(gpu->next_tag)) {
        gpu->next_tag = clock_wall_ns();
    }
    gpu->next_tag &= ~(uint64_t)(gpu->flights_max - 1);
    arena_init(&gpu->arena, transport);
    pthread_mutex_init(&gpu->lock, NULL);
    init_cond(&gpu->ended);
    init_cond(&gpu->kick);
    *ret_gpu = gpu;
    return 0;
}

int vgpu_open(const struct vgpu_options *options, struct vgpu **ret_gpu, struct vgpu_err *ret_err)
{
    struct transport *transport;
    int r = pci_open(PCI_DEVICES, options, &transport, ret_err);

    if (r) {
        return r;
    }
    r = client_new(transport, options, ret_gpu);
    return r ? err_set(ret_err, r, "no memory to open the device") : 0;
}

int vgpu_list(struct vgpu_found *ret_found, size_t max, size_t *ret_count)
{
    return pci_list(PCI_DEVICES, ret_found, max, ret_count);
}

static void nap(uint64_t ns)
{
    struct timespec ts = {.tv_sec = 0, .tv_nsec = (long)ns};

    nanosleep(&ts, NULL);
}

void vgpu_close(struct vgpu *gpu)
{
    uint64_t start_ns = clock_now_ns();

    if (!gpu) {
        return;
    }
    /* What was given up should end before its memory may go to another process. */
    while (gpu->nflights &&
           clock_now_ns() - start_ns <
               (gpu->state == VGPU_STATE_NO_BACKEND ? CLOSE_AWAY_NS : CLOSE_WAIT_NS)) {
        client_drive(gpu);
        nap(CLOCK_NS_PER_MS);
    }
    arena_fini(&gpu->arena);
    gpu->transport->ops->close(gpu->transport);
    pthread_mutex_destroy(&gpu->lock);
    pthread_cond_destroy(&gpu->ended);
    pthread_cond_destroy(&gpu->kick);
    free(gpu->flights);
    free(gpu);
}

int vgpu_describe(struct vgpu *gpu, struct vgpu_device *ret_device)
{
    int r = gpu->transport->ops->describe(gpu->transport, ret_device);

    if (r == 0) {
        ret_device->depth = gpu->transport->limits.depth;
        ret_device->spin_us = gpu->options.spin_us;
        ret_device->spins = atomic_load_explicit(&gpu->spins, memory_order_relaxed);
        ret_device->naps = atomic_load_explicit(&gpu->naps, memory_order_relaxed);
    }
    return r;
}

int vgpu_info(struct vgpu *gpu, uint32_t deadline_ms, struct vgpu_info *ret_info,
              struct vgpu_err *ret_err)
{
    struct vgpu_request_options options = {.deadline_ms = deadline_ms, .band = VGPU_BAND_DEFAULT};
    struct vgpu_request *req = vgpu_request_new(gpu);
    int r;

    if (!req) {
        return err_set(ret_err, -ENOMEM, "no memory for a request");
    }
    vgpu_request_set(req, &options);
    vgpu_request_begin(req, VGPU_OP_INFO);
    r = vgpu_run(req, ret_err);
    if (r == 0 &&
        (req->response.payload != VGPU_PAYLOAD_INFO || req->payload_len < sizeof(*ret_info))) {
        r = err_set(ret_err, -EPROTO, "the answer to INFO has %u bytes instead of %zu",
                    req->payload_len, sizeof(*ret_info));
    }
    if (r == 0) {
        memcpy(ret_info, req->payload, sizeof(*ret_info));
        ret_info->vm[sizeof(ret_info->vm) - 1] = 0;
        ret_info->tenant[sizeof(ret_info->tenant) - 1] = 0;
        ret_info->pool[sizeof(ret_info->pool) - 1] = 0;
        ret_info->backends[sizeof(ret_info->backends) - 1] = 0;
        err_clean(ret_info->vm);
        err_clean(ret_info->tenant);
        err_clean(ret_info->pool);
        err_clean(ret_info->backends);
    }
    vgpu_request_free(req);
    return r;
}

/* As the driver: reset, and wait for it. */
static int reset_driving(struct vgpu *gpu, uint64_t until_ns)
{
    const struct transport_ops *ops = gpu->transport->ops;
    int r;

    while ((r = ops->reset(gpu->transport, clock_now_ns())) == TRANSPORT_E_WAIT) {
        if (clock_now_ns() >= until_ns) {
            return -EBUSY;
        }
        nap(CLOCK_NS_PER_MS);
    }
    while (r == 0 && (r = ops->reset_done(gpu->transport)) == TRANSPORT_E_WAIT) {
        if (clock_now_ns() >= until_ns) {
            return -ETIMEDOUT;
        }
        nap(CLOCK_NS_PER_MS);
        r = 0;
    }
    return r;
}

int vgpu_reset(struct vgpu *gpu, int timeout_ms, struct vgpu_err *ret_err)
{
    uint64_t until_ns =
        timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
    int r;

    pthread_mutex_lock(&gpu->lock);
    while (gpu->driving) {
        pthread_cond_wait(&gpu->ended, &gpu->lock);
    }
    gpu->driving = true;
    pthread_mutex_unlock(&gpu->lock);
    r = reset_driving(gpu, until_ns);
    gpu->transport->ops->pause(gpu->transport);
    pthread_mutex_lock(&gpu->lock);
    gpu->driving = false;
    pthread_cond_broadcast(&gpu->ended);
    pthread_mutex_unlock(&gpu->lock);
    switch (r) {
    case 0:
        return 0;
    case -EBUSY:
        return err_set(ret_err, r, "another process of this VM keeps the device; end it first");
    case -ETIMEDOUT:
        return err_set(ret_err, r,
                       "the device is still resetting after %d ms: the host waits for a worker of "
                       "the old life to end; it becomes usable by itself",
                       timeout_ms);
    default:
        return err_set(ret_err, r, "%s", vgpu_code_text(r));
    }
}

void *vgpu_alloc(struct vgpu *gpu, size_t bytes)
{
    uint64_t offset;
    int r = arena_alloc(&gpu->arena, bytes, &offset);

    if (r) {
        errno = -r;
        return NULL;
    }
    return gpu->transport->limits.arena + offset;
}

void vgpu_free(struct vgpu *gpu, void *memory)
{
    if (memory) {
        arena_free(&gpu->arena, (uint64_t)((uint8_t *)memory - gpu->transport->limits.arena));
    }
}

size_t vgpu_available(struct vgpu *gpu)
{
    return arena_largest(&gpu->arena);
}
