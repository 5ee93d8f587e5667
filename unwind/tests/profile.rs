//! A profiler: traces from a SIGPROF handler at 1 kHz, while code is registered and unregistered by
//! another thread.
//!
//! It has a file of its own, because the timer is for the whole process.
// Native code for armv7 has no CFI.
#![cfg(not(target_arch = "arm"))]
// Windows has no signals: tests/windows.rs stops threads.
#![cfg(not(windows))]

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
    /// Of traces that did not end: the interrupted pc, and that of the last frame.
    broken: Vec<(usize, usize)>,
}

static PROFILER: AtomicPtr<Profiler> = AtomicPtr::new(std::ptr::null_mut());
static SAMPLES: AtomicUsize = AtomicUsize::new(0);

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
        if ended && state.depths.len() < state.depths.capacity() {
            state.depths.push(depth);
        }
        if !ended && state.broken.len() < state.broken.capacity() {
            state.broken.push((context.pc(), last));
        }
    }
    // Release: see above.
    PROFILER.store(profiler, Ordering::Release);
}

/// Whether the CFI at `pc` is known to be wrong: on i686 that of code that is not the program's own
/// (the C library's assembly pushes without a row; the kernel has none for the code that reads the
/// clock), and LLVM's for the instruction behind a call that has popped arguments.
fn is_wrong(code: &Code, pc: usize) -> bool {
    if cfg!(not(target_arch = "x86")) {
        return false;
    }
    let snapshot = code.snapshot();
    let name = |pc: usize| snapshot.image(pc).map(|image| image.name().to_owned());
    let is_own = name(pc) == name(is_wrong as *const () as usize);
    // SAFETY: code of this program.
    !is_own || matches!(unsafe { *(pc as *const [u8; 2]) }, [0x81 | 0x83, 0xec])
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
    let (depths, mut broken) = std::thread::scope(|scope| {
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
                broken: Vec::with_capacity(10_000),
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
            (profiler.depths, profiler.broken)
        });
        let found = profiled.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        found
    });
    let samples = SAMPLES.load(Ordering::Relaxed);
    broken.retain(|(pc, _)| !is_wrong(&code, *pc));
    assert!(broken.is_empty(), "of {samples} samples: from and to {broken:x?}");
    assert!(
        depths.len() * 2 > samples && depths.iter().any(|depth| *depth > 20),
        "{samples} samples, depths {depths:?}"
    );
}
