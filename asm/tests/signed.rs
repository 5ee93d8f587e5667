//! Barriers in functions that sign their return addresses: the word in the slot is signed as well.
//! On processors that do not sign it is the plain word.
// Other processors do not sign.
#![cfg(target_arch = "aarch64")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, barrier, layout::*};
use std::cell::Cell;
use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod arch;

arch::assembly!("barrier.s");

// Functions without a landing pad, and with one.
std::arch::global_asm!(
    ".type without_landing_pad,@function",
    "without_landing_pad: ret",
    ".type with_landing_pad,@function",
    "with_landing_pad: bti c",
    "ret",
);
unsafe extern "C" {
    safe fn without_landing_pad();
    safe fn with_landing_pad();
}

type Function = unsafe extern "C-unwind" fn(usize) -> usize;
unsafe extern "C-unwind" {
    fn hijack_signed(f: Function, argument: usize, word: usize, saved: *const AtomicUsize)
    -> usize;
}
unsafe extern "C" {
    fn _Unwind_Backtrace(
        f: extern "C" fn(*mut c_void, *mut c_void) -> i32,
        argument: *mut c_void,
    ) -> i32;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

thread_local! {
    static HITS: Cell<usize> = const { Cell::new(0) };
    static LEAPFROGGED: Cell<usize> = const { Cell::new(0) };
}

unsafe extern "C" fn on_hit(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    HITS.set(HITS.get() + 1);
    unsafe { *slot = barrier::saved(index).load(Relaxed) };
}

unsafe extern "C" fn on_leapfrog(_m: *mut MachineHeader, _slot: *mut usize, _index: usize) {
    LEAPFROGGED.set(LEAPFROGGED.get() + 1);
}

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

/// Runs `f(argument)` as managed code. Returns its result, the hits, and the barriers that an
/// exception has passed.
fn on_goroutine(
    f: unsafe extern "C-unwind" fn(usize, usize) -> usize,
    argument: usize,
) -> [usize; 3] {
    let mut stack = vec![0u128; 1 << 16];
    let (mut machine, goroutine) = (MachineHeader::new(), &mut GoroutineHeader::new());
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    machine.on_leapfrog.store(on_leapfrog as *const () as usize, Relaxed);
    goroutine.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
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
    [result, HITS.take(), LEAPFROGGED.take()]
}

unsafe fn behind_barrier(index: usize, f: Function, argument: usize) -> usize {
    unsafe { hijack_signed(f, argument, barrier::hijacked_word(index), barrier::saved(index)) }
}

#[test]
fn a_signed_stub_is_returned_through_and_walked_through() {
    extern "C" fn note(context: *mut c_void, seen: *mut c_void) -> i32 {
        unsafe { (*seen.cast::<Vec<usize>>()).push(_Unwind_GetIP(context)) };
        0
    }
    unsafe extern "C-unwind" fn native(seen: *mut c_void, _b: usize) -> usize {
        unsafe { _Unwind_Backtrace(note, seen) };
        5
    }
    unsafe extern "C-unwind" fn leaf(seen: usize) -> usize {
        unsafe { asm::call_system(native, seen as *mut c_void, 0) }
    }
    unsafe extern "C-unwind" fn middle(seen: usize) -> usize {
        unsafe { behind_barrier(40, leaf, seen) }
    }
    unsafe extern "C-unwind" fn managed(_g: usize, seen: usize) -> usize {
        unsafe { behind_barrier(41, middle, seen) }
    }
    let mut seen: Vec<usize> = Vec::new();
    assert_eq!(on_goroutine(managed, &raw mut seen as usize), [5, 2, 0]);
    let stubs: Vec<_> = seen.iter().filter_map(|pc| barrier::index_of(*pc)).collect();
    assert_eq!(stubs, [40, 41]);
    seen.retain(|pc| *pc != 0);
    assert!(asm::entry_range().contains(seen.last().expect("frames")), "{seen:x?}");
}

#[test]
fn an_exception_passes_signed_stubs() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
        std::panic::resume_unwind(Box::new(99usize))
    }
    unsafe extern "C-unwind" fn nested(depth: usize) -> usize {
        match depth {
            0 => unsafe { asm::call_system(native, std::ptr::null_mut(), 0) },
            _ => unsafe { behind_barrier(50 + depth, nested, depth - 1) },
        }
    }
    unsafe extern "C-unwind" fn managed(_g: usize, depth: usize) -> usize {
        let caught = std::panic::catch_unwind(|| unsafe { nested(depth) });
        *caught.unwrap_err().downcast::<usize>().unwrap()
    }
    assert_eq!(on_goroutine(managed, 3), [99, 0, 3]);
}

/// The control of all tests that run where it is not skipped.
#[test]
fn a_processor_that_checks_refuses_a_jump_without_a_landing_pad() {
    static REFUSED_AT: AtomicUsize = AtomicUsize::new(0);
    /// The two bits that say that the last instruction was a jump.
    const BTYPE: u64 = 3 << 10;
    /// Goes on behind the call.
    extern "C" fn on_refusal(_signal: i32, _info: *mut c_void, context: *mut libc::ucontext_t) {
        let state = unsafe { &mut (*context).uc_mcontext };
        REFUSED_AT.store(state.pc as usize, Relaxed);
        state.pc = state.regs[30];
        state.pstate &= !BTYPE;
    }
    if std::env::var_os("STACKMARK_TEST_GUARDED").is_none() {
        eprintln!("skipped: built without landing pads");
        return;
    }
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_refusal as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    assert_eq!(unsafe { libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()) }, 0);
    let is_refused_at = |address: usize| {
        let function = unsafe { std::mem::transmute::<usize, extern "C" fn()>(address) };
        black_box(function)();
        REFUSED_AT.swap(0, Relaxed) == address
    };
    assert!(!is_refused_at(with_landing_pad as *const () as usize));
    assert!(is_refused_at(without_landing_pad as *const () as usize));
    // Where a return through a stub goes on, which is no place for a jump.
    assert!(is_refused_at(barrier::hijacked_word(40)));
}

#[test]
fn a_return_address_that_is_signed_for_another_frame_is_refused() {
    let (address, cfas) = (on_hit as *const () as usize, (1..=20).map(|i| black_box(i << 16)));
    let signed = cfas.clone().map(|cfa| (asm::sign_return(address, cfa), cfa));
    if signed.clone().all(|(signed, _)| signed == address) {
        eprintln!("skipped: this processor does not sign return addresses");
        return;
    }
    // A signature may have seven bits: one frame's is now and then another's, too.
    let is_refused = |(signed, cfa)| {
        assert_eq!(asm::authenticate_return(signed, cfa), address);
        asm::authenticate_return(signed, cfa + 16) != address
    };
    assert!(signed.filter(|frame| is_refused(*frame)).count() > 10);
}
