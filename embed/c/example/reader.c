/* Reads expressions, and prints values. */
#include "lisp.h"
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *at;
static struct symbol *symbols[MOST_GLOBALS];
static int symbol_count;

struct symbol *symbol(const char *name) {
    for (int i = 0; i < symbol_count; i++)
        if (strcmp(symbols[i]->name, name) == 0)
            return symbols[i];
    if (symbol_count == MOST_GLOBALS)
        fail("more than %d symbols", MOST_GLOBALS);
    struct symbol *new = forever(sizeof *new);
    *new = (struct symbol){SYMBOL, strcpy(forever(strlen(name) + 1), name), symbol_count};
    /* A name without a definition is nil, which no operation takes. */
    globals[symbol_count] = NIL;
    return symbols[symbol_count++] = new;
}

uintptr_t constant_pair(uintptr_t car, uintptr_t cdr) {
    struct pair *pair = forever(sizeof *pair);
    *pair = (struct pair){PAIR, car, cdr};
    return (uintptr_t)pair;
}

static void skip(void) {
    for (;; at++) {
        if (*at == ';')
            while (*at != 0 && *at != '\n')
                at++;
        if (*at == 0 || !isspace((unsigned char)*at))
            return;
    }
}

uintptr_t read_number(const char *text) {
    char *rest;
    errno = 0;
    long long n = strtoll(text, &rest, 10);
    if (rest == text || *rest != 0)
        return 0;
    if (errno == ERANGE || n > LARGEST_NUMBER || n < -LARGEST_NUMBER - 1)
        fail("the number %s is too large", text);
    return number(n);
}

static uintptr_t read_one(void);

static uintptr_t read_list(char end) {
    skip();
    if (*at == end) {
        at += end != 0;
        return NIL;
    }
    if (*at == 0)
        fail("a list without an end");
    uintptr_t car = read_one();
    return constant_pair(car, read_list(end));
}

static uintptr_t read_one(void) {
    char token[256];
    size_t length = 0;
    skip();
    switch (*at) {
    case '(':
        at++;
        return read_list(')');
    case ')':
        fail("a ) too many");
    case '\'':
        at++;
        return constant_pair((uintptr_t)symbol("quote"), constant_pair(read_one(), NIL));
    case '"': {
        const char *end = strchr(at + 1, '"');
        if (end == NULL)
            fail("a string without an end");
        struct string *string = forever(sizeof *string);
        length = (size_t)(end - at - 1);
        *string = (struct string){STRING, memcpy(forever(length + 1), at + 1, length)};
        at = end + 1;
        return (uintptr_t)string;
    }
    default:
        while (*at != 0 && !isspace((unsigned char)*at) && strchr("()';\"", *at) == NULL) {
            if (length + 1 == sizeof token)
                fail("a name is too long");
            token[length++] = *at++;
        }
        token[length] = 0;
        uintptr_t value = read_number(token);
        if (value != 0)
            return value;
        if (strcmp(token, "#t") == 0)
            return TRUE;
        if (strcmp(token, "#f") == 0 || strcmp(token, "nil") == 0)
            return NIL;
        return (uintptr_t)symbol(token);
    }
}

uintptr_t read_all(const char *text) {
    at = text;
    return read_list(0);
}

void append(struct text *text, const char *format, ...) {
    va_list arguments;
    for (;;) {
        size_t left = text->room - text->length;
        va_start(arguments, format);
        int length = vsnprintf(left == 0 ? NULL : text->start + text->length, left, format,
                               arguments);
        va_end(arguments);
        if (length >= 0 && (size_t)length < left) {
            text->length += (size_t)length;
            return;
        }
        text->room = 2 * text->room + (size_t)length + 64;
        text->start = realloc(text->start, text->room);
        if (text->start == NULL)
            fail("no memory");
    }
}

void print(struct text *text, uintptr_t value) {
    if (value & 1) {
        append(text, "%lld", (long long)value_of(value));
    } else if (value == NIL) {
        append(text, "()");
    } else if (value == TRUE) {
        append(text, "#t");
    } else if (is(value, SYMBOL)) {
        append(text, "%s", ((struct symbol *)value)->name);
    } else if (is(value, STRING)) {
        append(text, "%s", ((struct string *)value)->text);
    } else if (is(value, PAIR)) {
        const char *before = "(";
        for (; is(value, PAIR); value = ((struct pair *)value)->cdr, before = " ") {
            append(text, "%s", before);
            print(text, ((struct pair *)value)->car);
        }
        if (value != NIL) {
            append(text, " . ");
            print(text, value);
        }
        append(text, ")");
    } else if (is(value, VECTOR)) {
        struct vector *vector = (struct vector *)value;
        append(text, "#(");
        for (uintptr_t i = 0; i < vector->length; i++) {
            append(text, "%s", i == 0 ? "" : " ");
            print(text, vector->at[i]);
        }
        append(text, ")");
    } else {
        append(text, "%s", is(value, CLOSURE) ? "#<procedure>" : "#<channel>");
    }
}
