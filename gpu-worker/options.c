/* SPDX-License-Identifier: MIT */
/*
 * options.c - see options.h
 */
#include "gpu-worker/options.h"

#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/conf_text.h"
#include "gpu-worker/gpu.h"

#define RUN_DIR_DEFAULT "/run/vgpu"

enum {
    OPT_MEDIATOR = 256,
    OPT_RUN_DIR,
    OPT_NAME,
    OPT_POOL,
    OPT_BACKEND,
    OPT_THREADS,
    OPT_DEPTH,
    OPT_LOG_LEVEL,
    OPT_LOG_FORMAT,
    OPT_HELP,
    OPT_VERSION,
    OPT_EXECUTOR,
    OPT_HEARTBEAT_MS,
    OPT_PARENT,
};

static const struct option long_options[] = {
    {"mediator", required_argument, NULL, OPT_MEDIATOR},
    {"run-dir", required_argument, NULL, OPT_RUN_DIR},
    {"name", required_argument, NULL, OPT_NAME},
    {"pool", required_argument, NULL, OPT_POOL},
    {"backend", required_argument, NULL, OPT_BACKEND},
    {"threads", required_argument, NULL, OPT_THREADS},
    {"depth", required_argument, NULL, OPT_DEPTH},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"log-format", required_argument, NULL, OPT_LOG_FORMAT},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {"executor", no_argument, NULL, OPT_EXECUTOR},
    {"heartbeat-ms", required_argument, NULL, OPT_HEARTBEAT_MS},
    {"parent", required_argument, NULL, OPT_PARENT},
    {NULL, 0, NULL, 0},
};

static void print_help(void)
{
    printf(
        "Usage: vgpu-worker --name NAME [options]\n"
        "\n"
        "Runs jobs for the vgpu-mediator of this host. It supervises: jobs run in an executor\n"
        "process that is started again when it dies.\n"
        "\n"
        "  --name NAME          unique among the workers of the mediator: letters, digits, . _ -\n"
        "  --mediator PATH      the mediator's worker socket (default: RUN-DIR/worker.sock)\n"
        "  --run-dir DIR        runtime directory (default: " RUN_DIR_DEFAULT ")\n"
        "  --pool POOL          pool to join (default: the first of the mediator's pool file)\n"
        "  --backend B          one of: %s (default: auto)\n"
        "  --threads N          threads to compute with, one job each (default: processors)\n"
        "  --depth N            jobs taken at a time (default: threads + 1, so that a thread\n"
        "                       that ends a job finds the next one)\n"
        "  --log-level L        error, warn, info or debug (default: info)\n"
        "  --log-format F       text or json (default: text)\n"
        "  --help, --version\n"
        "\n"
        "SIGTERM or SIGINT: take no new jobs, finish those that run, end with 0. A second one:\n"
        "end now, with 3. Exit codes: 0 drained, 1 cannot start, 2 usage, 3 jobs cut off.\n"
        "\n"
        "Examples:\n"
        "  vgpu-worker --name cpu0\n"
        "  vgpu-worker --name cpu1 --run-dir /tmp/vgpu --threads 1 --pool batch\n",
        gpu_backend_names());
}

static int wrong(const char *option, const char *value, const char *expected)
{
    fprintf(stderr, "vgpu-worker: %s '%s': expected %s; see --help\n", option, value, expected);
    return OPTIONS_E_USAGE;
}

/* [A-Za-z0-9._-]{1,63} */
static int set_name(const char *option, const char *value, char *ret)
{
    if (!conf_text_is_name(value)) {
        return wrong(option, value,
                     "1 to 63 letters, digits, '.', '_' or '-', not starting with '.'");
    }
    memcpy(ret, value, strlen(value) + 1);
    return 0;
}

static int set_number(const char *option, const char *value, uint32_t max, uint32_t *ret)
{
    char *end, expected[40];
    unsigned long number;

    errno = 0;
    number = strtoul(value, &end, 10);
    if (errno || end == value || *end || !isdigit((unsigned char)*value) || number < 1 ||
        number > max) {
        snprintf(expected, sizeof(expected), "a number from 1 to %u", max);
        return wrong(option, value, expected);
    }
    *ret = (uint32_t)number;
    return 0;
}

static int set_path(const char *directory, const char *file, struct options *o)
{
    int n = snprintf(o->mediator, sizeof(o->mediator), "%s%s", directory, file);

    if (n <= 0 || (size_t)n >= sizeof(o->mediator)) {
        return wrong("path of the mediator's socket", directory, "1 to 107 bytes");
    }
    return 0;
}

static int set_backend(const char *value, struct options *o)
{
    if (strlen(value) >= sizeof(o->backend) || !gpu_backend_find(value)) {
        return wrong("--backend", value, gpu_backend_names());
    }
    memcpy(o->backend, value, strlen(value) + 1);
    return 0;
}

static int set_log(int option, const char *value, struct options *o)
{
    if (option == OPT_LOG_LEVEL) {
        return log_parse_level(value, &o->log_level) == 0
                   ? 0
                   : wrong("--log-level", value, "error, warn, info or debug");
    }
    return log_parse_format(value, &o->log_format) == 0
               ? 0
               : wrong("--log-format", value, "text or json");
}

static int set_private(int option, const char *value, struct options *o)
{
    switch (option) {
    case OPT_HEARTBEAT_MS:
        return set_number("--heartbeat-ms", value, UINT32_MAX, &o->heartbeat_ms);
    case OPT_PARENT:
        return set_number("--parent", value, UINT32_MAX, &o->parent);
    default:
        o->executor = true;
        return 0;
    }
}

static int set_option(int option, const char *value, struct options *o)
{
    switch (option) {
    case OPT_MEDIATOR:
        return set_path(value, "", o);
    case OPT_RUN_DIR:
        return set_path(value, "/worker.sock", o);
    case OPT_NAME:
        return set_name("--name", value, o->name);
    case OPT_POOL:
        return set_name("--pool", value, o->pool);
    case OPT_BACKEND:
        return set_backend(value, o);
    case OPT_THREADS:
        return set_number("--threads", value, OPTIONS_THREADS_MAX, &o->threads);
    case OPT_DEPTH:
        return set_number("--depth", value, OPTIONS_DEPTH_MAX, &o->depth);
    case OPT_LOG_LEVEL:
    case OPT_LOG_FORMAT:
        return set_log(option, value, o);
    case OPT_HELP:
        print_help();
        return OPTIONS_E_DONE;
    case OPT_VERSION:
        printf("vgpu-worker %s\n", VGPU_VERSION);
        return OPTIONS_E_DONE;
    case OPT_EXECUTOR:
    case OPT_HEARTBEAT_MS:
    case OPT_PARENT:
        return set_private(option, value, o);
    default: /* getopt_long() has said what is wrong */
        fprintf(stderr, "vgpu-worker: see --help\n");
        return OPTIONS_E_USAGE;
    }
}

static uint32_t processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    return n < 1 ? 1 : (uint32_t)n;
}

/* What was not given. */
static int complete(struct options *o)
{
    if (!o->name[0]) {
        fprintf(stderr, "vgpu-worker: --name is missing; for example --name cpu0\n");
        return OPTIONS_E_USAGE;
    }
    if (!o->threads) {
        o->threads = processors();
    }
    if (!o->depth) {
        o->depth = o->threads + 1;
    }
    return 0;
}

int options_parse(int argc, char **argv, struct options *ret)
{
    struct options o = {
        .mediator = RUN_DIR_DEFAULT "/worker.sock",
        .backend = "auto",
        .log_level = LOG_LEVEL_INFO,
        .log_format = LOG_FORMAT_TEXT,
        .heartbeat_ms = 1000,
    };
    int option;

    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        int r = set_option(option, optarg, &o);
        if (r != 0) {
            return r;
        }
    }
    if (optind < argc) {
        return wrong("argument", argv[optind], "only options");
    }
    int r = complete(&o);
    if (r == 0) {
        *ret = o;
    }
    return r;
}
