//! A traceback of another thread, taken in a signal handler there. For reports of a thread that
//! keeps all others waiting.

use super::sample::trace_interrupted;
use super::traceback::write_lines;
use crate::os;
use crate::runtime::{MachineEntry, Runtime};
use parking_lot::Mutex;
use stackmark_unwind::{Code, RuleCache};
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ops::ControlFlow;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long the other thread has to answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Frames that a report shows.
const SHOWN: usize = 64;
/// Pcs whose rules the walk caches.
const CACHED_PCS: usize = 256;

const IDLE: u32 = 0;
const WANTED: u32 = 1;
const ANSWERING: u32 = 2;
const DONE: u32 = 3;

/// A question to one thread, and its answer. The process has one at a time.
struct Question {
    /// One of the states above. The asker writes the question in IDLE and reads the answer in DONE.
    /// In ANSWERING only the handler uses both. The other fields are Relaxed: `state` orders them.
    state: AtomicU32,
    code: AtomicPtr<Code>,
    cache: UnsafeCell<Option<RuleCache>>,
    count: AtomicUsize,
    pcs: [AtomicUsize; SHOWN],
}

// SAFETY: `state` hands the cache from the asker to the handler and back.
unsafe impl Sync for Question {}

static QUESTION: Question = Question {
    state: AtomicU32::new(IDLE),
    code: AtomicPtr::new(ptr::null_mut()),
    cache: UnsafeCell::new(None),
    count: AtomicUsize::new(0),
    pcs: [const { AtomicUsize::new(0) }; SHOWN],
};

/// The handler, on the thread that is asked. Signal-safe.
unsafe extern "C" fn answer(_signal: i32, _info: *mut c_void, context: *mut c_void) {
    let question = &QUESTION;
    // Acquire: pairs with the Release of WANTED; the question is visible. A handler that comes
    // after the asker has given up finds IDLE.
    let mine =
        question.state.compare_exchange(WANTED, ANSWERING, Ordering::Acquire, Ordering::Relaxed);
    if mine.is_err() {
        return;
    }
    let mut count = 0;
    // SAFETY: the asker keeps the code alive, and leaves the cache to the handler until the state
    // is DONE. The context is what the system says was interrupted.
    unsafe {
        let code = &*question.code.load(Ordering::Relaxed);
        if let Some(cache) = &mut *question.cache.get() {
            trace_interrupted(code, cache, &*os::interrupted(context), |frame| {
                if count == SHOWN {
                    return ControlFlow::Break(());
                }
                // The byte before a return address belongs to the call.
                let pc = frame.pc - usize::from(!frame.exact);
                question.pcs[count].store(pc, Ordering::Relaxed);
                count += 1;
                ControlFlow::Continue(())
            });
        }
    }
    question.count.store(count, Ordering::Relaxed);
    // Release: the answer is visible to the asker.
    question.state.store(DONE, Ordering::Release);
}

/// The functions that the machine's thread is in, innermost first, with file and line where these
/// are known. `None` if the thread does not answer.
pub(crate) fn thread_traceback(runtime: &Runtime, entry: &MachineEntry) -> Option<String> {
    static ASKING: Mutex<()> = Mutex::new(());
    let _asking = ASKING.lock();
    let question = &QUESTION;
    runtime.code.refresh_images();
    let snapshot = runtime.code.snapshot();
    // Read here, because the handler may not read images. Code of an image that
    // cannot be read is not named.
    let _ = snapshot.read_images();
    question.code.store((&raw const *runtime.code).cast_mut(), Ordering::Relaxed);
    // SAFETY: the state is IDLE, so no handler touches the cache.
    unsafe { (*question.cache.get()).get_or_insert_with(|| RuleCache::fixed(CACHED_PCS)) };
    // Release: the question is visible to the handler.
    question.state.store(WANTED, Ordering::Release);
    let begun = Instant::now();
    // SAFETY: the handler is signal-safe.
    let asked = unsafe {
        os::interrupt(entry.thread(), answer, || {
            // Acquire: the answer is visible.
            question.state.load(Ordering::Acquire) == DONE || begun.elapsed() > PATIENCE
        })
    };
    // If the handler has not begun, it cannot begin any more. If it has, it ends soon.
    let withdrawn =
        question.state.compare_exchange(WANTED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    if withdrawn.is_ok() || asked.is_err() {
        return None;
    }
    while question.state.load(Ordering::Acquire) != DONE {
        std::thread::yield_now();
    }
    let count = question.count.load(Ordering::Relaxed);
    let pcs: Vec<usize> =
        question.pcs[..count].iter().map(|pc| pc.load(Ordering::Relaxed)).collect();
    question.state.store(IDLE, Ordering::Relaxed);
    let mut text = String::new();
    write_lines(runtime, &pcs, &mut text);
    Some(text)
}
