// stackmark_catch(rdi = f, rsi = argument) -> the exception that has left f(argument), or null
    .globl stackmark_catch
    .hidden stackmark_catch
    .type stackmark_catch,@function
stackmark_catch:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_catch_personality
    push rbx                                    // S: [return address][rbx]
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
    mov rax, rdi
    mov rdi, rsi
    call rax
    xor eax, eax
    .globl stackmark_catch_landing
    .hidden stackmark_catch_landing
stackmark_catch_landing:                        // rax = exception
    pop rbx
    .cfi_def_cfa_offset 8
    .cfi_restore rbx
    ret
    .cfi_endproc
    .size stackmark_catch, .-stackmark_catch
