#include <pthread.h>
#include <stdlib.h>
#include "_cgo_export.h"

static void *thread(void *depth)
{
    if (goCallback((int)(long)depth) != (int)(long)depth)
        abort();
    return NULL;
}

void foreignThreads(int n, int depth)
{
    pthread_t threads[100];
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 << 10);
    for (int i = 0; i < n; i++)
        if (pthread_create(&threads[i], &attr, thread, (void *)(long)depth))
            abort();
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
}
