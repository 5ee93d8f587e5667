// Jumps out of frames that nothing unwinds.
#include <setjmp.h>
#include <stdint.h>

typedef uintptr_t (*callback)(void *);

// Where a jump goes, by either kind of it.
struct target {
    uintptr_t value;
    void *frame;
    jmp_buf buffer;
    void *built_in[5];
};

_Static_assert(sizeof(struct target) <= 64 * 8, "the tests have as much room");

// Calls f(argument). A jump to the target makes it return 5000 more than the jump's value.
uintptr_t calls_under_setjmp(struct target *target, callback f, void *argument) {
    target->frame = __builtin_frame_address(0);
    if (setjmp(target->buffer)) return 5000 + target->value;
    return f(argument);
}

// The same for the compiler's own jumps, which call nothing.
uintptr_t calls_under_builtin_setjmp(struct target *target, callback f, void *argument) {
    target->frame = __builtin_frame_address(0);
    if (__builtin_setjmp(target->built_in)) return 5000 + target->value;
    return f(argument);
}

void jumps(struct target *target, uintptr_t value) {
    target->value = value;
    longjmp(target->buffer, 1);
}

void jumps_by_builtin(struct target *target, uintptr_t value) {
    target->value = value;
    __builtin_longjmp(target->built_in, 1);
}

// What -D_FORTIFY_SOURCE makes of longjmp.
void __longjmp_chk(jmp_buf buffer, int value) __attribute__((noreturn));

void jumps_checked(struct target *target, uintptr_t value) {
    target->value = value;
    __longjmp_chk(target->buffer, 1);
}

// Calls siglongjmp.
void jumps_by_siglongjmp(struct target *target, uintptr_t value) {
    target->value = value;
    siglongjmp(target->buffer, 1);
}
