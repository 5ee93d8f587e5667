#include <errno.h>
#include "_cgo_export.h"

long probe(long n)
{
    if (n)
        errno = (int)n;
    return -n;
}

long nested(long level)
{
    long sum = goCallback(level);
    errno = 333;
    return sum == level * 100 + 1 ? 100 + level : -1;
}
