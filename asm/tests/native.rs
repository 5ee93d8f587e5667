//! Managed code on the thread's own stack: entries, calls of native code, anchors, and what
//! exceptions, barriers and watched calls do to them.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, barrier, layout::*};
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod arch;

arch::assembly!("barrier.s" "native.s");

type Function = unsafe extern "C-unwind" fn(usize) -> usize;
/// What may carry results.
type Results = [u64; arch::RESULT_WORDS];
type Managed = unsafe extern "C-unwind" fn(NativeFn, usize) -> usize;
unsafe extern "C-unwind" {
    fn hijack(f: Function, argument: usize, word: usize, saved: *const AtomicUsize) -> usize;
    fn managed_kept_by_call_native(native: NativeFn, n: usize) -> usize;
    fn managed_kept_by_call_native_all(native: NativeFn, n: usize) -> usize;
    fn managed_results(native: NativeFn, patterns: *mut Results) -> usize;
    fn native_results(patterns: *mut c_void, _b: usize) -> usize;
}

thread_local! {
    /// What the hooks of this thread's machine have been called with.
    static WATCHED: RefCell<Vec<[usize; 3]>> = const { RefCell::new(Vec::new()) };
    static HITS: Cell<usize> = const { Cell::new(0) };
    static LEAPFROGGED: Cell<usize> = const { Cell::new(0) };
}

unsafe extern "C" fn on_hit(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    HITS.set(HITS.get() + 1);
    unsafe { *slot = barrier::saved(index).load(Relaxed) };
}

unsafe extern "C" fn on_leapfrog(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    LEAPFROGGED.set(LEAPFROGGED.get() + 1);
    let saved = unsafe { barrier::saved(index) }.load(Relaxed);
    assert_eq!(unsafe { *slot }, saved, "the slot is whole again");
    let anchor = anchor();
    assert_eq!(
        anchor[..2],
        [saved, slot as usize + size_of::<usize>()],
        "as if the frame had called native code"
    );
}

unsafe extern "C" fn on_watched(_m: *mut MachineHeader, sp: usize, pc: usize, fp: usize) {
    WATCHED.with_borrow_mut(|watched| watched.push([pc, sp, fp]));
    let g = goroutine();
    assert_eq!(anchor()[1], 0, "no anchor any more");
    g.watch.store(usize::MAX, Relaxed);
}

/// Calls `f` on a thread with a machine that runs a goroutine on the thread's own stack.
fn attached<R: Send>(f: impl FnOnce(&GoroutineHeader) -> R + Send) -> R {
    let run = || {
        let (mut machine, g) = (MachineHeader::new(), GoroutineHeader::new());
        machine.on_hit.store(on_hit as *const () as usize, Relaxed);
        machine.on_leapfrog.store(on_leapfrog as *const () as usize, Relaxed);
        machine.on_watched.store(on_watched as *const () as usize, Relaxed);
        machine.goroutine.store(&raw const g as usize, Relaxed);
        g.stack_hi.store(asm::stack_pointer(), Relaxed);
        unsafe { asm::set_current(&mut machine) };
        let result = f(&g);
        unsafe { asm::set_current(std::ptr::null_mut()) };
        assert_eq!([g.entered.load(Relaxed), g.sched.sp.load(Relaxed)], [0, 0]);
        result
    };
    let run = || arch::on_thread(run);
    std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

fn goroutine() -> &'static GoroutineHeader {
    unsafe { &*((*asm::current()).goroutine.load(Relaxed) as *const GoroutineHeader) }
}

fn words(sched: &Sched) -> [usize; 3] {
    [&sched.pc, &sched.sp, &sched.fp].map(|word| word.load(Relaxed))
}

/// The anchor: pc, sp, fp.
fn anchor() -> [usize; 3] {
    words(&goroutine().sched)
}

unsafe fn enter(f: Function, argument: usize) -> usize {
    unsafe { asm::enter_managed(std::ptr::from_ref(goroutine()).cast_mut(), f, argument) }
}

/// The anchors from the youngest on, and the number of entry records.
fn anchors() -> (Vec<[usize; 3]>, usize) {
    let (mut anchors, mut records) = (vec![anchor()], 0);
    let mut at = goroutine().entered.load(Relaxed) as *const EntryRecord;
    while let Some(record) = unsafe { at.as_ref() } {
        assert_eq!(record.goroutine, std::ptr::from_ref(goroutine()) as usize);
        anchors.push(words(&record.anchor));
        records += 1;
        at = record.previous as *const EntryRecord;
    }
    (anchors, records)
}

static FORMS: [Managed; 2] = [managed_kept_by_call_native, managed_kept_by_call_native_all];

thread_local! {
    /// The anchors that the managed frames of this thread expect, oldest first.
    static EXPECTED: RefCell<Vec<[usize; 3]>> = const { RefCell::new(Vec::new()) };
}

/// Called by managed code with its registers, and how many entries are to come.
unsafe extern "C-unwind" fn alternates(registers: *mut c_void, n: usize) -> usize {
    EXPECTED.with_borrow_mut(|expected| expected.push(unsafe { *registers.cast() }));
    let check = || {
        let mut expected = EXPECTED.with_borrow(|expected| expected.clone());
        expected.reverse();
        expected.push([0; 3]);
        let (mut anchors, records) = anchors();
        // Of an anchor that there is not, only the stack pointer says so.
        assert_eq!(anchors.last().unwrap()[1], 0);
        *anchors.last_mut().unwrap() = [0; 3];
        assert_eq!((anchors, records), (expected.clone(), expected.len() - 1));
    };
    check();
    let result = match n {
        0 => 1,
        _ => unsafe { enter(managed, n - 1) },
    };
    check();
    EXPECTED.with_borrow_mut(|expected| expected.pop());
    result
}

unsafe extern "C-unwind" fn managed(n: usize) -> usize {
    assert_eq!(anchor()[1], 0, "no anchor while managed code runs");
    unsafe { FORMS[n % 2](alternates, n) }
}

#[test]
fn entries_and_calls_alternate_and_each_anchor_is_that_of_its_managed_frame() {
    const N: usize = 100;
    let result = attached(|_| unsafe { enter(managed, N) });
    let kept = |n: usize| (1..=arch::KEPT_BY_NATIVE).map(|i| n + i).sum::<usize>();
    assert_eq!(result, (0..=N).map(kept).sum::<usize>() + 1);
}

unsafe extern "C-unwind" fn native_panic(_a: *mut c_void, _b: usize) -> usize {
    resume_unwind(Box::new(99usize))
}

fn caught(f: impl FnOnce() -> usize + std::panic::UnwindSafe) -> usize {
    *catch_unwind(f).unwrap_err().downcast::<usize>().unwrap()
}

unsafe fn behind_barrier(index: usize, f: Function, argument: usize) -> usize {
    unsafe { hijack(f, argument, barrier::hijacked_word(index), barrier::saved(index)) }
}

/// Each level is a managed frame, a barrier, a managed frame, and native code that enters the next.
/// The last one panics.
unsafe extern "C-unwind" fn to_a_panic(n: usize) -> usize {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, n: usize) -> usize {
        if n == 0 { unsafe { native_panic(_a, n) } } else { unsafe { enter(to_a_panic, n - 1) } }
    }
    unsafe extern "C-unwind" fn calls(n: usize) -> usize {
        match n % 2 {
            0 => unsafe { asm::call_native(native, std::ptr::null_mut(), n) },
            _ => unsafe { asm::call_native_all(native, std::ptr::null_mut(), n) },
        }
    }
    unsafe { behind_barrier(100 + n, calls, n) }
}

#[test]
fn an_exception_leaves_every_entry_and_settles_every_barrier() {
    attached(|_| {
        assert_eq!(caught(|| unsafe { enter(to_a_panic, 9) }), 99);
        assert_eq!((HITS.get(), LEAPFROGGED.get()), (0, 10));
    });
}

#[test]
fn an_exception_that_native_code_catches_leaves_the_anchor_of_its_caller() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, n: usize) -> usize {
        let before = anchors();
        let caught = caught(|| unsafe { enter(to_a_panic, n) });
        assert_eq!(anchors(), before);
        caught
    }
    unsafe extern "C-unwind" fn managed(n: usize) -> usize {
        unsafe { asm::call_native(native, std::ptr::null_mut(), n) + 1 }
    }
    attached(|_| {
        assert_eq!(unsafe { enter(managed, 3) }, 100);
        assert_eq!((HITS.get(), LEAPFROGGED.get()), (0, 4));
    });
}

#[test]
fn a_managed_frame_catches_right_behind_a_barrier_and_goes_on_without_an_anchor() {
    unsafe extern "C-unwind" fn managed(_argument: usize) -> usize {
        let caught = caught(|| unsafe { to_a_panic(0) });
        assert_eq!(anchor()[1], 0);
        caught
    }
    attached(|_| {
        assert_eq!(unsafe { enter(managed, 0) }, 99);
        assert_eq!((HITS.get(), LEAPFROGGED.get()), (0, 1));
    });
}

#[test]
fn a_return_through_a_barrier_is_a_hit_on_the_same_stack() {
    unsafe extern "C-unwind" fn returns(n: usize) -> usize {
        n + 1
    }
    unsafe extern "C-unwind" fn managed(n: usize) -> usize {
        unsafe { behind_barrier(200, returns, n) + 1 }
    }
    attached(|_| {
        assert_eq!(unsafe { enter(managed, 5) }, 7);
        assert_eq!((HITS.get(), LEAPFROGGED.get()), (1, 0));
    });
}

// Windows ends a thread without unwinding its stack.
#[cfg(unix)]
unsafe extern "C" {
    fn pthread_exit(value: *mut c_void) -> !;
}

// As above.
#[cfg(unix)]
#[test]
fn a_thread_that_ends_leaves_every_entry_and_settles_every_barrier() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
        unsafe { pthread_exit(std::ptr::null_mut()) }
    }
    unsafe extern "C-unwind" fn calls(_argument: usize) -> usize {
        unsafe { asm::call_native(native, std::ptr::null_mut(), 0) }
    }
    unsafe extern "C-unwind" fn managed(_argument: usize) -> usize {
        unsafe { behind_barrier(300, calls, 0) }
    }
    struct Headers(MachineHeader, GoroutineHeader);
    type Begin = extern "C" fn(*mut c_void) -> *mut c_void;
    extern "C-unwind" fn thread(headers: *mut c_void) -> *mut c_void {
        let Headers(machine, g) = unsafe { &*headers.cast::<Headers>() };
        machine.goroutine.store(std::ptr::from_ref(g) as usize, Relaxed);
        g.stack_hi.store(asm::stack_pointer(), Relaxed);
        unsafe {
            asm::set_current(std::ptr::from_ref(machine).cast_mut());
            asm::enter_managed(std::ptr::from_ref(g).cast_mut(), managed, 0);
        }
        unreachable!("the thread has ended")
    }
    let headers = Headers(MachineHeader::new(), GoroutineHeader::new());
    unsafe extern "C" fn leapfrogged(m: *mut MachineHeader, _slot: *mut usize, index: usize) {
        assert_eq!(index, 300);
        unsafe { (*m).host.store(index, Relaxed) };
    }
    headers.0.on_leapfrog.store(leapfrogged as *const () as usize, Relaxed);
    unsafe {
        let mut id = std::mem::zeroed();
        let argument = (&raw const headers).cast_mut().cast();
        // The declaration does not know that the thread may end by unwinding.
        let thread = std::mem::transmute::<*const (), Begin>(thread as *const ());
        assert_eq!(libc::pthread_create(&mut id, std::ptr::null(), thread, argument), 0);
        assert_eq!(libc::pthread_join(id, std::ptr::null_mut()), 0);
    }
    assert_eq!(headers.0.host.load(Relaxed), 300);
    assert_eq!([headers.1.entered.load(Relaxed), headers.1.sched.sp.load(Relaxed)], [0, 0]);
}

/// How far from the stack pointer of the caller the watched address lies.
const AT_THE_CALL: isize = -(size_of::<usize>() as isize);

/// Watches the address at this distance from the anchor, then returns or panics.
unsafe extern "C-unwind" fn watches(distance: *mut c_void, panics: usize) -> usize {
    let [_, sp, _] = anchor();
    goroutine().watch.store(sp.wrapping_add_signed(distance as isize), Relaxed);
    EXPECTED.with_borrow_mut(|expected| expected.push(anchor()));
    if panics != 0 { unsafe { native_panic(distance, 0) } } else { 7 }
}

#[test]
fn a_call_that_comes_back_asks_what_is_watched_and_younger() {
    struct Case {
        distance: isize,
        panics: bool,
        all: bool,
    }
    unsafe extern "C-unwind" fn managed(case: usize) -> usize {
        let Case { distance, panics, all } = unsafe { &*(case as *const Case) };
        let (distance, panics) = (*distance as *mut c_void, usize::from(*panics));
        match all {
            true => unsafe { asm::call_native_all(watches, distance, panics) },
            false => unsafe { asm::call_native(watches, distance, panics) },
        }
    }
    attached(|g| {
        for (distance, asks) in [(AT_THE_CALL, true), (-4096, true), (0, false), (8, false)] {
            for (panics, all) in [(false, false), (false, true), (true, false), (true, true)] {
                let case = Case { distance, panics, all };
                let case = &raw const case as usize;
                match panics {
                    true => assert_eq!(caught(|| unsafe { enter(managed, case) }), 99),
                    false => assert_eq!(unsafe { enter(managed, case) }, 7),
                }
                let expected = EXPECTED.take();
                assert_eq!(WATCHED.take(), if asks { expected } else { vec![] }, "{distance}");
                g.watch.store(usize::MAX, Relaxed);
            }
        }
    });
}

#[test]
fn results_survive_a_watched_return() {
    unsafe extern "C-unwind" fn managed(patterns: usize) -> usize {
        unsafe { managed_results(native_results, patterns as *mut Results) }
    }
    attached(|g| {
        for watch in [usize::MAX, 1] {
            let mut patterns: Results =
                std::array::from_fn(|i| 0x0101_0101_0101_0101 * (i as u64 + 1));
            let before = patterns;
            g.watch.store(watch, Relaxed);
            unsafe { enter(managed, &raw mut patterns as usize) };
            assert_eq!(patterns, before);
            assert_eq!(WATCHED.take().len(), usize::from(watch == 1));
        }
    });
}
