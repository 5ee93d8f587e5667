/* Calls on another stack, with the caller's in the frame pointer. */
__asm__(".globl switch_stack\nswitch_stack:\n.cfi_startproc\npush %rbp\n.cfi_def_cfa_offset 16\n"
        ".cfi_offset rbp,-16\nmov %rsp,%rbp\n.cfi_def_cfa_register rbp\nmov %rdi,%rsp\n"
        "call *%rsi\nmov %rbp,%rsp\npop %rbp\n.cfi_def_cfa rsp,8\nret\n.cfi_endproc\n");
