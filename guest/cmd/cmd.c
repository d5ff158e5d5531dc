/* SPDX-License-Identifier: MIT */
/* cmd.c - see cmd.h */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/core/request.h"
#include "guest/cmd/cmd.h"
#include "guest/cmd/device.h"

#define WAIT_SLICE_MS 100 /* how soon Ctrl-C is noticed */
#define DEADLINE_MAX_S (7 * 24 * 3600)
#define SPIN_MAX_US 1000000u

const char cmd_options_help[] =
    "      --device WHICH    number or PCI address of the device, if there are several\n"
    "      --deadline S      give up after S seconds (default: the device's own deadline)\n"
    "      --pool N          number of the pool to use (default: the VM's own)\n"
    "      --band NAME       wish for a priority band: batch, normal, high, realtime\n"
    "      --path NAME       how requests travel: auto (default), ring, windows\n"
    "      --spin US         while requests end faster than US microseconds, look for their ends\n"
    "                        without a pause, for at most US; 0: never (default: 50, or 0 with "
    "one\n"
    "                        CPU; VGPU_SPIN_US sets it too)\n"
    "      --json            machine-readable output\n"
    "  -h, --help            this text\n";

void cmd_init(struct cmd *c, const char *name)
{
    *c = (struct cmd){.name = name, .request = {.band = VGPU_BAND_DEFAULT, .retry_busy = 1}};
}

static int set_band(struct cmd *c, const char *name)
{
    for (unsigned i = 0; i < VGPU_BANDS; i++) {
        if (strcmp(name, vgpu_band_name(i)) == 0) {
            c->request.band = (uint8_t)i;
            return 0;
        }
    }
    return cmd_fail(c, EXIT_USAGE, "--band %s: the bands are batch, normal, high and realtime",
                    name);
}

static int set_path(struct cmd *c, const char *name)
{
    static const char *const names[] = {
        [VGPU_PATH_AUTO] = "auto", [VGPU_PATH_WINDOWS] = "windows", [VGPU_PATH_RING] = "ring"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            c->path = (enum vgpu_path)i;
            return 0;
        }
    }
    return cmd_fail(c, EXIT_USAGE, "--path %s: the paths are auto, ring and windows", name);
}

static int set_spin(struct cmd *c, const char *option, const char *text)
{
    uint64_t us;

    if (cmd_integer(c, option, text, 0, SPIN_MAX_US, &us)) {
        return EXIT_USAGE;
    }
    c->spin_us = us ? (uint32_t)us : VGPU_SPIN_NEVER;
    return 0;
}

static int set_deadline(struct cmd *c, const char *text)
{
    double seconds;
    int r = cmd_number(c, "--deadline", text, 0.001, DEADLINE_MAX_S, &seconds);

    if (r) {
        return r;
    }
    c->request.deadline_ms = (uint32_t)(seconds * 1000);
    return 0;
}

int cmd_option(struct cmd *c, int option)
{
    uint64_t pool;

    switch (option) {
    case OPT_DEVICE:
        c->device = optarg;
        return 0;
    case OPT_JSON:
        c->json = true;
        return 0;
    case OPT_DEADLINE:
        return set_deadline(c, optarg);
    case OPT_POOL:
        if (cmd_integer(c, "--pool", optarg, 0, UINT32_MAX, &pool)) {
            return EXIT_USAGE;
        }
        c->request.pool = (uint32_t)pool;
        return 0;
    case OPT_BAND:
        return set_band(c, optarg);
    case OPT_PATH:
        return set_path(c, optarg);
    case OPT_SPIN:
        return set_spin(c, "--spin", optarg);
    default: /* getopt has said what is wrong */
        fprintf(stderr, "Try `%s --help`.\n", c->name);
        return EXIT_USAGE;
    }
}

void cmd_json_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p == '"' || *p == '\\') {
            fprintf(out, "\\%c", *p);
        } else if (*p < 0x20 || *p == 0x7f) {
            fprintf(out, "\\u%04x", *p);
        } else {
            fputc(*p, out);
        }
    }
    fputc('"', out);
}

void cmd_complain(const struct cmd *c, int exit_code, const char *format, ...)
{
    char text[800];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (c->json) {
        printf("{\"ok\": false, \"exit\": %d, \"error\": ", exit_code);
        cmd_json_string(stdout, text);
        printf("}\n");
    } else {
        fprintf(stderr, "%s: %s\n", c->name, text);
    }
}

int cmd_exit_code(int code)
{
    switch (code) {
    case 0:
        return EXIT_OK;
    case VGPU_E_BUSY:
    case VGPU_E_NO_BACKEND:
    case VGPU_E_NO_WORKER:
    case VGPU_E_DEADLINE:
    case -EBUSY:
    case -ETIMEDOUT:
        return EXIT_LATER;
    case -ENODEV:
        return EXIT_NO_DEVICE;
    case VGPU_E_CANCELLED:
        return cmd_interrupted() ? EXIT_CANCELLED : EXIT_REFUSED;
    default:
        return EXIT_REFUSED;
    }
}

static void on_state(void *arg, enum vgpu_state state)
{
    struct cmd *c = arg;
    static const char *const texts[] = {
        [VGPU_STATE_UP] = "the device works again",
        [VGPU_STATE_NO_BACKEND] = "no mediator serves the device just now; waiting for one",
        [VGPU_STATE_RESETTING] = "the device is being reset; waiting",
        [VGPU_STATE_IN_USE] = "another process of this VM uses the device; waiting",
    };

    if (state == VGPU_STATE_UP && !c->said_no_backend) {
        return;
    }
    c->said_no_backend = state != VGPU_STATE_UP;
    fprintf(stderr, "%s%s: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", c->name, texts[state]);
}

int cmd_open(struct cmd *c, struct vgpu **ret_gpu)
{
    struct vgpu_options options = {
        .device = c->device, .on_state = on_state, .arg = c, .path = c->path};
    const char *spin = getenv("VGPU_SPIN_US");
    struct vgpu_err err;
    int r = spin && !c->spin_us ? set_spin(c, "VGPU_SPIN_US", spin) : 0;

    if (r) {
        return r;
    }
    options.spin_us = c->spin_us;
    r = device_open(&options, ret_gpu, &err);

    if (r == -EINVAL) {
        return cmd_fail(c, EXIT_USAGE, "--device: %s", err.text);
    }
    return r ? cmd_fail(c, EXIT_NO_DEVICE, "%s", err.text) : 0;
}

static volatile sig_atomic_t interrupts;

static void on_signal(int number)
{
    (void)number;
    if (interrupts++) {
        _exit(EXIT_CANCELLED);
    }
}

void cmd_catch_signals(void)
{
    struct sigaction act = {.sa_handler = on_signal};
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

bool cmd_interrupted(void)
{
    return interrupts != 0;
}

int cmd_wait(struct vgpu_request *req)
{
    bool cancelled = false;
    int r;

    while ((r = vgpu_wait(req, WAIT_SLICE_MS)) == -ETIMEDOUT) {
        if (cmd_interrupted() && !cancelled) {
            vgpu_cancel(req);
            cancelled = true;
        }
    }
    return r;
}

int cmd_number(const struct cmd *c, const char *option, const char *text, double min, double max,
               double *ret)
{
    char *end;
    double v = strtod(text, &end);

    if (end == text || *end || !(v >= min && v <= max)) {
        if (isinf(max)) {
            return cmd_fail(c, EXIT_USAGE, "%s %s: not a number%s", option, text,
                            isinf(min) ? "" : " of 0 or more");
        }
        return cmd_fail(c, EXIT_USAGE, "%s %s: it must be a number from %g to %g", option, text,
                        min, max);
    }
    *ret = v;
    return 0;
}

int cmd_integer(const struct cmd *c, const char *option, const char *text, uint64_t min,
                uint64_t max, uint64_t *ret)
{
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (end == text || *end || errno || strchr(text, '-') || v < min || v > max) {
        return cmd_fail(c, EXIT_USAGE, "%s %s: it must be a whole number from %llu to %llu", option,
                        text, (unsigned long long)min, (unsigned long long)max);
    }
    *ret = v;
    return 0;
}

double cmd_now_ms(void)
{
    return (double)clock_now_ns() / 1e6;
}
