/* SPDX-License-Identifier: MIT */
/* client.c - see client.h */
#include "admin/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "common/cleanup.h"

static int unreachable(const char *path, int err, char *why, size_t why_size)
{
    const char *hint = "";

    if (err == ENOENT) {
        hint = "; is vgpu-mediator running, and is this its run directory (--admin PATH)?";
    } else if (err == ECONNREFUSED) {
        hint = "; the mediator that made this socket is gone";
    } else if (err == EACCES) {
        hint = "; the socket belongs to the mediator's user: try as that user or as root";
    } else if (err == EAGAIN || err == EWOULDBLOCK) {
        err = ETIMEDOUT;
        hint = "; the mediator did not answer in time";
    }
    snprintf(why, why_size, "%s: %s%s", path, strerror(err), hint);
    return CLIENT_E_UNREACHABLE;
}

static int open_socket(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = CLIENT_TIMEOUT_S};
    CLEANUP(cleanup_fd) int fd = -1;

    if (strlen(path) >= sizeof(addr.sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(addr.sun_path, path, strlen(path));
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ||
        connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        return -errno;
    }
    return TAKE_FD(fd);
}

static int send_line(int fd, const json_t *question)
{
    CLEANUP(cleanup_free) char *text = json_dumps(question, JSON_COMPACT);
    size_t length;
    size_t sent = 0;

    if (!text) {
        return -ENOMEM;
    }
    length = strlen(text);
    text[length++] = '\n'; /* over the terminating 0: the length is known */
    while (sent < length) {
        ssize_t n = send(fd, text + sent, length - sent, MSG_NOSIGNAL);

        if (n < 0) {
            return -errno;
        }
        sent += (size_t)n;
    }
    return 0;
}

/* Reads up to and including the newline. */
static int receive_line(int fd, char **ret, size_t *ret_length)
{
    CLEANUP(cleanup_free) char *buf = NULL;
    size_t size = 0;
    size_t have = 0;

    for (;;) {
        ssize_t n;

        if (have == size) {
            char *more = size < CLIENT_ANSWER_MAX ? realloc(buf, size ? size * 2 : 65536) : NULL;

            if (!more) {
                return -EMSGSIZE;
            }
            buf = more;
            size = size ? size * 2 : 65536;
        }
        n = recv(fd, buf + have, size - have, 0);
        if (n <= 0) {
            return n < 0 ? -errno : -ECONNRESET;
        }
        have += (size_t)n;
        if (buf[have - 1] == '\n') {
            *ret = TAKE_PTR(buf);
            *ret_length = have - 1;
            return 0;
        }
    }
}

static int check_answer(json_t *answer, json_t **ret, char *why, size_t why_size)
{
    const char *schema = json_string_value(json_object_get(answer, "schema"));

    if (!schema) {
        snprintf(why, why_size, "the answer is not JSON with a schema: is that an admin socket?");
    } else if (strcmp(schema, "vgpu.error/1") == 0) {
        const char *error = json_string_value(json_object_get(answer, "error"));

        snprintf(why, why_size, "the mediator says: %s", error ? error : "(no reason)");
    } else {
        *ret = answer;
        return 0;
    }
    json_decref(answer);
    return CLIENT_E_REFUSED;
}

int client_ask(const char *path, const json_t *question, json_t **ret, char *why, size_t why_size)
{
    CLEANUP(cleanup_fd) int fd = open_socket(path);
    CLEANUP(cleanup_free) char *line = NULL;
    size_t length = 0;
    int err = fd < 0 ? fd : send_line(fd, question);

    err = err ? err : receive_line(fd, &line, &length);
    if (err) {
        return unreachable(path, -err, why, why_size);
    }
    return check_answer(json_loadb(line, length, 0, NULL), ret, why, why_size);
}
