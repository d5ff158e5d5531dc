/* SPDX-License-Identifier: MIT */
#include "local-mediator/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"

#define WHY_MAX 256
#define ACCEPT_BUDGET 16
#define BACKLOG 64

static int fail(char *why, int r, const char *what, const char *path)
{
    snprintf(why, WHY_MAX, "%s %s: %s", what, path, strerror(-r));
    return r;
}

int listen_peer(int fd, uint32_t *ret_uid, uint32_t *ret_pid)
{
    struct ucred peer;
    socklen_t length = sizeof(peer);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) < 0) {
        return -errno;
    }
    *ret_uid = peer.uid;
    *ret_pid = (uint32_t)peer.pid;
    return 0;
}

static void set_address(struct sockaddr_un *address, const char *path)
{
    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
}

static int make_directory(const char *path, mode_t mode)
{
    if (mkdir(path, mode) < 0) {
        return errno == EEXIST ? 0 : -errno;
    }
    return chmod(path, mode) < 0 ? -errno : 0; /* whatever the umask is */
}

/* Make what is missing of @path: the last directory with @mode, those before it passable. */
static int make_directories(char *path, mode_t mode)
{
    for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        int r;

        *slash = 0;
        r = make_directory(path, 0755);
        *slash = '/';
        if (r < 0) {
            return r;
        }
    }
    return make_directory(path, mode);
}

static int check_directory(const char *directory, const struct listen_owner *owner, char *why)
{
    struct stat status;
    uid_t uid = owner->change ? owner->uid : geteuid();

    if (lstat(directory, &status) < 0) {
        return fail(why, -errno, "cannot look at", directory);
    }
    if (!S_ISDIR(status.st_mode)) {
        snprintf(why, WHY_MAX, "%s is not a directory", directory);
        return -ENOTDIR;
    }
    if (status.st_uid != uid && status.st_uid != 0 && status.st_uid != geteuid()) {
        snprintf(why, WHY_MAX, "%s belongs to uid %u, not to uid %u; remove it or change its owner",
                 directory, status.st_uid, uid);
        return -EPERM;
    }
    if (owner->shared && (status.st_mode & 022)) {
        snprintf(why, WHY_MAX, "%s may be written to by others (mode %03o): chmod go-w it",
                 directory, status.st_mode & 0777);
        return -EPERM;
    }
    if (!owner->shared && (status.st_mode & 077)) {
        snprintf(why, WHY_MAX,
                 "%s may be entered by others (mode %03o); a socket needs a directory of its own: "
                 "chmod 700 it, or name another one",
                 directory, status.st_mode & 0777);
        return -EPERM;
    }
    return 0;
}

static int prepare_directory(const char *socket_path, const struct listen_owner *owner, char *why)
{
    char copy[CONF_PATH_MAX + 1];
    char *directory;
    int r;

    snprintf(copy, sizeof(copy), "%s", socket_path);
    directory = dirname(copy);
    r = make_directories(directory, owner->shared ? 0755 : 0700);
    if (r < 0) {
        return fail(why, r, "cannot make directory", directory);
    }
    r = check_directory(directory, owner, why);
    if (r == 0 && owner->change && chown(directory, owner->uid, (gid_t)-1) < 0) {
        return fail(why, -errno, "cannot give to its user", directory);
    }
    return r;
}

/* A socket file that nobody serves is removed; one that is served, or another kind of file, is not. */
static int clear_path(const char *path, int type, char *why)
{
    CLEANUP(cleanup_fd) int fd = -1;
    struct sockaddr_un address;
    struct stat status;
    uint32_t uid = 0, pid = 0;

    if (lstat(path, &status) < 0) {
        return errno == ENOENT ? 0 : fail(why, -errno, "cannot look at", path);
    }
    if (!S_ISSOCK(status.st_mode)) {
        snprintf(why, WHY_MAX, "%s exists and is not a socket; remove it or name another path",
                 path);
        return -EEXIST;
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return fail(why, -errno, "cannot make a socket for", path);
    }
    set_address(&address, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0) {
        listen_peer(fd, &uid, &pid);
        snprintf(why, WHY_MAX, "%s: socket in use by pid %u; stop that process first", path, pid);
        return -EADDRINUSE;
    }
    if (errno != ECONNREFUSED) {
        /* EAGAIN: its backlog is full; EPROTOTYPE: served with another type. */
        snprintf(why, WHY_MAX, "%s: socket in use: %s", path, strerror(errno));
        return -EADDRINUSE;
    }
    return unlink(path) < 0 ? fail(why, -errno, "cannot remove the stale socket", path) : 0;
}

static int make_socket(const char *path, int type, const struct listen_owner *owner, char *why,
                       int *ret_fd)
{
    CLEANUP(cleanup_fd) int fd = socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un address;

    if (fd < 0) {
        return fail(why, -errno, "cannot make a socket for", path);
    }
    set_address(&address, path);
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        return fail(why, -errno, "cannot bind", path);
    }
    if (chmod(path, 0600) < 0 || (owner->change && chown(path, owner->uid, (gid_t)-1) < 0) ||
        listen(fd, BACKLOG) < 0) {
        int r = fail(why, -errno, "cannot listen at", path);

        unlink(path);
        return r;
    }
    *ret_fd = TAKE_FD(fd);
    return 0;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct listener *l = poll->data;

    (void)status;
    (void)events;
    for (int i = 0; i < ACCEPT_BUDGET && l->fd >= 0; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE) {
                uv_poll_stop(&l->poll); /* the connection stays in the backlog meanwhile */
            }
            return;
        }
        l->on_connect(l, fd);
        if (l->paced && ++l->accepted >= LISTEN_PACE && l->fd >= 0) {
            uv_poll_stop(
                &l->poll); /* whoever comes and goes all the time waits for the next tick */
            return;
        }
    }
}

int listen_start(struct listener *l, uv_loop_t *loop, int type, const struct listen_owner *owner,
                 char *why)
{
    int fd = -1;
    int r = prepare_directory(l->path, owner, why);

    r = r == 0 ? clear_path(l->path, type, why) : r;
    r = r == 0 ? make_socket(l->path, type, owner, why, &fd) : r;
    if (r < 0) {
        return r;
    }
    r = uv_poll_init(loop, &l->poll, fd);
    if (r < 0) {
        close(fd);
        unlink(l->path);
        return fail(why, r, "cannot watch", l->path);
    }
    l->fd = fd;
    l->poll.data = l;
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
    return 0;
}

void listen_resume(struct listener *l)
{
    l->accepted = 0;
    if (l->fd >= 0 && !uv_is_active((uv_handle_t *)&l->poll)) {
        uv_poll_start(&l->poll, UV_READABLE, on_readable);
    }
}

void listen_stop(struct listener *l, uv_close_cb on_closed)
{
    if (l->fd < 0) {
        return;
    }
    uv_close((uv_handle_t *)&l->poll, on_closed);
    close(l->fd);
    l->fd = -1;
    unlink(l->path);
}
