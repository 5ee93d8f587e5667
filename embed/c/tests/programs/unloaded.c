/* The library is closed while a thread that it knows still runs, and once more when that has ended.
   It stays: for ends of threads, and for handlers of signals. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <semaphore.h>
#include <stackmark.h>
#include <stdio.h>
#include <stdlib.h>

typedef int new_runtime(const stackmark_config *, const stackmark_host *, stackmark_runtime **);
typedef int enter(stackmark_runtime *);
typedef const char *version(void);

static void *library;
static sem_t called_in, closed;

static uintptr_t symbol(const char *name) {
    void *found = dlsym(library, name);
    if (found == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    return (uintptr_t)found;
}

/* The thread gets a goroutine, which it keeps until it ends. */
static void *calls_in(void *unused) {
    stackmark_runtime *runtime;
    new_runtime *runtime_new = (new_runtime *)symbol("stackmark_runtime_new");
    enter *call_in = (enter *)symbol("stackmark_call_in");
    (void)unused;
    if (runtime_new(NULL, NULL, &runtime) != STACKMARK_OK || call_in(runtime) != STACKMARK_OK)
        exit(1);
    sem_post(&called_in);
    sem_wait(&closed);
    return NULL;
}

int main(int count, char **arguments) {
    pthread_t thread;
    library = count > 1 ? dlopen(arguments[1], RTLD_NOW) : NULL;
    if (library == NULL)
        return 1;
    version *says = (version *)symbol("stackmark_version");
    sem_init(&called_in, 0, 0);
    sem_init(&closed, 0, 0);
    pthread_create(&thread, NULL, calls_in, NULL);
    sem_wait(&called_in);
    dlclose(library);
    sem_post(&closed);
    pthread_join(thread, NULL);
    /* The loader has kept it for the thread alone, so far. */
    library = dlopen(arguments[1], RTLD_NOW);
    dlclose(library);
    printf("version %s\n", says());
    return 0;
}
