/* SPDX-License-Identifier: MIT */
/* fake.c - registers, windows and life of the fake device; see fake.h */
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/core/request.h"
#include "tests/lib/fakedev/fake_int.h"

struct ring_shape fake_ring_shape(const struct fake *f)
{
    return (struct ring_shape){
        .entries = f->config.entries ? f->config.entries : 64,
        .slot_bytes = f->config.slot_bytes ? f->config.slot_bytes : VGPU_REQ_MAX,
    };
}

static uint64_t control_size(const struct fake *f)
{
    struct ring_shape shape = fake_ring_shape(f);
    uint64_t n = f->config.rings ? f->config.rings * ring_bytes(&shape) : 0;

    return VGPU_SHM_CONTROL_SIZE +
           (n + VGPU_SHM_CONTROL_SIZE - 1) / VGPU_SHM_CONTROL_SIZE * VGPU_SHM_CONTROL_SIZE;
}

uint64_t fake_arena_offset(const struct fake *f)
{
    return f->config.arena_offset ? f->config.arena_offset : control_size(f);
}

uint64_t fake_arena_size(const struct fake *f)
{
    return f->config.shm_bytes ? f->config.shm_bytes - control_size(f) : 0;
}

bool fake_backend_up(const struct fake *f)
{
    return clock_now_ns() - f->started_ns >= f->config.up_after_ms * CLOCK_NS_PER_MS;
}

static uint32_t ring_register(const struct fake *f, uint32_t offset)
{
    const struct fake_config *c = &f->registers;
    struct ring_shape shape = fake_ring_shape(f);

    switch (offset) {
    case VGPU_REG_RING_COUNT:
        return f->config.rings;
    case VGPU_REG_RING_ENTRIES:
        return c->entries ? c->entries : shape.entries;
    case VGPU_REG_SLOT_BYTES:
        return c->slot_bytes ? c->slot_bytes : shape.slot_bytes;
    case VGPU_REG_RING_OFFSET:
        return c->ring_offset ? c->ring_offset : VGPU_SHM_CONTROL_SIZE;
    case VGPU_REG_RING_STRIDE:
        return c->ring_stride ? c->ring_stride : (uint32_t)ring_bytes(&shape);
    default:
        return 0;
    }
}

static uint32_t read_register(const struct fake *f, uint32_t offset)
{
    switch (offset) {
    case VGPU_REG_MAGIC:
        return f->config.magic ? f->config.magic : VGPU_MAGIC;
    case VGPU_REG_ABI_VERSION:
        return f->config.abi ? f->config.abi : VGPU_ABI_VERSION;
    case VGPU_REG_FEATURES:
        return (f->config.shm_bytes ? VGPU_FEATURE_SHM : 0) |
               (f->config.rings ? VGPU_FEATURE_RING | VGPU_FEATURE_EVENT_IDX : 0);
    case VGPU_REG_VM_ID:
        return fake_backend_up(f) ? 7 : 0;
    case VGPU_REG_POOL_ID:
        return 1;
    case VGPU_REG_PRIORITY:
        return VGPU_BAND_NORMAL;
    case VGPU_REG_STATUS:
        return f->state | f->flags | (fake_backend_up(f) ? VGPU_STATUS_BACKEND_UP : 0);
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
        return (uint32_t)fake_arena_offset(f);
    case VGPU_REG_ARENA_SIZE_LO:
        return (uint32_t)fake_arena_size(f);
    default:
        return f->config.rings ? ring_register(f, offset) : 0;
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
    memcpy(f->last, f->copy, f->copy_len);
    f->last_len = f->copy_len;
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
        fake_rings_reset(f);
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
    } else if (offset >= VGPU_REG_RING_DOORBELL &&
               offset < VGPU_REG_RING_DOORBELL + 4 * VGPU_RINGS_MAX) {
        f->doorbells++;
        if (f->config.lose_bells) {
            f->config.lose_bells--;
        } else {
            pthread_cond_broadcast(&f->changed);
        }
    } else if (offset == VGPU_REG_CONTROL) {
        control(f, value);
    }
    pthread_mutex_unlock(&f->lock);
}

/* ---- the thread that plays mediator and worker; with the lock unless said otherwise ---- */

static void respond(struct fake *f, struct fake_job *job, uint32_t error, uint32_t payload_kind,
                    uint32_t payload_len)
{
    struct vgpu_resp_hdr h = {
        .size = (uint32_t)sizeof(h) + payload_len,
        .version = VGPU_REQ_VERSION,
        .op = request_peek_op(job->copy, job->copy_len),
        .error = error,
        .retry_after_ms = error == VGPU_E_BUSY ? f->config.retry_ms : 0,
        .tag = request_peek_tag(job->copy, job->copy_len),
        .seq = job->seq,
        .run_ns = 1000,
        .worker = error ? 0 : 1 + (uint32_t)(job->seq % 2),
        .attempts = 1,
        .payload = (uint16_t)payload_kind,
    };

    h.tag += f->config.nonsense == 1;
    if (f->config.nonsense == 4) {
        h.size = sizeof(h);
    }
    memcpy(job->out, &h, sizeof(h));
    job->len = h.size;
    job->error = error;
}

void fake_answer_error(struct fake *f, struct fake_job *job, uint32_t error, const char *text)
{
    uint32_t len = (uint32_t)strlen(text); /* all texts are short */

    memcpy(job->out + sizeof(struct vgpu_resp_hdr), text, len);
    respond(f, job, error, VGPU_PAYLOAD_TEXT, len);
}

static void respond_info(struct fake *f, struct fake_job *job)
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

    memcpy(job->out + sizeof(struct vgpu_resp_hdr), &info, sizeof(info));
    respond(f, job, 0, VGPU_PAYLOAD_INFO, sizeof(info));
}

void fake_answer(struct fake *f, struct fake_job *job)
{
    uint32_t payload_max = job->cap - (uint32_t)sizeof(struct vgpu_resp_hdr);
    struct request_limits limits = {
        .max_size = job->cap, .payload_max = payload_max, .arena_size = fake_arena_size(f)};
    struct request r;
    char why[REQUEST_WHY_MAX];
    uint32_t error = request_parse(job->copy, job->copy_len, &limits, &r, why);
    uint8_t payload[VGPU_REQ_MAX] = {0};

    if (error) {
        fake_answer_error(f, job, error, why);
    } else if (r.hdr.op == VGPU_OP_INFO) {
        respond_info(f, job);
    } else if (f->busy_left) {
        f->busy_left--;
        fake_answer_error(f, job, VGPU_E_BUSY, "the queue of the fake device is full");
    } else if (f->config.error) {
        fake_answer_error(f, job, f->config.error, "as the test\nwants it");
    } else {
        f->running++;
        pthread_mutex_unlock(&f->lock);
        error = fake_run(&r, f->shm + fake_arena_offset(f), payload);
        pthread_mutex_lock(&f->lock);
        f->running--;
        pthread_cond_broadcast(&f->changed);
        if (error) {
            fake_answer_error(f, job, error, "the fake device found it so");
            return;
        }
        memcpy(job->out + sizeof(struct vgpu_resp_hdr), payload, r.payload_len);
        respond(f, job, 0, VGPU_PAYLOAD_DATA, r.payload_len);
    }
}

/* Put an answer into the window. */
static void show(struct fake *f, const struct fake_job *job)
{
    memcpy(f->response, job->out, job->len);
    f->response_len = f->config.nonsense == 2 ? VGPU_WINDOW_SIZE + 4 : job->len;
    f->error = f->config.nonsense == 3 ? 0 : job->error;
    f->state = job->error || f->config.nonsense == 3 ? VGPU_STATUS_ERROR : VGPU_STATUS_DONE;
    f->served++;
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
            return fake_backend_up(f) ? VGPU_E_DEADLINE : VGPU_E_NO_BACKEND;
        }
        if (!f->config.hang && now_ns >= run_ns && fake_backend_up(f)) {
            return 0;
        }
        wait_until(f, now_ns + 2 * CLOCK_NS_PER_MS);
    }
    return VGPU_E_DEVICE_RESET;
}

static void serve(struct fake *f)
{
    struct fake_job job = {
        .copy = f->copy, .copy_len = f->copy_len, .seq = f->seq, .cap = VGPU_WINDOW_SIZE};
    uint32_t error = dawdle(f);

    if (f->stop || f->flags & VGPU_STATUS_RESETTING) {
        return;
    }
    if (error) {
        fake_answer_error(f, &job, error, "");
    } else {
        fake_answer(f, &job);
    }
    show(f, &job);
}

static void *fake_thread(void *arg)
{
    struct fake *f = arg;

    pthread_mutex_lock(&f->lock);
    while (!f->stop) {
        if (f->flags & VGPU_STATUS_RESETTING && !f->config.deaf && !f->running) {
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

static void *map_shared(int fd, uint64_t bytes)
{
    void *p =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (fd < 0 ? MAP_ANONYMOUS : 0), fd, 0);

    if (p == MAP_FAILED) {
        abort();
    }
    return p;
}

static int new_file(const char *name, uint64_t bytes)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (fd < 0 || ftruncate(fd, (off_t)bytes) != 0) {
        abort();
    }
    return fd;
}

static void init_locks(struct fake *f)
{
    pthread_mutexattr_t mutex;
    pthread_condattr_t cond;

    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&f->lock, &mutex);
    pthread_mutexattr_destroy(&mutex);
    pthread_condattr_init(&cond);
    pthread_condattr_setclock(&cond, CLOCK_MONOTONIC);
    pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&f->changed, &cond);
    pthread_condattr_destroy(&cond);
}

struct fake *fake_new(const struct fake_config *config)
{
    struct fake *f = map_shared(-1, sizeof(*f));

    f->config = *config;
    f->busy_left = config->busy;
    f->started_ns = clock_now_ns();
    f->state = config->busy_at_start ? VGPU_STATUS_BUSY : VGPU_STATUS_IDLE;
    f->regs_fd = new_file("resource0", VGPU_BAR_REGS_SIZE);
    f->shm_fd = -1;
    if (config->shm_bytes) {
        f->shm_fd = new_file("resource2", config->shm_bytes);
        f->shm = map_shared(f->shm_fd, config->shm_bytes);
        fake_rings_init(f);
    }
    init_locks(f);
    if (pthread_create(&f->thread, NULL, fake_thread, f) != 0 ||
        (f->config.rings && pthread_create(&f->ring_thread, NULL, fake_ring_thread, f) != 0)) {
        abort();
    }
    return f;
}

void fake_free(struct fake *f)
{
    uint32_t rings = f->config.rings;

    pthread_mutex_lock(&f->lock);
    f->stop = true;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    if (rings) {
        pthread_join(f->ring_thread, NULL);
    }
    if (f->shm) {
        munmap(f->shm, f->config.shm_bytes);
        close(f->shm_fd);
    }
    close(f->regs_fd);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->changed);
    free(f->pending);
    munmap(f, sizeof(*f));
}

struct mmio fake_mmio(struct fake *f)
{
    return (struct mmio){.read = fake_read, .write = fake_write, .arg = f};
}

struct place fake_place(struct fake *f)
{
    return (struct place){
        .mmio = fake_mmio(f),
        .regs_fd = -1,
        .settle_fd = -1,
        .shm_fd = -1,
        .shm = f->shm,
        .shm_bytes = f->config.shm_bytes,
        .address = "fake",
        .how = "simulated",
        .arena = "memory",
    };
}

/* The same file, but with locks of its own. */
static int open_again(int fd)
{
    char path[32];
    int again;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    again = open(path, O_RDWR | O_CLOEXEC);
    if (again < 0) {
        abort();
    }
    return again;
}

struct place fake_place_shared(struct fake *f)
{
    struct place p = fake_place(f);

    p.regs_fd = open_again(f->regs_fd);
    p.settle_fd = open_again(f->regs_fd);
    p.shm_fd = open_again(f->shm_fd);
    p.shm = map_shared(p.shm_fd, f->config.shm_bytes);
    return p;
}

uint64_t fake_doorbells(struct fake *f)
{
    uint64_t n;

    pthread_mutex_lock(&f->lock);
    n = f->doorbells;
    pthread_mutex_unlock(&f->lock);
    return n;
}

uint8_t *fake_ring_base(struct fake *f, unsigned i)
{
    return (uint8_t *)f->rings[i].map.driver;
}

void fake_set(struct fake *f, const struct fake_config *config)
{
    pthread_mutex_lock(&f->lock);
    uint32_t rings = f->config.rings, entries = f->config.entries, slot = f->config.slot_bytes;

    f->config = *config; /* but what the device is made of stays */
    f->config.rings = rings;
    f->config.entries = entries;
    f->config.slot_bytes = slot;
    f->busy_left = config->busy;
    pthread_cond_broadcast(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

void fake_set_registers(struct fake *f, const struct fake_config *config)
{
    pthread_mutex_lock(&f->lock);
    f->registers = *config;
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
    len = f->last_len;
    memcpy(ret, f->last, len);
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
    KEY(delay_ms),    KEY(busy),          KEY(retry_ms),     KEY(error),       KEY(up_after_ms),
    KEY(hang),        KEY(ignore_cancel), KEY(deaf),         KEY(deadline_ms), KEY(abi),
    KEY(magic),       KEY(busy_at_start), KEY(arena_offset), KEY(nonsense),    KEY(rings),
    KEY(entries),     KEY(slot_bytes),    KEY(reverse),      KEY(ring_lie),    KEY(asleep),
    KEY(index_start),
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
