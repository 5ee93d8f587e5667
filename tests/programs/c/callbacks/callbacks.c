#include <setjmp.h>
#include <unistd.h>
#include "_cgo_export.h"

static int waiting, released;

int inC(void)
{
    return __atomic_load_n(&waiting, __ATOMIC_ACQUIRE);
}

void release(void)
{
    __atomic_store_n(&released, 1, __ATOMIC_RELEASE);
}

void callAndWait(void)
{
    goGrowAndCollect();
    __atomic_store_n(&waiting, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&released, __ATOMIC_ACQUIRE))
        usleep(100);
    __atomic_store_n(&waiting, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&released, 0, __ATOMIC_RELEASE);
}

int useAfter(pair *p)
{
    goGrowAndCollect();
    *p->number += 10;
    goGrowAndCollect();
    return *p->number + *p->other;
}

int level(int n)
{
    volatile int frame[16] = { n };
    int r = goLevel(n);
    return r + frame[0] - n;
}

/* C jumps over frames of its own, after callbacks in them (Go's issue 9875). */
static void inner(jmp_buf back, int n)
{
    longjmp(back, goStep(n));
}

long jumps(int n)
{
    volatile long sum = 0;
    for (volatile int i = 0; i < n; i++) {
        jmp_buf back;
        int r = setjmp(back);
        if (r == 0)
            inner(back, i);
        sum += r;
    }
    return sum;
}

void callBlocking(void)
{
    goBlocks();
}

void callBlockingFree(void)
{
    goNothing();
}
