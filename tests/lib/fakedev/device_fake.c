/* SPDX-License-Identifier: MIT */
/*
 * device_fake.c - `vgpu` with a simulated device: VGPU_FAKE="delay_ms=5,busy=2" sets its behaviour
 * (struct fake_config); VGPU_FAKE=none: there is no device
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/cmd/device.h"
#include "guest/lib/client.h"
#include "guest/lib/err.h"
#include "guest/lib/pci.h"
#include "tests/lib/fakedev/fake.h"

static struct fake *fake;

static void end_fake(void)
{
    fake_free(fake);
}

int device_open(const struct vgpu_options *options, struct vgpu **ret_gpu, struct vgpu_err *ret_err)
{
    struct fake_config config = {.shm_bytes = 64 << 20};
    const char *text = getenv("VGPU_FAKE");
    struct transport *transport;
    struct place place;
    int r;

    if (text && strcmp(text, "none") == 0) {
        return pci_open("/proc/self/task", options, &transport, ret_err);
    }
    if (fake_config_parse(text, &config) != 0) {
        fprintf(stderr, "VGPU_FAKE=%s: unknown key\n", text);
        exit(99);
    }
    fake = fake_new(&config);
    atexit(end_fake);
    place = fake_place(fake);
    r = path_open(&place, options->path, &transport, ret_err);
    return r ? r : client_new(transport, options, ret_gpu);
}

int device_list(struct vgpu_found *ret_found, size_t max, size_t *ret_count)
{
    const char *text = getenv("VGPU_FAKE");

    *ret_count = 0;
    if (!text || strcmp(text, "none") != 0) {
        *ret_count = 2;
        for (size_t i = 0; i < 2 && i < max; i++) {
            ret_found[i] = (struct vgpu_found){.shm_bytes = 64 << 20};
            snprintf(ret_found[i].address, VGPU_ADDRESS_MAX, "0000:00:%02zx.0", i + 4);
        }
    }
    return 0;
}
