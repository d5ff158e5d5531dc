/* SPDX-License-Identifier: MIT */
/* main.c - `vgpu`: choose the subcommand */
#include <string.h>

#include "guest/cmd/cmd.h"

static const char help[] =
    "vgpu - use the GPU pool of this VM's host through its vGPU device\n"
    "\n"
    "Usage: vgpu COMMAND [OPTIONS]\n"
    "\n"
    "Commands:\n"
    "  info       what this VM has: device, pool, workers, operations\n"
    "  run        run one operation on .npy arrays\n"
    "  denoise    denoise a PNG picture\n"
    "  bench      measure the way to the device and back\n"
    "  reset      reset a device that is broken\n"
    "\n"
    "`vgpu COMMAND --help` explains each, with examples. `vgpu --version` prints the version.\n"
    "\n"
    "Examples:\n"
    "  vgpu info\n"
    "  vgpu run gemm --in a.npy --in b.npy --out c.npy\n"
    "  vgpu denoise noisy.png clean.png --sigma 15\n"
    "\n"
    "Exit codes:\n"
    "  0    done\n"
    "  1    the device or the pool refused the request, or it failed there\n"
    "  2    wrong command line\n"
    "  3    no vGPU device, or it cannot be used (not root, kernel locked down, other version)\n"
    "  4    a file cannot be read or written, or its content is unsuitable\n"
    "  5    nobody answered in time: no mediator, no worker, busy, deadline; try again later\n"
    "  130  cancelled by Ctrl-C or SIGTERM\n";

static const struct {
    const char *name;
    int (*main)(int argc, char **argv);
} commands[] = {
    {"info", info_main},   {"run", run_main},     {"denoise", denoise_main},
    {"bench", bench_main}, {"reset", reset_main},
};

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : "";

    if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help")) {
        fputs(help, stdout);
        return EXIT_OK;
    }
    if (!strcmp(name, "--version")) {
        printf("vgpu %s (device ABI %u.%u)\n", VGPU_VERSION, VGPU_ABI_VERSION >> 16,
               VGPU_ABI_VERSION & 0xffff);
        return EXIT_OK;
    }
    cmd_catch_signals();
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (strcmp(name, commands[i].name) == 0) {
            int r = commands[i].main(argc - 1, argv + 1);

            if (fflush(stdout) != 0 && r == EXIT_OK) {
                fprintf(stderr, "vgpu %s: cannot write to stdout\n", name);
                r = EXIT_FILE;
            }
            return r;
        }
    }
    if (!*name) {
        fputs(help, stderr);
    } else {
        fprintf(stderr,
                "vgpu: there is no command \"%s\": the commands are info, run, denoise, bench and "
                "reset (see `vgpu --help`)\n",
                name);
    }
    return EXIT_USAGE;
}
