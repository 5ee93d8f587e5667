/* A heap given as a table of functions: cells of one size, a byte of state for each, one lock. */
#include "managed.h"
#include <pthread.h>

enum { CELLS = 4096, WORDS = 600, FREE = 0, WHITE = 1, BLACK = 2 };

static uintptr_t cells[CELLS][WORDS];
static unsigned char state[CELLS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int marking, condemned, batches;
static size_t allocated, swept, marked_objects;
static size_t trigger = SIZE_MAX;
static stackmark_runtime *runtime;
static stackmark_collector *collector;
static stackmark_barrier *barrier;

static size_t index_of(uintptr_t object) {
    return (object - (uintptr_t)cells) / sizeof cells[0];
}

static uintptr_t resolve(void *user, uintptr_t word) {
    uintptr_t first = (uintptr_t)cells;
    (void)user;
    if (word < first || word >= first + sizeof cells || state[index_of(word)] == FREE)
        return 0;
    return first + index_of(word) * sizeof cells[0];
}

static int mark(void *user, uintptr_t object) {
    (void)user;
    return __atomic_exchange_n(&state[index_of(object)], BLACK, __ATOMIC_RELAXED) == WHITE;
}

static int is_marked(void *user, uintptr_t object) {
    (void)user;
    return __atomic_load_n(&state[index_of(object)], __ATOMIC_RELAXED) == BLACK;
}

static size_t object_size(void *user, uintptr_t object) {
    (void)user;
    (void)object;
    return sizeof cells[0];
}

static size_t trace(void *user, uintptr_t object, size_t *from, size_t to, uintptr_t *words,
                    size_t capacity) {
    size_t count = 0, end = to < sizeof cells[0] ? to : sizeof cells[0];
    (void)user;
    __atomic_add_fetch(&batches, 1, __ATOMIC_RELAXED);
    for (; *from < end && count < capacity; *from += sizeof *words)
        words[count++] = __atomic_load_n((uintptr_t *)(object + *from), __ATOMIC_RELAXED);
    if (*from >= end)
        *from = to;
    return count;
}

static void begin_cycle(void *user) {
    (void)user;
    pthread_mutex_lock(&lock);
    marking = 1;
    pthread_mutex_unlock(&lock);
}

static void end_cycle(void *user, uint64_t objects, uint64_t bytes) {
    (void)user;
    CHECK(bytes == objects * sizeof cells[0]);
    marking = 0;
    condemned = 1;
    allocated = 0;
    marked_objects += objects;
}

static void finish_sweep(void *user) {
    (void)user;
    pthread_mutex_lock(&lock);
    for (int i = 0; condemned && i < CELLS; i++) {
        swept += state[i] == WHITE;
        state[i] = state[i] == BLACK ? WHITE : FREE;
    }
    condemned = 0;
    pthread_mutex_unlock(&lock);
}

static void set_trigger(void *user, size_t bytes) {
    (void)user;
    trigger = bytes;
}

static size_t allocated_since_cycle(void *user) {
    (void)user;
    return allocated;
}

static void counts(void *user, stackmark_heap_counts *counts) {
    (void)user;
    counts->objects_marked = marked_objects;
    counts->objects_swept = swept;
}

static int keep_marks(void *user, int keep) {
    (void)user;
    return keep;
}

static uintptr_t allocate(void) {
    OK(stackmark_admit(collector));
    pthread_mutex_lock(&lock);
    /* What is condemned and not swept yet is neither free nor taken. */
    for (int i = 0; !condemned && i < CELLS; i++) {
        if (state[i] == FREE) {
            memset(cells[i], 0, sizeof cells[i]);
            state[i] = marking ? BLACK : WHITE;
            allocated += sizeof cells[i];
            pthread_mutex_unlock(&lock);
            if (marking)
                OK(stackmark_handed_out(collector, sizeof cells[i]));
            return (uintptr_t)cells[i];
        }
    }
    pthread_mutex_unlock(&lock);
    return 0;
}

/* A list of 100 cells, linked by their last words, and as many cells of garbage. */
static uintptr_t builds(void *first, uintptr_t second) {
    uintptr_t list = 0;
    (void)first;
    (void)second;
    for (int i = 0; i < 100; i++) {
        uintptr_t cell = allocate();
        CHECK(cell != 0 && allocate() != 0);
        if (*(volatile unsigned char *)stackmark_barrier_flag(collector))
            stackmark_store(barrier, list, cell + (WORDS - 1) * sizeof list);
        ((uintptr_t *)cell)[WORDS - 1] = list;
        list = cell;
    }
    stackmark_handle *handle;
    OK(stackmark_handle_new(collector, list, &handle));
    stackmark_goroutine_set_user(stackmark_current(), (uintptr_t)handle);
    return (uintptr_t)handle;
}

static uintptr_t handle;

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t result) {
    (void)user;
    CHECK(stackmark_goroutine_user(goroutine) == result);
    handle = result;
}

int main(void) {
    stackmark_host host = {.size = sizeof host, .goroutine_exited = goroutine_exited};
    stackmark_collector_config config = {.size = sizeof config, .verify = 1};
    stackmark_statistics statistics = {.size = sizeof statistics};
    stackmark_heap_functions heap = {
        .size = sizeof heap,
        .resolve = resolve,
        .mark = mark,
        .is_marked = is_marked,
        .object_size = object_size,
        .trace = trace,
        .begin_cycle = begin_cycle,
        .end_cycle = end_cycle,
        .finish_sweep = finish_sweep,
        .set_trigger = set_trigger,
        .allocated_since_cycle = allocated_since_cycle,
        .counts = counts,
    };
    stackmark_machine *machine;
    OK(stackmark_runtime_new(NULL, &host, &runtime));
    heap.mark = NULL;
    CHECK(stackmark_collector_start_on(runtime, &heap, &config, &collector) == STACKMARK_INVALID);
    CHECK(strstr(stackmark_error_text(), "mark is NULL") != NULL);
    heap.mark = mark;
    heap.keep_marks = keep_marks;
    CHECK(stackmark_collector_start_on(runtime, &heap, &config, &collector) == STACKMARK_INVALID);
    CHECK(strstr(stackmark_error_text(), "clear_marks is NULL") != NULL);
    heap.keep_marks = NULL;
    OK(stackmark_collector_start_on(runtime, &heap, &config, &collector));
    CHECK(trigger != SIZE_MAX);
    OK(stackmark_barrier_new(collector, &barrier));
    register_managed(runtime);
    OK(stackmark_attach(runtime, &machine));
    run_native(runtime, machine, builds);
    OK(stackmark_collect(collector));
    OK(stackmark_collect(collector));
    CHECK(swept == 100);
    CHECK(batches >= 100 * (WORDS / 256 + 1)); /* an object takes several */
    int length = 0;
    for (uintptr_t cell = stackmark_handle_get((stackmark_handle *)handle); cell != 0; length++)
        cell = ((uintptr_t *)cell)[WORDS - 1];
    CHECK(length == 100);
    stackmark_handle_free((stackmark_handle *)handle);
    OK(stackmark_collect(collector));
    OK(stackmark_collect(collector));
    CHECK(swept == 200);
    OK(stackmark_get_statistics(collector, &statistics));
    CHECK(statistics.cycles == 4 && statistics.heap_objects_swept == 200);
    OK(stackmark_reached_trigger(collector));
    while (statistics.cycles == 4)
        OK(stackmark_get_statistics(collector, &statistics));
    stackmark_barrier_free(barrier);
    OK(stackmark_detach(machine));
    stackmark_collector_stop(collector);
    stackmark_runtime_release(runtime);
    puts("own_heap: all checks hold");
    return 0;
}
