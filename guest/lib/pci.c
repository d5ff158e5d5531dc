/* SPDX-License-Identifier: MIT */
/* pci.c - see pci.h */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "guest/lib/err.h"
#include "guest/lib/path.h"
#include "guest/lib/pci.h"

#define DEVICES_MAX 64u
#define LOCKDOWN_FILE "/sys/kernel/security/lockdown"

static int open_at(const char *devices, const char *address, const char *file, int flags)
{
    char path[PATH_MAX];

    if (snprintf(path, sizeof(path), "%s/%s/%s", devices, address, file) >= (int)sizeof(path)) {
        return -ENAMETOOLONG;
    }
    int fd = open(path, flags | O_CLOEXEC);

    return fd < 0 ? -errno : fd;
}

/* Read a small file; the text ends with a 0 byte. Return: its length, -errno. */
static int read_text(const char *devices, const char *address, const char *file, char *ret,
                     size_t size)
{
    CLEANUP(cleanup_fd) int fd = open_at(devices, address, file, O_RDONLY);
    ssize_t n;

    if (fd < 0) {
        return fd;
    }
    n = read(fd, ret, size - 1);
    if (n < 0) {
        return -errno;
    }
    ret[n] = 0;
    return (int)n;
}

static long read_number(const char *devices, const char *address, const char *file)
{
    char text[32];

    return read_text(devices, address, file, text, sizeof(text)) < 0 ? -1 : strtol(text, NULL, 0);
}

static uint64_t bar_size(const char *devices, const char *address, const char *file)
{
    char path[PATH_MAX];
    struct stat st;

    snprintf(path, sizeof(path), "%s/%s/%s", devices, address, file);
    return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

static void read_driver(const char *devices, const char *address, char *ret, size_t size)
{
    char path[PATH_MAX], target[PATH_MAX];
    const char *name;
    ssize_t n;

    snprintf(path, sizeof(path), "%s/%s/driver", devices, address);
    n = readlink(path, target, sizeof(target) - 1);
    ret[0] = 0;
    if (n > 0) {
        target[n] = 0;
        name = strrchr(target, '/');
        snprintf(ret, size, "%.*s", (int)size - 1, name ? name + 1 : target);
    }
}

static bool is_vgpu(const char *devices, const char *address)
{
    return strlen(address) < VGPU_ADDRESS_MAX &&
           read_number(devices, address, "vendor") == VGPU_PCI_VENDOR_ID &&
           read_number(devices, address, "device") == VGPU_PCI_DEVICE_ID;
}

static void free_entries(struct dirent **entries, int n)
{
    for (int i = 0; i < n; i++) {
        free(entries[i]);
    }
    free(entries);
}

int pci_list(const char *devices, struct vgpu_found *ret_found, size_t max, size_t *ret_count)
{
    struct dirent **entries;
    int n = scandir(devices, &entries, NULL, alphasort);
    size_t count = 0;

    if (n < 0) {
        return -errno;
    }
    for (int i = 0; i < n; i++) {
        const char *address = entries[i]->d_name;

        if (!is_vgpu(devices, address)) {
            continue;
        }
        if (count < max) {
            struct vgpu_found *f = &ret_found[count];

            snprintf(f->address, sizeof(f->address), "%.*s", VGPU_ADDRESS_MAX - 1, address);
            read_driver(devices, address, f->driver, sizeof(f->driver));
            f->shm_bytes = bar_size(devices, address, "resource2");
        }
        count++;
    }
    free_entries(entries, n);
    *ret_count = count;
    return 0;
}

static bool is_index(const char *name, size_t *ret_index)
{
    char *end;
    unsigned long n;

    if (!isdigit((unsigned char)name[0])) {
        return false;
    }
    n = strtoul(name, &end, 10);
    *ret_index = n;
    return *end == 0;
}

/* Which of the devices is meant. Return: 0; -ENODEV; -EINVAL. */
static int choose(const struct vgpu_found *found, size_t count, const char *name, size_t *ret_index,
                  struct vgpu_err *err)
{
    char full[VGPU_ADDRESS_MAX];

    if (count == 0) {
        return err_set(
            err, -ENODEV,
            "this machine has no vGPU (no PCI device %04x:%04x): ask the operator of the "
            "host to give this VM one, or run this inside the VM",
            VGPU_PCI_VENDOR_ID, VGPU_PCI_DEVICE_ID);
    }
    if (!name) {
        *ret_index = 0;
        return 0;
    }
    if (is_index(name, ret_index)) {
        return *ret_index < count ? 0
                                  : err_set(err, -EINVAL,
                                            "there is no vGPU number %s: this machine has %zu, "
                                            "numbered from 0 (see `vgpu info --all`)",
                                            name, count);
    }
    snprintf(full, sizeof(full), "0000:%.*s", VGPU_ADDRESS_MAX - 6, name);
    for (size_t i = 0; i < count; i++) {
        if (strcasecmp(found[i].address, name) == 0 || strcasecmp(found[i].address, full) == 0) {
            *ret_index = i;
            return 0;
        }
    }
    return err_set(err, -EINVAL, "there is no vGPU at PCI address %s (see `vgpu info --all`)",
                   name);
}

static bool kernel_locked_down(void)
{
    char text[128];
    CLEANUP(cleanup_fd) int fd = open(LOCKDOWN_FILE, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);

    if (n <= 0) {
        return false;
    }
    text[n] = 0;
    return !strstr(text, "[none]");
}

/* Explain why opening or mapping a file of the device failed. */
static int refused(const char *address, const char *file, int error, struct vgpu_err *err)
{
    if (error == EPERM && (geteuid() == 0 || kernel_locked_down())) {
        return err_set(err, -EPERM,
                       "%s: the kernel refuses access to %s: it is locked down (Secure Boot), and "
                       "then programs cannot map PCI devices; use the kernel driver, or boot "
                       "without Secure Boot",
                       address, file);
    }
    if (error == EACCES || error == EPERM) {
        return err_set(err, -EACCES, "%s: no permission for %s: run this as root (sudo)", address,
                       file);
    }
    return err_set(err, -error, "%s: cannot use %s: %s", address, file, strerror(error));
}

/* Switch memory decoding on, if nobody did. */
static int enable(const char *devices, const char *address, struct vgpu_err *err)
{
    CLEANUP(cleanup_fd) int fd = -1;

    if (read_number(devices, address, "enable") > 0) {
        return 0;
    }
    fd = open_at(devices, address, "enable", O_WRONLY);
    if (fd < 0) {
        return refused(address, "enable", -fd, err);
    }
    if (write(fd, "1", 1) != 1) {
        return refused(address, "enable", errno, err);
    }
    return 0;
}

static int map_regs(const char *devices, struct place *p, struct vgpu_err *err)
{
    void *regs;

    p->regs_fd = open_at(devices, p->address, "resource0", O_RDWR | O_SYNC);
    if (p->regs_fd < 0) {
        return refused(p->address, "resource0", -p->regs_fd, err);
    }
    p->settle_fd = open_at(devices, p->address, "resource0", O_RDWR | O_SYNC);
    if (p->settle_fd < 0) {
        return refused(p->address, "resource0", -p->settle_fd, err);
    }
    regs = mmap(NULL, VGPU_BAR_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, p->regs_fd, 0);
    if (regs == MAP_FAILED) {
        return refused(p->address, "resource0", errno, err);
    }
    p->regs = regs;
    p->mmio = mmio_map(regs);
    return 0;
}

/*
 * BAR 2 is memory, so write combining is right, and uncached is only slow: uncached, every store to
 * a slot is a bus access of its own, combined they leave in lines of 64 bytes. It takes a fence
 * before a ring is announced (ring_driver.write_combining). Reads are uncached in both, unless the
 * hypervisor overrides the guest's choice. A device without BAR 2 is still of use.
 */
static int map_shm(const char *devices, struct place *p, struct vgpu_err *err)
{
    const char *file = "resource2_wc";
    uint64_t size = bar_size(devices, p->address, file);
    void *shm;

    if (size == 0) {
        file = "resource2";
        size = bar_size(devices, p->address, file);
    }
    if (size == 0) {
        return 0;
    }
    p->shm_fd = open_at(devices, p->address, file, O_RDWR);
    if (p->shm_fd < 0) {
        return refused(p->address, file, -p->shm_fd, err);
    }
    shm = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, p->shm_fd, 0);
    if (shm == MAP_FAILED) {
        return refused(p->address, file, errno, err);
    }
    p->shm = shm;
    p->shm_bytes = size;
    p->write_combining = strcmp(file, "resource2_wc") == 0;
    snprintf(p->arena, sizeof(p->arena), "%s (%s)", file,
             p->write_combining ? "write combining" : "uncached");
    return 0;
}

static int open_found(const char *devices, const struct vgpu_found *f, enum vgpu_path path,
                      struct transport **ret_transport, struct vgpu_err *err)
{
    struct place place = {
        .regs_fd = -1,
        .settle_fd = -1,
        .shm_fd = -1,
        .how = "sysfs",
    };
    int r;

    if (f->driver[0]) {
        return err_set(err, -EBUSY,
                       "%s: the kernel driver \"%s\" owns the device; unbind it first: echo %s > "
                       "/sys/bus/pci/drivers/%s/unbind",
                       f->address, f->driver, f->address, f->driver);
    }
    memcpy(place.address, f->address, sizeof(place.address));
    r = enable(devices, f->address, err);
    r = r ? r : map_regs(devices, &place, err);
    r = r ? r : map_shm(devices, &place, err);
    if (r) {
        place_fini(&place);
        return r;
    }
    return path_open(&place, path, ret_transport, err);
}

int pci_open(const char *devices, const struct vgpu_options *options,
             struct transport **ret_transport, struct vgpu_err *ret_err)
{
    const struct vgpu_options defaults = {0};
    struct vgpu_found found[DEVICES_MAX];
    size_t count = 0, index = 0;
    int r = pci_list(devices, found, DEVICES_MAX, &count);

    if (r) {
        return err_set(ret_err, r == -ENOENT ? -ENODEV : r,
                       "cannot look for PCI devices in %s: %s; is /sys mounted?", devices,
                       strerror(-r));
    }
    count = count < DEVICES_MAX ? count : DEVICES_MAX;
    options = options ? options : &defaults;
    r = choose(found, count, options->device, &index, ret_err);
    return r ? r : open_found(devices, &found[index], options->path, ret_transport, ret_err);
}
