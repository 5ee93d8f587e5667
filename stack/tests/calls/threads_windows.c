// Threads that only C knows, on Windows: what there is of threads.c.
#include <stdint.h>
#include <stdlib.h>
#include <windows.h>

typedef uintptr_t (*callback)(void *);

struct start {
    callback f;
    void *argument;
    uintptr_t result;
};

static DWORD WINAPI body(void *argument) {
    struct start *start = argument;
    start->result = start->f(start->argument);
    return 0;
}

// The sum of what f(argument) returns on n threads. They all live at the same time if f waits for
// the others.
uintptr_t on_threads(int n, callback f, void *argument) {
    HANDLE *threads = calloc(n, sizeof *threads);
    struct start *starts = calloc(n, sizeof *starts);
    for (int i = 0; i < n; i++) {
        starts[i] = (struct start){f, argument, 0};
        DWORD flags = STACK_SIZE_PARAM_IS_A_RESERVATION;
        threads[i] = CreateThread(NULL, 256 << 10, body, &starts[i], flags, NULL);
        if (!threads[i]) abort();
    }
    uintptr_t sum = 0;
    for (int i = 0; i < n; i++) {
        WaitForSingleObject(threads[i], INFINITE);
        CloseHandle(threads[i]);
        sum += starts[i].result;
    }
    free(threads);
    free(starts);
    return sum;
}

uintptr_t end_thread(void *unused) {
    (void)unused;
    ExitThread(0);
}

// Calls back after C has recursed so deep.
uintptr_t from_depth(int depth, callback f, void *argument) {
    volatile char room[64];
    room[0] = (char)depth;
    if (depth == 0) return f(argument);
    uintptr_t result = from_depth(depth - 1, f, argument);
    return result + (room[0] - room[0]);
}

static DWORD late_key;
static callback late;
static void *late_argument;
static uintptr_t late_result;

static void WINAPI call_late(void *marked) {
    if (marked) late_result += late(late_argument);
}

// f(argument) is called when this thread ends, too. Once in a process.
void call_at_the_end(callback f, void *argument) {
    late = f;
    late_argument = argument;
    late_key = FlsAlloc(call_late);
    if (late_key == FLS_OUT_OF_INDEXES) abort();
}

uintptr_t mark_for_the_end(void *unused) {
    (void)unused;
    FlsSetValue(late_key, &late_key);
    return 0;
}

uintptr_t called_at_the_end(void) { return late_result; }
