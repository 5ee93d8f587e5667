// stackmark_catch(rcx = f, rdx = argument) -> the exception that has left f(argument), or null
    stackmark_function stackmark_catch
    .seh_handler stackmark_catch_handler, @unwind, @except
    sub rsp, 40                                 // S: [return address][pad][shadow space]
    .seh_stackalloc 40
    .seh_endprologue
    mov rax, rcx
    mov rcx, rdx
    call rax
    xor eax, eax
    stackmark_label stackmark_catch_landing     // rax = exception
    add rsp, 40
    ret
    stackmark_end_part
