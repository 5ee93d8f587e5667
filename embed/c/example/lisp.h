/* A small Lisp on Stackmark: what its parts share. */
#ifndef LISP_H
#define LISP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stackmark.h>

#if !defined(__x86_64__)
#error "the code generator makes code for x86-64"
#endif

/* Values are words. A number n is 2n + NUMBER: odd, and far from every address, so that no number
   is taken for a reference or for an address in the stack. Addresses of objects are even. Their
   range is -LARGEST_NUMBER - 1 .. LARGEST_NUMBER: twice that, with its sign, is NUMBER_RANGE. */
#define NUMBER ((UINT64_C(1) << 62) + 1)
#define NUMBER_RANGE (UINT64_C(1) << 61)
#define LARGEST_NUMBER ((INT64_C(1) << 60) - 1)
#define NIL UINT64_C(2)
#define TRUE UINT64_C(6)

static inline uintptr_t number(int64_t n) {
    return (uintptr_t)n * 2 + NUMBER;
}

static inline int64_t value_of(uintptr_t word) {
    return (int64_t)(word - NUMBER) >> 1;
}

/* The first word of an object says what it is. */
enum { PAIR = 1, CLOSURE, BOX, VECTOR, CHANNEL, SYMBOL, STRING };

struct pair { uintptr_t tag, car, cdr; };
struct closure { uintptr_t tag, code, free[]; };
struct box { uintptr_t tag, value; };
struct vector { uintptr_t tag, length, at[]; };
struct channel { uintptr_t tag, queue; };
/* These two are no objects of the heap: they live for ever. */
struct symbol { uintptr_t tag; char *name; int global; };
struct string { uintptr_t tag; char *text; };

static inline bool is(uintptr_t word, uintptr_t tag) {
    return (word & 7) == 0 && word != 0 && *(uintptr_t *)word == tag;
}

/* Ends the process with a message for people. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Memory that is never given back: constants, and the compiler's own data. */
void *forever(size_t bytes);

/* reader.c: the expressions of a text, as one list of constants. */
uintptr_t read_all(const char *text);
struct symbol *symbol(const char *name);
uintptr_t constant_pair(uintptr_t car, uintptr_t cdr);
/* The number that a text is; 0 if it is none. */
uintptr_t read_number(const char *text);
/* Appends what a value looks like. The text's memory is the caller's to free. */
struct text { char *start; size_t length, room; };
void append(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void print(struct text *text, uintptr_t value);

/* compiler.c: the code of a program, as a closure without parameters. */
struct closure *compile(uintptr_t forms);
/* Where a goroutine begins: it calls the closure that is its argument. */
extern uintptr_t entry;

/* runtime.c */
enum { MOST_GLOBALS = 4096 };
extern uintptr_t globals[MOST_GLOBALS];
extern stackmark_runtime *runtime;
extern stackmark_heap *heap;
extern stackmark_collector *collector;
extern uint32_t references; /* the descriptor of all objects */
void ok(int code);

/* Native functions that code calls through call_system. */
enum { NOT_NUMBERS, NOT_A_PAIR, NOT_A_CLOSURE, WRONG_ARITY, OVERFLOW, NOT_A_VECTOR, BAD_INDEX };
stackmark_native native_fail, native_allocate, native_store, native_make_vector, native_display,
    native_newline, native_go, native_channel, native_send, native_receive, native_collect,
    native_cycles;

#endif
