/* What the code calls: allocation, stores, goroutines, channels; and the start of it all. */
#define _POSIX_C_SOURCE 200809L
#include "lisp.h"
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uintptr_t globals[MOST_GLOBALS];
stackmark_runtime *runtime;
stackmark_heap *heap;
stackmark_collector *collector;
uint32_t references;
static int hybrid;

/* ANCHOR: machine */
/* What each machine has. */
static _Thread_local stackmark_allocator *allocator;
static _Thread_local stackmark_barrier *barrier;
/* ANCHOR_END: machine */

void fail(const char *format, ...) {
    va_list arguments;
    fflush(stdout);
    va_start(arguments, format);
    fprintf(stderr, "lisp: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    _exit(1); /* other threads run */
}

void ok(int code) {
    if (code != STACKMARK_OK)
        fail("%s", stackmark_error_text());
}

void *forever(size_t bytes) {
    void *memory = calloc(1, bytes);
    if (memory == NULL)
        fail("no memory");
    return memory;
}

/* --------------------------------------------------------------------------------- The host --- */

/* ANCHOR: attached */
static uintptr_t machine_attached(void *user) {
    (void)user;
    ok(stackmark_allocator_new(heap, &allocator));
    ok(stackmark_barrier_new(collector, &barrier));
    return stackmark_allocator_slots(allocator);
}
/* ANCHOR_END: attached */

static void machine_detached(void *user, uintptr_t word) {
    (void)user;
    (void)word;
    stackmark_allocator_free(allocator);
    stackmark_barrier_free(barrier);
    allocator = NULL;
    barrier = NULL;
}

static void stack_overflow(void *user, stackmark_goroutine *goroutine, size_t limit) {
    (void)user;
    fail("goroutine %llu: its stack exceeds %zu bytes",
         (unsigned long long)stackmark_goroutine_id(goroutine), limit);
}

static void deadlock(void *user) {
    (void)user;
    fail("all goroutines wait");
}

static uint64_t main_goroutine;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t ended = PTHREAD_COND_INITIALIZER;
static bool has_ended;
static stackmark_scheduler *scheduler;

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t result) {
    (void)user;
    (void)result;
    if (stackmark_goroutine_id(goroutine) != main_goroutine)
        return;
    stackmark_await_wakeup(scheduler); /* what others wait for does not matter any more */
    pthread_mutex_lock(&lock);
    has_ended = true;
    pthread_cond_signal(&ended);
    pthread_mutex_unlock(&lock);
}

/* ---------------------------------------------------------------------------------- Natives --- */

uintptr_t native_fail(void *first, uintptr_t second) {
    static const char *const texts[] = {
        [NOT_NUMBERS] = "not numbers",    [NOT_A_PAIR] = "not a pair",
        [NOT_A_CLOSURE] = "not a procedure", [WRONG_ARITY] = "wrong number of arguments",
        [OVERFLOW] = "a number is too large, or divided by 0",
        [NOT_A_VECTOR] = "not a vector",  [BAD_INDEX] = "no such index",
    };
    char trace[4096];
    (void)second;
    stackmark_traceback(runtime, trace, sizeof trace);
    fail("%s\n%s", texts[(uintptr_t)first], trace);
}

/* ANCHOR: natives */
/* A new object: the inline allocation has found no room. */
uintptr_t native_allocate(void *first, uintptr_t second) {
    uintptr_t object;
    (void)second;
    ok(stackmark_allocate(collector, allocator, references, (size_t)first, &object));
    return object;
}

/* Stores a reference while the barrier is on. */
uintptr_t native_store(void *first, uintptr_t to) {
    stackmark_store(barrier, (uintptr_t)first, to);
    if (hybrid)
        stackmark_shade_overwritten(barrier, __atomic_load_n((uintptr_t *)to, __ATOMIC_RELAXED));
    __atomic_store_n((uintptr_t *)to, (uintptr_t)first, __ATOMIC_RELAXED);
    return 0;
}
/* ANCHOR_END: natives */

uintptr_t native_make_vector(void *first, uintptr_t second) {
    uintptr_t object;
    int64_t length = value_of((uintptr_t)first);
    if (((uintptr_t)first & 1) == 0 || length < 0 || length > 1 << 24)
        return native_fail((void *)BAD_INDEX, 0);
    /* The element is a number or a constant, which no collection frees. */
    if ((second & 1) == 0 && second != NIL && second != TRUE)
        return native_fail((void *)NOT_NUMBERS, 0);
    ok(stackmark_allocate(collector, allocator, references, 16 + 8 * (size_t)length, &object));
    struct vector *vector = (struct vector *)object;
    vector->tag = VECTOR;
    vector->length = (uintptr_t)length;
    for (int64_t i = 0; i < length; i++)
        vector->at[i] = second;
    return object;
}

/* ANCHOR: display */
/* Standard output may make this thread wait: for a pipe that is full, or for another thread that
   waits for one. So it is a foreign call, which no collection waits for. The value is made a text
   before: in a foreign call, no object is looked at. */
static uintptr_t write_out(void *user) {
    struct text *text = user;
    if (fwrite(text->start, 1, text->length, stdout) != text->length)
        fail("standard output cannot be written");
    return NIL;
}

uintptr_t native_display(void *first, uintptr_t second) {
    struct text text = {NULL, 0, 0};
    (void)second;
    print(&text, (uintptr_t)first);
    stackmark_foreign(write_out, &text);
    free(text.start);
    return NIL;
}
/* ANCHOR_END: display */

uintptr_t native_newline(void *first, uintptr_t second) {
    struct text text = {"\n", 1, 0};
    (void)first;
    (void)second;
    return stackmark_foreign(write_out, &text);
}

uintptr_t native_go(void *first, uintptr_t second) {
    stackmark_goroutine *goroutine;
    (void)second;
    if (!is((uintptr_t)first, CLOSURE))
        return native_fail((void *)NOT_A_CLOSURE, 0);
    ok(stackmark_spawn(runtime, STACKMARK_STACK_MOVING, entry, (uintptr_t)first, &goroutine));
    ok(stackmark_schedule(runtime, goroutine));
    return NIL;
}

/* ANCHOR: collect */
uintptr_t native_collect(void *first, uintptr_t second) {
    stackmark_foreign_call call;
    (void)first;
    (void)second;
    ok(stackmark_foreign_enter(&call));
    ok(stackmark_collect(collector));
    stackmark_foreign_leave(&call);
    return NIL;
}
/* ANCHOR_END: collect */

uintptr_t native_cycles(void *first, uintptr_t second) {
    stackmark_statistics statistics = {.size = sizeof statistics};
    (void)first;
    (void)second;
    ok(stackmark_get_statistics(collector, &statistics));
    return number((int64_t)statistics.cycles);
}

/* --------------------------------------------------------------------------------- Channels --- */

/* A goroutine that waits at a channel. */
struct waiter {
    stackmark_goroutine *goroutine;
    struct waiter *next;
};

/* The goroutines that wait, all to send or all to receive. A sender's value is its transfer. */
struct queue {
    pthread_mutex_t lock;
    bool senders;
    struct waiter *first, **last;
};

static void free_queue(void *user, stackmark_handle *handle) {
    stackmark_handle_free(handle);
    pthread_mutex_destroy(&((struct queue *)user)->lock);
    free(user);
}

uintptr_t native_channel(void *first, uintptr_t second) {
    uintptr_t object;
    (void)first;
    (void)second;
    ok(stackmark_allocate(collector, allocator, references, sizeof(struct channel), &object));
    struct queue *queue = forever(sizeof *queue);
    pthread_mutex_init(&queue->lock, NULL);
    queue->last = &queue->first;
    *(struct channel *)object = (struct channel){CHANNEL, (uintptr_t)queue};
    ok(stackmark_on_unreachable(collector, object, free_queue, queue));
    return object;
}

static struct queue *queue_of(uintptr_t channel) {
    if (!is(channel, CHANNEL))
        fail("not a channel");
    return (struct queue *)((struct channel *)channel)->queue;
}

/* The first that waits, owned; NULL if none does. */
static stackmark_goroutine *take(struct queue *queue) {
    struct waiter *waiter = queue->first;
    if (waiter == NULL)
        return NULL;
    stackmark_goroutine *goroutine = waiter->goroutine;
    queue->first = waiter->next;
    if (queue->first == NULL)
        queue->last = &queue->first;
    free(waiter);
    return goroutine;
}

static void unlock(void *user) {
    pthread_mutex_unlock(user);
}

/* Parking drops the frames up to managed code: the sanitizer forgets what it knows of them. */
#ifdef __SANITIZE_ADDRESS__
void __asan_handle_no_return(void);
#else
static void __asan_handle_no_return(void) {}
#endif

/* ANCHOR: wait */
/* Waits in the queue, whose lock it lets go. The call that came here returns what the goroutine is
   made ready with. */
static uintptr_t wait_in(struct queue *queue, bool sends) {
    struct waiter *waiter = forever(sizeof *waiter);
    waiter->goroutine = stackmark_goroutine_retain(stackmark_current());
    queue->senders = sends;
    *queue->last = waiter;
    queue->last = &waiter->next;
    __asan_handle_no_return();
    return stackmark_park(unlock, &queue->lock);
}
/* ANCHOR_END: wait */

uintptr_t native_send(void *first, uintptr_t value) {
    struct queue *queue = queue_of((uintptr_t)first);
    pthread_mutex_lock(&queue->lock);
    stackmark_goroutine *receiver = queue->senders ? NULL : take(queue);
    if (receiver == NULL) {
        ok(stackmark_set_transfer(runtime, stackmark_current(), &value, 1));
        return wait_in(queue, true);
    }
    pthread_mutex_unlock(&queue->lock);
    ok(stackmark_ready(runtime, receiver, value, 1));
    return NIL;
}

uintptr_t native_receive(void *first, uintptr_t second) {
    struct queue *queue = queue_of((uintptr_t)first);
    uintptr_t value;
    size_t count;
    (void)second;
    pthread_mutex_lock(&queue->lock);
    stackmark_goroutine *sender = queue->senders ? take(queue) : NULL;
    if (sender == NULL)
        return wait_in(queue, false);
    pthread_mutex_unlock(&queue->lock);
    ok(stackmark_take_transfer(runtime, sender, &value, 1, &count));
    ok(stackmark_ready(runtime, sender, NIL, 0));
    return value;
}

/* ------------------------------------------------------------------------------------- Main --- */

static char *contents(const char *path) {
    FILE *file = fopen(path, "r");
    size_t room = 1 << 20, length;
    char *text = forever(room);
    if (file == NULL)
        fail("%s cannot be opened", path);
    length = fread(text, 1, room - 1, file);
    if (length == room - 1)
        fail("%s is too long", path);
    fclose(file);
    return text;
}

int main(int count, char **arguments) {
    const char *stress = getenv("LISP_STRESS");
    const char *options = stress == NULL ? "" : stress;
    if (count < 2)
        fail("usage: lisp FILE [NUMBER]");
    hybrid = strstr(options, "hybrid") != NULL;
    stackmark_host host = {
        .size = sizeof host,
        .stack_overflow = stack_overflow,
        .machine_attached = machine_attached,
        .machine_detached = machine_detached,
        .goroutine_exited = goroutine_exited,
    };
    stackmark_config config = {
        .size = sizeof config,
        .move_every_poll = strstr(options, "move") != NULL,
        .poison = strstr(options, "poison") != NULL,
    };
    stackmark_heap_options heap_options = {
        .size = sizeof heap_options,
        .poison = strstr(options, "poison") != NULL,
    };
    stackmark_collector_config collecting = {
        .size = sizeof collecting,
        .verify = strstr(options, "verify") != NULL,
        .collect_every_poll = strstr(options, "collect") != NULL,
        .write_barrier = hybrid ? STACKMARK_BARRIER_HYBRID : STACKMARK_BARRIER_INSERTION,
        .generational = strstr(options, "generational") != NULL,
    };
    static const uint32_t every_word[] = {0};
    ok(stackmark_runtime_new(&config, &host, &runtime));
    ok(stackmark_heap_new(&heap_options, &heap));
    ok(stackmark_collector_start(runtime, heap, &collecting, &collector));
    ok(stackmark_descriptor(heap, 1, every_word, 1, &references));
    ok(stackmark_add_globals(collector, (uintptr_t)globals, (uintptr_t)(globals + MOST_GLOBALS)));
    uintptr_t argument = count > 2 ? read_number(arguments[2]) : NIL;
    if (argument == 0)
        fail("%s is no number", arguments[2]);
    globals[symbol("argument")->global] = argument;

    struct closure *program = compile(read_all(contents(arguments[1])));
    stackmark_goroutine *goroutine;
    ok(stackmark_scheduler_new(runtime, 2, deadlock, NULL, &scheduler));
    stackmark_await_wakeup(scheduler);
    ok(stackmark_scheduler_start(scheduler));
    ok(stackmark_spawn(runtime, STACKMARK_STACK_MOVING, entry, (uintptr_t)program, &goroutine));
    main_goroutine = stackmark_goroutine_id(goroutine);
    ok(stackmark_schedule(runtime, goroutine));
    stackmark_wakeup_done(scheduler);
    pthread_mutex_lock(&lock);
    while (!has_ended)
        pthread_cond_wait(&ended, &lock);
    pthread_mutex_unlock(&lock);
    fflush(stdout);
    _exit(0); /* other goroutines may run */
}
