/* SPDX-License-Identifier: MIT */
/*
 * simd - compile a function several times and let the processor at hand choose
 *
 * SIMD_CLONES in front of a function whose loops the compiler can vectorise. The files that use it
 * are compiled without contraction of a * b + c, so that every clone gives the same bits. The
 * sanitizers' run-time is not ready when the choice is made: there is one version then.
 */
#ifndef VGPU_WORKER_CPU_SIMD_H
#define VGPU_WORKER_CPU_SIMD_H

#ifndef VGPU_SIMD
#define VGPU_SIMD 0
#endif

#if VGPU_SIMD && defined(__x86_64__)
#define SIMD_CLONES __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define SIMD_CLONES
#endif

/* For the body that SIMD_CLONES functions share: it must become part of each clone. */
#define SIMD_BODY static inline __attribute__((always_inline))

#endif
