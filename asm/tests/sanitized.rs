//! What the sanitizers know of two stacks: instrumented code on a goroutine's stack, as on one that
//! does not move, and native code below it. Built and run by `tests/sanitizers`.
#![cfg(any(stackmark_asan, stackmark_tsan))]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, ManagedFn, layout::*};
use std::ffi::c_void;
use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};
use std::process::{Command, Output};
use std::sync::atomic::Ordering::Relaxed;

type Entry = unsafe extern "C-unwind" fn(*mut GoroutineHeader, usize) -> usize;

unsafe extern "C-unwind" fn on_exit(_goroutine: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

fn goroutine(stack: &mut [u128], entry: Entry, argument: usize) -> GoroutineHeader {
    let goroutine = GoroutineHeader::new();
    let bounds = stack.as_mut_ptr_range();
    goroutine.stack_lo.store(bounds.start as usize, Relaxed);
    goroutine.stack_hi.store(bounds.end as usize, Relaxed);
    goroutine.entry.store(entry as *const () as usize, Relaxed);
    goroutine.start_arg.store(argument, Relaxed);
    goroutine.on_exit.store(on_exit as *const () as usize, Relaxed);
    goroutine
}

/// Runs a goroutine until it leaves for the `leaves + 1`st time.
fn run(entry: Entry, argument: usize, leaves: usize) -> usize {
    let mut stack = vec![0u128; 1 << 16];
    let mut machine = MachineHeader::new();
    let mut goroutine = goroutine(&mut stack, entry, argument);
    unsafe {
        asm::prepare(&goroutine);
        asm::set_current(&mut machine);
        for _ in 0..leaves {
            asm::run(&mut machine, &mut goroutine);
            use_locals(100);
        }
        let result = asm::run(&mut machine, &mut goroutine);
        asm::set_current(std::ptr::null_mut());
        result
    }
}

/// Frames with locals that have an address, and a panic: frames left other than by a return make
/// the sanitizer clear the stack below them and free what belongs to frames that it takes for gone.
#[inline(never)]
fn use_locals(n: usize) -> usize {
    let mut local = [n; 16];
    let caught = catch_unwind(|| {
        black_box(&mut [n; 16]);
        resume_unwind(Box::new(n))
    });
    assert!(caught.is_err());
    black_box(&mut local);
    if n == 0 { 0 } else { use_locals(n - 1) + local[15] }
}

const SUM: usize = 100 * 101 / 2;

unsafe extern "C-unwind" fn native_with_locals(local: *mut c_void, _b: usize) -> usize {
    unsafe { (*(local as *mut [usize; 16]))[3] += 1 };
    use_locals(100)
}

unsafe extern "C-unwind" fn parks(_a: *mut c_void, b: usize) -> usize {
    let mut local = [b; 16];
    black_box(&mut local);
    unsafe { asm::leave(asm::current(), local[7]) }
}

unsafe extern "C-unwind" fn calls_back(local: *mut c_void, _b: usize) -> usize {
    unsafe {
        let goroutine = (*asm::current()).goroutine.load(Relaxed) as *mut GoroutineHeader;
        let mut own = [1usize; 16];
        black_box(&mut own);
        let sum =
            asm::callback(goroutine, managed_young as ManagedFn, local as usize) + use_locals(100);
        black_box(&mut own);
        sum + own[2] - 1
    }
}

unsafe extern "C-unwind" fn managed_young(older: usize) -> usize {
    let mut local = [0usize; 16];
    black_box(&mut local);
    unsafe {
        (*(older as *mut [usize; 16]))[3] += 1;
        let sum =
            asm::call_system(native_with_locals, local.as_mut_ptr().cast(), 0) + use_locals(100);
        sum + local[3] - 1
    }
}

/// Calls out, is called back, parks; its own locals are looked at after each.
unsafe extern "C-unwind" fn managed(_goroutine: *mut GoroutineHeader, argument: usize) -> usize {
    let mut local = [argument; 16];
    let at: *mut c_void = black_box(local.as_mut_ptr()).cast();
    unsafe {
        let mut sum = asm::call_system(native_with_locals, at, 0);
        assert_eq!(black_box(local)[3], argument + 1);
        sum += asm::call_system(calls_back, at, 0);
        assert_eq!(black_box(local)[3], argument + 2);
        asm::call_system(parks, at, 1);
        assert_eq!(black_box(local)[3], argument + 2);
        sum += use_locals(100);
        asm::call_system(parks, at, 1);
        sum + black_box(local)[3]
    }
}

/// ThreadSanitizer has room for 65536 functions that have been entered and not left.
#[cfg(stackmark_tsan)]
#[test]
fn frames_that_a_goroutine_drops_when_it_parks_are_forgotten() {
    unsafe extern "C-unwind" fn parks_often(
        _goroutine: *mut GoroutineHeader,
        times: usize,
    ) -> usize {
        for i in 0..times {
            unsafe { asm::call_system(parks, std::ptr::null_mut(), i) };
        }
        times
    }
    let mut stack = vec![0u128; 1 << 12];
    let mut machine = MachineHeader::new();
    let mut goroutine = goroutine(&mut stack, parks_often, 100_000);
    unsafe {
        asm::prepare(&goroutine);
        asm::set_current(&mut machine);
        for i in 0..100_000 {
            assert_eq!(asm::run(&mut machine, &mut goroutine), i);
        }
        assert_eq!(asm::run(&mut machine, &mut goroutine), 100_000);
        asm::set_current(std::ptr::null_mut());
    }
}

/// Runs one of the ignored tests in a process of its own.
fn in_a_process(name: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture"]).output().unwrap()
}

#[test]
#[ignore = "run by the test below"]
fn two_stacks() {
    assert_eq!(run(managed, 5, 2), 5 * SUM + 7);
}

/// Without what the assembly announces, the frames on the goroutine's stack are taken for ones that
/// are gone, and their locals for used after a return; and the sanitizer warns that it does not
/// know the stack that is to be cleared.
#[test]
fn frames_of_both_stacks_are_known_across_switches() {
    let output = in_a_process("two_stacks");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("WARNING"), "{text}");
}

/// Planted bugs.
#[cfg(stackmark_asan)]
mod planted {
    use super::*;

    unsafe extern "C-unwind" fn uses_after_free(_a: *mut c_void, _b: usize) -> usize {
        let freed = black_box(Box::into_raw(Box::new(7usize)));
        unsafe {
            drop(Box::from_raw(freed));
            freed.read_volatile()
        }
    }

    unsafe extern "C-unwind" fn stores_beyond(_a: *mut c_void, b: usize) -> usize {
        let mut local = [0usize; 4];
        unsafe {
            black_box(local.as_mut_ptr()).add(b).write_volatile(1);
        }
        black_box(local)[0]
    }

    unsafe extern "C-unwind" fn calls_what_uses_after_free(
        _goroutine: *mut GoroutineHeader,
        _argument: usize,
    ) -> usize {
        unsafe { asm::call_system(uses_after_free, std::ptr::null_mut(), 0) }
    }

    unsafe extern "C-unwind" fn calls_what_stores_beyond(
        _goroutine: *mut GoroutineHeader,
        argument: usize,
    ) -> usize {
        unsafe { asm::call_system(stores_beyond, std::ptr::null_mut(), argument) }
    }

    #[test]
    #[ignore = "run by the test below"]
    fn use_after_free() {
        run(calls_what_uses_after_free, 0, 0);
    }

    #[test]
    #[ignore = "run by the test below"]
    fn store_beyond() {
        run(calls_what_stores_beyond, 4, 0);
    }

    #[test]
    fn bugs_of_native_code_are_caught() {
        for (name, report) in [
            ("planted::use_after_free", "heap-use-after-free"),
            ("planted::store_beyond", "stack-buffer-overflow"),
        ] {
            let output = in_a_process(name);
            let text = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{name} has not been caught");
            assert!(text.contains(&format!("AddressSanitizer: {report}")), "{name}: {text}");
        }
    }
}
