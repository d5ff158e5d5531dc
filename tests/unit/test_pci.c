/* SPDX-License-Identifier: MIT */
/*
 * test_pci.c - devices are found and mapped in a made-up /sys, and every obstacle is explained
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/core/ring.h"
#include "guest/lib/pci.h"
#include "tests/unit/unit.h"

static char root[] = "/tmp/test_pci.XXXXXX";

static void put_file(const char *address, const char *name, const void *data, size_t len)
{
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", root, address);
    mkdir(path, 0700);
    snprintf(path, sizeof(path), "%s/%s/%s", root, address, name);
    f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(data, 1, len, f), len);
    ck_assert_int_eq(fclose(f), 0);
}

static void put_text(const char *address, const char *name, const char *text)
{
    put_file(address, name, text, strlen(text));
}

static void put_device(const char *address)
{
    static uint8_t shm[VGPU_SHM_SIZE_MIN];
    uint32_t regs[VGPU_BAR_REGS_SIZE / 4] = {0};

    regs[VGPU_REG_MAGIC / 4] = VGPU_MAGIC;
    regs[VGPU_REG_ABI_VERSION / 4] = VGPU_ABI_VERSION;
    regs[VGPU_REG_FEATURES / 4] = VGPU_FEATURE_SHM;
    regs[VGPU_REG_SHM_SIZE_LO / 4] = VGPU_SHM_SIZE_MIN;
    regs[VGPU_REG_ARENA_OFFSET_LO / 4] = VGPU_SHM_CONTROL_SIZE;
    regs[VGPU_REG_ARENA_SIZE_LO / 4] = VGPU_SHM_SIZE_MIN - VGPU_SHM_CONTROL_SIZE;
    put_text(address, "vendor", "0x1234\n");
    put_text(address, "device", "0x5647\n");
    put_text(address, "enable", "0\n");
    put_file(address, "resource0", regs, sizeof(regs));
    put_file(address, "resource2", shm, sizeof(shm));
}

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(root));
    put_text("0000:00:00.0", "vendor", "0x8086\n");
    put_text("0000:00:00.0", "device", "0x1237\n");
    put_text("0000:00:01.0", "vendor", "0x1234\n"); /* QEMU's own graphics */
    put_text("0000:00:01.0", "device", "0x1111\n");
    put_text("0000:00:02.0", "vendor", "");
    put_device("0000:00:05.0");
    put_device("0000:00:04.0");
}

static void teardown(void)
{
    char command[sizeof(root) + 16];

    snprintf(command, sizeof(command), "rm -r %s", root);
    ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): a path of this test */
}

static char *read_enable(const char *address)
{
    static char text[8];
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s/enable", root, address);
    f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    ck_assert_ptr_nonnull(fgets(text, sizeof(text), f));
    fclose(f);
    return text;
}

static uint32_t read_word(const char *address, const char *name, uint32_t offset)
{
    char path[PATH_MAX];
    uint32_t word = 0;
    int fd;

    snprintf(path, sizeof(path), "%s/%s/%s", root, address, name);
    fd = open(path, O_RDONLY);
    ck_assert_int_eq(pread(fd, &word, sizeof(word), offset), sizeof(word));
    close(fd);
    return word;
}

static uint32_t ring_at(uint32_t i)
{
    struct ring_shape shape = {16, 4096};

    return VGPU_SHM_CONTROL_SIZE + i * (uint32_t)ring_bytes(&shape);
}

START_TEST(list)
{
    struct vgpu_found found[4];
    size_t count;

    ck_assert_int_eq(pci_list(root, found, 4, &count), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(found[0].address, "0000:00:04.0");
    ck_assert_str_eq(found[1].address, "0000:00:05.0");
    ck_assert_uint_eq(found[0].shm_bytes, VGPU_SHM_SIZE_MIN);
    ck_assert_str_eq(found[0].driver, "");
    ck_assert_int_eq(pci_list(root, found, 1, &count), 0);
    ck_assert_uint_eq(count, 2); /* more than there is room for */
    ck_assert_int_eq(pci_list("/nonexistent", found, 4, &count), -ENOENT);
}
END_TEST

/* clang-format off */
static const struct {
    const char *name;
    const char *address; /* that is opened; NULL: an error */
    int result;
    const char *says;
} choices[] = {
    { NULL,            "0000:00:04.0", 0,       NULL },
    { "0",             "0000:00:04.0", 0,       NULL },
    { "1",             "0000:00:05.0", 0,       NULL },
    { "00:05.0",       "0000:00:05.0", 0,       NULL },
    { "0000:00:05.0",  "0000:00:05.0", 0,       NULL },
    { "2",             NULL,           -EINVAL, "no vGPU number 2: this machine has 2" },
    { "99999999999999999999999", NULL, -EINVAL, "this machine has 2" },
    { "00:01.0",       NULL,           -EINVAL, "no vGPU at PCI address 00:01.0" },
    { "",              NULL,           -EINVAL, "no vGPU at PCI address" },
    { "../../../etc",  NULL,           -EINVAL, "no vGPU at PCI address" },
};
/* clang-format on */

START_TEST(choose)
{
    struct transport *t;
    struct vgpu_device device;
    struct vgpu_err err = {.text = ""};

    struct vgpu_options options = {.device = choices[_i].name};

    ck_assert_msg(pci_open(root, &options, &t, &err) == choices[_i].result, "%s: %s",
                  choices[_i].name, err.text);
    if (choices[_i].says) {
        ck_assert_msg(strstr(err.text, choices[_i].says) != NULL, "%s", err.text);
        return;
    }
    ck_assert_int_eq(t->ops->describe(t, &device), 0);
    ck_assert_str_eq(device.address, choices[_i].address);
    ck_assert_str_eq(device.arena, "resource2 (uncached)");
    ck_assert_uint_eq(t->limits.arena_bytes, VGPU_SHM_SIZE_MIN - VGPU_SHM_CONTROL_SIZE);
    memset(t->limits.arena, 0xab, t->limits.arena_bytes); /* all of it is really mapped */
    ck_assert_str_eq(read_enable(choices[_i].address), "1\n");
    t->ops->close(t);
}
END_TEST

START_TEST(write_combining_is_preferred)
{
    static uint8_t shm[VGPU_SHM_SIZE_MIN];
    struct vgpu_device device;
    struct transport *t;

    put_file("0000:00:04.0", "resource2_wc", shm, sizeof(shm));
    ck_assert_int_eq(pci_open(root, NULL, &t, NULL), 0);
    t->ops->describe(t, &device);
    ck_assert_str_eq(device.arena, "resource2_wc (write combining)");
    t->ops->close(t);
}
END_TEST

/* Registers of a device with @count rings of 16 entries in a BAR 2 of 2 MiB. */
static void put_rings(const char *address, uint32_t count, const char *shm_file)
{
    static uint8_t shm[2 * VGPU_SHM_SIZE_MIN];
    struct ring_shape shape = {16, 4096};
    uint32_t stride = (uint32_t)ring_bytes(&shape);
    uint32_t arena = VGPU_SHM_CONTROL_SIZE + count * stride;
    uint32_t regs[VGPU_BAR_REGS_SIZE / 4] = {0};

    regs[VGPU_REG_MAGIC / 4] = VGPU_MAGIC;
    regs[VGPU_REG_ABI_VERSION / 4] = VGPU_ABI_VERSION;
    regs[VGPU_REG_FEATURES / 4] = VGPU_FEATURE_SHM | VGPU_FEATURE_RING | VGPU_FEATURE_EVENT_IDX;
    regs[VGPU_REG_RING_COUNT / 4] = count;
    regs[VGPU_REG_RING_ENTRIES / 4] = shape.entries;
    regs[VGPU_REG_RING_OFFSET / 4] = VGPU_SHM_CONTROL_SIZE;
    regs[VGPU_REG_RING_STRIDE / 4] = stride;
    regs[VGPU_REG_SLOT_BYTES / 4] = shape.slot_bytes;
    regs[VGPU_REG_SHM_SIZE_LO / 4] = sizeof(shm);
    regs[VGPU_REG_ARENA_OFFSET_LO / 4] = arena;
    regs[VGPU_REG_ARENA_SIZE_LO / 4] = (uint32_t)sizeof(shm) - arena;
    put_file(address, "resource0", regs, sizeof(regs));
    put_file(address, shm_file, shm, sizeof(shm));
}

/* Each that opens the device has a ring of its own, the last one none. */
START_TEST(rings)
{
    static const char *const files[] = {"resource2", "resource2_wc"};
    struct vgpu_device device;
    struct transport *t[3];
    uint8_t *bytes;
    uint32_t error;

    put_rings("0000:00:04.0", 2, files[_i]);
    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(pci_open(root, NULL, &t[i], NULL), 0);
        ck_assert_int_eq(t[i]->ops->describe(t[i], &device), 0);
        ck_assert_int_eq(device.ring, i < 2 ? i : -1);
        ck_assert_uint_eq(device.rings, 2);
    }
    ck_assert_str_eq(device.path, "sysfs: BAR 0 windows, polled");
    ck_assert_ptr_nonnull(strstr(device.no_ring, "have all 2"));
    ck_assert_ptr_nonnull(strstr(device.arena, files[_i]));
    /* What is started is in the file, and the doorbell of that very ring rings. */
    ck_assert_int_eq(t[1]->ops->reserve(t[1], 1, &bytes, &error), 0);
    memset(bytes, 0, 64);
    ck_assert_int_eq(t[1]->ops->start(t[1], 5, 64, &error), 0);
    t[1]->ops->flush(t[1]);
    ck_assert_uint_eq(read_word("0000:00:04.0", "resource0", VGPU_REG_RING_DOORBELL), 0);
    ck_assert_uint_eq(read_word("0000:00:04.0", "resource0", VGPU_REG_RING_DOORBELL + 4), 1);
    ck_assert_uint_eq(read_word("0000:00:04.0", files[_i], ring_at(1)), 1);
    t[1]->ops->close(t[1]); /* with something in flight, and nobody there who would end it */
    ck_assert_int_eq(pci_open(root, NULL, &t[1], NULL), 0);
    t[1]->ops->describe(t[1], &device);
    ck_assert_int_eq(device.ring, 1);
    /* Its last owner is gone, and nobody has anything in flight: the device was to be reset. */
    ck_assert_uint_eq(read_word("0000:00:04.0", "resource0", VGPU_REG_CONTROL), VGPU_CONTROL_RESET);
    for (int i = 0; i < 3; i++) {
        t[i]->ops->close(t[i]);
    }
}
END_TEST

static void remove_file(const char *address, const char *name)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s/%s", root, address, name);
    ck_assert_int_eq(unlink(path), 0);
}

START_TEST(without_bar2)
{
    struct transport *t;

    remove_file("0000:00:04.0", "resource2");
    ck_assert_int_eq(pci_open(root, NULL, &t, NULL), 0);
    ck_assert_ptr_null(t->limits.arena);
    t->ops->close(t);
}
END_TEST

START_TEST(obstacles)
{
    struct vgpu_found found;
    struct transport *t;
    struct vgpu_err err;
    char path[PATH_MAX];
    size_t count;

    snprintf(path, sizeof(path), "%s/0000:00:04.0/driver", root);
    ck_assert_int_eq(symlink("../../../bus/pci/drivers/vfio-pci", path), 0);
    ck_assert_int_eq(pci_list(root, &found, 1, &count), 0);
    ck_assert_str_eq(found.driver, "vfio-pci");
    ck_assert_int_eq(pci_open(root, NULL, &t, &err), -EBUSY);
    ck_assert_ptr_nonnull(strstr(err.text, "\"vfio-pci\" owns the device"));
    ck_assert_ptr_nonnull(strstr(err.text, "unbind"));

    remove_file("0000:00:05.0", "resource0");
    ck_assert_int_eq(pci_open(root, &(struct vgpu_options){.device = "1"}, &t, &err), -ENOENT);
    ck_assert_ptr_nonnull(strstr(err.text, "resource0"));

    ck_assert_int_eq(pci_open("/proc/self/fd", NULL, &t, &err), -ENODEV);
    ck_assert_ptr_nonnull(strstr(err.text, "1234:5647"));
    ck_assert_int_eq(pci_open("/nonexistent", NULL, &t, &err), -ENODEV);
    ck_assert_ptr_nonnull(strstr(err.text, "is /sys mounted?"));
}
END_TEST

/* An ordinary user is told to be root: files of sysfs belong to root. */
START_TEST(not_root)
{
    struct transport *t;
    struct vgpu_err err;
    char path[PATH_MAX];

    if (geteuid() != 0) {
        return;
    }
    snprintf(path, sizeof(path), "%s/0000:00:04.0/enable", root);
    chmod(path, 0600);
    chmod(root, 0755);
    snprintf(path, sizeof(path), "%s/0000:00:04.0", root);
    chmod(path, 0755);
    ck_assert_int_eq(seteuid(65534), 0);
    ck_assert_int_eq(pci_open(root, NULL, &t, &err), -EACCES);
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "run this as root"));
}
END_TEST

/* The device is shared with other processes of the VM by flock() on resource0. */
START_TEST(another_process_has_it)
{
    struct vgpu_device device;
    struct transport *t;
    char path[PATH_MAX];
    uint32_t error;
    uint8_t *request;
    int fd;

    ck_assert_int_eq(pci_open(root, NULL, &t, NULL), 0);
    snprintf(path, sizeof(path), "%s/0000:00:04.0/resource0", root);
    fd = open(path, O_RDWR);
    ck_assert_int_eq(flock(fd, LOCK_EX), 0);
    ck_assert_int_eq(t->ops->reserve(t, 1000, &request, &error), TRANSPORT_E_WAIT);
    ck_assert_int_eq((int)t->ops->state(t, 2000), VGPU_STATE_UP);
    ck_assert_int_eq((int)t->ops->state(t, UINT64_C(2000000000)), VGPU_STATE_IN_USE);
    ck_assert_int_eq(t->ops->describe(t, &device), 0); /* looking is always allowed */
    ck_assert_int_eq(flock(fd, LOCK_UN), 0);
    ck_assert_int_eq(t->ops->reserve(t, 3000, &request, &error), 0);
    memset(request, 0, 64);
    ck_assert_int_eq(t->ops->start(t, 1, 64, &error), 0);
    ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), -1);
    t->ops->close(t);
    ck_assert_int_eq(flock(fd, LOCK_EX | LOCK_NB), 0);
    close(fd);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pci");
    TCase *tc = tcase_create("pci");

    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, list);
    tcase_add_loop_test(tc, choose, 0, (int)N_ELEMS(choices));
    tcase_add_test(tc, write_combining_is_preferred);
    tcase_add_loop_test(tc, rings, 0, 2);
    tcase_add_test(tc, without_bar2);
    tcase_add_test(tc, obstacles);
    tcase_add_test(tc, not_root);
    tcase_add_test(tc, another_process_has_it);
    suite_add_tcase(s, tc);
    return unit_run(s);
}
