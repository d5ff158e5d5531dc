/* SPDX-License-Identifier: MIT */
/* Multiboot header and entry: protected mode, flat segments, no paging, interrupts off. */
        .set MAGIC, 0x1badb002
        .set FLAGS, 0x2                 /* memory information, please */

        .section .multiboot, "a"
        .align 4
        .long MAGIC
        .long FLAGS
        .long -(MAGIC + FLAGS)

        .section .text
        .globl _start
_start:
        cli
        cld
        mov     $stack_top, %esp
        xor     %ebp, %ebp
        push    %ebx                    /* multiboot information */
        push    %eax                    /* 0x2badb002 */
        call    guest_main
1:      cli
        hlt
        jmp     1b

        .bss
        .align 16
stack:  .skip 65536
stack_top:

        .section .note.GNU-stack, "", @progbits
