/* SPDX-License-Identifier: MIT */
/*
 * request - parse and validate a request, and make responses
 *
 * Pure. The one place that decides whether the header and buffer list of a request are acceptable;
 * the stub, the mediator and the worker all call it on their own private copy, each once. It never
 * reads an op body: op-specific checks belong to the worker (gpu-worker/ops/).
 *
 * Format: proto/vgpu_regs.h, "requests".
 */
#ifndef VGPU_CORE_REQUEST_H
#define VGPU_CORE_REQUEST_H

#include <stddef.h>
#include <stdint.h>

#include "proto/vgpu_regs.h"

#define REQUEST_WHY_MAX 160u /* room that a caller gives for a sentence */

/* What the caller's side of the request may use. */
struct request_limits {
    uint32_t max_size;    /* bytes of a request, at most VGPU_REQ_MAX */
    uint32_t payload_max; /* bytes of INLINE outputs */
    uint32_t features;    /* VGPU_FEATURE_OBJECT, PROGRAM: kinds of buffer that are allowed */
    uint64_t arena_size;  /* bytes of the space that ARENA offsets lie in */
};

/* A parsed request. `bytes` is the caller's private copy, which must outlive this view. */
struct request {
    const uint8_t *bytes;
    struct vgpu_req_hdr hdr;
    struct vgpu_buf bufs[VGPU_BUFS_MAX];
    uint32_t body_offset;   /* of the op body in bytes; its length is hdr.body_len */
    uint32_t inline_offset; /* of the inline data in bytes */
    uint32_t payload_len;   /* end of the last INLINE output */
    uint64_t arena_in;      /* bytes of ARENA inputs */
    uint64_t arena_out;     /* bytes of ARENA outputs */
};

/**
 * request_parse() - validate @bytes as a request
 * @bytes: private copy of the request; nobody else may change it
 * @len:   bytes in @bytes that may be read, and exactly what the request must say it has
 * @limits: what is allowed here
 * @ret:   the parsed request; written only when VGPU_E_OK is returned
 * @why:   REQUEST_WHY_MAX bytes for a sentence that says what is wrong and where; written only on
 *         an error
 *
 * Return: enum vgpu_error; VGPU_E_OK when header and buffer list are acceptable.
 */
uint32_t request_parse(const void *bytes, size_t len, const struct request_limits *limits,
                       struct request *ret, char *why);

/**
 * request_peek_tag() - tag of a request that need not be valid
 *
 * Return: the tag, 0 when @len does not reach that far.
 */
uint64_t request_peek_tag(const void *bytes, size_t len);

/**
 * request_peek_op() - op number of a request that need not be valid
 *
 * Return: the op, VGPU_OP_INFO when @len does not reach that far.
 */
uint16_t request_peek_op(const void *bytes, size_t len);

/**
 * request_rebase() - move the ARENA buffers of a request to other offsets
 * @bytes:   the request's bytes, which are changed
 * @r:       its parsed form, which is changed too
 * @offsets: one new offset per buffer; those of other kinds are ignored
 */
void request_rebase(void *bytes, struct request *r, const uint64_t *offsets);

/**
 * response_error() - make a response that carries an error and a sentence
 * @buf:   room for the response
 * @cap:   its size, at least sizeof(struct vgpu_resp_hdr); the sentence is cut to fit
 * @op:    of the request
 * @tag:   of the request
 * @error: enum vgpu_error
 * @text:  the sentence; NULL or empty: the error's own
 *
 * Return: bytes of the response.
 */
uint32_t response_error(void *buf, size_t cap, uint16_t op, uint64_t tag, uint32_t error,
                        const char *text);

/**
 * response_check() - validate a response that came from another process
 * @bytes: private copy
 * @len:   exactly its bytes
 * @op:    the op that was asked
 * @tag:   the tag that was asked
 * @payload_max: most payload bytes
 * @ret:   its header; written only on VGPU_E_OK
 * @why:   REQUEST_WHY_MAX bytes, written only on an error
 *
 * Return: VGPU_E_OK or VGPU_E_INTERNAL.
 */
uint32_t response_check(const void *bytes, size_t len, uint16_t op, uint64_t tag,
                        uint32_t payload_max, struct vgpu_resp_hdr *ret, char *why);

/** vgpu_error_name() - "BAD_SHAPE" for VGPU_E_BAD_SHAPE; "UNKNOWN" for a number not in the table */
const char *vgpu_error_name(uint32_t error);

/** vgpu_error_text() - the sentence of an error code, without a full stop */
const char *vgpu_error_text(uint32_t error);

/** vgpu_op_name() - "gemm" for VGPU_OP_GEMM; "unknown" for a number not in the table */
const char *vgpu_op_name(uint32_t op);

/** vgpu_band_name() - "realtime", "high", "normal", "batch"; "unknown" for another number */
const char *vgpu_band_name(uint32_t band);

#endif
