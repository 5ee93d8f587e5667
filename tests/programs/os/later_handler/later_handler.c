#define _GNU_SOURCE
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static void handler(int s)
{
    volatile char room[512];
    memset((void *)room, 0x55, sizeof room);
}

// A thread of C's own installs the handler after a while, and sends the signal to all threads.
static void *sender(void *x)
{
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, 0);
    usleep(50000);
    struct sigaction a;
    memset(&a, 0, sizeof a);
    a.sa_handler = handler;
    a.sa_flags = SA_RESTART;
    sigaction(SIGUSR2, &a, 0);
    // The library that did this looks at its own business for a moment.
    usleep(50000);
    for (;;) {
        DIR *d = opendir("/proc/self/task");
        struct dirent *e;
        while ((e = readdir(d))) {
            int t = atoi(e->d_name);
            if (t && t != getpid() && t != gettid())
                syscall(SYS_tgkill, getpid(), t, SIGUSR2);
        }
        closedir(d);
        usleep(300);
    }
}

int start(void) { pthread_t t; return pthread_create(&t, 0, sender, 0); }
