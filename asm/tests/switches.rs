//! Switching stacks: calls out and callbacks in, nested, while the goroutine's stack moves between
//! them.
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, layout::*};
use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;

mod arch;

arch::assembly!("switches.s");

unsafe extern "C-unwind" {
    fn managed_entry(goroutine: *mut GoroutineHeader, argument: usize) -> usize;
    fn managed_young(argument: usize) -> usize;
    fn managed_switcher(goroutine: *mut GoroutineHeader, n: usize) -> usize;
    fn managed_switcher_back(n: usize) -> usize;
}

thread_local! {
    /// How often this thread's test has moved a stack; the tests of this file run side by side.
    static MOVES: Cell<usize> = const { Cell::new(0) };
}

/// Moves the goroutine's stack to fresh memory, as a collector would, and poisons the old one.
unsafe fn move_stack(goroutine: &GoroutineHeader) {
    MOVES.set(MOVES.get() + 1);
    let (old_hi, sp) = (goroutine.stack_hi.load(Relaxed), goroutine.sched.sp.load(Relaxed));
    let used = old_hi - sp;
    let new = Box::leak(vec![0u128; 1024].into_boxed_slice());
    let new_hi = new.as_mut_ptr_range().end as usize;
    unsafe {
        std::ptr::copy_nonoverlapping(sp as *const u8, (new_hi - used) as *mut u8, used);
        std::ptr::write_bytes(sp as *mut u8, 0xdd, used);
    }
    goroutine.stack_hi.store(new_hi, Relaxed);
    goroutine.sched.sp.store(new_hi - used, Relaxed);
}

unsafe fn goroutine() -> &'static GoroutineHeader {
    unsafe { &*((*asm::current()).goroutine.load(Relaxed) as *const GoroutineHeader) }
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn native_old(_a: *mut c_void, b: usize) -> usize {
    let g = unsafe { goroutine() };
    assert_eq!(g.sched.pc.load(Relaxed), asm::resume_pc());
    let mut sum = 0;
    for round in 0..3 {
        let fp = g.sched.fp.load(Relaxed);
        sum += unsafe { asm::callback(std::ptr::from_ref(g).cast_mut(), managed_young, b + round) };
        assert_eq!(
            g.sched.pc.load(Relaxed),
            asm::resume_pc(),
            "the return slot went back to sched.pc"
        );
        assert_eq!(
            g.sched.fp.load(Relaxed),
            fp,
            "the frame pointer of the caller, as call_system saved it"
        );
        assert_eq!(g.callback_depth.load(Relaxed), 0);
    }
    sum
}

#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn native_young(_a: *mut c_void, b: usize) -> usize {
    unsafe {
        move_stack(goroutine());
        asm::stack_moved(&*asm::current(), goroutine());
    }
    // Elsewhere the managed code here has no unwind information of the system's form.
    #[cfg(target_arch = "x86_64")]
    assert!(walks_to_the_oldest_frame());
    if b > 1000 {
        // A callback inside a callback.
        return unsafe {
            asm::callback(std::ptr::from_ref(goroutine()).cast_mut(), managed_young, b - 1000)
        };
    }
    b
}

/// Whether the system's unwinder comes from here to the goroutine's oldest frame.
#[cfg(target_arch = "x86_64")]
fn walks_to_the_oldest_frame() -> bool {
    unsafe extern "C" {
        fn _Unwind_Backtrace(
            f: extern "C" fn(*mut c_void, *mut c_void) -> i32,
            argument: *mut c_void,
        ) -> i32;
    }
    extern "C" fn look(context: *mut c_void, found: *mut c_void) -> i32 {
        let pc = unsafe { asm::unwinding::context_pc(context) };
        unsafe { *found.cast::<bool>() |= asm::entry_range().contains(&pc) };
        0
    }
    let mut found = false;
    unsafe { _Unwind_Backtrace(look, (&raw mut found).cast()) };
    found
}

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

/// What `managed_young(a)` returns: the kept registers, and the callback inside it.
fn young(a: usize) -> usize {
    let kept = (1..=arch::KEPT).map(|i| a + i + 20).sum::<usize>();
    kept + if a > 1000 { young(a - 1000) } else { a }
}

#[test]
fn calls_out_return_to_where_the_stack_has_moved() {
    let mut stack = vec![0u128; 1024];
    let mut machine = MachineHeader::new();
    let g = GoroutineHeader::new();
    g.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
    g.entry.store(managed_entry as *const () as usize, Relaxed);
    g.on_exit.store(on_exit as *const () as usize, Relaxed);
    for argument in [1usize, 3000] {
        g.start_arg.store(argument, Relaxed);
        MOVES.set(0);
        // SAFETY: headers and stacks outlive the run and are ours alone.
        let result = unsafe {
            asm::prepare(&g);
            asm::set_current(&mut machine);
            asm::run(&mut machine, std::ptr::from_ref(&g).cast_mut())
        };
        let want = (0..3).map(|round| young(argument + round)).sum::<usize>()
            + (1..=arch::KEPT).map(|i| argument + i + 10).sum::<usize>();
        assert_eq!(result, want);
        assert_eq!(MOVES.get(), if argument == 1 { 3 } else { 3 + 4 + 4 });
        assert_eq!(machine.goroutine.load(Relaxed), 0);
        assert_eq!(g.start_arg.load(Relaxed), 0, "the start argument is no root any more");
    }
    unsafe { asm::set_current(std::ptr::null_mut()) };
}

#[test]
fn a_goroutine_switches_out_and_goes_on_where_its_stack_has_moved() {
    const N: usize = 5;
    let mut stack = vec![0u128; 1024];
    let (mut machine, g) = (MachineHeader::new(), GoroutineHeader::new());
    g.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
    g.entry.store(managed_switcher as *const () as usize, Relaxed);
    g.start_arg.store(N, Relaxed);
    g.on_exit.store(on_exit as *const () as usize, Relaxed);
    unsafe {
        asm::prepare(&g);
        asm::set_current(&mut machine);
    }
    let mut want = 0;
    // More than there are registers, so that each of them holds something across the switches.
    let mut kept: [usize; 8] = std::array::from_fn(std::hint::black_box);
    for n in (1..=N).rev() {
        // SAFETY: headers and stacks outlive the run and are ours alone.
        let value = unsafe { asm::run(&mut machine, std::ptr::from_ref(&g).cast_mut()) };
        assert_eq!(value, n);
        kept.iter_mut().for_each(|word| *word += value);
        assert_eq!(machine.goroutine.load(Relaxed), 0);
        assert!(
            asm::system_call_range().contains(&(g.sched.pc.load(Relaxed) - 1)),
            "a frame of a call out for walks"
        );
        assert_eq!(g.sched.fp.load(Relaxed), n + 100);
        unsafe { move_stack(&g) };
        g.resume_value.store(1000 * n, Relaxed);
        want += 1000 * n + n + 100 + n + 200;
    }
    let result = unsafe { asm::run(&mut machine, std::ptr::from_ref(&g).cast_mut()) };
    assert_eq!(result, want);
    assert_eq!(kept, std::array::from_fn(|i| i + N * (N + 1) / 2));
    unsafe { asm::set_current(std::ptr::null_mut()) };
}

#[test]
fn a_goroutine_in_a_callback_does_not_switch_out() {
    unsafe extern "C-unwind" fn native(_a: *mut c_void, n: usize) -> usize {
        unsafe {
            asm::callback(std::ptr::from_ref(goroutine()).cast_mut(), managed_switcher_back, n)
        }
    }
    unsafe extern "C-unwind" fn managed(_g: usize, n: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), n) }
    }
    let mut stack = vec![0u128; 4096];
    let (mut machine, g) = (MachineHeader::new(), GoroutineHeader::new());
    g.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
    g.entry.store(managed as *const () as usize, Relaxed);
    g.start_arg.store(2, Relaxed);
    g.on_exit.store(on_exit as *const () as usize, Relaxed);
    let result = unsafe {
        asm::prepare(&g);
        asm::set_current(&mut machine);
        asm::run(&mut machine, std::ptr::from_ref(&g).cast_mut())
    };
    assert_eq!(result, (2 + 102 + 202) + (1 + 101 + 201));
    unsafe { asm::set_current(std::ptr::null_mut()) };
}

#[test]
fn the_top_of_the_stack_is_told_to_native_code() {
    unsafe extern "C-unwind" fn managed(_g: usize, _argument: usize) -> usize {
        unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
            unsafe { asm::stackmark_stack_top() }
        }
        unsafe { asm::call_system(native, std::ptr::null_mut(), 0) }
    }
    let mut stack = vec![0u128; 4096];
    let (mut machine, g) = (MachineHeader::new(), GoroutineHeader::new());
    let hi = stack.as_mut_ptr_range().end as usize;
    g.stack_hi.store(hi, Relaxed);
    g.entry.store(managed as *const () as usize, Relaxed);
    g.on_exit.store(on_exit as *const () as usize, Relaxed);
    unsafe {
        asm::prepare(&g);
        asm::set_current(&mut machine);
        assert_eq!(asm::run(&mut machine, std::ptr::from_ref(&g).cast_mut()), hi);
        asm::set_current(std::ptr::null_mut());
    }
}
