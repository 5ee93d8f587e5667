#include "_cgo_export.h"

__attribute__((noinline)) static void inner(void)
{
    goFails();
    __asm__ volatile("");
}

void callBack(void)
{
    inner();
    __asm__ volatile("");
}
