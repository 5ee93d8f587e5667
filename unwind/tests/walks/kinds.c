/* Frames of many kinds. Each function calls the next from within its own; the last, the callback. */
#include <alloca.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

typedef void (*Callback)(void);
/* Known by name to the loader, and yet called without a detour. */
#define KIND __attribute__((noinline, visibility("protected")))
#define USE(p) __asm__ volatile("" ::"r"(p) : "memory")
static Callback look;

/* Another library's function of this name would be called: the linker makes a PLT entry. */
__attribute__((noinline)) void through_the_plt(void) { look(); USE(0); }

KIND void small(void) { through_the_plt(); USE(0); }

KIND void array(int n) {
    volatile char a[100];
    a[n] = 1;
    small();
    USE(a);
}

KIND void large(int n) {
    volatile char a[100000];
    a[n] = 1;
    array(n);
    USE(a);
}

KIND void by_alloca(int n) {
    char *a = alloca(n * 10 + 1);
    memset(a, 1, n + 1);
    large(n);
    USE(a);
}

KIND void realigned(int n) {
    _Alignas(128) volatile char a[200];
    a[n] = 1;
    by_alloca(n);
    USE(a);
}

KIND long many(long a, long b, long c, long d, long e, long f) {
    long g = a * b, h = c * d, i = e * f, j = a ^ f, k = b ^ e, l = a + d;
    realigned(3);
    return a + b + c + d + e + f + g * h * i + j * k * l;
}

KIND double floats(double a, double b, double c, double d) {
    double e = a * b, f = c * d, g = a + d, h = b - c;
    long r = many(1, 2, 3, 4, 5, 6);
    return a + b + c + d + e * f + g * h + r;
}

KIND double on_the_stack(long a, long b, long c, long d, long e, long f, long g, long h,
                                long i, long j, double x) {
    double r = floats(x, x + 1, x + 2, x + 3);
    return r + a + b + c + d + e + f + g + h + i + j;
}

KIND void tail_called(int n) { on_the_stack(n, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1.5); USE(0); }

KIND void calls_last(int n) { tail_called(n + 1); }

KIND int compare(const void *a, const void *b) {
    calls_last(*(const int *)a & 1);
    return *(const int *)a - *(const int *)b;
}

KIND void within_libc(void) {
    int a[2] = {2, 1};
    qsort(a, 2, sizeof *a, compare);
    USE(a);
}

KIND void jumps(jmp_buf to) { longjmp(to, 1); }

KIND void behind_a_jump(void) {
    jmp_buf here;
    if (setjmp(here) == 0)
        jumps(here);
    within_libc();
    USE(here);
}

KIND void handler(int signal) { behind_a_jump(); USE(signal); }

KIND void in_a_handler(void) {
    signal(SIGUSR2, handler);
    raise(SIGUSR2);
    USE(0);
}

KIND void on_other_stack(int signal) { in_a_handler(); USE(signal); }

void run(Callback callback) {
    static char stack[1 << 20];
    stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_handler = on_other_stack, .sa_flags = SA_ONSTACK};
    look = callback;
    sigaltstack(&other, NULL);
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    other.ss_flags = SS_DISABLE;
    sigaltstack(&other, NULL);
}
