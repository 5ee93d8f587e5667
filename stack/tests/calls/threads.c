// Threads that only C knows.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

typedef uintptr_t (*callback)(void *);

struct start {
    callback f;
    void *argument;
    uintptr_t result;
};

static void *body(void *argument) {
    struct start *start = argument;
    start->result = start->f(start->argument);
    return NULL;
}

// The sum of what f(argument) returns on n threads. They all live at the same time if f waits for
// the others.
uintptr_t on_threads(int n, callback f, void *argument) {
    pthread_t *threads = calloc(n, sizeof *threads);
    struct start *starts = calloc(n, sizeof *starts);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    for (int i = 0; i < n; i++) {
        starts[i] = (struct start){f, argument, 0};
        if (pthread_create(&threads[i], &attributes, body, &starts[i])) abort();
    }
    uintptr_t sum = 0;
    for (int i = 0; i < n; i++) {
        pthread_join(threads[i], NULL);
        sum += starts[i].result;
    }
    free(threads);
    free(starts);
    return sum;
}

uintptr_t end_thread(void *unused) {
    (void)unused;
    pthread_exit(NULL);
}

// Waits to be cancelled; says so through the flag.
uintptr_t wait_for_ever(void *flag) {
    __atomic_store_n((int *)flag, 1, __ATOMIC_SEQ_CST);
    for (;;) sleep(1);
}

// Starts a thread that calls f(argument), cancels it as soon as *flag is set, and joins it. 1 if it
// was cancelled.
int cancel_when(callback f, void *argument, int *flag) {
    struct start start = {f, argument, 0};
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, body, &start)) abort();
    while (!__atomic_load_n(flag, __ATOMIC_SEQ_CST)) usleep(100);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    return result == PTHREAD_CANCELED;
}

// Calls back after C has recursed so deep.
uintptr_t from_depth(int depth, callback f, void *argument) {
    volatile char room[64];
    room[0] = (char)depth;
    if (depth == 0) return f(argument);
    uintptr_t result = from_depth(depth - 1, f, argument);
    return result + (room[0] - room[0]);
}

static callback in_handler;
static void *handler_argument;
static volatile uintptr_t handler_result;

static void handler(int signal) {
    (void)signal;
    handler_result = in_handler(handler_argument);
}

// What f(argument) returns in a signal handler on the alternate stack of this thread.
uintptr_t in_signal_handler(callback f, void *argument) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_ONSTACK}, old;
    in_handler = f;
    handler_argument = argument;
    sigaction(SIGUSR2, &action, &old);
    pthread_kill(pthread_self(), SIGUSR2);
    sigaction(SIGUSR2, &old, NULL);
    return handler_result;
}

static pthread_key_t late_key;
static callback late;
static void *late_argument;
static uintptr_t late_result;

static void call_late(void *unused) {
    (void)unused;
    late_result += late(late_argument);
}

// f(argument) is called when this thread ends, too. Once in a process.
void call_at_the_end(callback f, void *argument) {
    late = f;
    late_argument = argument;
    if (pthread_key_create(&late_key, call_late)) abort();
}

uintptr_t mark_for_the_end(void *unused) {
    (void)unused;
    pthread_setspecific(late_key, &late_key);
    return 0;
}

uintptr_t called_at_the_end(void) { return late_result; }
