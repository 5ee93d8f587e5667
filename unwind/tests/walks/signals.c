/* Walks from signal handlers, with a register that the interrupted frame's caller needs. */
#include <signal.h>
void (*look)(void);
static void h(int s) { look(); }
__asm__(".text\n.globl r12_cfa\nr12_cfa:\n.cfi_startproc\npush %r12\n.cfi_def_cfa_offset 16\n"
        ".cfi_offset r12,-16\nmov %rsp,%r12\n.cfi_def_cfa_register r12\nsub $32,%rsp\n"
        "and $-64,%rsp\ncall *%rdi\nmov %r12,%rsp\n.cfi_def_cfa_register rsp\npop %r12\n"
        ".cfi_def_cfa_offset 8\nret\n.cfi_endproc\n");
void r12_cfa(void (*)(void));
static long fq;
static void clobber(void) {
    __asm__ volatile("mov %0,%%r12\n int3\n" ::"r"(fq) : "r12", "memory");
}
extern int lazyf(int);
__attribute__((noinline)) static int f(int a) {
    char pad[512];
    fq = (long)__builtin_dwarf_cfa() - 16;
    __asm__ volatile("" ::"r"(pad) : "memory");
    r12_cfa(clobber);
    return lazyf(a) + pad[3] * 0;
}
int run(void (*callback)(void)) {
    look = callback;
    signal(SIGUSR1, h);
    signal(SIGTRAP, h);
    return f(3);
}
