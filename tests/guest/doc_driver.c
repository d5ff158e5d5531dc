/* SPDX-License-Identifier: MIT */
/*
 * doc_driver - a driver of the vGPU PCI device written from docs/device.md alone
 *
 * It includes nothing but env.h: every name and number below is transcribed from the document's
 * tables. It polls, sends one request at a time through the windows of BAR 0, and keeps large data
 * in the arena of BAR 2.
 */
#include "tests/guest/env.h"

/* PCI configuration space: what every PCI function has */
#define CONFIG_ID 0x00
#define CONFIG_COMMAND 0x04
#define CONFIG_HEADER_TYPE 0x0c
#define CONFIG_BAR0 0x10
#define CONFIG_BAR2 0x18
#define CONFIG_BAR3 0x1c
#define COMMAND_MEMORY 0x2u
#define HEADER_MULTIFUNCTION 0x00800000u
#define BAR_FLAGS 0xfu
#define BAR_TYPE 0x7u /* bit 0: I/O space, bits 2..1: 0 for 32 bits, 2 for 64 bits */
#define BAR_TYPE_32 0x0u
#define BAR_TYPE_64 0x4u

/* "PCI function" and "BAR 0" */
#define VGPU_ID 0x56471234u
#define VGPU_MAGIC 0x55504756u
#define VGPU_ABI_MAJOR 1u
#define REG_MAGIC 0x000
#define REG_ABI_VERSION 0x004
#define REG_FEATURES 0x008
#define REG_VM_ID 0x00c
#define REG_STATUS 0x018
#define REG_ERROR 0x01c
#define REG_REQUEST_LEN 0x020
#define REG_REQUEST_ID 0x024
#define REG_RESPONSE_LEN 0x028
#define REG_CONTROL 0x02c
#define REG_REJECT_ERROR 0x03c
#define REG_SHM_SIZE_LO 0x060
#define REG_SHM_SIZE_HI 0x064
#define REG_ARENA_OFFSET_LO 0x068
#define REG_ARENA_OFFSET_HI 0x06c
#define REG_ARENA_SIZE_LO 0x070
#define REG_ARENA_SIZE_HI 0x074
#define REG_DOORBELL 0x080
#define WINDOW_REQUEST 0x400
#define WINDOW_RESPONSE 0x800
#define WINDOW_SIZE 0x400
#define FEATURE_SHM 0x1u
#define STATE_MASK 0xffu
#define STATE_IDLE 0u
#define STATE_BUSY 1u
#define STATE_DONE 2u
#define STATE_ERROR 3u
#define STATUS_BACKEND_UP 0x100u
#define STATUS_RESETTING 0x200u
#define STATUS_BROKEN 0x400u
#define CONTROL_CANCEL 1u
#define CONTROL_RESET 2u

/* "Request format", "Response format" and "Operations" */
#define REQ_VERSION 1
#define BAND_DEFAULT 0xff
#define BUF_INLINE 0
#define BUF_ARENA 1
#define BUF_IN 1
#define BUF_OUT 2
#define INLINE_ALIGN 8u
#define PAYLOAD_DATA 0
#define PAYLOAD_TEXT 1
#define PAYLOAD_INFO 2
#define OP_INFO 0
#define OP_ECHO 16
#define OP_REDUCE 18
#define OP_GEMM 19
#define OP_SORT 21
#define DTYPE_F32 1
#define DTYPE_U32 7
#define DTYPE_I32 8
#define REDUCE_ARGMAX 3
#define ERROR_OK 0u
#define ERROR_RESERVED_SET 3u
#define ERROR_BUSY 17u

/* Ends of a request that the driver itself finds; above every error of the device */
#define END_REFUSED 0x10000u
#define END_TIMEOUT 0x10001u
#define END_MALFORMED 0x10002u

#define BACKEND_WAIT_MS 30000u
#define RESET_WAIT_MS 10000u
#define DEADLINE_MS 10000u
#define GRACE_MS 5000u /* how much longer than the deadline the driver polls */
#define BUSY_TRIES 5u

#define F64_ONE 0x3ff0000000000000ull
#define F64_ZERO 0ull
#define MIB 0x100000u
#define TAG_BASE 0x626c696e64000000ull
#define ECHO_BYTES 100u
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

struct req_hdr {
    uint32_t size;
    uint16_t version;
    uint16_t op;
    uint32_t flags;
    uint32_t deadline_ms;
    uint64_t tag;
    uint32_t pool;
    uint8_t band;
    uint8_t nbufs;
    uint16_t body_len;
    uint8_t reserved[16];
};

struct buf {
    uint8_t kind;
    uint8_t dir;
    uint16_t reserved;
    uint32_t aux;
    uint64_t offset;
    uint64_t length;
};

struct resp_hdr {
    uint32_t size;
    uint16_t version;
    uint16_t op;
    uint32_t error;
    uint32_t retry_after_ms;
    uint64_t tag;
    uint64_t seq;
    uint64_t queued_ns;
    uint64_t run_ns;
    uint32_t worker;
    uint16_t attempts;
    uint16_t payload;
    uint64_t reserved;
};

struct info {
    uint32_t vm_id;
    uint32_t pool_id;
    uint8_t band;
    uint8_t band_max;
    uint16_t reserved0;
    uint32_t workers;
    uint64_t ops;
    uint64_t max_bytes;
    uint32_t max_job_ms;
    uint32_t queued;
    uint32_t running;
    uint32_t reserved1;
    char vm[64];
    char tenant[64];
    char pool[64];
    char backends[64];
};

struct reduce {
    uint8_t dtype;
    uint8_t kind;
    uint8_t reserved0[6];
    uint64_t n;
    uint64_t stride;
};

struct gemm {
    uint8_t dtype;
    uint8_t trans_a;
    uint8_t trans_b;
    uint8_t math;
    uint32_t reserved0;
    uint64_t m;
    uint64_t n;
    uint64_t k;
    uint64_t lda;
    uint64_t ldb;
    uint64_t ldc;
    uint64_t alpha;
    uint64_t beta;
};

struct sort {
    uint8_t dtype;
    uint8_t descending;
    uint8_t value_size;
    uint8_t reserved0[5];
    uint64_t n;
};

_Static_assert(sizeof(struct req_hdr) == 48, "request header");
_Static_assert(offsetof(struct req_hdr, body_len) == 30, "request header");
_Static_assert(sizeof(struct buf) == 24, "buffer");
_Static_assert(sizeof(struct resp_hdr) == 64, "response header");
_Static_assert(offsetof(struct resp_hdr, payload) == 54, "response header");
_Static_assert(sizeof(struct info) == 304, "info");
_Static_assert(offsetof(struct info, vm) == 48, "info");
_Static_assert(sizeof(struct reduce) == 24, "reduce");
_Static_assert(sizeof(struct gemm) == 72, "gemm");
_Static_assert(sizeof(struct sort) == 16, "sort");

/* A request as it is put together: its bytes and where the next parts go. */
struct request {
    uint32_t words[WINDOW_SIZE / 4];
    uint32_t size;
    uint32_t payload;
};

/* A response as it was read: header, payload, and a 0 that ends a sentence. */
struct response {
    uint32_t length;
    struct resp_hdr header;
    uint8_t payload[WINDOW_SIZE - sizeof(struct resp_hdr) + 1];
};

static struct {
    unsigned bus;
    unsigned dev;
    unsigned fn;
    uint32_t regs;
    uint32_t shm;
    uint32_t arena;
    uint32_t arena_size;
    uint64_t max_bytes;
    uint32_t tags;
} device;

static struct request request;
static struct response response;

static const char *const error_names[] = {
    "OK",           "BAD_REQUEST",   "BAD_VERSION", "RESERVED_SET",      "BAD_LENGTH",
    "BAD_BUFFER",   "MISALIGNED",    "OVERLAP",     "TOO_MANY_BUFFERS",  "BAD_SHAPE",
    "OVERFLOW",     "BAD_DTYPE",     "BAD_PARAM",   "UNSUPPORTED",       "TOO_LARGE",
    "DENIED",       "NO_POOL",       "BUSY",        "NO_BACKEND",        "NO_WORKER",
    "DEADLINE",     "CANCELLED",     "NOT_FOUND",   "BACKEND_RESTARTED", "WORKER_LOST",
    "QUARANTINED",  "JOB_TOO_LONG",  "DEPENDENCY",  "NO_MEMORY",         "NO_OBJECT",
    "DEVICE_RESET", "BACKEND_FAULT", "BROKEN",      "INTERNAL",
};

static uint32_t reg_read(uint32_t offset)
{
    return env_read32(device.regs + offset);
}

static void reg_write(uint32_t offset, uint32_t value)
{
    env_write32(device.regs + offset, value);
}

/* Lets at least ms - 1 milliseconds pass without an access to the device. */
static void pause_ms(uint32_t ms)
{
    uint64_t end = env_now_ms() + ms;
    while (env_now_ms() < end) {
        __asm__ volatile("pause" ::: "memory");
    }
}

/* Waits until (STATUS & mask) == value; false when it was not so for limit_ms. */
static bool status_wait(uint32_t mask, uint32_t value, uint32_t limit_ms)
{
    uint64_t end = env_now_ms() + limit_ms;
    while ((reg_read(REG_STATUS) & mask) != value) {
        if (env_now_ms() >= end) {
            return false;
        }
        pause_ms(1);
    }
    return true;
}

/* Lines of the report. */

static const char *end_name(uint32_t end)
{
    if (end < COUNT(error_names)) {
        return error_names[end];
    }
    switch (end) {
    case END_REFUSED:
        return "doorbell refused";
    case END_TIMEOUT:
        return "no end in time";
    case END_MALFORMED:
        return "a response that does not fit the request";
    default:
        return "an unknown error";
    }
}

static bool report_ok(unsigned step, const char *what)
{
    env_print("ok %u - %s\n", step, what);
    return true;
}

static bool report_end(unsigned step, const char *what, uint32_t got, uint32_t expected)
{
    env_print("not ok %u - %s: got %u (%s) expected %u (%s)\n", step, what, got, end_name(got),
              expected, end_name(expected));
    return false;
}

static bool report_value(unsigned step, const char *what, const char *name, uint32_t got,
                         uint32_t expected)
{
    env_print("not ok %u - %s: got %s 0x%x expected 0x%x\n", step, what, name, got, expected);
    return false;
}

static bool report_word(unsigned step, const char *what, uint32_t index, uint32_t got,
                        uint32_t expected)
{
    env_print("not ok %u - %s: got 0x%x at word %u expected 0x%x\n", step, what, got, index,
              expected);
    return false;
}

static void print_sentence(void)
{
    if (response.length > sizeof(response.header) && response.header.payload == PAYLOAD_TEXT) {
        env_print("# the device says: %s\n", (const char *)response.payload);
    }
}

/* The function on the PCI bus. */

static bool pci_probe(unsigned bus, unsigned dev, unsigned fn)
{
    if (env_config_read(bus, dev, fn, CONFIG_ID) != VGPU_ID) {
        return false;
    }
    device.bus = bus;
    device.dev = dev;
    device.fn = fn;
    return true;
}

static bool pci_find_in_slot(unsigned bus, unsigned dev)
{
    if ((env_config_read(bus, dev, 0, CONFIG_ID) & 0xffffu) == 0xffffu) {
        return false;
    }
    bool many = (env_config_read(bus, dev, 0, CONFIG_HEADER_TYPE) & HEADER_MULTIFUNCTION) != 0;
    for (unsigned fn = 0; fn < (many ? 8u : 1u); fn++) {
        if (pci_probe(bus, dev, fn)) {
            return true;
        }
    }
    return false;
}

static bool pci_find(void)
{
    for (unsigned bus = 0; bus < 256; bus++) {
        for (unsigned dev = 0; dev < 32; dev++) {
            if (pci_find_in_slot(bus, dev)) {
                return true;
            }
        }
    }
    env_print("there is no function 1234:5647 on the PCI bus\n");
    return false;
}

static uint32_t pci_read(unsigned reg)
{
    return env_config_read(device.bus, device.dev, device.fn, reg);
}

static bool pci_read_bars(void)
{
    uint32_t bar0 = pci_read(CONFIG_BAR0);
    uint32_t bar2 = pci_read(CONFIG_BAR2);
    uint32_t bar3 = pci_read(CONFIG_BAR3);
    if ((bar0 & BAR_TYPE) != BAR_TYPE_32 || (bar0 & ~BAR_FLAGS) == 0) {
        env_print("BAR 0 (0x%x) is not assigned an address\n", bar0);
        return false;
    }
    if ((bar2 & BAR_TYPE) != BAR_TYPE_64 || ((bar2 & ~BAR_FLAGS) == 0 && bar3 == 0)) {
        env_print("BAR 2 (0x%x, high half 0x%x) is not assigned an address\n", bar2, bar3);
        return false;
    }
    if (bar3 != 0) {
        env_print("BAR 2 (0x%x, high half 0x%x) lies above 4 GiB\n", bar2, bar3);
        return false;
    }
    device.regs = bar0 & ~BAR_FLAGS;
    device.shm = bar2 & ~BAR_FLAGS;
    return true;
}

/* The upper half of the dword is the status register, whose bits a 1 clears: write 0 there. */
static void pci_enable(void)
{
    uint32_t command = pci_read(CONFIG_COMMAND) & 0xffffu;
    env_config_write(device.bus, device.dev, device.fn, CONFIG_COMMAND, command | COMMAND_MEMORY);
}

/* The device behind it. */

static bool device_check(void)
{
    uint32_t magic = reg_read(REG_MAGIC);
    if (magic != VGPU_MAGIC) {
        env_print("register MAGIC reads 0x%x, not 0x%x\n", magic, VGPU_MAGIC);
        return false;
    }
    uint32_t version = reg_read(REG_ABI_VERSION);
    if (version >> 16 != VGPU_ABI_MAJOR) {
        env_print("ABI version %u.%u is not known to this driver\n", version >> 16,
                  version & 0xffffu);
        return false;
    }
    return true;
}

/* Ends what an earlier driver may have left; a device fresh from power-on is left alone. */
static bool device_settle(void)
{
    uint32_t status = reg_read(REG_STATUS);
    if ((status & STATE_MASK) != STATE_IDLE || (status & STATUS_BROKEN) != 0) {
        reg_write(REG_CONTROL, CONTROL_RESET);
    }
    if (!status_wait(STATUS_RESETTING | STATUS_BROKEN, 0, RESET_WAIT_MS)) {
        env_print("the device stays in reset: STATUS is 0x%x\n", reg_read(REG_STATUS));
        return false;
    }
    return true;
}

/* Whether the arena lies inside BAR 2 and BAR 2 below 4 GiB. */
static bool arena_fits(uint32_t shm_size, uint32_t offset, uint32_t size)
{
    if (shm_size == 0 || device.shm + (shm_size - 1) < device.shm) {
        return false;
    }
    return size != 0 && offset <= shm_size && size <= shm_size - offset && offset % 4 == 0;
}

static bool device_read_arena(void)
{
    uint32_t high =
        reg_read(REG_SHM_SIZE_HI) | reg_read(REG_ARENA_OFFSET_HI) | reg_read(REG_ARENA_SIZE_HI);
    uint32_t shm_size = reg_read(REG_SHM_SIZE_LO);
    uint32_t offset = reg_read(REG_ARENA_OFFSET_LO);
    uint32_t size = reg_read(REG_ARENA_SIZE_LO);
    if (high != 0 || !arena_fits(shm_size, offset, size)) {
        env_print("the arena (0x%x bytes at 0x%x of 0x%x) cannot be reached\n", size, offset,
                  shm_size);
        return false;
    }
    device.arena = device.shm + offset;
    device.arena_size = size;
    env_print("# BAR 0 at 0x%x, arena of 0x%x bytes at 0x%x\n", device.regs, size, device.arena);
    return true;
}

static bool device_wait_backend(void)
{
    if (!status_wait(STATUS_BACKEND_UP, STATUS_BACKEND_UP, BACKEND_WAIT_MS)) {
        env_print("no backend came within %u ms: STATUS is 0x%x\n", BACKEND_WAIT_MS,
                  reg_read(REG_STATUS));
        return false;
    }
    return true;
}

static bool device_start(void)
{
    if (!pci_find() || !pci_read_bars()) {
        return false;
    }
    pci_enable();
    return device_check() && device_settle() && device_read_arena() && device_wait_backend();
}

/* Putting a request together: request_begin, then its buffers in the operation's order. */

static uint8_t *request_bytes(void)
{
    return (uint8_t *)request.words;
}

static struct req_hdr request_header(void)
{
    struct req_hdr header;
    memcpy(&header, request.words, sizeof(header));
    return header;
}

static void request_set_header(const struct req_hdr *header)
{
    memcpy(request.words, header, sizeof(*header));
}

/* nbufs is how many buffers will follow: it decides where body and inline data begin. */
static void request_begin(uint16_t op, unsigned nbufs, const void *body, uint16_t body_len)
{
    struct req_hdr header = {
        .version = REQ_VERSION,
        .op = op,
        .deadline_ms = DEADLINE_MS,
        .tag = TAG_BASE + ++device.tags,
        .band = BAND_DEFAULT,
        .body_len = body_len,
    };
    uint32_t at = sizeof(header) + nbufs * sizeof(struct buf);
    memset(&request, 0, sizeof(request));
    if (body_len != 0) {
        memcpy(request_bytes() + at, body, body_len);
    }
    request.size = at + body_len;
    header.size = request.size;
    request_set_header(&header);
}

static void request_add(uint8_t kind, uint8_t dir, uint32_t offset, uint32_t length)
{
    struct req_hdr header = request_header();
    struct buf buf = {.kind = kind, .dir = dir, .offset = offset, .length = length};
    memcpy(request_bytes() + sizeof(header) + header.nbufs * sizeof(buf), &buf, sizeof(buf));
    header.nbufs++;
    header.size = request.size;
    request_set_header(&header);
}

static uint32_t align_up(uint32_t value, uint32_t alignment)
{
    return (value + alignment - 1) & ~(alignment - 1);
}

static void request_add_input(const void *data, uint32_t length)
{
    uint32_t offset = align_up(request.size, INLINE_ALIGN);
    memcpy(request_bytes() + offset, data, length);
    request.size = offset + length;
    request_add(BUF_INLINE, BUF_IN, offset, length);
}

/* Returns where in the response's payload the output will be. */
static uint32_t request_add_output(uint32_t length)
{
    uint32_t offset = align_up(request.payload, INLINE_ALIGN);
    request.payload = offset + length;
    request_add(BUF_INLINE, BUF_OUT, offset, length);
    return offset;
}

/* Sending it and reading what came. */

/* False when the doorbell was refused: then the registers still speak of an earlier request. */
static bool ring(void)
{
    uint32_t before = reg_read(REG_REQUEST_ID);
    for (uint32_t at = 0; at < request.size; at += 4) {
        reg_write(WINDOW_REQUEST + at, request.words[at / 4]);
    }
    reg_write(REG_REQUEST_LEN, request.size);
    reg_write(REG_DOORBELL, 1);
    if (reg_read(REG_REQUEST_ID) == before) {
        env_print("# doorbell refused: REJECT_ERROR %u, STATUS 0x%x\n", reg_read(REG_REJECT_ERROR),
                  reg_read(REG_STATUS));
        return false;
    }
    return true;
}

/* Waits for the end of the request in flight; cancels it when the device overstays its deadline. */
static bool wait_end(void)
{
    uint64_t end = env_now_ms() + DEADLINE_MS + GRACE_MS;
    while ((reg_read(REG_STATUS) & STATE_MASK) == STATE_BUSY) {
        if (env_now_ms() >= end) {
            reg_write(REG_CONTROL, CONTROL_CANCEL);
            return false;
        }
        pause_ms(1);
    }
    return true;
}

static bool read_response(void)
{
    uint32_t words[WINDOW_SIZE / 4];
    memset(&response, 0, sizeof(response));
    response.length = reg_read(REG_RESPONSE_LEN);
    if (response.length == 0) {
        return true;
    }
    if (response.length < sizeof(response.header) || response.length > WINDOW_SIZE) {
        response.length = 0;
        return false;
    }
    memset(words, 0, sizeof(words));
    for (uint32_t at = 0; at < response.length; at += 4) {
        words[at / 4] = reg_read(WINDOW_RESPONSE + at);
    }
    memcpy(&response.header, words, sizeof(response.header));
    memcpy(response.payload, (const uint8_t *)words + sizeof(response.header),
           response.length - sizeof(response.header));
    return true;
}

/* Whether the response's header speaks of the request just sent and of this error. */
static bool response_fits(uint32_t error)
{
    struct req_hdr asked = request_header();
    const struct resp_hdr *got = &response.header;
    return got->size == response.length && got->version == REQ_VERSION && got->op == asked.op &&
           got->error == error && got->tag == asked.tag;
}

/* How the request ended: the error of the device, or an END_ of the driver. */
static uint32_t collect(void)
{
    uint32_t state = reg_read(REG_STATUS) & STATE_MASK;
    uint32_t error = reg_read(REG_ERROR);
    if (!read_response() || (state != STATE_DONE && state != STATE_ERROR)) {
        return END_MALFORMED;
    }
    if ((state == STATE_DONE) != (error == ERROR_OK)) {
        return END_MALFORMED;
    }
    if (response.length == 0) {
        return state == STATE_ERROR ? error : END_MALFORMED;
    }
    return response_fits(error) ? error : END_MALFORMED;
}

static uint32_t send_once(void)
{
    memset(&response, 0, sizeof(response));
    if (!ring()) {
        return END_REFUSED;
    }
    return wait_end() ? collect() : END_TIMEOUT;
}

/* Sends the request; again, a few times, while the device says that its queue is full. */
static uint32_t send(void)
{
    uint32_t end = send_once();
    for (unsigned tries = 1; end == ERROR_BUSY && tries < BUSY_TRIES; tries++) {
        uint32_t after = response.header.retry_after_ms;
        pause_ms(after == 0 || after > GRACE_MS ? 1000 : after);
        end = send_once();
    }
    return end;
}

/* Sends a request that shall succeed with all of its inline outputs; reports when it does not. */
static bool send_for_data(unsigned step, const char *what)
{
    uint32_t end = send();
    if (end != ERROR_OK) {
        print_sentence();
        return report_end(step, what, end, ERROR_OK);
    }
    if (response.header.payload != PAYLOAD_DATA) {
        return report_value(step, what, "payload kind", response.header.payload, PAYLOAD_DATA);
    }
    if (response.length < sizeof(response.header) + request.payload) {
        return report_value(step, what, "response size", response.length,
                            sizeof(response.header) + request.payload);
    }
    return true;
}

/* Compares an output of 32-bit words in the payload. */
static bool check_words(unsigned step, const char *what, uint32_t offset, const uint32_t *expected,
                        uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t got;
        memcpy(&got, response.payload + offset + i * 4, 4);
        if (got != expected[i]) {
            return report_word(step, what, i, got, expected[i]);
        }
    }
    return true;
}

/* The steps. */

/* A name fills its 64 bytes or is padded with 0. */
static void print_name(const char *label, const char *field)
{
    char name[65];
    memcpy(name, field, 64);
    name[64] = 0;
    env_print("# %s: %s\n", label, name);
}

static void print_info(const struct info *info)
{
    print_name("VM", info->vm);
    print_name("tenant", info->tenant);
    print_name("pool", info->pool);
    env_print("# %u workers, operations 0x%x, at most %U bytes of the arena per request\n",
              info->workers, (uint32_t)info->ops, info->max_bytes);
}

static bool step_info(unsigned step)
{
    const char *what = "INFO";
    struct info info;
    request_begin(OP_INFO, 0, NULL, 0);
    uint32_t end = send();
    if (end != ERROR_OK) {
        print_sentence();
        return report_end(step, what, end, ERROR_OK);
    }
    if (response.header.payload != PAYLOAD_INFO) {
        return report_value(step, what, "payload kind", response.header.payload, PAYLOAD_INFO);
    }
    if (response.length < sizeof(response.header) + sizeof(info)) {
        return report_value(step, what, "response size", response.length,
                            sizeof(response.header) + sizeof(info));
    }
    memcpy(&info, response.payload, sizeof(info));
    print_info(&info);
    device.max_bytes = info.max_bytes;
    if (info.vm_id != reg_read(REG_VM_ID)) {
        return report_value(step, what, "vm_id", info.vm_id, reg_read(REG_VM_ID));
    }
    return report_ok(step, what);
}

static void build_echo(uint8_t *data, uint8_t seed)
{
    for (uint32_t i = 0; i < ECHO_BYTES; i++) {
        data[i] = (uint8_t)(seed + i * 7);
    }
    request_begin(OP_ECHO, 2, NULL, 0);
    request_add_input(data, ECHO_BYTES);
    request_add_output(ECHO_BYTES);
}

static bool step_echo(unsigned step, const char *what, uint8_t seed)
{
    uint8_t data[ECHO_BYTES];
    build_echo(data, seed);
    if (!send_for_data(step, what)) {
        return false;
    }
    for (uint32_t i = 0; i < ECHO_BYTES; i++) {
        if (response.payload[i] != data[i]) {
            return report_value(step, what, "byte", response.payload[i], data[i]);
        }
    }
    return report_ok(step, what);
}

static uint32_t arena_pattern(uint32_t index)
{
    return index * 2654435761u ^ index >> 7;
}

static void arena_fill(void)
{
    for (uint32_t i = 0; i < MIB / 4; i++) {
        env_write32(device.arena + i * 4, arena_pattern(i));
        env_write32(device.arena + MIB + i * 4, 0xdeadbeefu);
    }
}

static bool arena_usable(unsigned step, const char *what)
{
    uint32_t features = reg_read(REG_FEATURES);
    if ((features & FEATURE_SHM) == 0) {
        return report_value(step, what, "FEATURES", features, features | FEATURE_SHM);
    }
    if (device.arena_size < 2 * MIB) {
        return report_value(step, what, "arena size", device.arena_size, 2 * MIB);
    }
    if (device.max_bytes != 0 && device.max_bytes < 2 * MIB) {
        return report_value(step, what, "max_bytes", (uint32_t)device.max_bytes, 2 * MIB);
    }
    return true;
}

static bool step_arena(unsigned step)
{
    const char *what = "ECHO of 1 MiB through the arena";
    if (!arena_usable(step, what)) {
        return false;
    }
    arena_fill();
    request_begin(OP_ECHO, 2, NULL, 0);
    request_add(BUF_ARENA, BUF_IN, 0, MIB);
    request_add(BUF_ARENA, BUF_OUT, MIB, MIB);
    if (!send_for_data(step, what)) {
        return false;
    }
    for (uint32_t i = 0; i < MIB / 4; i++) {
        uint32_t got = env_read32(device.arena + MIB + i * 4);
        if (got != arena_pattern(i)) {
            return report_word(step, what, i, got, arena_pattern(i));
        }
    }
    return report_ok(step, what);
}

/* 1..12 as 3 x 4, times 1..8 as 4 x 2: 50 60, 114 140, 178 220 */
static bool step_gemm(unsigned step)
{
    static const uint32_t a[] = {
        0x3f800000, 0x40000000, 0x40400000, 0x40800000, 0x40a00000, 0x40c00000,
        0x40e00000, 0x41000000, 0x41100000, 0x41200000, 0x41300000, 0x41400000,
    };
    static const uint32_t b[] = {
        0x3f800000, 0x40000000, 0x40400000, 0x40800000,
        0x40a00000, 0x40c00000, 0x40e00000, 0x41000000,
    };
    static const uint32_t expected[] = {
        0x42480000, 0x42700000, 0x42e40000, 0x430c0000, 0x43320000, 0x435c0000,
    };
    const char *what = "GEMM f32 3x4 * 4x2";
    struct gemm body = {
        .dtype = DTYPE_F32,
        .m = 3,
        .n = 2,
        .k = 4,
        .lda = 4,
        .ldb = 2,
        .ldc = 0,
        .alpha = F64_ONE,
        .beta = F64_ZERO,
    };
    request_begin(OP_GEMM, 3, &body, sizeof(body));
    request_add_input(a, sizeof(a));
    request_add_input(b, sizeof(b));
    uint32_t at = request_add_output(sizeof(expected));
    return send_for_data(step, what) && check_words(step, what, at, expected, COUNT(expected)) &&
           report_ok(step, what);
}

/* Equal keys keep the order in which they came, descending too: that is how "stably" was read. */
static bool step_sort(unsigned step)
{
    static const uint32_t keys[] = {5, 0xffffffff, 17, 5, 0, 0x80000000, 17, 3, 5, 1};
    static const uint32_t values[] = {100, 101, 102, 103, 104, 105, 106, 107, 108, 109};
    static const uint32_t sorted_keys[] = {0xffffffff, 0x80000000, 17, 17, 5, 5, 5, 3, 1, 0};
    static const uint32_t sorted_values[] = {101, 105, 102, 106, 100, 103, 108, 107, 109, 104};
    const char *what = "SORT of 10 u32 keys, descending, with values";
    struct sort body = {
        .dtype = DTYPE_U32,
        .descending = 1,
        .value_size = 4,
        .n = COUNT(keys),
    };
    request_begin(OP_SORT, 4, &body, sizeof(body));
    request_add_input(keys, sizeof(keys));
    request_add_input(values, sizeof(values));
    uint32_t keys_at = request_add_output(sizeof(keys));
    uint32_t values_at = request_add_output(sizeof(values));
    return send_for_data(step, what) &&
           check_words(step, what, keys_at, sorted_keys, COUNT(sorted_keys)) &&
           check_words(step, what, values_at, sorted_values, COUNT(sorted_values)) &&
           report_ok(step, what);
}

/* The largest element is there twice, at 4 and 6: the first index counts. The result is a U64. */
static bool step_argmax(unsigned step)
{
    static const int32_t x[] = {-7, 12, -2147483647 - 1, 41, 99, -1, 99, 0};
    static const uint32_t expected[] = {4, 0};
    const char *what = "REDUCE argmax over i32";
    struct reduce body = {
        .dtype = DTYPE_I32,
        .kind = REDUCE_ARGMAX,
        .n = COUNT(x),
        .stride = 1,
    };
    request_begin(OP_REDUCE, 2, &body, sizeof(body));
    request_add_input(x, sizeof(x));
    uint32_t at = request_add_output(sizeof(expected));
    return send_for_data(step, what) && check_words(step, what, at, expected, COUNT(expected)) &&
           report_ok(step, what);
}

static bool step_reserved(unsigned step)
{
    const char *what = "a request with a reserved field set is refused";
    uint8_t data[ECHO_BYTES];
    build_echo(data, 1);
    struct req_hdr header = request_header();
    header.reserved[0] = 1;
    request_set_header(&header);
    uint32_t end = send();
    print_sentence();
    if (end != ERROR_RESERVED_SET) {
        return report_end(step, what, end, ERROR_RESERVED_SET);
    }
    if (response.length <= sizeof(response.header)) {
        return report_value(step, what, "response size", response.length,
                            sizeof(response.header) + 1);
    }
    if (response.header.payload != PAYLOAD_TEXT) {
        return report_value(step, what, "payload kind", response.header.payload, PAYLOAD_TEXT);
    }
    return report_ok(step, what);
}

bool env_driver_main(void)
{
    if (!device_start()) {
        return false;
    }
    bool ok = step_info(1);
    ok = step_echo(2, "ECHO of 100 bytes inline", 42) && ok;
    ok = step_arena(3) && ok;
    ok = step_gemm(4) && ok;
    ok = step_sort(5) && ok;
    ok = step_argmax(6) && ok;
    ok = step_reserved(7) && ok;
    ok = step_echo(8, "ECHO after an error", 99) && ok;
    return ok;
}
