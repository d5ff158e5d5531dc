/* SPDX-License-Identifier: MIT */
/* placelist - print the CPUs of place.h, in one line */
#include <stdio.h>

#include "bench/place.h"

int main(void)
{
    for (int i = 0; place_cpu(i) >= 0; i++) {
        printf("%s%d", i ? " " : "", place_cpu(i));
    }
    printf("\n");
    return 0;
}
