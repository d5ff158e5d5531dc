/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See vgpu_bells.h. */
#include "vgpu_bells.h"

#include "proto/vgpu_regs.h"
#include "vgpu_trace.h"

/* Where a call goes. */
enum route {
    ROUTE_NONE, /* it counts: the vector is masked, and KVM will take it */
    ROUTE_KVM,  /* irqfd */
    ROUTE_LOOP, /* the main loop */
};

struct bell {
    PCIDevice *pdev;
    unsigned vector;
    EventNotifier kick;
    EventNotifier call;
    enum route route;
    int virq; /* KVM's number of the message's route; -1: it has none yet */
};

struct vgpu_bells {
    PCIDevice *pdev;
    MemoryRegion *regs;
    bool by_kvm;
    bool doorbells; /* in the BAR */
    uint32_t made;  /* bells with both notifiers */
    uint32_t rings;
    struct bell bell[VGPU_RINGS_MAX];
};

/* Reads the counter away. The mediator shares the description and with it O_NONBLOCK, which is its to
 * clear, so that is not relied upon. Return: whether there was something. */
static bool take(EventNotifier *e)
{
#ifdef RWF_NOWAIT
    uint64_t count;
    struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
    ssize_t n = preadv2(event_notifier_get_fd(e), &iov, 1, -1, RWF_NOWAIT);

    if (n >= 0 || errno != EOPNOTSUPP) {
        return n > 0;
    }
#endif
    return event_notifier_test_and_clear(e);
}

/* ---- doorbells ----------------------------------------------------------------------------- */

static void set_doorbells(struct vgpu_bells *b, bool on)
{
    uint32_t i;

    if (b->doorbells == on) {
        return;
    }
    b->doorbells = on;
    memory_region_transaction_begin();
    for (i = 0; i < b->rings; i++) {
        hwaddr at = VGPU_REG_RING_DOORBELL + 4 * i;

        if (on) {
            memory_region_add_eventfd(b->regs, at, vgpu_doorbell_bytes(), false, 0,
                                      &b->bell[i].kick);
        } else {
            memory_region_del_eventfd(b->regs, at, vgpu_doorbell_bytes(), false, 0,
                                      &b->bell[i].kick);
        }
    }
    memory_region_transaction_commit();
}

void vgpu_bells_kick(struct vgpu_bells *b, uint32_t ring)
{
    if (ring < b->rings) {
        event_notifier_set(&b->bell[ring].kick);
    }
}

void vgpu_bells_drain(struct vgpu_bells *b)
{
    uint32_t i;

    for (i = 0; b != NULL && i < b->rings; i++) {
        take(&b->bell[i].kick);
    }
}

/* ---- completions --------------------------------------------------------------------------- */

static void on_call(EventNotifier *call)
{
    struct bell *bell = container_of(call, struct bell, call);

    if (take(call)) {
        trace_vgpu_stub_call(bell->vector);
        msix_notify(bell->pdev, bell->vector);
    }
}

/* The vector's message becomes what KVM sends. Return: 0, or -errno. */
static int route_message(struct bell *bell)
{
    MSIMessage msg = msix_get_message(bell->pdev, bell->vector);
    int rc;

    if (bell->virq < 0) {
        bell->virq = vgpu_add_msi_route(bell->pdev, bell->vector);
        return bell->virq < 0 ? bell->virq : 0;
    }
    rc = kvm_irqchip_update_msi_route(kvm_state, bell->virq, msg, bell->pdev);
    if (rc < 0) {
        return rc;
    }
    kvm_irqchip_commit_routes(kvm_state);
    return 0;
}

static void route_end(struct bell *bell)
{
    if (bell->route == ROUTE_KVM) {
        kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state, &bell->call, bell->virq);
    } else if (bell->route == ROUTE_LOOP) {
        event_notifier_set_handler(&bell->call, NULL);
    }
    bell->route = ROUTE_NONE;
}

static void route_to_loop(struct bell *bell)
{
    event_notifier_set_handler(&bell->call, on_call);
    bell->route = ROUTE_LOOP;
}

static void route_start(struct bell *bell)
{
    if (route_message(bell) == 0 &&
        kvm_irqchip_add_irqfd_notifier_gsi(kvm_state, &bell->call, NULL, bell->virq) == 0) {
        bell->route = ROUTE_KVM;
    } else {
        route_to_loop(bell);
    }
}

static bool deliverable(const struct bell *bell)
{
    return msix_enabled(bell->pdev) && !msix_is_masked(bell->pdev, bell->vector);
}

static struct bell *bell_of(struct vgpu_bells *b, unsigned vector)
{
    return b != NULL && vector >= VGPU_MSIX_VECTOR_RING(0) &&
                   vector < VGPU_MSIX_VECTOR_RING(b->rings)
               ? &b->bell[vector - VGPU_MSIX_VECTOR_RING(0)]
               : NULL;
}

void vgpu_bells_route(struct vgpu_bells *b, unsigned vector)
{
    struct bell *bell = bell_of(b, vector);

    if (bell == NULL || !b->by_kvm) {
        return;
    }
    route_end(bell);
    if (deliverable(bell)) {
        route_start(bell);
    }
    trace_vgpu_stub_vector(vector, bell->route);
}

void vgpu_bells_hold(struct vgpu_bells *b, unsigned vector)
{
    struct bell *bell = bell_of(b, vector);

    if (bell != NULL && b->by_kvm) {
        route_end(bell);
        trace_vgpu_stub_vector(vector, bell->route);
    }
}

void vgpu_bells_route_all(struct vgpu_bells *b)
{
    uint32_t i;

    for (i = 0; b != NULL && i < b->rings; i++) {
        if ((b->bell[i].route != ROUTE_NONE) != deliverable(&b->bell[i])) {
            vgpu_bells_route(b, b->bell[i].vector);
        }
    }
}

void vgpu_bells_poll(struct vgpu_bells *b, unsigned first, unsigned end)
{
    unsigned vector;

    for (vector = first; vector < end; vector++) {
        struct bell *bell = bell_of(b, vector);

        if (bell != NULL && bell->route == ROUTE_NONE && take(&bell->call)) {
            msix_set_pending(b->pdev, vector);
        }
    }
}

/* ---- life ---------------------------------------------------------------------------------- */

/* Return: 0, or -errno. */
static int bell_init(struct bell *bell, PCIDevice *pdev, uint32_t ring)
{
    int rc;

    bell->pdev = pdev;
    bell->vector = VGPU_MSIX_VECTOR_RING(ring);
    bell->virq = -1;
    rc = event_notifier_init(&bell->kick, 0);
    if (rc < 0) {
        return rc;
    }
    rc = event_notifier_init(&bell->call, 0);
    if (rc < 0) {
        event_notifier_cleanup(&bell->kick);
    }
    return rc;
}

static void bell_fini(struct bell *bell)
{
    route_end(bell);
    if (bell->virq >= 0) {
        kvm_irqchip_release_virq(kvm_state, bell->virq);
    }
    event_notifier_cleanup(&bell->kick);
    event_notifier_cleanup(&bell->call);
}

struct vgpu_bells *vgpu_bells_new(PCIDevice *pdev, MemoryRegion *regs, uint32_t rings, Error **errp)
{
    struct vgpu_bells *b = g_new0(struct vgpu_bells, 1);

    b->pdev = pdev;
    b->regs = regs;
    b->rings = rings;
    b->by_kvm = kvm_msi_via_irqfd_enabled();
    for (b->made = 0; b->made < rings; b->made++) {
        int rc = bell_init(&b->bell[b->made], pdev, b->made);

        if (rc < 0) {
            error_setg_errno(errp, -rc, "vgpu-stub: no eventfds for %u rings", rings);
            vgpu_bells_free(b);
            return NULL;
        }
        if (!b->by_kvm) {
            route_to_loop(&b->bell[b->made]);
        }
    }
    set_doorbells(b, true);
    return b;
}

void vgpu_bells_free(struct vgpu_bells *b)
{
    uint32_t i;

    if (b == NULL) {
        return;
    }
    set_doorbells(b, false);
    for (i = 0; i < b->made; i++) {
        bell_fini(&b->bell[i]);
    }
    g_free(b);
}

void vgpu_bells_fds(const struct vgpu_bells *b, int *ret)
{
    uint32_t i;

    for (i = 0; i < b->rings; i++) {
        ret[i] = event_notifier_get_fd(&b->bell[i].kick);
        ret[b->rings + i] = event_notifier_get_fd(&b->bell[i].call);
    }
}
