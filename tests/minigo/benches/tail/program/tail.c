#include <unistd.h>
#include "_cgo_export.h"

/* The network: a client waits here. */
void waits(long microseconds)
{
    usleep(microseconds);
}

/* Calls back so many times. */
long visits(long n, long seed)
{
    long sum = 0;
    for (long i = 0; i < n; i++)
        sum += goVisit(seed + i);
    return sum;
}
