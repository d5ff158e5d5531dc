/* SPDX-License-Identifier: MIT */
/* See vmsock.h. */
#include "bench/vmsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "bench/stats.h"

_Noreturn void vmsock_breach(const char *what, uint32_t type)
{
    fprintf(stderr, "%s: the mediator %s (message type 0x%x)\n", program_invocation_short_name,
            what, type);
    exit(1);
}

void vmsock_connect(struct vmsock *s, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = VMSOCK_TIMEOUT_S};

    if (strlen(path) >= sizeof(a.sun_path)) {
        errno = ENAMETOOLONG;
        die(path);
    }
    strcpy(a.sun_path, path);
    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || connect(s->fd, (struct sockaddr *)&a, sizeof(a)) ||
        setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit))) {
        die(path);
    }
}

void vmsock_close(struct vmsock *s)
{
    close(s->fd);
}

/* The message @head and @tail, with @control (NULL: none), the descriptors that go with it. */
static void send_with(struct vmsock *s, uint16_t type, void *control, size_t control_len,
                      void *head, size_t head_len, const void *tail, size_t tail_len)
{
    struct vgpu_msg m = {
        .magic = VGPU_MSG_MAGIC,
        .type = type,
        .length = (uint32_t)(head_len + tail_len),
    };
    struct iovec iov[2] = {{head, head_len}, {(void *)(uintptr_t)tail, tail_len}};
    struct msghdr h = {
        .msg_iov = iov,
        .msg_iovlen = tail_len ? 2 : 1,
        .msg_control = control,
        .msg_controllen = control_len,
    };

    memcpy(head, &m, sizeof(m));
    if (sendmsg(s->fd, &h, MSG_NOSIGNAL) != (ssize_t)(head_len + tail_len)) {
        die("send to the mediator");
    }
}

void vmsock_send(struct vmsock *s, uint16_t type, void *head, size_t head_len, const void *tail,
                 size_t tail_len)
{
    send_with(s, type, NULL, 0, head, head_len, tail, tail_len);
}

uint16_t vmsock_receive(struct vmsock *s, uint32_t *ret_len)
{
    struct vgpu_msg m;
    ssize_t n = recv(s->fd, s->msg, sizeof(s->msg), 0);

    if (n < 0) {
        die("no answer from the mediator");
    }
    memcpy(&m, s->msg, sizeof(m));
    if (n < (ssize_t)sizeof(m) || m.magic != VGPU_MSG_MAGIC || m.length != (size_t)n) {
        vmsock_breach(n == 0 ? "closed the connection" : "sent no message", 0);
    }
    if (m.type == VGPU_MSG_REFUSED) {
        fprintf(stderr, "%s: refused: %.*s\n", program_invocation_short_name,
                (int)(n - (ssize_t)sizeof(struct vgpu_refused)),
                (char *)s->msg + sizeof(struct vgpu_refused));
        exit(1);
    }
    *ret_len = (uint32_t)n;
    return m.type;
}

static void send_hello(struct vmsock *s, struct vgpu_hello *hello, const int *fds, uint32_t n_fds)
{
    _Alignas(struct cmsghdr)
        uint8_t control[CMSG_SPACE(sizeof(int) * VGPU_HELLO_FDS(VGPU_RINGS_MAX))] = {0};
    struct cmsghdr *c = (struct cmsghdr *)control;

    if (n_fds == 0) {
        vmsock_send(s, VGPU_MSG_HELLO, hello, sizeof(*hello), NULL, 0);
        return;
    }
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * n_fds);
    send_with(s, VGPU_MSG_HELLO, control, CMSG_SPACE(sizeof(int) * n_fds), hello, sizeof(*hello),
              NULL, 0);
}

void vmsock_hello(struct vmsock *s, struct vgpu_hello *hello, const int *fds, uint32_t n_fds,
                  struct vgpu_hello_ack *ret)
{
    struct vgpu_state state;
    uint32_t len;

    hello->version_min = VGPU_LOCAL_VERSION_MIN;
    hello->version_max = VGPU_LOCAL_VERSION_MAX;
    if (getrandom(hello->uuid, sizeof(hello->uuid), 0) < 0 ||
        getrandom(&hello->boot_id, sizeof(hello->boot_id), 0) < 0) {
        die("getrandom");
    }
    send_hello(s, hello, fds, n_fds);
    if (vmsock_receive(s, &len) != VGPU_MSG_HELLO_ACK || len != sizeof(*ret)) {
        vmsock_breach("did not answer HELLO", 0);
    }
    memcpy(ret, s->msg, sizeof(*ret));
    for (state.up = ret->up; !state.up;) {
        if (vmsock_receive(s, &len) != VGPU_MSG_STATE || len != sizeof(state)) {
            vmsock_breach("is not up and does not say STATE", 0);
        }
        memcpy(&state, s->msg, sizeof(state));
    }
}
