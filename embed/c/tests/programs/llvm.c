/* A text in LLVM's language, compiled at run time through LLVM's C interface, and registered with
   what the JIT leaves in memory: the code, .eh_frame and .llvm_stackmaps. */
#define _GNU_SOURCE
#include "managed.h"
#include <llvm-c/Core.h>
#include <llvm-c/ExecutionEngine.h>
#include <llvm-c/IRReader.h>
#include <llvm-c/Target.h>
#include <llvm-c/Transforms/PassBuilder.h>
#include <sys/mman.h>

#ifdef TYPED_POINTERS
#define REF "i64 addrspace(1)*"
#define CELL "i64 addrspace(1)* addrspace(1)*"
#else
#define REF "ptr addrspace(1)"
#define CELL "ptr addrspace(1)"
#endif

static stackmark_runtime *runtime;
static stackmark_collector *collector;
static stackmark_allocator *allocator;
static stackmark_barrier *barrier;
static uint32_t list;
static uintptr_t result;

/* A list of the numbers to n, then its sum, with a collection between any two elements. */
static const char program[] =
    "declare i64 @call_system(i64, i64, i64)\n"
    "declare " REF " @call_for_reference(i64, i64, i64)\n"
    "declare i64 @call_with_references(i64, " REF ", " REF ")\n"
    "define void @polls(i64 %g) noinline gc \"statepoint-example\" {\n"
    "  %a = call i64 @call_system(i64 POLL, i64 0, i64 0)\n"
    "  ret void\n"
    "}\n"
    "define " REF " @build(i64 %g, i64 %n) noinline gc \"statepoint-example\" {\n"
    "  call void @polls(i64 %g)\n"
    "  %ends = icmp eq i64 %n, 0\n"
    "  br i1 %ends, label %end, label %more\n"
    "end:\n"
    "  ret " REF " null\n"
    "more:\n"
    "  %less = sub i64 %n, 1\n"
    "  %rest = call " REF " @build(i64 %g, i64 %less)\n"
    "  %node = call " REF " @call_for_reference(i64 NEW, i64 %n, i64 0)\n"
    "  %a = call i64 @call_with_references(i64 LINK, " REF " %node, " REF " %rest)\n"
    "  %b = call i64 @call_system(i64 COLLECT, i64 0, i64 0)\n"
    "  ret " REF " %node\n"
    "}\n"
    "define i64 @sum(i64 %g, " REF " %node) noinline gc \"statepoint-example\" {\n"
    "  call void @polls(i64 %g)\n"
    "  %ends = icmp eq " REF " %node, null\n"
    "  br i1 %ends, label %end, label %more\n"
    "end:\n"
    "  ret i64 0\n"
    "more:\n"
    "  %at = getelementptr i64, " REF " %node, i64 1\n"
    "  %cell = bitcast " REF " %at to " CELL "\n"
    "  %rest = load " REF ", " CELL " %cell\n"
    "  %of.rest = call i64 @sum(i64 %g, " REF " %rest)\n"
    "  %own = load i64, " REF " %node\n"
    "  %sum = add i64 %own, %of.rest\n"
    "  ret i64 %sum\n"
    "}\n"
    "define i64 @entry(i64 %g, i64 %n) noinline gc \"statepoint-example\" {\n"
    "  %first = call " REF " @build(i64 %g, i64 %n)\n"
    "  %second = call " REF " @build(i64 %g, i64 %n)\n"
    "  %a = call i64 @sum(i64 %g, " REF " %first)\n"
    "  %b = call i64 @sum(i64 %g, " REF " %second)\n"
    "  %c = add i64 %a, %b\n"
    "  ret i64 %c\n"
    "}\n";

/* ------------------------------------------------------------------------------ The natives --- */

static uintptr_t new_node(void *number, uintptr_t unused) {
    uintptr_t object;
    (void)unused;
    OK(stackmark_allocate(collector, allocator, list, 16, &object));
    ((uintptr_t *)object)[0] = (uintptr_t)number;
    return object;
}

static uintptr_t link_nodes(void *node, uintptr_t rest) {
    uintptr_t *place = (uintptr_t *)node + 1;
    if (*(volatile unsigned char *)stackmark_barrier_flag(collector) != 0)
        stackmark_store(barrier, rest, (uintptr_t)place);
    __atomic_store_n(place, rest, __ATOMIC_RELAXED);
    return 0;
}

static uintptr_t collect(void *first, uintptr_t second) {
    stackmark_foreign_call call;
    (void)first;
    (void)second;
    OK(stackmark_foreign_enter(&call));
    OK(stackmark_collect(collector));
    stackmark_foreign_leave(&call);
    return 0;
}

static void goroutine_exited(void *user, stackmark_goroutine *goroutine, uintptr_t of_entry) {
    (void)user;
    (void)goroutine;
    result = of_entry;
}

/* ------------------------------------------------------------------------- The JIT's memory --- */

enum { ROOM = 1 << 20 };

static uint8_t *memory;
static size_t used;

struct section {
    uint8_t *at;
    uintptr_t length;
};
static struct section text, eh_frame, stackmaps;

static uint8_t *allocate(uintptr_t length, unsigned alignment) {
    used = (used + alignment - 1) / alignment * alignment;
    CHECK(used + length + 8 <= ROOM);
    uint8_t *at = memory + used;
    used += length + 8;
    return at;
}

static uint8_t *allocate_code(void *user, uintptr_t length, unsigned alignment, unsigned number,
                              const char *name) {
    (void)user;
    (void)number;
    (void)name;
    text = (struct section){allocate(length, alignment), length};
    return text.at;
}

static uint8_t *allocate_data(void *user, uintptr_t length, unsigned alignment, unsigned number,
                              const char *name, LLVMBool is_constant) {
    struct section section = {allocate(length, alignment), length};
    (void)user;
    (void)number;
    (void)is_constant;
    if (strcmp(name, ".eh_frame") == 0)
        eh_frame = section;
    if (strcmp(name, ".llvm_stackmaps") == 0)
        stackmaps = section;
    return section.at;
}

static LLVMBool finalize(void *user, char **error) {
    (void)user;
    (void)error;
    return mprotect(memory, ROOM, PROT_READ | PROT_WRITE | PROT_EXEC) != 0;
}

static void destroy(void *user) {
    (void)user;
}

/* ---------------------------------------------------------------------------------- Compile --- */

/* The program, with addresses in the place of names in capitals. */
static char *addressed(void) {
    static const char *const names[] = {"POLL", "NEW", "LINK", "COLLECT"};
    const uintptr_t addresses[] = {(uintptr_t)stackmark_poll, (uintptr_t)new_node,
                                   (uintptr_t)link_nodes, (uintptr_t)collect};
    static char text_of_program[2 * sizeof program];
    char *to = text_of_program;
    for (const char *from = program; *from != 0;) {
        size_t i = 0;
        while (i < 4 && strncmp(from, names[i], strlen(names[i])) != 0)
            i++;
        if (i == 4) {
            *to++ = *from++;
            continue;
        }
        to += sprintf(to, "%llu", (unsigned long long)addresses[i]);
        from += strlen(names[i]);
    }
    return text_of_program;
}

static void says(char *error) {
    fprintf(stderr, "%s\n", error == NULL ? "LLVM fails" : error);
    exit(1);
}

static LLVMExecutionEngineRef compile(void) {
    LLVMContextRef context = LLVMContextCreate();
    LLVMModuleRef module;
    LLVMExecutionEngineRef engine;
    struct LLVMMCJITCompilerOptions options;
    char *error = NULL, *source = addressed();
    LLVMLinkInMCJIT();
    LLVMInitializeNativeTarget();
    LLVMInitializeNativeAsmPrinter();
    if (LLVMParseIRInContext(
            context, LLVMCreateMemoryBufferWithMemoryRangeCopy(source, strlen(source), "program"),
            &module, &error))
        says(error);
    LLVMPassBuilderOptionsRef passes = LLVMCreatePassBuilderOptions();
    LLVMErrorRef failure = LLVMRunPasses(module, "rewrite-statepoints-for-gc", NULL, passes);
    if (failure != NULL)
        says(LLVMGetErrorMessage(failure));
    LLVMDisposePassBuilderOptions(passes);
    memory = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    LLVMInitializeMCJITCompilerOptions(&options, sizeof options);
    options.OptLevel = 2;
    options.MCJMM =
        LLVMCreateSimpleMCJITMemoryManager(NULL, allocate_code, allocate_data, finalize, destroy);
    LLVMValueRef calls[] = {LLVMGetNamedFunction(module, "call_system"),
                            LLVMGetNamedFunction(module, "call_for_reference"),
                            LLVMGetNamedFunction(module, "call_with_references")};
    if (LLVMCreateMCJITCompilerForModule(&engine, module, &options, sizeof options, &error))
        says(error);
    for (int i = 0; i < 3; i++)
        LLVMAddGlobalMapping(engine, calls[i], (void *)stackmark_call_system_address());
    return engine;
}

static uint64_t registered(LLVMExecutionEngineRef engine) {
    static const char *const names[] = {"polls", "build", "sum", "entry"};
    stackmark_function functions[4];
    stackmark_region region = {
        .size = sizeof region,
        .name = "program",
        .functions = functions,
        .function_count = 4,
        .max_frame = STACKMARK_MAX_FRAME,
    };
    uint64_t number;
    memset(functions, 0, sizeof functions);
    for (int i = 0; i < 4; i++) {
        functions[i].size = sizeof functions[i];
        functions[i].name = names[i];
        /* Compiles all of it, and relocates it. */
        functions[i].start = LLVMGetFunctionAddress(engine, names[i]);
        CHECK(functions[i].start != 0);
    }
    CHECK(text.at != NULL && eh_frame.at != NULL && stackmaps.at != NULL);
    /* ANCHOR: register */
    region.start = (uintptr_t)text.at;
    region.length = text.length;
    region.eh_frame = eh_frame.at;
    region.eh_frame_length = eh_frame.length;
    region.eh_frame_address = (uintptr_t)eh_frame.at;
    region.llvm_stackmaps = stackmaps.at;
    region.llvm_stackmaps_length = stackmaps.length;
    /* ANCHOR_END: register */
    /* Were the code elsewhere than the section says, its calls would be no calls of the region. */
    region.llvm_stackmaps_bias = ROOM;
    CHECK(stackmark_register(runtime, &region, &number) == STACKMARK_BAD_CODE);
    region.llvm_stackmaps_bias = 0;
    OK(stackmark_register(runtime, &region, &number));
    return number;
}

int main(void) {
    enum { N = 60 };
    stackmark_host host = {.size = sizeof host, .goroutine_exited = goroutine_exited};
    stackmark_heap_options heap_options = {.size = sizeof heap_options, .poison = 1};
    stackmark_collector_config config = {.size = sizeof config, .workers = 1, .verify = 1};
    stackmark_statistics statistics = {.size = sizeof statistics};
    static const uint32_t references[] = {1};
    stackmark_heap *heap;
    stackmark_machine *machine;
    stackmark_goroutine *goroutine;
    char name[10];
    int left;
    OK(stackmark_runtime_new(NULL, &host, &runtime));
    OK(stackmark_heap_new(&heap_options, &heap));
    OK(stackmark_collector_start(runtime, heap, &config, &collector));
    OK(stackmark_descriptor(heap, 2, references, 1, &list));
    OK(stackmark_allocator_new(heap, &allocator));
    OK(stackmark_barrier_new(collector, &barrier));
    OK(stackmark_attach(runtime, &machine));
    LLVMExecutionEngineRef engine = compile();
    uint64_t region = registered(engine);
    uintptr_t entry = LLVMGetFunctionAddress(engine, "entry");
    CHECK(stackmark_function_name(runtime, entry, name, sizeof name) == 5);
    CHECK(strcmp(name, "entry") == 0);
    OK(stackmark_spawn(runtime, STACKMARK_STACK_FIXED, entry, N, &goroutine));
    OK(stackmark_run(machine, goroutine, &goroutine, &left));
    CHECK(left == STACKMARK_LEFT_EXITED && result == N * (N + 1));
    OK(stackmark_get_statistics(collector, &statistics));
    CHECK(statistics.cycles >= 2 * N);
    OK(stackmark_unregister(runtime, region));
    LLVMDisposeExecutionEngine(engine);
    munmap(memory, ROOM);
    OK(stackmark_detach(machine));
    stackmark_barrier_free(barrier);
    stackmark_allocator_free(allocator);
    stackmark_collector_stop(collector);
    stackmark_heap_release(heap);
    stackmark_runtime_release(runtime);
    puts("llvm: all checks hold");
    return 0;
}
