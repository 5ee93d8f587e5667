#include "_cgo_export.h"
#include <unistd.h>

static int waits;

int inC(void)
{
    return __atomic_load_n(&waits, __ATOMIC_ACQUIRE);
}

void waitInC(void)
{
    __atomic_store_n(&waits, 1, __ATOMIC_RELEASE);
    for (;;)
        pause();
}

void callBack(void)
{
    goWait();
    /* Not the last: that would be no call, but a jump. */
    __asm__ volatile("");
}
