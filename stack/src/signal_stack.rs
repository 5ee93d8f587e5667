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
