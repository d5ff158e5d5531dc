/* SPDX-License-Identifier: MIT */
/*
 * main.c - flags of vgpu-mediator
 */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "local-mediator/exits.h"
#include "local-mediator/mediator.h"

#define RUN_DIR "/run/vgpu"
#define RUN_DIR_MAX 80u /* leaves room for "/<name>/vgpu.sock" of short names */

struct options {
    const char *config;
    const char *run_dir;
    const char *user;
    enum log_level level;
    enum log_format format;
    bool check;
};

static const char help[] =
    "Usage: vgpu-mediator --config FILE [OPTIONS]\n"
    "\n"
    "Takes the requests of this host's virtual machines and gives them to its workers.\n"
    "\n"
    "  --config FILE       the pool file: pools, tenants, VMs (docs/pool-file.md)\n"
    "  --run-dir DIR       where the sockets are made (default " RUN_DIR ")\n"
    "  --user NAME         give up root for this user; VMs must then run as it too\n"
    "  --log-level LEVEL   error, warn, info (default) or debug\n"
    "  --log-format FORM   text (default) or json\n"
    "  --check             check the pool file, say what is wrong, and exit\n"
    "  --version           print the version and exit\n"
    "  --help              print this and exit\n"
    "\n"
    "Signals: TERM, INT  finish running jobs, then stop; a second one stops at once\n"
    "         HUP        read the pool file again\n"
    "\n"
    "Exit codes: 0 stopped as asked   1 cannot start   2 wrong flags\n"
    "            3 pool file is wrong   4 a socket is in use by another mediator\n"
    "\n"
    "Examples:\n"
    "  vgpu-mediator --config /etc/vgpu/pool.yaml --check\n"
    "  vgpu-mediator --config /etc/vgpu/pool.yaml --log-format json\n"
    "  vgpu-mediator --config deploy/examples/pool.yaml --run-dir /tmp/vgpu --log-level debug\n";

static int usage_error(const char *what, const char *value)
{
    fprintf(stderr, "vgpu-mediator: %s%s%s; see vgpu-mediator --help\n", what, value ? " " : "",
            value ? value : "");
    return EXIT_USAGE;
}

static int check_options(const struct options *o)
{
    if (!o->config) {
        return usage_error("--config FILE is missing", NULL);
    }
    if (o->run_dir[0] != '/' || strlen(o->run_dir) > RUN_DIR_MAX) {
        return usage_error("--run-dir must be an absolute path of at most 80 bytes, not",
                           o->run_dir);
    }
    return -1;
}

/* Return: an exit status, or -1 to go on. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"run-dir", required_argument, NULL, 'r'},
        {"user", required_argument, NULL, 'u'},
        {"log-level", required_argument, NULL, 'l'},
        {"log-format", required_argument, NULL, 'f'},
        {"check", no_argument, NULL, 'k'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'c':
            o->config = optarg;
            break;
        case 'r':
            o->run_dir = optarg;
            break;
        case 'u':
            o->user = optarg;
            break;
        case 'k':
            o->check = true;
            break;
        case 'l':
            if (log_parse_level(optarg, &o->level) < 0) {
                return usage_error("--log-level is error, warn, info or debug, not", optarg);
            }
            break;
        case 'f':
            if (log_parse_format(optarg, &o->format) < 0) {
                return usage_error("--log-format is text or json, not", optarg);
            }
            break;
        case 'v':
            printf("vgpu-mediator %s\n", VGPU_VERSION);
            return EXIT_OK;
        case 'h':
            fputs(help, stdout);
            return EXIT_OK;
        default:
            return usage_error("wrong option", NULL); /* getopt said which */
        }
    }
    return optind < argc ? usage_error("unexpected argument", argv[optind]) : check_options(o);
}

static int check_file(const char *path)
{
    CLEANUP(conf_freep) struct conf *conf = NULL;
    CLEANUP(cleanup_free) struct conf_errors *errors = malloc(sizeof(*errors));

    if (!errors) {
        return EXIT_START;
    }
    if (conf_load(path, &conf, errors) == 0) {
        printf("%s: ok: %u pools, %u tenants, %u VMs\n", path, conf->n_pools, conf->n_tenants,
               conf->n_vms);
        return EXIT_OK;
    }
    for (uint32_t i = 0; i < errors->count && i < CONF_ERRORS_MAX; i++) {
        fprintf(stderr, "%s\n", errors->text[i]);
    }
    return EXIT_CONFIG;
}

/* The runtime directory must be the user's own before root is given up. */
static int become(const char *name, const char *run_dir)
{
    const struct passwd *user = getpwnam(name);

    if (!user) {
        fprintf(stderr, "vgpu-mediator: --user: there is no user '%s'\n", name);
        return -EINVAL;
    }
    if ((mkdir(run_dir, 0755) < 0 && errno != EEXIST) ||
        chown(run_dir, user->pw_uid, user->pw_gid) < 0 ||
        initgroups(user->pw_name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0 ||
        setuid(user->pw_uid) < 0) {
        int r = -errno;

        fprintf(stderr, "vgpu-mediator: cannot become user '%s': %s\n", name, strerror(-r));
        return r;
    }
    return 0;
}

/* A connection and a memfd per VM: take all descriptors that the system allows. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    struct options o = {.run_dir = RUN_DIR, .level = LOG_LEVEL_INFO, .format = LOG_FORMAT_TEXT};
    int status = parse_options(argc, argv, &o);

    if (status >= 0) {
        return status;
    }
    log_setup("vgpu-mediator", o.level, o.format);
    if (o.check) {
        return check_file(o.config);
    }
    umask(077);
    signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    if (o.user && become(o.user, o.run_dir) < 0) {
        return EXIT_START;
    }
    return mediator_run(o.config, o.run_dir);
}
