//! Jumps of C over managed frames: announced, interposed, and programs that leave frames in every
//! way there is.

use crate::native::Library;
use crate::*;
use stackmark_stack::LeaveToError;
use std::sync::OnceLock;

// Sanitizers have a `longjmp` of their own, by which they learn of frames that are left.
#[cfg(not(any(stackmark_asan, stackmark_tsan)))]
stackmark_stack::interpose_longjmp!();

/// Where a jump goes: see `jumps.c`.
#[repr(C, align(16))]
struct Target {
    buffers: [u64; 25 + 5],
    value: u64,
    frame: usize,
}

impl Target {
    fn new() -> Box<Target> {
        Box::new(Target { buffers: [0; 30], value: 0, frame: 0 })
    }
}

type Callback = unsafe extern "C-unwind" fn(*mut c_void) -> u64;
type Calls = unsafe extern "C-unwind" fn(*mut Target, Callback, *mut c_void) -> u64;
type Jump = unsafe extern "C-unwind" fn(*mut Target, u64) -> !;

/// How a target is set and jumped to.
#[derive(Clone, Copy, Debug)]
struct Way {
    calls: Calls,
    jump: Jump,
    /// The program announces the jump itself.
    announced: bool,
}

/// The ways of jumping: those that are interposed, then the one that is announced. None if there is
/// no compiler, or a sanitizer.
fn ways() -> &'static [Way] {
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
    fn under(self, target: *mut Target, mut f: &dyn Fn() -> u64) -> u64 {
        unsafe extern "C-unwind" fn call(f: *mut c_void) -> u64 {
            // SAFETY: passed below.
            unsafe { (*f.cast::<&dyn Fn() -> u64>())() }
        }
        // SAFETY: the function calls what it is given.
        unsafe { (self.calls)(target, call, (&raw mut f).cast()) }
    }

    /// Jumps.
    fn jump(self, target: *mut Target, value: u64) -> ! {
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
    fn down(setting: &Setting, way: Way, level: usize, to: usize, targets: &[*mut Target]) -> u64 {
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
                    assert_eq!(result, rec_adds(3) * (to as u64 + 1) + 5077, "to {to}, {way:?}");
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
                fn down(level: usize, call: &dyn Fn(Act<'_>) -> u64, at: &dyn Fn(usize) -> bool) {
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

/// What leaves frames for an older native one, where nothing jumps.
struct Jumped {
    target: usize,
    value: u64,
}

/// A program made from a seed. Native and managed code alternate, scan, and leave frames in every
/// way: by exceptions, by [`Caller::unwind_to`], and by jumps, which on goroutines' own stacks are
/// exceptions.
struct Program<'s> {
    setting: &'s Setting,
    stack: Stack,
    seed: u64,
    calls: Cell<usize>,
    deepest: usize,
    /// Frames with landing pads that are younger than the youngest native frame that catches.
    pads: Cell<usize>,
    targets: RefCell<Vec<(Way, *mut Target)>>,
    /// The thread ends when so many calls are left. Nothing is thrown or caught then: Rust's
    /// `catch_unwind` lets no forced unwinding pass.
    ends: Option<usize>,
    seen: RefCell<(u64, [u32; 3])>,
}

impl Program<'_> {
    fn run(setting: &Setting, stack: Stack, seed: u64, calls: usize) -> (u64, (u64, [u32; 3])) {
        setting.on(stack, || {
            let program = Program::new(setting, stack, seed, calls);
            let result = program.caught(|| program.call(0));
            (result, program.seen.into_inner())
        })
    }

    fn new(setting: &Setting, stack: Stack, seed: u64, calls: usize) -> Program<'_> {
        Program {
            setting,
            stack,
            seed,
            calls: Cell::new(calls),
            deepest: 40,
            pads: Cell::new(0),
            targets: RefCell::default(),
            ends: None,
            seen: RefCell::default(),
        }
    }

    fn choose(&self, what: u64, limit: u64) -> u64 {
        let mut x = self.seed ^ (self.calls.get() as u64) << 32 ^ what << 16;
        for _ in 0..3 {
            x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (x >> 33) % limit
    }

    /// Calls `f`, and catches what is thrown, but for what stands for a jump.
    fn caught(&self, f: impl FnOnce() -> u64) -> u64 {
        if self.ends.is_some() {
            return f();
        }
        let (pads, targets) = (self.pads.replace(0), self.targets.borrow().len());
        let caught = catch_unwind(AssertUnwindSafe(f));
        self.pads.set(pads);
        self.targets.borrow_mut().truncate(targets);
        caught.unwrap_or_else(|thrown| match thrown.downcast::<u64>() {
            Ok(value) => 1000 + *value,
            Err(other) => resume_unwind(other),
        })
    }

    /// Calls `f`, and makes this a target of jumps.
    fn under(&self, f: &dyn Fn() -> u64) -> u64 {
        let pads = self.pads.replace(0);
        let depth = self.targets.borrow().len();
        let way = ways()[self.choose(7, ways().len() as u64) as usize];
        let mut target = Target::new();
        let target = &raw mut *target;
        self.targets.borrow_mut().push((way, target));
        let result = match self.stack {
            Stack::Threads => way.under(target, f),
            Stack::Goroutines => catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|thrown| {
                match thrown.downcast::<Jumped>() {
                    Ok(jumped) if jumped.target == depth => 5000 + jumped.value,
                    Ok(other) => resume_unwind(other),
                    Err(other) => resume_unwind(other),
                }
            }),
        };
        self.targets.borrow_mut().truncate(depth);
        self.pads.set(pads);
        result
    }

    fn call(&self, level: usize) -> u64 {
        self.calls.set(self.calls.get() - 1);
        if self.ends == Some(self.calls.get()) {
            // SAFETY: the test's thread may end anywhere.
            unsafe { pthread_exit(std::ptr::null_mut()) }
        }
        let pads = self.pads.get();
        self.pads.set(pads + 1);
        let n = self.choose(1, 4);
        let result = self.setting.call_guarded(self.stack, n, &|| self.act(level));
        self.pads.set(pads);
        result
    }

    fn act(&self, level: usize) -> u64 {
        assert_eq!(caller().goroutine().status(), Status::Running);
        if self.choose(2, 4) == 0 {
            let found = caller().foreign(|| self.setting.scan());
            let mut seen = self.seen.borrow_mut();
            let hash = |sum: u64, count: &usize| sum.wrapping_mul(31).wrapping_add(*count as u64);
            seen.0 = found.iter().fold(seen.0, hash);
        }
        let mut sum = level as u64;
        for again in 0..1 + self.choose(3, 2) {
            if level == self.deepest || self.calls.get() == 0 {
                break;
            }
            let next = || self.call(level + 1);
            // On a thread's own stack managed code is also called from native code that runs.
            let inside = self.stack == Stack::Threads && self.choose(12 + again, 2) == 0;
            let down = || if inside { next() } else { caller().foreign(next) };
            sum += match self.choose(4 + again, 6) {
                0 => self.caught(down),
                1 => self.under(&down),
                2 => caller().foreign(|| self.under(&next)),
                _ => down(),
            };
            assert_eq!(caller().goroutine().status(), Status::Running);
        }
        let targets = self.targets.borrow().len();
        match self.choose(9, 16) {
            0 if self.ends.is_none() => {
                self.note(0);
                resume_unwind(Box::new(level as u64))
            }
            1 => {
                self.note(1);
                let pad = self.choose(10, self.pads.get() as u64) as usize;
                self.setting.leave_to_pad(self.stack, pad, [level, pad])
            }
            2 if targets > 0 => {
                self.note(2);
                let target = self.choose(11, targets as u64) as usize;
                let (way, at) = self.targets.borrow()[target];
                let value = level as u64;
                match self.stack {
                    Stack::Threads => way.jump(at, value),
                    Stack::Goroutines => resume_unwind(Box::new(Jumped { target, value })),
                }
            }
            _ => sum,
        }
    }

    fn note(&self, way: usize) {
        self.seen.borrow_mut().1[way] += 1;
    }
}

#[test]
fn programs_that_leave_frames_in_every_way_see_the_same_roots_on_either_kind_of_stack() {
    if ways().is_empty() {
        return;
    }
    let mut left = [0; 3];
    for config in configs() {
        for seed in 0..40 {
            let setting = Setting::new(config.clone());
            let on = |stack| Program::run(&setting, stack, seed, 120);
            let (by_goroutine, by_thread) = (on(Stack::Goroutines), on(Stack::Threads));
            assert_eq!(by_thread, by_goroutine, "seed {seed}, {config:?}");
            for (sum, count) in left.iter_mut().zip(by_thread.1.1) {
                *sum += count;
            }
            setting.check_at_end();
        }
    }
    assert!(left.iter().all(|count| *count > 50), "{left:?}");
}

unsafe extern "C-unwind" {
    fn pthread_exit(value: *mut c_void) -> !;
}

#[test]
fn programs_that_leave_frames_end_with_their_thread_at_any_call() {
    type Begin = extern "C" fn(*mut c_void) -> *mut c_void;
    struct Ending {
        setting: Setting,
        seed: u64,
        ends: usize,
    }
    extern "C-unwind" fn thread(ending: *mut c_void) -> *mut c_void {
        // SAFETY: the test waits for the thread.
        let ending = unsafe { &*ending.cast::<Ending>() };
        attach(&ending.setting.runtime).expect("a new thread");
        let program = Program::new(&ending.setting, Stack::Threads, ending.seed, CALLS);
        let program = Program { ends: Some(ending.ends), ..program };
        // No native frame that catches: forced unwinding passes none.
        program.call(0);
        std::ptr::null_mut()
    }
    const CALLS: usize = 60;
    if ways().is_empty() {
        return;
    }
    for (i, config) in configs().into_iter().cycle().take(40).enumerate() {
        let setting = Setting::new(config);
        let ending = Ending { setting, seed: i as u64, ends: CALLS - 1 - i };
        // SAFETY: the declaration does not know that a thread may end by unwinding.
        unsafe {
            let begin = std::mem::transmute::<*const (), Begin>(thread as *const ());
            let argument = (&raw const ending).cast_mut().cast();
            let mut id = std::mem::zeroed();
            assert_eq!(libc::pthread_create(&mut id, std::ptr::null(), begin, argument), 0);
            assert_eq!(libc::pthread_join(id, std::ptr::null_mut()), 0);
        }
        ending.setting.check_at_end();
    }
}

#[test]
fn barriers_that_an_untold_jump_leaves_are_settled_when_older_managed_code_goes_on() {
    const LEVELS: usize = 20;
    const TARGET: usize = 10;
    let Some(untold) = ways().last().map(|way| Way { announced: false, ..*way }) else { return };
    fn down(setting: &Setting, level: usize, way: Way, target: *mut Target) -> u64 {
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
        assert_eq!(result, 7 * (TARGET as u64 + 1) + 5007);
    });
    setting.check_at_end();
}
