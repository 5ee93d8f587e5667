// A deep stack and the Boehm-Demers-Weiser collector: the thread that owns the stack collects, so
// that each collection is a stop of its own. usage: deep DEPTH COLLECTIONS. Prints, for each
// collection, the longest time that the world was stopped.
#include <gc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef struct box { long v; struct box *next; } box;
static box *pool[1024];
static long collections, longest, stopped_at;

static long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void event(GC_EventType what) {
    if (what == GC_EVENT_PRE_STOP_WORLD) stopped_at = now();
    if (what == GC_EVENT_POST_START_WORLD && now() - stopped_at > longest)
        longest = now() - stopped_at;
}

__attribute__((noinline)) static long rec(long depth) {
    box *volatile object = pool[depth & 1023];
    long result = 0;
    if (depth > 0) {
        result = rec(depth - 1);
    } else {
        for (long i = 0; i < collections; i++) {
            longest = 0;
            GC_gcollect();
            printf("stop %ld\n", longest);
        }
    }
    return result + object->v;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    collections = atol(argv[2]);
    GC_INIT();
    GC_set_on_collection_event(event);
    for (int i = 0; i < 1024; i++) {
        pool[i] = GC_MALLOC(sizeof(box));
        pool[i]->v = i;
    }
    return rec(atol(argv[1])) < 0;
}
