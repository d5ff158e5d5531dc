/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vgpu_pci - the PCI function `vgpu-stub`: BARs, MSI-X, properties, life cycle
 *
 * What registers do is in vgpu_bar0.c, what is said to the mediator in vgpu_relay.c, how it travels
 * in vgpu_chan.c; this file joins them to QEMU. After anything that may have changed registers it
 * calls sync_device(): interrupt, deadline timer, log and trace follow the registers' state.
 */
#include "vgpu_compat.h"

#include <sys/random.h>

#include "vgpu_bells.h"
#include "vgpu_chan.h"
#include "vgpu_trace.h"

#define TYPE_VGPU_STUB "vgpu-stub"
#define VGPU_STUB(obj) OBJECT_CHECK(VgpuStub, (obj), TYPE_VGPU_STUB)

typedef struct VgpuStub {
    PCIDevice parent_obj;

    /* properties */
    char *socket;
    char *datapath;
    char *uuid;
    uint64_t shm_size;
    uint32_t pool;
    uint32_t deadline_ms;
    uint32_t reconnect_ms;
    uint32_t rings;
    uint32_t ring_entries;
    uint8_t priority;

    MemoryRegion regs; /* BAR 0 */
    MemoryRegion shm;  /* BAR 2 */
    void *own_shm;     /* its memory when it is nobody else's; NULL: a memfd */
    int inflight;      /* memfd; -1: none */
    struct vgpu_bells *bells;
    struct vgpu_bar0 bar0;
    struct vgpu_relay relay;
    struct vgpu_chan *chan;
    QEMUTimer *deadline;
    uint64_t armed_ms; /* what the timer is set to; 0: not set */
    bool signalling;   /* the message of vector 0 is on its way */
} VgpuStub;

/* ---- following the registers' state -------------------------------------------------------- */

static void arm_deadline(VgpuStub *s)
{
    uint64_t want_ms = vgpu_relay_waits(&s->relay) ? s->relay.deadline_ms : 0;

    if (want_ms == s->armed_ms) {
        return;
    }
    s->armed_ms = want_ms;
    if (want_ms) {
        timer_mod(s->deadline, (int64_t)want_ms);
    } else {
        timer_del(s->deadline);
    }
}

/* A guest may have the message written to its own doorbell. Newer QEMUs stop that; where it gets
 * through, what the doorbell raises waits until the device is touched again, or it would never end. */
static void signal_state(VgpuStub *s)
{
    struct vgpu_bar0 *b = &s->bar0;

    if (b->irq && !s->signalling) {
        b->irq = false;
        s->signalling = true;
        trace_vgpu_stub_irq(b->state | b->flags);
        msix_notify(PCI_DEVICE(s), VGPU_MSIX_VECTOR_STATE);
        s->signalling = false;
    }
}

static void sync_device(void *opaque)
{
    VgpuStub *s = opaque;
    struct vgpu_bar0 *b = &s->bar0;

    vgpu_chan_kick(s->chan);
    arm_deadline(s);
    if (b->complaint[0] != '\0') {
        qemu_log_mask(LOG_GUEST_ERROR, "vgpu-stub: %s\n", b->complaint);
        b->complaint[0] = '\0';
    }
    if (b->ended) {
        b->ended = false;
        trace_vgpu_stub_end(b->seq, b->error);
    }
    signal_state(s);
}

static void on_deadline(void *opaque)
{
    VgpuStub *s = opaque;

    s->armed_ms = 0;
    vgpu_relay_expire(&s->relay, vgpu_chan_now_ms());
    sync_device(s);
}

static void reset_device(VgpuStub *s)
{
    vgpu_relay_reset(&s->relay);
    vgpu_bells_drain(s->bells); /* RESET has not gone out yet: sync_device() sends */
    trace_vgpu_stub_reset(s->bar0.epoch, s->bar0.state | s->bar0.flags);
}

/* ---- BAR 0 --------------------------------------------------------------------------------- */

static uint64_t regs_read(void *opaque, hwaddr offset, unsigned size)
{
    VgpuStub *s = opaque;
    uint64_t value = vgpu_bar0_read(&s->bar0, (uint32_t)offset, size);

    trace_vgpu_stub_read(offset, size, value);
    return value;
}

static void submit(VgpuStub *s)
{
    const struct vgpu_window_request *req = &s->bar0.req;

    trace_vgpu_stub_submit(s->bar0.seq, req->parsed.hdr.op, req->len, req->deadline_ms);
    vgpu_relay_submit(&s->relay, vgpu_chan_now_ms());
}

static void regs_write(void *opaque, hwaddr offset, uint64_t value, unsigned size)
{
    VgpuStub *s = opaque;
    uint32_t todo;

    trace_vgpu_stub_write(offset, size, value);
    todo = vgpu_bar0_write(&s->bar0, (uint32_t)offset, value, size);
    if (todo & VGPU_BAR0_RESET) {
        reset_device(s);
    }
    if (todo & VGPU_BAR0_CANCEL) {
        vgpu_relay_give_up(&s->relay, VGPU_E_CANCELLED);
    }
    if (todo & VGPU_BAR0_WISH) {
        vgpu_relay_wish(&s->relay);
    }
    if (todo & VGPU_BAR0_SUBMIT) {
        submit(s);
    }
    if (todo & VGPU_BAR0_KICK) {
        vgpu_bells_kick(s->bells, s->bar0.kicked);
    }
    sync_device(s);
}

static const MemoryRegionOps regs_ops = {
    .read = regs_read,
    .write = regs_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = {.min_access_size = 1, .max_access_size = 8},
    .impl = {.min_access_size = 1, .max_access_size = 8},
};

/* ---- MSI-X --------------------------------------------------------------------------------- */

static int vector_use(PCIDevice *pdev, unsigned vector, MSIMessage msg)
{
    (void)msg;
    vgpu_bells_route(VGPU_STUB(pdev)->bells, vector);
    return 0;
}

static void vector_release(PCIDevice *pdev, unsigned vector)
{
    vgpu_bells_hold(VGPU_STUB(pdev)->bells, vector);
}

static void vector_poll(PCIDevice *pdev, unsigned first, unsigned end)
{
    vgpu_bells_poll(VGPU_STUB(pdev)->bells, first, end);
}

static void vgpu_stub_config_write(PCIDevice *pdev, uint32_t at, uint32_t value, int bytes)
{
    pci_default_write_config(pdev, at, value, bytes);
    vgpu_bells_route_all(VGPU_STUB(pdev)->bells);
}

/* ---- making the device --------------------------------------------------------------------- */

static bool check_size(const VgpuStub *s, Error **errp)
{
    if (s->shm_size < VGPU_SHM_SIZE_MIN || s->shm_size > VGPU_SHM_SIZE_MAX ||
        (s->shm_size & (s->shm_size - 1)) != 0) {
        error_setg(errp,
                   "vgpu-stub: shm-size is %" PRIu64 "; it must be a power of two from 1M to 64G",
                   s->shm_size);
        return false;
    }
    return true;
}

static bool check_socket(const VgpuStub *s, Error **errp)
{
    if (s->socket == NULL || s->socket[0] == '\0') {
        error_setg(errp, "vgpu-stub: property socket is missing: give the Unix socket on which the "
                         "mediator serves this VM, socket=/run/vgpu/NAME/vgpu.sock");
        return false;
    }
    if (!vgpu_chan_path_fits(s->socket)) {
        error_setg(errp, "vgpu-stub: socket path %s is too long for a Unix socket (107 bytes)",
                   s->socket);
        return false;
    }
    return true;
}

static bool check_choices(const VgpuStub *s, Error **errp)
{
    if (s->datapath != NULL && strcmp(s->datapath, "shm") != 0 &&
        strcmp(s->datapath, "socket") != 0) {
        error_setg(errp, "vgpu-stub: datapath is %s; this device has: shm, socket", s->datapath);
        return false;
    }
    if (s->rings == 0 || s->rings > VGPU_RINGS_MAX) {
        error_setg(errp, "vgpu-stub: rings is %u; it must be 1 to %u", s->rings, VGPU_RINGS_MAX);
        return false;
    }
    if (s->ring_entries < VGPU_RING_ENTRIES_MIN || s->ring_entries > VGPU_RING_ENTRIES_MAX ||
        (s->ring_entries & (s->ring_entries - 1)) != 0) {
        error_setg(errp, "vgpu-stub: ring-entries is %u; it must be a power of two from %u to %u",
                   s->ring_entries, VGPU_RING_ENTRIES_MIN, VGPU_RING_ENTRIES_MAX);
        return false;
    }
    if (s->priority >= VGPU_BANDS && s->priority != VGPU_BAND_DEFAULT) {
        error_setg(errp,
                   "vgpu-stub: priority is %u; it must be 0 (batch) to 3 (realtime), or 255 "
                   "for the operator's default",
                   s->priority);
        return false;
    }
    if (s->deadline_ms == 0) {
        error_setg(errp, "vgpu-stub: deadline-ms is 0; it must be at least 1");
        return false;
    }
    return true;
}

static bool by_socket(const VgpuStub *s)
{
    return s->datapath != NULL && strcmp(s->datapath, "socket") == 0;
}

/* The identity is the property's uuid, else the VM's (-uuid), else all zero. */
static bool make_relay_config(const VgpuStub *s, struct vgpu_relay_config *config, Error **errp)
{
    QemuUUID uuid = qemu_uuid;

    memset(config, 0, sizeof(*config));
    if (s->uuid != NULL && s->uuid[0] != '\0' && qemu_uuid_parse(s->uuid, &uuid) < 0) {
        error_setg(errp, "vgpu-stub: uuid %s is not a UUID", s->uuid);
        return false;
    }
    memcpy(config->uuid, uuid.data, sizeof(config->uuid));
    if (getrandom(&config->boot_id, sizeof(config->boot_id), 0) != sizeof(config->boot_id)) {
        error_setg_errno(errp, errno, "vgpu-stub: no random numbers");
        return false;
    }
    config->pool_wish = s->pool;
    return true;
}

/* Memory that a peer can map and trust the size of. Return: its descriptor; -1 with @errp set. */
static int make_memfd(const char *name, uint64_t size, Error **errp)
{
    const unsigned seals = F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL;
    int fd = qemu_memfd_create(name, size, false, 0, seals, errp);

    if (fd < 0) {
        error_prepend(errp, "vgpu-stub: shared memory of %" PRIu64 " bytes: ", size);
    }
    return fd;
}

/* BAR 2. On the socket data path nobody else maps it, and a memfd would not do everywhere: Xen has no
 * RAM from descriptors, and a limit on file sizes counts for them. */
static bool make_shm(VgpuStub *s, Error **errp)
{
    int fd;

    if (by_socket(s)) {
        s->own_shm = mmap(NULL, s->shm_size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (s->own_shm == MAP_FAILED) {
            s->own_shm = NULL;
            error_setg_errno(errp, errno, "vgpu-stub: memory of %" PRIu64 " bytes", s->shm_size);
            return false;
        }
        memory_region_init_ram_ptr(&s->shm, OBJECT(s), "vgpu-shm", s->shm_size, s->own_shm);
        return true;
    }
    fd = make_memfd("vgpu-shm", s->shm_size, errp);
    if (fd < 0) {
        return false;
    }
    if (!vgpu_ram_from_fd(&s->shm, OBJECT(s), "vgpu-shm", s->shm_size, fd, errp)) {
        error_prepend(errp,
                      "vgpu-stub: shared memory for BAR 2, which datapath=socket does without: ");
        close(fd);
        return false;
    }
    return true;
}

static uint32_t own_features(const struct vgpu_layout *layout)
{
    uint32_t features = VGPU_FEATURE_SHM | VGPU_FEATURE_MSIX;

    return layout->rings ? features | VGPU_FEATURE_RING | VGPU_FEATURE_EVENT_IDX : features;
}

static void make_registers(VgpuStub *s)
{
    struct vgpu_bar0_config config = {
        .layout = vgpu_layout_make(s->shm_size, by_socket(s) ? 0 : s->rings, s->ring_entries),
        .deadline_ms = s->deadline_ms,
        .band = s->priority,
    };

    config.features = own_features(&config.layout);
    vgpu_bar0_init(&s->bar0, &config);
    memory_region_init_io(&s->regs, OBJECT(s), &regs_ops, s, "vgpu-regs", VGPU_BAR_REGS_SIZE);
    /* KVM collects the writes to the request window without an exit each; any other access to BAR 0,
     * the window's doorbell above all, delivers them first. */
    memory_region_set_flush_coalesced(&s->regs);
    memory_region_add_coalescing(&s->regs, VGPU_WINDOW_REQUEST, VGPU_WINDOW_SIZE);
}

/* Vectors, and with rings their notifiers and the in-flight area. */
static bool make_rings(VgpuStub *s, Error **errp)
{
    const struct vgpu_layout *l = &s->bar0.config.layout;
    PCIDevice *pdev = PCI_DEVICE(s);
    unsigned i;

    if (msix_init_exclusive_bar(pdev, VGPU_MSIX_VECTOR_RING(l->rings), VGPU_BAR_MSIX, errp) < 0) {
        return false;
    }
    for (i = 0; i < VGPU_MSIX_VECTOR_RING(l->rings); i++) {
        vgpu_vector_use(pdev, i);
    }
    if (l->rings == 0) {
        return true;
    }
    s->inflight = make_memfd("vgpu-inflight", VGPU_INFLIGHT_BYTES(l->rings, l->entries), errp);
    if (s->inflight < 0) {
        return false;
    }
    s->bells = vgpu_bells_new(pdev, &s->regs, l->rings, errp);
    if (s->bells != NULL) {
        msix_set_vector_notifiers(pdev, vector_use, vector_release, vector_poll);
    }
    return s->bells != NULL;
}

/* Also what a realize() that failed half way has made. */
static void unmake_rings(VgpuStub *s)
{
    PCIDevice *pdev = PCI_DEVICE(s);

    if (s->bells != NULL) {
        msix_unset_vector_notifiers(pdev);
    }
    vgpu_bells_free(s->bells);
    s->bells = NULL;
    if (s->inflight >= 0) {
        close(s->inflight);
        s->inflight = -1;
    }
    if (msix_present(pdev)) {
        msix_uninit_exclusive_bar(pdev);
    }
}

static struct vgpu_chan *make_chan(VgpuStub *s)
{
    int fds[VGPU_HELLO_FDS(VGPU_RINGS_MAX)];

    if (s->bells != NULL) {
        fds[VGPU_HELLO_FD_SHM] = memory_region_get_fd(&s->shm);
        fds[VGPU_HELLO_FD_INFLIGHT] = s->inflight;
        fds[VGPU_HELLO_FD_WRITERS] = -1;
        vgpu_bells_fds(s->bells, &fds[VGPU_HELLO_FD_KICK(0)]);
    }
    return vgpu_chan_new(s->socket, &s->relay, s->bells ? fds : NULL, s->reconnect_ms, sync_device,
                         s);
}

static void vgpu_stub_realize(PCIDevice *pdev, Error **errp)
{
    VgpuStub *s = VGPU_STUB(pdev);
    struct vgpu_relay_config relay_config;

    s->inflight = -1;
    if (!check_size(s, errp) || !check_socket(s, errp) || !check_choices(s, errp) ||
        !make_relay_config(s, &relay_config, errp) || !make_shm(s, errp)) {
        return;
    }
    make_registers(s);
    if (!make_rings(s, errp)) {
        unmake_rings(s);
        return;
    }
    pci_register_bar(pdev, VGPU_BAR_REGS, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->regs);
    pci_register_bar(pdev, VGPU_BAR_SHM,
                     PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64 |
                         PCI_BASE_ADDRESS_MEM_PREFETCH,
                     &s->shm);
    vgpu_relay_init(&s->relay, &relay_config, &s->bar0, memory_region_get_ram_ptr(&s->shm));
    s->deadline = timer_new_ms(QEMU_CLOCK_REALTIME, on_deadline, s);
    s->chan = make_chan(s);
}

/* Unplug: closing the connection tells the mediator that this life is over. */
static void vgpu_stub_exit(PCIDevice *pdev)
{
    VgpuStub *s = VGPU_STUB(pdev);

    vgpu_chan_free(s->chan);
    s->chan = NULL;
    timer_del(s->deadline);
    timer_free(s->deadline);
    s->deadline = NULL;
    unmake_rings(s);
}

/* When no access to BAR 2 is under way any more. */
static void vgpu_stub_finalize(Object *obj)
{
    VgpuStub *s = VGPU_STUB(obj);

    if (s->own_shm != NULL) {
        munmap(s->own_shm, s->shm_size);
    }
}

static void vgpu_stub_reset(DeviceState *dev)
{
    VgpuStub *s = VGPU_STUB(dev);

    reset_device(s);
    /* Unlike CONTROL.RESET, which the same guest uses, this one forgets what the guest wished for. */
    if (s->bar0.wish != s->priority) {
        vgpu_bar0_write(&s->bar0, VGPU_REG_PRIORITY, s->priority, 4);
        vgpu_relay_wish(&s->relay);
    }
    sync_device(s);
}

static VgpuProperty vgpu_stub_properties[] = {
    DEFINE_PROP_STRING("socket", VgpuStub, socket),
    DEFINE_PROP_STRING("datapath", VgpuStub, datapath),
    DEFINE_PROP_STRING("uuid", VgpuStub, uuid),
    DEFINE_PROP_SIZE("shm-size", VgpuStub, shm_size, VGPU_SHM_SIZE_DEFAULT),
    DEFINE_PROP_UINT32("pool", VgpuStub, pool, 0),
    DEFINE_PROP_UINT8("priority", VgpuStub, priority, VGPU_BAND_DEFAULT),
    DEFINE_PROP_UINT32("deadline-ms", VgpuStub, deadline_ms, 60000),
    DEFINE_PROP_UINT32("reconnect-ms", VgpuStub, reconnect_ms, 1000),
    DEFINE_PROP_UINT32("rings", VgpuStub, rings, 4),
    DEFINE_PROP_UINT32("ring-entries", VgpuStub, ring_entries, 128),
    VGPU_PROPERTIES_END};

static const VMStateDescription vgpu_stub_vmstate = {
    .name = TYPE_VGPU_STUB,
    .unmigratable = 1,
};

static void vgpu_stub_class_init(ObjectClass *klass, VgpuClassData *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *k = PCI_DEVICE_CLASS(klass);

    (void)data;
    k->realize = vgpu_stub_realize;
    k->exit = vgpu_stub_exit;
    k->config_write = vgpu_stub_config_write;
    k->vendor_id = VGPU_PCI_VENDOR_ID;
    k->device_id = VGPU_PCI_DEVICE_ID;
    k->class_id = VGPU_PCI_CLASS;
    k->revision = VGPU_PCI_REVISION;
    dc->desc = "Pooled GPU, served by vgpu-mediator";
    dc->vmsd = &vgpu_stub_vmstate;
    vgpu_set_properties(dc, vgpu_stub_properties);
    vgpu_set_reset(dc, vgpu_stub_reset);
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
}

static VgpuInterfaceInfo vgpu_stub_interfaces[] = {
    {INTERFACE_CONVENTIONAL_PCI_DEVICE},
    {},
};

static const TypeInfo vgpu_stub_info = {
    .name = TYPE_VGPU_STUB,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(VgpuStub),
    .instance_finalize = vgpu_stub_finalize,
    .class_init = vgpu_stub_class_init,
    .interfaces = vgpu_stub_interfaces,
};

/* In QEMU's own tree; the plug-in calls vgpu_stub_register() when its checks have passed. */
void vgpu_stub_register(void);
void vgpu_stub_register(void)
{
    type_register_static(&vgpu_stub_info);
}

#ifndef VGPU_STUB_PLUGIN
type_init(vgpu_stub_register)
#endif
