/* SPDX-License-Identifier: MIT */
/*
 * cmd - what the subcommands of `vgpu` share: exit codes, common options, messages, Ctrl-C
 */
#ifndef GUEST_CMD_H
#define GUEST_CMD_H

#include <getopt.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "guest/include/vgpu.h"

/* Exit codes. They are part of the interface: docs/guest.md lists them. */
enum {
    EXIT_OK = 0,
    EXIT_REFUSED = 1,     /* the device or the pool refused the request, or it failed there */
    EXIT_USAGE = 2,       /* wrong command line */
    EXIT_NO_DEVICE = 3,   /* no device, or it cannot be used */
    EXIT_FILE = 4,        /* a file cannot be read or written, or its content is unsuitable */
    EXIT_LATER = 5,       /* nobody answered in time: no mediator, no worker, busy, deadline */
    EXIT_CANCELLED = 130, /* Ctrl-C or SIGTERM */
};

/* Options that every subcommand takes. */
struct cmd {
    const char *name; /* "vgpu denoise", for messages */
    const char *device;
    enum vgpu_path path;
    uint32_t spin_us; /* as in struct vgpu_options */
    bool json;
    bool said_no_backend;
    struct vgpu_request_options request;
};

enum {
    CMD_OPT_FIRST = 1000,
    OPT_DEVICE = CMD_OPT_FIRST,
    OPT_JSON,
    OPT_DEADLINE,
    OPT_POOL,
    OPT_BAND,
    OPT_PATH,
    OPT_SPIN
};

/* clang-format off */
#define CMD_OPTIONS \
    { "help", no_argument, NULL, 'h' }, \
    { "device", required_argument, NULL, OPT_DEVICE }, \
    { "json", no_argument, NULL, OPT_JSON }, \
    { "deadline", required_argument, NULL, OPT_DEADLINE }, \
    { "pool", required_argument, NULL, OPT_POOL }, \
    { "band", required_argument, NULL, OPT_BAND }, \
    { "path", required_argument, NULL, OPT_PATH }, \
    { "spin", required_argument, NULL, OPT_SPIN }, \
    { NULL, 0, NULL, 0 }
/* clang-format on */

extern const char cmd_options_help[]; /* the lines of --help for them */

/** cmd_init() - defaults */
void cmd_init(struct cmd *c, const char *name);

/**
 * cmd_option() - take a common option other than --help, or complain about an unknown one
 * @option: from getopt_long()
 *
 * Return: 0; EXIT_USAGE, reported.
 */
int cmd_option(struct cmd *c, int option);

/**
 * cmd_fail() - print why the command fails: one line to stderr, or with --json an object to stdout
 * @exit_code: what the command is going to return
 *
 * Return: @exit_code.
 */
#define cmd_fail(c, exit_code, ...)                 \
    ({                                              \
        int exit_code_ = (exit_code);               \
        cmd_complain((c), exit_code_, __VA_ARGS__); \
        exit_code_;                                 \
    })

/** cmd_complain() - what cmd_fail() does, without its value */
void cmd_complain(const struct cmd *c, int exit_code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/** cmd_exit_code() - exit code for a result of the library */
int cmd_exit_code(int code);

/**
 * cmd_open() - open the device of the options, with messages about its state
 *
 * Return: an exit code; the failure has been reported.
 */
int cmd_open(struct cmd *c, struct vgpu **ret_gpu);

/**
 * cmd_wait() - wait for a request; Ctrl-C cancels it
 *
 * Return: as vgpu_wait() without a timeout.
 */
int cmd_wait(struct vgpu_request *req);

/** cmd_interrupted() - Ctrl-C was pressed, or SIGTERM came; a second one ends the process */
bool cmd_interrupted(void);

/** cmd_catch_signals() - from now on cmd_interrupted() works, and broken pipes are errors */
void cmd_catch_signals(void);

/**
 * cmd_number() - read a number of the command line
 * @option: its name, for the message
 *
 * Return: 0; EXIT_USAGE, reported.
 */
int cmd_number(const struct cmd *c, const char *option, const char *text, double min, double max,
               double *ret);

/** cmd_integer() - as cmd_number(), for whole numbers */
int cmd_integer(const struct cmd *c, const char *option, const char *text, uint64_t min,
                uint64_t max, uint64_t *ret);

/** cmd_json_string() - print @text as a JSON string */
void cmd_json_string(FILE *out, const char *text);

/** cmd_now_ms() - monotonic clock, milliseconds */
double cmd_now_ms(void);

/* The subcommands: main() of their own, with argv[0] being the subcommand. */
int info_main(int argc, char **argv);
int run_main(int argc, char **argv);
int denoise_main(int argc, char **argv);
int bench_main(int argc, char **argv);
int reset_main(int argc, char **argv);

#endif
