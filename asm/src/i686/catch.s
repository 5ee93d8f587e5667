// stackmark_catch(f, argument) -> the exception that has left f(argument), or null
    .globl stackmark_catch
    .hidden stackmark_catch
    .type stackmark_catch,@function
stackmark_catch:
    .cfi_startproc
    .cfi_personality 0x9b, DW.ref.stackmark_catch_personality
    sub esp, 12                                 // S: [return address][pad][pad][argument]
    .cfi_def_cfa_offset 16
    mov eax, dword ptr [esp + 20]
    mov dword ptr [esp], eax
    call dword ptr [esp + 16]
    xor eax, eax
    .globl stackmark_catch_landing
    .hidden stackmark_catch_landing
stackmark_catch_landing:                        // eax = exception
    add esp, 12
    .cfi_def_cfa_offset 4
    ret
    .cfi_endproc
    .size stackmark_catch, .-stackmark_catch
