/* SPDX-License-Identifier: MIT */
/*
 * floor - the same jobs as `bench-host SOCKET OP`, done by one library call in this process
 *
 * usage: bench-floor OP N [worker]
 *
 *   echo      memcpy()
 *   axpy      cblas_scopy() and cblas_saxpy()
 *   reduce    a loop with eight F64 accumulators, which the compiler turns into vectors
 *   gemm      cblas_sgemm()
 *   fft       fftwf_execute() of a plan made before (FFTW_ESTIMATE)
 *   denoise   no library has it: the worker's own code through gpu-worker/gpu.h, one thread
 *
 * With `worker` any of them is the worker's own code, one thread, on private memory.
 *
 * sort has no counterpart in C that is stable and quick; bench/sort_floor.py does it with numpy.
 * Run with OPENBLAS_NUM_THREADS=1: the worker gives each job one thread, too.
 */
#include <cblas.h>
#include <fftw3.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/stats.h"
#include "bench/typical.h"
#include "common/clock.h"
#include "gpu-worker/gpu.h"

struct floor_job {
    const struct typical *op;
    uint8_t *arena;
    fftwf_plan plan;
    struct gpu *gpu;
    struct gpu_region *region;
    struct request request;
    uint8_t bytes[VGPU_REQ_MAX];
};

static void *at(const struct floor_job *j, unsigned buf)
{
    return j->arena + j->op->offsets[buf];
}

static void do_echo(struct floor_job *j)
{
    memcpy(at(j, 1), at(j, 0), j->op->lengths[0]);
}

static void do_axpy(struct floor_job *j)
{
    const struct vgpu_axpy *b = j->op->body;

    cblas_scopy((int)b->n, at(j, 1), 1, at(j, 2), 1);
    cblas_saxpy((int)b->n, (float)b->alpha, at(j, 0), 1, at(j, 2), 1);
}

static void do_reduce(struct floor_job *j)
{
    const struct vgpu_reduce *b = j->op->body;
    const float *x = at(j, 0);
    double sums[8] = {0};
    double sum = 0;

    for (uint64_t i = 0; i < b->n; i += 8) {
        for (unsigned k = 0; k < 8; k++) {
            sums[k] += (double)x[i + k];
        }
    }
    for (unsigned k = 0; k < 8; k++) {
        sum += sums[k];
    }
    memcpy(at(j, 1), &sum, sizeof(sum));
}

static void do_gemm(struct floor_job *j)
{
    const struct vgpu_gemm *b = j->op->body;
    int n = (int)b->n;

    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, at(j, 0), n, at(j, 1), n, 0,
                at(j, 2), n);
}

static void start_fft(struct floor_job *j)
{
    const struct vgpu_fft *b = j->op->body;

    j->plan = fftwf_plan_dft_1d((int)b->n0, at(j, 0), at(j, 1), FFTW_FORWARD,
                                FFTW_ESTIMATE | FFTW_PRESERVE_INPUT);
}

static void do_fft(struct floor_job *j)
{
    fftwf_execute(j->plan);
}

static void start_worker(struct floor_job *j)
{
    const struct gpu_config config = {.threads = 1, .depth = 1};
    const struct request_limits limits = {VGPU_REQ_MAX, VGPU_PAYLOAD_MAX, 0, TYPICAL_ARENA};
    char why[GPU_WHY_MAX] = "the request is refused";
    uint32_t len = typical_request(j->op, 1, j->bytes);

    if (gpu_cpu.open(&config, &j->gpu, why) ||
        gpu_cpu.region_attach(j->gpu, j->arena, TYPICAL_ARENA, &j->region) ||
        request_parse(j->bytes, len, &limits, &j->request, why)) {
        fprintf(stderr, "bench-floor: %s\n", why);
        exit(1);
    }
}

static void do_worker(struct floor_job *j)
{
    struct gpu_job job = {.request = &j->request, .band = VGPU_BAND_NORMAL};
    struct pollfd p = {.fd = gpu_cpu.completion_fd(j->gpu), .events = POLLIN};
    struct gpu_job *done;

    for (unsigned i = 0; i < j->op->nbufs; i++) {
        job.bufs[i] = (struct gpu_buf){
            .kind = VGPU_BUF_ARENA,
            .dir = j->op->dirs[i],
            .host = at(j, i),
            .length = j->op->lengths[i],
            .region = j->region,
        };
    }
    if (gpu_cpu.submit(j->gpu, &job)) {
        fprintf(stderr, "bench-floor: the job was not taken\n");
        exit(1);
    }
    while (gpu_cpu.poll(j->gpu, &done, 1) == 0) {
        if (!gpu_cpu.arm(j->gpu)) {
            (void)poll(&p, 1, -1);
        }
    }
    if (job.error) {
        fprintf(stderr, "bench-floor: error %u: %s\n", job.error, job.why);
        exit(1);
    }
}

struct kind {
    const char *name;
    void (*start)(struct floor_job *j);
    void (*run)(struct floor_job *j);
};

static const struct kind by_worker = {"worker", start_worker, do_worker};
static const struct kind kinds[] = {
    {"echo", NULL, do_echo}, {"axpy", NULL, do_axpy},    {"reduce", NULL, do_reduce},
    {"gemm", NULL, do_gemm}, {"fft", start_fft, do_fft}, {"denoise", start_worker, do_worker},
};

static void measure(struct floor_job *j, const struct kind *kind, size_t n)
{
    struct stats s;

    if (kind->start) {
        kind->start(j);
    }
    typical_fill(j->op, j->arena); /* after start: making a plan may write */
    stats_init(&s, n);
    for (size_t i = 0; i < n + n / 10 + 1; i++) {
        uint64_t begin = clock_now_ns();

        kind->run(j);
        if (i > n / 10) {
            stats_add(&s, clock_now_ns() - begin);
        }
    }
    stats_report(&s, j->op->name);
    stats_fini(&s);
}

int main(int argc, char **argv)
{
    static struct floor_job j;
    size_t n = argc >= 3 ? strtoul(argv[2], NULL, 10) : 0;
    bool worker = argc == 4 && strcmp(argv[3], "worker") == 0;

    for (unsigned i = 0; n && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(argv[1], kinds[i].name) != 0) {
            continue;
        }
        j.op = typical_find(argv[1]);
        j.arena = mmap(NULL, TYPICAL_ARENA, PROT_READ | PROT_WRITE,
                       (worker ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (j.arena == MAP_FAILED) {
            die("memory");
        }
        measure(&j, worker ? &by_worker : &kinds[i], n);
        return 0;
    }
    fprintf(stderr, "usage: bench-floor echo|axpy|reduce|gemm|fft|denoise N [worker]\n");
    return 2;
}
