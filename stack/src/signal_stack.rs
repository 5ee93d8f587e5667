//! Alternate signal stacks (contract C7): a signal frame is larger than a small goroutine stack.

use std::cell::RefCell;
use std::ptr;

/// Room for a handler's own frames beyond the kernel's signal frame.
const HANDLER_BYTES: usize = 32 << 10;

/// A mapping that is this thread's alternate stack, undone when the thread ends.
struct Alternate {
    at: *mut libc::c_void,
    bytes: usize,
}

impl Drop for Alternate {
    fn drop(&mut self) {
        let off = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: the thread ends: it is not on the stack that it gives up; the mapping is ours.
        unsafe {
            libc::sigaltstack(&off, ptr::null_mut());
            libc::munmap(self.at, self.bytes);
        }
    }
}

thread_local! {
    static OURS: RefCell<Option<Alternate>> = const { RefCell::new(None) };
}

/// The signals whose handlers run on whatever stack they interrupt: on a goroutine's they overrun it.
pub(crate) fn handlers_without_it() -> Vec<libc::c_int> {
    (1..=libc::SIGRTMAX())
        .filter(|&signal| {
            // SAFETY: all zeroes is a valid value, and the call only asks; it fails for numbers that are no signals.
            let action = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                (libc::sigaction(signal, ptr::null(), &mut action) == 0).then_some(action)
            };
            action.is_some_and(|action| {
                let handled = action.sa_sigaction != libc::SIG_DFL && action.sa_sigaction != libc::SIG_IGN;
                handled && action.sa_flags & libc::SA_ONSTACK == 0
            })
        })
        .collect()
}

/// Gives this thread an alternate signal stack, unless it has one that is large enough.
///
/// # Panics
/// If the system gives no memory for it.
pub(crate) fn ensure() {
    // SAFETY: a plain question to the system.
    let frame = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    let bytes = frame.max(libc::MINSIGSTKSZ) + HANDLER_BYTES;
    let mut now = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
    // SAFETY: only asks.
    unsafe { libc::sigaltstack(ptr::null(), &mut now) };
    if now.ss_flags & libc::SS_DISABLE == 0 && now.ss_size >= bytes {
        return;
    }
    let bytes = bytes.next_multiple_of(4096);
    // SAFETY: a fresh mapping; it stays until the thread ends.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let at = libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
        assert_ne!(at, libc::MAP_FAILED, "no memory for a signal stack: {}", std::io::Error::last_os_error());
        let new = libc::stack_t { ss_sp: at, ss_flags: 0, ss_size: bytes };
        let set = libc::sigaltstack(&new, ptr::null_mut());
        assert_eq!(set, 0, "sigaltstack: {}", std::io::Error::last_os_error());
        OURS.with_borrow_mut(|ours| *ours = Some(Alternate { at, bytes }));
    }
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
    fn a_thread_gets_a_large_enough_alternate_stack() {
        std::thread::spawn(|| {
            ensure();
            let mut now = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: 0, ss_size: 0 };
            // SAFETY: only asks.
            unsafe { libc::sigaltstack(ptr::null(), &mut now) };
            assert_eq!(now.ss_flags & libc::SS_DISABLE, 0);
            assert!(now.ss_size >= libc::MINSIGSTKSZ + HANDLER_BYTES);
        })
        .join()
        .expect("no panic");
    }
}
