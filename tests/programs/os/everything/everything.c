#include "_cgo_export.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int callOut(int n) { return n + 1; }

// Lasts long enough for the monitor to give the goroutine's thread away.
int callThatWaits(int n)
{
    usleep(3000);
    return n;
}

int callBack(int n) { return goBack(n); }

static void *thread(void *n)
{
    *(int *)n = goBack(*(int *)n);
    return 0;
}

// Calls Go from a thread of C's own, or from this one where there is none.
int callFromThread(int n)
{
    pthread_t t;
    if (pthread_create(&t, 0, thread, &n) != 0) {
        thread(&n);
        return n;
    }
    pthread_join(t, 0);
    return n;
}

// Memory of C's own, given back.
int allocate(int n)
{
    char *p = malloc(n);
    if (!p)
        return n;
    memset(p, 1, n);
    free(p);
    return n;
}
