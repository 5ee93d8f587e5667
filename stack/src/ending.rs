//! The end of the process where code must not unwind.
//!
//! In the middle of a protocol a panic would leave a goroutine lost, a scan half made or a lock's
//! value half written, and the other threads would wait for ever or free what lives. A panic there
//! ends the process, with one line. Such panics come from the embedder's code: a closure, or a
//! method of a trait that the library calls.

use crate::os;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Calls `f`, which must not unwind: `what` is a noun phrase for the line that is written. A panic
/// ends the process with status 2, without running destructors: other threads still run. The
/// panic's own message has been written already.
///
/// The panic is caught, so the search for a handler ends here. It must not go on: the stack below
/// may be another thread's by now.
#[inline]
pub(crate) fn without_unwinding<R>(what: &'static str, f: impl FnOnce() -> R) -> R {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(_) => end(format_args!("{what} has unwound")),
    }
}

/// Runs a thread of the library. A panic on it ends the process with status 2: other threads would
/// wait for its work for ever. Forced unwinding, by `pthread_exit`, passes.
pub fn run_thread<R>(run: impl FnOnce() -> R) -> R {
    struct AtPanic;
    impl Drop for AtPanic {
        fn drop(&mut self) {
            if std::thread::panicking() {
                let thread = std::thread::current();
                let name = thread.name().unwrap_or("without a name");
                end(format_args!("thread {name} panicked"));
            }
        }
    }
    let _at_panic = AtPanic;
    run()
}

/// The process and the thread that ends it, by their numbers. 0: none.
static ENDS: AtomicU64 = AtomicU64::new(0);

/// Has the calling thread end the process. Where another thread does so already, waits for the end:
/// what stops one thread mostly stops them all, and one of them says it. The thread that ends the
/// process may call again. Signal-safe.
#[cold]
pub fn claim() {
    let own = u64::from(std::process::id()) << 32 | os::this_thread() as u64;
    loop {
        // Relaxed: the word alone matters.
        let Err(other) = ENDS.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) else {
            return;
        };
        // The child of a fork does not have its parent's threads.
        if other == own || other >> 32 != own >> 32 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Ends the process with one line and status 2. No destructors run: other threads still run.
/// Signal-safe if the arguments' `Display` is: the line is made on the stack, as there may be no
/// memory, or the allocator's lock may be taken.
#[cold]
pub(crate) fn end(why: fmt::Arguments<'_>) -> ! {
    claim();
    let mut line = Line { text: [0; LONGEST], len: 0 };
    // A line that is too long is cut.
    let _ = writeln!(line, "stackmark: the process ends: {why}");
    line.text[LONGEST - 1] = b'\n';
    os::write_to_stderr(&line.text[..line.len]);
    os::exit_now(2)
}

/// The longest line, in bytes.
const LONGEST: usize = 1024;

/// Text on the stack.
struct Line {
    text: [u8; LONGEST],
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = text.len().min(LONGEST - self.len);
        self.text[self.len..self.len + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.len += taken;
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
