/* SPDX-License-Identifier: MIT */
/*
 * gpu - what an executor asks of a backend
 *
 * A backend runs jobs asynchronously on one device: the CPU (cpu/), a GPU. The executor validates,
 * resolves buffers to addresses and owns time limits; the backend moves bytes and computes.
 *
 * Threads. All functions of one open backend are called from one thread, the owner, and none of
 * them waits for a job (submit() may run one of a few microseconds itself). A backend has threads or
 * streams of its own, which touch a job only between submit() and the moment that poll() returns it.
 * The fields of struct gpu_job that both sides use in that time are atomic.
 *
 * Ownership. A job, its request, its response memory and the regions and objects that it names
 * belong to the caller and must stay as they are while it is submitted. A backend writes to the OUT
 * buffers of a job and to nothing else, and not after poll() returned the job.
 *
 * Hostile memory. A region may be the arena of a VM: its bytes may change at any time, so an index
 * or size read from it is never used without a check on a private copy.
 *
 * How a GPU fits: a region is registered with the driver in chunks on first use; submit() queues
 * copies and kernels on a stream of the job's band; a host callback or a polling thread moves the
 * finished job to the completion queue; an object is host memory that is copied to the device when
 * a job needs it and evicted when room is short; a LAUNCH job's module is an object among its
 * buffers; TEMP buffers are device memory of the job.
 */
#ifndef VGPU_WORKER_GPU_H
#define VGPU_WORKER_GPU_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/core/request.h"

enum {
    GPU_E_UNSUPPORTED = 1, /* this backend has no such thing (objects on the cpu) */
    GPU_E_FULL,            /* as many jobs as `depth` are submitted */
    GPU_E_IN_USE,          /* a submitted job still names it */
    GPU_E_NO_DEVICE,       /* there is no such device here, or its driver is missing */
};

#define GPU_WHY_MAX REQUEST_WHY_MAX
#define GPU_OPS_MAX (VGPU_OP_NUMBER_MAX + 1u)
#define GPU_NAME_MAX 64u

struct gpu;        /* an open backend */
struct gpu_region; /* host memory that jobs use in place */
struct gpu_object; /* an immutable input */

struct gpu_config {
    const char *device;    /* which one, in the backend's own terms; NULL: its default */
    uint32_t threads;      /* host threads to compute with, >= 1 */
    uint32_t depth;        /* most jobs submitted at a time, >= 1 */
    uint64_t memory_bytes; /* most device memory to use; 0: no limit */
    uint64_t pinned_bytes; /* most host memory to register; 0: no limit */
};

struct gpu_caps {
    uint64_t ops;                    /* bit n: runs op n */
    uint64_t op_dtypes[GPU_OPS_MAX]; /* per op, bit n: for dtype n; 0 for an op without dtypes */
    uint32_t features;         /* VGPU_FEATURE_OBJECT, PROGRAM, LAUNCH that the backend can serve */
    uint64_t memory_bytes;     /* device memory for jobs; 0: it is host memory */
    char device[GPU_NAME_MAX]; /* for people; terminated */
};

/* A resolved buffer. Which fields count depends on its kind. */
struct gpu_buf {
    uint8_t kind; /* VGPU_BUF_* */
    uint8_t dir;  /* VGPU_BUF_IN, OUT; 0 for TEMP */
    void *host;   /* INLINE, ARENA: its bytes, aligned to 8 and 64; otherwise NULL */
    uint64_t length;
    struct gpu_region *region; /* ARENA: where @host lies */
    struct gpu_object *object; /* OBJECT */
    uint64_t offset;           /* OBJECT: in it */
};

/* One run of a request. */
struct gpu_job {
    /* The caller's, before submit(). */
    const struct request *request; /* accepted by request_parse() and ops_check() */
    struct gpu_buf bufs[VGPU_BUFS_MAX];
    uint32_t tenant;
    uint8_t band; /* VGPU_BAND_*: a higher one starts first */
    void *user;   /* the backend does not look at it */

    /* The backend's; the caller reads them after poll(). */
    uint32_t error;        /* enum vgpu_error */
    char why[GPU_WHY_MAX]; /* with an error: a sentence, or empty */
    uint64_t run_ns;       /* from its first copy or kernel to its end */
    struct gpu_job *next;  /* link in a list of the backend's */

    /* Both sides', at any time. */
    _Atomic uint64_t started_ns; /* clock_now_ns() of its first copy or kernel; 0: not yet */
    _Atomic uint32_t stop;       /* enum vgpu_error to end with as soon as possible; 0: go on */
};

struct gpu_backend {
    const char *name; /* "cpu", "cuda" */
    bool confined;    /* once open, it needs no system calls but those of sandbox.c */

    /**
     * probe() - what the device can do, without claiming it
     *
     * For the supervisor: makes no context, starts no thread. @ret and @why (GPU_WHY_MAX bytes, a
     * sentence) are written on 0 and on failure respectively.
     *
     * Return: 0; GPU_E_NO_DEVICE; -errno.
     */
    int (*probe)(const struct gpu_config *config, struct gpu_caps *ret, char *why);

    /**
     * open() - claim the device
     * @ret: for close(); the caller of open() is the owner
     *
     * Return: 0; GPU_E_NO_DEVICE; -errno (@why says more).
     */
    int (*open)(const struct gpu_config *config, struct gpu **ret, char *why);

    /** close() - wait for nothing submitted to be left (the caller cancels first), free all; NULL
     *  is fine */
    void (*close)(struct gpu *gpu);

    /** caps() - as probe() said, now of the open device; valid until close() */
    const struct gpu_caps *(*caps)(const struct gpu *gpu);

    /**
     * region_attach() - announce mapped, shared host memory
     * @base: page aligned; stays mapped until region_detach() returned
     *
     * Cheap: a backend registers (pins) memory when jobs first use it.
     *
     * Return: 0; -errno.
     */
    int (*region_attach)(struct gpu *gpu, void *base, uint64_t bytes, struct gpu_region **ret);

    /**
     * region_detach() - the last use of a region; afterwards neither backend nor device touches it
     *
     * Return: 0, @region is gone; GPU_E_IN_USE.
     */
    int (*region_detach)(struct gpu *gpu, struct gpu_region *region);

    /**
     * object_put() - make an object known
     * @sha256: its name, 32 bytes; the caller has verified it
     * @host:   its bytes; stay as they are until object_drop() returned
     *
     * Return: 0; GPU_E_UNSUPPORTED; -errno.
     */
    int (*object_put)(struct gpu *gpu, uint32_t tenant, const uint8_t *sha256, const void *host,
                      uint64_t bytes, struct gpu_object **ret);

    /**
     * object_drop() - forget an object, on the device too
     *
     * Return: 0; GPU_E_IN_USE.
     */
    int (*object_drop)(struct gpu *gpu, struct gpu_object *object);

    /**
     * submit() - start a job, or queue it behind others by band
     *
     * Outcomes of the job itself, out of memory included, come by poll().
     *
     * Return: 0; GPU_E_FULL; -errno (the job is not submitted).
     */
    int (*submit)(struct gpu *gpu, struct gpu_job *job);

    /** completion_fd() - readable when a job ended after arm(), until poll(); valid until close() */
    int (*completion_fd)(const struct gpu *gpu);

    /**
     * arm() - the owner is about to wait for completion_fd(); without it a job may end silently
     *
     * Return: whether poll() has something to return already.
     */
    bool (*arm)(struct gpu *gpu);

    /**
     * poll() - take ended jobs, without waiting; cheap when there is none
     * @ret: room for @max jobs; each is the caller's again
     *
     * Return: how many; call until less than @max.
     */
    size_t (*poll)(struct gpu *gpu, struct gpu_job **ret, size_t max);

    /**
     * cancel() - ask a submitted job to end with @error
     *
     * A queued job ends at once. A running one ends where the op looks at `stop`; a kernel that
     * cannot be stopped runs to its end. In every case poll() returns the job exactly once.
     */
    void (*cancel)(struct gpu *gpu, struct gpu_job *job, uint32_t error);
};

/** gpu_backend_find() - the backend called @name, "auto" for the best one of this machine; NULL
 *  when there is none */
const struct gpu_backend *gpu_backend_find(const char *name);

/** gpu_backend_names() - the names that gpu_backend_find() knows, for people */
const char *gpu_backend_names(void);

/* The backends. */
extern const struct gpu_backend gpu_cpu;

#endif
