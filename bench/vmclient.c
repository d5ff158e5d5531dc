/* SPDX-License-Identifier: MIT */
/* See vmclient.h. */
#include <string.h>
#include <sys/mman.h>

#include "bench/stats.h"
#include "bench/vmclient.h"

static void say_hello(struct vmclient *c)
{
    struct vgpu_hello hello = {
        .arena_size = c->arena_size,
        .conn_gen = 1,
        .band_wish = VGPU_BAND_DEFAULT,
    };
    struct vgpu_hello_ack ack;

    vmsock_hello(&c->sock, &hello, NULL, 0, &ack);
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
    vmsock_connect(&c->sock, path);
    say_hello(c);
}

void vmclient_close(struct vmclient *c)
{
    vmsock_close(&c->sock);
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

            vmsock_send(&c->sock, VGPU_MSG_DATA, &d, sizeof(d), c->arena + b.offset + at,
                        left < VGPU_DATA_CHUNK ? left : VGPU_DATA_CHUNK);
        }
    }
}

static void take_data(struct vmclient *c, const void *request, uint32_t nbufs, uint32_t len)
{
    struct vgpu_data d;
    struct vgpu_buf b;
    uint64_t bytes = len - sizeof(d);

    memcpy(&d, c->sock.msg, sizeof(d));
    if (len <= sizeof(d) || d.seq != c->seq || d.buffer >= nbufs) {
        vmsock_breach("sent DATA of another request", VGPU_MSG_DATA);
    }
    b = buffer(request, d.buffer);
    if (b.kind != VGPU_BUF_ARENA || b.dir != VGPU_BUF_OUT || d.offset > b.length ||
        bytes > b.length - d.offset) {
        vmsock_breach("sent DATA outside an output", VGPU_MSG_DATA);
    }
    memcpy(c->arena + b.offset + d.offset, c->sock.msg + sizeof(d), bytes);
}

static const struct vgpu_resp_hdr *take_response(struct vmclient *c, uint32_t len)
{
    struct vgpu_response r;

    memcpy(&r, c->sock.msg, sizeof(r));
    if (len < sizeof(r) + sizeof(struct vgpu_resp_hdr) || len > sizeof(r) + sizeof(c->response) ||
        r.seq != c->seq) {
        vmsock_breach("sent a RESPONSE to another request", VGPU_MSG_RESPONSE);
    }
    memcpy(c->response, c->sock.msg + sizeof(r), len - sizeof(r));
    return (const struct vgpu_resp_hdr *)(const void *)c->response;
}

const struct vgpu_resp_hdr *vmclient_run(struct vmclient *c, const void *request, uint32_t len)
{
    struct vgpu_request r = {.seq = ++c->seq, .deadline_left_ms = VMSOCK_TIMEOUT_S * 500};
    struct vgpu_req_hdr h;

    memcpy(&h, request, sizeof(h));
    vmsock_send(&c->sock, VGPU_MSG_REQUEST, &r, sizeof(r), request, len);
    send_inputs(c, request, h.nbufs);
    for (;;) {
        uint32_t got;
        uint16_t type = vmsock_receive(&c->sock, &got);

        if (type == VGPU_MSG_DATA) {
            take_data(c, request, h.nbufs, got);
        } else if (type == VGPU_MSG_RESPONSE) {
            return take_response(c, got);
        } else if (type != VGPU_MSG_ACCEPT && type != VGPU_MSG_STATE) {
            vmsock_breach("sent an unexpected message", type);
        }
    }
}
