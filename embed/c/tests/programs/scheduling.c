/* A scheduler of the embedder's own, preemption, and what tells about goroutines. */
#define _GNU_SOURCE
#include "managed.h"
#include <pthread.h>

static stackmark_runtime *runtime;
static stackmark_goroutine *queue[8], *parked;
static int first, last;
static uintptr_t results[8];
static int exited;

/* The scheduler: a queue, which the one machine empties. */
static void ready(void *user, stackmark_goroutine *goroutine) {
    CHECK(user == &queue);
    CHECK(last < 8);
    queue[last++] = goroutine;
}

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t result) {
    (void)user;
    CHECK(stackmark_goroutine_id(goroutine) != 0);
    results[exited++] = result;
}

static void run_all(stackmark_machine *machine) {
    while (first < last) {
        stackmark_goroutine *again;
        int left;
        OK(stackmark_run(machine, queue[first++], &again, &left));
        if (left == STACKMARK_LEFT_YIELDED)
            ready(&queue, again);
    }
    first = last = 0;
}

static stackmark_goroutine *spawn(uintptr_t entry, stackmark_native *argument) {
    stackmark_goroutine *goroutine;
    OK(stackmark_spawn(runtime, STACKMARK_STACK_MOVING, entry, (uintptr_t)argument, &goroutine));
    return goroutine;
}

static uintptr_t parks(void *goroutine, uintptr_t second) {
    (void)second;
    parked = stackmark_goroutine_retain((stackmark_goroutine *)goroutine);
    return stackmark_park(NULL, NULL);
}

static uintptr_t is_preempted(void *goroutine, uintptr_t second) {
    const uintptr_t *limit = (uintptr_t *)((char *)goroutine + STACKMARK_G_STACK_LIMIT);
    (void)second;
    CHECK(*limit != UINTPTR_MAX);
    stackmark_preempt_all(runtime);
    CHECK(*limit == UINTPTR_MAX);
    return 5;
}

/* Writes a reference to the slot of the managed frame that has called. */
static int managed_frame(void *user, const stackmark_frame *frame) {
    if (frame->kind != STACKMARK_FRAME_MANAGED)
        return 0;
    *(size_t *)user = frame->cfa_depth;
    return 1;
}

static uintptr_t writes_to_frame(void *first, uintptr_t second) {
    size_t cfa_depth = 0;
    (void)first;
    (void)second;
    OK(stackmark_frames(managed_frame, &cfa_depth));
    uintptr_t slot = stackmark_current_stack_top() - cfa_depth - 24; /* -8(%rbp) */
    CHECK(*(uintptr_t *)slot == 0);
    OK(stackmark_note_stack_write(slot, slot + sizeof slot));
    *(uintptr_t *)slot = 0;
    return 6;
}

static void *forgets(void *region) {
    CHECK(stackmark_unregister(runtime, *(uint64_t *)region) == STACKMARK_BAD_CODE);
    CHECK(strstr(stackmark_error_text(), "managed_entry in managed") != NULL);
    CHECK(stackmark_unregister_all(runtime, (uint64_t *)region, 1) == STACKMARK_BAD_CODE);
    return NULL;
}

int main(void) {
    stackmark_host host = {.size = sizeof host, .goroutine_exited = goroutine_exited};
    stackmark_machine *machine;
    stackmark_goroutine *all[4], *goroutine;
    char text[1000], version[30];
    size_t count, length;
    pthread_t thread;

    snprintf(version, sizeof version, "%d.%d.%d", STACKMARK_VERSION_MAJOR, STACKMARK_VERSION_MINOR,
             STACKMARK_VERSION_PATCH);
    CHECK(strcmp(stackmark_version(), version) == 0);
    OK(stackmark_report_native_overflow());
    OK(stackmark_runtime_new(NULL, &host, &runtime));
    uint64_t region = register_managed(runtime);
    OK(stackmark_set_scheduler(runtime, ready, &queue));
    OK(stackmark_attach(runtime, &machine));

    /* Parks, and is made ready from outside. Meanwhile it is listed and told about. */
    OK(stackmark_schedule(runtime, spawn((uintptr_t)managed_entry, parks)));
    run_all(machine);
    CHECK(stackmark_live_goroutines(runtime) == 1 && exited == 0);
    OK(stackmark_goroutines(runtime, NULL, 0, &count));
    CHECK(count == 1);
    OK(stackmark_goroutines(runtime, all, 4, &count));
    CHECK(count == 1 && all[0] == parked && stackmark_goroutine_id(all[0]) == 1);
    stackmark_goroutine_release(all[0]);
    OK(stackmark_traceback_of(runtime, parked, text, sizeof text, &length));
    CHECK(strcmp(text, "goroutine 1 [parked]:\nmanaged_entry(...)\n") == 0);
    CHECK(length == strlen(text));
    OK(stackmark_traceback_of(runtime, parked, text, 10, &length));
    CHECK(strcmp(text, "goroutine") == 0 && length > 10);
    CHECK(pthread_create(&thread, NULL, forgets, &region) == 0 && pthread_join(thread, NULL) == 0);
    OK(stackmark_ready(runtime, parked, 4, 0));
    run_all(machine);
    CHECK(exited == 1 && results[0] == 4);

    /* One that is preempted before it begins yields at its first poll. */
    goroutine = spawn((uintptr_t)managed_entry, is_preempted);
    stackmark_goroutine *kept = stackmark_goroutine_retain(goroutine);
    CHECK(stackmark_unregister(runtime, region) == STACKMARK_BAD_CODE); /* it begins there */
    stackmark_preempt(goroutine);
    int left;
    OK(stackmark_run(machine, goroutine, &goroutine, &left));
    CHECK(left == STACKMARK_LEFT_YIELDED && exited == 1);
    OK(stackmark_schedule(runtime, goroutine));
    OK(stackmark_schedule(runtime, spawn((uintptr_t)managed_entry, writes_to_frame)));
    run_all(machine);
    CHECK(exited == 3 && results[1] == 5 && results[2] == 6);

    /* Lets others run by itself. */
    OK(stackmark_run(machine, spawn((uintptr_t)managed_switches, NULL), &goroutine, &left));
    CHECK(left == STACKMARK_LEFT_YIELDED);
    OK(stackmark_run(machine, goroutine, &goroutine, &left));
    CHECK(left == STACKMARK_LEFT_EXITED && goroutine == NULL && results[3] == 77);

    OK(stackmark_goroutines(runtime, all, 4, &count));
    CHECK(count == 0);
    OK(stackmark_detach(machine));
    OK(stackmark_unregister_all(runtime, &region, 1));
    CHECK(stackmark_unregister(runtime, region) == STACKMARK_INVALID);
    stackmark_runtime_release(runtime);
    CHECK(stackmark_goroutine_status(kept) == STACKMARK_DEAD);
    stackmark_goroutine_release(kept); /* it outlives the runtime */
    puts("scheduling: all checks hold");
    return 0;
}
