// The word that names the machine of an OS thread, and the functions that set and load it.

// Initial-exec: a read needs the global offset table, and no call of the loader.
    .section .tbss.stackmark_machine,"awT",@nobits
    .p2align 2
    .globl stackmark_machine
    .hidden stackmark_machine
    .type stackmark_machine,@object
    .size stackmark_machine, 4
stackmark_machine:
    .zero 4
    .text

// stackmark_here_\register() -> the address that it returns to, in that register. There is no other
// way to the pc that the processor's prediction of returns follows.
    .irp register, eax, ecx
    .globl stackmark_here_\register
    .hidden stackmark_here_\register
    .type stackmark_here_\register,@function
stackmark_here_\register:
    .cfi_startproc
    mov \register, dword ptr [esp]
    ret
    .cfi_endproc
    .size stackmark_here_\register, .-stackmark_here_\register
    .endr

// stackmark_current() -> eax = the machine. Changes nothing else but the flags.
    .globl stackmark_current
    .hidden stackmark_current
    .type stackmark_current,@function
stackmark_current:
    .cfi_startproc
    stackmark_got eax
    stackmark_machine_by eax, eax
    ret
    .cfi_endproc
    .size stackmark_current, .-stackmark_current

// stackmark_set_current(machine header or null)
    .globl stackmark_set_current
    .hidden stackmark_set_current
    .type stackmark_set_current,@function
stackmark_set_current:
    .cfi_startproc
    stackmark_got eax
    mov eax, dword ptr [eax + stackmark_machine@GOTNTPOFF]
    mov ecx, dword ptr [esp + 4]
    mov dword ptr gs:[eax], ecx
    ret
    .cfi_endproc
    .size stackmark_set_current, .-stackmark_set_current
