//! Signals that end a process: one line and status 2, as in Go. A C function or the C library
//! aborts, native code accesses memory that is not there.

use super::{exit_now, write_error};
use stackmark::stack::ending;
use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::OnceLock;

/// The signals, and Go's lines.
const LINES: [(c_int, &str); 6] = [
    (libc::SIGABRT, "SIGABRT: abort\n"),
    (libc::SIGBUS, "SIGBUS: bus error\n"),
    (libc::SIGFPE, "SIGFPE: floating-point exception\n"),
    (libc::SIGILL, "SIGILL: illegal instruction\n"),
    (libc::SIGSEGV, "SIGSEGV: segmentation violation\n"),
    (libc::SIGSYS, "SIGSYS: bad system call\n"),
];

type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// The handlers of SIGSEGV and SIGBUS that were there before: they name the thread that has
/// overflowed its stack.
static BEFORE: OnceLock<Vec<(c_int, libc::sigaction)>> = OnceLock::new();

/// Installs the handlers. Sanitizers have their own.
///
/// # Errors
/// The system's error.
pub(crate) fn handle_faults() -> io::Result<()> {
    if cfg!(any(stackmark_asan, stackmark_tsan)) {
        return Ok(());
    }
    let mut before = Vec::new();
    for (signal, _) in LINES {
        // SAFETY: all zeroes is a valid value, and the call only asks.
        let (asked, action) = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, ptr::null(), &raw mut action), action)
        };
        if asked != 0 {
            return Err(refused(signal));
        }
        let is_function = !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
        if is_function && action.sa_flags & libc::SA_SIGINFO != 0 {
            before.push((signal, action));
        }
    }
    let _ = BEFORE.set(before);
    for (signal, _) in LINES {
        // SAFETY: all zeroes is a valid value, and the handler is signal-safe.
        let installed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, ptr::null_mut())
        };
        if installed != 0 {
            return Err(refused(signal));
        }
    }
    Ok(())
}

fn refused(signal: c_int) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("no handler of signal {signal}: {error}"))
}

unsafe extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().and_then(|all| all.iter().find(|(number, _)| *number == signal));
    if let Some((_, action)) = before
        && stackmark_asm::current().is_null()
    {
        // SAFETY: the handler that was there, called as the system would.
        unsafe {
            std::mem::transmute::<usize, Handler>(action.sa_sigaction)(signal, info, context);
        }
        return;
    }
    ending::claim();
    let line = LINES.iter().find(|(number, _)| *number == signal);
    write_error(line.map_or("a signal\n", |(_, line)| line).as_bytes());
    exit_now(2)
}
