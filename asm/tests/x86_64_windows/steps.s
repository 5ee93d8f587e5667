// lands(rcx = landing pad): called by a frame of the assembly. Goes on at the pad in that frame, as
// an unwinder does, with single steps from there on.
    .globl lands
    .seh_proc lands
lands:
    push rbx                                    // [return address][rbx]
    .seh_pushreg rbx
    sub rsp, 32                                 // ... [rbx][shadow space]
    .seh_stackalloc 32
    .seh_endprologue
    mov rbx, rcx
    call caught_exception
    mov rcx, rbx
    add rsp, 32
    pop rbx
    add rsp, 8
    pushfq
    or qword ptr [rsp], 0x100
    popfq
    jmp rcx
    .seh_endproc

// lands_in_entry(rcx, rdx = landing pad)
    .globl lands_in_entry
lands_in_entry:
    mov rcx, rdx
    jmp lands
