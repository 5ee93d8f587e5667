/* The managed code of managed.s, and its registration. */
#ifndef MANAGED_H
#define MANAGED_H

#include <stackmark.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif
extern char managed_start[], managed_end[], managed_entry[], managed_back[];
extern char managed_entry_poll[], managed_entry_call[], managed_entry_pad[];
extern char managed_back_poll[], managed_back_call[];
extern char managed_switches[], managed_switches_poll[], managed_switches_call[];
extern uintptr_t managed_call_system, managed_switch_out;
#ifdef __cplusplus
}
#endif

/* What managed_back gets. */
struct block {
    stackmark_goroutine *goroutine;
    stackmark_native *f;
};

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #condition,                     \
                    stackmark_error_text());                                                       \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
#define OK(call) CHECK((call) == STACKMARK_OK)

/* ANCHOR: register */
static inline uint64_t register_managed(stackmark_runtime *runtime) {
    static const uint32_t slots[] = {24, 40}; /* -8(%rbp) in frames of 48 and of 64 bytes */
    char *calls[] = {managed_entry_poll, managed_entry_call,    managed_back_poll,
                     managed_back_call,  managed_switches_poll, managed_switches_call};
    enum { CALLS = sizeof calls / sizeof calls[0], FUNCTIONS = 3 };
    static const char *const names[] = {"managed_entry", "managed_back", "managed_switches"};
    char *starts[] = {managed_entry, managed_back, managed_switches, managed_end};
    stackmark_safepoint safepoints[CALLS];
    stackmark_function functions[FUNCTIONS];
    stackmark_region region;
    uint64_t number = 0;
    memset(safepoints, 0, sizeof safepoints);
    memset(functions, 0, sizeof functions);
    memset(&region, 0, sizeof region);
    for (int i = 0; i < CALLS; i++) {
        safepoints[i].size = sizeof safepoints[i];
        safepoints[i].return_address = (uintptr_t)calls[i];
        safepoints[i].slots = i < 4 ? &slots[0] : &slots[1];
        safepoints[i].slot_count = 1;
        safepoints[i].cfa_offset = i < 4 ? 48 : 64;
    }
    for (int i = 0; i < FUNCTIONS; i++) {
        functions[i].size = sizeof functions[i];
        functions[i].name = names[i];
        functions[i].start = (uintptr_t)starts[i];
        functions[i].length = (size_t)(starts[i + 1] - starts[i]);
    }
    region.size = sizeof region;
    region.name = "managed";
    region.start = (uintptr_t)managed_start;
    region.length = (size_t)(managed_end - managed_start);
    region.functions = functions;
    region.function_count = FUNCTIONS;
    region.safepoints = safepoints;
    region.safepoint_count = CALLS;
    region.max_frame = STACKMARK_MAX_FRAME;
    managed_call_system = stackmark_call_system_address();
    managed_switch_out = stackmark_switch_out_address();
    OK(stackmark_register(runtime, &region, &number));
    CHECK(number != 0);
    return number;
}
/* ANCHOR_END: register */

/* Runs a goroutine that calls `f`, on this thread, to its end. */
static inline void run_native(stackmark_runtime *runtime, stackmark_machine *machine,
                              stackmark_native *f) {
    stackmark_goroutine *goroutine, *again;
    int left;
    OK(stackmark_spawn(runtime, STACKMARK_STACK_MOVING, (uintptr_t)managed_entry, (uintptr_t)f,
                       &goroutine));
    for (;;) {
        OK(stackmark_run(machine, goroutine, &again, &left));
        if (left == STACKMARK_LEFT_EXITED)
            return;
        CHECK(left == STACKMARK_LEFT_YIELDED);
        goroutine = again;
    }
}

#endif
