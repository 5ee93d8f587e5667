//! Linux with glibc.

#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
mod fences;
mod forks;
mod jumps;
mod pages;
mod records;
mod signals;

#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
pub(crate) use fences::{fence_all_threads, prepare_fence_of_all_threads, visit_all_processors};
pub(crate) use forks::word_that_a_fork_clears;
pub(crate) use jumps::next_longjmp;
pub(crate) use pages::{
    Mapping, ask_for_huge_pages, discard, give_pages_back, make_accessible, map, page_size,
    reserve, take_again, unmap, unmap as release,
};
pub(crate) use records::{
    barrier_record, further_registers, has_barrier_records, prepare_barriers,
};
pub(crate) use signals::{
    AlternateStack, InterruptedContext, handle_faults, handlers_without_alternate_stack, interrupt,
    interrupted,
};

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

/// The addresses of the calling thread's stack. Empty if the system does not know them.
pub(crate) fn thread_stack() -> Range<usize> {
    let mut range = 0..0;
    // SAFETY: the first call initialises the attributes, which are read and then destroyed.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) == 0 {
            let (mut start, mut size) = (ptr::null_mut(), 0);
            let got =
                libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size);
            if got == 0 {
                range = start as usize..start as usize + size;
            }
            libc::pthread_attr_destroy(&raw mut attributes);
        }
    }
    range
}

/// Bytes of a new thread's stack: what the system gives a process's first thread. Without such a
/// limit, or where the system does not say it, the usual 8 MiB.
pub(crate) fn default_thread_stack() -> usize {
    const USUAL: usize = 8 << 20;
    const LEAST: usize = 256 << 10;
    const MOST: usize = 1 << 30;
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the call only writes the limits.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    match usize::try_from(limit.rlim_cur) {
        Ok(bytes) if got == 0 && limit.rlim_cur != libc::RLIM_INFINITY => bytes.clamp(LEAST, MOST),
        _ => USUAL,
    }
}

/// How long the calling thread has run on a processor, in nanoseconds; `None` where the system does
/// not say.
pub(crate) fn thread_time() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes the time.
    let got = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    (got == 0).then(|| time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// A destructor that is called at the end of a thread with the value of [`set_thread_end`].
pub(crate) type ThreadEnd = unsafe extern "C" fn(*mut c_void);

fn set_key(key: libc::pthread_key_t, value: *const c_void) {
    // SAFETY: the key has been made.
    let set = unsafe { libc::pthread_setspecific(key, value) };
    assert_eq!(set, 0, "pthread_setspecific: {}", io::Error::from_raw_os_error(set));
}

static THREAD_END: OnceLock<libc::pthread_key_t> = OnceLock::new();

/// Arranges for `destructor(value)` at the end of this thread, also by `pthread_exit` and
/// `pthread_cancel`. It runs after the destructors of thread-locals, because code that runs after
/// those may call in. All calls in a process pass the same destructor.
pub(crate) fn set_thread_end(value: *const c_void, destructor: ThreadEnd) {
    let key = *THREAD_END.get_or_init(|| {
        let mut key = 0;
        // SAFETY: the system calls the destructor with non-null values only.
        let made = unsafe { libc::pthread_key_create(&mut key, Some(destructor)) };
        assert_eq!(made, 0, "pthread_key_create: {}", io::Error::from_raw_os_error(made));
        key
    });
    set_key(key, value);
}

/// Undoes [`set_thread_end`] for this thread.
pub(crate) fn clear_thread_end() {
    if let Some(key) = THREAD_END.get() {
        set_key(*key, ptr::null());
    }
}

/// The system's number of the calling thread.
pub(crate) fn this_thread() -> i32 {
    // SAFETY: the call only asks.
    unsafe { libc::gettid() }
}

/// The calling thread's `errno`.
pub(crate) fn errno() -> i32 {
    // SAFETY: the word is the calling thread's.
    unsafe { *libc::__errno_location() }
}

/// Sets the calling thread's `errno`.
pub(crate) fn set_errno(value: i32) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value }
}

/// The function `name` of the loaded library that has the code at `inside`. The function need not
/// be visible to the program.
pub(crate) fn function_of_library(inside: *const c_void, name: &CStr) -> Option<*mut c_void> {
    // SAFETY: dladdr fills `info` or fails. dlopen of a loaded library only counts a reference.
    unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if inside.is_null() || libc::dladdr(inside, &mut info) == 0 {
            return None;
        }
        let library = libc::dlopen(info.dli_fname, libc::RTLD_NOW | libc::RTLD_NOLOAD);
        if library.is_null() {
            return None;
        }
        let found = libc::dlsym(library, name.as_ptr());
        // The code at `inside` keeps the library loaded.
        libc::dlclose(library);
        (!found.is_null()).then_some(found)
    }
}

/// Writes to standard error without a lock or a buffer. Waits where the program's surroundings have
/// made it non-blocking and its reader is slow. Ignores other errors. Signal-safe.
pub(crate) fn write_to_stderr(text: &[u8]) {
    let mut rest = text;
    while !rest.is_empty() {
        // SAFETY: the bytes are ours.
        let written = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = &rest[written..],
            Err(_) => match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => {
                    let (fd, events) = (libc::STDERR_FILENO, libc::POLLOUT);
                    let mut wanted = libc::pollfd { fd, events, revents: 0 };
                    // SAFETY: one descriptor. If this fails, the write is tried again.
                    unsafe { libc::poll(&raw mut wanted, 1, -1) };
                }
                _ => break,
            },
        }
    }
}

/// Ends the process at once. No destructors run, because other threads still run.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// What the system says about shadow stacks of the calling thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProtectionFacts {
    /// x86: the features that `ARCH_SHSTK_STATUS` names, if the system knows the call.
    pub(crate) x86_shadow_stack: Option<u64>,
    /// The text of `/proc/thread-self/status`, if that call failed.
    pub(crate) thread_status: Option<String>,
    /// arm64: the hardware word `AT_HWCAP` of the auxiliary vector.
    pub(crate) arm64_hardware: u64,
    /// arm64: what `PR_GET_SHADOW_STACK_STATUS` names.
    pub(crate) arm64_shadow_stack: Option<u64>,
}

/// Asks the system. Called on the thread that starts the other threads, which inherit its state.
#[cfg(target_arch = "x86_64")]
pub(crate) fn protection_facts() -> ProtectionFacts {
    /// Since Linux 6.6. A system that does not know the call has no shadow stacks.
    const ARCH_SHSTK_STATUS: c_int = 0x5005;
    let mut features: u64 = 0;
    // SAFETY: the call writes one word to `features`, or fails.
    let result =
        unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_SHSTK_STATUS, &raw mut features) };
    let x86_shadow_stack = (result == 0).then_some(features);
    // A sandbox may refuse the call.
    let status = || std::fs::read_to_string("/proc/thread-self/status").ok();
    let thread_status = if x86_shadow_stack.is_none() { status() } else { None };
    ProtectionFacts { x86_shadow_stack, thread_status, ..ProtectionFacts::default() }
}

/// Asks the system. Called on the thread that starts the other threads, which inherit its state.
#[cfg(target_arch = "aarch64")]
pub(crate) fn protection_facts() -> ProtectionFacts {
    /// Since Linux 6.13.
    const PR_GET_SHADOW_STACK_STATUS: c_int = 74;
    let mut status: u64 = 0;
    // SAFETY: the first call reads the auxiliary vector, the second writes one word to `status` or
    // fails.
    let (arm64_hardware, stacks) = unsafe {
        (
            libc::getauxval(libc::AT_HWCAP),
            libc::prctl(PR_GET_SHADOW_STACK_STATUS, &raw mut status, 0_u64, 0_u64, 0_u64),
        )
    };
    ProtectionFacts {
        arm64_hardware,
        arm64_shadow_stack: (stacks == 0).then_some(status),
        ..ProtectionFacts::default()
    }
}

/// On other processors Linux has no shadow stacks; x86 has them for 64-bit programs alone.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) fn protection_facts() -> ProtectionFacts {
    ProtectionFacts::default()
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(stackmark_tsan))]
    fn a_visit_of_all_processors_leaves_the_thread_where_it_may_run() {
        let mask = || {
            // SAFETY: all zeroes is a valid value, and the call only asks.
            unsafe {
                let mut mask: libc::cpu_set_t = std::mem::zeroed();
                let bytes = size_of::<libc::cpu_set_t>();
                assert_eq!(libc::sched_getaffinity(0, bytes, &raw mut mask), 0);
                mask
            }
        };
        let before = mask();
        visit_all_processors().expect("a thread may run on its processors");
        // SAFETY: both were written.
        assert!(unsafe { libc::CPU_EQUAL(&before, &mask()) });
    }
}
