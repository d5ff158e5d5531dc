/* SPDX-License-Identifier: MIT */
/*
 * conf_keys - every number of the pool file: name, type, bounds, default
 *
 * K(key, TYPE, min, max, default, "what it is"). The structures in conf.h, the YAML schema, the
 * range checks and a test of docs/pool-file.md are generated from these tables. Types:
 *
 *   COUNT     a plain number
 *   SIZE      bytes: a number with K, M, G or T (powers of 1024) or without
 *   DURATION  a number with ms, s, m or h; kept in milliseconds
 *   SPIN      a number with us or ms; kept in microseconds; auto: CONF_AUTO
 *   BAND      batch, normal, high or realtime
 *
 * The default is written as in the file. "-" has a meaning of its own, given in the help.
 */
#ifndef VGPU_CONF_KEYS_H
#define VGPU_CONF_KEYS_H

/* clang-format off */
#define CONF_MEDIATOR_KEYS(K) \
    K(heartbeat,    DURATION, "50ms",  "60s",  "1s",   "how often workers and mediator say that they live; 3 silent periods: no new work, 6: lost") \
    K(deadline,     DURATION, "1ms",   "24h",  "60s",  "deadline of a request that asks for none, and the latest that one may ask for") \
    K(drain,        DURATION, "0ms",   "24h",  "30s",  "after SIGTERM: how long running jobs may take to end") \
    K(reconnect,    DURATION, "0ms",   "10m",  "2s",   "how long a running job outlives its VM's connection, for the VM to come back to it") \
    K(cancel_grace, DURATION, "10ms",  "10m",  "5s",   "how long a cancelled job may go on before its executor is ended") \
    K(kill_grace,   DURATION, "10ms",  "10m",  "2s",   "how far beyond max_job a job may run before the mediator asks for its executor's end") \
    K(idle_memory,  DURATION, "0ms",   "24h",  "10s",  "when a VM's staging memory is idle for so long, it is given back") \
    K(spin,         SPIN,     "0us",   "10ms", "auto", "how long mediator and executors look for more work before they sleep; auto: 50us where 4 or more CPUs may be used, else 0us") \
    K(max_workers,  COUNT,    "1",     "4096", "256",  "workers connected at a time") \
    K(history,      COUNT,    "0",     "65536", "512", "ended jobs that vgpuctl jobs can show")

#define CONF_POOL_KEYS(K) \
    K(max_queued,   COUNT,    "1",     "1000000", "10000", "requests waiting or running in the pool") \
    K(max_bytes,    SIZE,     "1M",    "64T",  "16G",  "ARENA bytes of those")

#define CONF_BAND_KEYS(K) \
    K(max_job,      DURATION, "10ms",  "24h",  "-",    "longest that a job may run; realtime 5s, high 30s, normal 60s, batch 10m")

#define CONF_TENANT_KEYS(K) \
    K(weight,       COUNT,    "1",     "10000", "1",   "share of the pool, relative to other tenants") \
    K(max_queued,   COUNT,    "1",     "1000000", "1024", "requests waiting or running, of all VMs of the tenant") \
    K(max_bytes,    SIZE,     "4K",    "64T",  "4G",   "ARENA bytes of those") \
    K(max_request,  SIZE,     "4K",    "64G",  "1G",   "ARENA bytes of one request")

#define CONF_VM_KEYS(K) \
    K(band,         BAND,     "batch", "realtime", "normal", "priority band of a request that asks for none") \
    K(band_max,     BAND,     "batch", "realtime", "-", "highest band that the guest may ask for; default: band")
/* clang-format on */

#endif
