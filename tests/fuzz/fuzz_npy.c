/* SPDX-License-Identifier: MIT */
/* fuzz_npy.c - any bytes as a .npy file: the parser refuses them or gives a consistent array */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "guest/cmd/npy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char header[NPY_WRITE_HEADER_MAX], text[64];
    struct vgpu_err err;
    struct npy a, b;
    size_t len;

    if (npy_parse(data, size, &a, &err) != 0) {
        return 0;
    }
    if (a.bytes != a.count * a.size || a.offset > size || a.ndim > NPY_DIMS_MAX) {
        abort();
    }
    npy_describe(&a, text, sizeof(text));
    len = npy_header(&a, header);
    if (npy_parse(header, len, &b, NULL) != 0 || b.count != a.count || b.kind != a.kind ||
        memcmp(a.shape, b.shape, a.ndim * sizeof(a.shape[0])) != 0) {
        abort();
    }
    return 0;
}
