//! Frames left for an older managed one: [`Caller::unwind_to`], on either kind of stack.

use crate::native::Library;
use crate::*;
#[cfg(not(windows))]
use stackmark_stack::UnwindToError;
#[cfg(not(windows))]
use std::sync::atomic::AtomicUsize;

#[cfg(not(windows))]
const WORD: usize = size_of::<usize>();

// On Windows no frame of a native stack is left for.
#[cfg(not(windows))]
#[test]
fn a_landing_pad_gets_its_values_and_its_callee_saved_registers() {
    for config in configs() {
        let setting = Setting::new(config);
        setting.on(Stack::Threads, || {
            for n in [0, 1, 10, 1000] {
                for foreign in [false, true] {
                    let leaves = || setting.leave_to_pad(Stack::Threads, 0, [5, 6]);
                    let act = || {
                        caller().foreign(|| setting.scan());
                        if foreign { caller().foreign(leaves) } else { leaves() }
                    };
                    let result = setting.call_guarded(Stack::Threads, n, &act);
                    assert_eq!(result, landed_result([5, 6]), "{n} frames");
                }
            }
        });
        let counters = setting.runtime.counters();
        let [placed, hit, left, removed] =
            [&counters.placed, &counters.hit, &counters.leapfrogged, &counters.removed]
                .map(|count| count.load(Relaxed));
        assert_eq!(placed, hit + left + removed);
        setting.check_at_end();
    }
}

/// Counts its own end.
#[cfg(not(windows))]
struct Dropped<'a>(&'a AtomicUsize);

#[cfg(not(windows))]
impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Calls managed code `level` times, one call inside the other, and leaves all of it from the
/// innermost for landing pad `pad`.
#[cfg(not(windows))]
fn nest(setting: &Setting, level: usize, pad: usize, dropped: &AtomicUsize) -> usize {
    setting.call_guarded(Stack::Threads, 3, &|| {
        let _counted = Dropped(dropped);
        if level == 0 {
            caller().foreign(|| setting.scan());
            setting.leave_to_pad(Stack::Threads, pad, [3, 4])
        }
        caller().foreign(|| nest(setting, level - 1, pad, dropped))
    })
}

// On Windows no frame of a native stack is left for.
#[cfg(not(windows))]
#[test]
fn entries_are_left_and_native_destructors_run() {
    const LEVELS: usize = 20;
    for config in configs() {
        let setting = Setting::new(config);
        setting.on(Stack::Threads, || {
            for pad in 0..=LEVELS {
                let dropped = AtomicUsize::new(0);
                let result = nest(&setting, LEVELS, pad, &dropped);
                // The entries older than the pad's return as ever.
                let returns = |inner, _| guarded_result(rec_adds(3) + inner);
                assert_eq!(result, (pad..LEVELS).fold(landed_result([3, 4]), returns), "pad {pad}");
                assert_eq!(dropped.load(Relaxed), LEVELS + 1);
            }
        });
        setting.check_at_end();
    }
}

// On Windows no frame of a native stack is left for.
#[cfg(not(windows))]
#[test]
fn the_values_of_a_landing_pad_are_roots_until_it_gets_them() {
    const VALUE: usize = 0x5eed_5eed_0000_u64 as usize;
    /// A cycle in a native frame that is left, where the goroutine is InForeign.
    struct Cycle<'a>(&'a Setting, Cell<usize>);
    impl Drop for Cycle<'_> {
        fn drop(&mut self) {
            let setting = self.0;
            assert_eq!(caller().goroutine().status(), Status::Foreign);
            setting.scan();
            assert!(setting.roots.0.lock().contains(&VALUE), "the value is lost");
            self.1.set(self.1.get() + 1);
        }
    }
    for stack in [Stack::Goroutines, Stack::Threads] {
        let setting = Setting::new(Config::default());
        setting.on(stack, || {
            let leaves = || setting.leave_to_pad(stack, 1, [1, VALUE]);
            let inner = || {
                let _cycle = Cycle(&setting, Cell::new(0));
                setting.call_guarded(stack, 2, &leaves)
            };
            let outer = || caller().foreign(inner);
            let result = setting.call_guarded(stack, 2, &outer);
            assert_eq!(result, landed_result([1, VALUE]));
            setting.scan();
            assert!(!setting.roots.0.lock().contains(&VALUE), "{stack:?}");
        });
        setting.check_at_end();
    }
}

// On Windows no frame of a native stack is left for.
#[cfg(not(windows))]
#[test]
fn a_frame_that_cannot_be_left_for_is_an_error_and_nothing_changes() {
    type Calls = unsafe extern "C-unwind" fn(
        unsafe extern "C-unwind" fn(*mut c_void) -> usize,
        *mut c_void,
    ) -> usize;
    unsafe extern "C-unwind" fn call(f: *mut c_void) -> usize {
        // SAFETY: the test passes its own.
        unsafe { (*f.cast::<&dyn Fn() -> usize>())() }
    }
    let Some(library) = Library::load("tableless.c") else { return };
    // SAFETY: the function's type.
    let calls = unsafe {
        std::mem::transmute::<*mut c_void, Calls>(library.function("calls_without_tables"))
    };
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let fails = || {
            let pads = setting.pads(Stack::Threads);
            let [(young, _), (old, pad)] = pads[..] else { panic!("{pads:?}") };
            for depth in [old + WORD, old - WORD, 0, usize::MAX / 4] {
                // SAFETY: it returns, with an error.
                let error = unsafe { caller().unwind_to(depth, pad, [0; 2]) };
                assert!(matches!(error, UnwindToError::NoFrame { .. }), "{error}");
            }
            // SAFETY: as above.
            let error = unsafe { caller().unwind_to(old, pad, [0; 2]) };
            assert!(
                matches!(error, UnwindToError::NoUnwindTables { depth, .. } if depth == old),
                "{error}"
            );
            assert_ne!(young, old);
            assert_eq!(caller().goroutine().status(), Status::Running);
            setting.leave_to_pad(Stack::Threads, 0, [1, 2])
        };
        let between = || {
            caller().foreign(|| {
                let mut f: &dyn Fn() -> usize = &|| setting.call_guarded(Stack::Threads, 1, &fails);
                // SAFETY: the function calls what it is given.
                unsafe { calls(call, (&raw mut f).cast()) }
            })
        };
        let result = setting.call_guarded(Stack::Threads, 1, &between);
        assert_eq!(result, guarded_result(rec_adds(1) + landed_result([1, 2]) + 1));
    });
    setting.check_at_end();
}

#[test]
fn cxx_code_catches_what_cxx_code_throws_over_entries_and_barriers() {
    const LEVELS: usize = 30;
    type Callback = unsafe extern "C-unwind" fn(*mut c_void) -> usize;
    type Catches = unsafe extern "C-unwind" fn(Callback, *mut c_void) -> usize;
    type Throws = unsafe extern "C-unwind" fn(*const u8) -> usize;
    unsafe extern "C-unwind" fn call(f: *mut c_void) -> usize {
        // SAFETY: the test passes its own.
        unsafe { (*f.cast::<&dyn Fn() -> usize>())() }
    }
    let Some(library) = Library::load("cxx.cc") else { return };
    // SAFETY: the functions' types in cxx.cc.
    let (catches, through, throws) = unsafe {
        (
            std::mem::transmute::<*mut c_void, Catches>(library.function("catch_runtime_error")),
            std::mem::transmute::<*mut c_void, Catches>(
                library.function("call_through_destructor"),
            ),
            std::mem::transmute::<*mut c_void, Throws>(library.function("throw_runtime_error")),
        )
    };
    /// Calls down to a throw. The level `catcher` catches: 77 comes from there.
    fn down(
        setting: &Setting,
        level: usize,
        catcher: usize,
        f: &dyn Fn(bool, Act<'_>) -> usize,
    ) -> usize {
        setting.call(Stack::Threads, 2, &|| {
            let next = || match level {
                LEVELS => {
                    setting.scan();
                    f(false, &|| 0)
                }
                _ => down(setting, level + 1, catcher, f),
            };
            let result = caller().foreign(|| match level == catcher {
                true => f(true, &next),
                false => next(),
            });
            assert_eq!(caller().goroutine().status(), Status::Running);
            result
        })
    }
    for config in configs() {
        let setting = Setting::new(config);
        let f = |is_catcher: bool, mut act: Act<'_>| {
            let act = (&raw mut act).cast();
            // SAFETY: the functions call what they are given, and throw what they catch.
            unsafe {
                if is_catcher {
                    catches(call, act)
                } else {
                    through(call, act) + throws(c"thrown".as_ptr().cast())
                }
            }
        };
        setting.on(Stack::Threads, || {
            for catcher in 0..LEVELS {
                let result = down(&setting, 0, catcher, &f);
                assert_eq!(result, 77 + rec_adds(2) * (catcher + 1), "caught at {catcher}");
            }
        });
        assert!(setting.runtime.counters().leapfrogged.load(Relaxed) > 0);
        setting.check_at_end();
    }
}
