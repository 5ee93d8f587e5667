/* What the soak's goroutines call: C that calls back, and threads of C's own that call in. All
   memory is counted. */
#include <pthread.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "_cgo_export.h"

static long allocations;

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes);
    if (!p)
        abort();
    __atomic_add_fetch(&allocations, 1, __ATOMIC_RELAXED);
    return memset(p, 0x5a, bytes);
}

static void release(void *at)
{
    free(*(void **)at);
    __atomic_sub_fetch(&allocations, 1, __ATOMIC_RELAXED);
}

/* Freed when the frame is left, also by a panic. */
#define OWNED __attribute__((cleanup(release)))

long liveAllocations(void)
{
    return __atomic_load_n(&allocations, __ATOMIC_RELAXED);
}

/* C and Go by turns. */
long nested(int depth, unsigned seed, int fails)
{
    OWNED long *own = allocate(sizeof *own + seed % 500);
    volatile long frame[8] = { depth };
    *own = seed % 17;
    long got = goNested(depth, seed, fails);
    return got + *own + frame[0] - depth;
}

static int compare(const void *a, const void *b)
{
    return goCompare(*(const int *)a, *(const int *)b);
}

long sorted(int n, unsigned seed)
{
    OWNED int *all = allocate(n * sizeof *all);
    for (int i = 0; i < n; i++)
        all[i] = (int)((seed = seed * 1664525 + 1013904223) >> 8);
    qsort(all, n, sizeof *all, compare);
    long sum = 0;
    for (int i = 0; i < n; i++) {
        if (i && all[i - 1] > all[i])
            abort();
        sum += all[i] % 1000 * (i % 7);
    }
    return sum;
}

/* Jumps over frames of C's own, after callbacks in them. */
static void far(jmp_buf back, unsigned seed)
{
    longjmp(back, 1 + (int)(goNested(0, seed, 0) % 1000));
}

long jumps(int n, unsigned seed)
{
    volatile long sum = 0;
    for (volatile int i = 0; i < n; i++) {
        jmp_buf back;
        int got = setjmp(back);
        if (!got)
            far(back, seed + i);
        sum += got;
    }
    return sum;
}

long measure(char *text)
{
    usleep(strlen(text) % 3 * 500);
    long n = strlen(text);
    free(text);
    return n;
}

/* Threads that call in so many times, from several depths, and once more while they end. */
struct thread {
    pthread_t id;
    unsigned seed;
    int calls;
    long sum;
};

static pthread_key_t key;

static void last(void *p)
{
    struct thread *t = p;
    t->sum += goOnThread(t->seed + 1000);
}

void begin(void)
{
    if (pthread_key_create(&key, last))
        abort();
}

static long deeper(int frames, unsigned seed)
{
    volatile int frame[8] = { frames };
    long got = frames ? deeper(frames - 1, seed) : goOnThread(seed);
    return got + frame[0] - frames;
}

static void *callsIn(void *p)
{
    struct thread *t = p;
    if (t->seed % 3 == 0)
        pthread_setspecific(key, t);
    for (int i = 0; i < t->calls; i++)
        t->sum += deeper(i * 30, t->seed + i);
    if (t->seed % 2)
        pthread_exit(NULL);
    return NULL;
}

static void create(pthread_t *id, void *(*f)(void *), void *argument)
{
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 256 << 10);
    if (pthread_create(id, &small, f, argument))
        abort();
    pthread_attr_destroy(&small);
}

long threads(int n, unsigned seed)
{
    OWNED struct thread *all = allocate(n * sizeof *all);
    for (int i = 0; i < n; i++) {
        all[i] = (struct thread){ .seed = seed + i, .calls = (seed + i) % 4 };
        create(&all[i].id, callsIn, &all[i]);
    }
    long sum = 0;
    for (int i = 0; i < n; i++) {
        pthread_join(all[i].id, NULL);
        sum += all[i].sum;
    }
    return sum;
}

/* Threads that stay, attached and waiting in C, call in for others, and end after some requests. */
struct request {
    struct request *next;
    unsigned seed;
    int done;
    long result;
};

enum { HELPERS = 2, SERVED = 20 };

static struct {
    pthread_t id;
    enum { NONE, RUNNING, ENDED } state;
} helpers[HELPERS];
static struct request *waiting;
static int over;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void *help(void *number)
{
    pthread_mutex_lock(&lock);
    for (int served = 0; served < SERVED; served++) {
        while (!waiting && !over)
            pthread_cond_wait(&changed, &lock);
        if (!waiting)
            break;
        struct request *r = waiting;
        waiting = r->next;
        pthread_mutex_unlock(&lock);
        long result = goOnThread(r->seed);
        pthread_mutex_lock(&lock);
        r->result = result;
        r->done = 1;
        pthread_cond_broadcast(&changed);
    }
    helpers[(long)number].state = ENDED;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void staff(void)
{
    for (long i = 0; i < HELPERS; i++) {
        if (helpers[i].state == ENDED)
            pthread_join(helpers[i].id, NULL);
        if (helpers[i].state != RUNNING) {
            helpers[i].state = RUNNING;
            create(&helpers[i].id, help, (void *)i);
        }
    }
}

long helped(unsigned seed)
{
    pthread_mutex_lock(&lock);
    struct request r = { .next = waiting, .seed = seed };
    waiting = &r;
    pthread_cond_broadcast(&changed);
    while (!r.done) {
        staff();
        pthread_cond_wait(&changed, &lock);
    }
    pthread_mutex_unlock(&lock);
    return r.result;
}

void finish(void)
{
    pthread_mutex_lock(&lock);
    over = 1;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    for (int i = 0; i < HELPERS; i++)
        if (helpers[i].state != NONE)
            pthread_join(helpers[i].id, NULL);
}
