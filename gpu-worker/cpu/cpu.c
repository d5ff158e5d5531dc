/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - the CPU backend: a pool of threads and a queue by band; see gpu.h
 *
 * A submitted job is in exactly one of: a queue (one per band, FIFO), the hands of one thread, the
 * list of ended jobs. Queues and list are under one mutex, held for a few instructions. The eventfd is
 * written when a job ends and the owner waits for that (arm()), and read by the next poll(). A tiny job
 * is run by the owner itself and goes to a list of the owner's own, past mutex and eventfd.
 */
#include "gpu-worker/cpu/cpu.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "gpu-worker/cpu/fft_cache.h"
#include "gpu-worker/cpu/machine.h"

struct job_list {
    struct gpu_job *head, **tail;
};

enum bell { BELL_SILENT, BELL_ARMED, BELL_RUNG };

struct gpu {
    struct gpu_caps caps;
    struct cpu_context context;
    uint32_t depth;
    uint32_t submitted;     /* the owner's */
    struct job_list tiny;   /* ended; the owner's */
    _Atomic bool any_ended; /* `ended` is not empty; changed with the lock held */
    _Atomic enum bell bell; /* state of event_fd; likewise */
    int event_fd;
    pthread_mutex_t lock;
    pthread_cond_t work; /* a queue is not empty, or closing */
    struct job_list queues[VGPU_BANDS];
    struct job_list ended;
    bool closing;
    uint32_t threads; /* started */
    pthread_t *thread;
};

static void list_init(struct job_list *list)
{
    list->head = NULL;
    list->tail = &list->head;
}

static void list_push(struct job_list *list, struct gpu_job *job)
{
    job->next = NULL;
    *list->tail = job;
    list->tail = &job->next;
}

static struct gpu_job *list_pop(struct job_list *list)
{
    struct gpu_job *job = list->head;

    if (job) {
        list->head = job->next;
        if (!list->head) {
            list->tail = &list->head;
        }
    }
    return job;
}

static bool list_remove(struct job_list *list, const struct gpu_job *job)
{
    for (struct gpu_job **at = &list->head; *at; at = &(*at)->next) {
        if (*at == job) {
            *at = job->next;
            if (!job->next) {
                list->tail = at;
            }
            return true;
        }
    }
    return false;
}

/* Called with the lock held. */
static void end_job(struct gpu *gpu, struct gpu_job *job)
{
    list_push(&gpu->ended, job);
    atomic_store(&gpu->any_ended, true);
    if (atomic_load(&gpu->bell) == BELL_ARMED) {
        atomic_store(&gpu->bell, BELL_RUNG);
        (void)!write(gpu->event_fd, &(uint64_t){1}, sizeof(uint64_t));
    }
}

/* Called with the lock held; waits. Return: a job; NULL when the backend closes. */
static struct gpu_job *next_job(struct gpu *gpu)
{
    while (!gpu->closing) {
        for (int band = VGPU_BANDS - 1; band >= 0; band--) {
            struct gpu_job *job = list_pop(&gpu->queues[band]);
            if (job) {
                return job;
            }
        }
        pthread_cond_wait(&gpu->work, &gpu->lock);
    }
    return NULL;
}

static void run_job(struct gpu *gpu, struct gpu_job *job)
{
    const struct cpu_op *op = cpu_op_find(job->request->hdr.op);
    uint64_t start_ns = clock_now_ns();

    atomic_store_explicit(&job->started_ns, start_ns, memory_order_relaxed);
    job->error = cpu_stop(job);
    if (!job->error) {
        job->error = op->run(&gpu->context, job, job->why);
    }
    job->run_ns = clock_now_ns() - start_ns;
}

static void *thread_main(void *argument)
{
    struct gpu *gpu = argument;

    pthread_mutex_lock(&gpu->lock);
    for (struct gpu_job *job = next_job(gpu); job; job = next_job(gpu)) {
        pthread_mutex_unlock(&gpu->lock);
        run_job(gpu, job);
        pthread_mutex_lock(&gpu->lock);
        end_job(gpu, job);
    }
    pthread_mutex_unlock(&gpu->lock);
    return NULL;
}

/* Signals are the loop's business: the threads take none. */
static int start_threads(struct gpu *gpu, uint32_t count)
{
    sigset_t all, old;
    int r = 0;

    gpu->thread = calloc(count, sizeof(*gpu->thread));
    if (!gpu->thread) {
        return -ENOMEM;
    }
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (gpu->threads < count && r == 0) {
        r = -pthread_create(&gpu->thread[gpu->threads], NULL, thread_main, gpu);
        gpu->threads += r == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return r;
}

static int cpu_probe(const struct gpu_config *config, struct gpu_caps *ret, char *why)
{
    (void)config, (void)why;
    *ret = (struct gpu_caps){0};
    for (size_t i = 0; cpu_op_at(i); i++) {
        const struct cpu_op *op = cpu_op_at(i);
        ret->ops |= UINT64_C(1) << op->number;
        ret->op_dtypes[op->number] = op->dtypes;
    }
    machine_name(ret->device, sizeof(ret->device));
    return 0;
}

static void cpu_close(struct gpu *gpu)
{
    if (!gpu) {
        return;
    }
    pthread_mutex_lock(&gpu->lock);
    gpu->closing = true;
    pthread_cond_broadcast(&gpu->work);
    pthread_mutex_unlock(&gpu->lock);
    for (uint32_t i = 0; i < gpu->threads; i++) {
        pthread_join(gpu->thread[i], NULL);
    }
    free(gpu->thread);
    fft_cache_free(gpu->context.ffts);
    if (gpu->event_fd >= 0) {
        close(gpu->event_fd);
    }
    pthread_cond_destroy(&gpu->work);
    pthread_mutex_destroy(&gpu->lock);
    free(gpu);
}

static int prepare(struct gpu *gpu, const struct gpu_config *config)
{
    gpu->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (gpu->event_fd < 0) {
        return -errno;
    }
    gpu->context.ffts = fft_cache_new();
    if (!gpu->context.ffts) {
        return -ENOMEM;
    }
    machine_prepare();
    return start_threads(gpu, config->threads);
}

static int cpu_open(const struct gpu_config *config, struct gpu **ret, char *why)
{
    struct gpu *gpu = calloc(1, sizeof(*gpu));

    if (!gpu) {
        snprintf(why, GPU_WHY_MAX, "out of memory");
        return -ENOMEM;
    }
    gpu->depth = config->depth;
    gpu->event_fd = -1;
    cpu_probe(config, &gpu->caps, why);
    pthread_mutex_init(&gpu->lock, NULL);
    pthread_cond_init(&gpu->work, NULL);
    list_init(&gpu->ended);
    list_init(&gpu->tiny);
    for (unsigned band = 0; band < VGPU_BANDS; band++) {
        list_init(&gpu->queues[band]);
    }
    int r = prepare(gpu, config);
    if (r < 0) {
        snprintf(why, GPU_WHY_MAX, "cannot start %u threads: %s", config->threads, strerror(-r));
        cpu_close(gpu);
        return r;
    }
    *ret = gpu;
    return 0;
}

static const struct gpu_caps *cpu_caps(const struct gpu *gpu)
{
    return &gpu->caps;
}

/* Mapped memory is all that a CPU needs: a region is its base address. */
static int cpu_region_attach(struct gpu *gpu, void *base, uint64_t bytes, struct gpu_region **ret)
{
    (void)gpu, (void)bytes;
    *ret = base;
    return 0;
}

static int cpu_region_detach(struct gpu *gpu, struct gpu_region *region)
{
    (void)gpu, (void)region;
    return 0;
}

static int cpu_object_put(struct gpu *gpu, uint32_t tenant, const uint8_t *sha256, const void *host,
                          uint64_t bytes, struct gpu_object **ret)
{
    (void)gpu, (void)tenant, (void)sha256, (void)host, (void)bytes, (void)ret;
    return GPU_E_UNSUPPORTED;
}

static int cpu_object_drop(struct gpu *gpu, struct gpu_object *object)
{
    (void)gpu, (void)object;
    return -EINVAL;
}

/* A wake-up costs more than these take; they pass the queue, which they hardly delay. */
static bool is_tiny(const struct gpu_job *job)
{
    uint64_t left = cpu_op_find(job->request->hdr.op)->tiny_bytes;

    for (unsigned i = 0; i < job->request->hdr.nbufs; i++) {
        if (job->bufs[i].length > left) {
            return false;
        }
        left -= job->bufs[i].length;
    }
    return left > 0;
}

static int cpu_submit(struct gpu *gpu, struct gpu_job *job)
{
    if (job->band >= VGPU_BANDS || !cpu_op_find(job->request->hdr.op)) {
        return -EINVAL;
    }
    if (gpu->submitted >= gpu->depth) {
        return GPU_E_FULL;
    }
    gpu->submitted++;
    job->error = VGPU_E_OK;
    job->why[0] = 0;
    job->run_ns = 0;
    atomic_store_explicit(&job->started_ns, 0, memory_order_relaxed);
    atomic_store_explicit(&job->stop, 0, memory_order_relaxed);
    if (is_tiny(job)) {
        run_job(gpu, job);
        list_push(&gpu->tiny, job);
        return 0;
    }
    pthread_mutex_lock(&gpu->lock);
    list_push(&gpu->queues[job->band], job);
    pthread_cond_signal(&gpu->work);
    pthread_mutex_unlock(&gpu->lock);
    return 0;
}

static int cpu_completion_fd(const struct gpu *gpu)
{
    return gpu->event_fd;
}

static bool cpu_arm(struct gpu *gpu)
{
    bool any;

    if (!gpu->submitted) {
        return false;
    }
    pthread_mutex_lock(&gpu->lock);
    any = gpu->ended.head || gpu->tiny.head;
    if (!any && atomic_load(&gpu->bell) == BELL_SILENT) {
        atomic_store(&gpu->bell, BELL_ARMED);
    }
    pthread_mutex_unlock(&gpu->lock);
    return any;
}

/* Return: how many are in @ret now, of which there were @n. */
static size_t take_ended(struct gpu *gpu, struct gpu_job **ret, size_t n, size_t max)
{
    pthread_mutex_lock(&gpu->lock);
    while (n < max && gpu->ended.head) {
        ret[n++] = list_pop(&gpu->ended);
    }
    atomic_store(&gpu->any_ended, gpu->ended.head != NULL);
    if (atomic_load(&gpu->bell) == BELL_RUNG) {
        (void)!read(gpu->event_fd, &(uint64_t){0}, sizeof(uint64_t));
    }
    atomic_store(&gpu->bell, BELL_SILENT);
    pthread_mutex_unlock(&gpu->lock);
    return n;
}

static size_t cpu_poll(struct gpu *gpu, struct gpu_job **ret, size_t max)
{
    size_t n = 0;

    while (n < max && gpu->tiny.head) {
        ret[n++] = list_pop(&gpu->tiny);
    }
    if (n < max && (atomic_load_explicit(&gpu->any_ended, memory_order_relaxed) ||
                    atomic_load_explicit(&gpu->bell, memory_order_relaxed) != BELL_SILENT)) {
        n = take_ended(gpu, ret, n, max);
    }
    gpu->submitted -= n;
    return n;
}

static void cpu_cancel(struct gpu *gpu, struct gpu_job *job, uint32_t error)
{
    atomic_store(&job->stop, error);
    pthread_mutex_lock(&gpu->lock);
    if (list_remove(&gpu->queues[job->band], job)) {
        job->error = error;
        end_job(gpu, job);
    }
    pthread_mutex_unlock(&gpu->lock);
}

const struct gpu_backend gpu_cpu = {
    .name = "cpu",
    .confined = true,
    .probe = cpu_probe,
    .open = cpu_open,
    .close = cpu_close,
    .caps = cpu_caps,
    .region_attach = cpu_region_attach,
    .region_detach = cpu_region_detach,
    .object_put = cpu_object_put,
    .object_drop = cpu_object_drop,
    .submit = cpu_submit,
    .completion_fd = cpu_completion_fd,
    .arm = cpu_arm,
    .poll = cpu_poll,
    .cancel = cpu_cancel,
};
