# What compilers rarely write of UNWIND_INFO. Its entries are written by hand, ascending.

    .intel_syntax noprefix
    .text

# A handler of interrupts: the processor has pushed an error code as well.
    .globl interrupted
interrupted:
    push rbx
    nop
    pop rbx
    add rsp, 8
    iretq
interrupted_end:

# A function in two parts. The jump to the other one does not leave it.
    .globl parted
parted:
    push rbx
    sub rsp, 0x20
    nop
    .globl parted_jump
parted_jump:
    jmp parted_cold
    .globl parted_back
parted_back:
    add rsp, 0x20
    pop rbx
    ret
parted_end:

# A function without a frame, and without an entry.
    .globl leaf
leaf:
    lea rax, [rcx + 1]
    ret

# The other part, which saves one register more.
    .globl parted_cold
parted_cold:
    mov [rsp + 8], rsi
    .globl parted_saved
parted_saved:
    mov rsi, [rsp + 8]
    .byte 0xe9
    .long parted_back - . - 4
parted_cold_end:

# Code whose entry names another entry.
    .globl elsewhere
elsewhere:
    nop
    nop
elsewhere_end:

# Marks say where the epilogues are, also where nothing looks like one.
    .globl marked
marked:
    push rbx
    push r12
    sub rsp, 0x20
    test ecx, ecx
    je 1f
    add rsp, 0x20
    .globl marked_first
marked_first:
    pop r12
    pop rbx
    ret
1:
    add rsp, 0x20
    .globl marked_last
marked_last:
    pop r12
    pop rbx
    ret
marked_end:

# Its call ends with a byte that would be the first one of an epilogue's pop.
    .globl misleading
misleading:
    push rbx
    .globl misleading_call
misleading_call:
    call [rax + 0x5f]
    .globl misleading_return
misleading_return:
    pop rbx
    ret
misleading_end:

    .section .xdata, "dr"
    .balign 4
interrupted_info:
    .byte 1, 1, 2, 0
    .byte 1, 0x30, 0, 0x1a
parted_info:
    .byte 1, 5, 2, 0
    .byte 5, 0x32, 1, 0x30
parted_cold_info:
    .byte 1 | 4 << 3, 5, 2, 0
    .byte 5, 0x64, 1, 0
    .rva parted, parted_end, parted_info
marked_info:
    .byte 2, 7, 5, 0
    .byte 4, 0x16
    .byte marked_end - marked_first, 0x06
    .byte 7, 0x32, 3, 0xc0, 1, 0x30
    .byte 0, 0
misleading_info:
    .byte 1, 1, 1, 0
    .byte 1, 0x30, 0, 0

    .section .pdata, "dr"
    .rva interrupted, interrupted_end, interrupted_info
parted_entry:
    .rva parted, parted_end, parted_info
    .rva parted_cold, parted_cold_end, parted_cold_info
    .rva elsewhere, elsewhere_end, parted_entry + 1
    .rva marked, marked_end, marked_info
    .rva misleading, misleading_end, misleading_info
