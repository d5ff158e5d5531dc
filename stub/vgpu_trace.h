/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_trace - the trace events of trace-events, in both kinds of build
 *
 * In QEMU's own tree they are QEMU's trace events. The plug-in cannot add events to a finished
 * binary; there they are lines on standard error when the environment has VGPU_STUB_TRACE=1 (or a part
 * of the names that are wanted: VGPU_STUB_TRACE=submit).
 */
#ifndef VGPU_TRACE_H
#define VGPU_TRACE_H

#ifdef VGPU_STUB_PLUGIN
#include "trace-vgpu-plugin.h"
#else
#include "trace.h"
#endif

#endif
