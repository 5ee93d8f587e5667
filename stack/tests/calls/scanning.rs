//! Scans of stacks with callbacks in them.

use crate::threads::{CHILD, child};
use crate::{Setting, rec_result};
use stackmark_stack::{BarrierMode, Caller, Config, HijackCallbacks};

/// A call back in which a cycle scans, then a return through it and another one.
fn scan_in_a_callback(s: &Setting) -> usize {
    s.run(3, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        let nested = |n| {
            s.call_back_to("inner_unguarded", n, &|_| {
                s.scan();
                // SAFETY: as above.
                unsafe { Caller::current() }
                    .foreign(|| s.call_back_to("inner_unguarded", 1, &|_| 1))
            })
        };
        caller.foreign(|| nested(2) + nested(4))
    })
}

#[test]
fn no_stub_gets_from_a_callbacks_slot_into_the_scheduler_state() {
    for scan_few_frames in [false, true] {
        let config =
            Config { barriers: BarrierMode::EveryFrame, scan_few_frames, ..Config::default() };
        let s = Setting::new(config);
        let once = |n| rec_result(n, rec_result(1, 1));
        assert_eq!(scan_in_a_callback(&s), crate::guarded_result(rec_result(3, once(2) + once(4))));
        s.check_at_end();
    }
}

#[test]
fn without_the_exclusion_of_callbacks_the_assertion_says_so() {
    const NAME: &str = "scanning::without_the_exclusion_of_callbacks_the_assertion_says_so";
    if std::env::var_os(CHILD).is_none() {
        let (text, status) = child(NAME, "hijack");
        assert!(text.contains("a callback's return slot holds a place in call_system"), "{text}");
        assert_ne!(status, Some(0), "{text}");
        return;
    }
    // SAFETY: the assertion ends the process in the callback.
    let hijack_callbacks = unsafe { HijackCallbacks::on() };
    let config =
        Config { barriers: BarrierMode::EveryFrame, hijack_callbacks, ..Config::default() };
    let s = Setting::new(config);
    s.run(1, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        caller.foreign(|| {
            s.call_back_to("inner_unguarded", 2, &|_| {
                s.scan();
                0
            })
        })
    });
}
