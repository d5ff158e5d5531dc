/* SPDX-License-Identifier: MIT */
#include "local-mediator/bell.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/uio.h>
#include <unistd.h>

void bell_ring(int fd)
{
    const uint64_t one = 1;

    fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    (void)!write(fd, &one, sizeof(one));
}

bool bell_read(int fd)
{
    uint64_t count;
    struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
    ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

    if (n < 0 && errno == EOPNOTSUPP) { /* a kernel before 5.8 */
        fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
        n = read(fd, &count, sizeof(count));
    }
    return n == sizeof(count);
}
