//! What the fuzz targets share.

use std::sync::Once;

/// Makes every signal handler of the process run on the alternate stack, the first time it is
/// called. libFuzzer installs its own without the flag, after its initialisation and before the
/// first input, and a signal frame is larger than what a small goroutine stack has left.
///
/// # Panics
/// If a handler cannot be installed again.
pub fn signals_on_alternate_stack() {
    static ONCE: Once = Once::new();
    ONCE.call_once(install_again);
}

/// Runs the inputs in the files that the command line names.
///
/// # Panics
/// If a file cannot be read.
pub fn run_files(run: fn(&[u8])) {
    for path in std::env::args().skip(1) {
        run(&std::fs::read(path).expect("an input"));
    }
}

fn install_again() {
    for signal in 1..=31 {
        // SAFETY: an all-zero sigaction is a value of the type, to be overwritten.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        // SAFETY: only reads the present action, into memory of ours.
        if unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) } != 0 {
            continue;
        }
        let has_handler = !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        if has_handler && action.sa_flags & libc::SA_ONSTACK == 0 {
            action.sa_flags |= libc::SA_ONSTACK;
            // SAFETY: the handler is the one that was installed, on another stack.
            let done = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
            assert_eq!(done, 0, "signal {signal}");
        }
    }
}
