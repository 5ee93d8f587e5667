//! Walks of the system's unwinder from every instruction of the assembly, as a signal handler of a
//! profiler makes them: a thread that single-steps through hits, calls, and exceptions.
//!
//! An unwinder drops its own frame in its last instructions, so the walks also begin in the three
//! instructions before the assembly is entered. What libgcc does before that, while it installs a
//! context, no unwinder can walk through.
#![cfg(not(any(stackmark_asan, stackmark_tsan)))]
// On armv7 the system's unwinder knows at calls alone what a function has pushed.
#![cfg(not(target_arch = "arm"))]
// Windows has an unwinder of its own, and this test one of its own, `steps_windows.rs`.
#![cfg(not(windows))]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, barrier, layout::*};
use std::collections::{HashMap, HashSet};
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

mod arch;

arch::assembly!("barrier.s");

type Function = unsafe extern "C-unwind" fn(usize) -> usize;
unsafe extern "C-unwind" {
    fn hijack(f: Function, argument: usize, word: usize, saved: *const AtomicUsize) -> usize;
}
unsafe extern "C" {
    fn _Unwind_Backtrace(
        f: extern "C" fn(*mut c_void, *mut c_void) -> i32,
        argument: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

/// Instructions before the assembly is entered from which walks begin: the last of an unwinder.
const BEFORE: usize = 3;

/// What a stepping thread does at each instruction.
struct Stepping {
    /// The pcs of all steps, in the first run.
    pcs: Vec<usize>,
    /// How often each pc has been stepped to.
    times: HashMap<usize, usize>,
    /// Where to walk, in the second run: a pc, and how often it was stepped to before.
    walk_at: HashSet<(usize, usize)>,
    /// Walks that have ended elsewhere than at the oldest frame: where they began and ended.
    short: Vec<[usize; 2]>,
    walks: usize,
    /// Where every walk ends: the oldest frame.
    bottom: usize,
}

/// The state of the one thread that steps.
static STEPPING: AtomicPtr<Stepping> = AtomicPtr::new(std::ptr::null_mut());
/// Where the walk under way has begun.
static WALK_FROM: AtomicUsize = AtomicUsize::new(0);

/// The pcs of the assembly, from its first function to its last stub.
fn assembly() -> std::ops::Range<usize> {
    asm::switch_out_address()..barrier::pool().end
}

/// Whether the pc lies in the assembly.
fn is_ours(pc: usize) -> bool {
    assembly().contains(&pc)
}

extern "C" fn on_step(_signal: i32, _info: *mut c_void, context: *mut libc::ucontext_t) {
    let (stepping, pc) =
        unsafe { (STEPPING.load(Relaxed).as_mut(), arch::interrupted_pc(context)) };
    unsafe { arch::pass(context, stepping.is_some()) };
    let Some(stepping) = stepping else { return };
    // Room was made before: the step may be one of an allocation.
    if stepping.walk_at.is_empty() {
        if stepping.pcs.len() < stepping.pcs.capacity() {
            stepping.pcs.push(pc);
        }
        return;
    }
    let Some(times) = stepping.times.get_mut(&pc) else { return };
    *times += 1;
    if stepping.walk_at.contains(&(pc, *times - 1)) {
        WALK_FROM.store(pc, Relaxed);
        let last = walk();
        stepping.walks += 1;
        if last != stepping.bottom && stepping.short.len() < stepping.short.capacity() {
            stepping.short.push([pc, last]);
        }
    }
}

/// Says where a walk that the unwinder dies of has begun.
extern "C" fn on_fault(_signal: i32, _info: *mut c_void, context: *mut libc::ucontext_t) {
    let pc = unsafe { arch::interrupted_pc(context) };
    let from = WALK_FROM.load(Relaxed);
    let text = format!("a walk from {} has died at {}\n", name(from), name(pc));
    // Not by `eprintln`, whose output the test's harness takes.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len());
        libc::_exit(3)
    };
}

/// The pc of the oldest frame.
fn walk() -> usize {
    let mut last = 0;
    unsafe { _Unwind_Backtrace(note, (&raw mut last).cast()) };
    last
}

/// Notes the pc of the frame; 0 is the undefined caller of the oldest.
extern "C" fn note(context: *mut c_void, last: *mut c_void) -> i32 {
    match unsafe { _Unwind_GetIP(context) } {
        0 => {}
        pc => unsafe { *last.cast::<usize>() = pc },
    }
    0
}

/// The pc as an offset in the assembly, or the image that it lies in.
fn name(pc: usize) -> String {
    if is_ours(pc) {
        return format!("assembly+{:#x}", pc - asm::switch_out_address());
    }
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    if unsafe { libc::dladdr(pc as *const c_void, &mut found) } == 0 {
        return format!("{pc:#x}");
    }
    let file = unsafe { std::ffi::CStr::from_ptr(found.dli_fname) };
    format!("{}+{:#x}", file.to_string_lossy(), pc - found.dli_fbase as usize)
}

fn handle(signal: i32, handler: extern "C" fn(i32, *mut c_void, *mut libc::ucontext_t)) {
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
    assert_eq!(unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) }, 0);
}

/// Runs `f` with a signal at each instruction.
#[inline(never)]
fn single_steps(stepping: &mut Stepping, f: impl FnOnce()) {
    stepping.bottom = walk();
    STEPPING.store(stepping, Relaxed);
    unsafe { arch::begin_steps(assembly()) };
    f();
    STEPPING.store(std::ptr::null_mut(), Relaxed);
    unsafe { arch::end_steps() };
}

/// Runs `f(argument)` by `on` three times: once so that what is done once is done, once to note the
/// steps, and once to walk from all steps in the assembly and from those right before. `f` does the
/// same each time.
fn walk_everywhere(on: On, f: Function, argument: usize) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    handle(libc::SIGTRAP, on_step);
    handle(libc::SIGSEGV, on_fault);
    handle(libc::SIGBUS, on_fault);
    let mut stepping = Stepping {
        pcs: Vec::with_capacity(1 << 22),
        times: HashMap::new(),
        walk_at: HashSet::new(),
        short: Vec::with_capacity(1 << 12),
        walks: 0,
        bottom: 0,
    };
    let result = on(f, argument, None);
    assert_eq!(on(f, argument, Some(&mut stepping)), result);
    let pcs = std::mem::take(&mut stepping.pcs);
    assert!(pcs.len() < 1 << 22, "more steps than there is room for");
    let mut times = HashMap::<usize, usize>::new();
    let mut numbered = |&pc: &usize| {
        let times = times.entry(pc).or_default();
        *times += 1;
        (pc, *times - 1)
    };
    let numbered: Vec<_> = pcs.iter().map(&mut numbered).collect();
    for i in (0..pcs.len()).filter(|&i| is_ours(pcs[i])) {
        let entered = i > 0 && !is_ours(pcs[i - 1]);
        let before = if entered { i.saturating_sub(BEFORE) } else { i };
        stepping.walk_at.extend(&numbered[before..=i]);
    }
    stepping.times = stepping.walk_at.iter().map(|&(pc, _)| (pc, 0)).collect();
    assert_eq!(on(f, argument, Some(&mut stepping)), result);
    let short: Vec<_> = stepping.short.iter().map(|pcs| pcs.map(name)).collect();
    assert!(short.is_empty(), "walks that began and ended at: {short:#?}");
    assert!(
        stepping.walks * 10 > stepping.walk_at.len() * 9,
        "{} walks from {} places: the runs differ",
        stepping.walks,
        stepping.walk_at.len()
    );
}

unsafe extern "C" fn on_hit(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    unsafe { *slot = barrier::saved(index).load(Relaxed) };
}

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

/// Runs a function with a machine, and steps through it if it is to: where this is.
type On = fn(Function, usize, Option<&mut Stepping>) -> usize;

/// What an [`On`] runs.
struct Run<'s> {
    f: Function,
    argument: usize,
    stepping: Option<&'s mut Stepping>,
    result: usize,
}

impl Run<'_> {
    fn run(&mut self) {
        let Run { f, argument, stepping, result } = self;
        match stepping {
            None => *result = unsafe { f(*argument) },
            Some(stepping) => single_steps(stepping, || *result = unsafe { f(*argument) }),
        }
    }
}

unsafe extern "C-unwind" fn managed(_goroutine: usize, run: usize) -> usize {
    unsafe { &mut *(run as *mut Run) }.run();
    0
}

/// As managed code on a goroutine with a stack that has room for handlers.
fn on_goroutine(f: Function, argument: usize, stepping: Option<&mut Stepping>) -> usize {
    let mut run = Run { f, argument, stepping, result: 0 };
    let mut stack = vec![0u128; 1 << 16];
    let (mut machine, goroutine) = (MachineHeader::new(), &mut GoroutineHeader::new());
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    goroutine.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
    goroutine.entry.store(managed as *const () as usize, Relaxed);
    goroutine.start_arg.store(&raw mut run as usize, Relaxed);
    goroutine.on_exit.store(on_exit as *const () as usize, Relaxed);
    // SAFETY: headers and stack outlive the run and are ours alone.
    unsafe {
        asm::prepare(goroutine);
        asm::set_current(&mut machine);
        asm::run(&mut machine, goroutine);
        asm::set_current(std::ptr::null_mut());
    }
    run.result
}

/// As native code with a machine whose goroutine has this thread's stack.
fn on_native_stack(f: Function, argument: usize, stepping: Option<&mut Stepping>) -> usize {
    let mut run = Run { f, argument, stepping, result: 0 };
    let (mut machine, goroutine) = (MachineHeader::new(), GoroutineHeader::new());
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    machine.on_watched.store(on_watched as *const () as usize, Relaxed);
    machine.goroutine.store(&raw const goroutine as usize, Relaxed);
    goroutine.stack_hi.store(asm::stack_pointer(), Relaxed);
    unsafe { asm::set_current(&mut machine) };
    run.run();
    unsafe { asm::set_current(std::ptr::null_mut()) };
    run.result
}

unsafe extern "C" fn on_watched(m: *mut MachineHeader, _sp: usize, _pc: usize, _fp: usize) {
    let goroutine = unsafe { &*((*m).goroutine.load(Relaxed) as *const GoroutineHeader) };
    goroutine.watch.store(usize::MAX, Relaxed);
}

/// Calls `f(argument)` from a frame whose return slot is hijacked by stub `index`.
unsafe fn behind_barrier(index: usize, f: Function, argument: usize) -> usize {
    unsafe { hijack(f, argument, barrier::hijacked_word(index), barrier::saved(index)) }
}

unsafe extern "C-unwind" fn native_panic(_a: *mut c_void, _b: usize) -> usize {
    std::panic::resume_unwind(Box::new(99usize))
}

/// Calls itself behind barriers, then native code that panics.
unsafe extern "C-unwind" fn to_a_panic(depth: usize) -> usize {
    match depth {
        0 => unsafe { asm::call_system(native_panic, std::ptr::null_mut(), 0) },
        _ => unsafe { behind_barrier(10 + depth, to_a_panic, depth - 1) },
    }
}

fn caught(f: impl FnOnce() -> usize + std::panic::UnwindSafe) -> usize {
    *std::panic::catch_unwind(f).unwrap_err().downcast::<usize>().unwrap()
}

#[test]
fn every_walk_from_calls_callbacks_and_hits_is_whole() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, depth: usize) -> usize {
        if depth == 0 {
            return 1;
        }
        let goroutine = unsafe { (*asm::current()).goroutine.load(Relaxed) };
        unsafe { asm::callback(goroutine as *mut GoroutineHeader, calls, depth - 1) }
    }
    unsafe extern "C-unwind" fn call(depth: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), depth) + 1 }
    }
    unsafe extern "C-unwind" fn calls(depth: usize) -> usize {
        unsafe { behind_barrier(20 + depth, call, depth) }
    }
    walk_everywhere(on_goroutine, calls, 3);
}

#[test]
fn every_walk_from_an_exception_that_passes_barriers_is_whole() {
    unsafe extern "C-unwind" fn catches(depth: usize) -> usize {
        caught(|| unsafe { to_a_panic(depth) })
    }
    walk_everywhere(on_goroutine, catches, 3);
}

#[test]
fn every_walk_from_an_exception_that_passes_a_callback_is_whole() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, depth: usize) -> usize {
        let goroutine = unsafe { (*asm::current()).goroutine.load(Relaxed) };
        caught(|| unsafe { asm::callback(goroutine as *mut GoroutineHeader, to_a_panic, depth) })
    }
    unsafe extern "C-unwind" fn calls(depth: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), depth) }
    }
    walk_everywhere(on_goroutine, calls, 1);
}

#[test]
fn every_walk_from_an_exception_that_is_caught_natively_is_whole() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
        unsafe extern "C-unwind" fn throws(_argument: *mut c_void) {
            std::panic::resume_unwind(Box::new(99usize))
        }
        let exception = unsafe { asm::catch(throws, std::ptr::null_mut()) };
        usize::from(!exception.is_null())
    }
    unsafe extern "C-unwind" fn calls(_argument: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), 0) }
    }
    walk_everywhere(on_goroutine, calls, 0);
}

/// Each level is a managed frame, a barrier, a managed frame that calls native code, and native
/// code that enters the next. The last one panics or returns. Every fourth call is watched.
unsafe extern "C-unwind" fn alternates(argument: usize) -> usize {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, argument: usize) -> usize {
        let goroutine = unsafe { (*asm::current()).goroutine.load(Relaxed) };
        let goroutine = goroutine as *mut GoroutineHeader;
        let (levels, panics) = (argument / 2, argument % 2);
        let result = match (levels, panics) {
            (0, 0) => 1,
            (0, _) => unsafe {
                (*goroutine).watch.store(1, Relaxed);
                native_panic(std::ptr::null_mut(), 0)
            },
            _ => unsafe { asm::enter_managed(goroutine, alternates, argument - 2) },
        };
        if levels % 4 == 1 {
            unsafe { (*goroutine).watch.store(1, Relaxed) };
        }
        result
    }
    unsafe extern "C-unwind" fn calls(argument: usize) -> usize {
        match argument / 2 % 2 {
            0 => unsafe { asm::call_native(native, std::ptr::null_mut(), argument) },
            _ => unsafe { asm::call_native_all(native, std::ptr::null_mut(), argument) },
        }
    }
    unsafe { behind_barrier(100 + argument / 2, calls, argument) }
}

unsafe fn enter_native_stack(argument: usize) -> usize {
    let goroutine = unsafe { (*asm::current()).goroutine.load(Relaxed) };
    unsafe { asm::enter_managed(goroutine as *mut GoroutineHeader, alternates, argument) }
}

#[test]
fn every_walk_from_a_native_stack_is_whole() {
    unsafe extern "C-unwind" fn native(levels: usize) -> usize {
        unsafe { enter_native_stack(2 * levels) }
    }
    walk_everywhere(on_native_stack, native, 5);
}

#[test]
fn every_walk_from_an_exception_on_a_native_stack_is_whole() {
    unsafe extern "C-unwind" fn native(levels: usize) -> usize {
        caught(|| unsafe { enter_native_stack(2 * levels + 1) })
    }
    walk_everywhere(on_native_stack, native, 2);
}
