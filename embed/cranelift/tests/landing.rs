//! A landing pad of Cranelift's code gets its values, and the registers that callees keep, with
//! barriers in the frames that are left and a stack that moves.

use jit::{Compiler, Embedder, Ignoring, landed_result};
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, FrameAt, Left, Machine, Runtime, ScanScope,
};
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// What `guarded` reads.
static OBJECT: [usize; 5] = [7, 11, 13, 17, 19];
const KEPT: [usize; 4] = [11, 13, 17, 19];

/// What the native function at the bottom needs.
struct Leaving {
    compiled: jit::Compiled,
    cycles: CycleDriver,
    cycle: u64,
}

static LEAVING: Mutex<Option<Leaving>> = Mutex::new(None);

/// Scans the stack, and leaves all frames for the landing pad.
unsafe extern "C-unwind" fn leaves(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    let pad = {
        let mut leaving = LEAVING.lock().expect("no panic");
        let Leaving { compiled, cycles, cycle } = leaving.as_mut().expect("the test's");
        *cycle += 1;
        caller.foreign(|| {
            cycles.handshake();
            assert!(cycles.begin_scanning(*cycle, ScanScope::Whole));
            cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
        });
        let mut pad = None;
        let walked = caller.frames(|FrameAt { pc, depth, .. }| {
            pad = compiled.landing_pad(pc).map(|pad| (depth, pad));
            if pad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        walked.expect("a stack that can be walked");
        pad.expect("a frame with a landing pad")
    };
    // SAFETY: the frames between own nothing.
    let error = unsafe { caller.unwind_to(pad.0, pad.1, [5, 6]) };
    panic!("{error}")
}

#[test]
fn a_landing_pad_gets_its_values_and_its_callee_saved_registers() {
    let every = Config { barriers: BarrierMode::EveryFrame, ..Config::default() };
    let moving = Config { move_every_poll: true, poison: true, ..every.clone() };
    for config in [Config::default(), every, moving] {
        for compiler in [Compiler::default(), Compiler::signing()] {
            let code = Arc::new(Code::new());
            let mut compiler = compiler;
            let rec = compiler.recursion(leaves, 16, false);
            let guarded = compiler.guarded(rec);
            let entry = compiler.entry(guarded);
            let compiled = compiler.finish(entry, &code);
            let entry = compiled.entry;
            let runtime = Runtime::new(config.clone(), code, Box::new(Embedder));
            let runtime = runtime.expect("the assembly's frames");
            let cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
            *LEAVING.lock().expect("no panic") = Some(Leaving { compiled, cycles, cycle: 0 });
            let mut argument = [300, &raw const OBJECT as usize, 0];
            let machine = Machine::attach(&runtime).expect("a fresh thread");
            // SAFETY: the entry is compiled code that keeps the contracts.
            let goroutine = unsafe { runtime.spawn(entry, argument.as_mut_ptr() as usize) };
            assert!(matches!(machine.run(goroutine.expect("memory")), Left::Exited));
            assert_eq!(argument[2], landed_result(KEPT, [5, 6]));
            let counters = runtime.counters();
            let [placed, left] =
                [&counters.placed, &counters.leapfrogged].map(|count| count.load(Relaxed));
            println!("{left} of {placed} barriers were in frames that were left");
            assert!(left > 0, "{counters:?}");
            drop(machine);
            *LEAVING.lock().expect("no panic") = None;
        }
    }
}
