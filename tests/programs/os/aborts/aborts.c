#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>

// Ends the process in one of the ways in which C code does.
void end(int how)
{
    switch (how) {
    case 0: abort();
    case 1: _exit(2);
    case 2: exit(2);
    case 3: *(volatile int *)8 = 1; break;
    case 4: __builtin_trap();
    case 5: raise(SIGFPE); break;
    case 6: syscall(SYS_exit_group, 2); break;
    case 7: kill(getpid(), SIGKILL); for (;;) pause();
    }
}
