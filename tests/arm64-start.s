// How a program begins whose jumps are checked: the C library's own beginning has no landing pads.
// The library calls what a program has in `.init_array` by itself.

    .globl _start
    .type _start,@function
_start:
    .cfi_startproc
    .cfi_undefined x30
    bti c
    mov x29, xzr
    mov x30, xzr
    mov x5, x0                                  // what the loader wants called at the end
    ldr x1, [sp]                                // the number of arguments, and these
    add x2, sp, #8
    mov x6, sp
    mov x3, xzr
    mov x4, xzr
    adrp x0, :got:main
    ldr x0, [x0, :got_lo12:main]
    bl __libc_start_main
    brk #1
    .cfi_endproc
    .size _start, .-_start

    .section .data.rel.ro,"aw",@progbits
    .globl __dso_handle
    .hidden __dso_handle
    .p2align 3
__dso_handle:
    .xword __dso_handle

    .section .note.gnu.property,"a",%note
    .p2align 3
    .word 4, 16, 5
    .asciz "GNU"
    .word 0xc0000000, 4, 3, 0                   // landing pads, and signed return addresses
    .section .note.GNU-stack,"",@progbits
