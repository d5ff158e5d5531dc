/* SPDX-License-Identifier: MIT */
/* fuzz_msgcheck.c - any datagram from any peer: a verdict, no crash */
#include <string.h>

#include "common/msgcheck.h"
#include "proto/vgpu_local.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static _Alignas(64) uint8_t message[VGPU_MSG_MAX];
    struct vgpu_msg head;

    if (size < 2 || size - 2 > sizeof(message)) {
        return 0;
    }
    memcpy(message, data + 2, size - 2);
    if (size - 2 >= sizeof(head)) {
        memcpy(&head, message, sizeof(head));
        head.magic = VGPU_MSG_MAGIC;
        head.length = (uint32_t)(size - 2);
        head.reserved = 0;
        memcpy(message, &head, sizeof(head));
    }
    (void)msgcheck_message((enum msgcheck_from)(data[0] % 6), message, size - 2, data[1] % 3);
    return 0;
}
