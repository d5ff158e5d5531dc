/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_plugin - puts the device into a finished QEMU binary (LD_PRELOAD)
 *
 * The constructor asks QEMU to call check_and_register() together with its own type initialisers.
 * That looks whether this binary is the one that the plug-in was built for: the same MAJOR.MINOR and
 * the same sizes of the types that the device is built upon. If so it registers the device; if not
 * it says why in one sentence, and QEMU does not know `vgpu-stub`.
 *
 * References to QEMU are weak (see build-plugin.sh), so that a program that is not QEMU can be started
 * with the plug-in in LD_PRELOAD, such as env; QEMU itself hands LD_PRELOAD on without it.
 */
#include "vgpu_compat.h"

#include "qapi/qapi-commands-control.h"

/* Known to the compiler as weak too, so that it does not take them for non-NULL. */
#pragma weak register_module_init
#pragma weak qmp_query_version
#pragma weak object_class_by_name

void vgpu_stub_register(void);

static bool refuse(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static bool refuse(const char *fmt, ...)
{
    va_list args;

    fprintf(stderr, "vgpu-stub plug-in for QEMU %d.%d: refused: ", QEMU_VERSION_MAJOR,
            QEMU_VERSION_MINOR);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fprintf(stderr, "; rebuild it with stub/build-plugin.sh\n");
    return false;
}

static bool version_fits(void)
{
    VersionInfo *info = qmp_query_version(NULL);
    int64_t major = info->qemu->major;
    int64_t minor = info->qemu->minor;

    qapi_free_VersionInfo(info);
    if (major != QEMU_VERSION_MAJOR || minor != QEMU_VERSION_MINOR) {
        return refuse("this is QEMU %" PRId64 ".%" PRId64, major, minor);
    }
    return true;
}

/*
 * How QEMU's private record of a type starts, in every version so far. That it does so in this binary
 * is checked with a type of our own, whose sizes we know.
 */
struct type_head {
    const char *name;
    size_t class_size;
    size_t instance_size;
};

struct probe_class {
    ObjectClass parent_class;
    char room[1000];
};

struct probe {
    Object parent_obj;
    char room[3000];
};

static const TypeInfo probe_info = {
    .name = "vgpu-stub-probe",
    .parent = TYPE_OBJECT,
    .class_size = sizeof(struct probe_class),
    .instance_size = sizeof(struct probe),
    .abstract = true,
};

/* What the device embeds, derives from, or lets QEMU initialise inside itself. */
static const struct known_type {
    const char *name;
    size_t class_size;
    size_t instance_size;
} known_types[] = {
    {"vgpu-stub-probe", sizeof(struct probe_class), sizeof(struct probe)},
    {TYPE_OBJECT, sizeof(ObjectClass), sizeof(Object)},
    {TYPE_DEVICE, sizeof(DeviceClass), sizeof(DeviceState)},
    {TYPE_PCI_DEVICE, sizeof(PCIDeviceClass), sizeof(PCIDevice)},
    {TYPE_MEMORY_REGION, sizeof(MemoryRegionClass), sizeof(MemoryRegion)},
};

static bool size_fits(const struct known_type *known)
{
    ObjectClass *klass = object_class_by_name(known->name);
    const struct type_head *head = klass ? (const struct type_head *)klass->type : NULL;

    if (head == NULL) {
        return refuse("it has no type %s", known->name);
    }
    if (head->instance_size != known->instance_size || head->class_size != known->class_size) {
        return refuse("its type %s has %zu bytes and its class %zu instead of %zu and %zu",
                      known->name, head->instance_size, head->class_size, known->instance_size,
                      known->class_size);
    }
    return true;
}

static bool sizes_fit(void)
{
    size_t i;

    type_register_static(&probe_info);
    for (i = 0; i < ARRAY_SIZE(known_types); i++) {
        if (!size_fits(&known_types[i])) {
            return false;
        }
    }
    return true;
}

/* Runs after QEMU's own initialisers, when the parent types are known. A QEMU that was built with the
 * device needs no second one. */
static void check_and_register(void)
{
    if (object_class_by_name("vgpu-stub") == NULL && version_fits() && sizes_fit()) {
        vgpu_stub_register();
    }
}

static void queue_check(void)
{
    register_module_init(check_and_register, MODULE_INIT_QOM);
}

/* Takes this library, the entry that ends in its name, out of LD_PRELOAD. */
static void leave_environment(void)
{
    g_auto(GStrv) entries = g_strsplit_set(g_getenv("LD_PRELOAD") ?: "", ": ", -1);
    g_autoptr(GString) rest = g_string_new(NULL);
    int i;

    for (i = 0; entries[i] != NULL; i++) {
        if (entries[i][0] != '\0' && strstr(entries[i], "/vgpu-stub-") == NULL) {
            g_string_append_printf(rest, "%s%s", rest->len ? ":" : "", entries[i]);
        }
    }
    if (rest->len) {
        g_setenv("LD_PRELOAD", rest->str, TRUE);
    } else {
        g_unsetenv("LD_PRELOAD");
    }
}

static void __attribute__((constructor)) vgpu_plugin_init(void)
{
    if (register_module_init == NULL) {
        return; /* not QEMU, or one that exports no symbols */
    }
    leave_environment();
    if (qmp_query_version == NULL || object_class_by_name == NULL) {
        refuse("this QEMU does not export the symbols that a device needs");
        return;
    }
    register_module_init(queue_check, MODULE_INIT_QOM);
}
