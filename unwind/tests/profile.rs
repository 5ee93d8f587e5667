//! A profiler: traces from a SIGPROF handler at 1 kHz, while code is registered and unregistered by
//! another thread.
//!
//! It has a file of its own, because the timer is for the whole process.
mod support;

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use stackmark_unwind::{Code, LiveMemory, RegisterSet, RuleCache, Unwinder};

/// The handler's state. Only the one thread that takes the signals uses it.
struct Profiler {
    code: *const Code,
    cache: RuleCache,
    stack: std::ops::Range<usize>,
    depths: Vec<usize>,
}

static PROFILER: AtomicPtr<Profiler> = AtomicPtr::new(std::ptr::null_mut());
static SAMPLES: AtomicUsize = AtomicUsize::new(0);
static BROKEN: AtomicUsize = AtomicUsize::new(0);
/// The pcs of the last and of the first frame of a trace that did not end.
static WHERE: [AtomicUsize; 2] = [const { AtomicUsize::new(0) }; 2];

extern "C" fn on_tick(
    _signal: i32,
    _info: *mut libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    // Acquire: pairs with the Release of the thread that set it, so that its contents are seen.
    let profiler = PROFILER.swap(std::ptr::null_mut(), Ordering::Acquire);
    if profiler.is_null() {
        return;
    }
    // SAFETY: the pointer is taken out, so this handler has it alone until it is put back. The test
    // keeps it alive.
    let (state, interrupted) = unsafe { (&mut *profiler, &*interrupted) };
    let context = RegisterSet::interrupted(interrupted);
    if state.stack.contains(&context.sp()) {
        // SAFETY: the stack is that of the interrupted thread, mapped from its stack pointer on.
        let (code, memory) =
            unsafe { (&*state.code, LiveMemory::new(context.sp() - 128..state.stack.end)) };
        let snapshot = code.snapshot();
        let mut trace = Unwinder::new(&snapshot, &mut state.cache, memory, (), context);
        let (mut depth, mut last) = (0, context.pc());
        let ended = loop {
            match trace.next_frame() {
                Ok(Some(frame)) => (depth, last) = (depth + 1, frame.return_address),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        // Relaxed: read when the timer is off.
        SAMPLES.fetch_add(1, Ordering::Relaxed);
        if !ended {
            BROKEN.fetch_add(1, Ordering::Relaxed);
            WHERE[0].store(context.pc(), Ordering::Relaxed);
            WHERE[1].store(last, Ordering::Relaxed);
        } else if state.depths.len() < state.depths.capacity() {
            state.depths.push(depth);
        }
    }
    // Release: see above.
    PROFILER.store(profiler, Ordering::Release);
}

/// Recurses, and works at all depths: in its own code, the allocator's and the formatter's.
#[inline(never)]
fn work(depth: usize) -> usize {
    let text = format!("{depth} {:?}", vec![depth; 3]);
    let below = if depth == 0 { 0 } else { work(depth - 1) };
    black_box(text).len() + black_box(below)
}

fn tick(microseconds: libc::suseconds_t) {
    let time = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: time, it_value: time };
    assert_eq!(
        // SAFETY: a valid timer.
        unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, std::ptr::null_mut()) },
        0
    );
}

#[test]
fn every_sample_of_a_profiler_ends_at_the_threads_own_entry() {
    let code = Code::new();
    code.refresh_images();
    code.snapshot().read_images().unwrap();
    let stop = AtomicBool::new(false);
    let depths = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Relaxed: only the flag matters.
            while !stop.load(Ordering::Relaxed) {
                let region = support::region(0x10_0000, &[&[(0x20, 32, &[0])]]);
                let id = code.register(region).unwrap();
                code.unregister(id).unwrap();
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let profiled = scope.spawn(|| {
            // SAFETY: the attributes are initialised by the first call.
            let stack = unsafe {
                let mut attributes = std::mem::zeroed();
                assert_eq!(libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes), 0);
                let (mut start, mut size) = (std::ptr::null_mut::<c_void>(), 0);
                assert_eq!(
                    libc::pthread_attr_getstack(
                        &raw const attributes,
                        &raw mut start,
                        &raw mut size
                    ),
                    0
                );
                libc::pthread_attr_destroy(&raw mut attributes);
                start as usize..start as usize + size
            };
            let cache = RuleCache::fixed(4096);
            let mut profiler = Profiler {
                code: &raw const code,
                cache,
                stack,
                depths: Vec::with_capacity(10_000),
            };
            // Not on the thread's alternate stack, which Rust makes smaller than a trace in a debug
            // build needs. SAFETY: the handler does only what may be done in one.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_tick as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
                assert_eq!(
                    libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut()),
                    0
                );
            }
            // Release: pairs with the Acquire of the handler.
            PROFILER.store(&raw mut profiler, Ordering::Release);
            tick(1000);
            let begun = Instant::now();
            while SAMPLES.load(Ordering::Relaxed) < 300 && begun.elapsed() < Duration::from_secs(30)
            {
                black_box(work(black_box(40)));
            }
            tick(0);
            // A handler that still runs has the pointer.
            while PROFILER.swap(std::ptr::null_mut(), Ordering::Acquire).is_null() {
                std::thread::yield_now();
            }
            profiler.depths
        });
        let depths = profiled.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        depths
    });
    let (samples, broken) = (SAMPLES.load(Ordering::Relaxed), BROKEN.load(Ordering::Relaxed));
    let [from, to] = [0, 1].map(|i| WHERE[i].load(Ordering::Relaxed));
    assert_eq!(broken, 0, "of {samples} samples; one from {from:#x} stopped at {to:#x}");
    assert!(
        samples > 0 && depths.iter().any(|depth| *depth > 20),
        "{samples} samples, depths {depths:?}"
    );
}
