/* Walks from signal handlers, with a register that the interrupted frame's caller needs. */
#include <signal.h>
void (*look)(void);
static void h(int s) { look(); }
#ifdef __i386__
#define KEPT "esi"
__asm__(".text\n.globl kept_cfa\nkept_cfa:\n.cfi_startproc\npush %esi\n.cfi_def_cfa_offset 8\n"
        ".cfi_offset esi,-8\nmov %esp,%esi\n.cfi_def_cfa_register esi\nsub $32,%esp\n"
        "and $-64,%esp\ncall *8(%esi)\nmov %esi,%esp\n.cfi_def_cfa_register esp\npop %esi\n"
        ".cfi_def_cfa_offset 4\nret\n.cfi_endproc\n");
#else
#define KEPT "r12"
__asm__(".text\n.globl kept_cfa\nkept_cfa:\n.cfi_startproc\npush %r12\n.cfi_def_cfa_offset 16\n"
        ".cfi_offset r12,-16\nmov %rsp,%r12\n.cfi_def_cfa_register r12\nsub $32,%rsp\n"
        "and $-64,%rsp\ncall *%rdi\nmov %r12,%rsp\n.cfi_def_cfa_register rsp\npop %r12\n"
        ".cfi_def_cfa_offset 8\nret\n.cfi_endproc\n");
#endif
void kept_cfa(void (*)(void));
static long fq;
static void clobber(void) {
    __asm__ volatile("mov %0,%%" KEPT "\n int3\n" ::"r"(fq) : KEPT, "memory");
}
extern int lazyf(int);
__attribute__((noinline)) static int f(int a) {
    char pad[512];
    fq = (long)__builtin_dwarf_cfa() - 2 * sizeof(long);
    __asm__ volatile("" ::"r"(pad) : "memory");
    kept_cfa(clobber);
    return lazyf(a) + pad[3] * 0;
}
int run(void (*callback)(void)) {
    look = callback;
    signal(SIGUSR1, h);
    signal(SIGTRAP, h);
    return f(3);
}
