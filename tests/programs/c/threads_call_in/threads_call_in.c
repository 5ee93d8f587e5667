#include <pthread.h>
#include <stdlib.h>
#include "_cgo_export.h"

static void *add(void *max)
{
    for (int i = 0; i < (int)(long)max; i++)
        Add(i);
    return NULL;
}

static void run(int threads, void *(*f)(void *), void *argument)
{
    pthread_t *all = malloc(threads * sizeof *all);
    for (int i = 0; i < threads; i++)
        if (pthread_create(&all[i], NULL, f, argument))
            abort();
    for (int i = 0; i < threads; i++)
        pthread_join(all[i], NULL);
    free(all);
}

void doAdd(int max, int threads)
{
    run(threads, add, (void *)(long)max);
}

/* Calls in from the top of the thread's stack and from far down. */
static int descend(int depth)
{
    volatile int frame[8] = { depth };
    int got = depth ? descend(depth - 1) : goDeep(100);
    return got + frame[0] - depth;
}

static void *deepThread(void *depth)
{
    int first = goDeep(3), below = descend((int)(long)depth), after = goDeep(5);
    return (void *)(long)(first * 10000 + below * 10 + after);
}

int deep(int depth)
{
    pthread_t thread;
    void *result;
    if (pthread_create(&thread, NULL, deepThread, (void *)(long)depth))
        abort();
    pthread_join(thread, &result);
    return (int)(long)result;
}

/* Go is called while the thread ends, for the first time or not (Go's issue 59711). */
static pthread_key_t key;

static void destructor(void *value)
{
    goLast();
}

static void *ending(void *unused)
{
    static int count;
    if (__atomic_fetch_add(&count, 1, __ATOMIC_RELAXED) % 2)
        goDeep(2);
    pthread_setspecific(key, &key);
    return unused;
}

void destructors(int threads)
{
    pthread_key_create(&key, destructor);
    run(threads, ending, NULL);
}
