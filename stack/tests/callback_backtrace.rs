//! A trace from a signal handler, of compiled code deep in a callback that native code made which
//! compiled code called, equals gdb's frame by frame.
// No gdb debugs a process of wine's.
#![cfg(not(windows))]

#[path = "../../unwind/tests/support/gdb.rs"]
mod gdb;

use compiler::{Embedder, rec_result};
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use stackmark_stack::asm;
use stackmark_stack::unwind::{Code, RuleCache};
use stackmark_stack::{BarrierMode, Caller, Config, Left, Machine, Runtime, sample};

static OBJECT: usize = 7;
static CODE: OnceLock<Arc<Code>> = OnceLock::new();
/// The compiled entry for callbacks, for the outer bottom.
static BACK: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    match BACK.swap(0, Relaxed) {
        // SAFETY: the signal has a handler.
        0 => _ = unsafe { libc::raise(libc::SIGUSR1) },
        back => {
            // SAFETY: used within this function alone.
            let caller = unsafe { Caller::current() };
            let goroutine = caller.goroutine().address();
            let mut argument = [goroutine, 40, &raw const OBJECT as usize, 0];
            // SAFETY: the callee is compiled code of one word in, one word out.
            caller.foreign(|| unsafe {
                let back = std::mem::transmute::<usize, asm::ManagedFn>(back);
                caller.callback(back, argument.as_mut_ptr() as usize).expect("no exception");
            });
            assert_eq!(argument[3], rec_result(40, OBJECT, 0));
        }
    }
    0
}

extern "C" fn on_signal(
    _signal: i32,
    _info: *mut libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    let code = CODE.get().expect("set before the goroutine runs");
    let mut cache = RuleCache::fixed(256);
    let mut pcs = Vec::new();
    // SAFETY: the handler of a signal that this thread has sent to itself, where it owns no lock.
    let walked = unsafe {
        sample::trace_interrupted(code, &mut cache, &*interrupted, |frame| {
            pcs.push((frame.pc, frame.signal_frame));
            ControlFlow::<()>::Continue(())
        })
    };
    assert_eq!(walked, Some(Ok(None)));
    assert!(pcs.last().is_some_and(|(pc, _)| asm::entry_range().contains(pc)), "{pcs:x?}");
    gdb::report(&pcs);
    gdb::stackmark_test_stop();
}

/// What runs under gdb; nothing otherwise.
#[test]
fn subject() {
    if std::env::var_os(gdb::SUBJECT).is_none() {
        return;
    }
    let code = Arc::new(Code::new());
    let compiled = compiler::compile(&code, bottom, 16);
    let config = Config { barriers: BarrierMode::Off, ..Config::default() };
    let runtime =
        Runtime::new(config, code.clone(), Box::new(Embedder)).expect("the assembly's frames");
    code.refresh_images();
    code.snapshot().read_images().expect("the CFI of this process");
    assert!(CODE.set(code).is_ok());
    BACK.store(compiled.address("back"), Relaxed);
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    // SAFETY: the handler runs on the alternate stack that attaching has given this thread.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()), 0);
    }
    let mut argument = [30, &raw const OBJECT as usize, 0];
    // SAFETY: the entry is compiled code that keeps the contracts.
    let goroutine =
        unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }.expect("memory");
    assert!(matches!(machine.run(goroutine), Left::Exited));
}

#[test]
fn deep_in_a_callback_equals_gdbs() {
    let Some((walked, by_gdb)) = gdb::both("subject", "callback", "") else { return };
    // Behind the frame of the signal, the interrupted one.
    let signal = by_gdb.iter().position(|(_, signal)| *signal).expect("the frame of a signal");
    assert_eq!(walked, by_gdb[signal + 1..]);
    assert!(walked.len() > 30 + 40 + 8, "{} frames", walked.len());
}
