#include "_cgo_export.h"

/* Keeps values in callee-saved registers and in its own frame over the call. */
long callBack(long depth, long *seen)
{
    volatile long local[4] = { depth, 2, 3, 4 };
    register long a = depth * 3, b = depth ^ 5, c = depth - 7, d = depth + 11;
    long got = goGrow(depth);
    if (local[0] != depth || local[1] + local[2] + local[3] != 9)
        return -1;
    if (a != depth * 3 || b != (depth ^ 5) || c != depth - 7 || d != depth + 11)
        return -1;
    *seen = got;
    return got;
}
