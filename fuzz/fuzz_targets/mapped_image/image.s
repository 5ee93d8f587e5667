# An image with two functions of managed code: one with maps of an object file, one with LLVM's.
    .text
    .globl first
    .type first, @function
first:
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $16, %rsp
    call *%rsi
first_call:
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size first, . - first

    .globl second
    .type second, @function
second:
    .cfi_startproc
    subq $24, %rsp
    .cfi_def_cfa_offset 32
    call *%rsi
second_call:
    addq $24, %rsp
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
    .size second, . - second

    .section .stackmark_maps, "aw", @progbits
    .balign 8
    .globl object_maps, object_maps_end
object_maps:
    .ascii "SMM1"
    .long object_maps_end - object_maps, 1, 0
    .quad first
    .long 1, 0
    .long first_call - first, 32, 2, 0, 8
    .balign 8
object_maps_end:

# Version 3: one function, no constant, one record: a statepoint with a derived pair of slots.
    .section .llvm_stackmaps, "aw", @progbits
    .balign 8
    .globl llvm_maps, llvm_maps_end
llvm_maps:
    .byte 3, 0, 0, 0
    .long 1, 0, 1
    .quad second, 24, 1
    .quad 0xabcdef00
    .long second_call - second
    .short 0, 5
    .rept 3
    .byte 4, 0
    .short 8, 0, 0
    .long 0
    .endr
    .byte 3, 0
    .short 8, 7, 0
    .long 8
    .byte 3, 0
    .short 8, 7, 0
    .long 16
    .balign 8
    .short 0, 0
    .balign 8
llvm_maps_end:
    .section .note.GNU-stack, "", @progbits
