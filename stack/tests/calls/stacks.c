// C that does unusual things with its stack.
#include <setjmp.h>
#include <stdint.h>
#include <stdlib.h>
#include <ucontext.h>

typedef uintptr_t (*callback)(void *);

static __thread struct {
    ucontext_t outside, inside;
    callback f;
    void *argument;
    uintptr_t result;
} coroutine;

static void body(void) {
    coroutine.result = coroutine.f(coroutine.argument);
    swapcontext(&coroutine.inside, &coroutine.outside);
}

// f(argument), called on a stack that was just allocated.
uintptr_t on_another_stack(callback f, void *argument) {
    size_t size = 256 << 10;
    void *stack = malloc(size);
    coroutine.f = f;
    coroutine.argument = argument;
    getcontext(&coroutine.inside);
    coroutine.inside.uc_stack.ss_sp = stack;
    coroutine.inside.uc_stack.ss_size = size;
    coroutine.inside.uc_link = NULL;
    makecontext(&coroutine.inside, body, 0);
    swapcontext(&coroutine.outside, &coroutine.inside);
    free(stack);
    return coroutine.result;
}

static __thread jmp_buf back;

static __attribute__((noinline)) void jump_after(callback f, void *argument,
                                                 volatile uintptr_t *result) {
    *result = f(argument);
    longjmp(back, 1);
}

// Calls f(argument), and leaves the function that did so by longjmp.
uintptr_t jumps_over_its_own_frame(callback f, void *argument) {
    volatile uintptr_t result = 0;
    if (!setjmp(back)) jump_after(f, argument, &result);
    return result;
}
