//! Managed code called by native code that runs, and what a scan that rests there is told.

use crate::*;
use stackmark_stack::CallInError;

/// How native code goes on to call managed code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enters {
    /// From a foreign call.
    Foreign,
    /// As it is, Running.
    Inside,
    /// In turn.
    Both,
}

const ALL: [Enters; 3] = [Enters::Foreign, Enters::Inside, Enters::Both];

impl Enters {
    fn call<R>(self, level: usize, f: impl FnOnce() -> R) -> R {
        match self {
            Enters::Inside => f(),
            Enters::Both if level.is_multiple_of(2) => f(),
            Enters::Foreign | Enters::Both => caller().foreign(f),
        }
    }
}

#[test]
fn a_scan_rests_at_calls_of_native_code_that_enter_managed_code_in_either_way() {
    const LEVELS: usize = 300;
    fn down(
        level: usize,
        enters: Enters,
        call: &dyn Fn(Act<'_>) -> usize,
        bottom: Act<'_>,
    ) -> usize {
        call(&|| {
            let next = || down(level + 1, enters, call, bottom);
            if level == LEVELS { bottom() } else { enters.call(level, next) }
        })
    }
    for enters in ALL {
        for single in [false, true] {
            for config in configs() {
                let setting = &Setting::new(config);
                let incremental = setting.runtime.config().barriers == BarrierMode::Incremental;
                let objects = Mutex::new(Vec::new());
                let mut given = 0;
                setting.on(Stack::Threads, || {
                    let call = |act: Act<'_>| {
                        let tell = |object| objects.lock().push(object);
                        match single {
                            true => setting.call_single(Stack::Threads, act, tell),
                            false => setting.call_with(Stack::Threads, 3, act, tell),
                        }
                    };
                    let bottom = || {
                        caller().foreign(|| {
                            let mut cycles = setting.cycles.lock();
                            let (cycles, number) = &mut *cycles;
                            *number += 1;
                            assert!(cycles.begin_scanning(*number, ScanScope::Whole));
                            cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
                        });
                        given = setting.roots.0.lock().len();
                        1
                    };
                    let bottom = std::cell::RefCell::new(bottom);
                    let bottom = || (bottom.borrow_mut())();
                    let result = down(1, enters, &call, &bottom);
                    let adds = if single { 7 } else { rec_adds(3) };
                    assert_eq!(result, LEVELS * adds + 1);
                });
                assert_eq!(given < LEVELS, incremental, "{given} of {LEVELS} at once");
                // Nothing of it is left to be scanned. So it has been on the way.
                let given = setting.roots.0.lock();
                let missing = objects.lock().iter().filter(|at| !given.contains(*at)).count();
                assert_eq!(missing, 0, "of {LEVELS}, {enters:?}, single {single}");
                drop(given);
                setting.cycles.lock().0.stop_world(|world| {
                    world.rescan_dirty().expect("stacks that can be walked");
                    world.end_scanning(NextCycle::IsWhole);
                });
                setting.check_at_end();
            }
        }
    }
}

#[test]
fn a_short_scan_visits_what_has_run_though_no_entry_has_room_for_a_barrier() {
    const LEVELS: usize = 1000;
    const RETURNS: usize = 10;
    for enters in ALL {
        let setting = &Setting::new(Config::default());
        let frames = Mutex::new(Vec::new());
        let scan = |scope| {
            let before = setting.visited();
            setting.cycle(scope);
            frames.lock().push((setting.visited() - before) as usize);
        };
        setting.on(Stack::Threads, || {
            fn down(
                level: usize,
                enters: Enters,
                call: &dyn Fn(Act<'_>) -> usize,
                scan: &dyn Fn(ScanScope),
            ) -> usize {
                call(&|| {
                    let scans = |scope| caller().foreign(|| scan(scope));
                    if level == LEVELS {
                        scans(ScanScope::Whole);
                        return 0;
                    }
                    let result = enters.call(level, || down(level + 1, enters, call, scan));
                    if level == LEVELS - RETURNS {
                        scans(ScanScope::Short);
                        // Again deeper, and back: what is older has not run.
                        let again = || call(&|| 0);
                        enters.call(level, again);
                        scans(ScanScope::Short);
                    }
                    result
                })
            }
            let call = |act: Act<'_>| setting.call_single(Stack::Threads, act, |_| {});
            down(1, enters, &call, &scan)
        });
        let [whole, first, second] = frames.into_inner()[..] else { panic!("three scans") };
        assert!(whole >= LEVELS, "{whole} frames, {enters:?}");
        assert!(first < 3 * RETURNS, "{first} of {whole} frames, {enters:?}");
        assert!(second < 3 * RETURNS, "{second} of {whole} frames, {enters:?}");
        setting.check_at_end();
    }
}

#[test]
fn native_code_without_an_anchor_enters_no_managed_code() {
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let act = || {
            let goroutine = caller().goroutine();
            let sp = &header(goroutine).sched.sp;
            let anchor = sp.load(Relaxed);
            // As if managed code had called this function by a plain call.
            sp.store(0, Relaxed);
            let refused = setting.runtime.call_in(|_| ());
            assert_eq!(refused, Err(CallInError::NoAnchor { goroutine: goroutine.id() }));
            let foreign = catch_unwind(AssertUnwindSafe(|| caller().foreign(|| ())));
            assert!(foreign.is_err(), "it goes into no foreign call");
            assert_eq!(goroutine.status(), Status::Running);
            sp.store(anchor, Relaxed);
            setting.runtime.call_in(|_| 5).expect("on a native stack")
        };
        assert_eq!(setting.call(Stack::Threads, 2, &act), rec_adds(2) + 5);
    });
    setting.on(Stack::Goroutines, || {
        let act = || {
            let goroutine = caller().goroutine().id();
            let refused = setting.runtime.call_in(|_| ());
            let status = Status::Running;
            assert_eq!(refused, Err(CallInError::NotForeign { goroutine, status }));
            0
        };
        setting.call(Stack::Goroutines, 2, &act);
    });
    setting.check_at_end();
}

#[test]
fn native_code_that_is_called_by_a_plain_call_has_no_anchor() {
    let setting = &Setting::new(configs()[1].clone());
    let panics = |f: &dyn Fn()| {
        let caught = catch_unwind(AssertUnwindSafe(f)).expect_err("it is refused");
        let text = caught.downcast_ref::<&str>().expect("a message without arguments");
        assert!(text.contains("without call_native"), "{text}");
    };
    let refused = || {
        let (caller, goroutine) = (caller(), caller().goroutine().id());
        let error = CallInError::NoAnchor { goroutine };
        assert_eq!(setting.runtime.call_in(|_| ()), Err(error.clone()));
        let single = setting.compiled[Stack::Threads as usize].address("single");
        // SAFETY: managed code for this kind of stack, which is not reached.
        let called = unsafe {
            let single = std::mem::transmute::<usize, ManagedFn>(single);
            caller.callback(single, 0)
        };
        assert_eq!(called, Err(error));
        panics(&|| caller.foreign(|| ()));
        // SAFETY: it is refused.
        panics(&|| unsafe { drop(caller.enter_foreign()) });
        // SAFETY: it is refused, and the goroutine goes on at once.
        panics(&|| unsafe {
            caller.park(|_| ());
        });
        // SAFETY: it is refused, so there are no arguments.
        panics(&|| unsafe {
            caller.lib_call(bottom as *const () as usize, &[]);
        });
        let error = caller.frames(|_| ControlFlow::Continue(())).expect_err("no anchor");
        assert!(matches!(error.error, WalkError::StackPointer { sp: 0, .. }), "{error}");
        assert_eq!(caller.goroutine().status(), Status::Running);
        2
    };
    setting.on(Stack::Threads, || {
        let first = Cell::new(true);
        let act = || {
            if !first.replace(false) {
                return refused();
            }
            caller().foreign(|| setting.scan());
            setting.call(Stack::Threads, 2, &|| 1)
        };
        let plain = || setting.call_to("plain", Stack::Threads, 0, &act, |_| {});
        assert_eq!(plain(), rec_adds(2) + 1 + 2);
        // With managed frames below, too.
        first.set(true);
        let enters = || caller().foreign(plain);
        assert_eq!(setting.call(Stack::Threads, 3, &enters), rec_adds(3) + rec_adds(2) + 3);
    });
    setting.check_at_end();
}

#[test]
fn what_counts_as_running_is_broken_by_managed_code() {
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let act = || {
            let inside = caller().inside().expect("it runs");
            assert!(inside.is_unbroken());
            setting.call(Stack::Threads, 2, &|| 0);
            assert!(!inside.is_unbroken());
            assert!(caller().inside().expect("it runs").is_unbroken());
            0
        };
        setting.call(Stack::Threads, 2, &act);
    });
    setting.check_at_end();
}
