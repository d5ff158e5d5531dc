/* SPDX-License-Identifier: MIT */
#include "local-mediator/admin.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "local-mediator/adminview.h"
#include "local-mediator/listen.h"

struct client {
    LIST_ENTRY(client) link;
    uv_pipe_t pipe;
    uv_write_t write;
    struct admin *admin;
    char line[ADMIN_LINE_MAX];
    size_t used;
    char *answer; /* on its way out; NULL: none */
};

struct admin {
    struct mediator *m;
    struct listener listener;
    LIST_HEAD(, client) clients;
    uint32_t n_clients;
    bool listening, closing;
};

static void put_admin(struct admin *admin)
{
    if (admin->closing && !admin->listening && !admin->n_clients) {
        free(admin);
    }
}

static void on_client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;
    struct admin *admin = client->admin;

    LIST_REMOVE(client, link);
    admin->n_clients--;
    free(client->answer);
    free(client);
    put_admin(admin);
}

static void close_client(struct client *client)
{
    if (!uv_is_closing((uv_handle_t *)&client->pipe)) {
        uv_close((uv_handle_t *)&client->pipe, on_client_closed);
    }
}

/* ---- requests ---- */

static json_t *answer_error(const char *text)
{
    return json_pack("{s:s, s:s}", "schema", "vgpu.error/1", "error", text);
}

static json_t *answer(struct mediator *m, const char *line, size_t length)
{
    json_error_t error;
    json_t *request = json_loadb(line, length, JSON_REJECT_DUPLICATES, &error);
    const char *command = json_string_value(json_object_get(request, "command"));
    json_t *reply;

    if (!json_is_object(request)) {
        reply = answer_error("a question is one JSON object in one line");
    } else if (!command) {
        reply = answer_error("the question has no 'command'");
    } else {
        reply = adminview_make(m, command, request);
        reply = reply ? reply
                      : answer_error("unknown command or argument; known: queues, workers, "
                                     "vms, jobs (limit 1 to 1000)");
    }
    json_decref(request);
    return reply;
}

static void serve_lines(struct client *client);

static void on_written(uv_write_t *write, int status)
{
    struct client *client = write->data;

    free(client->answer);
    client->answer = NULL;
    if (status < 0) {
        close_client(client);
        return;
    }
    serve_lines(client);
}

static int send_answer(struct client *client, json_t *reply)
{
    size_t length;
    uv_buf_t buffer;
    char *text = reply ? json_dumps(reply, JSON_COMPACT | JSON_REAL_PRECISION(10)) : NULL;
    char *line;

    json_decref(reply);
    length = text ? strlen(text) : 0;
    line = text ? realloc(text, length + 2) : NULL;
    if (!line) {
        free(text);
        return -ENOMEM;
    }
    memcpy(line + length, "\n", 2);
    client->answer = line;
    client->write.data = client;
    buffer = uv_buf_init(line, (unsigned)(length + 1));
    return uv_write(&client->write, (uv_stream_t *)&client->pipe, &buffer, 1, on_written);
}

static void allocate(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct client *client = handle->data;

    (void)suggested;
    *buffer = uv_buf_init(client->line + client->used, (unsigned)(ADMIN_LINE_MAX - client->used));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    struct client *client = stream->data;

    (void)buffer;
    if (n < 0) {
        close_client(client);
        return;
    }
    client->used += (size_t)n;
    serve_lines(client);
}

/* Answer the first complete line; with an answer under way reading stops. */
static void serve_lines(struct client *client)
{
    char *end = memchr(client->line, '\n', client->used);
    size_t length;
    int r = 0;

    if (uv_is_closing((uv_handle_t *)&client->pipe)) {
        return;
    }
    if (!end && client->used < ADMIN_LINE_MAX) {
        uv_read_start((uv_stream_t *)&client->pipe, allocate, on_read);
        return;
    }
    uv_read_stop((uv_stream_t *)&client->pipe);
    if (!end) {
        client->used = 0;
        r = send_answer(client, answer_error("the question is longer than 64 KiB"));
    } else {
        length = (size_t)(end - client->line);
        r = send_answer(client, answer(client->admin->m, client->line, length));
        client->used -= length + 1;
        memmove(client->line, end + 1, client->used);
    }
    if (r < 0) {
        close_client(client);
    }
}

/* ---- coming and going ---- */

static void on_connect(struct listener *l, int fd)
{
    struct admin *admin = l->user;
    struct client *client =
        admin->n_clients < ADMIN_CLIENTS_MAX ? calloc(1, sizeof(*client)) : NULL;

    if (!client) {
        close(fd);
        return;
    }
    client->admin = admin;
    client->pipe.data = client;
    uv_pipe_init(&admin->m->loop, &client->pipe, 0);
    LIST_INSERT_HEAD(&admin->clients, client, link);
    admin->n_clients++;
    if (uv_pipe_open(&client->pipe, fd) < 0) {
        close(fd);
        close_client(client);
        return;
    }
    uv_read_start((uv_stream_t *)&client->pipe, allocate, on_read);
}

int admin_new(struct mediator *m, struct admin **ret_admin)
{
    const struct listen_owner owner = {.shared = true};
    struct admin *admin = calloc(1, sizeof(*admin));
    char why[256];
    int r;

    if (!admin) {
        return -ENOMEM;
    }
    admin->m = m;
    LIST_INIT(&admin->clients);
    snprintf(admin->listener.path, sizeof(admin->listener.path), "%s/admin.sock", m->run_dir);
    admin->listener.on_connect = on_connect;
    admin->listener.user = admin;
    r = listen_start(&admin->listener, &m->loop, SOCK_STREAM, &owner, why);
    if (r < 0) {
        log_error("admin socket refused", LOG_S("why", why));
        free(admin);
        return r;
    }
    admin->listening = true;
    *ret_admin = admin;
    return 0;
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    struct admin *admin = l->user;

    admin->listening = false;
    put_admin(admin);
}

void admin_free(struct admin *admin)
{
    struct client *client;

    if (!admin) {
        return;
    }
    admin->closing = true;
    LIST_FOREACH (client, &admin->clients, link) {
        close_client(client);
    }
    listen_stop(&admin->listener, on_listener_closed);
}
