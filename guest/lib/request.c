/* SPDX-License-Identifier: MIT */
/* request.c - fill in requests, read results; see vgpu.h */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/lib/client.h"
#include "guest/lib/err.h"

static bool under_way(const struct vgpu_request *req)
{
    struct vgpu *gpu = req->gpu;
    bool r;

    pthread_mutex_lock(&gpu->lock);
    r = req->state == REQUEST_QUEUED || req->state == REQUEST_FLYING;
    pthread_mutex_unlock(&gpu->lock);
    return r;
}

struct vgpu_request *vgpu_request_new(struct vgpu *gpu)
{
    struct vgpu_request *req = calloc(1, sizeof(*req));

    if (!req) {
        return NULL;
    }
    req->gpu = gpu;
    req->options.band = VGPU_BAND_DEFAULT;
    pthread_mutex_lock(&gpu->lock);
    gpu->requests++;
    pthread_mutex_unlock(&gpu->lock);
    return req;
}

void vgpu_request_free(struct vgpu_request *req)
{
    if (!req) {
        return;
    }
    if (under_way(req)) {
        vgpu_cancel(req);
        vgpu_wait(req, -1);
    }
    pthread_mutex_lock(&req->gpu->lock);
    req->gpu->requests--;
    pthread_mutex_unlock(&req->gpu->lock);
    free(req);
}

void vgpu_request_set(struct vgpu_request *req, const struct vgpu_request_options *options)
{
    req->options = *options;
}

int vgpu_request_begin(struct vgpu_request *req, unsigned op)
{
    if (under_way(req)) {
        return -EBUSY;
    }
    req->spec.nbufs = 0;
    req->spec.body_len = 0;
    req->spec.hdr = (struct vgpu_req_hdr){.op = (uint16_t)op};
    req->broken = 0;
    req->state = REQUEST_IDLE;
    req->text[0] = 0;
    req->payload_len = 0;
    memset(&req->response, 0, sizeof(req->response));
    if (op > UINT16_MAX) {
        req->broken = -EINVAL;
        client_fail(req, -EINVAL, "op %u: op numbers have 16 bits", op);
    }
    return req->broken;
}

int vgpu_request_body(struct vgpu_request *req, const void *body, size_t bytes)
{
    if (req->broken) {
        return req->broken;
    }
    if (bytes % 8 != 0) {
        req->broken = -EINVAL;
        client_fail(req, -EINVAL, "an op body of %zu bytes: it must be a multiple of 8", bytes);
    } else if (bytes > ENCODE_BODY_MAX) {
        req->broken = -EMSGSIZE;
        client_fail(req, -EMSGSIZE, "an op body of %zu bytes: at most %u", bytes, ENCODE_BODY_MAX);
    } else if (bytes) {
        memcpy(req->spec.body, body, bytes);
        req->spec.body_len = (uint32_t)bytes;
    }
    return req->broken;
}

static int add_buffer(struct vgpu_request *req, void *memory, uint64_t bytes, uint8_t dir)
{
    unsigned n = req->spec.nbufs;

    if (req->broken) {
        return req->broken;
    }
    if (n == VGPU_BUFS_MAX) {
        req->broken = -E2BIG;
        client_fail(req, -E2BIG, "buffer number %u", n + 1);
    } else if (bytes == 0 || !memory) {
        req->broken = -EINVAL;
        client_fail(req, -EINVAL, "buffer %u (%s) is empty", n,
                    dir == VGPU_BUF_IN ? "input" : "output");
    } else {
        req->spec.bufs[n] = (struct encode_buf){.memory = memory, .length = bytes, .dir = dir};
        req->spec.nbufs++;
    }
    return req->broken;
}

int vgpu_request_in(struct vgpu_request *req, const void *data, uint64_t bytes)
{
    return add_buffer(req, (void *)(uintptr_t)data, bytes, VGPU_BUF_IN);
}

int vgpu_request_out(struct vgpu_request *req, void *data, uint64_t bytes)
{
    return add_buffer(req, data, bytes, VGPU_BUF_OUT);
}

void client_fail(struct vgpu_request *req, int code, const char *detail, ...)
{
    char extra[300];
    va_list ap;

    va_start(ap, detail);
    vsnprintf(extra, sizeof(extra), detail, ap);
    va_end(ap);
    req->code = code;
    snprintf(req->text, sizeof(req->text), "%s: %s%s%s", vgpu_code_name(code), vgpu_code_text(code),
             extra[0] ? ": " : "", extra);
    err_clean(req->text);
}

const struct vgpu_resp_hdr *vgpu_result(const struct vgpu_request *req)
{
    return &req->response;
}

const char *vgpu_result_text(const struct vgpu_request *req)
{
    return req->text;
}

int vgpu_run(struct vgpu_request *req, struct vgpu_err *ret_err)
{
    int r = vgpu_submit(req);

    if (r == -EBUSY) {
        return err_set(ret_err, r, "the request is under way already");
    }
    if (r == 0) {
        r = vgpu_wait(req, -1);
    }
    return r ? err_set(ret_err, r, "%s", req->text) : 0;
}
