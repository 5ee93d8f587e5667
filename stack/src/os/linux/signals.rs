//! Signals: alternate stacks, handlers that lack them, interrupts of a thread, faults.

use std::ffi::{c_int, c_void};
use std::io;
use std::ptr;
use std::sync::OnceLock;

/// The alternate signal stack of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AlternateStack {
    pub(crate) at: usize,
    pub(crate) bytes: usize,
    flags: c_int,
}

impl AlternateStack {
    /// Whether handlers run on such stacks.
    pub(crate) const ARE_USED: bool = true;

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
/// goroutine's stack. Signal-safe.
pub(crate) fn handlers_without_alternate_stack() -> impl Iterator<Item = c_int> {
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
    (1..=libc::SIGRTMAX()).filter(lacks)
}

/// A signal handler. It gets the signal, its description, and the interrupted context.
pub(crate) type Handler = unsafe extern "C" fn(i32, *mut c_void, *mut c_void);

/// What a handler gets of the interrupted code.
pub(crate) use libc::ucontext_t as InterruptedContext;

/// The interrupted context, to which a handler's last argument points.
pub(crate) fn interrupted(context: *mut c_void) -> *const InterruptedContext {
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

/// What [`handle_faults`] calls, in the handler: with the address that the fault is about.
/// Signal-safe.
pub(crate) type OnFault = fn(address: usize);

/// The actions that were there before [`handle_faults`], and what it calls.
struct Faults {
    on_fault: OnFault,
    before: [(c_int, libc::sigaction); 2],
}

static FAULTS: OnceLock<Faults> = OnceLock::new();

/// Calls `on_fault` for each fault of memory in the process, on the thread's alternate stack. If it
/// returns, the action that was there before goes on. A second call does nothing.
///
/// # Errors
/// The system's error.
pub(crate) fn handle_faults(on_fault: OnFault) -> io::Result<()> {
    let mut before = Vec::new();
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all zeroes is a valid value, and the call only asks.
        let (result, action) = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(signal, ptr::null(), &mut action), action)
        };
        if result != 0 {
            return Err(refused(signal));
        }
        before.push((signal, action));
    }
    let before = before.try_into().expect("two signals");
    if FAULTS.set(Faults { on_fault, before }).is_err() {
        return Ok(());
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: all zeroes is a valid value; the handler is signal-safe. SA_NODEFER: the earlier
        // handler may be left by a fault of its own.
        let result = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &action, ptr::null_mut())
        };
        if result != 0 {
            return Err(refused(signal));
        }
    }
    Ok(())
}

fn refused(signal: c_int) -> io::Error {
    let error = io::Error::last_os_error();
    io::Error::new(error.kind(), format!("no handler of signal {signal}: {error}"))
}

/// The handler of faults.
unsafe extern "C" fn on_fault_signal(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let faults = FAULTS.get().expect("set before the handler");
    // SAFETY: the system passes a description, which has an address for these signals.
    let address = unsafe { (*info).si_addr() } as usize;
    (faults.on_fault)(address);
    let found = faults.before.iter().find(|(number, _)| *number == signal);
    let (_, before) = found.expect("the handler of these signals");
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // The code faults again, and the default action ends the process. A signal that another
            // process has sent does not come again by itself.
            // SAFETY: all zeroes is a valid value: the default action.
            unsafe {
                let default: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, &default, ptr::null_mut());
                libc::raise(signal);
            }
        }
        // SAFETY: the action's handler, called as the system would.
        handler => unsafe {
            if before.sa_flags & libc::SA_SIGINFO != 0 {
                type Handler = unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
                std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
            } else {
                std::mem::transmute::<usize, unsafe extern "C" fn(c_int)>(handler)(signal);
            }
        },
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

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
        assert!(!handlers_without_alternate_stack().any(|found| found == signal));
        install(0);
        assert!(handlers_without_alternate_stack().any(|found| found == signal));
        install(libc::SA_ONSTACK);
    }
}
