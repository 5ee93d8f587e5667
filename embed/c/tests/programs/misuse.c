/* Misuse ends the process with one line: nothing unwinds into C. */
#include "managed.h"

static stackmark_runtime *runtime;

static uintptr_t parks_in_foreign(void *user) {
    (void)user;
    return stackmark_park(NULL, NULL);
}

static uintptr_t misuses(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    return stackmark_foreign(parks_in_foreign, NULL);
}

int main(int count, char **arguments) {
    stackmark_machine *machine;
    stackmark_goroutine *goroutine;
    OK(stackmark_runtime_new(NULL, NULL, &runtime));
    register_managed(runtime);
    if (count > 1 && strcmp(arguments[1], "park") == 0) {
        OK(stackmark_attach(runtime, &machine));
        run_native(runtime, machine, misuses);
    } else if (count > 1 && strcmp(arguments[1], "nowhere") == 0) {
        stackmark_park(NULL, NULL);
    } else if (count > 1 && strcmp(arguments[1], "ready") == 0) {
        OK(stackmark_spawn(runtime, 0, (uintptr_t)managed_entry, (uintptr_t)misuses, &goroutine));
        stackmark_ready(runtime, goroutine, 0, 0);
    }
    puts("still here");
    return 0;
}
