/* A function whose resolver raises a signal, bound at its first call. */
#include <signal.h>
static int impl(int a) { return a + 1; }
static void *resolve(void) { raise(SIGUSR1); return impl; }
int lazyf(int a) __attribute__((ifunc("resolve")));
