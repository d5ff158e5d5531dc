/* SPDX-License-Identifier: MIT */
/* err.c - names and sentences of results; see vgpu.h and err.h */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/core/request.h"
#include "guest/lib/err.h"

void err_clean(char *text)
{
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = '?';
        }
    }
}

void err_fill(struct vgpu_err *err, int code, const char *format, ...)
{
    va_list ap;

    if (!err) {
        return;
    }
    err->code = code;
    va_start(ap, format);
    vsnprintf(err->text, sizeof(err->text), format, ap);
    va_end(ap);
    err_clean(err->text);
}

/* What an errno means here is more precise than strerror(). */
static const struct {
    int code;
    const char *text;
} faults[] = {
    {ENODEV, "there is no such device, or it was unplugged"},
    {EACCES, "not permitted; use of the device through sysfs takes root"},
    {EPERM, "the kernel is locked down and keeps programs away from PCI devices"},
    {EBUSY, "in use"},
    {EPROTONOSUPPORT, "the device speaks a version that this library does not know"},
    {EPROTO, "the device answered nonsense"},
    {ENOMEM, "not enough memory, or not enough room in the device's arena"},
    {EMSGSIZE, "the request is larger than the device takes"},
    {E2BIG, "a request has at most 16 buffers"},
    {EOVERFLOW, "sizes multiply to more than 64 bits can hold"},
    {EINVAL, "an argument is not valid"},
    {EINPROGRESS, "the request is under way"},
    {ETIMEDOUT, "not yet: the time to wait is over"},
    {ENOTSUP, "the device does not offer this"},
};

const char *vgpu_code_name(int code)
{
    const char *name;

    if (code >= 0) {
        return vgpu_error_name((uint32_t)code);
    }
    name = strerrorname_np(-code);
    return name ? name : "UNKNOWN";
}

const char *vgpu_code_text(int code)
{
    const char *text;

    if (code >= 0) {
        return vgpu_error_text((uint32_t)code);
    }
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (faults[i].code == -code) {
            return faults[i].text;
        }
    }
    text = strerrordesc_np(-code);
    return text ? text : "an unknown fault";
}
