//! Frames left for an older one: [`Caller::unwind_to`], over managed frames and over native ones.

use crate::native::Library;
use crate::{Object, Setting, configs, guarded_result, landed_result, rec_result};
use parking_lot::Mutex;
use stackmark_stack::{Caller, Goroutine, Status, UnwindToError};
use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

const WORD: usize = size_of::<usize>();

#[test]
fn a_landing_pad_gets_its_values_and_its_callee_saved_registers() {
    for config in configs() {
        let s = Setting::new(config);
        for n in [0, 1, 10, 1000] {
            let result = s.run(n, &|_| {
                s.scan();
                s.leave_to(0, [5, 6])
            });
            assert_eq!(result, landed_result([5, 6]), "{n} frames");
        }
        let counters = s.runtime.counters();
        assert_eq!(
            counters.leapfrogged.load(Relaxed) + counters.hit.load(Relaxed),
            counters.placed.load(Relaxed)
        );
        s.check_at_end();
    }
}

#[test]
fn the_world_stops_while_a_goroutine_looks_for_the_frame_that_it_leaves_others_for() {
    const FRAMES: usize = 200_000;
    let s = Setting::new(configs()[0].clone());
    let (runtime, leaving) = (s.runtime.clone(), Mutex::new(None::<Arc<Goroutine>>));
    let (seen, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                if leaving.lock().is_none() {
                    std::thread::yield_now();
                    continue;
                }
                runtime.stop_world(|_| {
                    // The goroutine is among the frames: where it lands, it makes no foreign call.
                    let goroutine = leaving.lock();
                    let foreign = goroutine.as_ref().is_some_and(|g| g.status() == Status::Foreign);
                    seen.fetch_or(foreign, Relaxed);
                });
            }
        });
        // Each time the walk takes some milliseconds. The other thread may not run in all of them.
        for _ in 0..1000 {
            let result = s.run(FRAMES, &|_| {
                // SAFETY: used here alone.
                *leaving.lock() = Some(unsafe { Caller::current() }.handle());
                s.leave_to(0, [1, 2])
            });
            *leaving.lock() = None;
            assert_eq!(result, landed_result([1, 2]));
            if seen.load(Relaxed) {
                break;
            }
        }
        over.store(true, Relaxed);
    });
    assert!(seen.load(Relaxed), "no stop of the world came through while frames were left");
    s.check_at_end();
}

#[test]
fn frames_are_left_from_within_a_foreign_call() {
    for config in configs() {
        let s = Setting::new(config);
        let result = s.run(20, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            caller.foreign(|| {
                s.scan_from_outside();
                assert_eq!(caller.goroutine().status(), Status::Foreign);
                s.leave_to(0, [1, 2])
            })
        });
        assert_eq!(result, landed_result([1, 2]));
        s.check_at_end();
    }
}

#[test]
fn a_frame_that_does_not_exist_is_an_error_and_nothing_changes() {
    let s = Setting::new(configs()[0].clone());
    let result = s.run(3, &|_| {
        // SAFETY: no frame is at these depths, so that the calls return.
        unsafe {
            let caller = Caller::current();
            let (depth, pad) = s.pads(caller)[0];
            for wrong in [depth + WORD, depth - WORD, 0, usize::MAX / 4] {
                let error = caller.unwind_to(wrong, pad, [0, 0]);
                assert!(
                    matches!(error, UnwindToError::NoFrame { depth, .. } if depth == wrong),
                    "{error}"
                );
            }
            // The frame of call_system: there, but not managed.
            let mut first = None;
            let _ = caller.frames(|frame| {
                first = Some(frame.depth);
                std::ops::ControlFlow::Break(())
            });
            let error = caller.unwind_to(first.expect("a frame"), pad, [0, 0]);
            assert!(error.to_string().contains("no managed frame"), "{error}");
        }
        1
    });
    assert_eq!(result, guarded_result(rec_result(3, 1)));
}

/// Counts its own end.
struct Dropped<'a>(&'a AtomicUsize);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Calls back `depth` times, one inside the other, and leaves all of it from the innermost for
/// landing pad `pad`.
fn nest(s: &Setting, depth: usize, pad: usize, dropped: &AtomicUsize) -> usize {
    if depth == 0 {
        s.scan();
        s.leave_to(pad, [3, 4]);
    }
    // SAFETY: used here alone.
    let caller = unsafe { Caller::current() };
    let _counted = Dropped(dropped);
    let act = move |_: &Object<'_>| nest(s, depth - 1, pad, dropped);
    caller.foreign(|| s.call_back(5, &act))
}

#[test]
fn callbacks_are_left_and_native_destructors_run() {
    for config in configs() {
        let s = Setting::new(config);
        for depth in 0..4 {
            let dropped = AtomicUsize::new(0);
            // The outermost landing pad: every callback is left.
            let result = s.run(2, &|_| nest(&s, depth, depth, &dropped));
            assert_eq!(result, landed_result([3, 4]), "{depth} callbacks");
            assert_eq!(dropped.load(Relaxed), depth);
        }
        // A landing pad inside of a callback: the frames older than it return as ever.
        let dropped = AtomicUsize::new(0);
        let result = s.run(2, &|_| nest(&s, 3, 1, &dropped));
        let returns = |inner| guarded_result(rec_result(5, inner));
        let expected = guarded_result(rec_result(2, returns(landed_result([3, 4]))));
        assert_eq!(result, expected, "the oldest callback returns");
        assert_eq!(dropped.load(Relaxed), 3);
        s.check_at_end();
    }
}

#[test]
fn callbacks_are_left_while_a_profiler_knows_the_images() {
    for config in configs() {
        let s = Setting::new(config);
        // The image's CFI leads from a callback to its native caller.
        s.runtime.code().refresh_images();
        s.runtime.code().snapshot().read_images().expect("the CFI of this process");
        for depth in 0..4 {
            let dropped = AtomicUsize::new(0);
            let result = s.run(2, &|_| nest(&s, depth, depth, &dropped));
            assert_eq!(
                (result, dropped.load(Relaxed)),
                (landed_result([3, 4]), depth),
                "{depth} callbacks"
            );
        }
        s.check_at_end();
    }
}

#[test]
fn go_8588_a_hundred_thousand_recoveries_across_a_callback_lose_nothing() {
    let s = Setting::new(configs()[1].clone());
    let machine = stackmark_stack::Machine::attach(&s.runtime).expect("a fresh thread");
    let stack = AtomicUsize::new(0);
    let round = || {
        let dropped = AtomicUsize::new(0);
        let result = s.run_on(&machine, 1, &|_| {
            // The system stack begins where it began the last time.
            stack.store(stackmark_stack::asm::stack_pointer(), Relaxed);
            nest(&s, 1, 1, &dropped)
        });
        assert_eq!(result, landed_result([3, 4]));
    };
    round();
    let (at, resident) = (stack.load(Relaxed), s.runtime.stack_bytes().resident);
    for _ in 0..100_000 {
        round();
    }
    assert_eq!(stack.load(Relaxed), at, "the system stack");
    assert_eq!(s.runtime.stack_bytes().resident, resident);
    // Far more barriers than there are stubs, and none was missing.
    let counters = s.runtime.counters();
    let [placed, hit, left] =
        [&counters.placed, &counters.hit, &counters.leapfrogged].map(|c| c.load(Relaxed));
    assert!(left > 100_000 && placed == hit + left, "{counters:?}");
    s.check_at_end();
}

#[test]
fn cxx_destructors_run_when_frames_are_left() {
    let Some(library) = Library::load("cxx.cc") else { return };
    type CallThrough = unsafe extern "C-unwind" fn(
        unsafe extern "C-unwind" fn(*mut c_void) -> usize,
        *mut c_void,
    ) -> usize;
    // SAFETY: the function's type in cxx.cc.
    let (call_through, destroyed) = unsafe {
        let f = library.function("call_through_destructor");
        let count = library.function("destroyed") as *const AtomicUsize;
        (std::mem::transmute::<*mut c_void, CallThrough>(f), &*count)
    };
    struct Through<'s>(&'s Setting);
    unsafe extern "C-unwind" fn back(through: *mut c_void) -> usize {
        // SAFETY: the test passes its own.
        let s = unsafe { &*(through as *const Through<'_>) }.0;
        s.call_back(4, &|_| {
            s.scan();
            s.leave_to(1, [8, 9])
        })
    }
    for config in configs() {
        let s = Setting::new(config);
        let before = destroyed.load(Relaxed);
        let result = s.run(2, &|_| {
            // SAFETY: used here alone.
            let caller = unsafe { Caller::current() };
            let through = Through(&s);
            // SAFETY: the C++ function calls back with what it is given.
            caller.foreign(|| unsafe { call_through(back, (&raw const through).cast_mut().cast()) })
        });
        assert_eq!(result, landed_result([8, 9]));
        assert_eq!(destroyed.load(Relaxed), before + 1);
        s.check_at_end();
    }
}
