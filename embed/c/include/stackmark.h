/*
 * Stackmark: goroutine stacks that start small and grow by moving, exact roots from every frame,
 * and a concurrent collector. The interface for runtimes in C, C++ and what calls C.
 *
 * A RUNTIME is shared by MACHINES, which are threads that run GOROUTINES. The embedder's compiler
 * makes managed code, which runs on goroutine stacks, and registers it. Native code runs on the
 * stacks of threads: managed code calls it through `call_system`. A COLLECTOR marks the objects of
 * a heap while goroutines run.
 *
 * CONTRACTS OF MANAGED CODE (embed/c/README.md says what a compiler does for them)
 *
 * C1. At a safepoint, which every call is, a frame is as its CFI says, and the slots that are
 *     registered for it have every live reference. From call to return a return address stays in
 *     its place; a function that moves it says so (`moves_return_address`).
 * C2. At a safepoint an address in the goroutine's own stack is only in such a slot, or is the
 *     saved frame pointer of a frame that finds its CFA by it: a move rewrites no other word. Code
 *     on fixed stacks need not keep this one.
 * C3. A store to a word that may lie in an older frame goes through the write barrier, as one to
 *     the heap does. Native code that writes many calls stackmark_note_stack_write() first. A slot
 *     is zeroed before the first safepoint that names it. No address in another goroutine's stack
 *     is kept across a safepoint.
 * C4. Below the word at STACKMARK_G_STACK_LIMIT there is room for a frame of max_frame bytes (see
 *     stackmark_config), for call_system, and for 64 bytes more. A function with a frame of at most max_frame bytes
 *     makes it before it compares; a larger one asks stackmark_poll() for the room first. C
 *     functions, also those that a compiler puts in by itself (memcpy, fmod), run by call_system,
 *     or in that room.
 * C5. Managed code finds its goroutine by the address that its entry gets, which stays the same. It
 *     does not find it by the thread: after any safepoint it may run on another one.
 * C6. A function calls stackmark_poll() when its stack pointer is below the word at
 *     STACKMARK_G_STACK_LIMIT, and a loop when the word is UINTPTR_MAX.
 * C7. Handlers of signals have SA_ONSTACK: a goroutine's stack has no room for them. A thread gets
 *     an alternate stack when it is attached, unless it has one that is large enough. Handlers
 *     without are reported to `warn` when a runtime is made; one that is found later ends the
 *     process with one line and status 2.
 * C8. The child of a fork has no other thread, and calls nothing here: it execs or ends. If it
 *     does, it ends with one line and status 2. It may give back what it owns.
 *
 * CONVENTIONS
 *
 * Results. A function that returns `int` returns STACKMARK_OK or a code, unless it says otherwise;
 * after a code, stackmark_error_text() says more. Then nothing has changed, and what `out` points
 * to is as it was. A misuse that breaks the runtime's own rules, and a function without a code that
 * is called where it may not be, end the process with one line on standard error and status 2. So
 * does any failure inside the library: no Rust panic crosses into C.
 *
 * Ownership. "Owned" pointers are given back once, by the function that is named. Others are
 * borrowed: they are valid as long as what they came from. Arrays, texts and structs that are
 * passed in are copied, unless a function says otherwise.
 *
 * Structs begin with their size, in bytes, which the caller sets to `sizeof`. Fields that are 0
 * have their defaults. A later version of the library adds fields at the end, and takes the older
 * size. In an array of structs each has the size of the first.
 *
 * Threads. A function may be called on any thread unless it says otherwise. OUTSIDE: not on a
 * thread that counts as running, which is one in native code that managed code has called, but for
 * foreign calls, or one between stackmark_inside_enter() and stackmark_inside_leave(). RUNNING:
 * only on such a thread. NATIVE: only in native code that a goroutine has called, on its thread.
 * Where the embedder's functions are called says the same of them. No function may be called in a
 * signal handler, nor in the child of a fork.
 *
 * Callbacks. "May throw" says that an exception of C++ may leave a function that the library calls.
 * One must not leave any other, and a `longjmp` must leave none, but on native stacks: see
 * stackmark_leave_to().
 *
 * Exceptions. A native function that managed code calls may throw: the exception goes on through
 * managed frames by their CFI, and a landing pad there, or native code further out, catches it.
 * Where none does, `uncaught` of the host is called, and the process ends. In native code that
 * throws, no foreign call is under way by stackmark_foreign_enter(), and no lock is held, unless a
 * destructor ends it. C code that is crossed is compiled with -fexceptions.
 *
 * Pointers that were given back. A function that gets one, or one of another type, returns INVALID,
 * or ends the process with one line where it has no code. That is found as long as not many other
 * objects of the type have been given back since; it is for finding mistakes, and no promise. Of
 * goroutines, it is found that more references are given back than are owned, as long as their
 * runtime lives.
 *
 * Unloading. The shared library stays loaded: dlclose() does nothing. Where the static one is
 * linked into a shared object that may be unloaded, that is linked with -Wl,-z,nodelete.
 *
 * Addresses and words of managed code are `uintptr_t`. A reference is the address of an object, or
 * one within it.
 */
#ifndef STACKMARK_H
#define STACKMARK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#define STACKMARK_NOEXCEPT noexcept
#else
#define STACKMARK_NOEXCEPT
#endif

#define STACKMARK_VERSION_MAJOR 0
#define STACKMARK_VERSION_MINOR 1
#define STACKMARK_VERSION_PATCH 0

/* ----------------------------------------------------------------------------------- Errors --- */

enum {
    STACKMARK_OK = 0,             /* no error */
    STACKMARK_INVALID = 1,        /* an argument: NULL, a size, an option, a machine */
    STACKMARK_NO_MEMORY = 2,      /* the system gives no memory or address space */
    STACKMARK_HEAP_FULL = 3,      /* the heap is full, and collections have made no room */
    STACKMARK_BAD_CODE = 4,       /* a region overlaps another one, or contradicts itself */
    STACKMARK_ATTACHED = 5,       /* the thread is attached already, or to another runtime */
    STACKMARK_NOT_ATTACHED = 6,   /* the thread runs no goroutine */
    STACKMARK_NOT_FOREIGN = 7,    /* a callback outside of a foreign call */
    STACKMARK_SIGNAL_HANDLER = 8, /* a callback from a signal handler */
    STACKMARK_OUTSIDE = 9,        /* the thread does not count as running */
    STACKMARK_NO_FRAME = 10,      /* the goroutine has no managed frame at that depth */
    STACKMARK_WALK = 11,          /* a frame without an unwind rule, or a broken stack */
    STACKMARK_IN_USE = 12,        /* the heap or the runtime has a collector already */
    STACKMARK_SYSTEM = 13,        /* the system refuses, for example a thread */
    STACKMARK_EXCEPTION = 14,     /* stackmark_catch_native() has caught an exception */
    STACKMARK_NO_ANCHOR = 15      /* a call of managed code, in native code that managed code on a
                                     native stack has called without call_native() */
};

/* The library's version, "MAJOR.MINOR.PATCH". Borrowed for ever. */
const char *stackmark_version(void) STACKMARK_NOEXCEPT;

/* What went wrong in the last function that returned a code on this thread. Borrowed until the next
   function fails on this thread. Never NULL. */
const char *stackmark_error_text(void) STACKMARK_NOEXCEPT;

/* What a code means. Borrowed for ever. Never NULL. */
const char *stackmark_error_name(int code) STACKMARK_NOEXCEPT;

/* ------------------------------------------------------------------------------------ Types --- */

typedef struct stackmark_runtime stackmark_runtime;
/* A goroutine. Its address is that of its header, by which managed code knows it; the words at the
   offsets STACKMARK_G_... are there. It stays at that address as long as the runtime, or a
   reference. A number of references own it; when the goroutine has ended and none is left, the
   record is used again. */
typedef struct stackmark_goroutine stackmark_goroutine;
typedef struct stackmark_image stackmark_image;
typedef struct stackmark_machine stackmark_machine;
typedef struct stackmark_scheduler stackmark_scheduler;
typedef struct stackmark_exception stackmark_exception;
typedef struct stackmark_heap stackmark_heap;
typedef struct stackmark_allocator stackmark_allocator;
typedef struct stackmark_collector stackmark_collector;
typedef struct stackmark_barrier stackmark_barrier;
typedef struct stackmark_handle stackmark_handle;
typedef struct stackmark_weak stackmark_weak;
typedef struct stackmark_weak_map stackmark_weak_map;

/* What managed code calls through call_system: it runs on the thread's own stack. */
typedef uintptr_t stackmark_native(void *first, uintptr_t second);
/* Managed code that native code calls back. */
typedef uintptr_t stackmark_managed(uintptr_t argument);

/* ------------------------------------------------------------------------------ The runtime --- */

/* stackmark_config.barriers */
enum {
    STACKMARK_BARRIERS_INCREMENTAL = 0,  /* stacks are scanned a little at a time */
    STACKMARK_BARRIERS_RESCAN_LIMIT = 1, /* whole, with barriers that bound the rescan */
    STACKMARK_BARRIERS_EVERY_FRAME = 2,  /* for debugging: a barrier in every frame */
    STACKMARK_BARRIERS_OFF = 3           /* none */
};

typedef struct stackmark_config {
    size_t size;
    size_t max_stack;              /* the largest stack, in bytes; 0: 10^9 */
    size_t move_limit;             /* a larger stack grows in place, in bytes; 0: 256 KiB */
    uint32_t barriers;             /* STACKMARK_BARRIERS_... */
    uint32_t ignore_protection;    /* barriers even where return addresses are protected */
    uint32_t report_stop_after_ms; /* a longer wait is reported; 0: 10 s; UINT32_MAX: never */
    uint32_t scan_few_frames;      /* for debugging: scans visit few frames at a time */
    uint32_t move_every_poll;      /* for debugging: a stack moves at every poll */
    uint32_t poison;               /* for debugging: freed stack memory is overwritten */
    uint32_t poll_always;          /* for debugging: every check of the stack calls poll */
    uint32_t max_frame;            /* the largest frame that is made before a check, in bytes, 256
                                      to 4096; 0: STACKMARK_MAX_FRAME. With 384 a new stack has
                                      1 KiB rather than 2 */
} stackmark_config;

/* What the library asks of the embedder. A function that is NULL does what its comment says last.
   Those that are called "on any thread" may be called by several at the same time, and under locks
   of the library: they call no function of this header but stackmark_goroutine_...(). Machine hooks
   make and free allocators and barriers, too. None may throw. `user` is passed to each. */
typedef struct stackmark_host {
    size_t size;
    void *user;
    /* The goroutine's stack would exceed its maximum of `limit` bytes. It does not return. On the
       goroutine's thread, NATIVE. NULL: one line, and status 2. */
    void (*stack_overflow)(void *user, stackmark_goroutine *goroutine, size_t limit);
    /* The process cannot go on. It does not return. On any thread. NULL: a line, and abort(). */
    void (*fatal)(void *user, const char *text);
    /* An exception of native code has left the goroutine's oldest frame. If it returns, the process
       ends as by stackmark_die(). NATIVE. NULL: it ends so. */
    void (*uncaught)(void *user, stackmark_goroutine *goroutine, const char *text);
    /* The file and line of managed code at `pc`, for tracebacks: 1 if they are known. `*file` is
       copied. On any thread. NULL: 0. */
    int (*source)(void *user, uintptr_t pc, const char **file, uint32_t *line);
    /* A problem that does not end the process. On any thread. NULL: a line on standard error. */
    void (*warn)(void *user, const char *text);
    /* The calling thread becomes a machine: by stackmark_attach(), as a thread of the scheduler, or
       by stackmark_call_in(). The result is at STACKMARK_G_MACHINE_WORD of each goroutine that it
       runs: for what managed code needs of its thread, such as its allocator and its barrier
       buffer, which may be made here. It is not attached yet, and counts as OUTSIDE. NULL: 0. */
    uintptr_t (*machine_attached)(void *user);
    /* The calling thread stops being a machine, or could not become one. `word` is what
       machine_attached() has returned; what was made there is given back here. It may be called
       while the thread ends, when thread-local variables with destructors are gone. NULL:
       nothing. */
    void (*machine_detached)(void *user, uintptr_t word);
    /* The goroutine's entry has returned `result`, which is no root any more. NATIVE, but
       it neither parks nor yields: that ends the process. NULL: nothing. */
    void (*goroutine_exited)(void *user, stackmark_goroutine *goroutine, uintptr_t result);
    /* The goroutine is at a poll, if a debugging option makes every check poll. NATIVE. NULL:
       nothing. */
    void (*at_poll)(void *user, stackmark_goroutine *goroutine);
    /* The runtime is gone: no function is called with `user` any more. On any thread. NULL:
       nothing. */
    void (*destroyed)(void *user);
} stackmark_host;

/* Makes a runtime, owned: stackmark_runtime_release(). `config` and `host` may be NULL.
   Errors: INVALID, SYSTEM. */
int stackmark_runtime_new(const stackmark_config *config, const stackmark_host *host,
                          stackmark_runtime **out) STACKMARK_NOEXCEPT;

/* Gives the runtime back. It goes when its machines, collector and scheduler are gone, too. NULL is
   allowed. OUTSIDE. */
void stackmark_runtime_release(stackmark_runtime *runtime) STACKMARK_NOEXCEPT;

/* How many goroutines have begun and not ended. */
size_t stackmark_live_goroutines(const stackmark_runtime *runtime) STACKMARK_NOEXCEPT;

/* ------------------------------------------------------------------------------------- Code --- */

/* stackmark_region.vectors: which vector registers hold something when a function returns */
enum {
    STACKMARK_VECTORS_ALL = 0,    /* all of them */
    STACKMARK_VECTORS_NARROW = 1, /* the low 128 bits of the first sixteen; no masks */
    STACKMARK_VECTORS_RESULTS = 2 /* by the platform's C convention, 128 bits of them; no masks, and
                                     no x87 state */
};

/* A function of managed code. */
typedef struct stackmark_function {
    size_t size;
    const char *name;              /* for tracebacks and debuggers; may be NULL */
    uintptr_t start;               /* the address of its first byte */
    size_t length;                 /* in bytes; 0: as its entry in the CFI says */
    uint32_t moves_return_address; /* from call to return the return address does not stay in its
                                      place: its frames get no barrier */
    uint32_t reserved;
    const char *file;      /* the path of its source, for debuggers; may be NULL */
    const uint32_t *lines; /* where a line begins: pairs of an offset from the function's first byte,
                              ascending, and a line from 1 on; NULL if there is no file */
    size_t line_count;     /* pairs */
} stackmark_function;

/* A call in managed code. */
typedef struct stackmark_safepoint {
    size_t size;
    uintptr_t return_address; /* of the instruction behind the call */
    const uint32_t *slots;    /* offsets from the stack pointer behind the call, in bytes, of the
                                 words that may hold references, or addresses in the stack */
    uint32_t cfa_offset;      /* from that stack pointer to the CFA, in bytes: the CFA is the stack
                                 pointer before the function was called */
    uint32_t slot_count;
} stackmark_safepoint;

/* Managed code: one unit of a JIT, or of ahead-of-time code. */
typedef struct stackmark_region {
    size_t size;
    const char *name;
    uintptr_t start;
    size_t length;                         /* in bytes, less than 4 GiB */
    const uint8_t *eh_frame;               /* .eh_frame, with absolute addresses, unless
                                              eh_frame_address is set; NULL for code of the program
                                              or a shared object: its own is used */
    size_t eh_frame_length;                /* in bytes */
    const stackmark_function *functions;   /* in any order */
    size_t function_count;
    const stackmark_safepoint *safepoints; /* one for every call, in any order */
    size_t safepoint_count;
    uint32_t max_frame;                    /* a larger cfa_offset is refused, in bytes; 0: none */
    uint32_t hide_from_debugger;           /* gdb is not told */
    uint32_t hide_from_unwinder;           /* the system's unwinder is not: no exception passes */
    uint32_t vectors;                      /* which vector registers hold something when a function
                                              returns, STACKMARK_VECTORS_*: hits are quicker where
                                              all code says little */
    uintptr_t eh_frame_address;            /* where .eh_frame lies, if its pointers are relative to
                                              that, as LLVM's are; the system's unwinder is not told
                                              then, since LLVM's JITs do that; 0: absolute */
    const uint8_t *llvm_stackmaps;         /* LLVM's .llvm_stackmaps with statepoints of this region
                                              alone: more safepoints; NULL: none */
    size_t llvm_stackmaps_length;          /* in bytes */
    uintptr_t llvm_stackmaps_bias;         /* where the code lies, minus where the section says: 0
                                              once the JIT has relocated it */
} stackmark_region;

/* The config's max_frame, unless it says otherwise: a frame with a larger cfa_offset asks
   stackmark_poll() for the room before it is made. */
#define STACKMARK_MAX_FRAME 1024

/* Registers code, which is in place, and stays there until it is unregistered. `*out` is a number
   for stackmark_unregister(), never 0. Errors: INVALID, BAD_CODE. */
int stackmark_register(stackmark_runtime *runtime, const stackmark_region *region,
                       uint64_t *out) STACKMARK_NOEXCEPT;

/* Forgets code, if no goroutine has a frame of it, and none will. Its memory may be used again
   then. Stops the world to see that. OUTSIDE. Errors: INVALID; BAD_CODE: a goroutine has a frame of
   it, or has not begun and begins there. */
int stackmark_unregister(stackmark_runtime *runtime, uint64_t region) STACKMARK_NOEXCEPT;

/* The same for `count` regions, with one stop. All of them are forgotten, or none. */
int stackmark_unregister_all(stackmark_runtime *runtime, const uint64_t *regions,
                             size_t count) STACKMARK_NOEXCEPT;

/* Registers the managed code of the image that holds `address`: the program itself or a shared
   object, compiled ahead of time. Its section .llvm_stackmaps, or .stackmark_maps, names its
   functions and safepoints; its own CFI and symbols are used. It stays loaded until it is
   unregistered. `*out` is owned: stackmark_unregister_image(). Errors: INVALID, BAD_CODE. */
int stackmark_register_image(stackmark_runtime *runtime, uintptr_t address,
                             stackmark_image **out) STACKMARK_NOEXCEPT;

/* Forgets it, as stackmark_unregister() does code. OUTSIDE. Errors: INVALID; BAD_CODE: the image is
   owned by the caller still then. */
int stackmark_unregister_image(stackmark_runtime *runtime,
                               stackmark_image *image) STACKMARK_NOEXCEPT;

/* Writes the name of the managed function at `pc` to a buffer of `capacity` bytes, as much as fits,
   and a 0. Returns the name's length in bytes; 0 if there is none. */
size_t stackmark_function_name(const stackmark_runtime *runtime, uintptr_t pc, char *buffer,
                               size_t capacity) STACKMARK_NOEXCEPT;

/* -------------------------------------------------------------- What managed code addresses --- */

/* Offsets in a goroutine, in bytes. The words are of 8 bytes. */
#define STACKMARK_G_STACK_LIMIT 0    /* a stack pointer below it: call stackmark_poll */
#define STACKMARK_G_STACK_HI 8       /* one past the highest address of the stack */
#define STACKMARK_G_STACK_LO 16      /* the lowest */
#define STACKMARK_G_USER 88          /* a word of the embedder's; no root */
#define STACKMARK_G_RESULTS 96       /* STACKMARK_RESULT_WORDS words for arguments and results; no
                                        roots: read before the next safepoint */
#define STACKMARK_G_MACHINE_WORD 232 /* what machine_attached() has returned for this thread: read
                                        anew after each call */
#define STACKMARK_G_LANGUAGE 240     /* STACKMARK_LANGUAGE_WORDS words of the embedder's; roots */
#define STACKMARK_RESULT_WORDS 16
#define STACKMARK_LANGUAGE_WORDS 2

/* The address of `uintptr_t call_system(stackmark_native *f, void *first, uintptr_t second)`, in
   the platform's C convention. Managed code calls it, and so f(first, second) on the system stack.
   It keeps the registers that the convention says. The goroutine may run on another thread
   afterwards, and its stack may have moved. */
uintptr_t stackmark_call_system_address(void) STACKMARK_NOEXCEPT;

/* The same for managed code on native stacks, which call_native() calls f(first, second) on: see
   stackmark_attach_native_stack(). The second one is for code whose safepoints name registers. */
uintptr_t stackmark_call_native_address(void) STACKMARK_NOEXCEPT;
uintptr_t stackmark_call_native_all_address(void) STACKMARK_NOEXCEPT;

/* The address of `uintptr_t switch_out(uintptr_t value)`: managed code calls it with
   STACKMARK_YIELD to let others run, without a call of native code. It keeps the frame pointer, the
   stack pointer and r15, and no other register: a function that calls it saves those that its own
   caller expects to be kept, where its CFI says. */
uintptr_t stackmark_switch_out_address(void) STACKMARK_NOEXCEPT;
#define STACKMARK_YIELD 3

/* Makes `needed` bytes of room below the guard, and answers what was asked of the goroutine.
   Managed code calls it through call_system: in a prologue when its stack pointer is below the word
   at STACKMARK_G_STACK_LIMIT, with 0, or with the size of a larger frame than max_frame;
   in a loop when that word is UINTPTR_MAX. Returns 0. Never called by C. */
uintptr_t stackmark_poll(void *needed, uintptr_t unused);

/* ------------------------------------------------------------------------------- Goroutines --- */

/* Kinds of stack: one that moves, for code that keeps contract C2, and one that grows in place. */
enum { STACKMARK_STACK_MOVING = 0, STACKMARK_STACK_FIXED = 1 };

/* Makes a goroutine that will call `entry(goroutine, argument)`, managed code in the platform's C
   convention. `argument` may be a reference: it is a root from now on. `*out` is owned, Runnable,
   and in no queue: pass it to stackmark_schedule() or stackmark_run(). Errors: INVALID, also if no
   registered code lies at `entry`; NO_MEMORY. */
int stackmark_spawn(stackmark_runtime *runtime, uint32_t kind, uintptr_t entry, uintptr_t argument,
                    stackmark_goroutine **out) STACKMARK_NOEXCEPT;

/* One more owned reference. Returns `goroutine`. A goroutine whose address managed or native code
   has while it runs may be retained, too. */
stackmark_goroutine *stackmark_goroutine_retain(stackmark_goroutine *goroutine) STACKMARK_NOEXCEPT;

/* Gives an owned reference back. NULL is allowed. */
void stackmark_goroutine_release(stackmark_goroutine *goroutine) STACKMARK_NOEXCEPT;

/* The goroutine's number: 1 for the runtime's first one, never used again. */
uint64_t stackmark_goroutine_id(const stackmark_goroutine *goroutine) STACKMARK_NOEXCEPT;

enum {
    STACKMARK_RUNNABLE = 0,
    STACKMARK_RUNNING = 1,
    STACKMARK_PARKED = 2,
    STACKMARK_IN_FOREIGN = 3,
    STACKMARK_DEAD = 4
};

/* What the goroutine does at this moment. */
int stackmark_goroutine_status(const stackmark_goroutine *goroutine) STACKMARK_NOEXCEPT;

/* The word at STACKMARK_G_USER. */
uintptr_t stackmark_goroutine_user(const stackmark_goroutine *goroutine) STACKMARK_NOEXCEPT;
void stackmark_goroutine_set_user(stackmark_goroutine *goroutine, uintptr_t word)
    STACKMARK_NOEXCEPT;

/* Asks a goroutine, or all, to yield at their next poll. */
void stackmark_preempt(stackmark_goroutine *goroutine) STACKMARK_NOEXCEPT;
void stackmark_preempt_all(stackmark_runtime *runtime) STACKMARK_NOEXCEPT;

/* Makes a parked goroutine ready: its native call returns `value`, which the collector keeps from
   now on if `is_reference` is not 0. Takes `goroutine`, owned. The process ends if it is not
   parked, or if there is no scheduler. Errors: INVALID. */
int stackmark_ready(stackmark_runtime *runtime, stackmark_goroutine *goroutine, uintptr_t value,
                    int is_reference) STACKMARK_NOEXCEPT;

/* The goroutines that have begun or wait to begin, and have not ended: writes up to `capacity` of
   them to `into`, each owned: stackmark_goroutine_release(). `*count` is how many there are, which
   may be more. Errors: INVALID. */
int stackmark_goroutines(const stackmark_runtime *runtime, stackmark_goroutine **into,
                         size_t capacity, size_t *count) STACKMARK_NOEXCEPT;

/* Gives a Runnable goroutine to the scheduler. Takes `goroutine`, owned. Errors: INVALID, also if
   it is not Runnable. */
int stackmark_schedule(stackmark_runtime *runtime, stackmark_goroutine *goroutine)
    STACKMARK_NOEXCEPT;

/* Replaces the words that native code keeps for a goroutine, typically values on their way to or
   from one that is parked. They are roots until they are taken or replaced. RUNNING, as long as the
   words are references that nothing else keeps. Errors: INVALID. */
int stackmark_set_transfer(stackmark_runtime *runtime, stackmark_goroutine *goroutine,
                           const uintptr_t *words, size_t count) STACKMARK_NOEXCEPT;

/* Takes those words. `*count` is how many there were. RUNNING, as above. Errors: INVALID, also if
   there are more than `capacity`: they stay then. */
int stackmark_take_transfer(stackmark_runtime *runtime, stackmark_goroutine *goroutine,
                            uintptr_t *into, size_t capacity, size_t *count) STACKMARK_NOEXCEPT;

/* --------------------------------------------------------------- Machines: threads that run --- */

/* Attaches the calling thread. `*out` is owned: stackmark_detach() on the same thread. A thread
   that ends in a foreign call is detached by itself. Errors: INVALID, ATTACHED, NO_MEMORY. */
int stackmark_attach(stackmark_runtime *runtime, stackmark_machine **out) STACKMARK_NOEXCEPT;

/* Detaches the calling thread. Errors: INVALID: it is another thread's, or runs a goroutine. */
int stackmark_detach(stackmark_machine *machine) STACKMARK_NOEXCEPT;

/* Attaches the calling thread, which runs managed code on its own stack from then on: a NATIVE
   STACK, where native frames lie between managed ones. The thread has one goroutine, in a foreign
   call outside of managed code. stackmark_call_back() calls managed code, from a foreign call or
   not. That code calls native code by call_native wherever other managed code calls call_system. It
   leaves 64 KiB of the stack to native code. Nothing moves. The thread is detached by
   stackmark_detach_native_stack(), or at its end. Errors: INVALID, ATTACHED, NO_MEMORY, also if the
   stack has less than 128 KiB. */
int stackmark_attach_native_stack(stackmark_runtime *runtime) STACKMARK_NOEXCEPT;

/* Detaches the calling thread, whose goroutine ends. Errors: INVALID, also while managed code is on
   the stack; NOT_ATTACHED; SIGNAL_HANDLER. */
int stackmark_detach_native_stack(stackmark_runtime *runtime) STACKMARK_NOEXCEPT;

/* Why a goroutine came back. */
enum {
    STACKMARK_LEFT_EXITED = 0, /* it has ended */
    STACKMARK_LEFT_PARKED = 1, /* it waits, or runs on another machine already */
    STACKMARK_LEFT_YIELDED = 2 /* it lets others run first: it is Runnable, and in `*again` */
};

/* Runs a Runnable goroutine on the calling thread until it ends, parks or yields. Takes
   `goroutine`, owned. `*again` is NULL or owned. `*left` says why it came back. OUTSIDE, on the
   machine's thread, which runs no goroutine. Errors: INVALID. */
int stackmark_run(stackmark_machine *machine, stackmark_goroutine *goroutine,
                  stackmark_goroutine **again, int *left);

/* Has the calling thread, which runs no goroutine, count as running until stackmark_inside_leave().
   It may allocate, and use references. The world does not stop meanwhile: the thread is quick and
   waits for nothing. Errors: INVALID. */
int stackmark_inside_enter(stackmark_machine *machine) STACKMARK_NOEXCEPT;

/* Ends that. Errors: INVALID, OUTSIDE. */
int stackmark_inside_leave(stackmark_machine *machine) STACKMARK_NOEXCEPT;

/* Has an overflow of a native stack end the process with a line instead of a bare signal. Installs
   a handler of SIGSEGV; called once. Errors: SYSTEM. */
int stackmark_report_native_overflow(void) STACKMARK_NOEXCEPT;

/* -------------------------------------------------------------------------------- Scheduler --- */

/* Makes the runtime's scheduler, which runs goroutines on `threads` threads at a time, at most
   16384, by work stealing. Owned: stackmark_scheduler_free(). A runtime has one scheduler: another
   one ends the process. `on_deadlock`, which may be NULL, is called once for each deadlock, on one
   of the threads, OUTSIDE. Errors: INVALID. */
int stackmark_scheduler_new(stackmark_runtime *runtime, size_t threads,
                            void (*on_deadlock)(void *user), void *user,
                            stackmark_scheduler **out) STACKMARK_NOEXCEPT;

/* Starts the threads. Errors: INVALID, SYSTEM. */
int stackmark_scheduler_start(stackmark_scheduler *scheduler) STACKMARK_NOEXCEPT;

/* Stops it: each thread ends when its goroutine parks, yields or ends. Returns when all have ended.
   OUTSIDE, and not on its own threads. Does nothing if it does not run. */
void stackmark_scheduler_stop(stackmark_scheduler *scheduler) STACKMARK_NOEXCEPT;

/* Gives a scheduler back that does not run. NULL is allowed. */
void stackmark_scheduler_free(stackmark_scheduler *scheduler) STACKMARK_NOEXCEPT;

/* Says that a goroutine which is about to park will be made ready from outside of goroutines: until
   stackmark_wakeup_done() there is no deadlock. */
void stackmark_await_wakeup(stackmark_scheduler *scheduler) STACKMARK_NOEXCEPT;
void stackmark_wakeup_done(stackmark_scheduler *scheduler) STACKMARK_NOEXCEPT;

/* Sets a scheduler of the embedder's instead. `ready` takes a Runnable goroutine, owned, to run it
   on some machine. It is called on any thread, and calls no function of this header. A runtime has
   one scheduler: another one ends the process. Errors: INVALID. */
int stackmark_set_scheduler(stackmark_runtime *runtime,
                            void (*ready)(void *user, stackmark_goroutine *goroutine),
                            void *user) STACKMARK_NOEXCEPT;

/* ---------------------------------------------------- In native code that a goroutine calls --- */

/* The goroutine that has called this native code, borrowed until the code returns, parks or yields;
   NULL if this thread runs none. */
stackmark_goroutine *stackmark_current(void) STACKMARK_NOEXCEPT;

/* The high end of its stack now; 0 if this thread runs none. During a callback the stack may move:
   native code that has an address in it takes this before and after, and adds the difference. */
uintptr_t stackmark_current_stack_top(void) STACKMARK_NOEXCEPT;

/* Parks the goroutine. When it is parked, `publish(user)` makes it visible to what will make it
   ready, for example by the release of the lock of a queue; it may run again before `publish`
   returns, so `publish` uses no frame of its caller but by `user`. `publish` may be NULL, and is
   called where stackmark_current() may be NULL.
   It does not return but inside a callback: the native call ends here, and returns to managed code
   what stackmark_ready() was given. So native frames up to managed code own nothing. Inside a
   callback it returns that value. NATIVE, not in a foreign call, and of the host's functions only in
   at_poll(). */
uintptr_t stackmark_park(void (*publish)(void *user), void *user);

/* Lets others run: the native call ends here, and returns `value` to managed code when the
   goroutine runs again. Inside a callback it returns `value` at once. As stackmark_park()
   otherwise. */
uintptr_t stackmark_yield(uintptr_t value);

/* Calls `f(user)` as a foreign call: it may wait, take long, or call back. Meanwhile the goroutine
   may be scanned, and no collection waits for it; it touches no object that a handle does not keep,
   unless a frame does. `f` may throw: the exception leaves this function with the foreign call
   ended, and goes on to managed code, which passes it on by its CFI. Returns what `f` returns.
   NATIVE, not in a foreign call but inside a callback. */
uintptr_t stackmark_foreign(uintptr_t (*f)(void *user), void *user);

/* Room for what stackmark_foreign_enter() notes. */
typedef struct stackmark_foreign_call {
    uintptr_t words[8];
} stackmark_foreign_call;

/* The same as a pair, for code that has no function to pass. The native function that enters also
   leaves, on its thread, with the same `call`, or the process ends. No exception leaves it in
   between, unless a destructor calls stackmark_foreign_leave(); stackmark_unwind_to() may. NATIVE.
   Errors: NOT_ATTACHED, INVALID. */
int stackmark_foreign_enter(stackmark_foreign_call *call) STACKMARK_NOEXCEPT;
void stackmark_foreign_leave(stackmark_foreign_call *call) STACKMARK_NOEXCEPT;

/* A library or system call and what came of it. */
typedef struct stackmark_lib_call_record {
    size_t size;
    uintptr_t function;
    uintptr_t arguments[6];
    uintptr_t result;
    int error; /* errno after the call; it is 0 before */
    uint32_t reserved;
} stackmark_lib_call_record;

/* Calls a C function with up to 6 integers or pointers as a foreign call. The function may throw.
   NATIVE, as stackmark_foreign(). Errors: INVALID, NOT_ATTACHED. */
int stackmark_lib_call(uintptr_t function, const uintptr_t *arguments, size_t count,
                       stackmark_lib_call_record *call);

/* Calls managed code `f(argument)` on the goroutine's stack, from within a foreign call, or after
   stackmark_call_in(). On a native stack NATIVE code may call it, too. The stack may move
   meanwhile. An exception that leaves `f` leaves this
   function, too; native C frames below it must then have unwind tables, as by -fexceptions.
   Errors: INVALID, also if no registered code lies at `f`; NOT_ATTACHED, NOT_FOREIGN, NO_ANCHOR,
   SIGNAL_HANDLER. `f` is not called then. */
int stackmark_call_back(stackmark_managed *f, uintptr_t argument, uintptr_t *result);

/* For native code that does not know whether its thread has ever run a goroutine: from now on
   stackmark_call_back() works. A thread that the runtime has never seen gets a goroutine, which it
   keeps until it ends. Errors: INVALID, ATTACHED, NOT_FOREIGN, NO_ANCHOR, SIGNAL_HANDLER,
   NO_MEMORY. */
int stackmark_call_in(stackmark_runtime *runtime) STACKMARK_NOEXCEPT;

/* Kinds of frames. */
enum {
    STACKMARK_FRAME_MANAGED = 0,
    STACKMARK_FRAME_CALLBACK = 1,
    STACKMARK_FRAME_SYSTEM_CALL = 2,
    STACKMARK_FRAME_ENTRY = 3,
    STACKMARK_FRAME_STUB = 4
};

typedef struct stackmark_frame {
    size_t size;
    uintptr_t pc;     /* the return address in the frame's function: look up the byte before */
    size_t depth;     /* from the high end of the stack to the frame's stack pointer, in bytes; a
                         move of the stack does not change it */
    size_t cfa_depth; /* to its CFA */
    uint32_t kind;    /* STACKMARK_FRAME_... */
    uint32_t reserved;
} stackmark_frame;

/* Calls `visit` for each frame of the goroutine that has called this native code, youngest first,
   until it returns another value than 0. `visit` must not throw. NATIVE.
   Errors: INVALID, NOT_ATTACHED, WALK. */
int stackmark_frames(int (*visit)(void *user, const stackmark_frame *frame),
                     void *user) STACKMARK_NOEXCEPT;

/* The up to `capacity` youngest frames of a goroutine that stands still, for example a parked one.
   `frames[0].size` is set. `*count` is how many there are; 0 if it runs. OUTSIDE.
   Errors: INVALID, WALK. */
int stackmark_frames_of(const stackmark_runtime *runtime, stackmark_goroutine *goroutine,
                        stackmark_frame *frames, size_t capacity, size_t *count) STACKMARK_NOEXCEPT;

/* Leaves every frame younger than the managed one at `depth`, which stackmark_frames() gives, and
   goes on in that frame at `pc`, with its callee-saved registers, and `first` and `second` in rax
   and rdx. They are roots meanwhile. Native frames in between, below callbacks, are unwound:
   destructors of C++ run, and frames without unwind tables are dropped as by longjmp. `catch (...)`
   there must throw on. Native frames younger than the youngest callback own nothing. NATIVE.
   Returns only with an error, and has changed nothing: INVALID: no registered code lies at `pc`;
   NO_FRAME, also if native frames of a native stack have no unwind tables; WALK, NOT_ATTACHED. */
int stackmark_unwind_to(size_t depth, uintptr_t pc, uintptr_t first, uintptr_t second);

/* Announces that native code leaves frames by longjmp() or the like, and goes on in an older native
   frame of this thread: `frame` is an address in that frame, as __builtin_frame_address(0) there.
   Called right before the jump. On a native stack managed frames may be among those that are left;
   else none may be. The goroutine is then in a foreign call if the frame has called managed code
   from one that is under way there, or from no managed code; one that stackmark_foreign_enter() has
   begun stays under way in the native frames that managed code has called. Errors: INVALID: no
   native frame is there; NOT_ATTACHED. Nothing has changed then. */
int stackmark_leave_to(const void *frame) STACKMARK_NOEXCEPT;

/* Announces that this native function, until it returns, writes references to the words from `from`
   to `to` of the goroutine's own stack, in one frame, without the write barrier. Those outside of
   it do not matter. NATIVE. Errors: INVALID, NOT_ATTACHED, WALK. */
int stackmark_note_stack_write(uintptr_t from, uintptr_t to) STACKMARK_NOEXCEPT;

/* Calls `f(user)`, which may throw, and catches what leaves it: returns EXCEPTION then, with
   `*exception` owned, by one of the two functions below. Barriers of the frames that the exception
   has crossed are settled. Unwinding by stackmark_unwind_to() or pthread_exit() passes. NATIVE.
   Errors: INVALID, NOT_ATTACHED, EXCEPTION. */
int stackmark_catch_native(uintptr_t (*f)(void *user), void *user, uintptr_t *result,
                    stackmark_exception **exception);

/* The class that the exception's language marks it with. */
uint64_t stackmark_exception_class(const stackmark_exception *exception) STACKMARK_NOEXCEPT;

/* What it says, as stackmark_function_name() writes names. */
size_t stackmark_exception_text(const stackmark_exception *exception, char *buffer,
                                size_t capacity) STACKMARK_NOEXCEPT;

/* Throws it again. Does not return. */
void stackmark_exception_resume(stackmark_exception *exception);

/* Forgets it. NULL is allowed. */
void stackmark_exception_free(stackmark_exception *exception) STACKMARK_NOEXCEPT;

/* Writes the frames of the calling thread, managed and native ones in their true order, as
   stackmark_function_name() writes names. */
size_t stackmark_traceback(const stackmark_runtime *runtime, char *buffer,
                           size_t capacity) STACKMARK_NOEXCEPT;

/* The same of any goroutine's managed frames: `goroutine N [STATUS]:` and a line for each function.
   Of one that runs on another thread there are no frames, and the text says so. `*length` is the
   text's length. It must be one of this runtime's, or the process ends. Errors: INVALID, WALK. */
int stackmark_traceback_of(const stackmark_runtime *runtime, stackmark_goroutine *goroutine,
                           char *buffer, size_t capacity, size_t *length) STACKMARK_NOEXCEPT;

/* Ends the process as an unrecovered panic does: `panic: MESSAGE`, the traceback, status 2. Does
   not return. */
void stackmark_die(const stackmark_runtime *runtime, const char *message) STACKMARK_NOEXCEPT;

/* ------------------------------------------------------------------------- The default heap --- */

typedef struct stackmark_heap_options {
    size_t size;
    size_t limit;        /* the most memory for objects, in bytes; 0: 128 GiB, or what there is */
    uint32_t poison;     /* for debugging: freed objects are overwritten */
    uint32_t huge_pages; /* pages of 2 MiB: a large heap is marked faster, new memory waits longer */
} stackmark_heap_options;

/* Makes a heap, owned: stackmark_heap_release(). `options` may be NULL. Errors: INVALID, NO_MEMORY.
   */
int stackmark_heap_new(const stackmark_heap_options *options, stackmark_heap **out)
    STACKMARK_NOEXCEPT;

/* Gives a heap back. Its memory goes when its collector and allocators are gone, too. NULL is
   allowed. */
void stackmark_heap_release(stackmark_heap *heap) STACKMARK_NOEXCEPT;

/* Registers where references lie: in objects of `words` words, or arrays of such elements, in the
   `count` words of each whose indices `references` has. `*out` is the descriptor's number, the same
   for the same pattern. Errors: INVALID, also when the heap has as many as it can. */
int stackmark_descriptor(stackmark_heap *heap, size_t words, const uint32_t *references,
                         size_t count, uint32_t *out) STACKMARK_NOEXCEPT;

/* Makes an allocator, for one thread at a time: each machine has one. Two that use it at the same
   time would get one object; a debug build of the library ends the process then, where it sees it.
   Owned: stackmark_allocator_free(). Errors: INVALID, NO_MEMORY. */
int stackmark_allocator_new(stackmark_heap *heap, stackmark_allocator **out) STACKMARK_NOEXCEPT;
void stackmark_allocator_free(stackmark_allocator *allocator) STACKMARK_NOEXCEPT;

/* Allocation in managed code, inline. The slot for a descriptor and a size is at
   stackmark_allocator_slots() of the thread's allocator plus stackmark_slot_offset(): load the word
   at STACKMARK_SLOT_CURSOR, add the size of the cell; if the sum is at most the word at
   STACKMARK_SLOT_END, store it as the cursor: the old value is the object, all zero. Otherwise call
   native code that calls stackmark_allocate(). There is no safepoint from the load to the store. */
#define STACKMARK_SLOT_CURSOR 0
#define STACKMARK_SLOT_END 8
uintptr_t stackmark_allocator_slots(const stackmark_allocator *allocator) STACKMARK_NOEXCEPT;

/* The slot's offset and the size of its cells, both in bytes. Errors: INVALID: objects of so many
   bytes are too large for a slot. */
int stackmark_slot_offset(uint32_t descriptor, size_t bytes, size_t *cell, size_t *offset)
    STACKMARK_NOEXCEPT;

/* A new object of `bytes` bytes, all zero, aligned to 8 bytes, and to 16 when its size is a
   multiple of 16. It stays as long as the thread counts as running and passes no safepoint, or
   something refers to it. If the heap is full, waits for a collection, as a foreign call: this
   native function has no other reference in a plain word then. NATIVE. Errors: INVALID,
   NOT_ATTACHED, OUTSIDE, HEAP_FULL. */
int stackmark_allocate(stackmark_collector *collector, stackmark_allocator *allocator,
                       uint32_t descriptor, size_t bytes, uintptr_t *out) STACKMARK_NOEXCEPT;

/* The same without waiting. RUNNING. Errors: INVALID, OUTSIDE, HEAP_FULL. */
int stackmark_allocate_now(stackmark_allocator *allocator, uint32_t descriptor, size_t bytes,
                           uintptr_t *out) STACKMARK_NOEXCEPT;

/* ---------------------------------------------------------------------- A heap of one's own --- */

/* What a heap has counted since it was made. */
typedef struct stackmark_heap_counts {
    size_t size;
    uint64_t allocated_bytes;
    uint64_t objects_marked;
    uint64_t objects_swept;
    uint64_t live_bytes;
    uint64_t resident_bytes;
} stackmark_heap_counts;

/* A heap whose objects do not move. A cycle, as it sees it: finish_sweep; begin_cycle; resolve,
   mark and trace from many threads while others allocate; end_cycle in a stopped world;
   finish_sweep and release. Objects that are handed out from begin_cycle to end_cycle count as
   marked, and are not traced. What was marked, or handed out meanwhile, stays until the next cycle.
   Before an object is handed out, stackmark_admit() has admitted the thread. Those without "may be
   NULL" are set. None throws or calls a function of this header.

   Where they are called. resolve, is_marked and prefetch: on any thread, at the same time, also
   under locks of the library; a goroutine's own thread calls them in a poll, in stackmark_store(),
   or on its way back into a frame. mark, object_size and trace: on the collector's threads, and on
   the threads in stackmark_handed_out(). counts: on those, and in stackmark_get_statistics().
   The others: on the collector's own thread alone, but for keep_marks and the first set_trigger,
   which stackmark_collector_start_on() calls. In a stopped world: end_cycle and set_trigger; there
   also resolve, mark, is_marked, object_size, trace, counts and allocated_since_cycle.

   Locks. Each of them may take locks of the heap. While a thread holds one, it does not call a
   function of this header, runs no managed code, and waits for no goroutine, no collection and no
   thread that does: the world might wait for it, or a lock of the library. It may be RUNNING
   meanwhile or not. */
typedef struct stackmark_heap_functions {
    size_t size;
    void *user;
    /* The address of the object that `word` points to or into; 0 if there is none. Any word comes.
       */
    uintptr_t (*resolve)(void *user, uintptr_t word);
    /* Marks an object. 1 if it was unmarked: of several threads, one gets that. */
    int (*mark)(void *user, uintptr_t object);
    /* Whether it is marked. */
    int (*is_marked)(void *user, uintptr_t object);
    /* Its size in bytes. */
    size_t (*object_size)(void *user, uintptr_t object);
    /* Writes to `words` up to `capacity` words of the object that may be references, from those at
       byte offsets in `*from` .. `to`; moves `*from` behind them, to `to` if that was all. Returns
       how many. Offsets beyond the object's size have none. Words are loaded whole: others store
       meanwhile. */
    size_t (*trace)(void *user, uintptr_t object, size_t *from, size_t to, uintptr_t *words,
                    size_t capacity);
    /* From now on objects are handed out marked, on every thread. */
    void (*begin_cycle)(void *user);
    /* They no longer are, and what is unmarked is garbage. `objects` and `bytes` are what mark()
       has newly marked. */
    void (*end_cycle)(void *user, uint64_t objects, uint64_t bytes);
    /* Completes the sweep of the last cycle. */
    void (*finish_sweep)(void *user);
    /* stackmark_reached_trigger() is to be called once, when so many bytes have been handed out
       since the last end_cycle. */
    void (*set_trigger)(void *user, size_t bytes);
    /* Bytes handed out since the last end_cycle. */
    size_t (*allocated_since_cycle)(void *user);
    /* Fills in the counts. */
    void (*counts)(void *user, stackmark_heap_counts *counts);
    /* Whether a word may be a reference, at a glance; if so, prefetches. May be NULL. */
    int (*prefetch)(void *user, uintptr_t word);
    /* Gives memory back until about `keep` bytes are resident. May be NULL. */
    void (*release)(void *user, size_t keep);
    /* Whether marks stay from cycle to cycle, if `keep` is not 0. Returns 0 if the heap cannot do
       as it is told. For generations: kept marks are cleared by clear_marks only. Called once,
       before the first cycle. May be NULL: marks do not stay, and `generational` is refused. */
    int (*keep_marks)(void *user, int keep);
    /* Clears kept marks, at the beginning of a major cycle, while others allocate and look at
       marks. May be NULL if keep_marks is. */
    void (*clear_marks)(void *user);
} stackmark_heap_functions;

/* Whether the thread may be handed an object now. RUNNING. Errors: OUTSIDE; INVALID: it belongs to
   another runtime. */
int stackmark_admit(stackmark_collector *collector) STACKMARK_NOEXCEPT;

/* Says that the thread was handed `bytes` bytes more, between begin_cycle and end_cycle, about
   every 16 KiB. It may mark for a while, or wait. RUNNING, without a lock of the heap. Errors:
   INVALID, OUTSIDE. */
int stackmark_handed_out(stackmark_collector *collector, size_t bytes) STACKMARK_NOEXCEPT;

/* Says that the heap has grown to its trigger. Without a lock of the heap. Errors: INVALID. */
int stackmark_reached_trigger(stackmark_collector *collector) STACKMARK_NOEXCEPT;

/* ---------------------------------------------------------------------------- The collector --- */

/* stackmark_collector_config.write_barrier */
enum {
    STACKMARK_BARRIER_INSERTION = 0, /* a store reports what it stores */
    STACKMARK_BARRIER_HYBRID = 1     /* and what it overwrites: no stack is visited twice */
};

typedef struct stackmark_collector_config {
    size_t size;
    size_t workers;              /* threads that mark, at most 256; 0: a quarter of the cores */
    size_t memory_limit;         /* what objects and stacks should use, in bytes; 0: no limit */
    size_t nursery;              /* bytes from one minor cycle to the next; 0: 4 MiB */
    uint32_t percent;            /* how much the heap grows until the next cycle; 0: 100;
                                    UINT32_MAX: growth makes no cycles */
    uint32_t write_barrier;      /* STACKMARK_BARRIER_... */
    uint32_t generational;       /* minor cycles between the major ones */
    uint32_t whole_scans;        /* for comparisons: minor cycles scan stacks whole */
    uint32_t verify;             /* for debugging: after each mark, look for what it has missed */
    uint32_t collect_every_poll; /* for debugging: a collection at each poll */
} stackmark_collector_config;

/* Starts a collector over the default heap. A heap and a runtime have one in their lives. Owned:
   stackmark_collector_stop(). `config` may be NULL. Errors: INVALID, IN_USE, SYSTEM. */
int stackmark_collector_start(stackmark_runtime *runtime, stackmark_heap *heap,
                              const stackmark_collector_config *config,
                              stackmark_collector **out) STACKMARK_NOEXCEPT;

/* The same over a heap of one's own. */
int stackmark_collector_start_on(stackmark_runtime *runtime,
                                 const stackmark_heap_functions *heap,
                                 const stackmark_collector_config *config,
                                 stackmark_collector **out) STACKMARK_NOEXCEPT;

/* Ends its threads, after the cycle that runs, and gives it back. Requests that have not begun are
   dropped: their `done` is not called. What it has given out is given back before: barriers,
   handles, weak references; so machines that keep one are detached. Callbacks of
   stackmark_on_unreachable() that are due are not called any more. Goroutines may be left: nothing
   is collected from then on, and a full heap is an error. The heap's functions are not called any
   more when this returns. NULL is allowed. OUTSIDE, and not in a function that the collector
   calls. */
void stackmark_collector_stop(stackmark_collector *collector) STACKMARK_NOEXCEPT;

/* Waits for a cycle that begins now and collects everything. OUTSIDE, so in a goroutine within a
   foreign call, and not in a function that a collector calls. Errors: INVALID. */
int stackmark_collect(stackmark_collector *collector) STACKMARK_NOEXCEPT;

/* Asks for such a cycle, or for a minor one, and does not wait. When it is complete, the
   collector's thread calls `done(user)`, which may be NULL, is short, and may call
   stackmark_ready(). Errors: INVALID. */
int stackmark_request_collection(stackmark_collector *collector, int is_minor,
                                 void (*done)(void *user), void *user) STACKMARK_NOEXCEPT;

/* Makes the words from `from` to `to` roots, from the next cycle on: global variables. They stay
   mapped as long as the collector, and references are stored with the write barrier.
   Errors: INVALID. */
int stackmark_add_globals(stackmark_collector *collector, uintptr_t from,
                          uintptr_t to) STACKMARK_NOEXCEPT;

/* ---------------------------------------------------------------------------- Write barrier --- */

/* The address of a byte. Before managed or native code stores a reference to anything but its own
   frame, it loads the byte; if that is not 0, it calls stackmark_store() with the thread's buffer,
   and with the hybrid barrier stackmark_shade_overwritten() with the word that is there. Both come
   before the store, with no safepoint in between. That goes for the first stores into a new object,
   too: it may be marked already, and what it refers to would be lost. A constant of the
   collector. */
uintptr_t stackmark_barrier_flag(const stackmark_collector *collector) STACKMARK_NOEXCEPT;

/* Makes a thread's buffer of stores: each machine has one. Owned: stackmark_barrier_free().
   Errors: INVALID. */
int stackmark_barrier_new(stackmark_collector *collector,
                          stackmark_barrier **out) STACKMARK_NOEXCEPT;
void stackmark_barrier_free(stackmark_barrier *barrier) STACKMARK_NOEXCEPT;

/* `word` is about to be stored at the address `to`. RUNNING, the buffer's thread, without a lock of
   a heap of one's own. */
void stackmark_store(stackmark_barrier *barrier, uintptr_t word, uintptr_t to) STACKMARK_NOEXCEPT;

/* `word` is about to be stored somewhere. RUNNING, the buffer's thread. */
void stackmark_shade(stackmark_barrier *barrier, uintptr_t word) STACKMARK_NOEXCEPT;

/* `word` is about to be overwritten. Without effect with the insertion barrier. RUNNING, the
   buffer's thread. */
void stackmark_shade_overwritten(stackmark_barrier *barrier, uintptr_t word) STACKMARK_NOEXCEPT;

/* --------------------------------------------------------------- Roots that native code has --- */

/* Makes a handle: as long as it holds `word`, what that refers to is alive. Owned:
   stackmark_handle_free(). RUNNING, or another handle holds the object. Errors: INVALID. */
int stackmark_handle_new(stackmark_collector *collector, uintptr_t word,
                         stackmark_handle **out) STACKMARK_NOEXCEPT;

/* Its word. What it refers to is used as long as the handle holds it. */
uintptr_t stackmark_handle_get(const stackmark_handle *handle) STACKMARK_NOEXCEPT;

/* Has it hold another word, as stackmark_handle_new(). */
void stackmark_handle_set(stackmark_handle *handle, uintptr_t word) STACKMARK_NOEXCEPT;

/* Gives it back. NULL is allowed. */
void stackmark_handle_free(stackmark_handle *handle) STACKMARK_NOEXCEPT;

/* Makes a weak reference, which does not keep its object. Owned: stackmark_weak_free(). As
   stackmark_handle_new() otherwise. */
int stackmark_weak_new(stackmark_collector *collector, uintptr_t word,
                       stackmark_weak **out) STACKMARK_NOEXCEPT;

/* Its word, or 0 if the object is gone. RUNNING. */
uintptr_t stackmark_weak_get(const stackmark_weak *weak) STACKMARK_NOEXCEPT;

/* A handle on its object, owned, or NULL if the object is gone. */
stackmark_handle *stackmark_weak_upgrade(const stackmark_weak *weak) STACKMARK_NOEXCEPT;
void stackmark_weak_free(stackmark_weak *weak) STACKMARK_NOEXCEPT;

/* Has `f(user, handle)` called once, when the object has become unreachable but for weak
   references: on the collector's thread, after the cycle. `handle` is owned by `f`, and keeps the
   object. `f` is short, waits for no collection, and must not throw. As stackmark_handle_new()
   otherwise. */
int stackmark_on_unreachable(stackmark_collector *collector, uintptr_t word,
                             void (*f)(void *user, stackmark_handle *handle),
                             void *user) STACKMARK_NOEXCEPT;

/* Makes a map from objects to words. An entry does not keep its key, and keeps its value as long as
   the key lives. Owned: stackmark_weak_map_free(). Errors: INVALID. */
int stackmark_weak_map_new(stackmark_collector *collector,
                           stackmark_weak_map **out) STACKMARK_NOEXCEPT;

/* Adds or replaces an entry. RUNNING. */
void stackmark_weak_map_insert(stackmark_weak_map *map, uintptr_t key,
                               uintptr_t value) STACKMARK_NOEXCEPT;

/* Whether there is an entry: 1 or 0. Its value goes to `value`, which may be NULL. RUNNING. */
int stackmark_weak_map_get(const stackmark_weak_map *map, uintptr_t key,
                           uintptr_t *value) STACKMARK_NOEXCEPT;

/* The same, and removes it. */
int stackmark_weak_map_remove(stackmark_weak_map *map, uintptr_t key,
                              uintptr_t *value) STACKMARK_NOEXCEPT;

/* How many entries there are. */
size_t stackmark_weak_map_count(const stackmark_weak_map *map) STACKMARK_NOEXCEPT;
void stackmark_weak_map_free(stackmark_weak_map *map) STACKMARK_NOEXCEPT;

/* ------------------------------------------------------------------------------- Statistics --- */

/* What was counted so far. Times are in nanoseconds. */
typedef struct stackmark_statistics {
    size_t size;
    uint64_t cycles;       /* completed */
    uint64_t minor_cycles; /* of them */
    uint64_t pauses;       /* stops of the world */
    uint64_t pause_p50_ns;
    uint64_t pause_p99_ns;
    uint64_t pause_max_ns;
    uint64_t holds; /* of single goroutines */
    uint64_t hold_p50_ns;
    uint64_t hold_p99_ns;
    uint64_t hold_max_ns;
    uint64_t frames_scanned_stopped;   /* while their goroutine was held */
    uint64_t frames_scanned_running;   /* while it ran or was free to */
    uint64_t frames_scanned_returning; /* by the goroutine, before it returned into them */
    uint64_t frames_rescanned;
    uint64_t frames_skipped; /* not scanned again, thanks to barriers */
    uint64_t frames_kept;    /* not scanned in minor cycles */
    uint64_t barriers_placed;
    uint64_t barriers_hit;
    uint64_t barriers_leapfrogged;
    uint64_t barriers_removed;
    uint64_t goroutines_started;
    uint64_t stacks_grown;
    uint64_t stacks_shrunk;
    uint64_t stack_moved_bytes;
    uint64_t stack_deepest_bytes;
    uint64_t stack_resident_bytes;
    uint64_t heap_allocated_bytes;
    uint64_t heap_objects_marked;
    uint64_t heap_objects_swept;
    uint64_t heap_live_bytes;
    uint64_t heap_resident_bytes;
} stackmark_statistics;

/* Fills in what was counted. Errors: INVALID. */
int stackmark_get_statistics(const stackmark_collector *collector,
                             stackmark_statistics *statistics) STACKMARK_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
