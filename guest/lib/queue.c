/* SPDX-License-Identifier: MIT */
/*
 * queue - submit, wait, poll, cancel: who drives, and when
 *
 * Whoever waits drives the requests of all, if nobody does yet; the others sleep until theirs has
 * ended or the driver leaves. What a round of driving does is in drive.c.
 */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "guest/lib/client.h"

static bool ended(const struct vgpu_request *req)
{
    return req->state == REQUEST_ENDED;
}

static void sleep_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t until_ns)
{
    struct timespec ts = {
        .tv_sec = (time_t)(until_ns / CLOCK_NS_PER_S),
        .tv_nsec = (long)(until_ns % CLOCK_NS_PER_S),
    };

    if (until_ns == UINT64_MAX) {
        pthread_cond_wait(cond, lock);
    } else {
        pthread_cond_timedwait(cond, lock, &ts);
    }
}

static void drive_once_locked(struct vgpu *gpu, uint64_t *ret_nap_ns)
{
    pthread_mutex_unlock(&gpu->lock);
    *ret_nap_ns = client_drive(gpu);
    pthread_mutex_lock(&gpu->lock);
}

/* With the lock: the driver's place is free; make one round. */
static void drive_in_passing(struct vgpu *gpu)
{
    uint64_t nap_ns;

    gpu->driving = true;
    drive_once_locked(gpu, &nap_ns);
    gpu->transport->ops->pause(gpu->transport);
    gpu->driving = false;
    pthread_cond_broadcast(&gpu->ended);
}

int vgpu_submit(struct vgpu_request *req)
{
    struct vgpu *gpu = req->gpu;

    if (req->broken) {
        return req->broken;
    }
    pthread_mutex_lock(&gpu->lock);
    if (req->state == REQUEST_QUEUED || req->state == REQUEST_FLYING) {
        pthread_mutex_unlock(&gpu->lock);
        return -EBUSY;
    }
    req->state = REQUEST_QUEUED;
    req->cancel_wanted = false;
    req->submitted_ns = clock_now_ns();
    req->not_before_ns = 0;
    req->next = NULL;
    memset(&req->response, 0, sizeof(req->response));
    *gpu->tail = req;
    gpu->tail = &req->next;
    if (gpu->driving) {
        pthread_cond_signal(&gpu->kick);
    } else if (gpu->head == req) {
        drive_in_passing(gpu);
    }
    pthread_mutex_unlock(&gpu->lock);
    return 0;
}

int vgpu_poll(struct vgpu_request *req)
{
    struct vgpu *gpu = req->gpu;
    int r;

    pthread_mutex_lock(&gpu->lock);
    if (req->state != REQUEST_IDLE && !ended(req) && !gpu->driving) {
        drive_in_passing(gpu);
    }
    r = ended(req) ? req->code : req->state == REQUEST_IDLE ? -EINVAL : -EINPROGRESS;
    pthread_mutex_unlock(&gpu->lock);
    return r;
}

/* Return: 0 and the first that ended; -EINPROGRESS; -EINVAL none is or was under way. */
static int first_ended(struct vgpu_request *const *reqs, size_t count, size_t *ret_index)
{
    int r = -EINVAL;

    for (size_t i = 0; i < count; i++) {
        if (!reqs[i] || reqs[i]->state == REQUEST_IDLE) {
            continue;
        }
        if (ended(reqs[i])) {
            *ret_index = i;
            return 0;
        }
        r = -EINPROGRESS;
    }
    return r;
}

static uint64_t until(int timeout_ms)
{
    return timeout_ms < 0 ? UINT64_MAX : clock_now_ns() + (uint64_t)timeout_ms * CLOCK_NS_PER_MS;
}

static int wait_locked(struct vgpu *gpu, struct vgpu_request *const *reqs, size_t count,
                       uint64_t until_ns, size_t *ret_index)
{
    bool driver = false;
    int r;

    while ((r = first_ended(reqs, count, ret_index)) == -EINPROGRESS) {
        uint64_t now_ns = clock_now_ns();
        uint64_t nap_ns;

        if (now_ns >= until_ns) {
            r = -ETIMEDOUT;
            break;
        }
        if (gpu->driving && !driver) {
            sleep_until(&gpu->ended, &gpu->lock, until_ns);
            continue;
        }
        gpu->driving = driver = true;
        drive_once_locked(gpu, &nap_ns);
        if (nap_ns && first_ended(reqs, count, ret_index) == -EINPROGRESS) {
            now_ns = clock_now_ns();
            sleep_until(&gpu->kick, &gpu->lock,
                        nap_ns < until_ns - now_ns ? now_ns + nap_ns : until_ns);
        }
    }
    if (driver) {
        gpu->transport->ops->pause(gpu->transport);
        gpu->driving = false;
        pthread_cond_broadcast(&gpu->ended);
    }
    return r;
}

int vgpu_wait_any(struct vgpu_request *const *reqs, size_t count, int timeout_ms, size_t *ret_index)
{
    struct vgpu *gpu = NULL;
    size_t index = 0;
    int r;

    for (size_t i = 0; i < count && !gpu; i++) {
        gpu = reqs[i] ? reqs[i]->gpu : NULL;
    }
    if (!gpu) {
        return -EINVAL;
    }
    pthread_mutex_lock(&gpu->lock);
    r = wait_locked(gpu, reqs, count, until(timeout_ms), &index);
    pthread_mutex_unlock(&gpu->lock);
    if (r == 0) {
        *ret_index = index;
    }
    return r;
}

int vgpu_wait(struct vgpu_request *req, int timeout_ms)
{
    size_t index;
    int r = vgpu_wait_any(&req, 1, timeout_ms, &index);

    return r ? r : req->code;
}

int vgpu_cancel(struct vgpu_request *req)
{
    struct vgpu *gpu = req->gpu;

    pthread_mutex_lock(&gpu->lock);
    if (req->state == REQUEST_QUEUED || req->state == REQUEST_FLYING) {
        req->cancel_wanted = true;
        atomic_store(&gpu->look, true);
        if (gpu->driving) {
            pthread_cond_signal(&gpu->kick);
        } else {
            drive_in_passing(gpu);
        }
    }
    pthread_mutex_unlock(&gpu->lock);
    return 0;
}
