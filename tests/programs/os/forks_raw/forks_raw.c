#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/wait.h>

int goCalled(int n);

// fork without the C library: its handlers of fork do not run.
int rawFork(void) { return syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0); }

// The child calls Go before it has returned.
int forkAndCall(void)
{
    int pid = fork();
    if (pid == 0)
        _exit(goCalled(1));
    return pid;
}

static void *thread(void *pid)
{
    *(int *)pid = fork();
    if (*(int *)pid == 0)
        _exit(goCalled(1));
    return 0;
}

// The child of a thread that the runtime does not know calls Go.
int forkInThread(void)
{
    int pid = 0;
    pthread_t t;
    pthread_create(&t, 0, thread, &pid);
    pthread_join(t, 0);
    return pid;
}

// What a child may do.
int forkAndExit(void)
{
    int pid = fork();
    if (pid == 0)
        _exit(7);
    return pid;
}

int forkAndExec(void)
{
    int pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", "exit 8", (char *)0);
        _exit(9);
    }
    return pid;
}

int waitfor(int pid) { int s; waitpid(pid, &s, 0); return s; }
