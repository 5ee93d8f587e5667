//! Barrier stubs: what survives a hit, and what unwinders see and do.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, barrier, layout::*, unwinding};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

mod arch;

arch::assembly!("barrier.s");

type Function = unsafe extern "C-unwind" fn(usize) -> usize;
unsafe extern "C-unwind" {
    fn hijack(f: Function, argument: usize, word: usize, saved: *const AtomicUsize) -> usize;
}

static HITS: AtomicUsize = AtomicUsize::new(0);
static LEAPFROGGED: AtomicUsize = AtomicUsize::new(0);
/// Which vector registers the running test looks at.
static KIND: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_hit(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    HITS.fetch_add(1, Relaxed);
    // The stub must not have left results there.
    unsafe {
        arch::spoil(KIND.load(Relaxed));
        *slot = barrier::saved(index).load(Relaxed);
    }
}

unsafe extern "C" fn on_leapfrog(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    LEAPFROGGED.fetch_add(1, Relaxed);
    let saved = unsafe { barrier::saved(index) }.load(Relaxed);
    assert_eq!(unsafe { *slot }, saved, "the slot is whole again");
}

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

/// Lets one test run at a time, and keeps these vector registers, or those that there are.
fn begin(kind: u32) -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    let one = ONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    KIND.store(unsafe { barrier::limit_vectors(kind) } as usize, Relaxed);
    HITS.store(0, Relaxed);
    LEAPFROGGED.store(0, Relaxed);
    one
}

/// Runs `f(argument)` as managed code on a goroutine with a large stack; one test at a time, for
/// the counters.
fn on_goroutine(
    f: unsafe extern "C-unwind" fn(usize, usize) -> usize,
    argument: usize,
) -> (usize, usize, usize) {
    on_goroutine_with(u32::MAX, f, argument)
}

/// The same with these vector registers, or those that there are.
fn on_goroutine_with(
    kind: u32,
    f: unsafe extern "C-unwind" fn(usize, usize) -> usize,
    argument: usize,
) -> (usize, usize, usize) {
    let _one = begin(kind);
    let mut stack = vec![0u128; 1 << 16];
    let (mut machine, goroutine) = (MachineHeader::new(), &mut GoroutineHeader::new());
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    machine.on_leapfrog.store(on_leapfrog as *const () as usize, Relaxed);
    goroutine.stack_hi.store(arch::top_of(&mut stack), Relaxed);
    goroutine.entry.store(f as *const () as usize, Relaxed);
    goroutine.start_arg.store(argument, Relaxed);
    goroutine.on_exit.store(on_exit as *const () as usize, Relaxed);
    // SAFETY: headers and stack outlive the run and are ours alone.
    let result = unsafe {
        asm::prepare(goroutine);
        asm::set_current(&mut machine);
        let result = asm::run(&mut machine, goroutine);
        asm::set_current(std::ptr::null_mut());
        result
    };
    (result, HITS.load(Relaxed), LEAPFROGGED.load(Relaxed))
}

/// The same on this thread's own stack.
fn on_native_stack_with(
    kind: u32,
    f: unsafe extern "C-unwind" fn(usize, usize) -> usize,
    argument: usize,
) -> (usize, usize, usize) {
    type Call = (unsafe extern "C-unwind" fn(usize, usize) -> usize, usize);
    unsafe extern "C-unwind" fn managed(call: usize) -> usize {
        let (f, argument) = unsafe { *(call as *const Call) };
        unsafe { f(0, argument) }
    }
    let _one = begin(kind);
    let (mut machine, goroutine) = (MachineHeader::new(), &mut GoroutineHeader::new());
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    machine.goroutine.store(&raw const *goroutine as usize, Relaxed);
    goroutine.stack_hi.store(asm::stack_pointer(), Relaxed);
    let call: Call = (f, argument);
    let result = arch::on_thread(|| unsafe {
        asm::set_current(&mut machine);
        let result = asm::enter_managed(goroutine, managed, &raw const call as usize);
        asm::set_current(std::ptr::null_mut());
        result
    });
    (result, HITS.load(Relaxed), LEAPFROGGED.load(Relaxed))
}

/// Calls `f(argument)` from a frame whose return slot is hijacked by stub `index`.
unsafe fn behind_barrier(index: usize, f: Function, argument: usize) -> usize {
    unsafe { hijack(f, argument, barrier::hijacked_word(index), barrier::saved(index)) }
}

#[test]
fn a_hit_keeps_every_register_whatever_the_cpu_has() {
    unsafe extern "C-unwind" fn managed(_g: usize, state: usize) -> usize {
        let kind = KIND.load(Relaxed);
        let mut input = [0u64; arch::PATTERN_WORDS];
        for (i, word) in input.iter_mut().enumerate() {
            *word = 0x0101_0101_0101_0101u64.wrapping_mul(i as u64 + 3);
        }
        arch::adjust_patterns(&mut input);
        let mut output = [0u64; arch::PATTERN_WORDS];
        for index in [1, 511, 513, barrier::TABLE_WORDS - 1] {
            output.fill(0);
            let (word, saved) = (barrier::hijacked_word(index), unsafe { barrier::saved(index) });
            let (to, from) = (input.as_ptr(), output.as_mut_ptr());
            unsafe { arch::fill_and_check(to, from, word, saved, kind, state) };
            for i in 0..arch::PATTERN_WORDS {
                let bits = arch::kept_bits(i, kind, state);
                assert_eq!(
                    output[i] & bits,
                    input[i] & bits,
                    "word {i} through stub {index}, kind {kind}, state {state}"
                );
            }
        }
        7
    }
    for kind in 0..arch::VECTOR_KINDS {
        for state in 0..arch::OTHER_STATES {
            assert_eq!(on_goroutine_with(kind, managed, state), (7, 4, 0));
            assert_eq!(on_native_stack_with(kind, managed, state), (7, 4, 0));
        }
    }
}

/// Where the processor has more, and the hook uses it.
#[test]
fn a_hit_keeps_what_the_machines_byte_says() {
    unsafe extern "C-unwind" fn managed(_g: usize, kept: usize) -> usize {
        let kind = KIND.load(Relaxed);
        let (byte, vectors) = (kept as u8, if kept as u8 == KEEPS_ALL { kind } else { 0 });
        let mut input: [u64; arch::PATTERN_WORDS] = std::array::from_fn(|i| !(i as u64) << 7);
        arch::adjust_patterns(&mut input);
        let mut output = [0u64; arch::PATTERN_WORDS];
        unsafe {
            let machine = &*asm::current();
            machine.kept_vectors.store((&raw const byte) as usize, Relaxed);
            let (word, saved) = (barrier::hijacked_word(7), barrier::saved(7));
            arch::fill_and_check(input.as_ptr(), output.as_mut_ptr(), word, saved, kind, 0);
        }
        for i in 0..arch::PATTERN_WORDS {
            let among_them = byte != KEEPS_RESULTS || arch::is_kept_by_convention(i);
            let bits = if among_them { arch::kept_bits(i, vectors, 0) } else { 0 };
            assert_eq!(output[i] & bits, input[i] & bits, "word {i}, kept {byte}");
        }
        8
    }
    for kind in 0..arch::VECTOR_KINDS {
        for kept in [KEEPS_RESULTS, KEEPS_NARROW, KEEPS_ALL] {
            assert_eq!(on_goroutine_with(kind, managed, kept.into()), (8, 1, 0));
            assert_eq!(on_native_stack_with(kind, managed, kept.into()), (8, 1, 0));
        }
    }
}

#[test]
fn every_stub_names_itself() {
    for index in (0..barrier::TABLE_WORDS).filter(|&i| barrier::is_stub(i)) {
        let word = barrier::hijacked_word(index);
        assert_eq!(barrier::index_of(word), Some(index));
        assert_eq!(barrier::index_of(word - 1), Some(index), "the pc - 1 of unwinders");
    }
    assert_eq!(barrier::index_of(barrier::pool().end), None);
    assert_eq!(barrier::index_of(barrier::pool().start - 1), None);
}

unsafe extern "C-unwind" fn native_panic(_a: *mut c_void, _b: usize) -> usize {
    std::panic::resume_unwind(Box::new(99usize))
}

unsafe extern "C-unwind" fn call_native_panic(_argument: usize) -> usize {
    unsafe { asm::call_system(native_panic, std::ptr::null_mut(), 0) }
}

unsafe extern "C-unwind" fn nested(depth: usize) -> usize {
    if depth == 0 {
        return unsafe { call_native_panic(0) };
    }
    unsafe { behind_barrier(10 + depth, nested, depth - 1) }
}

#[test]
fn a_panic_passes_barriers_and_is_caught_behind_them() {
    unsafe extern "C-unwind" fn managed(_g: usize, depth: usize) -> usize {
        let caught = std::panic::catch_unwind(|| unsafe { nested(depth) });
        *caught.unwrap_err().downcast::<usize>().unwrap()
    }
    for depth in [1, 2, 5] {
        assert_eq!(on_goroutine(managed, depth), (99, 0, depth));
    }
}

#[test]
fn a_panic_is_caught_in_the_very_frame_that_the_barrier_returns_to() {
    unsafe extern "C-unwind" fn managed(_g: usize, _argument: usize) -> usize {
        let caught =
            std::panic::catch_unwind(|| unsafe { behind_barrier(20, call_native_panic, 0) });
        let first = *caught.unwrap_err().downcast::<usize>().unwrap();
        // The stub is as good as new.
        unsafe extern "C-unwind" fn plain(argument: usize) -> usize {
            argument + 1
        }
        first + unsafe { behind_barrier(20, plain, 0) }
    }
    assert_eq!(on_goroutine(managed, 0), (100, 1, 1));
}

static UNCAUGHT: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C-unwind" fn on_uncaught(exception: *mut c_void, goroutine: usize) -> usize {
    assert!(!exception.is_null());
    assert_eq!(goroutine, unsafe { (*asm::current()).goroutine.load(Relaxed) });
    UNCAUGHT.fetch_add(1, Relaxed);
    unsafe { asm::leave(asm::current(), 55) }
}

#[test]
fn an_exception_that_nobody_catches_ends_at_the_oldest_frame() {
    unsafe extern "C-unwind" fn managed(g: usize, depth: usize) -> usize {
        unsafe {
            (*(g as *const GoroutineHeader))
                .on_uncaught
                .store(on_uncaught as *const () as usize, Relaxed)
        };
        unsafe { nested(depth) }
    }
    assert_eq!(on_goroutine(managed, 3), (55, 0, 3));
    assert_eq!(UNCAUGHT.load(Relaxed), 1);
}

#[test]
fn an_exception_passes_a_callback_and_leaves_the_goroutine_where_it_called_out() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, depth: usize) -> usize {
        let machine = asm::current();
        let goroutine = unsafe { (*machine).goroutine.load(Relaxed) as *mut GoroutineHeader };
        let state = || unsafe {
            let g = &*goroutine;
            let sched = [&g.sched.pc, &g.sched.sp, &g.sched.fp].map(|word| word.load(Relaxed));
            (sched, g.callback_depth.load(Relaxed), (*machine).system_sp.load(Relaxed))
        };
        let before = state();
        let caught =
            std::panic::catch_unwind(|| unsafe { asm::callback(goroutine, nested, depth) });
        assert_eq!(state(), before);
        assert_eq!(before.1, 0);
        *caught.unwrap_err().downcast::<usize>().unwrap()
    }
    unsafe extern "C-unwind" fn managed(_g: usize, depth: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), depth) + 1 }
    }
    assert_eq!(on_goroutine(managed, 4), (100, 0, 4));
}

unsafe extern "C" {
    fn _Unwind_Backtrace(
        f: extern "C" fn(*mut c_void, *mut c_void) -> i32,
        argument: *mut c_void,
    ) -> i32;
}

extern "C" fn record(context: *mut c_void, argument: *mut c_void) -> i32 {
    unsafe { (*argument.cast::<Vec<usize>>()).push(unwinding::context_pc(context)) };
    0
}

static SEEN: Mutex<Vec<usize>> = Mutex::new(Vec::new());

unsafe extern "C-unwind" fn backtrace(_a: *mut c_void, _b: usize) -> usize {
    let mut seen = Vec::new();
    unsafe { _Unwind_Backtrace(record, (&raw mut seen).cast()) };
    *SEEN.lock().unwrap() = seen;
    5
}

#[test]
fn the_system_unwinder_walks_through_stubs_to_the_oldest_frame() {
    unsafe extern "C-unwind" fn leaf(_argument: usize) -> usize {
        unsafe { asm::call_system(backtrace, std::ptr::null_mut(), 0) }
    }
    unsafe extern "C-unwind" fn rec(depth: usize) -> usize {
        if depth == 0 {
            return unsafe { leaf(0) };
        }
        unsafe { behind_barrier(30 + depth, rec, depth - 1) }
    }
    unsafe extern "C-unwind" fn managed(_g: usize, depth: usize) -> usize {
        unsafe { rec(depth) }
    }
    assert_eq!(on_goroutine(managed, 4), (5, 4, 0));
    let mut seen = SEEN.lock().unwrap().clone();
    seen.retain(|&ip| ip != 0); // libgcc reports the undefined caller of the oldest frame as 0
    let stubs: Vec<_> = seen.iter().filter_map(|&ip| barrier::index_of(ip)).collect();
    assert_eq!(stubs, [31, 32, 33, 34]);
    assert!(
        asm::entry_range().contains(seen.last().unwrap()),
        "ends at goroutine_entry: {seen:x?}"
    );
}

/// Return slots that a walk has found hijacked, each with the index of its stub.
type Slots = Vec<(*mut usize, usize)>;

/// The stub at which a walk stands, and its slot: that is in the frame that returns to it.
unsafe fn slot_at(context: *mut c_void) -> Option<(*mut usize, usize)> {
    let index = barrier::index_of(unsafe { unwinding::context_pc(context) })?;
    let above = unsafe { unwinding::context_sp(context) } as *mut usize;
    let mut slots = (1..16).map(|words| above.wrapping_sub(words));
    let slot = slots.find(|slot| unsafe { **slot } == barrier::hijacked_word(index));
    Some((slot.expect("a slot"), index))
}

/// Notes the slots, and removes the barriers while the walk stands at their stubs: libgcc then
/// finds in a slot what it has not looked up.
extern "C" fn remove(context: *mut c_void, slots: *mut c_void) -> i32 {
    unsafe {
        if let Some((slot, index)) = slot_at(context) {
            *slot = barrier::saved(index).load(Relaxed);
            (*slots.cast::<Slots>()).push((slot, index));
        }
    }
    0
}

/// Walks from here to the oldest frame, and removes each barrier when the walk has come to it.
/// Returns the slots.
fn remove_barriers_by_a_walk() -> Slots {
    let mut slots = Slots::new();
    unsafe { _Unwind_Backtrace(remove, (&raw mut slots).cast()) };
    slots
}

#[test]
fn a_walk_goes_on_where_the_barrier_at_which_it_stands_is_taken_away() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
        let removed = remove_barriers_by_a_walk().len();
        let mut seen: Vec<usize> = Vec::new();
        unsafe { _Unwind_Backtrace(record, (&raw mut seen).cast()) };
        assert!(!seen.iter().any(|&ip| barrier::index_of(ip).is_some()), "no stub is left");
        removed
    }
    unsafe extern "C-unwind" fn rec<const OWN: bool>(depth: usize) -> usize {
        match depth {
            0 if OWN => unsafe { native(std::ptr::null_mut(), 0) },
            0 => unsafe { asm::call_system(native, std::ptr::null_mut(), 0) },
            _ => unsafe { behind_barrier(40 + depth, rec::<OWN>, depth - 1) },
        }
    }
    unsafe extern "C-unwind" fn managed<const OWN: bool>(_g: usize, depth: usize) -> usize {
        unsafe { rec::<OWN>(depth) }
    }
    assert_eq!(on_goroutine(managed::<false>, 4), (4, 0, 0));
    assert_eq!(on_native_stack_with(u32::MAX, managed::<true>, 4), (4, 0, 0));
}

#[test]
fn a_panic_finds_its_handler_though_barriers_come_and_go_between_its_phases() {
    /// Runs in phase 2, when the handler has been found.
    struct Between {
        slots: Slots,
        come: bool,
    }
    impl Drop for Between {
        fn drop(&mut self) {
            if !self.come {
                assert_eq!(remove_barriers_by_a_walk().len(), DEPTH);
            }
            for (slot, index) in self.slots.drain(..) {
                unsafe { *slot = barrier::hijacked_word(index) };
            }
        }
    }
    const DEPTH: usize = 3;
    unsafe extern "C-unwind" fn native(_a: *mut c_void, come: usize) -> usize {
        let slots = if come != 0 { remove_barriers_by_a_walk() } else { Slots::new() };
        let _between = Between { slots, come: come != 0 };
        std::panic::resume_unwind(Box::new(99usize))
    }
    static COME: AtomicUsize = AtomicUsize::new(0);
    unsafe extern "C-unwind" fn rec(depth: usize) -> usize {
        match depth {
            0 => unsafe { asm::call_system(native, std::ptr::null_mut(), COME.load(Relaxed)) },
            _ => unsafe { behind_barrier(50 + depth, rec, depth - 1) },
        }
    }
    unsafe extern "C-unwind" fn managed(_g: usize, _argument: usize) -> usize {
        let caught = std::panic::catch_unwind(|| unsafe { behind_barrier(50, rec, DEPTH - 1) });
        *caught.unwrap_err().downcast::<usize>().unwrap()
    }
    for (come, leapfrogged) in [(0, 0), (1, DEPTH)] {
        COME.store(come, Relaxed);
        assert_eq!(on_goroutine(managed, 0), (99, 0, leapfrogged), "they come: {come}");
    }
}
