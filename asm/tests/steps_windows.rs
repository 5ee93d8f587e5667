//! Walks of Windows' unwinder from every instruction of the assembly: a thread that single-steps
//! through switches, hits, calls, and exceptions.
//!
//! Each walk must come to the frames in which the steps have begun, with all registers that
//! functions keep as they are there. A goroutine's stack ends before.
//!
//! Wine does not step through its own dispatching of exceptions: there the steps begin at the
//! landing pads.
// The other systems' unwinders have `steps.rs`.
#![cfg(windows)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, barrier, layout::*};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::Relaxed};

mod arch;

arch::assembly!("barrier.s" "steps.s");

type Function = unsafe extern "C-unwind" fn(usize) -> usize;
unsafe extern "C-unwind" {
    fn hijack(f: Function, argument: usize, word: usize, saved: *const AtomicUsize) -> usize;
    /// Called by the assembly: goes on at a landing pad of its caller, with an exception, and steps
    /// from there on.
    fn lands(pad: *mut c_void, _b: usize) -> usize;
    fn lands_in_entry(goroutine: usize, pad: usize) -> usize;
    fn managed_continues(native: NativeFn) -> usize;
    /// Calls `f(argument)` with a number in every register that functions keep.
    fn patterned(f: Function, argument: usize) -> usize;
    /// Where that call returns to.
    fn patterned_returned();

    fn stackmark_call_landing();
    fn stackmark_callback_landing();
    fn stackmark_catch_landing();
    fn stackmark_entry_landing();
}

/// `CONTEXT`, as far as it is looked at.
#[repr(C, align(16))]
#[derive(Clone)]
struct Context {
    before: [u8; 0x44],
    flags: u32,
    debug: [u64; 6],
    /// From rax on.
    general: [usize; 16],
    pc: usize,
    between: [u8; 0xa0],
    vectors: [[usize; 2]; 16],
    after: [u8; 0x4d0 - 0x2a0],
}

const RSP: usize = 4;
/// The trap flag of the processor.
const TRAP: u32 = 0x100;
const SINGLE_STEP: u32 = 0x8000_0004;

#[repr(C)]
struct Pointers {
    code: *const u32,
    context: *mut Context,
}

#[link(name = "kernel32")]
unsafe extern "system" {
    fn AddVectoredExceptionHandler(
        first: u32,
        handler: unsafe extern "system" fn(*mut Pointers) -> i32,
    ) -> *mut c_void;
    fn RemoveVectoredExceptionHandler(handler: *mut c_void) -> u32;
    fn RtlCaptureContext(context: *mut Context);
    fn RtlLookupFunctionEntry(pc: usize, image: *mut usize, history: *mut c_void) -> *mut c_void;
    fn RtlVirtualUnwind(
        kind: u32,
        image: usize,
        pc: usize,
        function: *mut c_void,
        context: *mut Context,
        data: *mut *mut c_void,
        frame: *mut usize,
        pointers: *mut c_void,
    ) -> *mut c_void;
}

/// What a frame is known by: its pc, its stack pointer, and the registers that functions keep.
type Frame = [usize; 1 + 9 + 20];

fn frame(context: &Context) -> Frame {
    let mut frame = [0; 1 + 9 + 20];
    frame[0] = context.pc;
    let kept = [RSP, 3, 5, 6, 7, 12, 13, 14, 15];
    for (word, register) in frame[1..10].iter_mut().zip(kept) {
        *word = context.general[register];
    }
    frame[10..].copy_from_slice(context.vectors[6..].as_flattened());
    frame
}

/// How many of the oldest frames are compared.
const COMPARED: usize = 6;

/// The oldest frames of a walk.
#[derive(Clone, Copy, PartialEq)]
struct Oldest {
    /// In turns.
    frames: [Frame; COMPARED],
    /// The oldest one of `patterned`.
    patterned: Frame,
    walked: usize,
}

impl Oldest {
    const NONE: Oldest = Oldest { frames: [[0; 30]; COMPARED], patterned: [0; 30], walked: 0 };

    /// Walks to the end, which is a frame that returns to 0, or one of no function.
    unsafe fn of(mut context: Context) -> Oldest {
        let mut oldest = Oldest::NONE;
        while context.pc != 0 && oldest.walked < 1000 {
            oldest.frames[oldest.walked % COMPARED] = frame(&context);
            oldest.walked += 1;
            if context.pc == patterned_returned as *const () as usize {
                oldest.patterned = frame(&context);
            }
            let (mut image, mut data, mut establisher) = (0, std::ptr::null_mut(), 0);
            unsafe {
                let pc = context.pc;
                let function = RtlLookupFunctionEntry(pc, &mut image, std::ptr::null_mut());
                if function.is_null() {
                    break;
                }
                RtlVirtualUnwind(
                    0,
                    image,
                    pc,
                    function,
                    &mut context,
                    &mut data,
                    &mut establisher,
                    std::ptr::null_mut(),
                );
            }
        }
        oldest
    }

    /// The frame that is so many younger than the oldest.
    fn frame(&self, younger: usize) -> &Frame {
        &self.frames[(self.walked + COMPARED - 1 - younger) % COMPARED]
    }
}

/// What a stepping thread does at each instruction.
struct Stepping {
    /// Where the steps have begun.
    begun: Oldest,
    /// Oldest frames that are the same ones while the thread steps.
    same: usize,
    steps: usize,
    /// Whether walks may end in the oldest frame of a goroutine.
    ends: bool,
    /// Whether the steps end where the assembly is left.
    inside: bool,
    /// Walks by pc, as an offset in the assembly.
    walks: HashMap<usize, usize>,
    /// Walks that have ended with other frames: where they began, and a frame that is another.
    wrong: Vec<(usize, usize, Frame, Frame)>,
}

/// The state of the one thread that steps.
static STEPPING: AtomicPtr<Stepping> = AtomicPtr::new(std::ptr::null_mut());

/// The pcs of the assembly, from its first function to its last stub.
fn assembly() -> std::ops::Range<usize> {
    asm::switch_out_address()..barrier::pool().end
}

unsafe extern "system" fn on_step(pointers: *mut Pointers) -> i32 {
    const CONTINUE_EXECUTION: i32 = -1;
    const CONTINUE_SEARCH: i32 = 0;
    let (code, context) = unsafe { (*(*pointers).code, &mut *(*pointers).context) };
    if code != SINGLE_STEP {
        return CONTINUE_SEARCH;
    }
    let Some(stepping) = (unsafe { STEPPING.load(Relaxed).as_mut() }) else {
        context.flags &= !TRAP;
        return CONTINUE_EXECUTION;
    };
    if stepping.inside && !assembly().contains(&context.pc) {
        context.flags &= !TRAP;
        return CONTINUE_EXECUTION;
    }
    context.flags |= TRAP;
    stepping.steps += 1;
    let at = context.pc.wrapping_sub(assembly().start);
    // No allocation: the step may be one of an allocation.
    if assembly().contains(&context.pc) && stepping.walks.len() < stepping.walks.capacity() {
        *stepping.walks.entry(at).or_default() += 1;
        let found = unsafe { Oldest::of(context.clone()) };
        if stepping.ends && asm::entry_range().contains(&found.frame(0)[0]) {
            return CONTINUE_EXECUTION;
        }
        let frames = (0..stepping.same)
            .map(|younger| (younger, found.frame(younger), stepping.begun.frame(younger)));
        let patterned = (usize::MAX, &found.patterned, &stepping.begun.patterned);
        for (younger, is, should) in frames.chain([patterned]) {
            if is != should && stepping.wrong.len() < stepping.wrong.capacity() {
                stepping.wrong.push((at, younger, *is, *should));
                break;
            }
        }
    }
    CONTINUE_EXECUTION
}

/// Runs `f` with an exception at each instruction. The frames from that of the caller on are the
/// same ones meanwhile.
#[inline(never)]
fn single_steps(stepping: &mut Stepping, f: impl FnOnce()) {
    let mut here = std::mem::MaybeUninit::<Context>::zeroed();
    let here = unsafe {
        RtlCaptureContext(here.as_mut_ptr());
        here.assume_init()
    };
    stepping.begun = unsafe { Oldest::of(here) };
    assert_ne!(stepping.begun.patterned[0], 0);
    // Without this function, and its caller, which is at the call of this one.
    stepping.same = COMPARED.min(stepping.begun.walked - 1);
    let inside = stepping.inside;
    STEPPING.store(stepping, Relaxed);
    if !inside {
        begin_steps();
    }
    f();
    STEPPING.store(std::ptr::null_mut(), Relaxed);
    std::hint::black_box(());
}

#[inline(always)]
fn begin_steps() {
    unsafe { std::arch::asm!("pushfq", "or qword ptr [rsp], {trap}", "popfq", trap = const TRAP) };
}

/// What happens where: a function with a machine, stepped through if it is to be.
type On = fn(Function, usize, Option<&mut Stepping>) -> usize;

/// Walks from each step of `f(argument)` in the assembly.
#[track_caller]
fn walk_everywhere(on: On, f: Function, argument: usize) {
    walk(on, f, argument, false, 50);
}

/// Walks so from all steps, or from those within the assembly from a landing pad on. There are at
/// least so many places.
#[track_caller]
fn walk(on: On, f: Function, argument: usize, inside: bool, places: usize) {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let handler = unsafe { AddVectoredExceptionHandler(1, on_step) };
    let mut stepping = Stepping {
        begun: Oldest::NONE,
        same: 0,
        steps: 0,
        ends: on as usize == on_system_stack as On as usize,
        inside,
        walks: HashMap::with_capacity(1 << 12),
        wrong: Vec::with_capacity(1 << 10),
    };
    let result = on(f, argument, None);
    assert_eq!(on(f, argument, Some(&mut stepping)), result);
    unsafe { RemoveVectoredExceptionHandler(handler) };
    if let Some((at, younger, is, should)) = stepping.wrong.first() {
        let places: std::collections::BTreeSet<_> =
            stepping.wrong.iter().map(|wrong| format!("{:#x}", wrong.0)).collect();
        panic!(
            "walks from {places:?}; from {at:#x}, frame {younger} from the oldest:\n{is:#x?}\n\
             instead of\n{should:#x?}"
        );
    }
    let (steps, found) = (stepping.steps, stepping.walks.len());
    eprintln!("{steps} steps, {found} places in the assembly");
    assert!(found >= places, "{found} places");
}

unsafe extern "C" fn on_hit(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    unsafe { *slot = barrier::saved(index).load(Relaxed) };
}

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

/// What an [`On`] runs.
struct Run<'s> {
    f: Function,
    argument: usize,
    stepping: Option<&'s mut Stepping>,
    result: usize,
}

impl Run<'_> {
    #[inline(never)]
    fn run(&mut self) {
        let Run { f, argument, stepping, result } = self;
        match stepping {
            None => *result = unsafe { f(*argument) },
            Some(stepping) => single_steps(stepping, || *result = unsafe { f(*argument) }),
        }
        std::hint::black_box(());
    }

    /// Below a frame whose registers are known.
    fn run_patterned(&mut self) {
        unsafe extern "C-unwind" fn run(run: usize) -> usize {
            unsafe { &mut *(run as *mut Run) }.run();
            0
        }
        unsafe { patterned(run, std::ptr::from_mut(self) as usize) };
    }
}

unsafe extern "C-unwind" fn managed(_goroutine: usize, run: usize) -> usize {
    unsafe { &mut *(run as *mut Run) }.run_patterned();
    0
}

/// A goroutine that is to run `f(argument)` on a stack that has room for handlers. It is not
/// prepared yet.
fn goroutine(
    stack: &mut [u128],
    f: unsafe extern "C-unwind" fn(usize, usize) -> usize,
    argument: usize,
) -> GoroutineHeader {
    let goroutine = GoroutineHeader::new();
    goroutine.stack_hi.store(arch::top_of(stack), Relaxed);
    goroutine.stack_lo.store(stack.as_ptr() as usize, Relaxed);
    goroutine.entry.store(f as *const () as usize, Relaxed);
    goroutine.start_arg.store(argument, Relaxed);
    goroutine.on_exit.store(on_exit as *const () as usize, Relaxed);
    goroutine
}

/// As managed code on a goroutine.
fn on_goroutine(f: Function, argument: usize, stepping: Option<&mut Stepping>) -> usize {
    let mut run = Run { f, argument, stepping, result: 0 };
    let mut stack = vec![0u128; 1 << 16];
    let mut goroutine = goroutine(&mut stack, managed, &raw mut run as usize);
    let mut machine = MachineHeader::new();
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    // SAFETY: headers and stack outlive the run and are ours alone.
    unsafe {
        asm::prepare(&goroutine);
        asm::set_current(&mut machine);
        asm::run(&mut machine, &mut goroutine);
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
    arch::on_thread(|| run.run_patterned());
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

fn caught(f: impl FnOnce() -> usize + std::panic::UnwindSafe) -> usize {
    *std::panic::catch_unwind(f).unwrap_err().downcast::<usize>().unwrap()
}

fn current_goroutine() -> *mut GoroutineHeader {
    unsafe { (*asm::current()).goroutine.load(Relaxed) as *mut GoroutineHeader }
}

unsafe extern "C-unwind" fn calls(depth: usize) -> usize {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, depth: usize) -> usize {
        match depth {
            0 => 1,
            _ => unsafe { asm::callback(current_goroutine(), calls, depth - 1) },
        }
    }
    unsafe extern "C-unwind" fn call(depth: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), depth) + 1 }
    }
    unsafe { behind_barrier(20 + depth, call, depth) }
}

#[test]
fn every_walk_from_calls_callbacks_and_hits_is_whole() {
    walk_everywhere(on_goroutine, calls, 3);
}

/// As native code without a machine.
fn on_system_stack(f: Function, argument: usize, stepping: Option<&mut Stepping>) -> usize {
    let mut run = Run { f, argument, stepping, result: 0 };
    run.run_patterned();
    run.result
}

#[test]
fn every_walk_from_switches_of_a_goroutine_is_whole() {
    unsafe extern "C-unwind" fn managed(_goroutine: usize, n: usize) -> usize {
        let switch_out = asm::switch_out_address();
        let switch_out = unsafe { std::mem::transmute::<usize, Function>(switch_out) };
        (0..n).map(|i| unsafe { switch_out(i) }).sum::<usize>() + unsafe { calls(n) }
    }
    unsafe extern "C-unwind" fn scheduler(n: usize) -> usize {
        let mut stack = vec![0u128; 1 << 16];
        let mut goroutine = goroutine(&mut stack, managed, n);
        let mut machine = MachineHeader::new();
        machine.on_hit.store(on_hit as *const () as usize, Relaxed);
        unsafe {
            asm::prepare(&goroutine);
            asm::set_current(&mut machine);
        }
        let mut sum = 0;
        // It leaves n times by switch_out, and once by leave.
        for i in 0..=n {
            goroutine.resume_value.store(i, Relaxed);
            sum += unsafe { asm::run(&mut machine, &mut goroutine) };
        }
        unsafe { asm::set_current(std::ptr::null_mut()) };
        sum
    }
    walk_everywhere(on_system_stack, scheduler, 3);
}

#[test]
fn every_walk_from_where_a_managed_frame_goes_on_is_whole() {
    unsafe extern "C-unwind" fn native(place: *mut c_void, _b: usize) -> usize {
        let [pc, sp] = unsafe { *place.cast::<[usize; 2]>() };
        let continuation = asm::Continuation::new(pc, sp, [1, 2], |number| Some(number.into()));
        unsafe { asm::continue_at(&continuation.unwrap()) }
    }
    unsafe extern "C-unwind" fn continues(_argument: usize) -> usize {
        let sum = unsafe { managed_continues(native) };
        let general = [3, 4, 5, 6, 12, 13, 14, 15];
        assert_eq!(sum, 1 + 2 + general.iter().sum::<usize>() + (256..276).sum::<usize>());
        sum
    }
    walk_everywhere(on_goroutine, continues, 0);
}

/// An exception that has been caught.
#[unsafe(no_mangle)]
extern "C" fn caught_exception() -> *mut c_void {
    unsafe extern "C-unwind" fn panics(_argument: *mut c_void) {
        std::panic::resume_unwind(Box::new(99usize))
    }
    unsafe { asm::catch(panics, std::ptr::null_mut()) }
}

#[test]
fn every_walk_from_the_landing_pad_of_a_call_is_whole() {
    unsafe extern "C-unwind" fn calls(_argument: usize) -> usize {
        caught(|| unsafe { asm::call_system(lands, stackmark_call_landing as *mut c_void, 0) })
    }
    walk(on_goroutine, calls, 0, true, 40);
}

#[test]
fn every_walk_from_the_landing_pad_of_a_callback_is_whole() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
        let lands = unsafe { std::mem::transmute::<*const (), Function>(lands as *const ()) };
        let pad = stackmark_callback_landing as *const () as usize;
        caught(|| unsafe { asm::callback(current_goroutine(), lands, pad) })
    }
    unsafe extern "C-unwind" fn calls(_argument: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), 0) }
    }
    walk(on_goroutine, calls, 0, true, 40);
}

#[test]
fn every_walk_from_the_landing_pad_of_catch_is_whole() {
    unsafe extern "C-unwind" fn catches(_argument: usize) -> usize {
        let lands = unsafe { std::mem::transmute::<*const (), CaughtFn>(lands as *const ()) };
        let exception = unsafe { asm::catch(lands, stackmark_catch_landing as *mut c_void) };
        usize::from(exception.is_null())
    }
    walk(on_native_stack, catches, 0, true, 2);
}

#[test]
fn every_walk_from_the_landing_pad_of_the_oldest_frame_is_whole() {
    unsafe extern "C-unwind" fn on_uncaught(_exception: *mut c_void, _goroutine: usize) -> usize {
        unsafe { asm::leave(asm::current(), 55) }
    }
    unsafe extern "C-unwind" fn scheduler(pad: usize) -> usize {
        let mut stack = vec![0u128; 1 << 16];
        let mut goroutine = goroutine(&mut stack, lands_in_entry, pad);
        goroutine.on_uncaught.store(on_uncaught as *const () as usize, Relaxed);
        let mut machine = MachineHeader::new();
        unsafe {
            asm::prepare(&goroutine);
            asm::set_current(&mut machine);
            let left = asm::run(&mut machine, &mut goroutine);
            asm::set_current(std::ptr::null_mut());
            left
        }
    }
    let pad = stackmark_entry_landing as *const () as usize;
    walk(on_system_stack, scheduler, pad, true, 40);
}

/// So many levels of managed code behind a barrier, native code, and a watch.
unsafe extern "C-unwind" fn alternates(levels: usize) -> usize {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, levels: usize) -> usize {
        let goroutine = current_goroutine();
        let result = match levels {
            0 => 1,
            _ => unsafe { asm::enter_managed(goroutine, alternates, levels - 1) },
        };
        if levels % 4 == 1 {
            unsafe { (*goroutine).watch.store(1, Relaxed) };
        }
        result
    }
    unsafe extern "C-unwind" fn calls(levels: usize) -> usize {
        match levels % 2 {
            0 => unsafe { asm::call_native(native, std::ptr::null_mut(), levels) },
            _ => unsafe { asm::call_native_all(native, std::ptr::null_mut(), levels) },
        }
    }
    unsafe { behind_barrier(100 + levels, calls, levels) }
}

#[test]
fn every_walk_from_a_native_stack_is_whole() {
    unsafe extern "C-unwind" fn native(levels: usize) -> usize {
        unsafe { asm::enter_managed(current_goroutine(), alternates, levels) }
    }
    walk_everywhere(on_native_stack, native, 5);
}
