/* Calls out and in, parking, frames, roots, collections, and what is refused. */
#define _GNU_SOURCE
#include "managed.h"
#include <errno.h>
#include <pthread.h>
#include <unistd.h>

static stackmark_runtime *runtime;
static stackmark_heap *heap;
static stackmark_collector *collector;
static stackmark_allocator *allocator;
static uint32_t pair;
static uintptr_t last_result;
static int destroyed, attached, detached, unreachable;
static struct block block;
static stackmark_goroutine *parked;
static stackmark_handle *kept;
static stackmark_weak *weak;
static uintptr_t global;

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t result) {
    CHECK(user == &destroyed && goroutine != NULL);
    last_result = result;
}

static void on_destroyed(void *user) {
    ++*(int *)user;
}

static uintptr_t on_attached(void *user) {
    (void)user;
    attached++;
    return 17;
}

static void on_detached(void *user, uintptr_t word) {
    (void)user;
    CHECK(word == 17);
    detached++;
}

static uintptr_t answer(void *first, uintptr_t second) {
    CHECK(first == (void *)stackmark_current() && second == 0);
    CHECK(*(uintptr_t *)((char *)first + STACKMARK_G_MACHINE_WORD) == 17);
    return 42;
}

static uintptr_t yields(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    return stackmark_yield(43);
}

/* A frame that managed_back makes, as seen from within it. */
struct seen {
    int managed, callbacks, all;
    size_t oldest;
};

static int see(void *user, const stackmark_frame *frame) {
    struct seen *seen = user;
    seen->all++;
    seen->callbacks += frame->kind == STACKMARK_FRAME_CALLBACK;
    if (frame->kind == STACKMARK_FRAME_MANAGED) {
        char name[32];
        seen->managed++;
        seen->oldest = frame->depth;
        CHECK(stackmark_function_name(runtime, frame->pc - 1, name, sizeof name) > 0);
        CHECK(strncmp(name, "managed_", 8) == 0);
    }
    return 0;
}

static uintptr_t within(void *first, uintptr_t second) {
    struct seen seen = {0, 0, 0, 0};
    char text[4096];
    (void)second;
    CHECK(first == (void *)&block);
    OK(stackmark_frames(see, &seen));
    CHECK(seen.managed == 2 && seen.callbacks == 1);
    CHECK(stackmark_traceback(runtime, text, sizeof text) > 0);
    CHECK(strstr(text, "managed_back") != NULL && strstr(text, "managed_entry") != NULL);
    return 7;
}

static uintptr_t calls_back(void *user) {
    uintptr_t result;
    CHECK(user == &block);
    OK(stackmark_call_back((stackmark_managed *)(uintptr_t)managed_back, (uintptr_t)&block,
                           &result));
    CHECK(result == 8);
    return result;
}

static uintptr_t foreign_and_back(void *first, uintptr_t second) {
    stackmark_foreign_call call;
    stackmark_lib_call_record record = {.size = sizeof record};
    const uintptr_t arguments[] = {(uintptr_t)-1};
    uintptr_t result;
    (void)second;
    block.goroutine = first;
    block.f = within;
    CHECK(stackmark_call_back((stackmark_managed *)(uintptr_t)managed_back, 0, &result) ==
          STACKMARK_NOT_FOREIGN);
    CHECK(stackmark_goroutine_status(first) == STACKMARK_RUNNING);
    CHECK(stackmark_foreign(calls_back, &block) == 8);
    OK(stackmark_foreign_enter(&call));
    CHECK(stackmark_goroutine_status(first) == STACKMARK_IN_FOREIGN);
    stackmark_foreign_call second_call;
    CHECK(stackmark_foreign_enter(&second_call) == STACKMARK_INVALID);
    OK(stackmark_collect(collector));
    CHECK(calls_back(&block) == 8);
    stackmark_foreign_leave(&call);
    CHECK(stackmark_goroutine_status(first) == STACKMARK_RUNNING);
    CHECK(stackmark_collect(collector) == STACKMARK_INVALID);
    OK(stackmark_lib_call((uintptr_t)close, arguments, 1, &record));
    CHECK((int)record.result == -1 && record.error == EBADF);
    CHECK(record.arguments[0] == (uintptr_t)-1);
    return 1;
}

/* Called back in the middle of a foreign call: leaves all for the pad of the oldest frame. */
static uintptr_t leaves(void *first, uintptr_t second) {
    struct seen seen = {0, 0, 0, 0};
    (void)first;
    (void)second;
    OK(stackmark_frames(see, &seen));
    CHECK(stackmark_unwind_to(seen.oldest + 8, (uintptr_t)managed_entry_pad, 0, 0) ==
          STACKMARK_NO_FRAME);
    stackmark_unwind_to(seen.oldest, (uintptr_t)managed_entry_pad, 55, 0);
    abort();
}

static uintptr_t is_left(void *first, uintptr_t second) {
    stackmark_foreign_call call;
    (void)second;
    block.goroutine = first;
    block.f = leaves;
    OK(stackmark_foreign_enter(&call));
    calls_back(&block);
    abort();
}

static void publish(void *user) {
    *(stackmark_goroutine **)user = parked;
}

static uintptr_t parks(void *first, uintptr_t second) {
    static stackmark_goroutine *published;
    (void)second;
    parked = stackmark_goroutine_retain(first);
    return stackmark_park(publish, &published);
}

static void *make_ready(void *unused) {
    (void)unused;
    while (stackmark_goroutine_status(parked) != STACKMARK_PARKED)
        usleep(100);
    stackmark_frame frames[4] = {{.size = sizeof frames[0]}};
    size_t count;
    OK(stackmark_frames_of(runtime, parked, frames, 4, &count));
    CHECK(count >= 2 && frames[1].kind == STACKMARK_FRAME_MANAGED);
    OK(stackmark_ready(runtime, parked, 99, 0));
    return NULL;
}

static void on_unreachable(void *user, stackmark_handle *handle) {
    CHECK(user == &unreachable && stackmark_handle_get(handle) != 0);
    stackmark_handle_free(handle);
    unreachable++;
}

static uintptr_t allocates(void *first, uintptr_t second) {
    uintptr_t object, words[3];
    size_t count;
    (void)second;
    OK(stackmark_allocate(collector, allocator, pair, 16, &object));
    OK(stackmark_handle_new(collector, object, &kept));
    OK(stackmark_weak_new(collector, object, &weak));
    OK(stackmark_on_unreachable(collector, object, on_unreachable, &unreachable));
    OK(stackmark_allocate(collector, allocator, pair, 16, &object));
    OK(stackmark_set_transfer(runtime, first, &object, 1));
    CHECK(stackmark_take_transfer(runtime, first, words, 0, &count) == STACKMARK_INVALID);
    OK(stackmark_take_transfer(runtime, first, words, 3, &count));
    CHECK(count == 1 && words[0] == object);
    global = object;
    CHECK(stackmark_allocate(collector, allocator, 9999, 16, &object) == STACKMARK_INVALID);
    return 0;
}

static void *calls_in(void *unused) {
    uintptr_t result;
    (void)unused;
    CHECK(stackmark_current() == NULL);
    CHECK(stackmark_call_back(NULL, 0, &result) == STACKMARK_INVALID);
    OK(stackmark_call_in(runtime));
    CHECK(stackmark_current() != NULL && stackmark_current_stack_top() != 0);
    block.goroutine = stackmark_current();
    block.f = (stackmark_native *)answer;
    return NULL;
}

static void collected(void *user) {
    __atomic_store_n((int *)user, 1, __ATOMIC_RELEASE);
}

/* Waits for a collection that it has asked for. */
static void requests(void) {
    int done = 0;
    OK(stackmark_request_collection(collector, 0, collected, &done));
    while (!__atomic_load_n(&done, __ATOMIC_ACQUIRE))
        usleep(100);
}

/* Stores with a buffer, and a handle that is set to another object. */
static void stores(stackmark_machine *machine) {
    stackmark_barrier *barrier;
    stackmark_handle *handle;
    uintptr_t object, other;
    OK(stackmark_barrier_new(collector, &barrier));
    OK(stackmark_inside_enter(machine));
    OK(stackmark_allocate_now(allocator, pair, 16, &object));
    OK(stackmark_allocate_now(allocator, pair, 16, &other));
    OK(stackmark_handle_new(collector, object, &handle));
    stackmark_shade(barrier, other);
    stackmark_shade_overwritten(barrier, ((uintptr_t *)object)[0]);
    stackmark_store(barrier, other, object);
    ((uintptr_t *)object)[0] = other;
    stackmark_handle_set(handle, other);
    CHECK(stackmark_handle_get(handle) == other);
    OK(stackmark_inside_leave(machine));
    requests();
    requests();
    OK(stackmark_inside_enter(machine));
    CHECK(((uintptr_t *)other)[0] == 0); /* alive: poison would show */
    OK(stackmark_inside_leave(machine));
    stackmark_handle_free(handle);
    stackmark_barrier_free(barrier);
}

static void weak_and_handles(stackmark_machine *machine) {
    stackmark_weak_map *map;
    stackmark_handle *again;
    uintptr_t value, object;
    OK(stackmark_weak_map_new(collector, &map));
    OK(stackmark_inside_enter(machine));
    CHECK(stackmark_inside_enter(machine) == STACKMARK_INVALID);
    CHECK(stackmark_weak_get(weak) == stackmark_handle_get(kept));
    stackmark_weak_map_insert(map, stackmark_handle_get(kept), 5);
    CHECK(stackmark_weak_map_get(map, stackmark_handle_get(kept), &value) == 1 && value == 5);
    CHECK(stackmark_weak_map_get(map, 1, NULL) == 0);
    CHECK(stackmark_weak_map_remove(map, stackmark_handle_get(kept), &value) == 1 && value == 5);
    CHECK(stackmark_weak_map_remove(map, stackmark_handle_get(kept), &value) == 0);
    stackmark_weak_map_insert(map, stackmark_handle_get(kept), 6);
    OK(stackmark_allocate_now(allocator, pair, 16, &object));
    OK(stackmark_inside_leave(machine));
    CHECK(stackmark_inside_leave(machine) == STACKMARK_OUTSIDE);
    CHECK(stackmark_allocate_now(allocator, pair, 16, &object) == STACKMARK_OUTSIDE);
    again = stackmark_weak_upgrade(weak);
    CHECK(again != NULL);
    stackmark_handle_free(again);
    OK(stackmark_collect(collector));
    CHECK(stackmark_weak_map_count(map) == 1 && unreachable == 0);
    stackmark_handle_free(kept);
    OK(stackmark_collect(collector));
    OK(stackmark_collect(collector));
    CHECK(stackmark_weak_map_count(map) == 0 && unreachable == 1);
    CHECK(stackmark_weak_upgrade(weak) == NULL);
    stackmark_weak_map_free(map);
    stackmark_weak_free(weak);
}

/* Structs of other versions, and arguments that are refused. */
static void refused(void) {
    struct {
        stackmark_config now;
        size_t later;
    } newer;
    stackmark_runtime *other = NULL;
    memset(&newer, 0, sizeof newer);
    newer.now.size = sizeof newer;
    OK(stackmark_runtime_new(&newer.now, NULL, &other));
    stackmark_runtime_release(other);
    newer.later = 1;
    CHECK(stackmark_runtime_new(&newer.now, NULL, &other) == STACKMARK_INVALID);
    newer.now.size = 2 * sizeof(size_t); /* an older version, without the rest */
    newer.now.barriers = 77;
    OK(stackmark_runtime_new(&newer.now, NULL, &other));
    stackmark_runtime_release(other);
    newer.now.size = 3;
    CHECK(stackmark_runtime_new(&newer.now, NULL, &other) == STACKMARK_INVALID);
    CHECK(strstr(stackmark_error_text(), "size") != NULL);
    newer.now.size = sizeof newer.now;
    CHECK(stackmark_runtime_new(&newer.now, NULL, &other) == STACKMARK_INVALID);
    CHECK(stackmark_runtime_new(NULL, NULL, NULL) == STACKMARK_INVALID);
    CHECK(strcmp(stackmark_error_name(STACKMARK_HEAP_FULL), stackmark_error_name(0)) != 0);
    stackmark_region region = {.size = sizeof region, .start = 16, .length = 0};
    uint64_t number;
    CHECK(stackmark_register(runtime, &region, &number) == STACKMARK_BAD_CODE);
    CHECK(stackmark_unregister(runtime, 123456) == STACKMARK_INVALID);
    stackmark_image *image;
    CHECK(stackmark_register_image(runtime, 16, &image) == STACKMARK_BAD_CODE);
    CHECK(stackmark_unregister_image(runtime, NULL) == STACKMARK_INVALID);
    CHECK(stackmark_spawn(runtime, 9, 1, 0, NULL) == STACKMARK_INVALID);
}

int main(void) {
    stackmark_host host = {
        .size = sizeof host,
        .user = &destroyed,
        .goroutine_exited = goroutine_exited,
        .machine_attached = on_attached,
        .machine_detached = on_detached,
        .destroyed = on_destroyed,
    };
    stackmark_config config = {.size = sizeof config, .move_every_poll = 1, .poison = 1};
    stackmark_collector_config collecting = {.size = sizeof collecting, .verify = 1};
    stackmark_statistics statistics = {.size = sizeof statistics};
    const uint32_t references[] = {0, 1};
    stackmark_machine *machine, *second;
    stackmark_scheduler *scheduler;
    pthread_t thread;
    size_t cell, offset;

    OK(stackmark_runtime_new(&config, &host, &runtime));
    stackmark_heap_options options = {.size = sizeof options, .poison = 1};
    OK(stackmark_heap_new(&options, &heap));
    OK(stackmark_collector_start(runtime, heap, &collecting, &collector));
    stackmark_collector *none;
    CHECK(stackmark_collector_start(runtime, heap, NULL, &none) == STACKMARK_IN_USE);
    OK(stackmark_descriptor(heap, 2, references, 2, &pair));
    OK(stackmark_slot_offset(pair, 16, &cell, &offset));
    CHECK(cell == 16 && offset % 8 == 0);
    CHECK(stackmark_slot_offset(pair, 1 << 30, &cell, &offset) == STACKMARK_INVALID);
    OK(stackmark_allocator_new(heap, &allocator));
    CHECK(stackmark_allocator_slots(allocator) != 0 && stackmark_barrier_flag(collector) != 0);
    OK(stackmark_add_globals(collector, (uintptr_t)&global, (uintptr_t)(&global + 1)));
    uint64_t region = register_managed(runtime);
    refused();

    OK(stackmark_attach(runtime, &machine));
    CHECK(stackmark_attach(runtime, &second) == STACKMARK_ATTACHED);
    run_native(runtime, machine, answer);
    CHECK(last_result == 42);
    run_native(runtime, machine, yields);
    CHECK(last_result == 43);
    run_native(runtime, machine, foreign_and_back);
    CHECK(last_result == 1);
    run_native(runtime, machine, is_left);
    CHECK(last_result == 55);
    run_native(runtime, machine, allocates);
    weak_and_handles(machine);
    stores(machine);
    CHECK(((uintptr_t *)global)[0] == 0);
    OK(stackmark_detach(machine));
    CHECK(attached == 1 && detached == 1);

    OK(stackmark_scheduler_new(runtime, 2, NULL, NULL, &scheduler));
    OK(stackmark_scheduler_start(scheduler));
    stackmark_await_wakeup(scheduler);
    stackmark_goroutine *waits;
    OK(stackmark_spawn(runtime, STACKMARK_STACK_FIXED, (uintptr_t)managed_entry, (uintptr_t)parks,
                       &waits));
    OK(stackmark_schedule(runtime, waits));
    while (parked == NULL)
        usleep(100);
    CHECK(pthread_create(&thread, NULL, make_ready, NULL) == 0 && pthread_join(thread, NULL) == 0);
    while (stackmark_live_goroutines(runtime) > 0)
        usleep(100);
    CHECK(last_result == 99);
    stackmark_wakeup_done(scheduler);
    stackmark_scheduler_stop(scheduler);
    stackmark_scheduler_free(scheduler);

    CHECK(pthread_create(&thread, NULL, calls_in, NULL) == 0 && pthread_join(thread, NULL) == 0);
    OK(stackmark_get_statistics(collector, &statistics));
    CHECK(statistics.size == sizeof statistics && statistics.cycles >= 4);
    CHECK(statistics.heap_objects_swept >= 1 && statistics.goroutines_started >= 6);
    stackmark_statistics older = {.size = 2 * sizeof(size_t), .minor_cycles = 77};
    OK(stackmark_get_statistics(collector, &older));
    CHECK(older.cycles == statistics.cycles && older.minor_cycles == 77);

    OK(stackmark_unregister(runtime, region));
    stackmark_allocator_free(allocator);
    stackmark_collector_stop(collector);
    stackmark_heap_release(heap);
    stackmark_runtime_release(runtime);
    CHECK(destroyed == 1);
    puts("calls: all checks hold");
    return 0;
}
