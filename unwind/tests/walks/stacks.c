/* Calls on another stack, with the caller's in the frame pointer. */
#ifdef __i386__
__asm__(".globl switch_stack\nswitch_stack:\n.cfi_startproc\npush %ebp\n.cfi_def_cfa_offset 8\n"
        ".cfi_offset ebp,-8\nmov %esp,%ebp\n.cfi_def_cfa_register ebp\nmov 8(%ebp),%esp\n"
        "call *12(%ebp)\nmov %ebp,%esp\npop %ebp\n.cfi_def_cfa esp,4\nret\n.cfi_endproc\n");
#else
__asm__(".globl switch_stack\nswitch_stack:\n.cfi_startproc\npush %rbp\n.cfi_def_cfa_offset 16\n"
        ".cfi_offset rbp,-16\nmov %rsp,%rbp\n.cfi_def_cfa_register rbp\nmov %rdi,%rsp\n"
        "call *%rsi\nmov %rbp,%rsp\npop %rbp\n.cfi_def_cfa rsp,8\nret\n.cfi_endproc\n");
#endif
