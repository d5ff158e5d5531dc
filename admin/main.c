/* SPDX-License-Identifier: MIT */
/* main.c - vgpuctl: flags, commands, exit codes */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "admin/client.h"
#include "admin/views.h"

enum { EXIT_USAGE = 2, EXIT_UNREACHABLE = 3, EXIT_REFUSED = 4 };

struct options {
    const char *socket;
    char in_run_dir[PATH_MAX];
    const struct view *view;
    bool json;
    unsigned watch_s; /* 0: once */
    unsigned limit;   /* 0: the mediator's default */
};

static void print_help(FILE *out)
{
    const struct view *v;

    fprintf(out, "Usage: vgpuctl [OPTIONS] COMMAND\n\n"
                 "Shows what a mediator is doing.\n\nCommands:\n");
    for (size_t i = 0; (v = view_at(i)) != NULL; i++) {
        fprintf(out, "  %-10s %s\n", v->command, v->help);
    }
    fprintf(out,
            "\nOptions:\n"
            "  --admin PATH         the mediator's admin socket (default: $VGPU_ADMIN, else\n"
            "                       /run/vgpu/admin.sock)\n"
            "  --run-dir DIR        the same as --admin DIR/admin.sock\n"
            "  --json               the answer as it came, one line, with its schema\n"
            "  --watch[=SECONDS]    again every SECONDS (default 1), until Ctrl-C\n"
            "  --limit N            jobs: how many, 1 to 1000 (default 20)\n"
            "  --help, --version\n"
            "\nExit codes: 0 answered, 2 wrong usage, 3 no mediator there, 4 the mediator refused\n"
            "\nExamples:\n"
            "  vgpuctl queues --watch\n"
            "  vgpuctl --admin /run/vgpu/admin.sock workers\n"
            "  vgpuctl jobs --limit 100 --json | jq '.jobs[] | select(.attempts > 1)'\n");
}

static int usage_error(const char *what, const char *which)
{
    fprintf(stderr, "vgpuctl: %s%s%s; see vgpuctl --help\n", what, which ? ": " : "",
            which ? which : "");
    return EXIT_USAGE;
}

/* A whole number from 1 to @max, or 0. */
static unsigned parse_count(const char *text, unsigned max)
{
    char *end;
    unsigned long n;

    errno = 0;
    n = strtoul(text, &end, 10);
    return errno || *end || end == text || text[0] == '-' || n > max ? 0 : (unsigned)n;
}

static int parse_option(struct options *o, int c)
{
    switch (c) {
    case 'a':
        o->socket = optarg;
        return 0;
    case 'r':
        if ((size_t)snprintf(o->in_run_dir, sizeof(o->in_run_dir), "%s/admin.sock", optarg) >=
            sizeof(o->in_run_dir)) {
            return usage_error("--run-dir is too long", NULL);
        }
        o->socket = o->in_run_dir;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case 'w':
        o->watch_s = optarg ? parse_count(optarg, 3600) : 1;
        return o->watch_s ? 0 : usage_error("--watch takes seconds from 1 to 3600", optarg);
    case 'l':
        o->limit = parse_count(optarg, 1000);
        return o->limit ? 0 : usage_error("--limit takes a number from 1 to 1000", optarg);
    case 'h':
        print_help(stdout);
        exit(EXIT_SUCCESS);
    case 'V':
        printf("vgpuctl %s\n", VGPU_VERSION);
        exit(EXIT_SUCCESS);
    default:
        return usage_error("wrong option", NULL);
    }
}

static int parse(struct options *o, int argc, char **argv)
{
    static const struct option longs[] = {
        {"admin", required_argument, NULL, 'a'}, {"run-dir", required_argument, NULL, 'r'},
        {"json", no_argument, NULL, 'j'},        {"watch", optional_argument, NULL, 'w'},
        {"limit", required_argument, NULL, 'l'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},     {NULL, 0, NULL, 0}};
    int c;

    while ((c = getopt_long(argc, argv, "h", longs, NULL)) != -1) {
        int r = parse_option(o, c);

        if (r) {
            return r;
        }
    }
    if (optind == argc) {
        return usage_error("which command?", NULL);
    }
    o->view = view_find(argv[optind]);
    if (!o->view) {
        return usage_error("there is no such command", argv[optind]);
    }
    return optind + 1 == argc ? 0 : usage_error("one command at a time", argv[optind + 1]);
}

static json_t *make_question(const struct options *o)
{
    json_t *q = json_pack("{s:s}", "command", o->view->command);

    if (q && o->limit) {
        json_object_set_new(q, "limit", json_integer(o->limit));
    }
    return q;
}

static int show(const struct options *o, const json_t *answer)
{
    int err = 0;

    if (o->watch_s && !o->json && isatty(STDOUT_FILENO)) {
        printf("\033[H\033[2J");
    }
    if (o->json) {
        err = json_dumpf(answer, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10));
        printf("\n");
    } else {
        err = o->view->print(stdout, answer);
    }
    return fflush(stdout) || err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int ask_and_show(const struct options *o, const json_t *question)
{
    char why[512];
    json_t *answer;
    int r = client_ask(o->socket, question, &answer, why, sizeof(why));

    if (r) {
        fprintf(stderr, "vgpuctl: %s\n", why);
        return r == CLIENT_E_REFUSED ? EXIT_REFUSED : EXIT_UNREACHABLE;
    }
    r = show(o, answer);
    json_decref(answer);
    return r;
}

int main(int argc, char **argv)
{
    const char *env = getenv("VGPU_ADMIN");
    struct options o = {.socket = env && *env ? env : "/run/vgpu/admin.sock"};
    json_t *question;
    int r = parse(&o, argc, argv);

    if (r) {
        return r;
    }
    question = make_question(&o);
    do {
        r = question ? ask_and_show(&o, question) : EXIT_FAILURE;
    } while (r == 0 && o.watch_s && sleep(o.watch_s) == 0);
    json_decref(question);
    return r;
}
