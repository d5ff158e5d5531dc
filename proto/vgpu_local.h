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

#define VGPU_LOCAL_VERSION_MIN 2u
#define VGPU_LOCAL_VERSION_MAX 2u

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
    ROW(ATTACH,         0x40, M, "map a region; one or two fds") \
    ROW(DETACH,         0x41, M, "unmap a region") \
    ROW(DETACHED,       0x42, X, "the region is unmapped") \
    ROW(RING,           0x43, M, "the first message: the job ring; three fds") \
    ROW(JOB_CANCEL,     0x44, M, "stop a job if that is possible")
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
#define VGPU_LOCAL_FEATURE_SHM (1u << 0) /* see "The shared-memory data path" */

/*
 * The shared-memory data path. HELLO offers SHM and carries, in this order:
 *
 *   BAR 2            memfd of shm_size bytes, sealed against shrinking and growing
 *   in-flight area   memfd of VGPU_INFLIGHT_BYTES(rings, ring_entries), sealed likewise, that the
 *                    guest cannot map: the mediator's memory across its own restarts
 *   writers' pipe    the write end of a pipe; whoever maps BAR 2 keeps it open as long, processes
 *                    that it gives the memory to included. When the last copy is closed the stub,
 *                    which has the read end, knows that nobody can write to BAR 2 any more.
 *   kick[rings]      eventfds: the guest rang doorbell i
 *   call[rings]      eventfds: signal vector 1 + i
 *
 * A mediator that takes the offer says so in HELLO_ACK.features; one that does not refuses. From then
 * on ring requests do not touch the socket. Window requests still come as REQUEST and end with
 * RESPONSE, but without DATA: their ARENA buffers are used in place, at arena_offset.
 *
 * The stub makes a new pipe for every connection, and connects again only after the last copy of the
 * old one's write end is closed: a new connection never meets writers of an old one. Therefore, when
 * a connection ends, whoever ended it, the mediator drops all that it has of it.
 *
 * A window request that the guest gives up is not ended by the stub while somebody may still write to
 * its buffers: it sends CANCEL, which on this path is answered by RESPONSE (CANCELLED, DEADLINE, or
 * the result that came first). RESET_ACK likewise comes when all attempts of the old life have ended;
 * by then the mediator has set the device pages of all rings, its indices and the in-flight area to
 * zero (the stub has zeroed both pages of every ring, and drained the kicks, before it sent RESET).
 */

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
    uint8_t reserved0;
    uint16_t rings; /* with SHM 1..VGPU_RINGS_MAX; otherwise this and all that follows is 0 */
    uint32_t ring_entries; /* as the registers say, also below */
    uint32_t slot_bytes;
    uint32_t reserved1;
    uint64_t shm_size;
    uint64_t ring_offset;
    uint64_t ring_stride;
    uint64_t arena_offset;
};

/* fds of HELLO */
#define VGPU_HELLO_FD_SHM 0u
#define VGPU_HELLO_FD_INFLIGHT 1u
#define VGPU_HELLO_FD_WRITERS 2u
#define VGPU_HELLO_FD_KICK(i) (3u + (i))
#define VGPU_HELLO_FD_CALL(rings, i) (3u + (rings) + (i))
#define VGPU_HELLO_FDS(rings) (3u + 2u * (rings))

/*
 * The in-flight area: only the mediator reads and writes it. All zero (magic included) means: nothing
 * is in flight. Stores are ordered so that a mediator killed at any instruction leaves an area from
 * which the next one goes on: what it had taken and not started runs, what had started runs again or
 * ends with BACKEND_RESTARTED (NO_RETRY), what was completed stays completed.
 */
#define VGPU_INFLIGHT_MAGIC 0x49504756u /* "VGPI" */
enum vgpu_inflight_state {
    VGPU_INFLIGHT_FREE = 0,
    VGPU_INFLIGHT_TAKEN,      /* the descriptor was taken; nothing has run */
    VGPU_INFLIGHT_STARTED,    /* an attempt was given to a worker */
    VGPU_INFLIGHT_COMPLETING, /* response and completion are written, complete_index counts */
};
struct vgpu_inflight {
    uint32_t magic;
    uint16_t version; /* 1 */
    uint16_t rings;
    uint32_t entries;
    uint32_t epoch; /* of the device life it speaks of; another one: it is void */
    uint64_t mediator_gen;
    uint32_t flags; /* VGPU_INFLIGHT_BROKEN */
    uint8_t reserved[36];
};
#define VGPU_INFLIGHT_BROKEN (1u << 0) /* the guest broke the rules of a ring in this life */
struct vgpu_inflight_ring {
    uint64_t submit_count;  /* descriptors taken in this life; the low half is the ring's index */
    uint32_t complete_tail; /* completions written, published or not */
    uint32_t failed;        /* 1: a request failed since the ring was last empty */
    uint8_t reserved[48];
};
struct vgpu_inflight_slot {
    uint32_t state;          /* enum vgpu_inflight_state */
    uint32_t index;          /* of its descriptor */
    uint64_t seq;            /* of the request */
    uint64_t tag;            /* of the descriptor */
    uint32_t complete_index; /* COMPLETING: of its completion */
    uint32_t length;         /* of the request */
    uint64_t deadline_ns;    /* CLOCK_MONOTONIC of this host */
    uint32_t error;          /* COMPLETING: of its response */
    uint8_t reserved[20];
};
/* header, rings, then the slots of ring 0, ring 1, … */
#define VGPU_INFLIGHT_BYTES(rings, entries) \
    (UINT64_C(64) + UINT64_C(64) * (rings) + UINT64_C(64) * (rings) * (entries))

/* Sequence number of a ring request: the ring in the high bits, the count of its descriptors from 1. */
#define VGPU_RING_SEQ(ring, count) \
    (((uint64_t)(ring) + 1) << 48 | ((uint64_t)(count)&0xffffffffffff))

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
 * Inputs, without shared memory: after REQUEST the stub sends the bytes of every ARENA IN buffer, in the order of the list
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

/* Without shared memory the stub has answered the guest already: no answer follows, DATA and RESPONSE that
 * are under way are dropped by it. With shared memory RESPONSE follows. */
struct vgpu_cancel_msg {
    struct vgpu_msg msg;
    uint64_t seq;
    uint32_t reason; /* VGPU_E_CANCELLED or VGPU_E_DEADLINE */
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
    uint8_t up;     /* 0: the mediator drains and takes nothing new */
    uint8_t broken; /* 1: the guest broke the rules of a ring in the life msg.epoch */
    uint8_t reserved;
};

/* ---- worker socket ------------------------------------------------------------------------- */

#define VGPU_NAME_MAX 64u

struct vgpu_register {
    struct vgpu_msg msg;
    uint16_t version_min, version_max;
    uint32_t depth;  /* jobs it wants at a time, >= 1: its credits; quick ones may exceed it */
    uint64_t ops;    /* bit n: offers op n */
    uint64_t dtypes; /* bit n: offers dtype n (for some op) */
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
    uint32_t max_job_ms; /* longest of the pool's bands; struct vgpu_job has the one that counts */
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
 * Jobs and their results go through one ring, of the same layout as a guest's (vgpu_regs.h): the
 * mediator is its driver, the executor its device. The mediator makes a sealed memfd that holds just
 * the ring and two eventfds, and sends RING first. A request slot holds struct vgpu_job and the
 * request, a response slot struct vgpu_done and the response; descriptors and completions carry the
 * job's number as tag, completions no error. A breach of the ring's rules ends the executor. Jobs that
 * the executor has no room for wait in it.
 *
 * An ATTACH precedes the first descriptor that names its region: an executor that meets an unknown
 * region reads its channel first, and refuses the job (INTERNAL) if it still does not know it. One that
 * gets JOB_CANCEL for a job that it does not know looks at the ring first.
 */
#define VGPU_EXEC_SLOT_BYTES (VGPU_REQ_MAX + 64u)
#define VGPU_EXEC_REGIONS_MAX 4096u /* regions that an executor has at a time */
#define VGPU_EXEC_RING_FDS 3u       /* memfd, kick (to the executor), call (to the mediator) */
struct vgpu_exec_ring {
    struct vgpu_msg msg;
    uint32_t entries;
    uint32_t slot_bytes; /* VGPU_EXEC_SLOT_BYTES */
    uint64_t size;       /* of the memfd */
    uint32_t spin_us;    /* how long the executor may poll before it sleeps; 0: not at all */
    uint32_t reserved;
};

/*
 * A region is memory that jobs read inputs from and write outputs to in place: the arena of a VM, or
 * the staging memory that stands in for it on the socket path. A memfd, sealed against shrinking,
 * whose size the executor checks before it maps [offset, offset + size) of it. Regions of different
 * VMs are never the same memory. A second descriptor, if there is one, is the write end of the
 * writers' pipe: the executor keeps it open until the region is unmapped.
 */
struct vgpu_attach {
    struct vgpu_msg msg;
    uint32_t region;
    uint32_t reserved;
    uint64_t offset; /* a multiple of 4096 */
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

struct vgpu_job_cancel {
    struct vgpu_msg msg;
    uint64_t job;
    uint32_t attempt;
    uint32_t reserved;
};

/* In the request slot of the job ring. */
struct vgpu_job {
    uint64_t job;        /* unique in the mediator's life */
    uint32_t attempt;    /* from 1 */
    uint32_t region;     /* of its ARENA buffers; 0: it has none */
    uint32_t tenant;     /* number, for isolation */
    uint32_t max_job_ms; /* run longer and the executor is ended */
    uint8_t band;        /* effective */
    uint8_t reserved[7];
    /* the request follows; offsets of its ARENA buffers count from the start of the region */
};

/* In the response slot. Outputs are in the region before the completion is published, and the job
 * will write nothing any more. run_ns, error, payload are in the response header; the mediator fills in
 * seq, queued_ns, worker and attempts. */
struct vgpu_done {
    uint64_t job;
    uint32_t attempt;
    uint32_t reserved;
    /* the response follows: struct vgpu_resp_hdr and payload */
};

_Static_assert(sizeof(struct vgpu_msg) == 16, "message header");
_Static_assert(sizeof(struct vgpu_hello) == 112, "hello");
_Static_assert(sizeof(struct vgpu_inflight) == 64 && sizeof(struct vgpu_inflight_ring) == 64 &&
                   sizeof(struct vgpu_inflight_slot) == 64,
               "in-flight area");
_Static_assert(sizeof(struct vgpu_hello_ack) == 64, "hello ack");
_Static_assert(sizeof(struct vgpu_data) == 40, "data");
_Static_assert(sizeof(struct vgpu_register) == 320, "register");
_Static_assert(sizeof(struct vgpu_job) == 32 && sizeof(struct vgpu_done) == 16, "job");

#endif
