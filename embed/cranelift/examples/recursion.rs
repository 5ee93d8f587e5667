//! A host in Rust whose own recursion alternates with managed code, on the thread's own stack,
//! while another thread collects.
//!
//! `step` is managed code: it makes a cell, keeps it in its frame, and calls the host for the next
//! level. The host calls `step` again, in turn from a foreign call and as it runs.

use stackmark::mark_sweep::Descriptor;
use stackmark::stack::Caller;
use stackmark_cranelift::{
    Engine, EngineError, FuncId, INT, InstBuilder, Program, RunsOn, Settings, types::I64,
};
use std::error::Error;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::thread;

/// How deep the host's recursion goes, and how often.
const LEVELS: usize = 10_000;
const ROUNDS: usize = 20;

// What native code must find.
static ENGINE: OnceLock<Engine> = OnceLock::new();
static STEP: OnceLock<(Arc<Program>, FuncId)> = OnceLock::new();

// ANCHOR: host
/// The host's recursion.
fn descend(level: usize) -> Result<usize, EngineError> {
    let (program, step) = STEP.get().expect("set before the first round");
    let engine = ENGINE.get().expect("set before the first round");
    if level == 0 { Ok(0) } else { engine.call_in(program, *step, &[level]) }
}

/// Called by managed code on this stack.
unsafe extern "C-unwind" fn next(_goroutine: *mut c_void, level: usize) -> usize {
    // SAFETY: used within this function.
    let caller = unsafe { Caller::current() };
    let descend = || descend(level).expect("there is room for the next level");
    if level.is_multiple_of(2) { descend() } else { caller.foreign(descend) }
}
// ANCHOR_END: host

/// The whole program, which a test runs as well.
pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // ANCHOR: module
    let mut settings = Settings::default();
    // SAFETY: managed code runs on the thread below alone, which is attached.
    settings.code.runs_on = unsafe { RunsOn::native_stacks() };
    let engine = Engine::new(settings)?;
    let cell = engine.heap().register(Descriptor::pattern(2, [1])?)?;
    let mut module = engine.module()?;
    // ANCHOR_END: module
    let step = module.declare("step", &[INT], &[INT])?;
    // step(level) = { cell := cell(level, nil); next(level - 1) + cell.number }
    module.define(step, |f| {
        let level = f.param(0);
        let object = f.allocate(cell, 16);
        f.store_plain(level, object, 0);
        let less = f.ins().iadd_imm_s(level, -1);
        let below = f.native(next, &[less]);
        let number = f.load_plain(I64, object, 0);
        let total = f.ins().iadd(below, number);
        f.return_(&[total])
    })?;
    module.export(step)?;
    // SAFETY: the function keeps the contracts, whatever it is given.
    let program = unsafe { engine.finish(module) }?;
    STEP.get_or_init(|| (program, step));
    let engine = ENGINE.get_or_init(|| engine);
    let over = AtomicBool::new(false);
    let rounds = || -> Result<(), EngineError> {
        // SAFETY: what runs here was compiled for it.
        unsafe { engine.runtime().attach_native_stack() }?;
        for _ in 0..ROUNDS {
            assert_eq!(descend(LEVELS)?, LEVELS * (LEVELS + 1) / 2);
        }
        Ok(())
    };
    let cycles = thread::scope(|scope| {
        let host = thread::Builder::new().stack_size(256 << 20).spawn_scoped(scope, || {
            let result = rounds();
            over.store(true, Relaxed);
            result
        })?;
        let mut cycles = 0;
        while !over.load(Relaxed) {
            engine.collector().collect();
            cycles += 1;
        }
        host.join().expect("no panic")?;
        Ok::<_, Box<dyn Error>>(cycles)
    })?;
    println!("{ROUNDS} times {LEVELS} levels, beside {cycles} collections");
    println!("{:#?}", engine.collector().statistics().heap);
    Ok(())
}
