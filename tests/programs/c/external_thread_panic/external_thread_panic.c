#include <pthread.h>
#include <stdlib.h>
#include "_cgo_export.h"

static void *die(void *unused)
{
    gpanic();
    return unused;
}

void start(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, die, NULL))
        abort();
}
