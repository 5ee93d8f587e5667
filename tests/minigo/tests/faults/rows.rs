//! What the failure of each system call does.
#![allow(dead_code, reason = "the soak uses a part")]

use super::injector::{Answer, Call};
use libc::{EAGAIN, EINTR, EINVAL, EMFILE, ENOMEM, ENOSYS, EPERM};

/// How the program ends after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// As if nothing had happened.
    Right,
    /// As if nothing had happened or, by the place, with a line.
    RightOrLine,
}

impl After {
    /// Whether such an end is one of these.
    pub(crate) fn allows(self, right: bool) -> bool {
        right || self != After::Right
    }
}

/// One system call.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) call: Call,
    pub(crate) failures: &'static [Answer],
    pub(crate) after: After,
    /// What the failure does.
    pub(crate) does: &'static str,
    /// Whether the program makes the call in some runs only.
    pub(crate) sometimes: bool,
}

macro_rules! rows {
    ($($name:ident $call:ident [$($failure:expr),*] $after:ident $sometimes:literal
        $does:literal;)*) => {
        &[$(Row {
            name: stringify!($name),
            call: libc::$call,
            failures: &[$($failure),*],
            after: After::$after,
            does: $does,
            sometimes: $sometimes,
        }),*]
    };
}

use Answer::{Fail, Return};

pub(crate) const ROWS: &[Row] = rows! {
    mmap SYS_mmap [Fail(ENOMEM)] RightOrLine false
        "start-up ends; a goroutine's first stack or growth ends the program; an allocator's \
         run is tried elsewhere; a thread is started later";
    munmap SYS_munmap [Fail(ENOMEM)] RightOrLine false
        "stacks are kept and used again; the C library may abort over a thread's stack";
    mprotect SYS_mprotect [Fail(ENOMEM)] RightOrLine false
        "start-up ends; the heap collects, then ends the program, and so does a stack that grows \
         in place; a thread is started later";
    madvise SYS_madvise [Fail(ENOMEM), Fail(EAGAIN)] Right false
        "memory is given back later; without a page that a fork clears, a handler of fork \
         clears a word";
    mremap SYS_mremap [Fail(ENOMEM)] RightOrLine true
        "the C library's realloc copies, or ends the program";
    clock_gettime SYS_clock_gettime [Fail(EINVAL)] Right true
        "processor time is not counted; other clocks are read without a system call";
    brk SYS_brk [Return(0)] Right false
        "the C library maps memory instead";
    read SYS_read [Fail(EINTR)] Right false
        "is tried again";
    write SYS_write [Fail(EINTR), Fail(EAGAIN)] RightOrLine false
        "is tried again, once there is room; a file of the compiler's is not: no compilation";
    openat SYS_openat [Fail(EMFILE), Fail(EPERM)] RightOrLine false
        "the program cannot be compiled; what the system says of processors is done without";
    futex SYS_futex [Fail(EINTR), Fail(EAGAIN)] Right false
        "the waiter looks again";
    clone3 SYS_clone3 [Fail(EAGAIN), Fail(ENOSYS)] RightOrLine false
        "start-up ends; a machine is started later, by the monitor; ENOSYS: clone";
    clone SYS_clone [Fail(EAGAIN)] RightOrLine true
        "as clone3";
    vfork SYS_vfork [Fail(EAGAIN)] RightOrLine true
        "the program cannot be compiled";
    rt_sigprocmask SYS_rt_sigprocmask [Fail(EPERM)] Right false
        "signals are delivered where they were not to be";
    rt_sigaction SYS_rt_sigaction [Fail(EPERM)] RightOrLine false
        "start-up ends; a look at the handlers leaves one out";
    sigaltstack SYS_sigaltstack [Fail(ENOMEM), Fail(EPERM)] RightOrLine false
        "start-up ends; a machine is started later; a thread that calls in gets an error";
    membarrier SYS_membarrier [Fail(EPERM), Fail(ENOSYS)] Right false
        "fences of all processors, once; then full fences on both sides";
    sched_setaffinity SYS_sched_setaffinity [Fail(EPERM)] RightOrLine true
        "without membarrier and this there is no fence of all threads: the process ends";
    sched_getaffinity SYS_sched_getaffinity [Fail(EPERM)] Right false
        "the number of processors comes from elsewhere";
    sched_yield SYS_sched_yield [Fail(EPERM)] Right true
        "the thread goes on";
    prctl SYS_prctl [Fail(EPERM)] Right false
        "a thread has no name";
    arch_prctl SYS_arch_prctl [Fail(EPERM)] Right false
        "as a system without shadow stacks";
    set_robust_list SYS_set_robust_list [Fail(ENOSYS)] Right false
        "the C library does without";
    rseq SYS_rseq [Fail(ENOSYS)] RightOrLine false
        "the C library aborts: it has been told that the call is there";
    clock_nanosleep SYS_clock_nanosleep [Fail(EINTR)] Right false
        "is tried again; C's usleep ends early";
    nanosleep SYS_nanosleep [Fail(EINTR)] Right true
        "as clock_nanosleep";
    getpid SYS_getpid [] Right false
        "cannot fail";
    gettid SYS_gettid [Fail(EPERM)] Right false
        "a thread is not known by its number: only reports of late stops need it";
    tgkill SYS_tgkill [Fail(EPERM)] RightOrLine true
        "a report lacks the other thread's traceback; abort goes on to an illegal instruction";
    prlimit64 SYS_prlimit64 [Fail(EPERM)] Right false
        "threads get the usual stack size";
    getrandom SYS_getrandom [Fail(EPERM)] Right false
        "/dev/urandom";
    poll SYS_poll [Fail(EINTR)] Right false
        "is tried again";
    lseek SYS_lseek [Fail(EPERM)] Right false
        "a file is read without knowing its size";
    ioctl SYS_ioctl [Fail(EPERM)] RightOrLine false
        "the program cannot be compiled";
    wait4 SYS_wait4 [Fail(EINTR)] Right false
        "is tried again";
    fcntl SYS_fcntl [Fail(EPERM)] Right false
        "only checks of the standard library make the call";
    getcwd SYS_getcwd [Fail(EPERM)] RightOrLine false
        "paths stay relative, or the program cannot be compiled";
    mkdir SYS_mkdir [Fail(EPERM)] RightOrLine false
        "the program cannot be compiled";
    getdents64 SYS_getdents64 [Fail(EPERM)] RightOrLine false
        "C files beside the program are not found, or a scratch directory stays";
    newfstatat SYS_newfstatat [Fail(EPERM)] RightOrLine false
        "the program cannot be compiled, or a scratch directory stays";
    fstat SYS_fstat [Fail(EPERM)] RightOrLine true
        "a file is read without knowing its size";
    statx SYS_statx [Fail(EPERM), Fail(ENOSYS)] RightOrLine false
        "a file is read without knowing its size";
    readlink SYS_readlink [Fail(EPERM)] Right true
        "a path stays as it is";
    pread64 SYS_pread64 [Fail(EPERM)] RightOrLine true
        "the C code cannot be loaded";
    unlinkat SYS_unlinkat [Fail(EPERM)] Right false
        "a scratch directory stays";
    pipe2 SYS_pipe2 [Fail(EMFILE)] RightOrLine false
        "the program cannot be compiled";
    memfd_create SYS_memfd_create [Fail(EMFILE)] RightOrLine false
        "the C code cannot be loaded";
    sysinfo SYS_sysinfo [Fail(EPERM)] Right true
        "the C library sorts in place";
};
