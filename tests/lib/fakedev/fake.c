/* SPDX-License-Identifier: MIT */
/* fake.c - registers, windows and life of the fake device; see fake.h */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "common/clock.h"
#include "common/core/request.h"
#include "tests/lib/fakedev/fake.h"

struct fake {
    struct fake_config config;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool stop, gone, cancel, running;
    uint32_t state, flags, error, request_len, response_len, rejects, reject_error, epoch;
    uint64_t seq, served, accesses, started_ns;
    uint32_t busy_left;
    uint8_t *shm;
    uint8_t request[VGPU_WINDOW_SIZE], response[VGPU_WINDOW_SIZE];
    uint8_t copy[VGPU_WINDOW_SIZE]; /* of the request in flight */
    uint32_t copy_len;
};

static uint64_t arena_offset(const struct fake *f)
{
    return f->config.arena_offset ? f->config.arena_offset : VGPU_SHM_CONTROL_SIZE;
}

static uint64_t arena_size(const struct fake *f)
{
    return f->config.shm_bytes ? f->config.shm_bytes - VGPU_SHM_CONTROL_SIZE : 0;
}

static bool backend_up(const struct fake *f)
{
    return clock_now_ns() - f->started_ns >= f->config.up_after_ms * CLOCK_NS_PER_MS;
}

static uint32_t read_register(const struct fake *f, uint32_t offset)
{
    switch (offset) {
    case VGPU_REG_MAGIC:
        return f->config.magic ? f->config.magic : VGPU_MAGIC;
    case VGPU_REG_ABI_VERSION:
        return f->config.abi ? f->config.abi : VGPU_ABI_VERSION;
    case VGPU_REG_FEATURES:
        return f->config.shm_bytes ? VGPU_FEATURE_SHM : 0;
    case VGPU_REG_VM_ID:
        return backend_up(f) ? 7 : 0;
    case VGPU_REG_POOL_ID:
        return 1;
    case VGPU_REG_PRIORITY:
        return VGPU_BAND_NORMAL;
    case VGPU_REG_STATUS:
        return f->state | f->flags | (backend_up(f) ? VGPU_STATUS_BACKEND_UP : 0);
    case VGPU_REG_ERROR:
        return f->error;
    case VGPU_REG_REQUEST_LEN:
        return f->request_len;
    case VGPU_REG_REQUEST_ID:
        return (uint32_t)f->seq;
    case VGPU_REG_RESPONSE_LEN:
        return f->response_len;
    case VGPU_REG_RESET_EPOCH:
        return f->epoch;
    case VGPU_REG_REJECTS:
        return f->rejects;
    case VGPU_REG_REJECT_ERROR:
        return f->reject_error;
    case VGPU_REG_DEADLINE_MS:
        return f->config.deadline_ms ? f->config.deadline_ms : 60000;
    case VGPU_REG_SHM_SIZE_LO:
        return (uint32_t)f->config.shm_bytes;
    case VGPU_REG_ARENA_OFFSET_LO:
        return (uint32_t)arena_offset(f);
    case VGPU_REG_ARENA_SIZE_LO:
        return (uint32_t)arena_size(f);
    default:
        return 0;
    }
}

static uint32_t fake_read(void *arg, uint32_t offset)
{
    struct fake *f = arg;
    uint32_t word = 0;

    pthread_mutex_lock(&f->lock);
    f->accesses++;
    if (f->gone) {
        word = UINT32_MAX;
    } else if (offset >= VGPU_WINDOW_RESPONSE) {
        memcpy(&word, f->response + (offset - VGPU_WINDOW_RESPONSE), 4);
    } else if (offset >= VGPU_WINDOW_REQUEST) {
        memcpy(&word, f->request + (offset - VGPU_WINDOW_REQUEST), 4);
    } else {
        word = read_register(f, offset);
    }
    pthread_mutex_unlock(&f->lock);
    return word;
}

static void doorbell(struct fake *f)
{
    uint32_t error = f->flags & VGPU_STATUS_BROKEN ? VGPU_E_BROKEN
                     : f->state == VGPU_STATUS_BUSY || f->flags & VGPU_STATUS_RESETTING
                         ? VGPU_E_BUSY
                         : 0;

    if (error) {
        f->rejects++;
        f->reject_error = error;
        return;
    }
    f->seq++;
    f->state = VGPU_STATUS_BUSY;
    f->cancel = false;
    f->copy_len = f->request_len < VGPU_WINDOW_SIZE ? f->request_len : VGPU_WINDOW_SIZE;
    memcpy(f->copy, f->request, f->copy_len);
    pthread_cond_broadcast(&f->changed);
}

static void control(struct fake *f, uint32_t value)
{
    if (value == VGPU_CONTROL_CANCEL && !f->config.ignore_cancel) {
        f->cancel = true;
    }
    if (value == VGPU_CONTROL_RESET) {
        f->epoch++;
        f->flags |= VGPU_STATUS_RESETTING;
    }
    pthread_cond_broadcast(&f->changed);
}

static void fake_write(void *arg, uint32_t offset, uint32_t value)
{
    struct fake *f = arg;

    pthread_mutex_lock(&f->lock);
    f->accesses++;
    if (offset >= VGPU_WINDOW_REQUEST && offset < VGPU_WINDOW_RESPONSE) {
        memcpy(f->request + (offset - VGPU_WINDOW_REQUEST), &value, 4);
    } else if (offset == VGPU_REG_REQUEST_LEN) {
        f->request_len = value;
    } else if (offset == VGPU_REG_DOORBELL && !f->gone) {
        doorbell(f);
    } else if (offset == VGPU_REG_CONTROL) {
        control(f, value);
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- the thread that plays mediator and worker; with the lock unless said otherwise ---- */

static void respond(struct fake *f, uint32_t error, uint32_t payload_kind, uint32_t payload_len)
{
    struct vgpu_resp_hdr h = {
        .size = (uint32_t)sizeof(h) + payload_len,
        .version = VGPU_REQ_VERSION,
        .op = request_peek_op(f->copy, f->copy_len),
        .error = error,
        .retry_after_ms = error == VGPU_E_BUSY ? f->config.retry_ms : 0,
        .tag = request_peek_tag(f->copy, f->copy_len),
        .seq = f->seq,
        .run_ns = 1000,
        .worker = error ? 0 : 1 + (uint32_t)(f->seq % 2),
        .attempts = 1,
        .payload = (uint16_t)payload_kind,
    };

    h.tag += f->config.nonsense == 1;
    if (f->config.nonsense == 4) {
        h.size = sizeof(h);
    }
    memcpy(f->response, &h, sizeof(h));
    f->response_len = f->config.nonsense == 2 ? VGPU_WINDOW_SIZE + 4 : h.size;
    f->error = f->config.nonsense == 3 ? 0 : error;
    f->state = error || f->config.nonsense == 3 ? VGPU_STATUS_ERROR : VGPU_STATUS_DONE;
    f->served++;
}

static void respond_text(struct fake *f, uint32_t error, const char *text)
{
    uint32_t len = (uint32_t)strlen(text); /* all texts are short */

    memcpy(f->response + sizeof(struct vgpu_resp_hdr), text, len);
    respond(f, error, VGPU_PAYLOAD_TEXT, len);
}

static void respond_info(struct fake *f)
{
    struct vgpu_info info = {
        .vm_id = 7,
        .pool_id = 1,
        .band = VGPU_BAND_NORMAL,
        .band_max = VGPU_BAND_HIGH,
        .workers = 2,
        .ops = UINT64_C(0x7f) << VGPU_OP_ECHO,
        .max_bytes = UINT64_C(1) << 30,
        .max_job_ms = 10000,
        .vm = "vm-fake",
        .tenant = "tenant-fake",
        .pool = "pool-fake",
        .backends = "fake",
    };

    memcpy(f->response + sizeof(struct vgpu_resp_hdr), &info, sizeof(info));
    respond(f, 0, VGPU_PAYLOAD_INFO, sizeof(info));
}

static void run_request(struct fake *f)
{
    struct request_limits limits = {
        .max_size = VGPU_WINDOW_SIZE, .payload_max = VGPU_PAYLOAD_MAX, .arena_size = arena_size(f)};
    struct request r;
    char why[REQUEST_WHY_MAX];
    uint32_t error = request_parse(f->copy, f->copy_len, &limits, &r, why);
    uint8_t payload[VGPU_PAYLOAD_MAX] = {0};

    if (error) {
        respond_text(f, error, why);
    } else if (r.hdr.op == VGPU_OP_INFO) {
        respond_info(f);
    } else if (f->busy_left) {
        f->busy_left--;
        respond_text(f, VGPU_E_BUSY, "the queue of the fake device is full");
    } else if (f->config.error) {
        respond_text(f, f->config.error, "as the test\nwants it");
    } else {
        f->running = true;
        pthread_mutex_unlock(&f->lock);
        error = fake_run(&r, f->shm + arena_offset(f), payload);
        pthread_mutex_lock(&f->lock);
        f->running = false;
        if (error) {
            respond_text(f, error, "the fake device found it so");
            return;
        }
        memcpy(f->response + sizeof(struct vgpu_resp_hdr), payload, r.payload_len);
        respond(f, 0, VGPU_PAYLOAD_DATA, r.payload_len);
    }
}

static uint64_t request_deadline_ns(const struct fake *f)
{
    uint32_t ms;

    memcpy(&ms, f->copy + offsetof(struct vgpu_req_hdr, deadline_ms), sizeof(ms));
    ms = ms ? ms : f->config.deadline_ms ? f->config.deadline_ms : 60000;
    return clock_now_ns() + ms * CLOCK_NS_PER_MS;
}

static void wait_until(struct fake *f, uint64_t ns)
{
    struct timespec ts = {.tv_sec = (time_t)(ns / CLOCK_NS_PER_S),
                          .tv_nsec = (long)(ns % CLOCK_NS_PER_S)};

    pthread_cond_timedwait(&f->changed, &f->lock, &ts);
}

/* Let the time pass that the request takes. Return: 0 run it; an error that ends it. */
static uint32_t dawdle(struct fake *f)
{
    uint64_t end_ns = request_deadline_ns(f);
    uint64_t run_ns = clock_now_ns() + f->config.delay_ms * CLOCK_NS_PER_MS;

    while (!f->stop && !(f->flags & VGPU_STATUS_RESETTING)) {
        uint64_t now_ns = clock_now_ns();

        if (f->cancel) {
            return VGPU_E_CANCELLED;
        }
        if (!f->config.hang && now_ns >= end_ns) {
            return backend_up(f) ? VGPU_E_DEADLINE : VGPU_E_NO_BACKEND;
        }
        if (!f->config.hang && now_ns >= run_ns && backend_up(f)) {
            return 0;
        }
        wait_until(f, now_ns + 2 * CLOCK_NS_PER_MS);
    }
    return VGPU_E_DEVICE_RESET;
}

static void serve(struct fake *f)
{
    uint32_t error = dawdle(f);

    if (f->stop || f->flags & VGPU_STATUS_RESETTING) {
        return;
    }
    if (error) {
        respond_text(f, error, "");
    } else {
        run_request(f);
    }
}

static void *fake_thread(void *arg)
{
    struct fake *f = arg;

    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        if (f->flags & VGPU_STATUS_RESETTING && !f->config.deaf) {
            f->flags = 0;
            f->state = VGPU_STATUS_IDLE;
            f->response_len = 0;
        } else if (f->state == VGPU_STATUS_BUSY && !(f->flags & VGPU_STATUS_RESETTING)) {
            serve(f);
        } else {
            pthread_cond_wait(&f->changed, &f->lock);
        }
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

struct fake *fake_new(const struct fake_config *config)
{
    struct fake *f = calloc(1, sizeof(*f));
    pthread_condattr_t attr;

    if (!f) {
        abort();
    }
    f->config = *config;
    f->busy_left = config->busy;
    f->started_ns = clock_now_ns();
    f->state = config->busy_at_start ? VGPU_STATUS_BUSY : VGPU_STATUS_IDLE;
    if (config->shm_bytes) {
        f->shm = mmap(NULL, config->shm_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    }
    pthread_mutex_init(&f->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&f->changed, &attr);
    pthread_condattr_destroy(&attr);
    if (f->shm == MAP_FAILED || pthread_create(&f->thread, NULL, fake_thread, f) != 0) {
        abort();
    }
    return f;
}

void fake_free(struct fake *f)
{
    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    if (f->shm) {
        munmap(f->shm, f->config.shm_bytes);
    }
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f);
}

struct mmio fake_mmio(struct fake *f)
{
    return (struct mmio){.read = fake_read, .write = fake_write, .arg = f};
}

struct window_place fake_place(struct fake *f)
{
    return (struct window_place){
        .mmio = fake_mmio(f),
        .regs_fd = -1,
        .settle_fd = -1,
        .shm_fd = -1,
        .shm = f->shm,
        .shm_bytes = f->config.shm_bytes,
        .address = "fake",
        .path = "simulated: BAR 0 windows, polled",
        .arena = "memory",
    };
}

void fake_set(struct fake *f, const struct fake_config *config)
{
    pthread_mutex_lock(&f->lock);
    f->config = *config;
    f->busy_left = config->busy;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void fake_unplug(struct fake *f)
{
    pthread_mutex_lock(&f->lock);
    f->gone = true;
    pthread_mutex_unlock(&f->lock);
}

uint64_t fake_served(struct fake *f)
{
    uint64_t n;

    pthread_mutex_lock(&f->lock);
    n = f->served;
    pthread_mutex_unlock(&f->lock);
    return n;
}

uint64_t fake_accesses(struct fake *f)
{
    uint64_t n;

    pthread_mutex_lock(&f->lock);
    n = f->accesses;
    pthread_mutex_unlock(&f->lock);
    return n;
}

uint32_t fake_last_request(struct fake *f, uint8_t *ret)
{
    uint32_t len;

    pthread_mutex_lock(&f->lock);
    len = f->copy_len;
    memcpy(ret, f->copy, len);
    pthread_mutex_unlock(&f->lock);
    return len;
}

#define KEY(name)                                 \
    {                                             \
#name, offsetof(struct fake_config, name) \
    }
static const struct {
    const char *name;
    size_t offset;
} keys[] = {
    KEY(delay_ms), KEY(busy),          KEY(retry_ms),     KEY(error),       KEY(up_after_ms),
    KEY(hang),     KEY(ignore_cancel), KEY(deaf),         KEY(deadline_ms), KEY(abi),
    KEY(magic),    KEY(busy_at_start), KEY(arena_offset), KEY(nonsense),
};

static int parse_pair(const char *text, size_t len, struct fake_config *ret)
{
    const char *equals = memchr(text, '=', len);

    for (size_t i = 0; equals && i < sizeof(keys) / sizeof(keys[0]); i++) {
        size_t n = (size_t)(equals - text);
        uint32_t value = (uint32_t)strtoul(equals + 1, NULL, 0);

        if (strlen(keys[i].name) == n && strncmp(keys[i].name, text, n) == 0) {
            memcpy((char *)ret + keys[i].offset, &value, sizeof(value));
            return 0;
        }
    }
    if (equals && strncmp(text, "shm_bytes=", 10) == 0) {
        ret->shm_bytes = strtoull(equals + 1, NULL, 0);
        return 0;
    }
    return -1;
}

int fake_config_parse(const char *text, struct fake_config *ret)
{
    while (text && *text) {
        size_t len = strcspn(text, ",");

        if (parse_pair(text, len, ret) != 0) {
            return -1;
        }
        text += len + (text[len] == ',');
    }
    return 0;
}
