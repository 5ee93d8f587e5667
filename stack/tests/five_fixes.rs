//! Five faults that Go had with moving stacks and C, on compiled code: none is here. Each test runs
//! in three ways: as usual, with a barrier in every frame, and with a move at every poll too.

#[cfg(windows)]
#[path = "calls/native.rs"]
mod native;

use compiler::{Compiled, Compiler, Embedder, INT, Ignoring, Start};
use limits::Limits;
use parking_lot::Mutex;
use stackmark_stack::asm::{self, ManagedFn, barrier, layout::GoroutineHeader};
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, Left, Machine, NextCycle, Runtime, ScanScope,
    die_of_panic,
};
use std::ffi::c_void;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// How deep the callback recurses that makes the stack grow, and what it returns.
const DEPTH: usize = 128;
const SUM: usize = 129 * 128 / 2;
/// Bytes of its frames that it does not need.
const FRAME: u32 = 256;
/// Goroutines one after the other, each on a fresh small stack.
const GOROUTINES: usize = 20;

/// What native code does that managed code has called. It gets the address of a word in the frame
/// of its caller, or 0.
type Act<'a> = &'a dyn Fn(Caller<'_>, usize) -> usize;

unsafe extern "C-unwind" fn native(act: *mut c_void, slot: usize) -> usize {
    // SAFETY: managed code passes the address that a test has given it.
    let act = unsafe { *(act as *const Act<'_>) };
    // SAFETY: used within this function alone.
    act(unsafe { Caller::current() }, slot)
}

struct Setting {
    runtime: Arc<Runtime>,
    compiled: Compiled,
    /// With the number of the last cycle.
    cycles: Mutex<(CycleDriver, u64)>,
}

fn configs() -> [Config; 3] {
    let every = Config { barriers: BarrierMode::EveryFrame, ..Config::default() };
    let moving = Config { move_every_poll: true, poison: true, ..every.clone() };
    [Config::default(), every, moving]
}

impl Setting {
    fn new(config: Config) -> Setting {
        let code = Arc::new(Code::new());
        let mut compiler = Compiler::default();
        // `grow(n, act)` keeps `n` at the end of its frame, and returns the sum of all `n`, and
        // what native code has returned to the last one.
        let grow = compiler.declare("grow", &[INT, INT]);
        compiler.define(grow, Start::Managed, |f| {
            let [n, act] = f.params();
            let (own, last) = (f.slot(FRAME, &[]), FRAME as usize / size_of::<usize>() - 1);
            f.store(n, own, last);
            let (bottom, more) = (f.block(), f.block());
            f.branch_if(n, more, bottom);
            f.switch_to(bottom);
            let zero = f.int(0);
            let result = f.leaf(native, act, zero);
            f.return_(result);
            f.switch_to(more);
            let one = f.int(1);
            let less = f.subtract(n, one);
            let sum = f.call(grow, &[less, act]);
            let kept = f.load(own, last);
            let sum = f.add(sum, kept);
            f.return_(sum);
        });
        // `back([goroutine, n, act])`
        compiler.function("back", &[INT], Start::Callback, |f| {
            let argument = f.param(0);
            let (n, act) = (f.load(argument, 1), f.load(argument, 2));
            let result = f.call(grow, &[n, act]);
            f.return_(result);
        });
        // `entry(goroutine, [act, returned, written])`: what native code has returned, and what it
        // has written to a word of the frame.
        let entry = compiler.function("entry", &[INT, INT], Start::Goroutine, |f| {
            let argument = f.param(1);
            let act = f.load(argument, 0);
            let own = f.slot(size_of::<usize>() as u32, &[]);
            let zero = f.int(0);
            f.store(zero, own, 0);
            let returned = f.leaf(native, act, own);
            f.store(returned, argument, 1);
            let written = f.load(own, 0);
            f.store(written, argument, 2);
            f.return_(returned);
        });
        let compiled = compiler.finish(entry, &code);
        let runtime =
            Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
        let cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
        Setting { runtime, compiled, cycles: Mutex::new((cycles, 0)) }
    }

    /// Runs a goroutine that calls `act`. What that returned, and what it wrote to the frame.
    fn run(&self, act: Act<'_>) -> [usize; 2] {
        let machine = Machine::attach(&self.runtime).expect("this thread is not attached");
        let mut argument = [&raw const act as usize, 0, 0];
        // SAFETY: the entry is compiled code that keeps the contracts, and its argument outlives
        // the run.
        let goroutine =
            unsafe { self.runtime.spawn(self.compiled.entry, argument.as_mut_ptr() as usize) };
        assert!(matches!(machine.run(goroutine.expect("memory")), Left::Exited));
        [argument[1], argument[2]]
    }

    /// Calls `grow(n, act)` back.
    fn call_back(&self, n: usize, act: Act<'_>) -> usize {
        let result = self.runtime.call_in(|caller| {
            let argument = [caller.goroutine().address(), n, &raw const act as usize];
            // SAFETY: the compiled function has this type. Nothing native holds an address in the
            // goroutine's stack.
            unsafe {
                let back = self.compiled.address("back");
                let back = std::mem::transmute::<usize, ManagedFn>(back);
                caller.callback(back, argument.as_ptr() as usize)
            }
        });
        result.expect("in a foreign call").expect("in a foreign call")
    }

    /// The callback that makes the stack grow. A cycle scans it there, and moves nothing away.
    fn grow(&self) {
        let scans = |caller: Caller<'_>, _| {
            caller.foreign(|| self.scan());
            0
        };
        assert_eq!(self.call_back(DEPTH, &scans), SUM);
    }

    /// A cycle, which places barriers. No goroutine runs on this thread.
    fn scan(&self) {
        let (cycles, number) = &mut *self.cycles.lock();
        *number += 1;
        cycles.handshake();
        assert!(cycles.begin_scanning(*number, ScanScope::Whole));
        cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
        cycles.stop_world(|world| {
            world.rescan_dirty().expect("stacks that can be walked");
            world.end_scanning(NextCycle::IsWhole);
        });
    }

    fn check_at_end(&self) {
        let census = self.runtime.census();
        assert_eq!((census.goroutines, census.barriers, census.taken_stubs), (0, 0, 0));
        assert_eq!(self.runtime.pool_exhausted(), 0);
    }
}

/// One past the highest address of the goroutine's stack.
fn top() -> usize {
    // SAFETY: a goroutine runs on this thread.
    unsafe { asm::stackmark_stack_top() }
}

/// asmcgocall kept the stack pointer of the goroutine's stack, which had moved.
#[test]
fn return_after_grow() {
    for config in configs() {
        let s = Setting::new(config);
        for _ in 0..GOROUTINES {
            let [returned, _] = s.run(&|caller, _| {
                let before = top();
                caller.foreign(|| s.grow());
                assert_ne!(top(), before, "the stack has moved");
                123456
            });
            assert_eq!(returned, 123456);
        }
        s.check_at_end();
    }
}

/// The wrappers of C functions wrote results to where the stack had been.
#[test]
fn return_after_grow_from_go() {
    for config in configs() {
        let s = Setting::new(config);
        for _ in 0..GOROUTINES {
            let [_, written] = s.run(&|caller, slot| {
                let before = top();
                let result = caller.foreign(|| s.call_back(DEPTH, &|_, _| 0));
                assert_ne!(top(), before, "the stack has moved");
                let slot = slot.wrapping_add(top().wrapping_sub(before)) as *mut usize;
                // SAFETY: the word of the caller's frame, in the stack as it lies now.
                unsafe { slot.write(result) };
                0
            });
            assert_eq!(written, 8256);
        }
        s.check_at_end();
    }
}

/// A library function that fails with `n`, if that is not 0.
unsafe extern "C-unwind" fn probe(n: usize) -> usize {
    if n != 0 {
        set_errno(n as i32);
    }
    n.wrapping_neg()
}

/// A library function that calls back, and then has a result and an error of its own.
unsafe extern "C-unwind" fn nested(s: *const Setting, level: usize) -> usize {
    // SAFETY: the test passes its setting.
    let s = unsafe { &*s };
    let sum = s.call_back(100 * level, &|caller, _| {
        caller.foreign(|| s.scan());
        // SAFETY: it takes a word.
        let probed = |n: usize| unsafe { caller.lib_call(probe as *const () as usize, &[n]) };
        if level > 0 {
            assert_eq!(call_nested(caller, s, level - 1), (100 + level - 1, 333));
        }
        for n in 1..3_usize {
            let call = probed(n);
            assert_eq!((call.result, call.error), (n.wrapping_neg(), n as i32));
        }
        assert_eq!((probed(0).result, probed(0).error), (0, 0));
        1
    });
    assert_eq!(sum, 100 * level * (100 * level + 1) / 2 + 1);
    set_errno(333);
    100 + level
}

/// The same, by a function of a library that fails as those of Windows do.
#[cfg(windows)]
mod by_library {
    use super::*;
    use crate::native::Library;
    use stackmark_stack::LibCall;

    /// How often it is nested.
    const LEVELS: usize = 2;

    type Back = unsafe extern "C-unwind" fn(*mut c_void) -> usize;
    type CallsBack = unsafe extern "C-unwind" fn(Back, *mut c_void, usize, usize) -> usize;

    struct Context<'a> {
        s: &'a Setting,
        calls_back: CallsBack,
        level: usize,
    }

    impl Context<'_> {
        /// Calls the library's function, which calls back: the stack grows, and, at a level above
        /// 0, the same is called again.
        fn call(&self, caller: Caller<'_>) -> LibCall {
            let context = std::ptr::from_ref(self) as usize;
            let arguments = [back as *const () as usize, context, 100, 333];
            // SAFETY: it takes these arguments.
            unsafe { caller.lib_call(self.calls_back as *const () as usize, &arguments) }
        }
    }

    unsafe extern "C-unwind" fn back(context: *mut c_void) -> usize {
        // SAFETY: the test passes its own.
        let context = unsafe { &*(context as *const Context<'_>) };
        let before = top();
        let sum = context.s.call_back(DEPTH * (context.level + 1), &|caller, _| {
            if context.level > 0 {
                let inner = Context { level: context.level - 1, ..*context }.call(caller);
                assert_eq!((inner.result, inner.error), (100, 333));
            }
            // SAFETY: it takes a word.
            let call = unsafe { caller.lib_call(probe as *const () as usize, &[5]) };
            assert_eq!(call.error, 5);
            caller.foreign(|| context.s.scan());
            0
        });
        assert!(context.level < LEVELS || top() != before, "the stack has moved");
        sum
    }

    #[test]
    fn libcall_survives_callback_of_a_library() {
        let Some(library) = Library::load("last_error.c") else { return };
        // SAFETY: the function's type in last_error.c.
        let calls_back = unsafe {
            std::mem::transmute::<*mut c_void, CallsBack>(library.function("calls_back"))
        };
        for config in configs() {
            let s = Setting::new(config);
            for _ in 0..GOROUTINES {
                let [result, _] = s.run(&|caller, _| {
                    let call = Context { s: &s, calls_back, level: LEVELS }.call(caller);
                    assert_eq!(call.error, 333);
                    call.result
                });
                assert_eq!(result, 100);
            }
            s.check_at_end();
        }
    }
}

fn call_nested(caller: Caller<'_>, s: &Setting, level: usize) -> (usize, i32) {
    let arguments = [std::ptr::from_ref(s) as usize, level];
    // SAFETY: it takes these arguments.
    let call = unsafe { caller.lib_call(nested as *const () as usize, &arguments) };
    (call.result, call.error)
}

#[cfg(not(windows))]
fn set_errno(error: i32) {
    // SAFETY: errno of this thread.
    unsafe { *libc::__errno_location() = error };
}

#[cfg(windows)]
fn set_errno(error: i32) {
    unsafe extern "system" {
        fn SetLastError(error: u32);
    }
    // SAFETY: the last error of this thread.
    unsafe { SetLastError(error as u32) };
}

/// The parameters of a system call were on the stack of the goroutine, and its results went there.
#[test]
fn libcall_survives_callback() {
    for config in configs() {
        let s = Setting::new(config);
        for _ in 0..GOROUTINES {
            let [result, _] = s.run(&|caller, _| {
                let (result, error) = call_nested(caller, &s, 2);
                assert_eq!((result - 2, error), (100, 333));
                result
            });
            assert_eq!(result, 102);
        }
        s.check_at_end();
    }
}

/// A barrier in the frame of a callback came into the scheduler's state when the callback returned.
#[test]
fn callback_slot_holds_no_stub() {
    for config in configs() {
        let s = Setting::new(config);
        for _ in 0..GOROUTINES {
            s.run(&|caller, _| {
                // SAFETY: the address is that of the header, which is a part of the record.
                let header = unsafe { &*(caller.goroutine().address() as *const GoroutineHeader) };
                let check = || {
                    let pc = header.sched.pc.load(Relaxed);
                    assert!(!barrier::pool().contains(&pc), "{pc:#x} is in a stub");
                    assert_eq!(pc, asm::resume_pc());
                };
                caller.foreign(|| {
                    for _ in 0..3 {
                        s.grow();
                        check();
                        // A callback in a callback, with barriers in the frames of both.
                        let again = |caller: Caller<'_>, _| {
                            caller.foreign(|| {
                                s.scan();
                                s.grow();
                                check();
                            });
                            0
                        };
                        s.call_back(3, &again);
                        check();
                        s.scan();
                    }
                });
                0
            });
        }
        s.check_at_end();
    }
}

/// In a process that panics: in which of the ways.
const CHILD: &str = "STACKMARK_TEST_CHILD";

/// A panic on a thread that C had made ended in a deadlock, or in a second fault.
#[test]
fn external_thread_panic() {
    if let Ok(way) = std::env::var(CHILD) {
        let way: usize = way.parse().expect("a number");
        let s = Setting::new(configs()[way].clone());
        let panics = |caller: Caller<'_>, _| {
            caller.foreign(|| s.scan());
            die_of_panic(&s.runtime, "BOOM")
        };
        std::thread::scope(|scope| {
            scope.spawn(|| s.call_back(5, &panics));
        });
        unreachable!("the process has ended");
    }
    for way in 0..configs().len() {
        let mut command = limits::this_program();
        command.args(["external_thread_panic", "--exact", "--nocapture"]);
        command.env(CHILD, way.to_string()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("this program runs");
        let ended = limits::wait(&mut child, Limits::default());
        ended.unwrap_or_else(|exceeded| panic!("{exceeded}"));
        let output = child.wait_with_output().expect("our child");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("panic: BOOM"), "{way}: {text}");
        assert_eq!(output.status.code(), Some(2), "{way}: {text}");
    }
}
