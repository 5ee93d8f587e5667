/* Managed code on threads' own stacks: alternation, frames, jumps, frames that are left, ends. */
#include "managed.h"
#include <pthread.h>
#include <setjmp.h>

enum { LEVELS = 1000 };

static stackmark_runtime *runtime;
static stackmark_collector *collector;
static int level, target;
static jmp_buf at_target;
static void *frame_of_target;
/* What the youngest native code does. */
static uintptr_t (*at_bottom)(void);

static int count(void *user, const stackmark_frame *frame) {
    *(int *)user += frame->kind == STACKMARK_FRAME_MANAGED;
    return 0;
}

static uintptr_t descend(void *first, uintptr_t second);

static uintptr_t next(void *unused) {
    struct block block = {stackmark_current(), descend};
    uintptr_t result = 0;
    (void)unused;
    OK(stackmark_call_back((stackmark_managed *)(uintptr_t)managed_back, (uintptr_t)&block, &result));
    return result;
}

/* The jump comes back to here. */
static uintptr_t next_or_jump(void *unused) {
    frame_of_target = __builtin_frame_address(0);
    if (setjmp(at_target)) return 5000;
    return next(unused);
}

/* Called by managed code: enters it again, in turn from a foreign call and as it runs. */
static uintptr_t descend(void *first, uintptr_t second) {
    int at = ++level;
    uintptr_t result;
    (void)first;
    (void)second;
    if (at == LEVELS)
        result = at_bottom();
    else if (at == target)
        result = stackmark_foreign(next_or_jump, NULL);
    else
        result = at % 2 ? next(NULL) : stackmark_foreign(next, NULL);
    CHECK(stackmark_goroutine_status(stackmark_current()) == STACKMARK_RUNNING);
    return result;
}

static uintptr_t collects(void *unused) {
    (void)unused;
    OK(stackmark_collect(collector));
    return 0;
}

static uintptr_t looks(void) {
    int managed = 0;
    stackmark_foreign(collects, NULL);
    OK(stackmark_frames(count, &managed));
    CHECK(managed == LEVELS);
    CHECK(stackmark_detach_native_stack(runtime) == STACKMARK_INVALID);
    CHECK(stackmark_leave_to(NULL) == STACKMARK_INVALID);
    return 1;
}

static uintptr_t jumps(void) {
    stackmark_foreign(collects, NULL);
    OK(stackmark_leave_to(frame_of_target));
    longjmp(at_target, 1);
}

/* In the place of call_native(): a plain call. */
static uintptr_t plain(stackmark_native *f, void *first, uintptr_t second) {
    return f(first, second);
}

static uintptr_t is_refused(void *first, uintptr_t second) {
    struct block block = {stackmark_current(), is_refused};
    uintptr_t result;
    (void)first;
    (void)second;
    CHECK(stackmark_call_in(runtime) == STACKMARK_NO_ANCHOR);
    CHECK(stackmark_call_back((stackmark_managed *)(uintptr_t)managed_back, (uintptr_t)&block,
                              &result) == STACKMARK_NO_ANCHOR);
    return 7;
}

static void without_anchor(void) {
    uintptr_t call_native = managed_call_system, result;
    struct block block = {stackmark_current(), is_refused};
    managed_call_system = (uintptr_t)plain;
    OK(stackmark_call_back((stackmark_managed *)(uintptr_t)managed_back, (uintptr_t)&block, &result));
    CHECK(result == 1 + 7);
    managed_call_system = call_native;
}

static void *thread(void *unused) {
    (void)unused;
    OK(stackmark_attach_native_stack(runtime));
    without_anchor();
    CHECK(stackmark_attach_native_stack(runtime) == STACKMARK_ATTACHED);
    /* Each level of managed code adds 1. */
    level = 0;
    at_bottom = looks;
    CHECK(next(NULL) == 1 + LEVELS);
    level = 0;
    at_bottom = jumps;
    target = LEVELS / 2;
    CHECK(next(NULL) == 5000 + (uintptr_t)target);
    OK(stackmark_detach_native_stack(runtime));
    CHECK(stackmark_detach_native_stack(runtime) == STACKMARK_NOT_ATTACHED);
    CHECK(stackmark_leave_to(&level) == STACKMARK_NOT_ATTACHED);
    /* A thread that ends is detached by itself. */
    OK(stackmark_attach_native_stack(runtime));
    return NULL;
}

int main(void) {
    stackmark_host host = {.size = sizeof host};
    stackmark_config config = {.size = sizeof config};
    stackmark_heap_options options = {.size = sizeof options, .poison = 1};
    stackmark_collector_config collecting = {.size = sizeof collecting, .verify = 1};
    stackmark_heap *heap;
    pthread_t id;
    OK(stackmark_runtime_new(&config, &host, &runtime));
    OK(stackmark_heap_new(&options, &heap));
    OK(stackmark_collector_start(runtime, heap, &collecting, &collector));
    register_managed(runtime);
    managed_call_system = stackmark_call_native_address();
    CHECK(stackmark_call_native_all_address() != managed_call_system);
    CHECK(stackmark_attach_native_stack(NULL) == STACKMARK_INVALID);
    CHECK(pthread_create(&id, NULL, thread, NULL) == 0 && pthread_join(id, NULL) == 0);
    stackmark_collector_stop(collector);
    stackmark_heap_release(heap);
    stackmark_runtime_release(runtime);
    puts("native: all checks hold");
    return 0;
}
