/* SPDX-License-Identifier: MIT */
/*
 * vgpu_local.h - messages between processes of one host
 *
 * Three kinds of connection, all AF_UNIX SOCK_SEQPACKET, one message per datagram:
 *
 *   VM socket        stub (connects)              <-> mediator (listens; one socket per VM)
 *   worker socket    worker supervisor (connects) <-> mediator (listens; one socket per host)
 *   executor channel executor                     <-> mediator (a socketpair made by the supervisor,
 *                                                     whose mediator end travels in EXECUTOR)
 *
 * Every message starts with struct vgpu_msg; `length` is the size of the whole datagram. Little
 * endian, naturally aligned, no padding. A receiver drops the connection, with a log line that says
 * why, when a message is shorter than its type, longer than VGPU_MSG_MAX, of a type that the sender
 * may not send, out of its state, has non-zero reserved fields, or carries file descriptors other
 * than those listed. Texts are UTF-8 without a terminating 0, up to the end of the message; fixed
 * names are NUL-padded.
 *
 * Versions: HELLO and REGISTER carry the range that the sender speaks, the answer the one chosen.
 * A later version may append fields to a message: a receiver ignores bytes past those it knows
 * only when the negotiated version is newer than its own table; within a version sizes are exact.
 */
#ifndef VGPU_LOCAL_H
#define VGPU_LOCAL_H

#include "vgpu_regs.h"

#define VGPU_LOCAL_VERSION_MIN 1u
#define VGPU_LOCAL_VERSION_MAX 1u

#define VGPU_DATA_CHUNK 61440u /* most payload bytes of one DATA message */
#define VGPU_MSG_MAX 65536u

/* ROW(name, number, sender, sentence). Senders: S stub, M mediator, W supervisor, X executor. */
/* clang-format off */
#define VGPU_MSGS(ROW) \
    /* VM socket */ \
    ROW(HELLO,          0x01, S, "first message; describes the VM's device") \
    ROW(HELLO_ACK,      0x02, M, "accepted; effective identity and limits") \
    ROW(REFUSED,        0x03, M, "not accepted, and why; the mediator closes next; also on the worker socket") \
    ROW(REQUEST,        0x04, S, "a request; its ARENA inputs follow in DATA") \
    ROW(DATA,           0x05, B, "bytes of an ARENA buffer: S->M inputs, M->S outputs") \
    ROW(ACCEPT,         0x06, M, "the request has its identity and may run from now on") \
    ROW(RESPONSE,       0x07, M, "the answer; all DATA of its outputs came before") \
    ROW(CANCEL,         0x08, S, "the guest gave the request up") \
    ROW(RESET,          0x09, S, "new life: drop everything of the old one") \
    ROW(RESET_ACK,      0x0a, M, "no writer of the old life is left") \
    ROW(WISH,           0x0b, S, "the guest wishes for another band") \
    ROW(STATE,          0x0c, M, "effective band, pool or availability changed") \
    /* worker socket */ \
    ROW(REGISTER,       0x20, W, "first message; describes the worker") \
    ROW(REGISTER_ACK,   0x21, M, "accepted; number and limits") \
    ROW(EXECUTOR,       0x22, W, "a new executor; one fd: the mediator's end of its channel") \
    ROW(EXECUTOR_GONE,  0x23, W, "the executor was reaped: it can write nothing any more") \
    ROW(KILL_EXECUTOR,  0x24, M, "end the executor now") \
    ROW(HEARTBEAT,      0x25, A, "both ways, on the worker socket and on executor channels") \
    ROW(DRAIN,          0x26, A, "W->M: give me no new work; M->W: finish and exit") \
    /* executor channel */ \
    ROW(ATTACH,         0x40, M, "map a region; one fd") \
    ROW(DETACH,         0x41, M, "unmap a region") \
    ROW(DETACHED,       0x42, X, "the region is unmapped") \
    ROW(JOB,            0x43, M, "run a request") \
    ROW(JOB_CANCEL,     0x44, M, "stop a job if that is possible") \
    ROW(DONE,           0x45, X, "a job ended; it will write nothing any more")
/* clang-format on */
#define VGPU_MSG_ENUM_(name, number, sender, sentence) VGPU_MSG_##name = (number),
enum vgpu_msg_type { VGPU_MSGS(VGPU_MSG_ENUM_) };

#define VGPU_MSG_MAGIC 0x4c504756u /* "VGPL" */

struct vgpu_msg {
    uint32_t magic; /* VGPU_MSG_MAGIC */
    uint16_t type;  /* enum vgpu_msg_type */
    uint16_t reserved;
    uint32_t length; /* bytes of the whole message, this header included */
    uint32_t epoch;  /* VM socket: reset epoch of the sender's device life; elsewhere 0 */
};

/* ---- VM socket ----------------------------------------------------------------------------- */

/*
 * The path of the socket is the VM's identity: the mediator knows from its pool file which VM may
 * connect there, checks the peer's uid (SO_PEERCRED) and that the uuid is the configured one, and
 * refuses a second connection (ALREADY_CONNECTED) while one is open.
 *
 * A request's identity is (uuid, boot_id, epoch, seq). seq counts accepted doorbells of a device
 * life, from 1. After a reconnect the stub sends its unanswered requests again under the same seq
 * with VGPU_REQUEST_AGAIN, and VGPU_REQUEST_ACCEPTED if it had seen their ACCEPT, each followed by
 * its inputs.
 *
 * Messages whose epoch is not the current one are dropped silently: they belong to another life.
 */
#define VGPU_LOCAL_FEATURE_SHM \
    (1u << 0) /* HELLO carries fds: memfd, in-flight memfd, kicks, calls */

struct vgpu_hello {
    struct vgpu_msg msg;
    uint16_t version_min, version_max;
    uint32_t features;   /* VGPU_LOCAL_FEATURE_* that the stub offers */
    uint8_t uuid[16];    /* of the VM, in text order */
    uint64_t boot_id;    /* random, per QEMU process and device */
    uint64_t arena_size; /* bytes */
    uint32_t conn_gen;   /* counts the connections of this device */
    uint32_t pool_wish;  /* 0: default */
    uint8_t band_wish;   /* VGPU_BAND_*, also VGPU_BAND_DEFAULT */
    uint8_t reserved0[3];
    uint16_t rings; /* socket path: 0 */
    uint16_t reserved1;
};

struct vgpu_hello_ack {
    struct vgpu_msg msg;
    uint16_t version;
    uint16_t reserved0;
    uint32_t features;        /* chosen */
    uint32_t device_features; /* VGPU_FEATURE_* that the mediator can serve */
    uint32_t vm_id;
    uint32_t pool_id;
    uint8_t band; /* effective */
    uint8_t up;   /* 1: BACKEND_UP */
    uint16_t reserved1;
    uint64_t
        mediator_gen;   /* random, per mediator process; register BACKEND_GEN shows the low half */
    uint64_t max_bytes; /* most ARENA bytes of one request */
    uint32_t deadline_ms; /* default and largest deadline, >= 1 */
    uint32_t reserved2;
};

#define VGPU_REFUSED_ALREADY_CONNECTED 1u
#define VGPU_REFUSED_UNKNOWN_VM 2u /* the uuid is not the one configured for this socket */
#define VGPU_REFUSED_VERSION 3u
#define VGPU_REFUSED_PEER 4u /* the connecting process has another uid than allowed */
#define VGPU_REFUSED_MALFORMED 5u
#define VGPU_REFUSED_DRAINING 6u
#define VGPU_REFUSED_FULL 7u
#define VGPU_REFUSED_NAME 8u /* another connected worker has this name */
#define VGPU_REFUSED_POOL 9u /* there is no such pool */
struct vgpu_refused {
    struct vgpu_msg msg;
    uint32_t reason; /* VGPU_REFUSED_* */
    uint32_t reserved;
    /* text follows */
};

#define VGPU_REQUEST_AGAIN (1u << 0)    /* was sent on an earlier connection */
#define VGPU_REQUEST_ACCEPTED (1u << 1) /* an ACCEPT for it was seen */
struct vgpu_request {
    struct vgpu_msg msg;
    uint64_t seq;
    uint32_t flags;            /* VGPU_REQUEST_* */
    uint32_t deadline_left_ms; /* time left, >= 1 */
    /* the request follows: {header, buffer list, op body, inline data} */
};

/*
 * Inputs: after REQUEST the stub sends the bytes of every ARENA IN buffer, in the order of the list
 * and from the start, in chunks of at most VGPU_DATA_CHUNK; outputs likewise before RESPONSE. A
 * mediator that refuses a request answers RESPONSE at once and drops the DATA that still comes.
 */
struct vgpu_data {
    struct vgpu_msg msg;
    uint64_t seq;
    uint32_t buffer; /* index in the buffer list */
    uint32_t reserved;
    uint64_t offset; /* of these bytes in the buffer */
    /* bytes follow, at least 1 */
};

struct vgpu_accept {
    struct vgpu_msg msg;
    uint64_t seq;
};

struct vgpu_response {
    struct vgpu_msg msg;
    uint64_t seq;
    /* the response follows: struct vgpu_resp_hdr and payload */
};

/* No answer follows: DATA and RESPONSE that are under way already are dropped by the stub. */
struct vgpu_cancel_msg {
    struct vgpu_msg msg;
    uint64_t seq;
    uint32_t
        reason; /* VGPU_E_CANCELLED or VGPU_E_DEADLINE; the stub has answered the guest already */
    uint32_t reserved;
};

/* msg.epoch is the new life's epoch; RESET_ACK repeats it. */
struct vgpu_reset {
    struct vgpu_msg msg;
};

struct vgpu_wish {
    struct vgpu_msg msg;
    uint8_t band; /* VGPU_BAND_*, also VGPU_BAND_DEFAULT */
    uint8_t reserved[7];
};

struct vgpu_state {
    struct vgpu_msg msg;
    uint32_t pool_id;
    uint8_t band;
    uint8_t up; /* 0: the mediator drains and takes nothing new */
    uint16_t reserved;
};

/* ---- worker socket ------------------------------------------------------------------------- */

#define VGPU_NAME_MAX 64u

struct vgpu_register {
    struct vgpu_msg msg;
    uint16_t version_min, version_max;
    uint32_t depth;        /* jobs it takes at a time, >= 1: its credits */
    uint64_t ops;          /* bit n: offers op n */
    uint64_t dtypes;       /* bit n: offers dtype n (for some op) */
    uint64_t memory_bytes; /* device memory for jobs; 0: host memory */
    uint64_t boot_id;      /* random, per supervisor process */
    uint8_t flags;         /* 0 */
    uint8_t reserved[7];
    char name[VGPU_NAME_MAX];    /* unique at its mediator: [A-Za-z0-9._-]+ */
    char pool[VGPU_NAME_MAX];    /* pool to join; empty: the first of the pool file */
    char backend[VGPU_NAME_MAX]; /* "cpu", "cuda", … */
    char device[VGPU_NAME_MAX];  /* what it runs on, for people */
};

struct vgpu_register_ack {
    struct vgpu_msg msg;
    uint16_t version;
    uint16_t reserved0;
    uint32_t worker_id;    /* >= 1 */
    uint32_t heartbeat_ms; /* how often each side sends one */
    uint32_t max_job_ms;   /* longest of the pool's bands; JOB carries the one that counts */
};

/* One fd. A worker has at most one executor that takes new jobs: the latest announced. */
struct vgpu_executor {
    struct vgpu_msg msg;
    uint32_t executor; /* counts up from 1 in a supervisor's life */
    uint32_t pid;      /* for logs */
};

struct vgpu_executor_gone {
    struct vgpu_msg msg;
    uint32_t executor;
    uint32_t status; /* as from waitpid() */
    /* text follows: why, when the supervisor ended it itself */
};

struct vgpu_kill_executor {
    struct vgpu_msg msg;
    uint32_t executor;
    uint32_t reason; /* enum vgpu_error, for the log */
};

/* `progress` grows while the sender makes progress. A sender that is silent for three periods is
 * torpid (no new work), for six lost. An executor is told the period by its supervisor. */
struct vgpu_heartbeat {
    struct vgpu_msg msg;
    uint64_t progress;
};

struct vgpu_drain {
    struct vgpu_msg msg;
};

/* ---- executor channel ---------------------------------------------------------------------- */

/*
 * A region is memory that jobs read inputs from and write outputs to in place: the arena of a VM, or
 * the staging memory that stands in for it on the socket path. One memfd, sealed against shrinking,
 * whose size the executor checks before it maps it. Regions of different VMs are never the same
 * memory.
 */
struct vgpu_attach {
    struct vgpu_msg msg;
    uint32_t region;
    uint32_t reserved;
    uint64_t size;
};

struct vgpu_detach {
    struct vgpu_msg msg;
    uint32_t region;
    uint32_t reserved;
};

struct vgpu_detached {
    struct vgpu_msg msg;
    uint32_t region;
    uint32_t reserved;
};

struct vgpu_job {
    struct vgpu_msg msg;
    uint64_t job;        /* unique in the mediator's life */
    uint32_t attempt;    /* from 1 */
    uint32_t region;     /* of its ARENA buffers; 0: it has none */
    uint32_t tenant;     /* number, for isolation */
    uint32_t max_job_ms; /* run longer and the executor is ended */
    uint8_t band;        /* effective */
    uint8_t reserved[7];
    /* the request follows; offsets of its ARENA buffers count from the start of the region */
};

struct vgpu_job_cancel {
    struct vgpu_msg msg;
    uint64_t job;
    uint32_t attempt;
    uint32_t reserved;
};

/* Outputs are in the region before DONE is sent. run_ns, error, payload are in the response header;
 * the mediator fills in seq, queued_ns, worker and attempts. */
struct vgpu_done {
    struct vgpu_msg msg;
    uint64_t job;
    uint32_t attempt;
    uint32_t reserved;
    /* the response follows: struct vgpu_resp_hdr and payload */
};

_Static_assert(sizeof(struct vgpu_msg) == 16, "message header");
_Static_assert(sizeof(struct vgpu_hello) == 72, "hello");
_Static_assert(sizeof(struct vgpu_hello_ack) == 64, "hello ack");
_Static_assert(sizeof(struct vgpu_data) == 40, "data");
_Static_assert(sizeof(struct vgpu_register) == 320, "register");
_Static_assert(sizeof(struct vgpu_job) == 48, "job");

#endif
