//! Linux with glibc.

use std::ffi::{CStr, c_int, c_void};
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: the call only asks.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
    })
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Memory that is used soon.
    Memory,
    /// Addresses whose pages appear when they are touched.
    Reserved,
}

/// Maps `bytes` of zeroed memory. Returns its address.
///
/// # Errors
/// The system's error.
pub(crate) fn map(bytes: usize, mapping: Mapping) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let flags = match mapping {
        Mapping::Memory => flags,
        Mapping::Reserved => flags | libc::MAP_NORESERVE,
    };
    // SAFETY: a fresh anonymous mapping touches no existing memory.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as usize) }
}

/// Unmaps `bytes` at `at`.
///
/// # Errors
/// The system's error; the mapping is still there then.
///
/// # Safety
/// The range is a mapping made by [`map`], and nothing uses it any more.
pub(crate) unsafe fn unmap(at: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: our contract.
    let result = unsafe { libc::munmap(at as *mut c_void, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a page a guard: each access to it faults.
///
/// # Errors
/// The system's error.
///
/// # Safety
/// The page is the caller's, and nothing uses it.
pub(crate) unsafe fn guard_page(at: usize) -> io::Result<()> {
    // SAFETY: our contract.
    let result = unsafe { libc::mprotect(at as *mut c_void, page_size(), libc::PROT_NONE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the pages wholly inside `range` back to the system. They read as zero afterwards. A
/// failure only costs memory.
///
/// # Safety
/// The range lies in a mapping made by [`map`], and its contents are dead.
pub(crate) unsafe fn give_pages_back(range: Range<usize>) {
    let page = page_size();
    let (lo, hi) = (range.start.next_multiple_of(page), range.end / page * page);
    if lo < hi {
        // SAFETY: our contract.
        unsafe { libc::madvise(lo as *mut c_void, hi - lo, libc::MADV_DONTNEED) };
    }
}

#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
pub(crate) use fences::{fence_all_threads, prepare_fence_of_all_threads, visit_all_processors};

/// The fence of all threads. Under loom and ThreadSanitizer the shim has fences of its own.
#[cfg(not(any(stackmark_loom, stackmark_tsan)))]
mod fences {
    use std::ffi::{c_int, c_ulong};
    use std::io;

    const MEMBARRIER_PRIVATE_EXPEDITED: c_int = 1 << 3;
    const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;

    fn membarrier(command: c_int) -> io::Result<()> {
        // SAFETY: the call touches no memory of ours.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Registers the process for [`fence_all_threads`]. False: the system has no such fence.
    pub(crate) fn prepare_fence_of_all_threads() -> bool {
        membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED).is_ok()
    }

    /// Makes every running thread of the process execute a full fence before this returns.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn fence_all_threads() -> io::Result<()> {
        membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
    }

    /// As [`fence_all_threads`], without membarrier: visits every processor. The calling thread
    /// runs on each in turn. A thread that ran there has been switched out or has moved meanwhile,
    /// and either is a full fence. A thread that did not run at the beginning has had its fence. So
    /// this holds on every architecture, where interrupts by mprotect(2) do not: some processors
    /// shoot down translations without interrupts.
    ///
    /// A processor that the system refuses as invalid is one on which no thread of the process may
    /// run, unless its threads are in different cpusets. Takes a thread switch for each processor.
    ///
    /// # Errors
    /// The system's error. The thread may stay on one processor then.
    pub(crate) fn visit_all_processors() -> io::Result<()> {
        /// Processors that the largest mask has: more than any Linux.
        const MOST: usize = 1 << 16;
        const BITS: usize = c_ulong::BITS as usize;
        let mut mine: Vec<c_ulong> = vec![0; MOST / BITS];
        let call = |number, mask: &mut [c_ulong]| {
            // SAFETY: the call reads or writes so many bytes of the mask.
            let result = unsafe { libc::syscall(number, 0, size_of_val(mask), mask.as_mut_ptr()) };
            usize::try_from(result).map_err(|_| io::Error::last_os_error())
        };
        let bytes = call(libc::SYS_sched_getaffinity, &mut mine)?;
        mine.truncate(bytes / size_of::<c_ulong>());
        let mut one = vec![0; mine.len()];
        for processor in 0..mine.len() * BITS {
            one.fill(0);
            one[processor / BITS] = 1 << (processor % BITS);
            match call(libc::SYS_sched_setaffinity, &mut one) {
                Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
                _ => {}
            }
        }
        call(libc::SYS_sched_setaffinity, &mut mine).map(|_| ())
    }
}

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

/// The alternate signal stack of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlternateStack {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    flags: c_int,
}

impl AlternateStack {
    /// An alternate stack in this memory.
    pub(crate) fn new(at: usize, bytes: usize) -> AlternateStack {
        AlternateStack { at, bytes, flags: 0 }
    }

    /// The alternate stack of the calling thread.
    pub(crate) fn current() -> AlternateStack {
        let mut now = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        // SAFETY: the call only asks.
        unsafe { libc::sigaltstack(ptr::null(), &mut now) };
        AlternateStack { at: now.ss_sp as usize, bytes: now.ss_size, flags: now.ss_flags }
    }

    /// Whether a handler runs on it now.
    pub(crate) fn is_in_use(&self) -> bool {
        self.flags & libc::SS_ONSTACK != 0
    }

    /// Whether the thread has one.
    pub(crate) fn is_enabled(&self) -> bool {
        self.flags & libc::SS_DISABLE == 0
    }

    /// Makes it the alternate stack of the calling thread.
    ///
    /// # Errors
    /// The system's error, for example that a handler runs on the present stack.
    ///
    /// # Safety
    /// The memory stays mapped until the thread has another alternate stack.
    pub(crate) unsafe fn install(&self) -> io::Result<()> {
        let new = libc::stack_t {
            ss_sp: self.at as *mut c_void,
            ss_flags: self.flags,
            ss_size: self.bytes,
        };
        // SAFETY: our contract.
        let set = unsafe { libc::sigaltstack(&new, ptr::null_mut()) };
        if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// The bytes that the system needs for a signal frame.
    pub(crate) fn signal_frame_bytes() -> usize {
        // SAFETY: the call only asks.
        let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
        frame.max(libc::MINSIGSTKSZ)
    }
}

/// The signals whose handlers run on the stack that they interrupt. Such a handler overruns a
/// goroutine's stack.
pub(crate) fn handlers_without_alternate_stack() -> Vec<c_int> {
    let lacks = |&signal: &c_int| {
        // SAFETY: all zeroes is a valid value, and the call only asks; it fails for numbers that
        // are no signals.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, ptr::null(), &mut action) == 0).then_some(action)
        };
        action.is_some_and(|action| {
            let handled =
                action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
            handled && action.sa_flags & libc::SA_ONSTACK == 0
        })
    };
    (1..=libc::SIGRTMAX()).filter(lacks).collect()
}

/// The system's number of the calling thread.
pub(crate) fn this_thread() -> i32 {
    // SAFETY: the call only asks.
    unsafe { libc::gettid() }
}

/// A signal handler. It gets the signal, its description, and the interrupted context.
pub(crate) type Handler = unsafe extern "C" fn(i32, *mut c_void, *mut c_void);

/// The interrupted context, to which a handler's last argument points.
pub(crate) fn interrupted(context: *mut c_void) -> *const libc::ucontext_t {
    context.cast()
}

/// Interrupts the thread with this number: `handler` runs there, on its alternate stack. Waits
/// until `done` returns true. The signal is SIGURG, which is ignored by default, and which Go's
/// runtime uses for preemption. During the call the program's own handler for it is not called.
///
/// # Errors
/// The system's error, for example that there is no such thread.
///
/// # Safety
/// The handler is signal-safe. It may run after this has returned.
pub(crate) unsafe fn interrupt(
    thread: i32,
    handler: Handler,
    done: impl Fn() -> bool,
) -> io::Result<()> {
    // SAFETY: all zeroes is a valid value. The earlier action is restored below. A signal that
    // arrives later gets the program's own action.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        if libc::sigaction(libc::SIGURG, &action, &mut before) != 0 {
            return Err(io::Error::last_os_error());
        }
        let sent = libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGURG);
        let result = if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        while result.is_ok() && !done() {
            std::thread::sleep(std::time::Duration::from_micros(100));
        }
        libc::sigaction(libc::SIGURG, &before, std::ptr::null_mut());
        result
    }
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

/// Writes to standard error without a lock or a buffer. Ignores errors.
pub(crate) fn write_to_stderr(text: &str) {
    let mut rest = text.as_bytes();
    while !rest.is_empty() {
        // SAFETY: the bytes are ours.
        let written = unsafe { libc::write(libc::STDERR_FILENO, rest.as_ptr().cast(), rest.len()) };
        match usize::try_from(written) {
            Ok(written) => rest = &rest[written..],
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
}

/// Ends the process at once. No destructors run, because other threads still run.
pub(crate) fn exit_now(status: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(status) }
}

/// What the system says about shadow stacks of the calling thread and about keys for
/// signed return addresses.
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
    /// arm64: what `PR_PAC_GET_ENABLED_KEYS` names.
    pub(crate) arm64_keys: Option<u64>,
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
    const PR_PAC_GET_ENABLED_KEYS: c_int = 61;
    let mut status: u64 = 0;
    // SAFETY: the first call reads the auxiliary vector, the second writes one word to `status` or
    // fails, the third returns a number.
    let (arm64_hardware, stacks, keys) = unsafe {
        (
            libc::getauxval(libc::AT_HWCAP),
            libc::prctl(PR_GET_SHADOW_STACK_STATUS, &raw mut status, 0_u64, 0_u64, 0_u64),
            libc::prctl(PR_PAC_GET_ENABLED_KEYS, 0_u64, 0_u64, 0_u64, 0_u64),
        )
    };
    ProtectionFacts {
        arm64_hardware,
        arm64_shadow_stack: (stacks == 0).then_some(status),
        arm64_keys: u64::try_from(keys).ok(),
        ..ProtectionFacts::default()
    }
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

    extern "C" fn handler(_signal: c_int) {}

    #[test]
    fn a_handler_without_an_alternate_stack_is_found() {
        let signal = libc::SIGRTMAX() - 1;
        let install = |flags| {
            // SAFETY: the handler does nothing, and nothing sends this signal.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = flags;
                assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
            }
        };
        install(libc::SA_ONSTACK);
        assert!(!handlers_without_alternate_stack().contains(&signal));
        install(0);
        assert!(handlers_without_alternate_stack().contains(&signal));
        install(libc::SA_ONSTACK);
    }
}
