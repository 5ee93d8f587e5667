//! Overflows of the native stack of an attached thread: calls that nest too deep between managed
//! and native code, or native code that recurses.

use super::thread::ThreadRecord;
use crate::{alarm, ending, os};

/// How far below a stack an access still counts as an overflow of it: frames of native code may be
/// larger than the guard page.
const REACH: usize = 64 << 10;

/// Makes an overflow of the native stack of an attached thread end the process, with one line and
/// status 2. For this a handler of SIGSEGV and SIGBUS is installed, or one of exceptions. Other
/// faults go to the handlers that were there before. Handlers that are installed later replace it,
/// or come first. Called on any thread; a second call does nothing.
///
/// # Errors
/// The system's error.
pub fn report_native_overflow() -> std::io::Result<()> {
    os::handle_faults(on_fault)
}

/// Signal-safe.
fn on_fault(address: usize) {
    // A handler that overruns a stack makes such faults.
    alarm::check_handlers();
    let Some((_, stack)) = ThreadRecord::interrupted() else { return };
    // The system counts the guard page to the stack, or does not.
    let beyond = stack.start.saturating_sub(REACH)..stack.start + os::page_size();
    if !stack.is_empty() && beyond.contains(&address) {
        ending::end(format_args!(
            "thread {} has overflowed its native stack of {} bytes: native calls nest too deep",
            os::this_thread(),
            stack.len()
        ));
    }
}
