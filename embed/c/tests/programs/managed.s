# Managed code: functions that call native code, and one that lets others run without. Their frames
# have frame pointers, and their CFI is that of the image.
    .set G_STACK_LIMIT, 0
    .text

    .globl managed_start
managed_start:

# ANCHOR: entry
# managed_entry(rdi = goroutine, rsi = f): what a goroutine begins with. Returns f(goroutine, 0).
    .globl managed_entry
    .type managed_entry, @function
managed_entry:
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $32, %rsp
    movq $0, -8(%rbp)
    movq %rdi, -16(%rbp)
    movq %rsi, -24(%rbp)
    cmpq G_STACK_LIMIT(%rdi), %rsp
    jae 1f
    movq stackmark_poll@GOTPCREL(%rip), %rdi
    xorl %esi, %esi
    xorl %edx, %edx
    call *managed_call_system(%rip)
    .globl managed_entry_poll
managed_entry_poll:
1:  movq -24(%rbp), %rdi
    movq -16(%rbp), %rsi
    xorl %edx, %edx
    call *managed_call_system(%rip)
    .globl managed_entry_call
managed_entry_call:
    movq %rax, -8(%rbp)
# The landing pad: the frame goes on here, too, with rax.
    .globl managed_entry_pad
managed_entry_pad:
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size managed_entry, .-managed_entry
# ANCHOR_END: entry

# managed_back(rdi = block): what native code calls back. The block holds the goroutine and f.
# Returns f(block, 0) + 1.
    .globl managed_back
    .type managed_back, @function
managed_back:
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $32, %rsp
    movq $0, -8(%rbp)
    movq %rdi, -16(%rbp)
    movq (%rdi), %rax
    cmpq G_STACK_LIMIT(%rax), %rsp
    jae 1f
    movq stackmark_poll@GOTPCREL(%rip), %rdi
    xorl %esi, %esi
    xorl %edx, %edx
    call *managed_call_system(%rip)
    .globl managed_back_poll
managed_back_poll:
1:  movq -16(%rbp), %rsi
    movq 8(%rsi), %rdi
    xorl %edx, %edx
    call *managed_call_system(%rip)
    .globl managed_back_call
managed_back_call:
    incq %rax
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size managed_back, .-managed_back

# managed_switches(rdi = goroutine, rsi): lets others run, without a call of native code. Returns
# 77. switch_out keeps no callee-saved register but rbp and r15, so the frame has the others.
    .globl managed_switches
    .type managed_switches, @function
managed_switches:
    .cfi_startproc
    pushq %rbp
    .cfi_def_cfa_offset 16
    .cfi_offset %rbp, -16
    movq %rsp, %rbp
    .cfi_def_cfa_register %rbp
    subq $48, %rsp
    movq $0, -8(%rbp)
    movq %rbx, -16(%rbp)
    .cfi_offset %rbx, -32
    movq %r12, -24(%rbp)
    .cfi_offset %r12, -40
    movq %r13, -32(%rbp)
    .cfi_offset %r13, -48
    movq %r14, -40(%rbp)
    .cfi_offset %r14, -56
    cmpq G_STACK_LIMIT(%rdi), %rsp
    jae 1f
    movq stackmark_poll@GOTPCREL(%rip), %rdi
    xorl %esi, %esi
    xorl %edx, %edx
    call *managed_call_system(%rip)
    .globl managed_switches_poll
managed_switches_poll:
1:  movl $3, %edi
    call *managed_switch_out(%rip)
    .globl managed_switches_call
managed_switches_call:
    movq -16(%rbp), %rbx
    movq -24(%rbp), %r12
    movq -32(%rbp), %r13
    movq -40(%rbp), %r14
    movl $77, %eax
    leave
    .cfi_def_cfa %rsp, 8
    ret
    .cfi_endproc
    .size managed_switches, .-managed_switches

    .globl managed_end
managed_end:

    .data
    .balign 8
    .globl managed_call_system
managed_call_system:
    .quad 0
    .globl managed_switch_out
managed_switch_out:
    .quad 0
# The same as managed.h registers, for stackmark_register_image(): functions, and for each safepoint
# its return address, the distance to the CFA, and one slot.
    .section .stackmark_maps, "aw", @progbits
    .balign 8
    .ascii "SMM1"
    .long 160, 3, 0
    .quad managed_entry
    .long 2, 0
    .quad managed_back
    .long 2, 0
    .quad managed_switches
    .long 2, 0
    .long managed_entry_poll - managed_entry, 48, 1, 24
    .long managed_entry_call - managed_entry, 48, 1, 24
    .long managed_back_poll - managed_back, 48, 1, 24
    .long managed_back_call - managed_back, 48, 1, 24
    .long managed_switches_poll - managed_switches, 64, 1, 40
    .long managed_switches_call - managed_switches, 64, 1, 40
    .section .note.GNU-stack, "", @progbits
