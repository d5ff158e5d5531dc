/* SPDX-License-Identifier: MIT */
/*
 * sandbox_none.c - where there is no sandbox: see sandbox.h
 */
#include "gpu-worker/sandbox.h"

int sandbox_enter(void)
{
    return SANDBOX_E_NONE;
}

void sandbox_forbid_io_uring(void)
{
}
