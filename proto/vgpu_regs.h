/* SPDX-License-Identifier: MIT */
/*
 * vgpu_regs.h - the contract between a guest and its vGPU device
 *
 * Registers and memory layout of the PCI function, the request and response format, the bodies of
 * the operations, data types and error codes. Used unchanged by the QEMU device, the mediator, the
 * worker, the guest library and bare-metal guests: it needs <stdint.h> and nothing else.
 *
 * Everything is little endian. Fields called `reserved` must be zero: a request in which one is
 * not is refused with RESERVED_SET, so that later versions may give it a meaning. docs/device.md
 * is this header in prose, enough to write a driver from; tests/integration/test_device_doc.py
 * holds the two together, and therefore every register, error and operation is a row of a table
 * macro (R, E, O, D) below.
 */
#ifndef VGPU_REGS_H
#define VGPU_REGS_H

#include <stdint.h>

/* ---- PCI identity ------------------------------------------------------------------------- */

#define VGPU_PCI_VENDOR_ID \
    0x1234 /* not assigned by PCI-SIG: the range that QEMU's own test devices use */
#define VGPU_PCI_DEVICE_ID 0x5647
#define VGPU_PCI_CLASS 0x1200 /* processing accelerator */
#define VGPU_PCI_REVISION 1

#define VGPU_BAR_REGS 0 /* 4 KiB, 32-bit, trapped: registers and the two windows */
#define VGPU_BAR_SHM 2  /* 64-bit prefetchable RAM: control pages, rings, arena */
#define VGPU_BAR_MSIX 4 /* MSI-X table and pending bits */

#define VGPU_BAR_REGS_SIZE 4096u
#define VGPU_SHM_SIZE_MIN (UINT64_C(1) << 20)
#define VGPU_SHM_SIZE_MAX (UINT64_C(1) << 36)
#define VGPU_SHM_SIZE_DEFAULT (UINT64_C(1) << 26)

/* MSI-X: vector 0 = backend state changed, or a window request with VGPU_REQ_IRQ completed;
 * vector 1 + i = completions of ring i. */
#define VGPU_MSIX_VECTOR_STATE 0
#define VGPU_MSIX_VECTOR_RING(i) (1u + (i))

/* ---- BAR 0: registers --------------------------------------------------------------------- */

#define VGPU_MAGIC 0x55504756u       /* "VGPU" */
#define VGPU_ABI_VERSION 0x00010000u /* major << 16 | minor; a driver refuses an unknown major */

#define VGPU_RINGS_MAX 64u

/*
 * R(name, offset, access, sentence). All registers are 32 bits wide and aligned. RO ignores
 * writes, WO reads as 0. An offset not listed here reads as 0 and ignores writes. Accesses of 1, 2
 * and 8 bytes are served as the parts or the pair of the 32-bit registers they touch; a write
 * narrower than 4 bytes to a register is ignored (the windows accept any width). Drivers write a
 * doorbell as 4 aligned bytes; whether another width submits is not defined.
 *
 * A doorbell either counts in REJECTS (a request in flight or a reset under way: BUSY; a broken
 * device: BROKEN) and changes nothing else, or is accepted: it takes the next REQUEST_ID, and the
 * request ends in DONE or ERROR, also when it is malformed. From then until it ends, ERROR and
 * RESPONSE_LEN are 0 and the response window is zero. REQUEST_LEN must be the size in the header.
 *
 * CONTROL takes one command at a time; unknown ones are ignored, and so is CANCEL with nothing in
 * flight. RESET clears STATUS, ERROR, REQUEST_LEN, REQUEST_ID, RESPONSE_LEN, REJECTS, REJECT_ERROR
 * and both windows, and adds 1 to RESET_EPOCH; the PRIORITY wish and BAR 2 stay as they are.
 */
/* clang-format off */
#define VGPU_REGS(R) \
    R(MAGIC,           0x000, RO, "VGPU_MAGIC") \
    R(ABI_VERSION,     0x004, RO, "VGPU_ABI_VERSION") \
    R(FEATURES,        0x008, RO, "VGPU_FEATURE_* bits that this device offers") \
    R(VM_ID,           0x00c, RO, "number of this VM at its mediator; 0 while no backend has answered") \
    R(POOL_ID,         0x010, RO, "number of the pool that requests with pool 0 go to") \
    R(PRIORITY,        0x014, RW, "reads the effective band; writing 0 to 3, or 255 for the default, is a wish") \
    R(STATUS,          0x018, RO, "VGPU_STATUS_* state in bits 7..0 and flags above") \
    R(ERROR,           0x01c, RO, "error code of the window request that STATUS speaks of") \
    R(REQUEST_LEN,     0x020, RW, "bytes of the request in the request window") \
    R(REQUEST_ID,      0x024, RO, "low 32 bits of the sequence number of the last accepted doorbell") \
    R(RESPONSE_LEN,    0x028, RO, "bytes of the response in the response window") \
    R(CONTROL,         0x02c, WO, "VGPU_CONTROL_* commands") \
    R(BACKEND_GEN,     0x030, RO, "changes whenever another mediator process serves the device") \
    R(RESET_EPOCH,     0x034, RO, "number of resets that this device has seen") \
    R(REJECTS,         0x038, RO, "doorbells refused because a request was in flight or a reset under way") \
    R(REJECT_ERROR,    0x03c, RO, "error code of the last refused doorbell") \
    R(DEADLINE_MS,     0x040, RO, "deadline of a request that asks for none, and the longest, milliseconds") \
    R(RING_COUNT,      0x044, RO, "rings in BAR 2; 0: use the windows") \
    R(RING_ENTRIES,    0x048, RO, "descriptors per ring, a power of two") \
    R(RING_OFFSET,     0x04c, RO, "offset of ring 0 in BAR 2, bytes, a multiple of 4096") \
    R(RING_STRIDE,     0x050, RO, "distance between rings in BAR 2, bytes, a multiple of 4096") \
    R(SLOT_BYTES,      0x054, RO, "bytes for a request, and again for its response, in a ring's slot") \
    R(SHM_SIZE_LO,     0x060, RO, "size of BAR 2, low half") \
    R(SHM_SIZE_HI,     0x064, RO, "size of BAR 2, high half") \
    R(ARENA_OFFSET_LO, 0x068, RO, "offset of the arena in BAR 2, low half") \
    R(ARENA_OFFSET_HI, 0x06c, RO, "offset of the arena in BAR 2, high half") \
    R(ARENA_SIZE_LO,   0x070, RO, "size of the arena, low half") \
    R(ARENA_SIZE_HI,   0x074, RO, "size of the arena, high half") \
    R(DOORBELL,        0x080, WO, "any write submits the request in the request window") \
    R(RING_DOORBELL,   0x100, WO, "64 registers, 4 bytes each: any write to number i kicks ring i")
/* clang-format on */

#define VGPU_REG_ENUM_(name, offset, access, sentence) VGPU_REG_##name = (offset),
enum vgpu_reg { VGPU_REGS(VGPU_REG_ENUM_) };

#define VGPU_WINDOW_REQUEST 0x400u  /* read/write */
#define VGPU_WINDOW_RESPONSE 0x800u /* read only; zero past RESPONSE_LEN */
#define VGPU_WINDOW_SIZE 0x400u

/* FEATURES. A bit that the driver does not know is not an error. */
#define VGPU_FEATURE_SHM (1u << 0)       /* BAR 2 is there and its arena works */
#define VGPU_FEATURE_RING (1u << 1)      /* rings; layout in RING_* */
#define VGPU_FEATURE_EVENT_IDX (1u << 2) /* event indices both ways */
#define VGPU_FEATURE_OBJECT (1u << 3)    /* OBJECT buffers and the object ops */
#define VGPU_FEATURE_PROGRAM (1u << 4)   /* op PROGRAM and TEMP buffers */
#define VGPU_FEATURE_LAUNCH (1u << 5)    /* op LAUNCH */
#define VGPU_FEATURE_MSIX (1u << 6)      /* interrupts; without it: polling only */
#define VGPU_FEATURE_GPA_RING (1u << 16) /* reserved: rings in guest RAM */
#define VGPU_FEATURE_SESSION (1u << 17)  /* reserved: sessions */

/* STATUS: state of the window request, in bits 7..0 */
#define VGPU_STATUS_STATE_MASK 0xffu
#define VGPU_STATUS_IDLE 0u /* no request since reset */
#define VGPU_STATUS_BUSY 1u /* in flight */
#define VGPU_STATUS_DONE 2u /* completed; ERROR is 0 */
#define VGPU_STATUS_ERROR \
    3u /* ended with ERROR; RESPONSE_LEN may hold a response with the reason */
/* STATUS: flags */
#define VGPU_STATUS_BACKEND_UP (1u << 8) /* a mediator serves this device */
#define VGPU_STATUS_RESETTING (1u << 9)  /* a reset waits for the last writer of the old life */
#define VGPU_STATUS_BROKEN (1u << 10)    /* the guest broke the protocol; CONTROL.RESET heals */

/* CONTROL */
#define VGPU_CONTROL_CANCEL 1u /* end the window request in flight with CANCELLED */
#define VGPU_CONTROL_RESET 2u  /* new life: everything in flight is dropped */

/* ---- BAR 2 --------------------------------------------------------------------------------- */

/* The first 64 KiB are reserved, rings follow, then the arena. A driver takes every offset from the
 * registers. An arena offset of a buffer counts from ARENA_OFFSET. */
#define VGPU_SHM_CONTROL_SIZE 0x10000u
#define VGPU_ARENA_ALIGN 64u /* every ARENA offset is a multiple of this */
#define VGPU_INLINE_ALIGN 8u /* every INLINE offset is a multiple of this */

/*
 * Rings. Ring i lies at RING_OFFSET + i * RING_STRIDE, all its parts in this order:
 *
 *   0                       struct vgpu_ring_driver: a page that only the driver writes
 *   4096                    struct vgpu_ring_device: a page that only the device writes
 *   8192                    RING_ENTRIES x struct vgpu_desc, written by the driver
 *   VGPU_RING_COMPLETIONS   RING_ENTRIES x struct vgpu_completion, written by the device
 *   VGPU_RING_SLOTS         RING_ENTRIES slots, VGPU_SLOT_STRIDE apart: SLOT_BYTES for a request,
 *                           written by the driver, then SLOT_BYTES for its response, by the device
 *
 * Indices are 32 bits wide, free running (they wrap at 2^32, entry = index % RING_ENTRIES), and 0
 * after a reset of the device, which zeroes both pages of every ring.
 *
 * To submit: take a slot that is not in use, write the request into it and a descriptor that names it
 * at submit_tail, then (release) add 1 to submit_tail. Several may be written before submit_tail is
 * stored once. Then (full fence) read submit_event and write RING_DOORBELL i only if submit_tail
 * moved past it: vgpu_ring_crossed(). A slot is in use until its completion was seen.
 *
 * To complete: the device writes the response into the slot and a completion at complete_tail, adds 1
 * to complete_tail (release), and signals vector 1 + i only if it moved past complete_event.
 * Completions come in any order; `slot` and `tag` say whose. A driver that wants to be signalled
 * sets complete_event to the index of the completion that it waits for, then (full fence) looks at
 * complete_tail once more. One that polls leaves complete_event alone.
 *
 * submit_tail must not run ahead of the device by more than RING_ENTRIES; a slot in use must not be
 * submitted again; the length is 1 to SLOT_BYTES; reserved fields must be 0. A driver that breaks one
 * of these rules breaks the device: BROKEN in STATUS and in `flags`, no completion for anything in
 * flight, CONTROL.RESET heals. A request that is not well formed is no such breach, nor one whose
 * header says another size than its descriptor: it is completed with an error.
 *
 * The flag IRQ of a request counts for the windows only. ORDERED: starts when every earlier request
 * of the ring has completed; ends with DEPENDENCY when one of those failed that were submitted since
 * the ring was last empty (all that was submitted had completed).
 *
 * While a reset is under way (RESETTING) the driver touches no ring. While no backend is there
 * requests wait in the ring; a driver gives them up at their deadline, but the slot and the ARENA
 * ranges stay in use until the completion comes or the device was reset.
 */
#define VGPU_RING_PAGE 4096u

struct vgpu_ring_driver {
    _Alignas(64) uint32_t submit_tail;    /* descriptors written */
    _Alignas(64) uint32_t complete_event; /* signal when complete_tail moves past this */
    _Alignas(64) uint8_t reserved[VGPU_RING_PAGE - 128];
};

struct vgpu_ring_device {
    _Alignas(64) uint32_t complete_tail; /* completions written */
    _Alignas(64) uint32_t submit_event;  /* ring the doorbell when submit_tail moves past this */
    _Alignas(64) uint32_t flags;         /* VGPU_RING_BROKEN */
    _Alignas(64) uint8_t reserved[VGPU_RING_PAGE - 192];
};
#define VGPU_RING_BROKEN (1u << 0)

struct vgpu_desc {
    uint32_t slot;   /* < RING_ENTRIES */
    uint32_t length; /* bytes of the request in the slot, at most SLOT_BYTES */
    uint64_t tag;    /* the driver's own, returned in the completion; best the request's tag */
    uint8_t reserved[48];
};

struct vgpu_completion {
    uint64_t tag;    /* of the descriptor */
    uint64_t seq;    /* sequence number of the request, as in its response */
    uint32_t slot;   /* of the descriptor */
    uint32_t length; /* bytes of the response in the slot */
    uint32_t error;  /* enum vgpu_error, as in the response */
    uint32_t reserved;
};

#define VGPU_RING_DESCS (2u * VGPU_RING_PAGE)
#define VGPU_RING_COMPLETIONS(entries) (VGPU_RING_DESCS + 64u * (entries))
#define VGPU_RING_SLOTS(entries)                                                \
    ((VGPU_RING_COMPLETIONS(entries) + 32u * (entries) + VGPU_RING_PAGE - 1u) & \
     ~(VGPU_RING_PAGE - 1u))
/* 64 bytes more than it takes, so that the first lines of slots do not share a set of the cache. */
#define VGPU_SLOT_STRIDE(slot_bytes) (2u * (slot_bytes) + 64u)
#define VGPU_RING_ENTRIES_MIN 16u
#define VGPU_RING_ENTRIES_MAX 4096u

/** vgpu_ring_crossed() - whether an index that went from @before to @after moved past @event */
static inline int vgpu_ring_crossed(uint32_t event, uint32_t before, uint32_t after)
{
    return (uint32_t)(after - event - 1u) < (uint32_t)(after - before);
}

/* ---- requests ------------------------------------------------------------------------------ */

/*
 * A request is {header, buffer list, op body, inline data}:
 *
 *   offset 0                                struct vgpu_req_hdr
 *   48                                      nbufs x struct vgpu_buf
 *   48 + 24 * nbufs                         op body, body_len bytes (a multiple of 8)
 *   48 + 24 * nbufs + body_len .. size      inline input data
 *
 * Its response is {header, payload}; INLINE outputs lie in the payload, zeros between them. INLINE
 * inputs and names of objects lie in the inline data, nowhere else.
 */
#define VGPU_REQ_VERSION 1u
#define VGPU_REQ_MAX 4096u /* largest request or response anywhere; the windows take 1024 */
#define VGPU_BUFS_MAX 16u

/* flags of a request */
#define VGPU_REQ_ORDERED (1u << 0) /* start after every earlier request of the same ring ended */
#define VGPU_REQ_NO_RETRY \
    (1u << 1)                  /* never run twice: fail with WORKER_LOST or BACKEND_RESTARTED */
#define VGPU_REQ_IRQ (1u << 2) /* windows: signal completion by MSI-X */
#define VGPU_REQ_FLAGS (VGPU_REQ_ORDERED | VGPU_REQ_NO_RETRY | VGPU_REQ_IRQ)

/* priority bands; a higher number is served first */
#define VGPU_BAND_BATCH 0u
#define VGPU_BAND_NORMAL 1u
#define VGPU_BAND_HIGH 2u
#define VGPU_BAND_REALTIME 3u
#define VGPU_BANDS 4u
#define VGPU_BAND_DEFAULT 0xffu /* as a wish: whatever the operator gave this VM */

struct vgpu_req_hdr {
    uint32_t size;        /* bytes of the whole request */
    uint16_t version;     /* VGPU_REQ_VERSION */
    uint16_t op;          /* enum vgpu_op */
    uint32_t flags;       /* VGPU_REQ_*; unknown bits are refused with RESERVED_SET */
    uint32_t deadline_ms; /* from the doorbell on; 0, or more than it: register DEADLINE_MS */
    uint64_t tag;         /* the guest's own; returned in the response */
    uint32_t pool;        /* 0: the VM's default pool, else a pool's number */
    uint8_t band;         /* wish: VGPU_BAND_*, clamped to what the operator allows; mind that 0 is
                           * BATCH: write VGPU_BAND_DEFAULT when you have no wish */
    uint8_t nbufs;        /* entries of the buffer list, at most VGPU_BUFS_MAX */
    uint16_t body_len;    /* bytes of the op body, a multiple of 8 */
    uint32_t reserved[4];
};

/* kinds of buffer */
#define VGPU_BUF_INLINE 0u  /* IN: offset in the request; OUT: offset in the response's payload */
#define VGPU_BUF_ARENA 1u   /* offset in the arena */
#define VGPU_BUF_OBJECT 2u  /* IN only; offset in the object whose name (32 bytes) is at aux */
#define VGPU_BUF_TEMP 3u    /* PROGRAM only, while it runs; direction 0, offset 0 */
#define VGPU_BUF_GPA 4u     /* reserved: guest-physical memory */
#define VGPU_BUF_SESSION 5u /* reserved: memory of a session */
/* directions */
#define VGPU_BUF_IN 1u
#define VGPU_BUF_OUT 2u

/*
 * One entry of the buffer list. The length is in bytes and never 0. An OUT range overlaps no other
 * range of the request, so that a second try always sees intact inputs.
 */
struct vgpu_buf {
    uint8_t kind;
    uint8_t dir;
    uint16_t reserved;
    uint32_t aux; /* OBJECT: offset of the object's SHA-256 in the request; otherwise 0 */
    uint64_t offset;
    uint64_t length;
};

/* what the payload of a response is */
#define VGPU_PAYLOAD_DATA 0u /* the INLINE outputs, at their offsets */
#define VGPU_PAYLOAD_TEXT 1u /* UTF-8 sentence: why the request failed (no terminating 0) */
#define VGPU_PAYLOAD_INFO 2u /* struct vgpu_info */

struct vgpu_resp_hdr {
    uint32_t size;           /* bytes of the whole response */
    uint16_t version;        /* VGPU_REQ_VERSION */
    uint16_t op;             /* of the request */
    uint32_t error;          /* enum vgpu_error */
    uint32_t retry_after_ms; /* with BUSY: when to try again; otherwise 0 */
    uint64_t tag;            /* of the request */
    uint64_t seq;            /* sequence number of the request in this life of the device */
    uint64_t queued_ns;      /* from acceptance to the start of the last try */
    uint64_t run_ns;         /* from the last try's first copy or kernel to its end */
    uint32_t worker;         /* number of the worker at the mediator; 0: none was involved */
    uint16_t attempts;       /* tries, the last one included */
    uint16_t payload;        /* VGPU_PAYLOAD_* */
    uint32_t reserved[2];
};

#define VGPU_PAYLOAD_MAX (VGPU_WINDOW_SIZE - 64u) /* of a response in the window */

/* ---- data types ---------------------------------------------------------------------------- */

/* D(name, number, bytes) */
/* clang-format off */
#define VGPU_DTYPES(D) \
    D(F32,  1, 4) D(F64,  2, 8) D(F16,  3, 2) D(BF16, 4, 2) \
    D(U8,   5, 1) D(I8,   6, 1) D(U32,  7, 4) D(I32,  8, 4) \
    D(U64,  9, 8) D(I64, 10, 8)
/* clang-format on */
#define VGPU_DTYPE_ENUM_(name, number, bytes) VGPU_DTYPE_##name = (number),
enum vgpu_dtype { VGPU_DTYPES(VGPU_DTYPE_ENUM_) };
#define VGPU_DTYPE_SIZE_CASE_(name, number, bytes) \
    case (number):                                 \
        return (bytes);

/** vgpu_dtype_size() - bytes of one element of @dtype, 0 for an unknown one */
static inline uint32_t vgpu_dtype_size(uint32_t dtype)
{
    switch (dtype) {
        VGPU_DTYPES(VGPU_DTYPE_SIZE_CASE_)
    default:
        return 0;
    }
}

/* ---- operations ---------------------------------------------------------------------------- */

/* O(name, number, sentence) */
/* clang-format off */
#define VGPU_OPS(O) \
    O(INFO,     0, "describe this VM, its pool and what the pool can do; answered by the mediator") \
    O(CANCEL,   1, "cancel the request of this VM whose tag is in the body; answered by the mediator") \
    O(PROGRAM,  2, "several operations over one buffer list") \
    O(LAUNCH,   3, "a kernel of a CUDA module that is an object") \
    O(ECHO,    16, "copy the input to the output") \
    O(AXPY,    17, "z = alpha * x + y") \
    O(REDUCE,  18, "sum, min, max or argmax of a vector") \
    O(GEMM,    19, "D = alpha * op(A) * op(B) + beta * C") \
    O(FFT,     20, "discrete Fourier transform, 1-D or 2-D, batched") \
    O(SORT,    21, "stable sort of keys, with or without values") \
    O(DENOISE, 22, "non-local means denoising of an image tile")
/* clang-format on */
#define VGPU_OP_ENUM_(name, number, sentence) VGPU_OP_##name = (number),
enum vgpu_op { VGPU_OPS(VGPU_OP_ENUM_) };
#define VGPU_OP_FIRST_COMPUTE 2u /* below: answered by the mediator itself */
#define VGPU_OP_NUMBER_MAX 63u   /* op numbers fit a 64-bit capability mask */

/* INFO: no buffers, no body; the payload of the response is struct vgpu_info. */
struct vgpu_info {
    uint32_t vm_id;
    uint32_t pool_id;
    uint8_t band;     /* effective default */
    uint8_t band_max; /* highest that the operator allows */
    uint16_t reserved0;
    uint32_t workers;    /* of the default pool, up now */
    uint64_t ops;        /* bit n: op n has a worker now */
    uint64_t max_bytes;  /* most ARENA bytes of one request */
    uint32_t max_job_ms; /* a job that runs longer is ended with JOB_TOO_LONG */
    uint32_t queued;     /* requests of this VM waiting */
    uint32_t running;    /* requests of this VM running */
    uint32_t reserved1;
    char vm[64]; /* NUL-padded names */
    char tenant[64];
    char pool[64];
    char backends[64]; /* of the default pool's workers, space separated */
};

/* CANCEL: no buffers. It ends the VM's not yet answered request with this tag: CANCELLED there, 0
 * here; NOT_FOUND here when there is none. (Through the windows only one request is in flight:
 * there CONTROL.CANCEL does this.) */
struct vgpu_cancel {
    uint64_t tag;
};

/* ECHO: no body; buffers: IN, OUT of the same length. */

/* AXPY: z[i] = alpha * x[i * incx] + y[i * incy], i < n; dtype F32 or F64; buffers: IN x
 * ((n-1)*incx+1 elements), IN y ((n-1)*incy+1 elements), OUT z (n elements). */
struct vgpu_axpy {
    uint8_t dtype;
    uint8_t reserved0[7];
    double alpha;
    uint64_t n;    /* >= 1 */
    uint64_t incx; /* elements, >= 1 */
    uint64_t incy; /* elements, >= 1 */
};

#define VGPU_REDUCE_SUM 0u
#define VGPU_REDUCE_MIN 1u
#define VGPU_REDUCE_MAX 2u
#define VGPU_REDUCE_ARGMAX 3u

/* REDUCE over x[i * stride], i < n; dtypes F32 F64 U8 I8 U32 I32; buffers: IN x, OUT one element.
 * Result: SUM F64 of floats (accumulated in F64), I64 of signed, U64 of unsigned integers, modulo
 * 2^64; MIN, MAX the input's type; ARGMAX U64, the first index of the largest. A NaN is the result
 * of SUM, MIN and MAX over it, and ARGMAX gives the first NaN's index. */
struct vgpu_reduce {
    uint8_t dtype;
    uint8_t kind; /* VGPU_REDUCE_* */
    uint8_t reserved0[6];
    uint64_t n;      /* >= 1 */
    uint64_t stride; /* elements, >= 1 */
};

#define VGPU_MATH_DEFAULT 0u /* full precision of the dtype, F32 accumulation for 16-bit types */
#define VGPU_MATH_TF32 1u    /* F32 inputs may be rounded to 10 bits of mantissa */

/* GEMM, row major: D (m x n, contiguous) = alpha * op(A) * op(B) + beta * C. op(A) is m x k, op(B)
 * k x n; a transposed operand is stored k x m or n x k. Dtypes F32 F64 (16-bit types where the
 * worker offers them). Buffers: IN A, IN B, then IN C only if beta != 0, OUT D. */
struct vgpu_gemm {
    uint8_t dtype;
    uint8_t trans_a; /* 0 or 1 */
    uint8_t trans_b;
    uint8_t math; /* VGPU_MATH_* */
    uint8_t reserved0[4];
    uint64_t m, n, k;       /* >= 1, < 2^31 */
    uint64_t lda, ldb, ldc; /* row strides as stored, elements; ldc 0 when there is no C */
    double alpha, beta;
};

#define VGPU_FFT_C2C 0u
#define VGPU_FFT_R2C 1u /* forward only; the last axis becomes n/2 + 1 complex numbers */
#define VGPU_FFT_C2R 2u /* inverse only; the last axis of the input is n/2 + 1 complex numbers */
#define VGPU_FFT_FORWARD 0u
#define VGPU_FFT_INVERSE 1u /* divides by the number of points */

/* FFT: dtype F32 or F64 of the real parts; complex numbers are (re, im) pairs; contiguous. rank 1:
 * batch transforms of n0 points; rank 2: batch of n0 x n1. Buffers: IN, OUT. */
struct vgpu_fft {
    uint8_t dtype;
    uint8_t kind;      /* VGPU_FFT_C2C, R2C, C2R */
    uint8_t direction; /* VGPU_FFT_FORWARD, INVERSE */
    uint8_t rank;      /* 1 or 2 */
    uint8_t reserved0[4];
    uint64_t n0, n1; /* >= 1, < 2^31; n1 is 0 for rank 1 */
    uint64_t batch;  /* >= 1, < 2^31 */
};

/* SORT, stable; dtypes of keys F32 F64 U8 I8 U32 I32 U64 I64; value_size 0 (keys only), 1, 2, 4 or
 * 8 bytes. NaN counts as greater than every number; -0 equals +0. Buffers: IN keys, [IN values,]
 * OUT keys, [OUT values]. */
struct vgpu_sort {
    uint8_t dtype;
    uint8_t descending; /* 0 or 1 */
    uint8_t value_size;
    uint8_t reserved0[5];
    uint64_t n; /* >= 1 */
};

/*
 * DENOISE: non-local means (Buades, Coll, Morel 2005) of a tile. The input is width x height pixels
 * of `channels` interleaved samples; the output is the rectangle (x, y, w, h) of it, contiguous. A
 * pixel p becomes the mean of the pixels q of the (2 * search + 1)^2 square around p, weighted by
 * exp(-max(d2 - 2 * sigma^2, 0) / h^2), where d2 is the mean squared difference of the
 * (2 * patch + 1)^2 patches around p and q over all channels. Coordinates outside the input are
 * clamped to its border, so a tile equals the same part of the whole picture when the input has a
 * margin of patch + search on every side that is not a border of the picture. Samples: U8, or F32
 * on any scale. sigma and h are in units of the samples. U8 results are rounded to nearest, half
 * up. Buffers: IN, OUT.
 */
struct vgpu_denoise {
    uint8_t dtype;    /* U8 or F32 */
    uint8_t channels; /* 1 or 3 */
    uint8_t patch;    /* radius, 0..8 */
    uint8_t search;   /* radius, 1..32 */
    float sigma;      /* standard deviation of the noise, >= 0 */
    float h;          /* strength, > 0 */
    uint32_t reserved0;
    uint32_t width, height; /* of the input, pixels, 1..65535 */
    uint32_t stride;        /* bytes from one input row to the next, >= width * channels * sample */
    uint32_t x, y, w, h_out; /* rectangle of the input that is put out, not empty */
    uint32_t reserved1;
};

/* ---- errors -------------------------------------------------------------------------------- */

/* E(name, number, sentence) */
/* clang-format off */
#define VGPU_ERRORS(E) \
    E(OK,                 0, "done") \
    E(BAD_REQUEST,        1, "the request is not well formed") \
    E(BAD_VERSION,        2, "the request has a version that this device does not know") \
    E(RESERVED_SET,       3, "a reserved field or an unknown flag is not zero") \
    E(BAD_LENGTH,         4, "a length is zero, too small, or does not match the size of the request") \
    E(BAD_BUFFER,         5, "a buffer has an unknown kind or direction, or lies outside its space") \
    E(MISALIGNED,         6, "an offset is not aligned as its kind of buffer requires") \
    E(OVERLAP,            7, "an output range overlaps another range of the request") \
    E(TOO_MANY_BUFFERS,   8, "the buffer list is longer than allowed") \
    E(BAD_SHAPE,          9, "the op's sizes are invalid or do not match its buffers") \
    E(OVERFLOW,          10, "sizes multiply to more than 64 bits can hold") \
    E(BAD_DTYPE,         11, "the op is not defined for this data type") \
    E(BAD_PARAM,         12, "a parameter of the op is out of its range") \
    E(UNSUPPORTED,       13, "no worker of the pool offers this operation or data type") \
    E(TOO_LARGE,         14, "the request needs more bytes than the operator allows this VM") \
    E(DENIED,            15, "this VM may not use that pool") \
    E(NO_POOL,           16, "there is no pool with that number") \
    E(BUSY,              17, "the queue is full or a request is in flight; try again later") \
    E(NO_BACKEND,        18, "no mediator answered before the deadline") \
    E(NO_WORKER,         19, "the pool had no worker for this request before the deadline") \
    E(DEADLINE,          20, "the deadline passed") \
    E(CANCELLED,         21, "the request was cancelled") \
    E(NOT_FOUND,         22, "there is no such request") \
    E(BACKEND_RESTARTED, 23, "the mediator restarted and the request may not run twice") \
    E(WORKER_LOST,       24, "the worker was lost and the request may not run again") \
    E(QUARANTINED,       25, "every worker that tried this request was lost") \
    E(JOB_TOO_LONG,      26, "the job ran longer than its band allows and was ended") \
    E(DEPENDENCY,        27, "an earlier request that this ordered one depends on failed") \
    E(NO_MEMORY,         28, "the worker can never hold what this request needs") \
    E(NO_OBJECT,         29, "an object that the request names is not there") \
    E(DEVICE_RESET,      30, "the device was reset while the request was in flight") \
    E(BACKEND_FAULT,     31, "the worker's GPU or library reported an error") \
    E(BROKEN,            32, "the device is broken until it is reset") \
    E(INTERNAL,          33, "a fault in the mediator or worker; its log has the details")
/* clang-format on */
#define VGPU_ERROR_ENUM_(name, number, sentence) VGPU_E_##name = (number),
enum vgpu_error { VGPU_ERRORS(VGPU_ERROR_ENUM_) };

_Static_assert(sizeof(struct vgpu_req_hdr) == 48, "request header");
_Static_assert(sizeof(struct vgpu_buf) == 24, "buffer list entry");
_Static_assert(sizeof(struct vgpu_resp_hdr) == 64, "response header");
_Static_assert(sizeof(struct vgpu_ring_driver) == VGPU_RING_PAGE &&
                   sizeof(struct vgpu_ring_device) == VGPU_RING_PAGE,
               "pages of a ring");
_Static_assert(sizeof(struct vgpu_desc) == 64 && sizeof(struct vgpu_completion) == 32,
               "ring entries");
_Static_assert(sizeof(struct vgpu_info) % 8 == 0 && sizeof(struct vgpu_info) <= 512, "info");
_Static_assert(sizeof(struct vgpu_axpy) == 40 && sizeof(struct vgpu_reduce) == 24, "op bodies");
_Static_assert(sizeof(struct vgpu_gemm) == 72 && sizeof(struct vgpu_fft) == 32, "op bodies");
_Static_assert(sizeof(struct vgpu_sort) == 16 && sizeof(struct vgpu_denoise) == 48, "op bodies");

#endif
