// The word that names the machine of an OS thread, and the function that sets it.

// The linker makes the thread-local storage of an image of these sections; _tls_index is the number
// that the loader has given to it. It ends with .tls$ZZZ, in the order of bytes: a name in small
// letters would come behind that.
    .section .tls$STACKMARK,"dw"
    .p2align 3
    .globl stackmark_machine
stackmark_machine:
    .quad 0
    .text

// stackmark_set_current(rcx = machine header or null), on the thread's own stack
    stackmark_function stackmark_set_current
    .seh_endprologue
    mov eax, dword ptr [rip + _tls_index]
    mov rdx, qword ptr gs:[0x58]
    mov rdx, qword ptr [rdx + rax * 8]
    mov qword ptr [rdx + stackmark_machine@SECREL32], rcx
    test rcx, rcx
    je 2f
    // A thread that calls in by itself never comes through run, which notes them, too.
    mov rax, qword ptr gs:[0x10]
    mov qword ptr [rcx + {m_system} + 16], rax
    mov rax, qword ptr gs:[0x8]
    mov qword ptr [rcx + {m_system} + 32], rax
    mov rax, qword ptr gs:[0x1478]
    mov qword ptr [rcx + {m_system} + 40], rax
2:  ret
    stackmark_end_part
