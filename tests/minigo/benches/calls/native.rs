//! The same on a thread's own stack: what `call_native`, an entry and a barrier's hit take.

use super::{Embedder, foreign, leaf_call, nanos};
use cranelift_codegen::ir::{self, AbiParam};
use cranelift_codegen::isa::CallConv;
use jit::stackmark_cranelift::{INT, InstBuilder, IntCC, RunsOn, Start, types::I64};
use parking_lot::Mutex;
use stackmark_stack::asm::{ManagedFn, layout::NativeFn};
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, NextCycle, RootSink, Runtime, ScanScope,
};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

/// Frames that return, with a barrier each and without.
const FRAMES: usize = 10_000;
/// Room for them.
const STACK: usize = 64 << 20;

/// Takes roots and does nothing with them.
struct NoCollector;

impl RootSink for NoCollector {
    fn roots(&self, _words: &[usize]) {}
}

/// A runtime, its code, and what drives its cycles.
struct Side {
    runtime: Arc<Runtime>,
    compiled: jit::Compiled,
    /// The address of its function `leaf`.
    leaf: usize,
    /// With the number of the last cycle.
    cycles: Mutex<(CycleDriver, u64)>,
}

/// The runtime that places barriers, which all calls are measured in.
static SIDE: OnceLock<Arc<Side>> = OnceLock::new();
/// The runtime that [`bottom`] runs in.
static CURRENT: Mutex<Option<Arc<Side>>> = Mutex::new(None);
/// When the bottom was left last.
static LEFT: Mutex<Option<Instant>> = Mutex::new(None);
/// What the entries of the last call took, in nanoseconds.
static ENTRIES: AtomicUsize = AtomicUsize::new(0);

/// What is measured, in nanoseconds a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// A C function called by managed code as C calls it.
    pub(crate) plain: f64,
    /// By `call_native`.
    pub(crate) call: f64,
    /// As a foreign call.
    pub(crate) foreign: f64,
    /// Managed code called by native code that runs.
    pub(crate) entry: f64,
    /// By native code in a foreign call.
    pub(crate) callback: f64,
    /// A return of managed code.
    pub(crate) returned: f64,
    /// One through a barrier.
    pub(crate) through_barrier: f64,
}

impl Times {
    pub(crate) fn least(self, other: Times) -> Times {
        Times {
            plain: self.plain.min(other.plain),
            call: self.call.min(other.call),
            foreign: self.foreign.min(other.foreign),
            entry: self.entry.min(other.entry),
            callback: self.callback.min(other.callback),
            returned: self.returned.min(other.returned),
            through_barrier: self.through_barrier.min(other.through_barrier),
        }
    }

    /// What a barrier takes.
    pub(crate) fn hit(self) -> f64 {
        self.through_barrier - self.returned
    }
}

/// Calls `leaf` as native code that may call managed code.
fn enters(side: &Side, x: usize) -> usize {
    // SAFETY: managed code of this type, for this kind of stack.
    let called = side.runtime.call_in(|caller| unsafe {
        caller.callback(std::mem::transmute::<usize, ManagedFn>(side.leaf), x)
    });
    called.expect("an attached thread").expect("a call that managed code may be called from")
}

fn enters_often(n: usize) -> usize {
    let side = SIDE.get().expect("set before");
    let begin = Instant::now();
    let sum = (0..n).fold(0, |sum: usize, i| sum.wrapping_add(enters(side, i)));
    ENTRIES.store(begin.elapsed().as_nanos() as usize, Relaxed);
    sum
}

/// Calls managed code `n` times from one call, the first that managed code makes.
unsafe extern "C-unwind" fn entries(n: *mut c_void, i: usize) -> usize {
    if i == 0 { enters_often(n as usize) } else { 0 }
}

/// The same from one foreign call.
unsafe extern "C-unwind" fn callbacks(n: *mut c_void, i: usize) -> usize {
    if i != 0 {
        return 0;
    }
    // SAFETY: used within this function alone.
    unsafe { Caller::current() }.foreign(|| enters_often(n as usize))
}

/// At the bottom: a cycle, which places barriers where the mode says so.
unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    let side = CURRENT.lock().clone().expect("set before");
    // SAFETY: used within this function alone.
    unsafe { Caller::current() }.foreign(|| {
        let (cycles, number) = &mut *side.cycles.lock();
        *number += 1;
        cycles.handshake();
        assert!(cycles.begin_scanning(*number, ScanScope::Whole));
        cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
        cycles.stop_world(|world| world.end_scanning(NextCycle::IsWhole));
    });
    *LEFT.lock() = Some(Instant::now());
    0
}

/// `calls([goroutine, n, f])` calls `f(n, i)` for i in 0..n by `call_native`, `plain_calls` by a
/// plain call; `leaf(x)` is called by native code; `back` recurses.
fn compile(code: &Code) -> jit::Compiled {
    // SAFETY: `Side::on_thread` attaches the threads that call it.
    let mut compiler = jit::Compiler::for_stacks(unsafe { RunsOn::native_stacks() });
    compiler.function("leaf", &[INT], |f, _| {
        let x = super::parameters(f)[0];
        let result = f.ins().iadd_imm_s(x, 1);
        f.ins().return_(&[result]);
    });
    for (name, plain) in [("calls", false), ("plain_calls", true)] {
        compiler.function(name, &[INT], |f, _| {
            f.enter(Start::Callback);
            let argument = f.param(0);
            let n = f.load_plain(I64, argument, 8);
            let called = f.load_plain(I64, argument, 16);
            let mut signature = ir::Signature::new(CallConv::SystemV);
            signature.params = vec![AbiParam::new(I64); 2];
            signature.returns = vec![AbiParam::new(I64)];
            let signature = f.import_signature(signature);
            let (head, body, end) = (f.create_block(), f.create_block(), f.create_block());
            let i = f.append_block_param(head, I64);
            let zero = f.int(0);
            f.ins().jump(head, &[zero.into()]);
            f.switch_to_block(head);
            let more = f.ins().icmp(IntCC::UnsignedLessThan, i, n);
            f.ins().brif(more, body, &[], end, &[]);
            f.switch_to_block(body);
            if plain {
                f.ins().call_indirect(signature, called, &[n, i]);
            } else {
                f.leaf_at(called, n, i);
            }
            let next = f.ins().iadd_imm_s(i, 1);
            f.ins().jump(head, &[next.into()]);
            f.switch_to_block(end);
            f.ins().return_(&[i]);
        });
    }
    let rec = compiler.recursion(bottom, 0, false);
    let back = compiler.back("back", rec);
    compiler.finish(back, code)
}

impl Side {
    fn new(barriers: BarrierMode) -> Arc<Side> {
        let code = Arc::new(Code::new());
        let compiled = compile(&code);
        let config = Config { barriers, ..Config::default() };
        let runtime =
            Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
        let cycles = CycleDriver::new(&runtime, Arc::new(NoCollector)).expect("one collector");
        let leaf = compiled.address("leaf");
        Arc::new(Side { runtime, compiled, leaf, cycles: Mutex::new((cycles, 0)) })
    }

    /// Runs `f` on a new thread whose stack is a native one.
    fn on_thread<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        let run = || {
            // SAFETY: what runs here was compiled for it.
            unsafe { self.runtime.attach_native_stack() }.expect("a new thread");
            f()
        };
        let thread = std::thread::Builder::new().stack_size(STACK);
        std::thread::scope(|scope| {
            thread.spawn_scoped(scope, run).expect("a thread").join().expect("no panic")
        })
    }

    /// Calls managed code with `[goroutine, words...]`.
    fn call(&self, name: &str, words: [usize; 3]) -> usize {
        let address = self.compiled.address(name);
        let called = self.runtime.call_in(|caller| {
            let [a, b, c] = words;
            let argument = [caller.goroutine().address(), a, b, c];
            // SAFETY: compiled code with one parameter, for this kind of stack.
            unsafe {
                let f = std::mem::transmute::<usize, ManagedFn>(address);
                caller.callback(f, argument.as_ptr() as usize)
            }
        });
        called.expect("an attached thread").expect("no managed code runs")
    }

    /// `n` calls of `f` from managed code.
    fn calls(&self, how: &str, n: usize, f: NativeFn) -> f64 {
        nanos(n, || assert_eq!(self.call(how, [n, f as usize, 0]), n))
    }

    /// `n` entries from one call of `f`.
    fn entries(&self, n: usize, f: NativeFn) -> f64 {
        self.call("calls", [n, f as usize, 0]);
        ENTRIES.load(Relaxed) as f64 / n as f64
    }

    /// How long each of [`FRAMES`] frames takes to return.
    fn returns(self: &Arc<Side>) -> f64 {
        *CURRENT.lock() = Some(Arc::clone(self));
        let object = 7_usize;
        self.on_thread(|| {
            self.call("back", [FRAMES, &raw const object as usize, 0]);
            let left = LEFT.lock().take().expect("the bottom was reached");
            left.elapsed().as_nanos() as f64 / FRAMES as f64
        })
    }
}

/// The two runtimes.
pub(crate) struct Bench {
    with: Arc<Side>,
    without: Arc<Side>,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let with = Side::new(BarrierMode::EveryFrame);
        assert!(SIDE.set(Arc::clone(&with)).is_ok(), "made once");
        Bench { with, without: Side::new(BarrierMode::Off) }
    }

    /// One round of `n` steps each.
    pub(crate) fn round(&self, n: usize) -> Times {
        let hits = || self.with.runtime.counters().hit.load(Relaxed);
        let before = hits();
        let (through_barrier, returned) = (self.with.returns(), self.without.returns());
        assert!(hits() - before >= FRAMES as u64 - 2, "a barrier in every frame is hit");
        let side = &self.with;
        side.on_thread(|| Times {
            plain: side.calls("plain_calls", n, leaf_call),
            call: side.calls("calls", n, leaf_call),
            foreign: side.calls("calls", n, foreign),
            entry: side.entries(n, entries),
            callback: side.entries(n, callbacks),
            returned,
            through_barrier,
        })
    }
}
