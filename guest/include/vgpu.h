/* SPDX-License-Identifier: MIT */
/*
 * vgpu.h - use the vGPU of this virtual machine
 *
 * A program opens a device, fills in a request with one of the operation helpers (or piece by
 * piece), and submits it: at once with vgpu_run(), or many with vgpu_submit() and vgpu_wait_any().
 *
 *     struct vgpu *gpu;
 *     struct vgpu_err err;
 *     if (vgpu_open(NULL, &gpu, &err) != 0) { fprintf(stderr, "%s\n", err.text); return 1; }
 *     struct vgpu_request *req = vgpu_request_new(gpu);
 *     struct vgpu_reduce op = {.dtype = VGPU_DTYPE_F32, .n = n, .stride = 1};
 *     double sum;
 *     vgpu_reduce(req, &op, x, &sum);
 *     if (vgpu_run(req, &err) != 0) { fprintf(stderr, "%s\n", err.text); }
 *
 * Results of every function: 0 is success; a negative number is -errno, a fault on this side; a
 * positive number is an enum vgpu_error (proto/vgpu_regs.h), the answer of the device.
 * vgpu_code_name() and vgpu_code_text() take both.
 *
 * Threads: functions on a struct vgpu may be called from any thread at any time, except
 * vgpu_close(). A struct vgpu_request belongs to one thread at a time; only vgpu_cancel() may be
 * called on it from another. There is no thread inside the library: requests make progress while
 * some thread is in vgpu_submit(), vgpu_poll(), vgpu_wait(), vgpu_wait_any() or vgpu_run(), and
 * whichever thread is there drives the requests of all. After fork() the child must not use what
 * the parent opened.
 *
 * Memory of buffers stays the caller's, and must stay valid and unchanged (an output: untouched)
 * until the request has ended. Buffers that come from vgpu_alloc() are used in place. Others are
 * copied: into the request itself when they are small, else into the arena and back. An operation
 * may be given the same memory as input and as output only if that memory is not the arena's.
 */
#ifndef VGPU_H
#define VGPU_H

#include <stddef.h>
#include <stdint.h>

#include "proto/vgpu_regs.h"

#ifdef __cplusplus
extern "C" {
#endif

struct vgpu;         /* an opened device */
struct vgpu_request; /* a request: being filled in, under way, or ended */

/* Why something failed, for people. @text is never empty after a failure and has no newline. */
struct vgpu_err {
    int code; /* what the function returned */
    char text[480];
};

/* ---- devices ------------------------------------------------------------------------------- */

#define VGPU_ADDRESS_MAX 32u

/* One device of this machine, as vgpu_list() found it. */
struct vgpu_found {
    char address[VGPU_ADDRESS_MAX]; /* PCI address, as in 0000:00:04.0 */
    char driver[VGPU_ADDRESS_MAX];  /* kernel driver bound to it, or "" */
    uint64_t shm_bytes;             /* size of BAR 2 */
};

/**
 * vgpu_list() - find the vGPU devices of this machine; needs no privilege
 * @ret_found: room for @max entries, filled in order of address
 * @max:       entries of @ret_found
 * @ret_count: how many there are, which may be more than @max
 *
 * Return: 0, also when there is none; -errno when /sys/bus/pci cannot be read.
 */
int vgpu_list(struct vgpu_found *ret_found, size_t max, size_t *ret_count);

/* What holds up, or no longer holds up, the requests of this process. */
enum vgpu_state {
    VGPU_STATE_UP,         /* a mediator serves the device */
    VGPU_STATE_NO_BACKEND, /* none does: requests wait until their deadline for one to come back */
    VGPU_STATE_RESETTING,  /* the device is being reset */
    VGPU_STATE_IN_USE,     /* another process of this VM uses the device just now */
};

/* How requests travel. */
enum vgpu_path {
    VGPU_PATH_AUTO,    /* a ring when there is one for this process, the windows otherwise */
    VGPU_PATH_WINDOWS, /* the windows of BAR 0: one request of the VM at a time */
    VGPU_PATH_RING,    /* a ring of BAR 2, or vgpu_open() fails */
};

#define VGPU_SPIN_AUTO 0u          /* 50 us where there is more than one CPU, else not at all */
#define VGPU_SPIN_NEVER UINT32_MAX /* sleep between looks */

struct vgpu_options {
    /* NULL: the only device, or the first. "0", "1", ...: index in order of address. Otherwise a
     * PCI address; the domain may be left out (00:04.0). */
    const char *device;
    /* Called when the state changes while a thread waits, from that thread, without any lock held;
     * it must not wait for requests itself. May be NULL. */
    void (*on_state)(void *arg, enum vgpu_state state);
    void *arg;
    enum vgpu_path path;
    /* While requests end at shorter intervals than this, microseconds, a waiting thread looks again
     * without a pause, for at most so long. Or VGPU_SPIN_AUTO, VGPU_SPIN_NEVER. */
    uint32_t spin_us;
};

/**
 * vgpu_open() - open a device
 * @options: NULL for the first device and no callback; copied
 * @ret_gpu: the device; close it with vgpu_close()
 * @ret_err: why it failed and what to do about it; may be NULL
 *
 * Finds the device by its PCI ids, enables its memory if that was not done, and maps it. That takes
 * root, and a kernel that is not locked down.
 *
 * Return: 0; -ENODEV no such device; -EACCES not permitted; -EPERM the kernel is locked down;
 * -EBUSY a kernel driver owns the device; -EPROTONOSUPPORT the device speaks another version;
 * -EINVAL @options name no device; -ENOMEM; other -errno from the system. With VGPU_PATH_RING also
 * -EBUSY: no ring is free.
 */
int vgpu_open(const struct vgpu_options *options, struct vgpu **ret_gpu, struct vgpu_err *ret_err);

/**
 * vgpu_close() - close a device
 * @gpu: NULL is fine
 *
 * Every request of it must have been freed before. Memory from vgpu_alloc() goes away with it.
 */
void vgpu_close(struct vgpu *gpu);

/* What the registers say, at this moment. */
struct vgpu_device {
    char address[VGPU_ADDRESS_MAX];
    char path[96];  /* how requests travel: "sysfs: ring 0 of 4, 126 requests at a time, polled" */
    char arena[64]; /* how the arena is mapped: "resource2_wc (write combining)"; "" without one */
    char no_ring[96]; /* why this process has no ring, "" when it has one */
    uint32_t rings;   /* of the device; 0: none that can be used */
    int32_t ring;     /* of this process, -1: none */
    uint32_t ring_entries;
    uint32_t slot_bytes;
    uint32_t depth;   /* requests of this process at the device at a time */
    uint32_t spin_us; /* as it is in effect; 0: never */
    uint64_t spins;   /* looks of this process that came without a pause so far */
    uint64_t naps;    /* and pauses between looks */
    uint32_t abi_version;
    uint32_t features; /* VGPU_FEATURE_* */
    uint32_t vm_id;    /* 0 while no mediator has answered */
    uint32_t pool_id;
    uint32_t priority; /* effective band */
    uint32_t status;   /* VGPU_STATUS_* */
    uint32_t deadline_ms;
    uint32_t backend_gen;
    uint32_t reset_epoch;
    uint32_t rejects;
    uint32_t reject_error; /* of the last refused doorbell */
    uint64_t shm_bytes;
    uint64_t arena_bytes;
};

/**
 * vgpu_describe() - read the device's registers
 * @gpu:        device
 * @ret_device: the facts
 *
 * Return: 0; -ENODEV the device was unplugged.
 */
int vgpu_describe(struct vgpu *gpu, struct vgpu_device *ret_device);

/**
 * vgpu_info() - ask the mediator about this VM and its pool
 * @gpu:         device
 * @deadline_ms: how long to wait, milliseconds; 0: the device's own deadline
 * @ret_info:    the answer; its names end with a 0 byte
 * @ret_err:     why it failed; may be NULL
 *
 * Return: as vgpu_run().
 */
int vgpu_info(struct vgpu *gpu, uint32_t deadline_ms, struct vgpu_info *ret_info,
              struct vgpu_err *ret_err);

/**
 * vgpu_reset() - reset the device: everything in flight ends with DEVICE_RESET
 * @gpu:        device
 * @timeout_ms: how long to wait until the reset is complete, milliseconds
 * @ret_err:    why it failed; may be NULL
 *
 * Heals a device whose STATUS says BROKEN. A device that works is only reset while no other process
 * of this VM has a request in flight.
 *
 * Return: 0; -EBUSY another process kept the device; -ETIMEDOUT the device did not finish;
 * -ENODEV it was unplugged.
 */
int vgpu_reset(struct vgpu *gpu, int timeout_ms, struct vgpu_err *ret_err);

/* ---- memory that the device can use in place ------------------------------------------------- */

/**
 * vgpu_alloc() - take memory from the device's arena
 * @gpu:   device
 * @bytes: how much, not 0; rounded up to a multiple of 64
 *
 * The memory is shared with the device, aligned to 64 bytes and not cleared. Reading it from the
 * CPU can be much slower than ordinary memory: read it once, from start to end.
 *
 * Return: the memory, to be given back with vgpu_free(); NULL with errno ENOMEM (the arena is full,
 * other processes hold it, or what a dead process left behind may still write to it), EINVAL
 * (0 bytes) or ENOTSUP (the device has no arena).
 */
void *vgpu_alloc(struct vgpu *gpu, size_t bytes);

/**
 * vgpu_free() - give memory of vgpu_alloc() back
 * @gpu:    device
 * @memory: from vgpu_alloc(); NULL is fine; not part of a request under way
 */
void vgpu_free(struct vgpu *gpu, void *memory);

/**
 * vgpu_available() - the largest piece that vgpu_alloc() can give now, if no other process asks
 * @gpu: device
 *
 * Return: bytes; 0 for none.
 */
size_t vgpu_available(struct vgpu *gpu);

/* ---- requests ------------------------------------------------------------------------------- */

/**
 * vgpu_request_new() - make an empty request
 * @gpu: device that it will go to
 *
 * A request can be used again after it has ended.
 *
 * Return: the request, to be freed with vgpu_request_free(); NULL when memory is short.
 */
struct vgpu_request *vgpu_request_new(struct vgpu *gpu);

/**
 * vgpu_request_free() - free a request
 * @req: NULL is fine
 *
 * One that is under way is cancelled first, and the function waits until it has ended.
 */
void vgpu_request_free(struct vgpu_request *req);

struct vgpu_request_options {
    uint32_t deadline_ms; /* from vgpu_submit(), milliseconds; 0: the device's, from the doorbell */
    uint32_t pool;        /* 0: the VM's default pool */
    uint32_t flags;       /* VGPU_REQ_* */
    uint8_t band;         /* VGPU_BAND_*: a wish; VGPU_BAND_DEFAULT */
    uint8_t retry_busy;   /* 1: on BUSY wait as long as the answer says and try again */
};

/**
 * vgpu_request_set() - choose deadline, pool, band and flags
 * @req:     not under way
 * @options: copied; they stay when the request is filled in anew
 */
void vgpu_request_set(struct vgpu_request *req, const struct vgpu_request_options *options);

/**
 * vgpu_request_begin() - start to fill in a request; forgets its buffers, body and result
 * @req: not under way
 * @op:  enum vgpu_op, or any number that the pool's workers know
 *
 * The operation helpers below do this themselves.
 *
 * Return: 0; -EBUSY the request is under way.
 */
int vgpu_request_begin(struct vgpu_request *req, unsigned op);

/**
 * vgpu_request_body() - set the parameters of the operation
 * @req:   request
 * @body:  copied
 * @bytes: a multiple of 8
 *
 * Return: 0; -EINVAL, -EMSGSIZE. A request that is wrong stays wrong: vgpu_submit() refuses it with
 * the same code.
 */
int vgpu_request_body(struct vgpu_request *req, const void *body, size_t bytes);

/**
 * vgpu_request_in() - add an input to the buffer list
 * @req:   request
 * @data:  memory of the caller
 * @bytes: its length, not 0
 *
 * Return: 0; -EINVAL for 0 bytes, -E2BIG for too many buffers.
 */
int vgpu_request_in(struct vgpu_request *req, const void *data, uint64_t bytes);

/**
 * vgpu_request_out() - add an output to the buffer list
 * @req:   request
 * @data:  memory of the caller; written only when the request succeeds, except in the arena
 * @bytes: its length, not 0
 *
 * Return: as vgpu_request_in().
 */
int vgpu_request_out(struct vgpu_request *req, void *data, uint64_t bytes);

/**
 * vgpu_submit() - hand a request in; returns at once
 * @req: filled in
 *
 * Return: 0, and the request is under way; -EBUSY it already was; the code of the builder function
 * that failed.
 */
int vgpu_submit(struct vgpu_request *req);

/**
 * vgpu_poll() - look whether a request has ended; does not sleep
 * @req: submitted
 *
 * Return: -EINPROGRESS while it is under way; otherwise its result: 0, an enum vgpu_error, or
 * -errno (-ENOMEM no room in the arena, -EMSGSIZE too large for the device, -EPROTO nonsense from
 * the device, -ENODEV unplugged, -EINVAL never submitted).
 */
int vgpu_poll(struct vgpu_request *req);

/**
 * vgpu_wait() - wait until a request has ended
 * @req:        submitted
 * @timeout_ms: milliseconds; negative: until it ends, which its deadline guarantees
 *
 * Return: -ETIMEDOUT it is still under way; otherwise its result, as vgpu_poll().
 */
int vgpu_wait(struct vgpu_request *req, int timeout_ms);

/**
 * vgpu_wait_any() - wait until one of several requests has ended
 * @reqs:       of one device; NULL entries and such as were never submitted are passed over
 * @count:      entries of @reqs
 * @timeout_ms: as for vgpu_wait()
 * @ret_index:  which one; among several the first in the list. Its result: vgpu_poll().
 *
 * Return: 0; -ETIMEDOUT; -EINVAL there is none to wait for.
 */
int vgpu_wait_any(struct vgpu_request *const *reqs, size_t count, int timeout_ms,
                  size_t *ret_index);

/**
 * vgpu_cancel() - ask that a request end with CANCELLED
 * @req: submitted; may belong to another thread, but must not be freed meanwhile
 *
 * A request that the device is working on ends a little later, perhaps with its real result: wait
 * for it. Not for signal handlers.
 *
 * Return: 0, also when it had ended already.
 */
int vgpu_cancel(struct vgpu_request *req);

/**
 * vgpu_run() - submit a request and wait for its end
 * @req:     filled in
 * @ret_err: why it failed; may be NULL
 *
 * Return: its result, as vgpu_poll().
 */
int vgpu_run(struct vgpu_request *req, struct vgpu_err *ret_err);

/**
 * vgpu_result() - the header of the response: times, worker, attempts
 * @req: ended
 *
 * Return: valid until the request is used again or freed; all 0 when the request ended without a
 * response of the device.
 */
const struct vgpu_resp_hdr *vgpu_result(const struct vgpu_request *req);

/**
 * vgpu_result_text() - why a request failed, in one line
 * @req: ended
 *
 * Return: "NAME: sentence: details", "" for a success; valid as vgpu_result().
 */
const char *vgpu_result_text(const struct vgpu_request *req);

/**
 * vgpu_code_name() - name of a result, as in "BAD_SHAPE", "ENODEV" or "OK"
 * @code: result of a function of this library
 *
 * Return: a constant string; "UNKNOWN" for an error that a newer device made.
 */
const char *vgpu_code_name(int code);

/**
 * vgpu_code_text() - what a result means, in general
 * @code: result of a function of this library
 *
 * Return: a constant string.
 */
const char *vgpu_code_text(int code);

/* ---- operations ----------------------------------------------------------------------------- */

/*
 * Each helper fills in a whole request from the operation's body (its fields are explained in
 * proto/vgpu_regs.h) and works out the lengths of the buffers from it. All return 0, or -EOVERFLOW,
 * -EINVAL for sizes from which no length can be made; the device checks the rest.
 */

/** vgpu_echo() - copy @bytes bytes from @from to @to */
int vgpu_echo(struct vgpu_request *req, const void *from, void *to, uint64_t bytes);

/** vgpu_axpy() - z = alpha * x + y; @x, @y, @z as struct vgpu_axpy says */
int vgpu_axpy(struct vgpu_request *req, const struct vgpu_axpy *op, const void *x, const void *y,
              void *z);

/** vgpu_reduce() - reduce @x to one element at @result, of the type that struct vgpu_reduce says */
int vgpu_reduce(struct vgpu_request *req, const struct vgpu_reduce *op, const void *x,
                void *result);

/** vgpu_gemm() - d = alpha * op(a) * op(b) + beta * c; @c is not used when beta is 0 */
int vgpu_gemm(struct vgpu_request *req, const struct vgpu_gemm *op, const void *a, const void *b,
              const void *c, void *d);

/** vgpu_fft() - transform @from to @to */
int vgpu_fft(struct vgpu_request *req, const struct vgpu_fft *op, const void *from, void *to);

/** vgpu_sort() - sort @keys and, when op->value_size is not 0, move @values along with them */
int vgpu_sort(struct vgpu_request *req, const struct vgpu_sort *op, const void *keys,
              const void *values, void *sorted_keys, void *sorted_values);

/** vgpu_denoise() - denoise a rectangle of the picture @from; margins: struct vgpu_denoise */
int vgpu_denoise(struct vgpu_request *req, const struct vgpu_denoise *op, const void *from,
                 void *to);

/**
 * vgpu_fft_bytes() - lengths of the buffers of an FFT
 * @op:      its parameters
 * @ret_in:  bytes of the input
 * @ret_out: bytes of the output
 *
 * Return: 0; -EOVERFLOW, -EINVAL.
 */
int vgpu_fft_bytes(const struct vgpu_fft *op, uint64_t *ret_in, uint64_t *ret_out);

/**
 * vgpu_reduce_dtype() - type of the result of a reduction
 * @op: its parameters
 *
 * Return: enum vgpu_dtype; 0 when REDUCE is not defined for op->dtype or op->kind.
 */
unsigned vgpu_reduce_dtype(const struct vgpu_reduce *op);

#ifdef __cplusplus
}
#endif

#endif
