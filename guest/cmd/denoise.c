/* SPDX-License-Identifier: MIT */
/*
 * denoise.c - `vgpu denoise`: a picture in tiles, several of them queued
 *
 * Each slot holds one tile's request and its memory in the arena. A slot that is free takes the
 * next tile; a tile that was lost with the device's life (reset, restarted mediator) runs again.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "guest/cmd/cmd.h"
#include "guest/cmd/picture.h"
#include "guest/cmd/progress.h"
#include "guest/cmd/tiles.h"

#define QUEUE_MAX 64u
#define TRIES_MAX 3u
#define WAIT_SLICE_MS 100
#define WORKERS_MAX 64u

struct options {
    struct cmd cmd;
    const char *in, *out;
    double sigma, h;
    uint64_t patch, search, tile, queue, compression, progress_fd;
    const char *progress;
};

struct slot {
    struct vgpu_request *request; /* has to be the same array index as in job.requests */
    uint8_t *in, *out;            /* in the arena, or malloc()ed without one */
    uint64_t index;               /* of the tile */
    unsigned tries;
    double start_ms;
    bool busy;
};

struct job {
    const struct options *options;
    struct vgpu *gpu;
    struct picture from, to;
    struct tiles tiles;
    struct slot slots[QUEUE_MAX];
    struct vgpu_request *requests[QUEUE_MAX]; /* those of busy slots, else NULL */
    unsigned nslots;
    uint64_t next; /* tile to start */
    struct progress progress;
    uint64_t by_worker[WORKERS_MAX];
    uint64_t again; /* tries beyond the first, here and at the pool */
    bool in_arena;
};

static const char help[] =
    "Usage: vgpu denoise IN.png OUT.png [OPTIONS]\n"
    "\n"
    "Denoises a picture by non-local means: every pixel becomes a mean of the pixels around it\n"
    "whose neighbourhoods look alike. The picture is cut into tiles, which the pool's workers\n"
    "compute; the result is the same for every size of tile.\n"
    "\n"
    "      --sigma X         standard deviation of the noise, in steps of 0..255 (default 10)\n"
    "      --h X             strength; larger is smoother (default 0.4 * sigma)\n"
    "      --patch N         radius of the neighbourhoods that are compared, 0..8 (default 3)\n"
    "      --search N        radius in which alike pixels are looked for, 1..32 (default 10)\n"
    "      --tile N          side of a tile, pixels, 8..4096 (default 128)\n"
    "      --queue N         tiles that are submitted at a time, 1..64 (default 4)\n"
    "      --compression N   of the PNG that is written, 0..9 (default 1: fast)\n"
    "      --progress MODE   auto (a line, on a terminal), always, never, json\n"
    "      --progress-fd N   where progress goes (default 2, stderr)\n";

static const char examples[] =
    "\n"
    "Examples:\n"
    "  vgpu denoise noisy.png clean.png\n"
    "  vgpu denoise noisy.png clean.png --sigma 25 --tile 64 --queue 8\n"
    "  vgpu denoise in.png out.png --progress json 2>progress.log\n"
    "\n"
    "With --progress json every finished tile is one line such as\n"
    "  {\"event\": \"step\", \"done\": 3, \"total\": 84, \"index\": 2, \"worker\": 1, "
    "\"attempts\": 1,\n"
    "   \"ms\": 210.4, \"run_ms\": 190.0, \"queued_ms\": 12.1, \"elapsed_ms\": 640}\n"
    "and the last line has the event done, cancelled or failed.\n"
    "\n"
    "Exit codes: 0; 1 refused or failed at the pool; 2 usage; 3 no device; 4 picture; 5 nobody\n"
    "answered in time; 130 cancelled. OUT.png appears only when all is done.\n";

/* ---- slots ---- */

static uint64_t in_bytes_max(const struct job *j)
{
    uint64_t side = j->tiles.side + 2 * (uint64_t)j->tiles.margin;
    uint64_t w = side < j->from.width ? side : j->from.width;
    uint64_t h = side < j->from.height ? side : j->from.height;

    return w * h * j->from.channels;
}

static uint64_t out_bytes_max(const struct job *j)
{
    return (uint64_t)j->tiles.side * j->tiles.side * j->from.channels;
}

static void slot_fini(struct job *j, struct slot *s)
{
    vgpu_request_free(s->request);
    if (j->in_arena) {
        vgpu_free(j->gpu, s->in);
        vgpu_free(j->gpu, s->out);
    } else {
        free(s->in);
        free(s->out);
    }
    memset(s, 0, sizeof(*s));
}

static bool slot_init(struct job *j, struct slot *s)
{
    s->request = vgpu_request_new(j->gpu);
    s->in = j->in_arena ? vgpu_alloc(j->gpu, in_bytes_max(j)) : malloc(in_bytes_max(j));
    s->out = j->in_arena ? vgpu_alloc(j->gpu, out_bytes_max(j)) : malloc(out_bytes_max(j));
    if (!s->request || !s->in || !s->out) {
        slot_fini(j, s);
        return false;
    }
    vgpu_request_set(s->request, &j->options->cmd.request);
    return true;
}

/* As many slots as asked for, or as the arena has room for. */
static int make_slots(struct job *j)
{
    uint64_t want = j->options->queue;
    struct vgpu_device device;
    int r = vgpu_describe(j->gpu, &device);

    if (r) {
        return cmd_fail(&j->options->cmd, EXIT_NO_DEVICE, "%s", vgpu_code_text(r));
    }
    j->in_arena = device.arena_bytes != 0;
    want = want < tiles_count(&j->tiles) ? want : tiles_count(&j->tiles);
    while (j->nslots < want && slot_init(j, &j->slots[j->nslots])) {
        j->nslots++;
    }
    if (j->nslots == 0) {
        return cmd_fail(&j->options->cmd, EXIT_REFUSED,
                        "no room in the device's arena for a tile of %" PRIu64
                        " bytes (%zu are free in one piece): use a smaller --tile, or end other "
                        "programs that use the device",
                        in_bytes_max(j) + out_bytes_max(j), vgpu_available(j->gpu));
    }
    return 0;
}

/* ---- tiles ---- */

static void copy_in(const struct picture *p, const struct tile *t, uint8_t *to)
{
    size_t row = (size_t)t->in_w * p->channels;

    for (uint32_t y = 0; y < t->in_h; y++) {
        memcpy(to + y * row,
               p->samples + (size_t)(t->in_y + y) * p->stride + (size_t)t->in_x * p->channels, row);
    }
}

static void copy_out(struct picture *p, const struct tile *t, const uint8_t *from)
{
    size_t row = (size_t)t->w * p->channels;

    for (uint32_t y = 0; y < t->h; y++) {
        memcpy(p->samples + (size_t)(t->y + y) * p->stride + (size_t)t->x * p->channels,
               from + y * row, row);
    }
}

static int submit(struct job *j, struct slot *s)
{
    const struct options *o = j->options;
    struct tile t = tiles_get(&j->tiles, s->index);
    struct vgpu_denoise op = {
        .dtype = VGPU_DTYPE_U8,
        .channels = (uint8_t)j->from.channels,
        .patch = (uint8_t)o->patch,
        .search = (uint8_t)o->search,
        .sigma = (float)o->sigma,
        .h = (float)o->h,
        .width = t.in_w,
        .height = t.in_h,
        .stride = t.in_w * j->from.channels,
        .x = t.x - t.in_x,
        .y = t.y - t.in_y,
        .w = t.w,
        .h_out = t.h,
    };
    int r = vgpu_denoise(s->request, &op, s->in, s->out);

    r = r ? r : vgpu_submit(s->request);
    if (r) {
        return cmd_fail(&o->cmd, EXIT_REFUSED, "tile %" PRIu64 ": %s", s->index,
                        vgpu_result_text(s->request));
    }
    s->busy = true;
    j->requests[s - j->slots] = s->request;
    return 0;
}

static int start_tile(struct job *j, struct slot *s)
{
    struct tile t;

    s->index = j->next++;
    s->tries = 0;
    s->start_ms = cmd_now_ms();
    t = tiles_get(&j->tiles, s->index);
    copy_in(&j->from, &t, s->in);
    return submit(j, s);
}

static bool lost_with_device(int code)
{
    return code == VGPU_E_DEVICE_RESET || code == VGPU_E_BACKEND_RESTARTED ||
           code == VGPU_E_WORKER_LOST;
}

static void note_done(struct job *j, const struct slot *s)
{
    const struct vgpu_resp_hdr *h = vgpu_result(s->request);
    struct progress_step step = {
        .index = s->index,
        .worker = h->worker,
        .attempts = h->attempts + s->tries,
        .ms = cmd_now_ms() - s->start_ms,
        .run_ms = (double)h->run_ns / 1e6,
        .queued_ms = (double)h->queued_ns / 1e6,
    };

    j->by_worker[h->worker < WORKERS_MAX ? h->worker : 0]++;
    j->again += step.attempts > 1 ? step.attempts - 1 : 0;
    progress_step(&j->progress, &step);
}

/* A request ended. Return: an exit code. */
static int on_ended(struct job *j, struct slot *s)
{
    const struct options *o = j->options;
    struct tile t = tiles_get(&j->tiles, s->index);
    int code = vgpu_poll(s->request);

    j->requests[s - j->slots] = NULL;
    s->busy = false;
    if (code == 0) {
        copy_out(&j->to, &t, s->out);
        note_done(j, s);
        return 0;
    }
    if (lost_with_device(code) && ++s->tries < TRIES_MAX && !cmd_interrupted()) {
        return submit(j, s);
    }
    if (cmd_interrupted() && code == VGPU_E_CANCELLED) {
        return 0;
    }
    progress_end(&j->progress, "failed");
    return cmd_fail(&o->cmd, cmd_exit_code(code),
                    "tile %" PRIu64 " of %" PRIu64 " failed, nothing was written: %s", s->index + 1,
                    j->progress.total, vgpu_result_text(s->request));
}

static void cancel_all(struct job *j)
{
    for (unsigned i = 0; i < j->nslots; i++) {
        if (j->slots[i].busy) {
            vgpu_cancel(j->slots[i].request);
        }
    }
}

/* Start tiles in free slots. Return: 0; an exit code. */
static int fill_slots(struct job *j)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < j->nslots; i++) {
        if (!j->slots[i].busy && j->next < j->progress.total && !cmd_interrupted()) {
            r = start_tile(j, &j->slots[i]);
        }
    }
    return r;
}

static int run_tiles(struct job *j)
{
    bool cancelled = false;
    int r = fill_slots(j);

    while (r == 0) {
        size_t i;
        int w = vgpu_wait_any(j->requests, j->nslots, WAIT_SLICE_MS, &i);

        if (w == -EINVAL) {
            break; /* none is under way any more */
        }
        if (w == 0) {
            r = on_ended(j, &j->slots[i]);
            r = r ? r : fill_slots(j);
        }
        if (cmd_interrupted() && !cancelled) {
            cancel_all(j);
            cancelled = true;
        }
    }
    if (r == 0 && j->progress.done < j->progress.total) {
        progress_end(&j->progress, "cancelled");
        r = cmd_fail(&j->options->cmd, EXIT_CANCELLED,
                     "cancelled: %" PRIu64 " of %" PRIu64 " tiles were done, nothing was written",
                     j->progress.done, j->progress.total);
    }
    cancel_all(j); /* after a failure: freeing the slots waits for them */
    return r;
}

/* ---- the whole ---- */

static void report_json(const struct job *j, double seconds)
{
    bool first = true;

    printf("{\"ok\": true, \"width\": %u, \"height\": %u, \"channels\": %u, \"tiles\": %" PRIu64
           ", \"again\": %" PRIu64 ", \"seconds\": %.3f, \"workers\": {",
           j->to.width, j->to.height, j->to.channels, j->progress.total, j->again, seconds);
    for (unsigned i = 0; i < WORKERS_MAX; i++) {
        if (j->by_worker[i]) {
            printf("%s\"%u\": %" PRIu64, first ? "" : ", ", i, j->by_worker[i]);
            first = false;
        }
    }
    printf("}}\n");
}

static void report(const struct job *j, double seconds)
{
    if (j->options->cmd.json) {
        report_json(j, seconds);
        return;
    }
    printf("%s: %u x %u pixels, %" PRIu64 " tiles in %.1f s by", j->options->out, j->to.width,
           j->to.height, j->progress.total, seconds);
    for (unsigned i = 0, n = 0; i < WORKERS_MAX; i++) {
        if (j->by_worker[i]) {
            printf("%s worker %u (%" PRIu64 ")", n++ ? "," : "", i, j->by_worker[i]);
        }
    }
    printf("; %" PRIu64 " ran more than once\n", j->again);
}

static int read_picture(struct job *j)
{
    const struct options *o = j->options;
    struct vgpu_err err;

    if (picture_read(o->in, &j->from, &err) != 0) {
        return cmd_fail(&o->cmd, EXIT_FILE, "%s", err.text);
    }
    if (j->from.had_alpha) {
        fprintf(stderr, "%s: %s: the alpha channel is dropped\n", o->cmd.name, o->in);
    }
    j->to = j->from;
    j->to.samples = malloc((size_t)j->to.stride * j->to.height);
    if (!j->to.samples) {
        return cmd_fail(&o->cmd, EXIT_FILE, "no memory for a second picture of %u x %u pixels",
                        j->to.width, j->to.height);
    }
    tiles_init(&j->tiles, j->from.width, j->from.height, (uint32_t)o->tile,
               (uint32_t)(o->patch + o->search));
    return 0;
}

static int process(struct job *j)
{
    const struct options *o = j->options;
    enum progress_mode mode = PROGRESS_NEVER;
    struct vgpu_err err;
    double start_ms;
    int r = make_slots(j);

    if (r) {
        return r;
    }
    progress_mode(o->progress, (int)o->progress_fd, &mode);
    progress_init(&j->progress, mode, (int)o->progress_fd, "tiles", tiles_count(&j->tiles));
    start_ms = cmd_now_ms();
    r = run_tiles(j);
    if (r) {
        return r;
    }
    progress_end(&j->progress, "done");
    if (picture_write(o->out, &j->to, (int)o->compression, &err) != 0) {
        return cmd_fail(&o->cmd, EXIT_FILE, "%s", err.text);
    }
    report(j, (cmd_now_ms() - start_ms) / 1e3);
    return 0;
}

static int denoise(struct options *o)
{
    struct job *j = calloc(1, sizeof(*j));
    int r;

    if (!j) {
        return cmd_fail(&o->cmd, EXIT_FILE, "out of memory");
    }
    j->options = o;
    r = read_picture(j);
    r = r ? r : cmd_open(&o->cmd, &j->gpu);
    if (r == 0) {
        r = process(j);
        for (unsigned i = 0; i < j->nslots; i++) {
            slot_fini(j, &j->slots[i]);
        }
        vgpu_close(j->gpu);
    }
    picture_fini(&j->from);
    picture_fini(&j->to);
    free(j);
    return r;
}

/* ---- command line ---- */

enum {
    OPT_SIGMA = 1,
    OPT_H,
    OPT_PATCH,
    OPT_SEARCH,
    OPT_TILE,
    OPT_QUEUE,
    OPT_COMPRESSION,
    OPT_PROGRESS,
    OPT_PROGRESS_FD,
};

static const struct option long_options[] = {
    {"sigma", required_argument, NULL, OPT_SIGMA},
    {"h", required_argument, NULL, OPT_H},
    {"patch", required_argument, NULL, OPT_PATCH},
    {"search", required_argument, NULL, OPT_SEARCH},
    {"tile", required_argument, NULL, OPT_TILE},
    {"queue", required_argument, NULL, OPT_QUEUE},
    {"compression", required_argument, NULL, OPT_COMPRESSION},
    {"progress", required_argument, NULL, OPT_PROGRESS},
    {"progress-fd", required_argument, NULL, OPT_PROGRESS_FD},
    CMD_OPTIONS,
};

static int take_progress(struct options *o)
{
    enum progress_mode mode;

    o->progress = optarg;
    return progress_mode(optarg, STDERR_FILENO, &mode) == 0
               ? 0
               : cmd_fail(&o->cmd, EXIT_USAGE,
                          "--progress %s: the modes are auto, always, never and json", optarg);
}

static int take_option(struct options *o, int option)
{
    struct cmd *c = &o->cmd;

    switch (option) {
    case OPT_SIGMA:
        return cmd_number(c, "--sigma", optarg, 0, 255, &o->sigma);
    case OPT_H:
        return cmd_number(c, "--h", optarg, 1e-6, 1e6, &o->h);
    case OPT_PATCH:
        return cmd_integer(c, "--patch", optarg, 0, 8, &o->patch);
    case OPT_SEARCH:
        return cmd_integer(c, "--search", optarg, 1, 32, &o->search);
    case OPT_TILE:
        return cmd_integer(c, "--tile", optarg, 8, 4096, &o->tile);
    case OPT_QUEUE:
        return cmd_integer(c, "--queue", optarg, 1, QUEUE_MAX, &o->queue);
    case OPT_COMPRESSION:
        return cmd_integer(c, "--compression", optarg, 0, 9, &o->compression);
    case OPT_PROGRESS:
        return take_progress(o);
    case OPT_PROGRESS_FD:
        return cmd_integer(c, "--progress-fd", optarg, 0, 1023, &o->progress_fd);
    default:
        return cmd_option(c, option);
    }
}

int denoise_main(int argc, char **argv)
{
    struct options o = {
        .sigma = 10,
        .patch = 3,
        .search = 10,
        .tile = 128,
        .queue = 4,
        .compression = PICTURE_COMPRESSION_DEFAULT,
        .progress_fd = STDERR_FILENO,
        .progress = "auto",
    };
    int option, r;

    cmd_init(&o.cmd, "vgpu denoise");
    while ((option = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        if (option == 'h') {
            printf("%s%s%s", help, cmd_options_help, examples);
            return EXIT_OK;
        }
        if ((r = take_option(&o, option)) != 0) {
            return r;
        }
    }
    if (argc - optind != 2) {
        return cmd_fail(&o.cmd, EXIT_USAGE,
                        "it takes two files, the noisy picture and the one to write: vgpu denoise "
                        "IN.png OUT.png (see --help)");
    }
    o.in = argv[optind];
    o.out = argv[optind + 1];
    if (o.h == 0) {
        o.h = o.sigma > 0 ? 0.4 * o.sigma : 1;
    }
    return denoise(&o);
}
