//! Programs that leave frames in every way there is, on either kind of stack.

use crate::jumps::{Target, Way, ways};
use crate::*;

/// What leaves frames for an older native one, where nothing jumps.
struct Jumped {
    target: usize,
    value: usize,
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
    seen: RefCell<(usize, [u32; 3])>,
}

impl Program<'_> {
    fn run(setting: &Setting, stack: Stack, seed: u64, calls: usize) -> (usize, (usize, [u32; 3])) {
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

    fn choose(&self, what: usize, limit: usize) -> usize {
        let mut x = self.seed ^ (self.calls.get() as u64) << 32 ^ (what as u64) << 16;
        for _ in 0..3 {
            x = (x ^ x >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (x >> 33) as usize % limit
    }

    /// Calls `f`, and catches what is thrown, but for what stands for a jump.
    fn caught(&self, f: impl FnOnce() -> usize) -> usize {
        if self.ends.is_some() {
            return f();
        }
        let (pads, targets) = (self.pads.replace(0), self.targets.borrow().len());
        let caught = catch_unwind(AssertUnwindSafe(f));
        self.pads.set(pads);
        self.targets.borrow_mut().truncate(targets);
        caught.unwrap_or_else(|thrown| match thrown.downcast::<usize>() {
            Ok(value) => 1000 + *value,
            Err(other) => resume_unwind(other),
        })
    }

    /// Calls `f`, and makes this a target of jumps.
    fn under(&self, f: &dyn Fn() -> usize) -> usize {
        let pads = self.pads.replace(0);
        let depth = self.targets.borrow().len();
        let way = ways()[self.choose(7, ways().len())];
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

    fn call(&self, level: usize) -> usize {
        self.calls.set(self.calls.get() - 1);
        if self.ends == Some(self.calls.get()) {
            // SAFETY: the test's thread may end anywhere.
            unsafe { end_thread() }
        }
        let pads = self.pads.get();
        self.pads.set(pads + 1);
        let n = self.choose(1, 4);
        let result = self.setting.call_guarded(self.stack, n, &|| self.act(level));
        self.pads.set(pads);
        result
    }

    fn act(&self, level: usize) -> usize {
        assert_eq!(caller().goroutine().status(), Status::Running);
        if self.choose(2, 4) == 0 {
            let found = caller().foreign(|| self.setting.scan());
            let mut seen = self.seen.borrow_mut();
            let hash = |sum: usize, count: &usize| sum.wrapping_mul(31).wrapping_add(*count);
            seen.0 = found.iter().fold(seen.0, hash);
        }
        let mut sum = level;
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
        let leaves = |leave: &dyn Fn()| {
            // Also where the goroutine is InForeign, and scans go on beside the unwinder.
            match self.choose(14, 2) {
                0 => leave(),
                _ => caller().foreign(leave),
            }
            unreachable!("this frame has been left")
        };
        match self.choose(9, 16) {
            0 if self.ends.is_none() => {
                self.note(0);
                leaves(&|| resume_unwind(Box::new(level)))
            }
            1 => {
                self.note(1);
                let pad = self.choose(10, self.pads.get());
                leaves(&|| self.setting.leave_to_pad(self.stack, pad, [level, pad]))
            }
            2 if targets > 0 => {
                self.note(2);
                let target = self.choose(11, targets);
                let (way, at) = self.targets.borrow()[target];
                let value = level;
                leaves(&|| match self.stack {
                    Stack::Threads => way.jump(at, value),
                    Stack::Goroutines => resume_unwind(Box::new(Jumped { target, value })),
                })
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

/// Runs a program of so many calls on a thread that ends when `ends` of them are left.
fn end_with_thread(setting: &Setting, seed: u64, calls: usize, ends: usize) {
    struct Ending<'s> {
        setting: &'s Setting,
        seed: u64,
        calls: usize,
        ends: usize,
    }
    extern "C-unwind" fn thread(ending: *mut c_void) -> *mut c_void {
        // SAFETY: what started the thread waits for it.
        let &Ending { setting, seed, calls, ends } = unsafe { &*ending.cast::<Ending<'_>>() };
        attach(&setting.runtime).expect("a new thread");
        let program = Program::new(setting, Stack::Threads, seed, calls);
        let program = Program { ends: Some(ends), ..program };
        // No native frame that catches: forced unwinding passes none.
        program.call(0);
        std::ptr::null_mut()
    }
    let ending = Ending { setting, seed, calls, ends };
    // SAFETY: the argument is what the function takes.
    unsafe { run_thread(thread, (&raw const ending).cast_mut().cast()) };
}

#[test]
fn programs_that_leave_frames_end_with_their_thread_at_any_call() {
    const CALLS: usize = 60;
    if ways().is_empty() {
        return;
    }
    for (i, config) in configs().into_iter().cycle().take(40).enumerate() {
        let setting = Setting::new(config);
        end_with_thread(&setting, i as u64, CALLS, CALLS - 1 - i);
        setting.check_at_end();
    }
}

/// Ten thousand alternations, of which many leave frames, while another thread collects.
#[test]
fn ten_thousand_alternations_leave_frames_in_every_way_beside_collections() {
    const CALLS: usize = 1000;
    if ways().is_empty() {
        return;
    }
    let _stubs = ALL_STUBS.lock();
    let setting = &Setting::new(configs()[1].clone());
    let (over, collections) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut calls, mut left, mut threads) = (0, [0; 3], 0);
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Relaxed);
        }
    }
    thread::scope(|scope| {
        // Also where the test fails.
        let _over = Over(&over);
        scope.spawn(|| {
            while !over.load(Relaxed) {
                setting.scan();
                collections.fetch_add(1, Relaxed);
            }
        });
        for seed in 100.. {
            let (made, seen) = setting.on(Stack::Threads, || {
                let program = Program::new(setting, Stack::Threads, seed, CALLS);
                program.caught(|| program.call(0));
                (CALLS - program.calls.get(), program.seen.into_inner().1)
            });
            calls += made;
            left.iter_mut().zip(seen).for_each(|(sum, count)| *sum += count);
            // The thread of one in four ends amid its frames, as one that is cancelled.
            if seed % 4 == 0 {
                end_with_thread(setting, seed, CALLS, CALLS - 1 - made.min(30));
                threads += 1;
            }
            if calls >= 10_000 {
                break;
            }
        }
    });
    assert!(threads > 0 && left.iter().all(|count| *count > 100), "{left:?}, {threads} threads");
    assert!(collections.load(Relaxed) > 0);
    setting.check_at_end();
}
