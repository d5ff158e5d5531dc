/* SPDX-License-Identifier: MIT */
/* See vmclient.h. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "bench/stats.h"
#include "bench/vmclient.h"

#define TIMEOUT_S 120

static _Noreturn void breach(const char *what, uint32_t type)
{
    fprintf(stderr, "bench-host: the mediator %s (message type 0x%x)\n", what, type);
    exit(1);
}

/* Sends the message @head, whose fields past the header are filled in, and @tail. */
static void send_msg(struct vmclient *c, uint16_t type, void *head, size_t head_len,
                     const void *tail, size_t tail_len)
{
    struct vgpu_msg m = {
        .magic = VGPU_MSG_MAGIC,
        .type = type,
        .length = (uint32_t)(head_len + tail_len),
    };
    struct iovec iov[2] = {{head, head_len}, {(void *)(uintptr_t)tail, tail_len}};
    struct msghdr h = {.msg_iov = iov, .msg_iovlen = tail_len ? 2 : 1};

    memcpy(head, &m, sizeof(m));
    if (sendmsg(c->fd, &h, MSG_NOSIGNAL) != (ssize_t)(head_len + tail_len)) {
        die("send to the mediator");
    }
}

/* Return: its type; the message is in c->msg. */
static uint16_t receive(struct vmclient *c, uint32_t *ret_len)
{
    struct vgpu_msg m;
    ssize_t n = recv(c->fd, c->msg, sizeof(c->msg), 0);

    if (n < 0) {
        die("no answer from the mediator");
    }
    memcpy(&m, c->msg, sizeof(m));
    if (n < (ssize_t)sizeof(m) || m.magic != VGPU_MSG_MAGIC || m.length != (size_t)n) {
        breach(n == 0 ? "closed the connection" : "sent no message", 0);
    }
    if (m.type == VGPU_MSG_REFUSED) {
        fprintf(stderr, "bench-host: refused: %.*s\n",
                (int)(n - (ssize_t)sizeof(struct vgpu_refused)),
                (char *)c->msg + sizeof(struct vgpu_refused));
        exit(1);
    }
    *ret_len = (uint32_t)n;
    return m.type;
}

static void connect_to(struct vmclient *c, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = TIMEOUT_S};

    if (strlen(path) >= sizeof(a.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(a.sun_path, path);
    c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) ||
        setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))) {
        die(path);
    }
}

static void say_hello(struct vmclient *c)
{
    struct vgpu_hello hello = {
        .version_min = VGPU_LOCAL_VERSION_MIN,
        .version_max = VGPU_LOCAL_VERSION_MAX,
        .arena_size = c->arena_size,
        .conn_gen = 1,
        .band_wish = VGPU_BAND_DEFAULT,
    };
    struct vgpu_hello_ack ack;
    struct vgpu_state state;
    uint32_t len;

    if (getrandom(hello.uuid, sizeof(hello.uuid), 0) < 0 ||
        getrandom(&hello.boot_id, sizeof(hello.boot_id), 0) < 0) {
        die("getrandom");
    }
    send_msg(c, VGPU_MSG_HELLO, &hello, sizeof(hello), NULL, 0);
    if (receive(c, &len) != VGPU_MSG_HELLO_ACK || len != sizeof(ack)) {
        breach("did not answer HELLO", 0);
    }
    memcpy(&ack, c->msg, sizeof(ack));
    for (state.up = ack.up; !state.up;) {
        if (receive(c, &len) != VGPU_MSG_STATE || len != sizeof(state)) {
            breach("is not up and does not say STATE", 0);
        }
        memcpy(&state, c->msg, sizeof(state));
    }
}

void vmclient_open(struct vmclient *c, const char *path, uint64_t arena_size)
{
    memset(c, 0, sizeof(*c));
    c->arena_size = arena_size;
    c->arena = mmap(NULL, arena_size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (c->arena == MAP_FAILED) {
        die("memory for the arena");
    }
    connect_to(c, path);
    say_hello(c);
}

void vmclient_close(struct vmclient *c)
{
    close(c->fd);
    munmap(c->arena, c->arena_size);
}

static struct vgpu_buf buffer(const void *request, uint32_t index)
{
    struct vgpu_buf b;

    memcpy(&b, (const uint8_t *)request + sizeof(struct vgpu_req_hdr) + index * sizeof(b),
           sizeof(b));
    return b;
}

static void send_inputs(struct vmclient *c, const void *request, uint32_t nbufs)
{
    for (uint32_t i = 0; i < nbufs; i++) {
        struct vgpu_buf b = buffer(request, i);

        if (b.kind != VGPU_BUF_ARENA || b.dir != VGPU_BUF_IN) {
            continue;
        }
        for (uint64_t at = 0; at < b.length; at += VGPU_DATA_CHUNK) {
            struct vgpu_data d = {.seq = c->seq, .buffer = i, .offset = at};
            uint64_t left = b.length - at;

            send_msg(c, VGPU_MSG_DATA, &d, sizeof(d), c->arena + b.offset + at,
                     left < VGPU_DATA_CHUNK ? left : VGPU_DATA_CHUNK);
        }
    }
}

static void take_data(struct vmclient *c, const void *request, uint32_t nbufs, uint32_t len)
{
    struct vgpu_data d;
    struct vgpu_buf b;
    uint64_t bytes = len - sizeof(d);

    memcpy(&d, c->msg, sizeof(d));
    if (len <= sizeof(d) || d.seq != c->seq || d.buffer >= nbufs) {
        breach("sent DATA of another request", VGPU_MSG_DATA);
    }
    b = buffer(request, d.buffer);
    if (b.kind != VGPU_BUF_ARENA || b.dir != VGPU_BUF_OUT || d.offset > b.length ||
        bytes > b.length - d.offset) {
        breach("sent DATA outside an output", VGPU_MSG_DATA);
    }
    memcpy(c->arena + b.offset + d.offset, c->msg + sizeof(d), bytes);
}

static const struct vgpu_resp_hdr *take_response(struct vmclient *c, uint32_t len)
{
    struct vgpu_response r;

    memcpy(&r, c->msg, sizeof(r));
    if (len < sizeof(r) + sizeof(struct vgpu_resp_hdr) || len > sizeof(r) + sizeof(c->response) ||
        r.seq != c->seq) {
        breach("sent a RESPONSE to another request", VGPU_MSG_RESPONSE);
    }
    memcpy(c->response, c->msg + sizeof(r), len - sizeof(r));
    return (const struct vgpu_resp_hdr *)(const void *)c->response;
}

const struct vgpu_resp_hdr *vmclient_run(struct vmclient *c, const void *request, uint32_t len)
{
    struct vgpu_request r = {.seq = ++c->seq, .deadline_left_ms = TIMEOUT_S * 500};
    struct vgpu_req_hdr h;

    memcpy(&h, request, sizeof(h));
    send_msg(c, VGPU_MSG_REQUEST, &r, sizeof(r), request, len);
    send_inputs(c, request, h.nbufs);
    for (;;) {
        uint32_t got;
        uint16_t type = receive(c, &got);

        if (type == VGPU_MSG_DATA) {
            take_data(c, request, h.nbufs, got);
        } else if (type == VGPU_MSG_RESPONSE) {
            return take_response(c, got);
        } else if (type != VGPU_MSG_ACCEPT && type != VGPU_MSG_STATE) {
            breach("sent an unexpected message", type);
        }
    }
}
