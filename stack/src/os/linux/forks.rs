//! How a process learns that it is the child of a fork.

use super::pages::{Mapping, map, page_size, unmap};
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The word where no page can be had that the system clears. A handler of fork(3) clears it: not of
/// the plain system call.
static PLAIN: AtomicU32 = AtomicU32::new(0);

/// A word that is 0 in the child of a fork, whatever it was in the parent. A child that shares the
/// parent's memory, as of vfork, leaves it. The same word for all callers.
pub(crate) fn word_that_a_fork_clears() -> &'static AtomicU32 {
    static WORD: OnceLock<&'static AtomicU32> = OnceLock::new();
    WORD.get_or_init(|| page_that_a_fork_clears().unwrap_or_else(plain))
}

fn page_that_a_fork_clears() -> Option<&'static AtomicU32> {
    let at = map(page_size(), Mapping::Memory).ok()?;
    // SAFETY: our own page, which is never unmapped but where the advice is refused. Then nothing
    // refers to it.
    unsafe {
        if libc::madvise(at as *mut c_void, page_size(), libc::MADV_WIPEONFORK) == 0 {
            return Some(&*(at as *const AtomicU32));
        }
        let _ = unmap(at, page_size());
    }
    None
}

fn plain() -> &'static AtomicU32 {
    extern "C" fn in_child() {
        PLAIN.store(0, Ordering::Relaxed);
    }
    // SAFETY: the handler stores one word. Where there is no memory for it, forks are not noticed.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    &PLAIN
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// Whether the child of a plain fork finds the word cleared.
    fn is_cleared_in_a_child(word: &AtomicU32, fork: unsafe fn() -> i32) -> bool {
        // SAFETY: the child reads a word and ends; the parent waits for it.
        unsafe {
            match fork() {
                0 => libc::_exit((word.load(Ordering::Relaxed) == 0).into()),
                child => {
                    let mut status = 0;
                    assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
                    assert!(libc::WIFEXITED(status));
                    libc::WEXITSTATUS(status) == 1
                }
            }
        }
    }

    #[test]
    fn a_fork_clears_the_word_in_the_child_alone() {
        unsafe fn system_call() -> i32 {
            // SAFETY: the caller's.
            unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) as i32 }
        }
        unsafe fn function() -> i32 {
            // SAFETY: the caller's.
            unsafe { libc::fork() }
        }
        let keeps = |word: &AtomicU32| {
            word.store(7, Ordering::Relaxed);
            assert!(is_cleared_in_a_child(word, function));
            assert_eq!(word.load(Ordering::Relaxed), 7);
        };
        keeps(plain());
        if limits::is_skipped_under_emulation(
            "the emulator does not clear pages in the child of a fork",
        ) {
            return;
        }
        let page = page_that_a_fork_clears().expect("Linux since 4.14");
        keeps(page);
        assert!(is_cleared_in_a_child(page, system_call), "without a handler, too");
    }
}
