/* SPDX-License-Identifier: MIT */
/*
 * test_ops.h - a request of up to four buffers, for the tests of gpu-worker/ops
 *
 * Requests are built parsed: the checks of an op look at the header, the buffer list and the body.
 */
#ifndef VGPU_TESTS_TEST_OPS_H
#define VGPU_TESTS_TEST_OPS_H

#include <stdio.h>
#include <string.h>

#include "gpu-worker/ops/ops.h"
#include "unit.h"

#define TEST_OPS_BODY 256u

struct test_request {
    struct request request;
    _Alignas(8) uint8_t body[TEST_OPS_BODY];
    char why[REQUEST_WHY_MAX];
};

/* A buffer list: "io" and the lengths of its buffers. */
struct test_bufs {
    const char *dirs;
    uint64_t lengths[6];
};

static inline void test_ops_fill(struct test_request *t, uint16_t op, const void *body,
                                 uint16_t body_bytes, const struct test_bufs *bufs)
{
    memset(t, 0, sizeof(*t));
    memcpy(t->body, body, body_bytes);
    t->request.bytes = t->body;
    t->request.hdr.op = op;
    t->request.hdr.body_len = body_bytes;
    t->request.hdr.nbufs = (uint8_t)strlen(bufs->dirs);
    for (unsigned i = 0; i < t->request.hdr.nbufs; i++) {
        t->request.bufs[i].dir = bufs->dirs[i] == 'i' ? VGPU_BUF_IN : VGPU_BUF_OUT;
        t->request.bufs[i].length = bufs->lengths[i];
    }
}

/* The result must be @want, and an error must come with a sentence. */
static inline void test_ops_expect(struct test_request *t, const char *name, uint32_t want)
{
    uint32_t got = ops_check(&t->request, t->why);

    ck_assert_msg(got == want, "%s: %s (%s) instead of %s", name, vgpu_error_name(got), t->why,
                  vgpu_error_name(want));
    ck_assert_msg(want == VGPU_E_OK || strlen(t->why) > 10, "%s: no sentence", name);
    ck_assert_msg(memchr(t->why, 0, sizeof(t->why)), "%s: the sentence has no end", name);
}

static inline void test_ops_case(const char *name, uint16_t op, const void *body,
                                 uint16_t body_bytes, const struct test_bufs *bufs, uint32_t want)
{
    struct test_request t;

    test_ops_fill(&t, op, body, body_bytes, bufs);
    test_ops_expect(&t, name, want);
}

#endif
