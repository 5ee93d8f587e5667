//! Jumps of C over managed frames: announced, interposed, and untold.

use crate::native::Library;
use crate::*;
use stackmark_stack::LeaveToError;
use std::sync::OnceLock;

// Sanitizers have a `longjmp` of their own, by which they learn of frames that are left.
// No program there comes before the C library.
#[cfg(not(any(stackmark_asan, stackmark_tsan, windows)))]
stackmark_stack::interpose_longjmp!();

/// Where a jump goes: see `jumps.c`. The buffers differ between architectures; this is enough.
#[repr(C, align(16))]
pub(crate) struct Target {
    value: usize,
    frame: usize,
    buffers: [u64; 64],
}

impl Target {
    pub(crate) fn new() -> Box<Target> {
        Box::new(Target { value: 0, frame: 0, buffers: [0; 64] })
    }
}

type Callback = unsafe extern "C-unwind" fn(*mut c_void) -> usize;
type Calls = unsafe extern "C-unwind" fn(*mut Target, Callback, *mut c_void) -> usize;
type Jump = unsafe extern "C-unwind" fn(*mut Target, usize) -> !;

/// How a target is set and jumped to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way {
    calls: Calls,
    jump: Jump,
    /// The program announces the jump itself.
    announced: bool,
}

/// The ways of jumping: those that are interposed, then the one that is announced. None if there is
/// no compiler, or a sanitizer.
pub(crate) fn ways() -> &'static [Way] {
    static WAYS: OnceLock<Vec<Way>> = OnceLock::new();
    WAYS.get_or_init(|| {
        if cfg!(any(stackmark_asan, stackmark_tsan)) {
            return vec![];
        }
        let Some(library) = Library::load("jumps.c") else { return vec![] };
        let way = |calls, jump, announced| {
            // SAFETY: the functions' types in jumps.c.
            unsafe {
                Way {
                    calls: std::mem::transmute::<*mut c_void, Calls>(library.function(calls)),
                    jump: std::mem::transmute::<*mut c_void, Jump>(library.function(jump)),
                    announced,
                }
            }
        };
        ["jumps", "jumps_checked", "jumps_by_siglongjmp"]
            .map(|jump| way("calls_under_setjmp", jump, false))
            .into_iter()
            .chain([way("calls_under_builtin_setjmp", "jumps_by_builtin", true)])
            .collect()
    })
}

impl Way {
    /// Calls `f`. A jump to the target makes it return 5000 more than the jump's value.
    pub(crate) fn under(self, target: *mut Target, mut f: &dyn Fn() -> usize) -> usize {
        unsafe extern "C-unwind" fn call(f: *mut c_void) -> usize {
            // SAFETY: passed below.
            unsafe { (*f.cast::<&dyn Fn() -> usize>())() }
        }
        // SAFETY: the function calls what it is given.
        unsafe { (self.calls)(target, call, (&raw mut f).cast()) }
    }

    /// Jumps.
    pub(crate) fn jump(self, target: *mut Target, value: usize) -> ! {
        // SAFETY: the target's frame has not returned, and the frames that are left own nothing
        // that these tests miss.
        unsafe {
            if self.announced {
                caller().leave_to((*target).frame).expect("a native frame");
            }
            (self.jump)(target, value)
        }
    }
}

#[test]
fn a_jump_leaves_any_number_of_entries() {
    const LEVELS: usize = 30;
    /// The targets so far, and the frame that jumps.
    fn down(
        setting: &Setting,
        way: Way,
        level: usize,
        to: usize,
        targets: &[*mut Target],
    ) -> usize {
        setting.call(Stack::Threads, 3, &|| {
            let status = caller().goroutine().status();
            assert_eq!(status, Status::Running);
            let mut target = Target::new();
            let mut targets = targets.to_vec();
            targets.push(&raw mut *target);
            if level == LEVELS {
                caller().foreign(|| setting.scan());
                // From within a foreign call, too.
                return match to % 2 {
                    0 => way.jump(targets[to], 77),
                    _ => caller().foreign(|| way.jump(targets[to], 77)),
                };
            }
            // The target is in a foreign call or before it.
            let next = || down(setting, way, level + 1, to, &targets);
            let result = match level % 3 {
                0 => way.under(&raw mut *target, &|| caller().foreign(next)),
                1 => caller().foreign(|| way.under(&raw mut *target, &next)),
                _ => way.under(&raw mut *target, &|| {
                    caller().foreign(|| way.under(&raw mut *Target::new(), &next))
                }),
            };
            assert_eq!(caller().goroutine().status(), Status::Running);
            caller().foreign(|| setting.scan());
            result
        })
    }
    for config in configs() {
        let setting = Setting::new(config);
        for way in ways() {
            setting.on(Stack::Threads, || {
                for to in 0..LEVELS {
                    let result = down(&setting, *way, 0, to, &[]);
                    assert_eq!(result, rec_adds(3) * (to + 1) + 5077, "to {to}, {way:?}");
                    assert_eq!(caller().goroutine().status(), Status::Foreign);
                }
            });
        }
        setting.check_at_end();
    }
}

#[test]
fn a_jump_leaves_all_managed_code() {
    for way in ways() {
        let setting = Setting::new(configs()[1].clone());
        setting.on(Stack::Threads, || {
            let mut target = Target::new();
            let target = &raw mut *target;
            let jumps = || {
                caller().foreign(|| setting.scan());
                way.jump(target, 3)
            };
            let inner = || caller().foreign(|| setting.call(Stack::Threads, 4, &jumps));
            let outer = || setting.call(Stack::Threads, 4, &inner);
            assert_eq!(way.under(target, &outer), 5003);
            assert_eq!(caller().goroutine().status(), Status::Foreign);
            assert_eq!(setting.runtime.census().barriers, 0);
            setting.scan();
            assert_eq!(setting.call(Stack::Threads, 4, &|| 1), rec_adds(4) + 1);
        });
        setting.check_at_end();
    }
}

#[test]
fn a_frontier_that_is_left_by_a_jump_is_placed_again_before_older_frames_run() {
    const LEVELS: usize = 200;
    for way in ways() {
        for config in configs() {
            let setting = Setting::new(config);
            let objects = Mutex::new(Vec::new());
            setting.on(Stack::Threads, || {
                fn down(level: usize, call: &dyn Fn(Act<'_>) -> usize, at: &dyn Fn(usize) -> bool) {
                    call(&|| {
                        if !at(level) {
                            caller().foreign(|| down(level + 1, call, at));
                        }
                        0
                    });
                }
                let mut target = Target::new();
                let target = &raw mut *target;
                let call = |act: Act<'_>| {
                    let tell = |object| objects.lock().push(object);
                    setting.call_with(Stack::Threads, 2, act, tell)
                };
                // Half of the levels are below the target.
                let young = |level| {
                    if level == LEVELS {
                        // Begins, and leaves its end to workers that never come.
                        caller().foreign(|| {
                            let mut cycles = setting.cycles.lock();
                            let (cycles, number) = &mut *cycles;
                            *number += 1;
                            setting.roots.0.lock().clear();
                            assert!(cycles.begin_scanning(*number, ScanScope::Whole));
                            cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
                        });
                        way.jump(target, 0);
                    }
                    false
                };
                let old = |level| {
                    if level < LEVELS / 2 {
                        return false;
                    }
                    let jumped = caller().foreign(|| {
                        way.under(target, &|| {
                            down(level + 1, &call, &young);
                            0
                        })
                    });
                    assert_eq!(jumped, 5000);
                    true
                };
                down(1, &call, &old);
            });
            let given = setting.roots.0.lock();
            // What is left is dead. The rest has been returned to, so it has been scanned before.
            let objects = objects.into_inner();
            let missing = objects[..LEVELS / 2].iter().filter(|at| !given.contains(*at)).count();
            assert_eq!(missing, 0, "{way:?}");
            drop(given);
            setting.cycles.lock().0.stop_world(|world| {
                world.rescan_dirty().expect("stacks that can be walked");
                world.end_scanning(NextCycle::IsWhole);
            });
            setting.check_at_end();
        }
    }
}

#[test]
fn a_jump_to_where_no_native_frame_is_is_an_error_and_nothing_changes() {
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let fails = || {
            let (goroutine, here) = (caller().goroutine(), stackmark_stack::asm::stack_pointer());
            let id = goroutine.id();
            let anchor = header(goroutine).sched.sp.load(Relaxed);
            let entered = header(goroutine).entered.load(Relaxed);
            for sp in [0, 64, here - 4096, anchor, anchor + 16, entered, usize::MAX] {
                // SAFETY: it fails, and there is no jump.
                let error = unsafe { caller().leave_to(sp) };
                assert_eq!(error, Err(LeaveToError::NoNativeFrame { goroutine: id, sp }));
            }
            assert_eq!(header(goroutine).sched.sp.load(Relaxed), anchor);
            assert_eq!(goroutine.status(), Status::Running);
            0
        };
        let enters = || caller().foreign(|| setting.call(Stack::Threads, 2, &fails));
        setting.call(Stack::Threads, 2, &enters);
    });
    setting.on(Stack::Goroutines, || {
        let here = stackmark_stack::asm::stack_pointer();
        let act = || {
            let goroutine = caller().goroutine().id();
            // SAFETY: there is no jump.
            unsafe {
                assert_eq!(caller().leave_to(stackmark_stack::asm::stack_pointer()), Ok(()));
                let error = Err(LeaveToError::Callback { goroutine });
                assert_eq!(caller().leave_to(here), error);
            }
            0
        };
        setting.call(Stack::Goroutines, 2, &act);
    });
    setting.check_at_end();
}

#[test]
fn barriers_that_an_untold_jump_leaves_are_settled_when_older_managed_code_goes_on() {
    const LEVELS: usize = 20;
    const TARGET: usize = 10;
    let Some(untold) = ways().last().map(|way| Way { announced: false, ..*way }) else { return };
    fn down(setting: &Setting, level: usize, way: Way, target: *mut Target) -> usize {
        let call = |act: Act<'_>| match level <= TARGET {
            // One frame, with no room for a barrier, so that nothing is hit there.
            true => setting.call_single(Stack::Threads, act, |_| {}),
            false => setting.call(Stack::Threads, 3, act),
        };
        call(&|| {
            let next = || down(setting, level + 1, way, target);
            match level {
                LEVELS => {
                    caller().foreign(|| setting.scan());
                    way.jump(target, 7)
                }
                TARGET => way.under(target, &next),
                _ => {
                    let result = next();
                    // The walk is whole again, and no barrier is left of frames that are gone.
                    let managed = kinds().iter().filter(|k| **k == FrameKind::Managed).count();
                    assert_eq!((managed, setting.runtime.census().barriers), (level + 1, 0));
                    caller().foreign(|| setting.scan());
                    result
                }
            }
        })
    }
    let setting = Setting::new(configs()[1].clone());
    setting.on(Stack::Threads, || {
        let mut target = Target::new();
        let result = down(&setting, 0, untold, &raw mut *target);
        assert_eq!(result, 7 * (TARGET + 1) + 5007);
    });
    setting.check_at_end();
}

#[test]
fn a_walk_after_an_untold_jump_is_an_error_where_managed_code_runs_again() {
    const LEVELS: usize = 20;
    const TARGET: usize = 10;
    let Some(untold) = ways().last().map(|way| Way { announced: false, ..*way }) else { return };
    fn down(setting: &Setting, level: usize, target: *mut Target, at_target: Act<'_>) -> usize {
        let untold = Way { announced: false, ..*ways().last().expect("asked for before") };
        setting.call(Stack::Threads, 3, &|| {
            let next = || down(setting, level + 1, target, at_target);
            match level {
                LEVELS => untold.jump(target, 7),
                TARGET => untold.under(target, &next) + at_target(),
                _ => next(),
            }
        })
    }
    let setting = Setting::new(Config::default());
    setting.on(Stack::Threads, || {
        let walks = || {
            let error = caller().frames(|_| ControlFlow::Continue(())).expect_err("no way");
            assert!(matches!(error.error, WalkError::NotIncreasing { .. }), "{error}");
            1
        };
        // The frames that the anchor stands for have gone, and it is younger than this call.
        let at_target = || setting.call(Stack::Threads, 3, &walks);
        let mut target = Target::new();
        let result = down(&setting, 0, &raw mut *target, &at_target);
        assert_eq!(result, rec_adds(3) * (TARGET + 2) + 5007 + 1, "{untold:?}");
    });
    setting.check_at_end();
}
