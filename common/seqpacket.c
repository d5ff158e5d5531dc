/* SPDX-License-Identifier: MIT */
#include "common/seqpacket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"

/* More descriptors than any message has, so that a few too many are seen (and closed) one by one;
 * the kernel itself closes those beyond the control buffer and sets MSG_CTRUNC. */
#define FDS_ROOM (SEQPACKET_FDS_MAX + 8)

struct seqpacket_queued {
    struct seqpacket_queued *next;
    size_t length;
    unsigned n_fds;
    int *fds; /* behind the bytes */
    uint8_t bytes[];
};

union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(FDS_ROOM * sizeof(int))];
};

static int set_flags(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
        return -errno;
    }
    return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
}

int seqpacket_init(struct seqpacket *sp, int fd, enum msgcheck_from from)
{
    int r = set_flags(fd);

    if (r < 0) {
        return r;
    }
    *sp = (struct seqpacket){
        .fd = fd,
        .from = from,
        .max_messages = SEQPACKET_QUEUE_MESSAGES,
        .max_bytes = SEQPACKET_QUEUE_BYTES,
    };
    sp->tail = &sp->head;
    return 0;
}

static void queued_free(struct seqpacket_queued *q)
{
    for (unsigned i = 0; i < q->n_fds; i++) {
        close(q->fds[i]);
    }
    free(q);
}

static void queue_pop(struct seqpacket *sp)
{
    struct seqpacket_queued *q = sp->head;

    sp->head = q->next;
    if (!sp->head) {
        sp->tail = &sp->head;
    }
    sp->queued--;
    sp->queued_bytes -= q->length;
    queued_free(q);
}

void seqpacket_fini(struct seqpacket *sp)
{
    while (sp->head) {
        queue_pop(sp);
    }
    cleanup_fd(&sp->fd);
    sp->fd = -1;
}

void seqpacket_start(struct vgpu_msg *msg, uint16_t type, size_t length, uint32_t epoch)
{
    *msg = (struct vgpu_msg){
        .magic = VGPU_MSG_MAGIC,
        .type = type,
        .length = (uint32_t)length,
        .epoch = epoch,
    };
}

/* Return: 0 sent; SEQPACKET_E_AGAIN, SEQPACKET_E_CLOSED; -errno. */
static int send_now(int socket, struct iovec *parts, size_t count, const int *fds, unsigned n_fds)
{
    union control control;
    struct msghdr header = {.msg_iov = parts, .msg_iovlen = count};

    if (n_fds > 0) {
        struct cmsghdr *c;

        header.msg_control = control.bytes;
        header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, n_fds * sizeof(int));
    }
    for (;;) {
        if (sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
            return 0;
        }
        switch (errno) {
        case EINTR:
            continue;
        case EAGAIN:
        case ENOBUFS:
            return SEQPACKET_E_AGAIN;
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN:
            return SEQPACKET_E_CLOSED;
        default:
            return -errno;
        }
    }
}

/* Return: 0; -errno, none is left open then. */
static int duplicate_fds(struct seqpacket_queued *q, const int *fds, unsigned n_fds)
{
    while (q->n_fds < n_fds) {
        int fd = fcntl(fds[q->n_fds], F_DUPFD_CLOEXEC, 3);

        if (fd < 0) {
            return -errno;
        }
        q->fds[q->n_fds++] = fd;
    }
    return 0;
}

static int queue_push(struct seqpacket *sp, const struct iovec *parts, size_t length,
                      const int *fds, unsigned n_fds)
{
    size_t fds_at = (length + sizeof(int) - 1) / sizeof(int) * sizeof(int);
    struct seqpacket_queued *q;
    int r;

    if (sp->queued >= sp->max_messages || length > sp->max_bytes - sp->queued_bytes) {
        sp->refused++;
        return SEQPACKET_E_FULL;
    }
    q = malloc(sizeof(*q) + fds_at + n_fds * sizeof(int));
    if (!q) {
        return -ENOMEM;
    }
    *q = (struct seqpacket_queued){.length = length};
    q->fds = (int *)(void *)(q->bytes + fds_at);
    r = duplicate_fds(q, fds, n_fds);
    if (r < 0) {
        queued_free(q);
        return r;
    }
    memcpy(q->bytes, parts[0].iov_base, parts[0].iov_len);
    if (parts[1].iov_len) {
        memcpy(q->bytes + parts[0].iov_len, parts[1].iov_base, parts[1].iov_len);
    }
    *sp->tail = q;
    sp->tail = &q->next;
    sp->queued++;
    sp->queued_bytes += length;
    return 0;
}

int seqpacket_send(struct seqpacket *sp, const struct vgpu_msg *msg, size_t fixed_bytes,
                   const void *tail, const int *fds, unsigned n_fds)
{
    size_t length = msg->length;
    struct iovec parts[2] = {
        {.iov_base = (void *)(uintptr_t)msg, .iov_len = fixed_bytes},
        {.iov_base = (void *)(uintptr_t)tail, .iov_len = length - fixed_bytes},
    };
    int r = SEQPACKET_E_AGAIN;

    if (length < fixed_bytes || length > VGPU_MSG_MAX || (length > fixed_bytes && !tail) ||
        n_fds > SEQPACKET_FDS_MAX) {
        return -EINVAL;
    }
    if (sp->fd < 0) {
        return SEQPACKET_E_CLOSED;
    }
    if (!sp->head) {
        r = send_now(sp->fd, parts, 2, fds, n_fds);
    }
    if (r == SEQPACKET_E_AGAIN) {
        return queue_push(sp, parts, length, fds, n_fds);
    }
    sp->sent += r == 0;
    return r;
}

bool seqpacket_pending(const struct seqpacket *sp)
{
    return sp->head != NULL;
}

int seqpacket_flush(struct seqpacket *sp)
{
    while (sp->head) {
        struct seqpacket_queued *q = sp->head;
        struct iovec part = {.iov_base = q->bytes, .iov_len = q->length};
        int r = send_now(sp->fd, &part, 1, q->fds, q->n_fds);

        if (r == SEQPACKET_E_AGAIN) {
            return 0;
        }
        if (r != 0) {
            return r;
        }
        sp->sent++;
        queue_pop(sp);
    }
    return 0;
}

/* Keep the first SEQPACKET_FDS_MAX descriptors, close the others; return how many there were. */
static unsigned take_fds(struct msghdr *header, struct seqpacket_message *message)
{
    unsigned count = 0;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
            if (count++ < SEQPACKET_FDS_MAX) {
                message->fds[message->n_fds++] = fd;
            } else {
                close(fd);
            }
        }
    }
    return count;
}

static const char *check_received(const struct seqpacket *sp, const struct msghdr *header,
                                  const void *bytes, size_t length, unsigned fds)
{
    if (header->msg_flags & MSG_TRUNC) {
        return "longer than any message";
    }
    if (header->msg_flags & MSG_CTRUNC) {
        return fds < FDS_ROOM
                   ? "its file descriptors did not arrive: this process has too many open"
                   : "carries file descriptors that do not belong there";
    }
    return msgcheck_message(sp->from, bytes, length, fds);
}

int seqpacket_receive(struct seqpacket *sp, struct seqpacket_buffer *buffer,
                      struct seqpacket_message *ret_message)
{
    union control control;
    struct iovec part = {.iov_base = buffer->bytes, .iov_len = sizeof(buffer->bytes)};
    struct msghdr header = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    unsigned fds, resets = 0;
    ssize_t n;

    /* A peer that closes with unread messages leaves one ECONNRESET in front of what it had sent
     * before: its last messages are still there. */
    do {
        n = recvmsg(sp->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && (errno == EINTR || (errno == ECONNRESET && resets++ == 0)));
    if (n < 0) {
        if (errno == EAGAIN) {
            return SEQPACKET_E_AGAIN;
        }
        return errno == ECONNRESET ? SEQPACKET_E_CLOSED : -errno;
    }
    ret_message->n_fds = 0;
    fds = take_fds(&header, ret_message);
    if (n == 0 && fds == 0) {
        return SEQPACKET_E_CLOSED;
    }
    sp->wrong = check_received(sp, &header, buffer->bytes, (size_t)n, fds);
    if (sp->wrong) {
        seqpacket_close_fds(ret_message);
        return SEQPACKET_E_BAD;
    }
    sp->received++;
    ret_message->msg = (const struct vgpu_msg *)buffer->bytes;
    ret_message->length = (size_t)n;
    return 0;
}

int seqpacket_take_fd(struct seqpacket_message *message, unsigned i)
{
    int fd = -1;

    if (i < message->n_fds) {
        fd = message->fds[i];
        message->fds[i] = -1;
    }
    return fd;
}

void seqpacket_close_fds(struct seqpacket_message *message)
{
    for (unsigned i = 0; i < message->n_fds; i++) {
        cleanup_fd(&message->fds[i]);
        message->fds[i] = -1;
    }
    message->n_fds = 0;
}

const char *seqpacket_wrong(const struct seqpacket *sp)
{
    return sp->wrong ? sp->wrong : "nothing";
}
