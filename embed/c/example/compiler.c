/* From expressions to machine code. First an expression becomes a tree, in which each variable is
   found; then the tree becomes code, function by function.

   A frame has a fixed number of slots, and the slot `i` is at rbp - 8 (i + 1). Slot 0 holds the
   closure, then come parameters, variables and the values of expressions that are not done. All
   slots are zero at first, and every slot is in the stack map of every call: so nothing has to be
   known of a value's life. An expression leaves its value in rax.

   Registers: a closure is called with itself in rdi, its arguments in rsi, rdx, rcx, r8 and r9,
   their number in r11. r15 is the goroutine, r14 and r13 are constants for numbers. */
#define _DEFAULT_SOURCE
#include "lisp.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9, R10, R11, R12, R13, R14, R15 };
enum { MOST_PARAMETERS = 5, MOST_SLOTS = 100, MOST_NAMES = 64 };
static const int argument_registers[] = {RSI, RDX, RCX, R8, R9};

/* ------------------------------------------------------------------------------------ Trees --- */

struct function;

struct variable {
    struct symbol *name;
    struct function *function;
    bool captured, assigned;
    int slot;
};

enum kind { CONSTANT, LOCAL, GLOBAL, SET_LOCAL, SET_GLOBAL, IF, SEQUENCE, LET, LAMBDA, CALL,
            PRIMITIVE, WHILE };

struct node {
    enum kind kind;
    uintptr_t constant; /* or the number of a global, or of a primitive */
    struct variable *variable;
    struct function *function;
    int count;
    struct node **parts;
};

struct function {
    struct function *parent;
    struct variable *scope[MOST_NAMES]; /* what is visible, the innermost last */
    int visible;
    struct variable *parameters[MOST_PARAMETERS];
    int parameter_count;
    struct variable *free[MOST_NAMES];
    int free_count;
    struct node *body;
    const char *name;
};

enum primitive { ADD, SUBTRACT, MULTIPLY, QUOTIENT, REMAINDER, LESS, GREATER, AT_MOST, AT_LEAST,
                 EQUAL, EQ, CONS, CAR, CDR, IS_NULL, IS_PAIR, IS_NUMBER, IS_SYMBOL, VECTOR_REF,
                 VECTOR_SET, VECTOR_LENGTH, MAKE_VECTOR, DISPLAY, NEWLINE, GO, MAKE_CHANNEL, SEND,
                 RECEIVE, COLLECT, CYCLES };

static const struct { const char *name; int count; } primitives[] = {
    [ADD] = {"+", 2},              [SUBTRACT] = {"-", 2},       [MULTIPLY] = {"*", 2},
    [QUOTIENT] = {"quotient", 2},  [REMAINDER] = {"remainder", 2},
    [LESS] = {"<", 2},             [GREATER] = {">", 2},        [AT_MOST] = {"<=", 2},
    [AT_LEAST] = {">=", 2},        [EQUAL] = {"=", 2},          [EQ] = {"eq?", 2},
    [CONS] = {"cons", 2},          [CAR] = {"car", 1},          [CDR] = {"cdr", 1},
    [IS_NULL] = {"null?", 1},      [IS_PAIR] = {"pair?", 1},    [IS_NUMBER] = {"number?", 1},
    [IS_SYMBOL] = {"symbol?", 1},
    [VECTOR_REF] = {"vector-ref", 2}, [VECTOR_SET] = {"vector-set!", 3},
    [VECTOR_LENGTH] = {"vector-length", 1}, [MAKE_VECTOR] = {"make-vector", 2},
    [DISPLAY] = {"display", 1},    [NEWLINE] = {"newline", 0},  [GO] = {"go", 1},
    [MAKE_CHANNEL] = {"make-channel", 0}, [SEND] = {"send", 2}, [RECEIVE] = {"receive", 1},
    [COLLECT] = {"collect", 0},    [CYCLES] = {"cycles", 0},
};
enum { PRIMITIVES = sizeof primitives / sizeof primitives[0] };

static uintptr_t car(uintptr_t list) {
    if (!is(list, PAIR))
        fail("a form is too short");
    return ((struct pair *)list)->car;
}

static uintptr_t cdr(uintptr_t list) {
    if (!is(list, PAIR))
        fail("a form is too short");
    return ((struct pair *)list)->cdr;
}

static int length(uintptr_t list) {
    int n = 0;
    for (; is(list, PAIR); list = cdr(list))
        n++;
    return n;
}

static struct symbol *name_of(uintptr_t word) {
    if (!is(word, SYMBOL))
        fail("a name is wanted");
    return (struct symbol *)word;
}

static bool named(uintptr_t word, const char *name) {
    return word == (uintptr_t)symbol(name);
}

static struct node *node(enum kind kind, int count) {
    struct node *new = forever(sizeof *new);
    new->kind = kind;
    new->count = count;
    new->parts = forever(sizeof *new->parts * (size_t)(count + 1));
    return new;
}

static struct node *constant(uintptr_t word) {
    struct node *new = node(CONSTANT, 0);
    new->constant = word;
    return new;
}

static struct variable *declare(struct function *function, struct symbol *name) {
    struct variable *variable = forever(sizeof *variable);
    *variable = (struct variable){.name = name, .function = function};
    if (function->visible == MOST_NAMES)
        fail("more than %d names in a function", MOST_NAMES);
    return function->scope[function->visible++] = variable;
}

/* The variable of that name, or NULL. Functions between here and there capture it. */
static struct variable *find(struct function *function, struct symbol *name) {
    if (function == NULL)
        return NULL;
    for (int i = function->visible - 1; i >= 0; i--)
        if (function->scope[i]->name == name)
            return function->scope[i];
    struct variable *outer = find(function->parent, name);
    if (outer == NULL)
        return NULL;
    outer->captured = true;
    for (int i = 0; i < function->free_count; i++)
        if (function->free[i] == outer)
            return outer;
    if (function->free_count == MOST_NAMES)
        fail("a function captures more than %d variables", MOST_NAMES);
    return function->free[function->free_count++] = outer;
}

static struct node *tree(struct function *function, uintptr_t form);

static struct node *assign(struct function *function, struct symbol *name, struct node *value) {
    struct variable *variable = find(function, name);
    struct node *new = node(variable != NULL ? SET_LOCAL : SET_GLOBAL, 1);
    new->parts[0] = value;
    if (variable != NULL)
        variable->assigned = true;
    new->variable = variable;
    new->constant = (uintptr_t)name->global;
    return new;
}

static struct node *lambda(struct function *parent, const char *name, uintptr_t parameters,
                           uintptr_t body);

/* (define NAME VALUE) or (define (NAME PARAMETERS...) BODY...) */
static struct node *define(struct function *function, uintptr_t form) {
    uintptr_t what = car(cdr(form));
    if (is(what, PAIR)) {
        struct symbol *name = name_of(car(what));
        return assign(function, name, lambda(function, name->name, cdr(what), cdr(cdr(form))));
    }
    return assign(function, name_of(what), tree(function, car(cdr(cdr(form)))));
}

/* Expressions, one after the other. Inner definitions are variables of all of them. */
static struct node *body_of(struct function *function, uintptr_t forms, bool is_inner) {
    int definitions = 0, visible = function->visible;
    for (uintptr_t rest = forms; is_inner && is(rest, PAIR); rest = cdr(rest))
        definitions += is(car(rest), PAIR) && named(car(car(rest)), "define");
    struct node *let = node(LET, 2 * definitions + 1), *sequence = node(SEQUENCE, length(forms));
    let->count = definitions;
    int n = 0;
    if (sequence->count == 0)
        fail("a body without forms");
    for (uintptr_t rest = forms; definitions > 0 && is(rest, PAIR); rest = cdr(rest)) {
        if (!is(car(rest), PAIR) || !named(car(car(rest)), "define"))
            continue;
        uintptr_t what = car(cdr(car(rest)));
        struct node *local = node(LOCAL, 0);
        local->variable = declare(function, name_of(is(what, PAIR) ? car(what) : what));
        let->parts[n++] = local;
        let->parts[n++] = constant(NIL);
    }
    for (int i = 0; i < sequence->count; i++, forms = cdr(forms))
        sequence->parts[i] = tree(function, car(forms));
    function->visible = visible;
    let->parts[n] = sequence;
    return definitions > 0 ? let : sequence;
}

static struct node *lambda(struct function *parent, const char *name, uintptr_t parameters,
                           uintptr_t body) {
    struct function *function = forever(sizeof *function);
    struct node *new = node(LAMBDA, 0);
    function->parent = parent;
    function->name = name;
    for (; is(parameters, PAIR); parameters = cdr(parameters)) {
        if (function->parameter_count == MOST_PARAMETERS)
            fail("%s: more than %d parameters", name, MOST_PARAMETERS);
        struct variable *variable = declare(function, name_of(car(parameters)));
        function->parameters[function->parameter_count++] = variable;
    }
    function->body = body_of(function, body, parent != NULL);
    new->function = function;
    return new;
}

/* (let ((NAME VALUE)...) BODY...), or let*: each value sees the names before it. */
static struct node *let(struct function *function, uintptr_t bindings, uintptr_t body,
                        bool in_turn) {
    int count = length(bindings), visible = function->visible;
    if (visible + count > MOST_NAMES)
        fail("more than %d names in one place", MOST_NAMES);
    struct node *new = node(LET, 2 * count + 1);
    struct variable *variables[MOST_NAMES];
    new->count = count;
    for (int i = 0; i < count; i++, bindings = cdr(bindings)) {
        struct node *local = node(LOCAL, 0), *value = tree(function, car(cdr(car(bindings))));
        variables[i] = local->variable = declare(function, name_of(car(car(bindings))));
        if (!in_turn)
            function->visible--;
        new->parts[2 * i] = local;
        new->parts[2 * i + 1] = value;
    }
    for (int i = 0; !in_turn && i < count; i++)
        function->scope[function->visible++] = variables[i];
    new->parts[2 * count] = body_of(function, body, true);
    function->visible = visible;
    return new;
}

static uintptr_t list2(uintptr_t first, uintptr_t second) {
    return constant_pair(first, constant_pair(second, NIL));
}

static uintptr_t list3(uintptr_t first, uintptr_t second, uintptr_t third) {
    return constant_pair(first, list2(second, third));
}

static uintptr_t word(const char *name) {
    return (uintptr_t)symbol(name);
}

/* (let NAME ((VARIABLE VALUE)...) BODY...): a function that calls itself. */
static struct node *loop(struct function *function, uintptr_t form) {
    uintptr_t name = car(cdr(form)), bindings = car(cdr(cdr(form))), body = cdr(cdr(cdr(form)));
    uintptr_t names = NIL, values = NIL;
    for (int i = length(bindings) - 1; i >= 0; i--) {
        uintptr_t rest = bindings;
        for (int k = 0; k < i; k++)
            rest = cdr(rest);
        names = constant_pair(car(car(rest)), names);
        values = constant_pair(car(cdr(car(rest))), values);
    }
    uintptr_t definition =
        constant_pair(word("define"), constant_pair(constant_pair(name, names), body));
    uintptr_t scope = list3(word("let"), NIL, definition);
    ((struct pair *)cdr(cdr(scope)))->cdr = constant_pair(name, NIL);
    return tree(function, constant_pair(scope, values));
}

/* (cond (TEST BODY...)... (else BODY...)) */
static uintptr_t cond(uintptr_t clauses) {
    if (!is(clauses, PAIR))
        return NIL;
    uintptr_t clause = car(clauses), body = constant_pair(word("begin"), cdr(clause));
    if (named(car(clause), "else"))
        return body;
    return constant_pair(word("if"), list3(car(clause), body, cond(cdr(clauses))));
}

static struct node *call(struct function *function, uintptr_t form) {
    int count = length(form);
    struct node *new;
    for (int i = 0; i < PRIMITIVES && is(car(form), SYMBOL); i++) {
        if (!named(car(form), primitives[i].name) || find(function, name_of(car(form))) != NULL)
            continue;
        if (count - 1 != primitives[i].count)
            fail("%s takes %d arguments", primitives[i].name, primitives[i].count);
        new = node(PRIMITIVE, count - 1);
        new->constant = (uintptr_t)i;
        for (int k = 0; k < new->count; k++)
            new->parts[k] = tree(function, car(form = cdr(form)));
        return new;
    }
    if (count - 1 > MOST_PARAMETERS)
        fail("a call with more than %d arguments", MOST_PARAMETERS);
    new = node(CALL, count);
    for (int i = 0; i < count; i++, form = cdr(form))
        new->parts[i] = tree(function, car(form));
    return new;
}

static struct node *tree(struct function *function, uintptr_t form) {
    struct node *new;
    if (is(form, SYMBOL)) {
        struct variable *variable = find(function, name_of(form));
        new = node(variable != NULL ? LOCAL : GLOBAL, 0);
        new->variable = variable;
        new->constant = (uintptr_t)name_of(form)->global;
        return new;
    }
    if (!is(form, PAIR))
        return constant(form);
    uintptr_t head = car(form), rest = cdr(form);
    if (named(head, "quote"))
        return constant(car(rest));
    if (named(head, "define"))
        return define(function, form);
    if (named(head, "set!"))
        return assign(function, name_of(car(rest)), tree(function, car(cdr(rest))));
    if (named(head, "lambda"))
        return lambda(function, "lambda", car(rest), cdr(rest));
    if (named(head, "begin"))
        return is(rest, PAIR) ? body_of(function, rest, function->parent != NULL) : constant(NIL);
    if (named(head, "let") && is(car(rest), SYMBOL))
        return loop(function, form);
    if (named(head, "let") || named(head, "let*"))
        return let(function, car(rest), cdr(rest), named(head, "let*"));
    if (named(head, "cond"))
        return tree(function, cond(rest));
    if (named(head, "not"))
        return tree(function, constant_pair(word("if"), list3(car(rest), NIL, TRUE)));
    if (named(head, "list")) {
        if (!is(rest, PAIR))
            return constant(NIL);
        uintptr_t others = constant_pair(word("list"), cdr(rest));
        return tree(function, list3(word("cons"), car(rest), others));
    }
    if (named(head, "and")) {
        if (!is(rest, PAIR))
            return constant(TRUE);
        if (!is(cdr(rest), PAIR))
            return tree(function, car(rest));
        uintptr_t others = constant_pair(word("and"), cdr(rest));
        return tree(function, constant_pair(word("if"), list3(car(rest), others, NIL)));
    }
    if (named(head, "or")) {
        if (!is(rest, PAIR))
            return constant(NIL);
        uintptr_t others = constant_pair(word("or"), cdr(rest)), value = word(" or");
        uintptr_t choice = constant_pair(word("if"), list3(value, value, others));
        uintptr_t bindings = constant_pair(list2(value, car(rest)), NIL);
        return is(cdr(rest), PAIR) ? tree(function, list3(word("let"), bindings, choice))
                                   : tree(function, car(rest));
    }
    if (named(head, "if") || named(head, "while")) {
        bool is_if = named(head, "if");
        new = node(is_if ? IF : WHILE, is_if ? 3 : 2);
        new->parts[0] = tree(function, car(rest));
        rest = cdr(rest);
        new->parts[1] = is_if ? tree(function, car(rest)) : body_of(function, rest, true);
        if (is_if)
            new->parts[2] = is(cdr(rest), PAIR) ? tree(function, car(cdr(rest))) : constant(NIL);
        return new;
    }
    return call(function, form);
}

/* ------------------------------------------------------------------------- The code's place --- */

enum { MOST_CODE = 1 << 22, MOST_BODY = 1 << 18, MOST_FUNCTIONS = 4096, MOST_CALLS = 1 << 16 };

static uint8_t *code; /* everything */
static size_t code_length;
static uint8_t *frames; /* the .eh_frame */
static size_t frames_length;
static stackmark_function functions[MOST_FUNCTIONS];
static size_t function_count;
static stackmark_safepoint safepoints[MOST_CALLS];
static size_t safepoint_count;
uintptr_t entry;

/* A function on its way to its place. */
struct body {
    struct function *function;
    uint8_t *bytes;
    size_t length;
    int slots, most_slots;
    size_t calls[2048];
    int call_count;
    struct { size_t jump; int failure; } failures[2048];
    int failure_count;
};

static void byte(struct body *body, int value) {
    if (body->length == MOST_BODY)
        fail("a function is too long");
    body->bytes[body->length++] = (uint8_t)value;
}

static void bytes(struct body *body, const char *hexadecimal) {
    for (; *hexadecimal != 0; hexadecimal += hexadecimal[2] == ' ' ? 3 : 2) {
        const char digits[] = {hexadecimal[0], hexadecimal[1], 0};
        byte(body, (int)strtol(digits, NULL, 16));
    }
}

static void word32(struct body *body, int64_t value) {
    for (int i = 0; i < 4; i++)
        byte(body, (int)(value >> (8 * i)) & 255);
}

static void load_word(struct body *body, int reg, uintptr_t value) {
    byte(body, 0x48 | reg >> 3);
    byte(body, 0xb8 | (reg & 7));
    for (int i = 0; i < 8; i++)
        byte(body, (int)(value >> (8 * i)) & 255);
}

/* An instruction on a register and memory at a register and an offset. */
static void on_memory(struct body *body, int opcode, int reg, int base, int offset) {
    byte(body, 0x48 | (reg >> 3) << 2 | base >> 3);
    byte(body, opcode);
    byte(body, 0x80 | (reg & 7) << 3 | (base & 7));
    word32(body, offset);
}

enum { LOAD = 0x8b, STORE = 0x89, ADDRESS = 0x8d, COMPARE_WITH = 0x3b, /* register and memory */
       PLUS = 0x01, MINUS = 0x29, COMPARE = 0x39, MOVE = 0x89 };       /* register and register */

static void on_registers(struct body *body, int opcode, int to, int from) {
    byte(body, 0x48 | (from >> 3) << 2 | to >> 3);
    byte(body, opcode);
    byte(body, 0xc0 | (from & 7) << 3 | (to & 7));
}

static void load_slot(struct body *body, int reg, int slot) {
    on_memory(body, LOAD, reg, RBP, -8 * (slot + 1));
}

static void store_slot(struct body *body, int reg, int slot) {
    on_memory(body, STORE, reg, RBP, -8 * (slot + 1));
}

enum { ALWAYS = 0xeb, EQUALS = 4, DIFFERS = 5, OVERFLOWS = 0, ABOVE = 7, NOT_BELOW = 3 };

/* A jump to be placed: to the end so far, by `here`. */
static size_t jump(struct body *body, int condition) {
    if (condition == ALWAYS) {
        byte(body, 0xe9);
    } else {
        byte(body, 0x0f);
        byte(body, 0x80 | condition);
    }
    word32(body, 0);
    return body->length;
}

static void place(struct body *body, size_t from, size_t to) {
    int32_t distance = (int32_t)((int64_t)to - (int64_t)from);
    memcpy(body->bytes + from - 4, &distance, 4);
}

static void here(struct body *body, size_t from) {
    place(body, from, body->length);
}

static void fail_if(struct body *body, int condition, int failure) {
    if (body->failure_count == 2048)
        fail("a function is too long");
    body->failures[body->failure_count].failure = failure;
    body->failures[body->failure_count++].jump = jump(body, condition);
}

static int new_slot(struct body *body) {
    if (body->slots == MOST_SLOTS)
        fail("%s: a frame of more than %d words", body->function->name, MOST_SLOTS);
    int slot = body->slots++;
    if (body->slots > body->most_slots)
        body->most_slots = body->slots;
    return slot;
}

/* A call: what it returns to is a safepoint. */
static void called(struct body *body) {
    if (body->call_count == 2048)
        fail("a function is too long");
    body->calls[body->call_count++] = body->length;
}

/* Calls native code with what is in rsi and rdx. */
static void call_native(struct body *body, stackmark_native *native) {
    load_word(body, RDI, (uintptr_t)native);
    load_word(body, RAX, stackmark_call_system_address());
    bytes(body, "ff d0"); /* call rax */
    called(body);
}

static void poll(struct body *body) {
    bytes(body, "31 f6 31 d2"); /* xor esi, esi; xor edx, edx */
    call_native(body, stackmark_poll);
}

/* Polls where that is asked for: in a loop, and behind a call, which may be a part of a recursion.
   What is in rax is kept in `slot` meanwhile. */
static void poll_if_asked(struct body *body, int slot) {
    bytes(body, "49 83 bf"); /* cmp qword [r15 + limit], -1 */
    word32(body, STACKMARK_G_STACK_LIMIT);
    byte(body, 0xff);
    size_t go_on = jump(body, DIFFERS);
    store_slot(body, RAX, slot);
    poll(body);
    load_slot(body, RAX, slot);
    here(body, go_on);
}

/* ------------------------------------------------------------------------------ Expressions --- */

static void expression(struct body *body, struct node *node);
static uintptr_t generate(struct function *function);

/* ANCHOR: allocate */
/* A new object of so many bytes, its address in rax. */
static void allocate(struct body *body, size_t size, uintptr_t tag) {
    size_t cell, offset;
    ok(stackmark_slot_offset(references, size, &cell, &offset));
    on_memory(body, LOAD, RCX, R15, STACKMARK_G_MACHINE_WORD);
    on_memory(body, LOAD, RAX, RCX, (int)offset + STACKMARK_SLOT_CURSOR);
    on_memory(body, ADDRESS, RDX, RAX, (int)cell);
    on_memory(body, COMPARE_WITH, RDX, RCX, (int)offset + STACKMARK_SLOT_END);
    size_t full = jump(body, ABOVE);
    on_memory(body, STORE, RDX, RCX, (int)offset + STACKMARK_SLOT_CURSOR);
    size_t done = jump(body, ALWAYS);
    here(body, full);
    load_word(body, RSI, size);
    bytes(body, "31 d2");
    call_native(body, native_allocate);
    here(body, done);
    bytes(body, "48 c7 00"); /* mov qword [rax], tag */
    word32(body, (int64_t)tag);
}
/* ANCHOR_END: allocate */

/* Stores rax to the address in rcx, by the write barrier; the value stays in rax. `slot` keeps it
   meanwhile. */
static void store(struct body *body, int slot) {
    load_word(body, RDX, stackmark_barrier_flag(collector));
    bytes(body, "80 3a 00"); /* cmp byte [rdx], 0 */
    size_t on = jump(body, DIFFERS);
    on_memory(body, STORE, RAX, RCX, 0);
    size_t done = jump(body, ALWAYS);
    here(body, on);
    store_slot(body, RAX, slot);
    on_registers(body, MOVE, RSI, RAX);
    on_registers(body, MOVE, RDX, RCX);
    call_native(body, native_store);
    load_slot(body, RAX, slot);
    here(body, done);
}

static bool is_boxed(struct variable *variable) {
    return variable->captured && variable->assigned;
}

/* Loads what a variable's slot, or its place in the closure, holds. */
static void load_variable(struct body *body, int reg, struct variable *variable) {
    struct function *function = body->function;
    if (variable->function == function) {
        load_slot(body, reg, variable->slot);
        return;
    }
    int i = 0;
    while (function->free[i] != variable)
        i++;
    load_slot(body, reg, 0);
    on_memory(body, LOAD, reg, reg, (int)offsetof(struct closure, free) + 8 * i);
}

/* Loads the `i`th word that a new object gets. */
typedef void load_value(struct body *body, int reg, const void *of, int i);

/* ANCHOR: fill */
/* Fills in a new object, whose address is in rax. It may be marked already, so that the collector
   does not look into it: the stores are reported while the barrier is on. */
static void fill(struct body *body, int offset, int count, load_value *load, const void *of) {
    int object = new_slot(body);
    store_slot(body, RAX, object);
    load_word(body, RDX, stackmark_barrier_flag(collector));
    bytes(body, "80 3a 00"); /* cmp byte [rdx], 0 */
    size_t on = jump(body, DIFFERS);
    for (int i = 0; i < count; i++) {
        load(body, RCX, of, i);
        on_memory(body, STORE, RCX, RAX, offset + 8 * i);
    }
    size_t done = jump(body, ALWAYS);
    here(body, on);
    for (int i = 0; i < count; i++) {
        load(body, RSI, of, i);
        load_slot(body, RDX, object);
        on_memory(body, ADDRESS, RDX, RDX, offset + 8 * i);
        call_native(body, native_store);
    }
    load_slot(body, RAX, object);
    here(body, done);
    body->slots--;
}
/* ANCHOR_END: fill */

static void from_slots(struct body *body, int reg, const void *first, int i) {
    load_slot(body, reg, *(const int *)first + i);
}

static void from_variables(struct body *body, int reg, const void *variables, int i) {
    load_variable(body, reg, ((struct variable *const *)variables)[i]);
}

/* Makes a box, if the variable needs one, for the value in its slot. */
static void box(struct body *body, struct variable *variable) {
    if (!is_boxed(variable))
        return;
    allocate(body, sizeof(struct box), BOX);
    fill(body, offsetof(struct box, value), 1, from_slots, &variable->slot);
    store_slot(body, RAX, variable->slot);
}

static void assignment(struct body *body, struct node *node) {
    int slot = new_slot(body);
    struct variable *variable = node->variable;
    expression(body, node->parts[0]);
    if (variable != NULL && !is_boxed(variable)) {
        store_slot(body, RAX, variable->slot);
    } else {
        if (variable == NULL) {
            load_word(body, RCX, (uintptr_t)&globals[node->constant]);
        } else {
            load_variable(body, RCX, variable);
            on_memory(body, ADDRESS, RCX, RCX, offsetof(struct box, value));
        }
        store(body, slot);
    }
    body->slots--;
}

static void closure(struct body *body, struct function *function) {
    uintptr_t start = generate(function);
    size_t size = sizeof(struct closure) + 8 * (size_t)function->free_count;
    allocate(body, size, CLOSURE);
    load_word(body, RCX, start);
    on_memory(body, STORE, RCX, RAX, offsetof(struct closure, code));
    fill(body, offsetof(struct closure, free), function->free_count, from_variables,
         function->free);
}

static void check_tag(struct body *body, int reg, int tag, int failure) {
    byte(body, reg == RAX ? 0xa8 : 0xf6); /* test its low byte with 7 */
    if (reg != RAX)
        byte(body, 0xc0 | reg);
    byte(body, 7);
    fail_if(body, DIFFERS, failure);
    bytes(body, "48 83"); /* cmp qword [reg], tag */
    byte(body, 0x38 | reg);
    byte(body, tag);
    fail_if(body, DIFFERS, failure);
}

static void call_closure(struct body *body, struct node *node) {
    int first = body->slots;
    for (int i = 0; i < node->count; i++) {
        int slot = new_slot(body);
        expression(body, node->parts[i]);
        store_slot(body, RAX, slot);
    }
    load_slot(body, RAX, first);
    check_tag(body, RAX, CLOSURE, NOT_A_CLOSURE);
    on_registers(body, MOVE, RDI, RAX);
    for (int i = 1; i < node->count; i++)
        load_slot(body, argument_registers[i - 1], first + i);
    bytes(body, "41 bb"); /* mov r11d, the number of arguments */
    word32(body, node->count - 1);
    on_memory(body, LOAD, RAX, RDI, offsetof(struct closure, code));
    bytes(body, "ff d0");
    called(body);
    poll_if_asked(body, first);
    body->slots = first;
}

/* Leaves #t in rax if the flags say so, or (). */
static void truth(struct body *body, int condition) {
    bytes(body, "b8 02 00 00 00 b9 06 00 00 00 48 0f"); /* mov eax, NIL; mov ecx, TRUE; cmov */
    byte(body, 0x40 | condition);
    byte(body, 0xc1);
}

/* The first operand in rcx, the second in rax. */
static void arithmetic(struct body *body, enum primitive primitive) {
    static const int conditions[] = {
        [LESS] = 12, [GREATER] = 15, [AT_MOST] = 14, [AT_LEAST] = 13, [EQUAL] = 4,
    };
    bytes(body, "a8 01"); /* test al, 1 */
    fail_if(body, EQUALS, NOT_NUMBERS);
    bytes(body, "f6 c1 01"); /* test cl, 1 */
    fail_if(body, EQUALS, NOT_NUMBERS);
    switch (primitive) {
    case ADD:
        on_registers(body, PLUS, RAX, RCX);
        on_registers(body, MINUS, RAX, R14);
        break;
    case SUBTRACT:
        on_registers(body, MINUS, RCX, RAX);
        on_registers(body, PLUS, RCX, R14);
        on_registers(body, MOVE, RAX, RCX);
        break;
    case MULTIPLY:
        on_registers(body, MINUS, RCX, R14);
        on_registers(body, MINUS, RAX, R14);
        bytes(body, "48 d1 f8 48 0f af c1"); /* sar rax, 1; imul rax, rcx */
        fail_if(body, OVERFLOWS, OVERFLOW);
        on_registers(body, PLUS, RAX, R14);
        break;
    case QUOTIENT:
    case REMAINDER:
        on_registers(body, MINUS, RCX, R14);
        on_registers(body, MINUS, RAX, R14);
        bytes(body, "48 d1 f9 48 d1 f8"); /* sar rcx, 1; sar rax, 1 */
        fail_if(body, EQUALS, OVERFLOW);
        bytes(body, "48 91 48 99 48 f7 f9"); /* xchg rax, rcx; cqo; idiv rcx */
        if (primitive == REMAINDER)
            on_registers(body, MOVE, RAX, RDX);
        on_registers(body, PLUS, RAX, RAX);
        on_registers(body, PLUS, RAX, R14);
        break;
    default:
        on_registers(body, COMPARE, RCX, RAX);
        truth(body, conditions[primitive]);
        return;
    }
    on_registers(body, MOVE, RCX, RAX);
    on_registers(body, PLUS, RCX, R13);
    bytes(body, "48 c1 e9 3e 83 f9 01"); /* shr rcx, 62; cmp ecx, 1 */
    fail_if(body, DIFFERS, OVERFLOW);
}

/* The vector in slot `first` to rcx, plus 8 times the index in the next slot. */
static void element(struct body *body, int first) {
    load_slot(body, RAX, first);
    check_tag(body, RAX, VECTOR, NOT_A_VECTOR);
    load_slot(body, RCX, first + 1);
    bytes(body, "f6 c1 01");
    fail_if(body, EQUALS, BAD_INDEX);
    on_registers(body, MINUS, RCX, R14);
    bytes(body, "48 d1 f9"); /* sar rcx, 1 */
    on_memory(body, COMPARE_WITH, RCX, RAX, offsetof(struct vector, length));
    fail_if(body, NOT_BELOW, BAD_INDEX);
    bytes(body, "48 8d 4c c8"); /* lea rcx, [rax + 8 rcx + at] */
    byte(body, offsetof(struct vector, at));
}

static void primitive(struct body *body, struct node *node) {
    static stackmark_native *const natives[] = {
        [MAKE_VECTOR] = native_make_vector, [DISPLAY] = native_display, [NEWLINE] = native_newline,
        [GO] = native_go, [MAKE_CHANNEL] = native_channel, [SEND] = native_send,
        [RECEIVE] = native_receive, [COLLECT] = native_collect, [CYCLES] = native_cycles,
    };
    enum primitive which = (enum primitive)node->constant;
    int first = body->slots;
    for (int i = 0; i < node->count; i++) {
        int slot = new_slot(body);
        expression(body, node->parts[i]);
        store_slot(body, RAX, slot);
    }
    switch (which) {
    case EQ:
        load_slot(body, RCX, first);
        on_registers(body, COMPARE, RCX, RAX);
        truth(body, EQUALS);
        break;
    case CONS:
        allocate(body, sizeof(struct pair), PAIR);
        fill(body, offsetof(struct pair, car), 2, from_slots, &first);
        break;
    case CAR:
    case CDR:
        check_tag(body, RAX, PAIR, NOT_A_PAIR);
        on_memory(body, LOAD, RAX, RAX,
                  which == CAR ? offsetof(struct pair, car) : offsetof(struct pair, cdr));
        break;
    case IS_NULL:
        bytes(body, "48 83 f8 02"); /* cmp rax, NIL */
        truth(body, EQUALS);
        break;
    case IS_NUMBER:
        bytes(body, "a8 01");
        truth(body, DIFFERS);
        break;
    case IS_PAIR:
    case IS_SYMBOL: {
        bytes(body, "a8 07");
        size_t no = jump(body, DIFFERS);
        bytes(body, "48 83 38");
        byte(body, which == IS_PAIR ? PAIR : SYMBOL);
        here(body, no); /* the flags say it on both ways */
        truth(body, EQUALS);
        break;
    }
    case VECTOR_REF:
        element(body, first);
        on_memory(body, LOAD, RAX, RCX, 0);
        break;
    case VECTOR_SET:
        element(body, first);
        load_slot(body, RAX, first + 2);
        store(body, first + 2);
        break;
    case VECTOR_LENGTH:
        check_tag(body, RAX, VECTOR, NOT_A_VECTOR);
        on_memory(body, LOAD, RAX, RAX, offsetof(struct vector, length));
        on_registers(body, PLUS, RAX, RAX);
        on_registers(body, PLUS, RAX, R14);
        break;
    case MAKE_VECTOR: case DISPLAY: case NEWLINE: case GO: case MAKE_CHANNEL: case SEND:
    case RECEIVE: case COLLECT: case CYCLES:
        if (node->count > 0)
            load_slot(body, RSI, first);
        if (node->count > 1)
            load_slot(body, RDX, first + 1);
        call_native(body, natives[which]);
        break;
    default:
        load_slot(body, RCX, first);
        arithmetic(body, which);
    }
    body->slots = first;
}

static void choice(struct body *body, struct node *node) {
    expression(body, node->parts[0]);
    bytes(body, "48 83 f8 02");
    size_t no = jump(body, EQUALS);
    expression(body, node->parts[1]);
    size_t done = jump(body, ALWAYS);
    here(body, no);
    expression(body, node->parts[2]);
    here(body, done);
}

static void repeat(struct body *body, struct node *node) {
    load_word(body, RAX, NIL);
    size_t start = body->length;
    poll_if_asked(body, new_slot(body));
    expression(body, node->parts[0]);
    bytes(body, "48 83 f8 02");
    size_t done = jump(body, EQUALS);
    expression(body, node->parts[1]);
    place(body, jump(body, ALWAYS), start);
    here(body, done);
    load_word(body, RAX, NIL);
}

static void expression(struct body *body, struct node *node) {
    int slots = body->slots;
    switch (node->kind) {
    case CONSTANT:
        load_word(body, RAX, node->constant);
        break;
    case LOCAL:
        load_variable(body, RAX, node->variable);
        if (is_boxed(node->variable))
            on_memory(body, LOAD, RAX, RAX, offsetof(struct box, value));
        break;
    case GLOBAL:
        load_word(body, RAX, (uintptr_t)&globals[node->constant]);
        on_memory(body, LOAD, RAX, RAX, 0);
        break;
    case SET_LOCAL:
    case SET_GLOBAL:
        assignment(body, node);
        break;
    case IF:
        choice(body, node);
        break;
    case SEQUENCE:
        for (int i = 0; i < node->count; i++)
            expression(body, node->parts[i]);
        break;
    case LET:
        for (int i = 0; i < node->count; i++) {
            struct variable *variable = node->parts[2 * i]->variable;
            expression(body, node->parts[2 * i + 1]);
            variable->slot = new_slot(body);
            store_slot(body, RAX, variable->slot);
            box(body, variable);
        }
        expression(body, node->parts[2 * node->count]);
        break;
    case LAMBDA:
        closure(body, node->function);
        break;
    case CALL:
        call_closure(body, node);
        break;
    case PRIMITIVE:
        primitive(body, node);
        break;
    case WHILE:
        repeat(body, node);
        break;
    }
    body->slots = slots;
}

/* -------------------------------------------------------------------------------- Functions --- */

static void frame_bytes(const void *from, size_t length) {
    memcpy(frames + frames_length, from, length);
    frames_length += length;
}

static void frame_word(uint32_t value) {
    frame_bytes(&value, sizeof value);
}

/* The entry of .eh_frame that all functions share: the CFA is rsp + 8, the return address there. */
static void common_frame(void) {
    static const uint8_t rest[] = {1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1, 0, 0};
    frame_word(4 + sizeof rest);
    frame_word(0);
    frame_bytes(rest, sizeof rest);
}

/* That of a function which pushes rbp, sets it, and ends with leave, and with ret at `ret`. */
static void own_frame(uintptr_t start, size_t length, size_t ret) {
    uint64_t range[] = {start, length};
    uint8_t rules[] = {
        0x41, 0x0e, 16, 0x86, 2,                         /* push rbp */
        0x43, 0x0d, 6,                             /* mov rbp, rsp */
        0x04, 0, 0, 0, 0, 0x0a, 0x0c, 7, 8, 0x41, 0x0b, /* ret, and what is behind it */
        0,
    };
    uint32_t to_ret = (uint32_t)ret - 4;
    memcpy(rules + 9, &to_ret, sizeof to_ret);
    frame_word(4 + sizeof range + sizeof rules);
    frame_word((uint32_t)frames_length); /* back to the common part, which is the first */
    frame_bytes(range, sizeof range);
    frame_bytes(rules, sizeof rules);
}

/* Places a function: prologue, body, epilogue, failures. Returns its address. */
static uintptr_t finish(struct body *body, struct body *prologue, int slots) {
    size_t ret, start, length;
    bytes(body, "c9"); /* leave */
    ret = prologue->length + body->length;
    bytes(body, "c3");
    for (int i = 0; i < body->failure_count; i++) {
        here(body, body->failures[i].jump);
        load_word(body, RSI, (uintptr_t)body->failures[i].failure);
        call_native(body, native_fail);
    }
    length = prologue->length + body->length;
    code_length = (code_length + 15) & ~(size_t)15;
    start = code_length;
    if (start + length > MOST_CODE || function_count == MOST_FUNCTIONS ||
        safepoint_count + (size_t)(prologue->call_count + body->call_count) > MOST_CALLS)
        fail("the program is too long");
    memcpy(code + start, prologue->bytes, prologue->length);
    memcpy(code + start + prologue->length, body->bytes, body->length);
    code_length += length;

    uint32_t *offsets = forever(sizeof *offsets * (size_t)slots);
    for (int i = 0; i < slots; i++)
        offsets[i] = 8 * (uint32_t)i;
    for (int i = 0; i < prologue->call_count + body->call_count; i++) {
        size_t offset = i < prologue->call_count
                            ? prologue->calls[i]
                            : prologue->length + body->calls[i - prologue->call_count];
        safepoints[safepoint_count++] = (stackmark_safepoint){
            .size = sizeof *safepoints,
            .return_address = (uintptr_t)code + start + offset,
            .slots = offsets,
            .slot_count = (uint32_t)slots,
            .cfa_offset = 8 * (uint32_t)slots + 16,
        };
    }
    functions[function_count++] = (stackmark_function){
        .size = sizeof *functions,
        .name = body->function->name,
        .start = (uintptr_t)code + start,
        .length = length,
    };
    own_frame((uintptr_t)code + start, length, ret);
    return (uintptr_t)code + start;
}

static struct body *new_body(struct function *function) {
    struct body *body = forever(sizeof *body);
    body->function = function;
    body->bytes = forever(MOST_BODY);
    return body;
}

/* push rbp; mov rbp, rsp; sub rsp, the slots; and 0 in rax, for the slots. */
static void begin(struct body *prologue, int slots) {
    bytes(prologue, "55 48 89 e5 48 81 ec");
    word32(prologue, 8 * slots);
    bytes(prologue, "31 c0"); /* xor eax, eax */
}

static void check_stack(struct body *prologue) {
    on_memory(prologue, COMPARE_WITH, RSP, R15, STACKMARK_G_STACK_LIMIT);
    size_t enough = jump(prologue, NOT_BELOW);
    poll(prologue);
    here(prologue, enough);
}

static uintptr_t generate(struct function *function) {
    struct body *body = new_body(function), *prologue = new_body(function);
    new_slot(body);
    for (int i = 0; i < function->parameter_count; i++)
        function->parameters[i]->slot = new_slot(body);
    bytes(body, "41 81 fb"); /* cmp r11d, the number of parameters */
    word32(body, function->parameter_count);
    fail_if(body, DIFFERS, WRONG_ARITY);
    for (int i = 0; i < function->parameter_count; i++)
        box(body, function->parameters[i]);
    expression(body, function->body);

    int slots = (body->most_slots + 1) & ~1; /* the stack stays aligned to 16 bytes */
    begin(prologue, slots);
    store_slot(prologue, RDI, 0);
    for (int i = 0; i < function->parameter_count; i++)
        store_slot(prologue, argument_registers[i], i + 1);
    for (int i = function->parameter_count + 1; i < slots; i++)
        store_slot(prologue, RAX, i);
    /* The poll may keep r11 no more than any call. */
    on_memory(prologue, STORE, R11, R15, STACKMARK_G_USER);
    check_stack(prologue);
    on_memory(prologue, LOAD, R11, R15, STACKMARK_G_USER);
    uintptr_t start = finish(body, prologue, slots);
    free(body->bytes);
    free(prologue->bytes);
    free(body);
    free(prologue);
    return start;
}

/* entry(rdi = goroutine, rsi = closure): sets the registers that hold constants, and calls. */
static uintptr_t generate_entry(void) {
    static struct function function = {.name = "goroutine"};
    struct body *body = new_body(&function), *prologue = new_body(&function);
    enum { SLOTS = 4 };
    begin(prologue, SLOTS);
    store_slot(prologue, RSI, 0);
    for (int i = 1; i < SLOTS; i++)
        store_slot(prologue, RAX, i);
    on_registers(prologue, MOVE, R15, RDI);
    load_word(prologue, R14, NUMBER);
    load_word(prologue, R13, NUMBER_RANGE);
    check_stack(prologue);
    load_slot(body, RDI, 0);
    bytes(body, "45 31 db"); /* xor r11d, r11d */
    on_memory(body, LOAD, RAX, RDI, offsetof(struct closure, code));
    bytes(body, "ff d0");
    called(body);
    return finish(body, prologue, SLOTS);
}

struct closure *compile(uintptr_t forms) {
    struct function *program = lambda(NULL, "program", NIL, forms)->function;
    struct closure *closure = forever(sizeof *closure);
    code = mmap(NULL, MOST_CODE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED)
        fail("no memory for code");
    frames = forever((MOST_FUNCTIONS + 2) * 64);
    common_frame();
    entry = generate_entry();
    *closure = (struct closure){CLOSURE, generate(program)};
    frame_word(0);
    if (mprotect(code, MOST_CODE, PROT_READ | PROT_EXEC) != 0)
        fail("the code cannot be made executable");
    stackmark_region region = {
        .size = sizeof region,
        .name = "lisp",
        .start = (uintptr_t)code,
        .length = code_length,
        .eh_frame = frames,
        .eh_frame_length = frames_length,
        .functions = functions,
        .function_count = function_count,
        .safepoints = safepoints,
        .safepoint_count = safepoint_count,
        .max_frame = STACKMARK_MAX_FRAME,
    };
    uint64_t number;
    ok(stackmark_register(runtime, &region, &number));
    return closure;
}
