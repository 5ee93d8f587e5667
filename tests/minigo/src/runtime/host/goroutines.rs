//! Goroutines: their start, their waiting, and the collections that they wait for.

use super::calls::enter;
use super::memory::hold;
use super::picture;
use super::threads::Threads;
use super::world::{Memory, fatal, world};
use crate::runtime::channel::ELEMENT_WORDS;
use crate::runtime::traceback;
use smallvec::SmallVec;
use stackmark::stack::{Caller, Goroutine, Word};
use stackmark::unwind::FrameKind;
use stackmark_asm::layout::GoroutineHeader;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a goroutine waits for, for the message of a deadlock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    Send,
    Receive,
    SendNil,
    ReceiveNil,
    Select,
}

/// Goroutines that are shown at most.
const TRACEBACK_GOROUTINES: usize = 100;
/// Frames of one of them that are looked at.
const TRACEBACK_FRAMES: usize = 10_000;

impl Wait {
    const ALL: [Wait; 5] =
        [Wait::Send, Wait::Receive, Wait::SendNil, Wait::ReceiveNil, Wait::Select];

    /// What a goroutine waits for, if it waits in a queue of ours.
    fn of(goroutine: &Goroutine) -> Option<Wait> {
        // Relaxed: written before it parked.
        Wait::ALL.get(goroutine.user_word().load(Ordering::Relaxed).wrapping_sub(1)).copied()
    }

    /// Go's words for it.
    fn name(self) -> &'static str {
        match self {
            Wait::Send => "chan send",
            Wait::Receive => "chan receive",
            Wait::SendNil => "chan send (nil chan)",
            Wait::ReceiveNil => "chan receive (nil chan)",
            Wait::Select => "select",
        }
    }
}

/// The words of an element: most have few.
pub(crate) type Words = SmallVec<[usize; ELEMENT_WORDS]>;

/// A goroutine that waits in a queue.
pub(crate) struct Waiter(Arc<Goroutine>);

impl Waiter {
    pub(crate) fn current() -> Waiter {
        // SAFETY: natives run on behalf of a goroutine; the caller is used here alone.
        Waiter(unsafe { Caller::current() }.handle())
    }

    /// Replaces the words that are roots for the goroutine. Each may be a reference.
    pub(crate) fn set_transfer(&self, words: &[usize]) {
        set_transfer_of(&self.0, words);
    }

    pub(crate) fn take_transfer(&self) -> Words {
        let mut words = Words::new();
        world().runtime.take_transfer(&self.0, &mut words);
        words
    }

    /// Whether both are the same goroutine.
    pub(crate) fn is(&self, other: &Waiter) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// The result words of its call, which it finds when it goes on. Plain words alone lie there:
    /// no root is looked for in them. Who has taken the goroutine from its queue uses them.
    pub(crate) fn results(&self) -> &[AtomicU64] {
        // SAFETY: the goroutine's header, at the beginning of its record.
        unsafe { &(*(self.0.address() as *const GoroutineHeader)).results }
    }

    /// Makes it ready; its call returns `value`.
    pub(crate) fn wake(self, value: usize) {
        if let Some(threads) = &world().threads {
            threads.wakes();
        }
        world().runtime.ready(self.0, Word::Plain(value));
    }
}

/// Replaces the words that are roots for the current goroutine. Each may be a reference.
pub(crate) fn set_transfer(words: &[usize]) {
    // SAFETY: natives run on behalf of a goroutine; the caller is used here alone.
    set_transfer_of(unsafe { Caller::current() }.goroutine(), words);
}

fn set_transfer_of(goroutine: &Goroutine, words: &[usize]) {
    let words: SmallVec<[Word; ELEMENT_WORDS]> =
        words.iter().map(|&word| Word::Reference(word)).collect();
    world().runtime.set_transfer(goroutine, &words);
}

/// Parks the current goroutine; `publish` lets others wake it. The native ends here.
pub(crate) fn park(why: Wait, publish: impl FnOnce(Waiter)) -> usize {
    // SAFETY: the natives that park own nothing at that point, see their code.
    unsafe {
        let caller = Caller::current();
        caller.goroutine().user_word().store(why as usize + 1, Ordering::Relaxed);
        caller.park(|goroutine| {
            if let Some(threads) = &world().threads {
                threads.sleeps();
            }
            publish(Waiter(goroutine));
        })
    }
}

/// A new goroutine that calls a function object.
pub(crate) fn spawn(object: usize) {
    let w = world();
    if let Some(threads) = &w.threads {
        let held = hold(object);
        let run = move || {
            let _held = held;
            enter(w.entry.load(Ordering::Relaxed), object);
        };
        return threads.spawn(w.options.max_stack, run).unwrap_or_else(|error| fatal(&error));
    }
    // SAFETY: the entry is the managed function that the compiler made for this.
    match unsafe { w.runtime.spawn(w.entry.load(Ordering::Relaxed), Word::Reference(object)) } {
        Ok(g) => w.runtime.schedule(g),
        Err(e) => fatal(&e),
    }
}

pub(crate) fn goroutines() -> usize {
    let w = world();
    w.threads.as_ref().map_or_else(|| w.runtime.live_goroutines(), Threads::goroutines)
}

/// A whole collection. The native ends here.
pub(crate) fn collect() {
    let w = world();
    // SAFETY: natives run on behalf of a goroutine; what this owns moves into the request.
    let caller = unsafe { Caller::current() };
    let collector = match &w.memory {
        Memory::Own { collector, .. } => collector,
        Memory::Other(heap) => return heap.collect(&caller),
    };
    w.scheduler.await_wakeup();
    let publish = move |goroutine: Arc<Goroutine>| {
        collector.request(move || {
            if w.options.picture.is_some() {
                picture::take(&w.runtime, &goroutine);
            }
            w.runtime.ready(goroutine, Word::Plain(0));
            w.scheduler.wakeup_done();
        });
    };
    // SAFETY: as above.
    unsafe { caller.park(publish) };
}

/// The address of the current goroutine's header.
pub(crate) fn current_header() -> usize {
    // SAFETY: used here alone.
    unsafe { Caller::current() }.goroutine().address()
}

/// The current goroutine's number, if this thread runs one.
pub(crate) fn current_id() -> Option<u64> {
    // SAFETY: used here alone.
    Some(unsafe { Caller::try_current() }?.goroutine().id())
}

/// Whether the current goroutine is the program's first.
pub(crate) fn is_main() -> bool {
    current_id() == Some(1)
}

/// The tracebacks of goroutines that wait, for a deadlock.
pub(crate) fn parked_goroutines() -> String {
    let runtime = &world().runtime;
    let mut text = String::new();
    for goroutine in runtime.goroutines().iter().take(TRACEBACK_GOROUTINES) {
        let why = Wait::of(goroutine).map_or("waiting", Wait::name);
        let mut lines = traceback::Lines::of(goroutine.id(), why);
        let walked = runtime.frames(goroutine, TRACEBACK_FRAMES);
        let frames = walked.as_ref().ok().cloned().flatten().unwrap_or_default();
        let managed = frames.iter().filter(|frame| frame.kind == FrameKind::Managed);
        let _ = managed.map(|frame| lines.frame(frame.pc - 1)).find(ControlFlow::is_break);
        text += &lines.finish();
        if let Err(error) = walked {
            let _ = writeln!(text, "the traceback ends: {error}");
        }
        text.push('\n');
    }
    text
}
