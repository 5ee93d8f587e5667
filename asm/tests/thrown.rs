//! What the host does with exceptions that leave native code.
// Elsewhere they cross from one stack to the other by themselves.
#![cfg(windows)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, layout::*};
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static THROWN: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

unsafe extern "C-unwind" fn panics(_a: *mut c_void, _b: usize) -> usize {
    std::panic::resume_unwind(Box::new(99usize))
}

fn goroutine() -> *mut GoroutineHeader {
    unsafe { (*asm::current()).goroutine.load(Relaxed) as *mut GoroutineHeader }
}

/// Runs `managed` with a hook for exceptions.
fn run(
    managed: unsafe extern "C-unwind" fn(usize, usize) -> usize,
    on_thrown: ThrownFn,
) -> (usize, [usize; 4]) {
    let mut stack = vec![0u128; 1 << 14];
    let (mut machine, g) = (MachineHeader::new(), GoroutineHeader::new());
    machine.on_thrown.store(on_thrown as *const () as usize, Relaxed);
    g.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
    g.stack_lo.store(stack.as_ptr() as usize, Relaxed);
    g.entry.store(managed as *const () as usize, Relaxed);
    g.on_exit.store(on_exit as *const () as usize, Relaxed);
    let before = words();
    let result = unsafe {
        asm::prepare(&g);
        asm::set_current(&mut machine);
        let result = asm::run(&mut machine, std::ptr::from_ref(&g).cast_mut());
        asm::set_current(std::ptr::null_mut());
        result
    };
    assert_eq!(words()[..2], before[..2]);
    assert_eq!(words()[3], before[3]);
    (result, words())
}

/// The words of the thread's environment block that change with the stack.
fn words() -> [usize; 4] {
    let (list, base, limit, reserved): (usize, usize, usize, usize);
    unsafe {
        std::arch::asm!("mov {}, qword ptr gs:[0x0]", out(reg) list);
        std::arch::asm!("mov {}, qword ptr gs:[0x8]", out(reg) base);
        std::arch::asm!("mov {}, qword ptr gs:[0x10]", out(reg) limit);
        std::arch::asm!("mov {}, qword ptr gs:[0x1478]", out(reg) reserved);
    }
    [list, base, limit, reserved]
}

#[test]
fn the_host_ends_a_goroutine_whose_call_has_thrown() {
    unsafe extern "C-unwind" fn managed(_g: usize, _argument: usize) -> usize {
        unsafe { asm::call_system(panics, std::ptr::null_mut(), 0) }
    }
    unsafe extern "C-unwind" fn thrown(exception: *mut c_void, g: *mut GoroutineHeader) {
        assert!(!exception.is_null());
        assert_eq!(g, goroutine());
        unsafe { asm::leave(asm::current(), 77) }
    }
    assert_eq!(run(managed, thrown).0, 77);
}

#[test]
fn the_host_throws_on_where_a_callback_was_called() {
    unsafe extern "C-unwind" fn young(_argument: usize) -> usize {
        unsafe { asm::call_system(panics, std::ptr::null_mut(), 0) }
    }
    unsafe extern "C-unwind" fn native(_a: *mut c_void, _b: usize) -> usize {
        let caught = std::panic::catch_unwind(|| unsafe { asm::callback(goroutine(), young, 0) });
        let g = unsafe { &*goroutine() };
        assert_eq!(g.callback_depth.load(Relaxed), 0);
        assert_eq!(g.sched.pc.load(Relaxed), asm::resume_pc());
        *caught.unwrap_err().downcast::<usize>().unwrap()
    }
    unsafe extern "C-unwind" fn managed(_g: usize, _argument: usize) -> usize {
        unsafe { asm::call_system(native, std::ptr::null_mut(), 0) }
    }
    unsafe extern "C-unwind" fn throws_on(exception: *mut c_void) -> ! {
        unsafe extern "C-unwind" {
            fn _Unwind_RaiseException(exception: *mut c_void) -> i32;
        }
        unsafe { _Unwind_RaiseException(exception) };
        unreachable!("it is caught")
    }
    unsafe extern "C-unwind" fn thrown(exception: *mut c_void, g: *mut GoroutineHeader) {
        THROWN.fetch_add(1, Relaxed);
        // A host walks to the frame of the callback. Here it is above the return address in it.
        let sp = unsafe { (*g).sched.sp.load(Relaxed) };
        let words = (sp..).step_by(8).map(|at| unsafe { *(at as *const usize) });
        let returned = words.take(1000).position(|word| asm::callback_range().contains(&word));
        let frame = sp + 8 * (returned.expect("a return into the callback") + 1);
        unsafe { asm::leave_callback_by(throws_on, exception, frame) }
    }
    assert_eq!(run(managed, thrown).0, 99);
    assert_eq!(THROWN.load(Relaxed), 1);
}
