/* SPDX-License-Identifier: MIT */
/*
 * main.c - vgpu-worker: the command line, then supervisor or executor
 */
#include <stdlib.h>
#include <unistd.h>

#include "gpu-worker/executor.h"
#include "gpu-worker/supervisor.h"

/*
 * OpenBLAS starts a thread per processor while it is loaded, before main(), unless its environment
 * says otherwise. Neither process wants them: the backend has its own threads.
 */
static void keep_libraries_single_threaded(char **argv)
{
    if (!getenv("OPENBLAS_NUM_THREADS")) {
        setenv("OPENBLAS_NUM_THREADS", "1", 1);
        execv("/proc/self/exe", argv); /* where that fails, there are some idle threads */
    }
}

int main(int argc, char **argv)
{
    struct options options;

    switch (options_parse(argc, argv, &options)) {
    case 0:
        break;
    case OPTIONS_E_DONE:
        return 0;
    default:
        return SUPERVISOR_EXIT_USAGE;
    }
    log_setup(options.executor ? "vgpu-executor" : "vgpu-worker", options.log_level,
              options.log_format);
    if (options.executor) {
        return executor_main(&options);
    }
    keep_libraries_single_threaded(argv);
    return supervisor_main(&options);
}
