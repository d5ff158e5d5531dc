/* SPDX-License-Identifier: MIT */
/*
 * vgpu_doc - what a driver needs of docs/device.md, copied from that document by hand
 *
 * Not from proto/vgpu_regs.h, on purpose: this program proves that the document is enough.
 */
#ifndef GUEST_VGPU_DOC_H
#define GUEST_VGPU_DOC_H

#include <stdint.h>

#define DOC_VENDOR 0x1234
#define DOC_DEVICE 0x5647
#define DOC_CLASS 0x1200

enum doc_register {
    REG_MAGIC = 0x000,
    REG_ABI_VERSION = 0x004,
    REG_FEATURES = 0x008,
    REG_VM_ID = 0x00c,
    REG_POOL_ID = 0x010,
    REG_PRIORITY = 0x014,
    REG_STATUS = 0x018,
    REG_ERROR = 0x01c,
    REG_REQUEST_LEN = 0x020,
    REG_REQUEST_ID = 0x024,
    REG_RESPONSE_LEN = 0x028,
    REG_CONTROL = 0x02c,
    REG_BACKEND_GEN = 0x030,
    REG_RESET_EPOCH = 0x034,
    REG_REJECTS = 0x038,
    REG_REJECT_ERROR = 0x03c,
    REG_DEADLINE_MS = 0x040,
    REG_RING_COUNT = 0x044,
    REG_RING_ENTRIES = 0x048,
    REG_RING_OFFSET = 0x04c,
    REG_RING_STRIDE = 0x050,
    REG_SLOT_BYTES = 0x054,
    REG_SHM_SIZE_LO = 0x060,
    REG_SHM_SIZE_HI = 0x064,
    REG_ARENA_OFFSET_LO = 0x068,
    REG_ARENA_OFFSET_HI = 0x06c,
    REG_ARENA_SIZE_LO = 0x070,
    REG_ARENA_SIZE_HI = 0x074,
    REG_DOORBELL = 0x080,
    REG_RING_DOORBELL = 0x100,
    WINDOW_REQUEST = 0x400,
    WINDOW_RESPONSE = 0x800,
};

#define WINDOW_SIZE 1024u
#define PAYLOAD_MAX 960u

enum doc_status {
    STATE_IDLE = 0,
    STATE_BUSY = 1,
    STATE_DONE = 2,
    STATE_ERROR = 3,
    STATE_MASK = 0xff,
    BACKEND_UP = 0x100,
    RESETTING = 0x200,
    BROKEN = 0x400,
};

enum doc_feature {
    FEATURE_SHM = 0x1,
    FEATURE_RING = 0x2,
    FEATURE_EVENT_IDX = 0x4,
    FEATURE_MSIX = 0x40
};
enum doc_control { CONTROL_CANCEL = 1, CONTROL_RESET = 2 };
enum doc_flag { FLAG_ORDERED = 0x1, FLAG_NO_RETRY = 0x2, FLAG_IRQ = 0x4 };
enum doc_kind { INLINE = 0, ARENA = 1, OBJECT = 2, TEMP = 3, GPA = 4 };
enum doc_dir { IN = 1, OUT = 2 };
enum doc_payload { PAYLOAD_DATA = 0, PAYLOAD_TEXT = 1, PAYLOAD_INFO = 2 };

enum doc_op {
    OP_INFO = 0,
    OP_CANCEL = 1,
    OP_PROGRAM = 2,
    OP_LAUNCH = 3,
    OP_ECHO = 16,
    OP_AXPY = 17,
    OP_REDUCE = 18,
    OP_GEMM = 19,
    OP_FFT = 20,
    OP_SORT = 21,
    OP_DENOISE = 22,
};

enum doc_dtype { F32 = 1, F64 = 2, F16 = 3, U8 = 5, I8 = 6, U32 = 7, I32 = 8, U64 = 9 };

enum doc_error {
    OK = 0,
    BAD_VERSION = 2,
    RESERVED_SET = 3,
    BAD_LENGTH = 4,
    BAD_BUFFER = 5,
    MISALIGNED = 6,
    OVERLAP = 7,
    TOO_MANY_BUFFERS = 8,
    BAD_SHAPE = 9,
    OVERFLOW = 10,
    BAD_DTYPE = 11,
    BAD_PARAM = 12,
    UNSUPPORTED = 13,
    NO_POOL = 16,
    BUSY = 17,
    NO_BACKEND = 18,
    DEADLINE = 20,
    CANCELLED = 21,
    NOT_FOUND = 22,
    DEPENDENCY = 27,
    DEVICE_BROKEN = 32,
};

struct req_hdr {
    uint32_t size;
    uint16_t version;
    uint16_t op;
    uint32_t flags;
    uint32_t deadline_ms;
    uint64_t tag;
    uint32_t pool;
    uint8_t band;
    uint8_t nbufs;
    uint16_t body_len;
    uint32_t reserved[4];
};

struct req_buf {
    uint8_t kind;
    uint8_t dir;
    uint16_t reserved;
    uint32_t aux;
    uint64_t offset;
    uint64_t length;
};

struct resp_hdr {
    uint32_t size;
    uint16_t version;
    uint16_t op;
    uint32_t error;
    uint32_t retry_after_ms;
    uint64_t tag;
    uint64_t seq;
    uint64_t queued_ns;
    uint64_t run_ns;
    uint32_t worker;
    uint16_t attempts;
    uint16_t payload;
    uint32_t reserved[2];
};

struct info {
    uint32_t vm_id;
    uint32_t pool_id;
    uint8_t band;
    uint8_t band_max;
    uint16_t reserved0;
    uint32_t workers;
    uint64_t ops;
    uint64_t max_bytes;
    uint32_t max_job_ms;
    uint32_t queued;
    uint32_t running;
    uint32_t reserved1;
    char vm[64];
    char tenant[64];
    char pool[64];
    char backends[64];
};

/* Rings in BAR 2. */
#define RING_PAGE 4096u
#define RING_FLAG_BROKEN 1u
#define RING_ENTRIES_MAX 4096u

struct ring_driver_page {
    uint32_t submit_tail;
    uint32_t pad0[15];
    uint32_t complete_event;
};

struct ring_device_page {
    uint32_t complete_tail;
    uint32_t pad0[15];
    uint32_t submit_event;
    uint32_t pad1[15];
    uint32_t flags;
};

struct ring_desc {
    uint32_t slot;
    uint32_t length;
    uint64_t tag;
    uint32_t reserved[12];
};

struct ring_completion {
    uint64_t tag;
    uint64_t seq;
    uint32_t slot;
    uint32_t length;
    uint32_t error;
    uint32_t reserved;
};

struct cancel_body {
    uint64_t tag;
};

/* Bodies. Floats are given as their bits: this program does not use the FPU. */
struct axpy_body {
    uint8_t dtype;
    uint8_t reserved0[7];
    uint64_t alpha_f64;
    uint64_t n, incx, incy;
};

struct reduce_body {
    uint8_t dtype;
    uint8_t kind;
    uint8_t reserved0[6];
    uint64_t n, stride;
};
enum doc_reduce { REDUCE_SUM = 0, REDUCE_MIN = 1, REDUCE_MAX = 2, REDUCE_ARGMAX = 3 };

struct gemm_body {
    uint8_t dtype, trans_a, trans_b, math;
    uint8_t reserved0[4];
    uint64_t m, n, k, lda, ldb, ldc;
    uint64_t alpha_f64, beta_f64;
};

struct fft_body {
    uint8_t dtype, kind, direction, rank;
    uint8_t reserved0[4];
    uint64_t n0, n1, batch;
};

struct sort_body {
    uint8_t dtype, descending, value_size;
    uint8_t reserved0[5];
    uint64_t n;
};

struct denoise_body {
    uint8_t dtype, channels, patch, search;
    uint32_t sigma_f32, h_f32;
    uint32_t reserved0;
    uint32_t width, height, stride, x, y, w, h_out;
    uint32_t reserved1;
};

/* Every field lies on a multiple of its size, so that no compiler adds padding. */
_Static_assert(sizeof(struct req_hdr) == 48 && sizeof(struct req_buf) == 24, "request");
_Static_assert(sizeof(struct resp_hdr) == 64 && sizeof(struct info) == 304, "response");
_Static_assert(sizeof(struct axpy_body) == 40 && sizeof(struct reduce_body) == 24, "bodies");
_Static_assert(sizeof(struct gemm_body) == 72 && sizeof(struct fft_body) == 32, "bodies");
_Static_assert(sizeof(struct sort_body) == 16 && sizeof(struct denoise_body) == 48, "bodies");

_Static_assert(sizeof(struct ring_desc) == 64 && sizeof(struct ring_completion) == 32, "ring");

#define ONE_F64 0x3ff0000000000000ull
#define TWO_F64 0x4000000000000000ull
#define ONE_F32 0x3f800000u

#endif
