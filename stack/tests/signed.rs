//! Code that signs its return addresses, and checks them before it returns: its stacks move, have
//! barriers, and are left by exceptions.
// Other processors do not sign.
#![cfg(target_arch = "aarch64")]

use compiler::{Compiler, Embedder, Ignoring, rec_result};
use parking_lot::Mutex;
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, Left, Machine, NextCycle, Runtime, ScanScope,
};
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// `paciasp`.
const SIGN: u32 = 0xd503_233f;

/// Drives the cycles of the test that runs.
static CYCLES: Mutex<Option<CycleDriver>> = Mutex::new(None);
/// One test at a time: they share CYCLES and the stubs.
static ONE: Mutex<()> = Mutex::new(());

/// Whether this processor signs. If not, the tests show little.
fn processor_signs() -> bool {
    let signs = std::arch::is_aarch64_feature_detected!("paca");
    if !signs {
        eprintln!("skipped: this processor does not sign return addresses");
    }
    signs
}

/// At the bottom of a recursion: so many cycles, each of which removes the barriers of the one
/// before.
unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    let mut cycles = CYCLES.lock();
    let cycles = cycles.as_mut().expect("the test's");
    for number in 1..=3 {
        caller.foreign(|| {
            cycles.handshake();
            assert!(cycles.begin_scanning(number, ScanScope::Whole));
            cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
        });
        caller.foreign(|| {
            cycles.stop_world(|world| {
                world.rescan_dirty().expect("a stack that can be walked");
                world.end_scanning(NextCycle::IsWhole);
            });
        });
    }
    0
}

/// Recurses `n` deep in signed code, and checks the sum that comes back.
fn recurse(config: Config, n: usize, pad: u32) -> Arc<Runtime> {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile_by(Compiler::signing(), &code, bottom, pad);
    // SAFETY: the function's code is readable.
    let begins_with = unsafe { (compiled.address("rec") as *const u32).read() };
    assert_eq!(begins_with, SIGN, "the code signs");
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
    let cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
    *CYCLES.lock() = Some(cycles);
    let object = Box::new(7_usize);
    let mut argument = [n, &raw const *object as usize, 0];
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    // SAFETY: the entry is compiled code that keeps the contracts.
    let goroutine =
        unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) }.expect("memory");
    assert!(matches!(machine.run(goroutine), Left::Exited));
    assert_eq!(argument[2], rec_result(n, *object, 0));
    *CYCLES.lock() = None;
    drop(machine);
    runtime
}

#[test]
fn signed_stacks_move() {
    let _one = ONE.lock();
    if !processor_signs() {
        return;
    }
    let barriers = BarrierMode::Off;
    let run = recurse(Config { barriers, ..Config::default() }, 20_000, 0);
    assert!(run.counters().grown.load(Relaxed) >= 8, "{:?}", run.counters());
    let config = Config { barriers, move_every_poll: true, poison: true, ..Config::default() };
    let run = recurse(config, 300, 16);
    assert!(run.counters().moved_bytes.load(Relaxed) > 0, "{:?}", run.counters());
}

#[test]
fn signed_stacks_have_barriers_and_move() {
    let _one = ONE.lock();
    if !processor_signs() {
        return;
    }
    for move_every_poll in [false, true] {
        for (n, pad) in [(300, 0), (40, 800), (1000, 16)] {
            let barriers = BarrierMode::EveryFrame;
            let config = Config { barriers, move_every_poll, poison: true, ..Config::default() };
            let run = recurse(config, n, pad);
            let counters = run.counters();
            // All frames but the innermost, the entry's and the two that the assembly makes.
            assert_eq!(counters.hit.load(Relaxed), n as u64 + 1, "{counters:?}");
            assert!(counters.removed.load(Relaxed) > n as u64, "{counters:?}");
        }
    }
}

#[test]
fn barriers_are_in_force_where_code_signs() {
    let _one = ONE.lock();
    let run = recurse(Config::default(), 20_000, 0);
    assert_eq!(run.mode().protection, None);
    assert!(run.counters().hit.load(Relaxed) > 4, "{:?}", run.counters());
}

/// The control of the tests above: their pages are guarded.
#[test]
fn a_jump_to_compiled_code_without_a_landing_pad_is_refused() {
    static REFUSED_AT: AtomicUsize = AtomicUsize::new(0);
    /// The two bits that say that the last instruction was a jump.
    const BTYPE: u64 = 3 << 10;
    /// Goes on behind the call.
    extern "C" fn on_refusal(_signal: i32, _info: *mut c_void, context: *mut libc::ucontext_t) {
        // SAFETY: the context of a handler, which may change it.
        let state = unsafe { &mut (*context).uc_mcontext };
        REFUSED_AT.store(state.pc as usize, Relaxed);
        state.pc = state.regs[30];
        state.pstate &= !BTYPE;
    }
    let _one = ONE.lock();
    if !std::arch::is_aarch64_feature_detected!("bti") {
        eprintln!("skipped: this processor does not check jumps");
        return;
    }
    let compiled = compiler::compile_by(Compiler::signing(), &Arc::new(Code::new()), bottom, 0);
    let address = compiled.address("rec") + size_of::<u32>();
    // SAFETY: a handler of this type; one that is all zeros is right before it is filled.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_refusal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
    }
    // SAFETY: the processor refuses the jump before the first instruction.
    let function = unsafe { std::mem::transmute::<usize, extern "C" fn()>(address) };
    black_box(function)();
    assert_eq!(REFUSED_AT.load(Relaxed), address);
}
