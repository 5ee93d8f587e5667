// flags: -fno-asynchronous-unwind-tables -fno-unwind-tables -fno-exceptions
// C that no unwinder can walk.
#include <stdint.h>

typedef uintptr_t (*callback)(void *);

uintptr_t calls_without_tables(callback f, void *argument) { return f(argument) + 1; }
