//! What Go's moving stacks met together with C, and no other file here is about; named for Go's
//! issue.

use crate::native::Library;
use crate::{Object, Setting, configs, guarded_result, header, rec_result, stack_size};
use stackmark_stack::unwind::FrameKind;
use stackmark_stack::{Caller, FrameAt, Word};
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::sync::atomic::Ordering::Relaxed;

type Callback = unsafe extern "C-unwind" fn(*mut c_void) -> usize;
type CallThrough = unsafe extern "C-unwind" fn(Callback, *mut c_void) -> usize;

/// The kinds of the goroutine's frames, youngest first, with the names of managed functions.
fn shape(s: &Setting) -> Vec<String> {
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    let snapshot = s.runtime.code().snapshot();
    let mut shape = Vec::new();
    let walked = caller.frames(|FrameAt { kind, pc, .. }| {
        shape.push(match kind {
            FrameKind::Managed => snapshot.function(pc - 1).expect("registered").name.to_owned(),
            kind => format!("{kind:?}"),
        });
        ControlFlow::Continue(())
    });
    walked.expect("a stack that can be walked");
    shape
}

#[test]
fn go_7978_a_walk_finds_its_frames_before_during_and_after_a_callback() {
    const OUTER: [&str; 6] = ["SystemCall", "rec", "rec", "guarded", "entry", "Entry"];
    for config in configs() {
        let s = Setting::new(config);
        s.run(1, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            s.scan();
            assert_eq!(shape(&s), OUTER);
            caller.foreign(|| {
                assert_eq!(shape(&s), OUTER);
                s.call_back(0, &|_| {
                    s.scan();
                    let inner = ["SystemCall", "rec", "guarded", "inner", "Callback"];
                    assert_eq!(shape(&s), [&inner[..], &OUTER].concat());
                    0
                });
                s.scan_from_outside();
                assert_eq!(shape(&s), OUTER);
            });
            s.scan();
            assert_eq!(shape(&s), OUTER);
            0
        });
        s.check_at_end();
    }
}

#[test]
fn go_69085_the_frame_pointer_of_a_call_out_moves_with_the_stack() {
    for config in configs() {
        let s = Setting::new(config);
        s.run(1, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            let header = header(caller.goroutine());
            let frame_pointer = || {
                (
                    header.stack_hi.load(Relaxed) - header.sched.fp.load(Relaxed),
                    header.stack_hi.load(Relaxed),
                )
            };
            let (depth, top) = frame_pointer();
            caller.foreign(|| s.call_back(3000, &|_| 1));
            let (depth_now, top_now) = frame_pointer();
            assert_ne!(top, top_now, "the stack has moved");
            assert_eq!(depth, depth_now);
            0
        });
        s.check_at_end();
    }
}

#[test]
fn go_10976_a_stack_does_not_shrink_during_a_foreign_call() {
    let s = Setting::new(configs()[0].clone());
    s.run(1, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        let size = || stack_size(caller.goroutine());
        caller.foreign(|| s.call_back(500, &|_| 1));
        let grown = size();
        caller.foreign(|| {
            s.scan_from_outside();
            s.scan_from_outside();
        });
        assert_eq!(size(), grown);
        0
    });
    s.check_at_end();
}

#[test]
fn a_stack_does_not_shrink_by_anothers_hand_while_its_thread_waits_in_a_callback() {
    let s = Setting::new(configs()[0].clone());
    // SAFETY: used here alone.
    let size = || stack_size(unsafe { Caller::current() }.goroutine());
    s.run(1, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        caller.foreign(|| s.call_back(500, &|_| 1));
        let grown = size();
        let waits = |_: &Object<'_>| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            std::thread::scope(|scope| {
                let parked = |goroutine| {
                    scope.spawn(|| {
                        s.scan_from_outside();
                        s.scan_from_outside();
                        s.runtime.ready(goroutine, Word::Plain(0));
                    });
                };
                // SAFETY: in a callback park returns here.
                unsafe { caller.park(parked) };
            });
            assert_eq!(size(), grown);
            1
        };
        caller.foreign(|| s.call_back(1, &waits));
        0
    });
    s.check_at_end();
}

fn call(s: &Setting, function: &str) -> Option<()> {
    struct Back<'s>(&'s Setting);
    unsafe extern "C-unwind" fn back(setting: *mut c_void) -> usize {
        // SAFETY: the test passes its own.
        let s = unsafe { &*(setting as *const Back<'_>) }.0;
        let act = |_: &Object<'_>| {
            s.scan();
            5
        };
        s.runtime.call_in(|_| s.call_back(2000, &act)).expect("in a foreign call")
    }
    let library = Library::load("stacks.c")?;
    // SAFETY: the functions of stacks.c have this type.
    let call_through =
        unsafe { std::mem::transmute::<*mut c_void, CallThrough>(library.function(function)) };
    let through = Back(s);
    let argument = &raw const through as usize;
    let result = s.run(3, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        // SAFETY: it calls back with what it is given.
        let once = || unsafe { call_through(back, argument as *mut c_void) };
        let result = caller.foreign(|| once().wrapping_add(once()));
        assert!(!caller.goroutine().in_callback());
        result
    });
    assert_eq!(result, guarded_result(rec_result(3, 2 * guarded_result(rec_result(2000, 5)))));
    s.check_at_end();
    Some(())
}

#[test]
#[cfg_attr(
    stackmark_tsan,
    ignore = "ThreadSanitizer finds the places to jump back to by their addresses in one stack"
)]
fn go_62130_a_callback_from_a_stack_that_c_has_made() {
    for config in configs() {
        let s = Setting::new(config);
        if call(&s, "on_another_stack").is_none() {
            return;
        }
    }
}

#[test]
fn go_9875_c_code_jumps_over_its_own_frames_after_a_callback() {
    for config in configs() {
        let s = Setting::new(config);
        if call(&s, "jumps_over_its_own_frame").is_none() {
            return;
        }
    }
}
