/* Misuse of the interface, in a table. Each one gives a code and changes nothing, or ends the
   process with one line and status 2. Nothing unwinds into C, and nothing crashes. */
#define _GNU_SOURCE
#include "managed.h"
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static stackmark_runtime *runtime, *other_runtime;
static stackmark_heap *heap;
static stackmark_collector *collector;
static stackmark_allocator *allocator;
static stackmark_machine *machine;
static uint64_t region;
static uint32_t pair;

/* What a goroutine does when its entry has returned. */
static void (*at_the_end)(void);

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t result) {
    (void)user;
    (void)goroutine;
    (void)result;
    if (at_the_end != NULL)
        at_the_end();
}

static void set_up(void) {
    stackmark_host host = {.size = sizeof host, .goroutine_exited = goroutine_exited};
    stackmark_collector_config config = {.size = sizeof config, .workers = 1};
    static const uint32_t references[] = {0, 1};
    OK(stackmark_runtime_new(NULL, &host, &runtime));
    OK(stackmark_runtime_new(NULL, NULL, &other_runtime));
    OK(stackmark_heap_new(NULL, &heap));
    OK(stackmark_collector_start(runtime, heap, &config, &collector));
    OK(stackmark_allocator_new(heap, &allocator));
    OK(stackmark_descriptor(heap, 2, references, 2, &pair));
    region = register_managed(runtime);
    OK(stackmark_attach(runtime, &machine));
}

static stackmark_goroutine *spawned(stackmark_native *f) {
    stackmark_goroutine *goroutine;
    OK(stackmark_spawn(runtime, STACKMARK_STACK_MOVING, (uintptr_t)managed_entry, (uintptr_t)f,
                       &goroutine));
    return goroutine;
}

static void native(stackmark_native *f) {
    run_native(runtime, machine, f);
}

/* ------------------------------------------------------------- Misuse that ends the process --- */

static uintptr_t nothing(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    return 0;
}

static uintptr_t parks(void *user) {
    (void)user;
    return stackmark_park(NULL, NULL);
}

static uintptr_t parks_in_foreign(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    return stackmark_foreign(parks, NULL);
}

static void park_in_foreign(void) {
    native(parks_in_foreign);
}

static void park_nowhere(void) {
    stackmark_park(NULL, NULL);
}

static void yield_nowhere(void) {
    stackmark_yield(0);
}

static void parks_at_the_end(void) {
    stackmark_park(NULL, NULL);
}

static void park_after_the_end(void) {
    at_the_end = parks_at_the_end;
    native(nothing);
}

static void yields_at_the_end(void) {
    stackmark_yield(0);
}

static void yield_after_the_end(void) {
    at_the_end = yields_at_the_end;
    native(nothing);
}

static uintptr_t no_function(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    return stackmark_foreign(NULL, NULL);
}

static void foreign_of_nothing(void) {
    native(no_function);
}

static uintptr_t leaves_twice(void *first, uintptr_t second) {
    stackmark_foreign_call call;
    (void)first;
    (void)second;
    OK(stackmark_foreign_enter(&call));
    stackmark_foreign_leave(&call);
    stackmark_foreign_leave(&call);
    return 0;
}

static void left_twice(void) {
    native(leaves_twice);
}

static uintptr_t leaves_another(void *first, uintptr_t second) {
    stackmark_foreign_call call, unset;
    (void)first;
    (void)second;
    memset(&unset, 0x5a, sizeof unset);
    OK(stackmark_foreign_enter(&call));
    stackmark_foreign_leave(&unset);
    return 0;
}

static void left_unentered(void) {
    native(leaves_another);
}

static void *leaves_elsewhere(void *call) {
    stackmark_foreign_leave(call);
    return NULL;
}

static uintptr_t leaves_on_another_thread(void *first, uintptr_t second) {
    stackmark_foreign_call call;
    pthread_t thread;
    (void)first;
    (void)second;
    OK(stackmark_foreign_enter(&call));
    CHECK(pthread_create(&thread, NULL, leaves_elsewhere, &call) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return 0;
}

static void left_on_another_thread(void) {
    native(leaves_on_another_thread);
}

static void ready_of_runnable(void) {
    stackmark_ready(runtime, spawned(nothing), 0, 0);
}

static void ready_in_another_runtime(void) {
    stackmark_ready(other_runtime, spawned(nothing), 0, 0);
}

static void scheduled_in_another_runtime(void) {
    stackmark_schedule(other_runtime, spawned(nothing));
}

static void told_in_another_runtime(void) {
    size_t length;
    stackmark_traceback_of(other_runtime, spawned(nothing), NULL, 0, &length);
}

static void scheduled_without_a_scheduler(void) {
    stackmark_schedule(runtime, spawned(nothing));
}

static void ready(void *user, stackmark_goroutine *goroutine) {
    (void)user;
    stackmark_goroutine_release(goroutine);
}

static void two_schedulers(void) {
    OK(stackmark_set_scheduler(runtime, ready, NULL));
    stackmark_set_scheduler(runtime, ready, NULL);
}

static void scheduler_freed_while_it_runs(void) {
    stackmark_scheduler *scheduler;
    OK(stackmark_scheduler_new(runtime, 1, NULL, NULL, &scheduler));
    OK(stackmark_scheduler_start(scheduler));
    stackmark_scheduler_free(scheduler);
}

static stackmark_scheduler *the_scheduler;

static uintptr_t stops_scheduler(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    stackmark_scheduler_stop(the_scheduler);
    return 0;
}

static void scheduler_stopped_by_a_goroutine(void) {
    OK(stackmark_scheduler_new(runtime, 1, NULL, NULL, &the_scheduler));
    native(stops_scheduler);
}

static void goroutine_released_too_often(void) {
    stackmark_goroutine *goroutine = spawned(nothing), *again;
    int left;
    stackmark_goroutine_retain(goroutine);
    OK(stackmark_run(machine, goroutine, &again, &left));
    stackmark_goroutine_release(goroutine);
    stackmark_goroutine_release(goroutine);
}

static void runtime_released_twice(void) {
    stackmark_runtime_release(other_runtime);
    stackmark_runtime_release(other_runtime);
}

static void heap_released_twice(void) {
    stackmark_heap_release(heap);
    stackmark_heap_release(heap);
}

static void allocator_freed_twice(void) {
    stackmark_allocator_free(allocator);
    stackmark_allocator_free(allocator);
}

static void collector_stopped_twice(void) {
    stackmark_collector_stop(collector);
    stackmark_collector_stop(collector);
}

static void handle_freed_twice(void) {
    stackmark_handle *handle, *more[100];
    OK(stackmark_handle_new(collector, 0, &handle));
    stackmark_handle_free(handle);
    for (int i = 0; i < 100; i++)
        OK(stackmark_handle_new(collector, 0, &more[i])); /* its memory is not used again at once */
    stackmark_handle_free(handle);
}

static void weak_freed_as_a_handle(void) {
    stackmark_weak *weak;
    OK(stackmark_weak_new(collector, 0, &weak));
    stackmark_handle_free((stackmark_handle *)weak);
}

static void handle_used_after_free(void) {
    stackmark_handle *handle;
    OK(stackmark_handle_new(collector, 0, &handle));
    stackmark_handle_free(handle);
    stackmark_handle_get(handle);
}

static void map_freed_twice(void) {
    stackmark_weak_map *map;
    OK(stackmark_weak_map_new(collector, &map));
    stackmark_weak_map_free(map);
    stackmark_weak_map_free(map);
}

static void insert_without_a_map(void) {
    OK(stackmark_inside_enter(machine));
    stackmark_weak_map_insert(NULL, 1, 2);
}

static void store_without_a_barrier(void) {
    stackmark_store(NULL, 0, 0);
}

static void store_after_free(void) {
    stackmark_barrier *barrier;
    OK(stackmark_barrier_new(collector, &barrier));
    stackmark_barrier_free(barrier);
    stackmark_store(barrier, 0, 0);
}

static void store_outside(void) {
    stackmark_barrier *barrier;
    OK(stackmark_barrier_new(collector, &barrier));
    stackmark_store(barrier, 0, 0);
}

static void weak_word_outside(void) {
    stackmark_weak *weak;
    OK(stackmark_weak_new(collector, 0, &weak));
    stackmark_weak_get(weak);
}

static void map_searched_outside(void) {
    stackmark_weak_map *map;
    OK(stackmark_weak_map_new(collector, &map));
    stackmark_weak_map_get(map, 0, NULL);
}

static void run_inside(void) {
    stackmark_goroutine *again;
    int left;
    OK(stackmark_inside_enter(machine));
    stackmark_run(machine, spawned(nothing), &again, &left);
}

static void run_after_its_end(void) {
    stackmark_goroutine *goroutine = stackmark_goroutine_retain(spawned(nothing)), *again;
    int left;
    OK(stackmark_run(machine, goroutine, &again, &left));
    stackmark_run(machine, goroutine, &again, &left);
}

static uintptr_t enters_only(void *first, uintptr_t second) {
    static stackmark_foreign_call call;
    (void)first;
    (void)second;
    OK(stackmark_foreign_enter(&call));
    return 0;
}

static void returned_in_a_foreign_call(void) {
    native(enters_only);
}

static void collects_again(void *user) {
    stackmark_collect(user);
}

static void collection_by_the_collector(void) {
    OK(stackmark_request_collection(collector, 0, collects_again, collector));
    OK(stackmark_collect(collector));
    OK(stackmark_collect(collector));
}

static void unaligned_handle(void) {
    stackmark_handle *handle;
    OK(stackmark_handle_new(collector, 0, &handle));
    stackmark_handle_free((stackmark_handle *)((char *)handle + 1));
}

/* What the line says. */
static const struct { const char *name, *says; void (*misuse)(void); } ends[] = {
    {"foreign call not left", "without leaving the foreign call", returned_in_a_foreign_call},
    {"store outside", "stackmark_store: this thread does not count", store_outside},
    {"weak word outside", "stackmark_weak_get: this thread does not", weak_word_outside},
    {"map searched outside", "stackmark_weak_map_get: this thread", map_searched_outside},
    {"run inside", "no goroutine is run from within", run_inside},
    {"run after its end", "a goroutine is started twice", run_after_its_end},
    {"collect in a callback", "waits for no collection", collection_by_the_collector},
    {"park in a foreign call", "a foreign call is under way on this goroutine", park_in_foreign},
    {"park nowhere", "stackmark_park: this thread runs no goroutine", park_nowhere},
    {"yield nowhere", "stackmark_yield: this thread runs no goroutine", yield_nowhere},
    {"park at the end", "it neither parks nor yields any more", park_after_the_end},
    {"yield at the end", "it neither parks nor yields any more", yield_after_the_end},
    {"foreign call of nothing", "stackmark_foreign: f is NULL", foreign_of_nothing},
    {"foreign call left twice", "has entered no such call, or has left it", left_twice},
    {"foreign call not entered", "has entered no such call, or has left it", left_unentered},
    {"left on another thread", "stackmark_foreign_leave: this thread runs", left_on_another_thread},
    {"ready of a runnable one", "only a parked goroutine is made ready", ready_of_runnable},
    {"ready elsewhere", "belongs to another runtime", ready_in_another_runtime},
    {"schedule elsewhere", "belongs to another runtime", scheduled_in_another_runtime},
    {"traceback elsewhere", "belongs to another runtime", told_in_another_runtime},
    {"no scheduler", "has a scheduler", scheduled_without_a_scheduler},
    {"two schedulers", "a runtime has one scheduler", two_schedulers},
    {"scheduler freed", "the scheduler runs", scheduler_freed_while_it_runs},
    {"scheduler stopped inside", "counts as running", scheduler_stopped_by_a_goroutine},
    {"goroutine released", "owned references were given back", goroutine_released_too_often},
    {"runtime released twice", "runtime is no stackmark_runtime", runtime_released_twice},
    {"heap released twice", "heap is no stackmark_heap", heap_released_twice},
    {"allocator freed twice", "allocator is no stackmark_allocator", allocator_freed_twice},
    {"collector stopped twice", "collector is no stackmark_collector", collector_stopped_twice},
    {"handle freed twice", "handle is no stackmark_handle: it was given back", handle_freed_twice},
    {"weak as a handle", "handle is no stackmark_handle", weak_freed_as_a_handle},
    {"handle after free", "stackmark_handle_get: handle is no", handle_used_after_free},
    {"handle unaligned", "stackmark_handle_free: handle is no", unaligned_handle},
    {"map freed twice", "map is no stackmark_weak_map", map_freed_twice},
    {"insert without a map", "stackmark_weak_map_insert: map is NULL", insert_without_a_map},
    {"store without a barrier", "stackmark_store: barrier is NULL", store_without_a_barrier},
    {"store after free", "stackmark_store: barrier is no", store_after_free},
};

/* ----------------------------------------------------------------------- Misuse with a code --- */

static int null_runtime(void) {
    stackmark_goroutine *goroutine;
    return stackmark_spawn(NULL, 0, (uintptr_t)managed_entry, 0, &goroutine);
}

static int null_out(void) {
    return stackmark_attach(runtime, NULL);
}

static int unaligned_out(void) {
    static uintptr_t places[2];
    return stackmark_spawn(runtime, 0, (uintptr_t)managed_entry, 0,
                           (stackmark_goroutine **)((uintptr_t)places + 1));
}

static int unaligned_goroutine(void) {
    stackmark_goroutine *goroutine = spawned(nothing);
    return stackmark_ready(runtime, (stackmark_goroutine *)((uintptr_t)goroutine + 4), 0, 0);
}

static int released_runtime(void) {
    stackmark_machine *another;
    stackmark_runtime_release(other_runtime);
    int code = stackmark_attach(other_runtime, &another);
    OK(stackmark_runtime_new(NULL, NULL, &other_runtime));
    return code;
}

static int heap_as_runtime(void) {
    return stackmark_call_in((stackmark_runtime *)heap);
}

static int config_of_size(size_t size) {
    stackmark_config config = {.size = size};
    stackmark_runtime *another;
    return stackmark_runtime_new(&config, NULL, &another);
}

static int size_zero(void) {
    return config_of_size(0);
}

static int size_huge(void) {
    return config_of_size(SIZE_MAX - 7);
}

static int size_odd(void) {
    return config_of_size(sizeof(stackmark_config) - 1);
}

static int unaligned_struct(void) {
    static char bytes[sizeof(stackmark_config) + 8];
    stackmark_runtime *another;
    return stackmark_runtime_new((stackmark_config *)(uintptr_t)(bytes + 1), NULL, &another);
}

static int configured(stackmark_config config) {
    stackmark_runtime *another;
    config.size = sizeof config;
    return stackmark_runtime_new(&config, NULL, &another);
}

static int tiny_stacks(void) {
    return configured((stackmark_config){.max_stack = 1});
}

static int huge_stacks(void) {
    return configured((stackmark_config){.max_stack = SIZE_MAX});
}

static int tiny_frames(void) {
    return configured((stackmark_config){.max_frame = 255});
}

static int huge_frames(void) {
    return configured((stackmark_config){.max_frame = UINT32_MAX});
}

static int unknown_stack(void) {
    stackmark_goroutine *goroutine;
    return stackmark_spawn(runtime, 9, (uintptr_t)managed_entry, 0, &goroutine);
}

static int no_entry(void) {
    stackmark_goroutine *goroutine;
    return stackmark_spawn(runtime, 0, 0, 0, &goroutine);
}

static int entry_in_c(void) {
    stackmark_goroutine *goroutine;
    return stackmark_spawn(runtime, 0, (uintptr_t)nothing, 0, &goroutine);
}

static int entry_of_another_runtime(void) {
    stackmark_goroutine *goroutine;
    return stackmark_spawn(other_runtime, 0, (uintptr_t)managed_entry, 0, &goroutine);
}

static int attached_twice(void) {
    stackmark_machine *another;
    return stackmark_attach(runtime, &another);
}

static int attached_elsewhere(void) {
    stackmark_machine *another;
    return stackmark_attach(other_runtime, &another);
}

static int code_of_thread;

static void *on_another_thread(void *of_machine) {
    code_of_thread = stackmark_detach(of_machine);
    return NULL;
}

static int another_threads_machine(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, on_another_thread, machine) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return code_of_thread;
}

static void *detaches_twice(void *unused) {
    stackmark_machine *own;
    (void)unused;
    OK(stackmark_attach(runtime, &own));
    OK(stackmark_detach(own));
    code_of_thread = stackmark_detach(own);
    return NULL;
}

static int detached_twice(void) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, detaches_twice, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    return code_of_thread;
}

static int code_in_native;

static uintptr_t detaches(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    code_in_native = stackmark_detach(machine);
    return 0;
}

static int detached_by_a_goroutine(void) {
    native(detaches);
    return code_in_native;
}

static uintptr_t collects(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    code_in_native = stackmark_collect(collector);
    return 0;
}

static int collected_while_running(void) {
    native(collects);
    return code_in_native;
}

static uintptr_t unregisters(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    code_in_native = stackmark_unregister(runtime, region);
    return 0;
}

static int forgotten_while_running(void) {
    native(unregisters);
    return code_in_native;
}

static uintptr_t runs_another(void *first, uintptr_t second) {
    stackmark_goroutine *goroutine = spawned(nothing), *again;
    int left;
    (void)first;
    (void)second;
    code_in_native = stackmark_run(machine, goroutine, &again, &left);
    return (uintptr_t)goroutine;
}

static int run_within_a_run(void) {
    native(runs_another);
    return code_in_native;
}

static uintptr_t unwinds(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    code_in_native = stackmark_unwind_to(12345, (uintptr_t)managed_entry_pad, 0, 0);
    return 0;
}

static int unwound_to_no_frame(void) {
    native(unwinds);
    return code_in_native;
}

static int no_frames(void) {
    return stackmark_frames(NULL, NULL);
}

static int frames_of_size_zero(void) {
    stackmark_frame frames[2] = {{0, 0, 0, 0, 0, 0}, {0, 0, 0, 0, 0, 0}};
    stackmark_goroutine *goroutine = spawned(nothing);
    size_t count;
    return stackmark_frames_of(runtime, goroutine, frames, 2, &count);
}

static int frames_beyond_memory(void) {
    stackmark_frame frame = {.size = sizeof frame};
    stackmark_goroutine *goroutine = spawned(nothing);
    size_t count;
    return stackmark_frames_of(runtime, goroutine, &frame, SIZE_MAX, &count);
}

static uintptr_t calls_c_back(void *user) {
    uintptr_t result;
    (void)user;
    code_in_native = stackmark_call_back((stackmark_managed *)(uintptr_t)calls_c_back, 0, &result);
    return 0;
}

static uintptr_t calls_out(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    return stackmark_foreign(calls_c_back, NULL);
}

static int called_back_into_c(void) {
    native(calls_out);
    return code_in_native;
}

static uintptr_t lands_in_c(void *first, uintptr_t second) {
    (void)first;
    (void)second;
    code_in_native = stackmark_unwind_to(0, (uintptr_t)nothing, 0, 0);
    return 0;
}

static int unwound_into_c(void) {
    native(lands_in_c);
    return code_in_native;
}

static uintptr_t notes_backwards(void *first, uintptr_t second) {
    uintptr_t top = stackmark_current_stack_top();
    (void)first;
    (void)second;
    code_in_native = stackmark_note_stack_write(top - 8, top - 16);
    return 0;
}

static int write_noted_backwards(void) {
    native(notes_backwards);
    return code_in_native;
}

static int called_back_outside(void) {
    uintptr_t result;
    return stackmark_call_back((stackmark_managed *)(uintptr_t)managed_back, 0, &result);
}

static int left_inside_twice(void) {
    OK(stackmark_inside_enter(machine));
    OK(stackmark_inside_leave(machine));
    return stackmark_inside_leave(machine);
}

static int scheduler_of(size_t threads) {
    stackmark_scheduler *scheduler;
    return stackmark_scheduler_new(runtime, threads, NULL, NULL, &scheduler);
}

static int no_threads(void) {
    return scheduler_of(0);
}

static int too_many_threads(void) {
    return scheduler_of(SIZE_MAX);
}

static int started_twice(void) {
    stackmark_scheduler *scheduler;
    OK(stackmark_scheduler_new(other_runtime, 1, NULL, NULL, &scheduler));
    OK(stackmark_scheduler_start(scheduler));
    int code = stackmark_scheduler_start(scheduler);
    stackmark_scheduler_stop(scheduler);
    stackmark_scheduler_free(scheduler);
    return code;
}

static int collector_twice(void) {
    stackmark_collector *another;
    return stackmark_collector_start(runtime, heap, NULL, &another);
}

static int heap_of_another_collector(void) {
    stackmark_collector *another;
    return stackmark_collector_start(other_runtime, heap, NULL, &another);
}

static int too_many_workers(void) {
    stackmark_collector_config config = {.size = sizeof config, .workers = SIZE_MAX};
    stackmark_collector *another;
    stackmark_heap *heap_of_it;
    OK(stackmark_heap_new(NULL, &heap_of_it));
    int code = stackmark_collector_start(other_runtime, heap_of_it, &config, &another);
    stackmark_heap_release(heap_of_it);
    return code;
}

static int heap_without_functions(void) {
    stackmark_heap_functions functions = {.size = sizeof functions};
    stackmark_collector *another;
    return stackmark_collector_start_on(other_runtime, &functions, NULL, &another);
}

static int heap_beyond_memory(void) {
    stackmark_heap_options options = {.size = sizeof options, .limit = SIZE_MAX};
    stackmark_heap *another;
    return stackmark_heap_new(&options, &another);
}

static int reference_outside_its_pattern(void) {
    static const uint32_t references[] = {2};
    uint32_t number;
    return stackmark_descriptor(heap, 2, references, 1, &number);
}

static int pattern_beyond_memory(void) {
    uint32_t number;
    return stackmark_descriptor(heap, SIZE_MAX, NULL, 0, &number);
}

static int references_beyond_memory(void) {
    static const uint32_t references[] = {0};
    uint32_t number;
    return stackmark_descriptor(heap, 2, references, SIZE_MAX, &number);
}

static int allocated(uint32_t descriptor, size_t bytes) {
    uintptr_t object;
    OK(stackmark_inside_enter(machine));
    int code = stackmark_allocate_now(allocator, descriptor, bytes, &object);
    OK(stackmark_inside_leave(machine));
    return code;
}

static int object_beyond_memory(void) {
    return allocated(pair, SIZE_MAX);
}

static int object_without_descriptor(void) {
    return allocated(UINT32_MAX, 16);
}

static int allocated_outside(void) {
    uintptr_t object;
    return stackmark_allocate_now(allocator, pair, 16, &object);
}

static int slot_beyond_memory(void) {
    size_t cell, offset;
    return stackmark_slot_offset(pair, SIZE_MAX, &cell, &offset);
}

static int globals_backwards(void) {
    static uintptr_t words[2];
    return stackmark_add_globals(collector, (uintptr_t)(words + 1), (uintptr_t)words);
}

static int null_callback(void) {
    return stackmark_on_unreachable(collector, 0, NULL, NULL);
}

static int transfer_without_words(void) {
    return stackmark_set_transfer(runtime, spawned(nothing), NULL, 3);
}

static int transfer_beyond_memory(void) {
    static const uintptr_t words[1] = {0};
    return stackmark_set_transfer(runtime, spawned(nothing), words, SIZE_MAX);
}

static int goroutine_passed_on_twice(void) {
    stackmark_goroutine *goroutine = spawned(nothing), *again;
    int left;
    stackmark_goroutine_release(goroutine);
    return stackmark_run(machine, goroutine, &again, &left);
}

static int ended_goroutine_scheduled(void) {
    stackmark_goroutine *goroutine = stackmark_goroutine_retain(spawned(nothing)), *again;
    int left;
    OK(stackmark_run(machine, goroutine, &again, &left));
    return stackmark_schedule(runtime, goroutine);
}

static int region_with(void (*change)(stackmark_region *region, stackmark_function *functions)) {
    stackmark_function functions[2];
    stackmark_region new_region;
    uint64_t number;
    memset(functions, 0, sizeof functions);
    memset(&new_region, 0, sizeof new_region);
    functions[0].size = functions[1].size = sizeof functions[0];
    functions[0].start = 0x10000;
    functions[1].start = 0x10010;
    functions[0].length = functions[1].length = 16;
    new_region.size = sizeof new_region;
    new_region.start = 0x10000;
    new_region.length = 32;
    new_region.functions = functions;
    new_region.function_count = 2;
    change(&new_region, functions);
    return stackmark_register(other_runtime, &new_region, &number);
}

static void more_functions(stackmark_region *to, stackmark_function *functions) {
    (void)functions;
    to->function_count = SIZE_MAX;
}

static void another_size(stackmark_region *to, stackmark_function *functions) {
    (void)to;
    functions[1].size = 0;
}

static void no_safepoints(stackmark_region *to, stackmark_function *functions) {
    (void)functions;
    to->safepoint_count = 1;
}

static void broken_maps(stackmark_region *to, stackmark_function *functions) {
    static const uint8_t maps[16] = {3, 0, 0, 0, 255, 255, 255, 255};
    (void)functions;
    to->llvm_stackmaps = maps;
    to->llvm_stackmaps_length = sizeof maps;
}

static void wraps_around(stackmark_region *to, stackmark_function *functions) {
    (void)functions;
    to->length = SIZE_MAX;
}

static int functions_beyond_memory(void) {
    return region_with(more_functions);
}

static int functions_of_different_sizes(void) {
    return region_with(another_size);
}

static int safepoints_missing(void) {
    return region_with(no_safepoints);
}

static int stackmaps_broken(void) {
    return region_with(broken_maps);
}

static int region_beyond_memory(void) {
    return region_with(wraps_around);
}

static int registered_twice(void) {
    stackmark_region again = {.size = sizeof again,
                              .start = (uintptr_t)managed_start,
                              .length = (size_t)(managed_end - managed_start)};
    uint64_t number;
    return stackmark_register(runtime, &again, &number);
}

static int another_runtimes_region(void) {
    return stackmark_unregister(other_runtime, region);
}

static int region_given_twice(void) {
    const uint64_t twice[] = {region, region};
    return stackmark_unregister_all(runtime, twice, 2);
}

static int unknown_region(void) {
    return stackmark_unregister(runtime, UINT64_MAX);
}

static int image_of_nothing(void) {
    stackmark_image *image;
    return stackmark_register_image(runtime, 0, &image);
}

static int lib_call_of_too_many(void) {
    stackmark_lib_call_record record = {.size = sizeof record};
    return stackmark_lib_call((uintptr_t)abort, NULL, 7, &record);
}

static int lib_call_nowhere(void) {
    stackmark_lib_call_record record = {.size = sizeof record};
    return stackmark_lib_call((uintptr_t)abort, NULL, 0, &record);
}

static const struct { const char *name; int code; int (*misuse)(void); } codes[] = {
#define CODE(name, code) {#name, STACKMARK_##code, name}
    CODE(region_given_twice, BAD_CODE), /* before there are goroutines */
    CODE(null_runtime, INVALID),
    CODE(null_out, INVALID),
    CODE(unaligned_out, INVALID),
    CODE(unaligned_goroutine, INVALID),
    CODE(released_runtime, INVALID),
    CODE(heap_as_runtime, INVALID),
    CODE(size_zero, INVALID),
    CODE(size_huge, INVALID),
    CODE(size_odd, INVALID),
    CODE(unaligned_struct, INVALID),
    CODE(tiny_stacks, INVALID),
    CODE(huge_stacks, INVALID),
    CODE(tiny_frames, INVALID),
    CODE(huge_frames, INVALID),
    CODE(unknown_stack, INVALID),
    CODE(no_entry, INVALID),
    CODE(entry_in_c, INVALID),
    CODE(entry_of_another_runtime, INVALID),
    CODE(called_back_into_c, INVALID),
    CODE(unwound_into_c, INVALID),
    CODE(write_noted_backwards, INVALID),
    CODE(attached_twice, ATTACHED),
    CODE(attached_elsewhere, ATTACHED),
    CODE(another_threads_machine, INVALID),
    CODE(detached_twice, INVALID),
    CODE(detached_by_a_goroutine, INVALID),
    CODE(collected_while_running, INVALID),
    CODE(forgotten_while_running, INVALID),
    CODE(run_within_a_run, INVALID),
    CODE(unwound_to_no_frame, NO_FRAME),
    CODE(no_frames, INVALID),
    CODE(frames_of_size_zero, INVALID),
    CODE(frames_beyond_memory, INVALID),
    CODE(called_back_outside, NOT_ATTACHED),
    CODE(left_inside_twice, OUTSIDE),
    CODE(no_threads, INVALID),
    CODE(too_many_threads, INVALID),
    CODE(started_twice, INVALID),
    CODE(collector_twice, IN_USE),
    CODE(heap_of_another_collector, IN_USE),
    CODE(too_many_workers, INVALID),
    CODE(heap_without_functions, INVALID),
    CODE(heap_beyond_memory, INVALID),
    CODE(reference_outside_its_pattern, INVALID),
    CODE(pattern_beyond_memory, INVALID),
    CODE(references_beyond_memory, INVALID),
    CODE(object_beyond_memory, HEAP_FULL),
    CODE(object_without_descriptor, INVALID),
    CODE(allocated_outside, OUTSIDE),
    CODE(slot_beyond_memory, INVALID),
    CODE(globals_backwards, INVALID),
    CODE(null_callback, INVALID),
    CODE(transfer_without_words, INVALID),
    CODE(transfer_beyond_memory, INVALID),
    CODE(ended_goroutine_scheduled, INVALID),
    CODE(goroutine_passed_on_twice, INVALID),
    CODE(functions_beyond_memory, INVALID),
    CODE(functions_of_different_sizes, INVALID),
    CODE(safepoints_missing, INVALID),
    CODE(stackmaps_broken, BAD_CODE),
    CODE(region_beyond_memory, BAD_CODE),
    CODE(registered_twice, BAD_CODE),
    CODE(another_runtimes_region, INVALID),
    CODE(unknown_region, INVALID),
    CODE(image_of_nothing, BAD_CODE),
    CODE(lib_call_of_too_many, INVALID),
    CODE(lib_call_nowhere, NOT_ATTACHED),
};

/* ------------------------------------------------------------------ Misuse in a fork's child --- */

static stackmark_goroutine *before_the_fork;

static void child_stops_scheduler(void) {
    stackmark_scheduler_stop(the_scheduler);
}

static void child_stops_collector(void) {
    stackmark_collector_stop(collector);
}

static void child_collects(void) {
    stackmark_collect(collector);
}

static void child_requests(void) {
    stackmark_request_collection(collector, 0, NULL, NULL);
}

static void child_schedules(void) {
    stackmark_schedule(runtime, before_the_fork);
}

static void child_spawns(void) {
    spawned(nothing);
}

static void child_runs(void) {
    stackmark_goroutine *again;
    int left;
    stackmark_run(machine, before_the_fork, &again, &left);
}

static void child_forgets(void) {
    stackmark_unregister(runtime, region);
}

static void child_enters(void) {
    stackmark_inside_enter(machine);
    stackmark_allocate_now(allocator, pair, 16, &(uintptr_t){0});
}

static void child_calls_in(void) {
    stackmark_call_in(runtime);
}

static void (*const in_child[])(void) = {
    child_stops_scheduler, child_stops_collector, child_collects, child_requests, child_schedules,
    child_spawns,          child_runs,            child_forgets,  child_enters,   child_calls_in,
};

/* Each ends its child with one line. A child that hangs is killed. */
static void fork_children(void) {
    OK(stackmark_scheduler_new(runtime, 1, NULL, NULL, &the_scheduler));
    OK(stackmark_scheduler_start(the_scheduler));
    before_the_fork = spawned(nothing);
    for (size_t i = 0; i < sizeof in_child / sizeof in_child[0]; i++) {
        int ends_of_pipe[2], status;
        char text[500] = "";
        CHECK(pipe(ends_of_pipe) == 0);
        pid_t child = fork();
        if (child == 0) {
            dup2(ends_of_pipe[1], STDERR_FILENO);
            alarm(60);
            in_child[i]();
            _exit(0);
        }
        close(ends_of_pipe[1]);
        CHECK(read(ends_of_pipe[0], text, sizeof text - 1) >= 0);
        close(ends_of_pipe[0]);
        CHECK(waitpid(child, &status, 0) == child);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 2 ||
            strstr(text, "the child of a fork has called into the runtime") == NULL) {
            fprintf(stderr, "number %zu: status %x: %s\n", i, (unsigned)status, text);
            exit(1);
        }
    }
    puts("all children end");
}

/* ------------------------------------------------------------------------------------- Main --- */

static uintptr_t overflows(void *first, uintptr_t second) {
    volatile char room[4096];
    room[0] = (char)second;
    return second == UINTPTR_MAX ? 0 : overflows(first, second + 1) + (uintptr_t)room[0];
}

/* "list" names what ends the process, and what it says then. */
int main(int count, char **arguments) {
    const char *what = count > 1 ? arguments[1] : "codes";
    if (strcmp(what, "list") == 0) {
        for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
            printf("%s\t%s\n", ends[i].name, ends[i].says);
        return 0;
    }
    set_up();
    if (strcmp(what, "codes") == 0) {
        for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
            int code = codes[i].misuse();
            if (code != codes[i].code || *stackmark_error_text() == 0) {
                fprintf(stderr, "%s: %s: %s\n", codes[i].name, stackmark_error_name(code),
                        stackmark_error_text());
                return 1;
            }
        }
        native(nothing); /* all is as it was */
        printf("%zu codes\n", sizeof codes / sizeof codes[0]);
        return 0;
    }
    if (strcmp(what, "forks") == 0) {
        fork_children();
        return 0;
    }
    if (strcmp(what, "die") == 0)
        stackmark_die(runtime, "no more");
    if (strcmp(what, "overflow") == 0) {
        OK(stackmark_report_native_overflow());
        native(overflows);
    }
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++)
        if (strcmp(what, ends[i].name) == 0)
            ends[i].misuse();
    puts("still here");
    return 0;
}
