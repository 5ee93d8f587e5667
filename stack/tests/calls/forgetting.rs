//! Code that is forgotten, and what else looks at the frames of a goroutine that stands still.

use crate::Setting;
use compiler::Embedder;
use stackmark_stack::unwind::{Code, Function, Region};
use stackmark_stack::{Caller, Config, Machine, Runtime, RuntimeError, Status, UnregisterError};
use std::sync::Arc;

#[test]
fn regions_with_a_frame_on_a_stack_stay_registered() {
    let s = Setting::new(Config::default());
    let regions = [s.compiled.region];
    let refused = |s: &Setting| {
        let error = s.runtime.unregister(&regions).expect_err("this goroutine has frames");
        let UnregisterError::Running { goroutine: 1, .. } = &error else { panic!("{error}") };
        assert!(s.runtime.code().range_of(regions[0]).is_some(), "nothing was forgotten");
    };
    s.run(3, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        caller.foreign(|| {
            refused(&s);
            // Another thread looks, too.
            std::thread::scope(|scope| scope.spawn(|| refused(&s)).join().expect("it looks"));
        });
        0
    });
    s.runtime.unregister(&regions).expect("no frame is left");
    assert_eq!(s.runtime.code().range_of(regions[0]), None);
    let again = s.runtime.unregister(&regions).expect_err("it is gone");
    assert!(matches!(again, UnregisterError::Code(_)), "{again}");
}

#[test]
fn a_goroutine_that_has_not_begun_keeps_its_entry_registered() {
    let s = Setting::new(Config::default());
    let regions = [s.compiled.region];
    // SAFETY: it never runs.
    let goroutine = unsafe { s.runtime.spawn(s.compiled.entry, 0) }.expect("memory");
    let error = s.runtime.unregister(&regions).expect_err("it begins there");
    let UnregisterError::Running { pc, .. } = error else { panic!("{error}") };
    assert_eq!(pc, s.compiled.entry);
    drop(goroutine);
}

/// Were code shared, one runtime would forget what goroutines of the other still run.
#[test]
fn a_code_has_one_runtime_in_its_life() {
    let code = Arc::new(Code::new());
    let runtime =
        |code: &Arc<Code>| Runtime::new(Config::default(), code.clone(), Box::new(Embedder));
    let first = runtime(&code).expect("the first");
    let second = runtime(&code).expect_err("the second");
    assert!(matches!(second, RuntimeError::CodeInUse), "{second}");
    drop(first);
    assert!(matches!(runtime(&code), Err(RuntimeError::CodeInUse)));
    // A misplaced region is another error.
    let code = Arc::new(Code::new());
    let calls = stackmark_stack::asm::system_call_range();
    let region = Region {
        start: calls.start,
        len: calls.len(),
        functions: vec![Function { start: calls.start, len: calls.len(), ..Function::default() }],
        ..Region::default()
    };
    code.register(region).expect("a region");
    assert!(matches!(runtime(&code), Err(RuntimeError::Code(_))));
}

#[test]
fn the_traceback_of_another_goroutine_has_its_managed_frames() {
    let s = Setting::new(Config::default());
    s.run(2, &|_| {
        // SAFETY: used here alone.
        let caller = unsafe { Caller::current() };
        let own = s.runtime.traceback_of(caller.goroutine()).expect("a stack");
        assert!(own.starts_with("goroutine 1 [running]:\n"), "{own}");
        assert_eq!(own.lines().filter(|line| line.contains("(...)")).count(), 5, "{own}");
        let goroutine = caller.handle();
        let from_outside = || s.runtime.traceback_of(&goroutine).expect("a stack");
        let other = |f: &(dyn Fn() -> String + Sync)| {
            std::thread::scope(|scope| scope.spawn(f).join().expect("it looks"))
        };
        let runs = other(&from_outside);
        assert_eq!(
            runs,
            "goroutine 1 [running]:\n\t(its frames are not known while it runs on another thread)\n"
        );
        let foreign = caller.foreign(|| other(&from_outside));
        assert_eq!(foreign, own.replace("running", "foreign"));
        0
    });
    assert_eq!(s.runtime.goroutines().len(), 0);
    let machine = Machine::attach(&s.runtime).expect("this thread is not attached");
    // SAFETY: it never runs.
    let goroutine = unsafe { s.runtime.spawn(s.compiled.entry, 0) }.expect("memory");
    assert_eq!(goroutine.status(), Status::Runnable);
    let text = s.runtime.traceback_of(&goroutine).expect("a stack");
    assert_eq!(text, "goroutine 2 [runnable]:\n");
    drop((goroutine, machine));
}
