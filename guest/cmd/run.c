/* SPDX-License-Identifier: MIT */
/* run.c - `vgpu run`: one operation on .npy arrays */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest/cmd/run.h"

#define ARENA_FROM_BYTES 256u /* smaller arrays travel inside the request */

enum { OPT_IN = 500, OPT_OUT, OPT_NO_RETRY };

static const struct option long_options[] = {
    {"in", required_argument, NULL, OPT_IN},
    {"out", required_argument, NULL, OPT_OUT},
    {"no-retry", no_argument, NULL, OPT_NO_RETRY},
    {"alpha", required_argument, NULL, RUN_ALPHA},
    {"beta", required_argument, NULL, RUN_BETA},
    {"incx", required_argument, NULL, RUN_INCX},
    {"incy", required_argument, NULL, RUN_INCY},
    {"kind", required_argument, NULL, RUN_KIND},
    {"stride", required_argument, NULL, RUN_STRIDE},
    {"trans-a", no_argument, NULL, RUN_TRANS_A},
    {"trans-b", no_argument, NULL, RUN_TRANS_B},
    {"math", required_argument, NULL, RUN_MATH},
    {"inverse", no_argument, NULL, RUN_INVERSE},
    {"c2r", no_argument, NULL, RUN_C2R},
    {"rank", required_argument, NULL, RUN_RANK},
    {"n", required_argument, NULL, RUN_N},
    {"descending", no_argument, NULL, RUN_DESCENDING},
    {"sigma", required_argument, NULL, RUN_SIGMA},
    {"h", required_argument, NULL, RUN_H},
    {"patch", required_argument, NULL, RUN_PATCH},
    {"search", required_argument, NULL, RUN_SEARCH},
    CMD_OPTIONS,
};

static const char help_top[] =
    "Usage: vgpu run OP --in A.npy [--in B.npy ...] --out C.npy [OPTIONS]\n"
    "\n"
    "Runs one operation on arrays in NumPy's .npy format (version 1.0 or 2.0, little endian,\n"
    "C order).\n"
    "\n"
    "Operations:\n";

static const char help_options[] =
    "\n"
    "      --in FILE         an input; several in the order of the operation\n"
    "      --out FILE        where a result goes; appears only when the operation succeeded\n"
    "      --no-retry        never run twice: fail when a worker is lost\n";

static const char help_examples[] =
    "\n"
    "Examples:\n"
    "  vgpu run gemm --in a.npy --in b.npy --out c.npy --trans-b\n"
    "  vgpu run reduce --in x.npy --kind max\n"
    "  vgpu run sort --in keys.npy --in values.npy --out k.npy --out v.npy --descending\n"
    "  vgpu run fft --in signal.npy --out spectrum.npy --json\n"
    "\n"
    "Exit codes: 0; 1 refused or failed at the pool; 2 usage; 3 no device; 4 file; 5 nobody\n"
    "answered in time; 130 cancelled.\n";

static void print_help(void)
{
    fputs(help_top, stdout);
    for (unsigned i = 0; run_each(i); i++) {
        fputs(run_each(i)->help, stdout);
    }
    printf("%s%s%s", help_options, cmd_options_help, help_examples);
}

/* ---- command line ---- */

static int choose(const struct run *r, const char *option, const char *const *names, uint8_t *ret)
{
    char list[120] = "";
    size_t n = 0;

    for (uint8_t i = 0; names[i]; i++) {
        if (strcmp(optarg, names[i]) == 0) {
            *ret = i;
            return 0;
        }
        n += (size_t)snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "", names[i]);
    }
    return cmd_fail(&r->cmd, EXIT_USAGE, "%s %s: it must be one of %s", option, optarg, list);
}

static int take_path(struct run *r, const char **paths, unsigned *n, unsigned max)
{
    if (*n == max) {
        return cmd_fail(&r->cmd, EXIT_USAGE, "%s: no operation takes more than %u such files",
                        optarg, max);
    }
    paths[(*n)++] = optarg;
    return 0;
}

static int take_number(struct run *r, int option)
{
    const struct cmd *c = &r->cmd;

    switch (option) {
    case RUN_ALPHA:
        return cmd_number(c, "--alpha", optarg, -INFINITY, INFINITY, &r->alpha);
    case RUN_BETA:
        return cmd_number(c, "--beta", optarg, -INFINITY, INFINITY, &r->beta);
    case RUN_SIGMA:
        return cmd_number(c, "--sigma", optarg, 0, INFINITY, &r->sigma);
    case RUN_H:
        return cmd_number(c, "--h", optarg, 0, INFINITY, &r->h);
    case RUN_INCX:
        return cmd_integer(c, "--incx", optarg, 1, INT64_MAX, &r->incx);
    case RUN_INCY:
        return cmd_integer(c, "--incy", optarg, 1, INT64_MAX, &r->incy);
    case RUN_STRIDE:
        return cmd_integer(c, "--stride", optarg, 1, INT64_MAX, &r->stride);
    case RUN_N:
        return cmd_integer(c, "--n", optarg, 1, INT64_MAX, &r->n);
    case RUN_RANK:
        return cmd_integer(c, "--rank", optarg, 1, 2, &r->rank);
    case RUN_PATCH:
        return cmd_integer(c, "--patch", optarg, 0, 8, &r->patch);
    default:
        return cmd_integer(c, "--search", optarg, 1, 32, &r->search);
    }
}

static int take_option(struct run *r, int option)
{
    static const char *const kinds[] = {"sum", "min", "max", "argmax", NULL};
    static const char *const maths[] = {"default", "tf32", NULL};

    if (option >= RUN_ALPHA && option <= RUN_SEARCH) {
        r->given |= RUN_BIT(option);
    }
    switch (option) {
    case OPT_IN:
        return take_path(r, r->in_path, &r->nin, RUN_INPUTS_MAX);
    case OPT_OUT:
        return take_path(r, r->out_path, &r->nout, RUN_OUTPUTS_MAX);
    case OPT_NO_RETRY:
        r->cmd.request.flags |= VGPU_REQ_NO_RETRY;
        return 0;
    case RUN_KIND:
        return choose(r, "--kind", kinds, &r->kind);
    case RUN_MATH:
        return choose(r, "--math", maths, &r->math);
    case RUN_TRANS_A:
    case RUN_TRANS_B:
    case RUN_INVERSE:
    case RUN_C2R:
    case RUN_DESCENDING:
        return 0;
    default:
        return option >= RUN_ALPHA && option <= RUN_SEARCH ? take_number(r, option)
                                                           : cmd_option(&r->cmd, option);
    }
}

static int check_usage(const struct run *r, const struct run_op *op)
{
    for (const struct option *o = long_options; o->name; o++) {
        if (o->val >= RUN_ALPHA && o->val <= RUN_SEARCH && r->given & RUN_BIT(o->val) &&
            !(op->options & RUN_BIT(o->val))) {
            return cmd_fail(&r->cmd, EXIT_USAGE, "%s has no option --%s (see --help)", op->name,
                            o->name);
        }
    }
    if (r->nin < op->in_min || r->nin > op->in_max) {
        return cmd_fail(&r->cmd, EXIT_USAGE, "%s takes %u%s input%s, not %u; each is an --in FILE",
                        op->name, op->in_min, op->in_max > op->in_min ? " or more" : "",
                        op->in_max > 1 ? "s" : "", r->nin);
    }
    return 0;
}

/* ---- files and memory ---- */

static int open_inputs(struct run *r)
{
    struct vgpu_err err;

    for (unsigned i = 0; i < r->nin; i++) {
        if (npy_open(r->in_path[i], &r->in[i], &r->in_fd[i], &err) != 0) {
            return cmd_fail(&r->cmd, EXIT_FILE, "%s", err.text);
        }
        if (r->in[i].count == 0) {
            return cmd_fail(&r->cmd, EXIT_FILE, "%s: the array is empty", r->in_path[i]);
        }
    }
    return 0;
}

/* What comes out, and whether there is a file for it. */
static int check_outputs(struct run *r, const struct run_op *op)
{
    int x = op->shape(r);

    if (x) {
        return x;
    }
    for (unsigned i = 0; i < r->results; i++) {
        if (npy_make(&r->out[i]) != 0) {
            return cmd_fail(&r->cmd, EXIT_FILE,
                            "the result has more elements than memory can hold");
        }
    }
    if (r->nout != r->results && !(op->out_optional && r->nout == 0)) {
        return cmd_fail(&r->cmd, EXIT_USAGE,
                        "%s of %u input%s makes %u result%s: give %s --out FILE", op->name, r->nin,
                        r->nin == 1 ? "" : "s", r->results, r->results == 1 ? "" : "s",
                        r->results == 1 ? "one" : "two");
    }
    return 0;
}

static void *take_memory(struct vgpu *gpu, uint64_t bytes)
{
    return bytes <= ARENA_FROM_BYTES ? malloc(bytes) : vgpu_alloc(gpu, bytes);
}

static void free_memory(struct vgpu *gpu, const struct npy *a, void *memory)
{
    if (a->bytes <= ARENA_FROM_BYTES) {
        free(memory);
    } else {
        vgpu_free(gpu, memory);
    }
}

static int no_room(const struct run *r, struct vgpu *gpu, uint64_t bytes)
{
    return cmd_fail(&r->cmd, EXIT_REFUSED,
                    "no room for %" PRIu64
                    " bytes in the device's arena: %zu are free in one piece; "
                    "the operator of the host sets its size (shm-size)",
                    bytes, vgpu_available(gpu));
}

static int load(struct run *r, struct vgpu *gpu)
{
    struct vgpu_err err;

    for (unsigned i = 0; i < r->nin; i++) {
        r->in_data[i] = take_memory(gpu, r->in[i].bytes);
        if (!r->in_data[i]) {
            return no_room(r, gpu, r->in[i].bytes);
        }
        if (npy_read(r->in_path[i], r->in_fd[i], &r->in[i], r->in_data[i], &err) != 0) {
            return cmd_fail(&r->cmd, EXIT_FILE, "%s", err.text);
        }
    }
    for (unsigned i = 0; i < r->results; i++) {
        r->out_data[i] = take_memory(gpu, r->out[i].bytes);
        if (!r->out_data[i]) {
            return no_room(r, gpu, r->out[i].bytes);
        }
    }
    return 0;
}

static int save(struct run *r)
{
    struct vgpu_err err;

    for (unsigned i = 0; i < r->nout; i++) {
        if (npy_write(r->out_path[i], &r->out[i], r->out_data[i], &err) != 0) {
            return cmd_fail(&r->cmd, EXIT_FILE, "%s", err.text);
        }
    }
    return 0;
}

static void unload(struct run *r, struct vgpu *gpu)
{
    for (unsigned i = 0; i < r->nin; i++) {
        free_memory(gpu, &r->in[i], r->in_data[i]);
    }
    for (unsigned i = 0; i < r->results; i++) {
        free_memory(gpu, &r->out[i], r->out_data[i]);
    }
}

/* ---- the request and its report ---- */

static void print_value(const struct npy *a, const void *data, bool json)
{
    uint64_t bits = 0;
    double value;

    memcpy(&bits, data, a->size);
    if (a->kind == 'u') {
        printf("%" PRIu64, bits);
        return;
    }
    if (a->kind == 'i') {
        printf("%" PRId64, (int64_t)(bits << (64 - 8 * a->size)) >> (64 - 8 * a->size));
        return;
    }
    value = a->size == 4 ? (double)*(const float *)data : *(const double *)data;
    if (json && !isfinite(value)) {
        printf("\"%g\"", value); /* JSON has no such numbers */
    } else {
        printf("%.*g", a->size == 4 ? 9 : 17, value);
    }
}

static void report_json(const struct run *r, const struct run_op *op, const struct vgpu_resp_hdr *h,
                        double ms)
{
    printf("{\"ok\": true, \"op\": \"%s\", \"worker\": %u, \"attempts\": %u, \"run_ms\": %.3f, "
           "\"queued_ms\": %.3f, \"ms\": %.3f, \"outputs\": [",
           op->name, h->worker, h->attempts, (double)h->run_ns / 1e6, (double)h->queued_ns / 1e6,
           ms);
    for (unsigned i = 0; i < r->nout; i++) {
        printf("%s", i ? ", " : "");
        cmd_json_string(stdout, r->out_path[i]);
    }
    printf("]");
    if (op->out_optional) {
        printf(", \"value\": ");
        print_value(&r->out[0], r->out_data[0], true);
    }
    printf("}\n");
}

static void report(const struct run *r, const struct run_op *op, const struct vgpu_resp_hdr *h,
                   double ms)
{
    char text[160];

    if (r->cmd.json) {
        report_json(r, op, h, ms);
        return;
    }
    if (op->out_optional) {
        print_value(&r->out[0], r->out_data[0], false);
        printf("\n");
    }
    for (unsigned i = 0; i < r->nout; i++) {
        printf("%s: %s\n", r->out_path[i], npy_describe(&r->out[i], text, sizeof(text)));
    }
    fprintf(stderr,
            "%s: worker %u ran it in %.3f ms after %.3f ms in the queue, %u attempt%s; "
            "%.3f ms in all\n",
            r->cmd.name, h->worker, (double)h->run_ns / 1e6, (double)h->queued_ns / 1e6,
            h->attempts, h->attempts == 1 ? "" : "s", ms);
}

static int submit(struct run *r, const struct run_op *op, struct vgpu_request *req)
{
    double start_ms = cmd_now_ms();
    int code;

    vgpu_request_set(req, &r->cmd.request);
    code = op->build(r, req);
    code = code ? code : vgpu_submit(req);
    code = code ? code : cmd_wait(req);
    if (code) {
        return cmd_fail(&r->cmd, cmd_exit_code(code), "%s: %s", op->name, vgpu_result_text(req));
    }
    code = save(r);
    if (code == 0) {
        report(r, op, vgpu_result(req), cmd_now_ms() - start_ms);
    }
    return code;
}

static int compute(struct run *r, const struct run_op *op)
{
    struct vgpu_request *req;
    struct vgpu *gpu;
    int x = cmd_open(&r->cmd, &gpu);

    if (x) {
        return x;
    }
    x = load(r, gpu);
    req = x ? NULL : vgpu_request_new(gpu);
    if (req) {
        x = submit(r, op, req);
    } else if (!x) {
        x = cmd_fail(&r->cmd, EXIT_REFUSED, "out of memory");
    }
    vgpu_request_free(req);
    unload(r, gpu);
    vgpu_close(gpu);
    return x;
}

static int find_op(const struct run *r, int argc, char **argv, const struct run_op **ret)
{
    if (argc - optind != 1) {
        return cmd_fail(&r->cmd, EXIT_USAGE,
                        "it takes one operation, as in: vgpu run gemm --in a.npy --in b.npy "
                        "--out c.npy (see --help)");
    }
    *ret = run_find(argv[optind]);
    if (!*ret) {
        return cmd_fail(&r->cmd, EXIT_USAGE,
                        "there is no operation \"%s\": echo, axpy, reduce, gemm, fft, sort and "
                        "denoise are known",
                        argv[optind]);
    }
    return check_usage(r, *ret);
}

int run_main(int argc, char **argv)
{
    struct run r = {
        .alpha = 1,
        .incx = 1,
        .incy = 1,
        .stride = 1,
        .rank = 1,
        .sigma = 10,
        .patch = 3,
        .search = 10,
        .in_fd = {-1, -1, -1},
    };
    const struct run_op *op = NULL;
    int option, x = 0;

    cmd_init(&r.cmd, "vgpu run");
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            print_help();
            return EXIT_OK;
        }
        x = take_option(&r, option);
        if (x) {
            return x;
        }
    }
    x = find_op(&r, argc, argv, &op);
    if (x) {
        return x;
    }
    x = open_inputs(&r);
    x = x ? x : check_outputs(&r, op);
    x = x ? x : compute(&r, op);
    for (unsigned i = 0; i < RUN_INPUTS_MAX; i++) {
        if (r.in_fd[i] >= 0) {
            close(r.in_fd[i]);
        }
    }
    return x;
}
