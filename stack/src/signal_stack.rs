//! Alternate signal stacks (contract C7): a signal frame is larger than a small goroutine stack.

use crate::memory::StackError;
use std::ops::Range;
use std::ptr;

/// Room for a handler's own frames beyond the kernel's signal frame.
const HANDLER_BYTES: usize = 32 << 10;

/// Memory for a thread's alternate stack.
#[derive(Debug)]
pub(crate) struct SignalStack {
    at: usize,
    bytes: usize,
    /// What the thread had before: address, flags, bytes.
    before: Option<(usize, libc::c_int, usize)>,
}

/// Why a thread gets no alternate stack.
#[derive(Clone, Debug)]
pub(crate) enum NoSignalStack {
    /// It runs on one: in a signal handler.
    InHandler,
    /// There is no memory.
    Memory(StackError),
}

/// Bytes that an alternate stack must have.
fn wanted() -> usize {
    // SAFETY: a plain question to the system.
    let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    (frame.max(libc::MINSIGSTKSZ) + HANDLER_BYTES).next_multiple_of(4096)
}

/// The thread's alternate stack as it is now.
fn current() -> libc::stack_t {
    let mut now = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: only asks.
    unsafe { libc::sigaltstack(ptr::null(), &mut now) };
    now
}

impl SignalStack {
    /// # Errors
    /// [`StackError::OutOfMemory`].
    pub(crate) fn new() -> Result<SignalStack, StackError> {
        let bytes = wanted();
        // SAFETY: a fresh mapping.
        let at = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
        };
        if at == libc::MAP_FAILED {
            return Err(StackError::OutOfMemory {
                bytes,
                reason: std::io::Error::last_os_error().to_string(),
            });
        }
        Ok(SignalStack { at: at as usize, bytes, before: None })
    }

    /// The thread that has been given this stack goes back to the one that it had before.
    pub(crate) fn give_up(&mut self) {
        if current().ss_sp as usize == self.at
            && let Some((at, ss_flags, ss_size)) = self.before.take()
        {
            let before = libc::stack_t { ss_sp: at as *mut libc::c_void, ss_flags, ss_size };
            // SAFETY: the stack's owner, the thread, has not taken it back meanwhile. It fails if
            // the thread is on ours.
            unsafe { libc::sigaltstack(&before, ptr::null_mut()) };
        }
    }
}

impl Drop for SignalStack {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no thread has it as its alternate stack any more.
        unsafe { libc::munmap(self.at as *mut libc::c_void, self.bytes) };
    }
}

/// Whether this thread is in a signal handler, as far as that runs on the alternate stack.
/// Signal-safe.
pub(crate) fn in_handler() -> bool {
    current().ss_flags & libc::SS_ONSTACK != 0
}

/// Sees to it that this thread has an alternate signal stack that is large enough: its own, or the
/// one in `ours`, made if there is none. Returns where it lies.
///
/// # Errors
/// [`NoSignalStack`].
pub(crate) fn ensure(ours: &mut Option<SignalStack>) -> Result<Range<usize>, NoSignalStack> {
    let now = current();
    if now.ss_flags & libc::SS_ONSTACK != 0 {
        return Err(NoSignalStack::InHandler);
    }
    if now.ss_flags & libc::SS_DISABLE == 0 && now.ss_size >= wanted() {
        return Ok(now.ss_sp as usize..now.ss_sp as usize + now.ss_size);
    }
    let ours = match ours {
        Some(ours) => ours,
        None => ours.insert(SignalStack::new().map_err(NoSignalStack::Memory)?),
    };
    ours.before = Some((now.ss_sp as usize, now.ss_flags, now.ss_size));
    let (at, bytes) = (ours.at, ours.bytes);
    let new = libc::stack_t { ss_sp: at as *mut libc::c_void, ss_flags: 0, ss_size: bytes };
    // SAFETY: memory of ours that stays until the thread has given it up.
    let set = unsafe { libc::sigaltstack(&new, ptr::null_mut()) };
    assert_eq!(set, 0, "sigaltstack: {}", std::io::Error::last_os_error());
    Ok(at..at + bytes)
}

/// The signals whose handlers run on whatever stack they interrupt: on a goroutine's they overrun
/// it.
pub(crate) fn handlers_without_it() -> Vec<libc::c_int> {
    (1..=libc::SIGRTMAX())
        .filter(|&signal| {
            // SAFETY: all zeroes is a valid value, and the call only asks; it fails for numbers
            // that are no signals.
            let action = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                (libc::sigaction(signal, ptr::null(), &mut action) == 0).then_some(action)
            };
            action.is_some_and(|action| {
                let handled =
                    action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
                handled && action.sa_flags & libc::SA_ONSTACK == 0
            })
        })
        .collect()
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    extern "C" fn handler(_signal: libc::c_int) {}

    #[test]
    fn a_handler_without_an_alternate_stack_is_found() {
        let signal = libc::SIGRTMAX() - 1;
        let install = |flags| {
            // SAFETY: the handler does nothing, and nobody sends this signal.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = handler as *const () as usize;
                action.sa_flags = flags;
                assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
            }
        };
        install(libc::SA_ONSTACK);
        assert!(!handlers_without_it().contains(&signal));
        install(0);
        assert!(handlers_without_it().contains(&signal));
        install(libc::SA_ONSTACK);
    }

    #[test]
    fn a_thread_gets_a_large_enough_alternate_stack_and_gives_it_up() {
        std::thread::spawn(|| {
            // The standard library's own is too small.
            let before = current();
            let mut ours = None;
            let range = ensure(&mut ours).expect("not in a handler");
            let now = current();
            assert_eq!(now.ss_flags & libc::SS_DISABLE, 0);
            assert_eq!(range, now.ss_sp as usize..now.ss_sp as usize + now.ss_size);
            assert!(now.ss_size >= libc::MINSIGSTKSZ + HANDLER_BYTES);
            assert_eq!(ensure(&mut None).expect("not in a handler"), range, "it has one");
            ours.expect("it was made").give_up();
            assert_eq!((current().ss_sp, current().ss_size), (before.ss_sp, before.ss_size));
        })
        .join()
        .expect("no panic");
    }
}
