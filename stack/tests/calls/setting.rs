//! A runtime with compiled code that recurses, calls out, and is called back.

use compiler::{Compiled, Compiler, Embedder, Ignoring, KEPT};
use parking_lot::Mutex;
use stackmark_stack::asm::{ManagedFn, layout::GoroutineHeader};
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, FrameAt, Goroutine, Host, Left, Machine, NextCycle,
    Runtime, ScanScope,
};
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What the native function at the bottom of a recursion does: it gets the object and the depth
/// that is left, 0.
pub(crate) type Act<'a> = &'a (dyn Fn(&Object<'_>) -> usize + Sync);

/// What managed code passes down: `rec` reads the first word in every frame, `guarded` the four
/// after it.
#[repr(C)]
pub(crate) struct Object<'a> {
    pub(crate) value: usize,
    pub(crate) kept: [usize; KEPT],
    pub(crate) act: Act<'a>,
}

/// The words of objects.
const VALUE: usize = 7;
const WORDS: [usize; KEPT] = [11, 13, 17, 19];

impl<'a> Object<'a> {
    pub(crate) fn new(act: Act<'a>) -> Object<'a> {
        Object { value: VALUE, kept: WORDS, act }
    }
}

/// The argument of a function that native code calls back.
#[repr(C)]
pub(crate) struct Inner<'a> {
    pub(crate) goroutine: usize,
    pub(crate) n: usize,
    pub(crate) object: *const Object<'a>,
    pub(crate) result: usize,
}

unsafe extern "C-unwind" fn bottom(object: *mut c_void, _n: usize) -> usize {
    // SAFETY: managed code passes the object that the test has given it.
    let object = unsafe { &*(object as *const Object<'_>) };
    (object.act)(object)
}

/// What `rec` returns at depth `n` when the bottom returned `bottom`.
pub(crate) fn rec_result(n: usize, bottom: usize) -> usize {
    compiler::rec_result(n, VALUE, bottom)
}

/// What `guarded` returns when its call returned `result`.
pub(crate) fn guarded_result(result: usize) -> usize {
    compiler::guarded_result(WORDS, result)
}

/// What `guarded` returns when its landing pad got these.
pub(crate) fn landed_result(values: [usize; 2]) -> usize {
    compiler::landed_result(WORDS, values)
}

/// A runtime with compiled code.
pub(crate) struct Setting {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) compiled: Compiled,
    /// With the number of the last cycle.
    cycles: Mutex<(CycleDriver, u64)>,
}

/// The ways in which every test runs.
pub(crate) fn configs() -> [Config; 3] {
    let every = Config { barriers: BarrierMode::EveryFrame, ..Config::default() };
    let moving = Config { move_every_poll: true, poison: true, ..every.clone() };
    [Config::default(), every, moving]
}

/// Bytes of a goroutine's stack, used or not.
pub(crate) fn stack_size(goroutine: &Goroutine) -> usize {
    let header = header(goroutine);
    header.stack_hi.load(Relaxed) - header.stack_lo.load(Relaxed)
}

/// The words of a goroutine that assembly and managed code address.
pub(crate) fn header(goroutine: &Goroutine) -> &GoroutineHeader {
    // SAFETY: the address is that of the header, which is a part of the record.
    unsafe { &*(goroutine.address() as *const GoroutineHeader) }
}

impl Setting {
    pub(crate) fn new(config: Config) -> Setting {
        Setting::with_host(config, Box::new(Embedder))
    }

    pub(crate) fn with_host(config: Config, host: Box<dyn Host>) -> Setting {
        let code = Arc::new(Code::new());
        let mut compiler = Compiler::default();
        let rec = compiler.recursion(bottom, 16, false);
        let guarded = compiler.guarded(rec);
        compiler.back("inner", guarded);
        compiler.back("inner_unguarded", rec);
        let entry = compiler.entry(guarded);
        let compiled = compiler.finish(entry, &code);
        let runtime = Runtime::new(config, code, host).expect("the assembly's frames");
        let cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
        Setting { runtime, compiled, cycles: Mutex::new((cycles, 0)) }
    }

    /// Runs a goroutine that calls `guarded(n, object)`; its result.
    pub(crate) fn run(&self, n: usize, act: Act<'_>) -> usize {
        let machine = Machine::attach(&self.runtime).expect("this thread is not attached");
        self.run_on(&machine, n, act)
    }

    pub(crate) fn run_on(&self, machine: &Machine, n: usize, act: Act<'_>) -> usize {
        let object = Object::new(act);
        let mut argument = [n, &raw const object as usize, usize::MAX];
        // SAFETY: the entry is compiled code that keeps the contracts, and its argument outlives
        // the run.
        let goroutine =
            unsafe { self.runtime.spawn(self.compiled.entry, argument.as_mut_ptr() as usize) }
                .expect("memory");
        assert!(matches!(machine.run(goroutine), Left::Exited));
        argument[2]
    }

    pub(crate) fn managed(&self, name: &str) -> ManagedFn {
        // SAFETY: the compiled functions with one parameter are called by this name.
        unsafe { std::mem::transmute::<usize, ManagedFn>(self.compiled.address(name)) }
    }

    /// Calls `guarded(n, act)` back, from a foreign call.
    pub(crate) fn call_back(&self, n: usize, act: Act<'_>) -> usize {
        self.call_back_to("inner", n, act)
    }

    pub(crate) fn call_back_to(&self, name: &str, n: usize, act: Act<'_>) -> usize {
        let object = Object::new(act);
        // SAFETY: used in this function alone; nothing native holds an address in the stack.
        unsafe {
            let caller = Caller::current();
            let goroutine = caller.goroutine().address();
            let argument = Inner { goroutine, n, object: &object, result: 0 };
            caller
                .callback(self.managed(name), &raw const argument as usize)
                .expect("in a foreign call")
        }
    }

    /// The frames with a landing pad, youngest first: depth and landing pad.
    pub(crate) fn pads(&self, caller: Caller<'_>) -> Vec<(usize, usize)> {
        let mut pads = Vec::new();
        let walked = caller.frames(|FrameAt { pc, depth, .. }| {
            pads.extend(self.compiled.landing_pad(pc).map(|pad| (depth, pad)));
            ControlFlow::Continue(())
        });
        walked.expect("a stack that can be walked");
        pads
    }

    /// Leaves all frames up to the `i`th that has a landing pad.
    pub(crate) fn leave_to(&self, i: usize, values: [usize; 2]) -> ! {
        // SAFETY: not used afterwards; the frames between own nothing.
        unsafe {
            let caller = Caller::current();
            let (depth, pad) = self.pads(caller)[i];
            let error = caller.unwind_to(depth, pad, values);
            panic!("{error}")
        }
    }

    /// A cycle that places barriers in the stacks of this runtime's goroutines, this thread's among
    /// them.
    pub(crate) fn scan(&self) {
        // SAFETY: used in this function alone.
        let caller = unsafe { Caller::current() };
        caller.foreign(|| self.scan_from_outside());
    }

    /// The same, in a foreign call or on another thread.
    pub(crate) fn scan_from_outside(&self) {
        let mut cycles = self.cycles.lock();
        let (cycles, number) = &mut *cycles;
        *number += 1;
        cycles.handshake();
        assert!(cycles.begin_scanning(*number, ScanScope::Whole));
        cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
        cycles.stop_world(|world| {
            world.rescan_dirty().expect("stacks that can be walked");
            world.visit_all(&mut |_| {}).expect("stacks that can be walked");
            world.end_scanning(NextCycle::IsWhole);
        });
    }

    /// Every barrier that was placed has been hit or left, or was removed by a later scan; and
    /// nothing lives any more.
    pub(crate) fn check_at_end(&self) {
        assert_eq!(self.runtime.live_goroutines(), 0);
        assert_eq!(self.runtime.pool_exhausted(), 0);
    }
}
