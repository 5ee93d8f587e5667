//! What a goroutine is asked to do at its next poll: contract C6.
//!
//! Invariants:
//!
//! 1. The flags are the request, the poll word is their echo: `usize::MAX` whenever a flag is set
//!    and nobody is about to look.
//! 2. Who asks [surely](Asking::Surely) stores the flag, fences, and stores the word. Who rewrites
//!    the word stores it, fences, and looks at the flags: so one of the two leaves the word at
//!    `usize::MAX`, or the rewriter has taken the request.
//! 3. The fence interrupts every thread of the process. Who looks again in a moment asks [in
//!    passing](Asking::InPassing), without it: the word may be lost until then. Before he goes to
//!    sleep he asks surely.

use crate::sync::{AtomicU32, LeftOut, Ordering, heavy_fence, left_out, light_fence};

/// Something that a goroutine is asked to do at its next poll. Bits of one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(pub(crate) u32);

impl Request {
    /// Nothing.
    pub const NONE: Request = Request(0);
    /// Pass a safepoint: a handshake, or the world stops.
    pub const SAFEPOINT: Request = Request(1);
    /// Scan your own stack.
    pub const SCAN: Request = Request(2);
    /// Let others run.
    pub const YIELD: Request = Request(4);

    /// Whether all of `other` is asked for.
    pub fn has(self, other: Request) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What is done so that a request is heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    /// Flag and word are stored. For who asks again soon, or is on the goroutine's own thread,
    /// which rewrites the word afterwards.
    InPassing,
    /// Invariant 2.
    Surely,
}

/// Flags of requests that were made surely lie so much higher.
const SURELY: u32 = 8;

/// The word that managed code compares its stack pointer with. In a model it is not the header's.
pub(crate) trait PollWord {
    fn store(&self, word: usize, order: Ordering);
}

impl PollWord for std::sync::atomic::AtomicUsize {
    fn store(&self, word: usize, order: Ordering) {
        std::sync::atomic::AtomicUsize::store(self, word, order);
    }
}

/// The flags of one goroutine.
#[derive(Debug)]
pub(crate) struct Requests(AtomicU32);

impl Requests {
    pub(crate) fn new() -> Self {
        Requests(AtomicU32::new(0))
    }

    /// A record begins a new life.
    pub(crate) fn forget(&self) {
        // Relaxed: nobody asks a goroutine that has not begun; who asks one that has ended asks in
        // vain.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Asks.
    pub(crate) fn ask(&self, what: Request, asking: Asking, word: &impl PollWord) {
        match asking {
            Asking::InPassing => {
                if self.0.load(Ordering::Relaxed) & what.0 != what.0 {
                    // Release: with the Acquire of `take`, what the asker wrote before it asked is
                    // visible to who does it.
                    self.0.fetch_or(what.0, Ordering::Release);
                }
            }
            Asking::Surely => {
                // Release: as above.
                let asked = self.0.fetch_or(what.0 | what.0 << SURELY, Ordering::Release);
                if asked >> SURELY & what.0 == what.0 {
                    // Nobody has taken it: whoever asked before does the rest, or has done it.
                    return;
                }
                // Invariant 2: pairs with the fence in `rewrite`.
                if !left_out(LeftOut::RequestFence) {
                    heavy_fence();
                }
            }
        }
        word.store(usize::MAX, Ordering::Relaxed);
    }

    /// Whether anything is asked.
    pub(crate) fn any(&self) -> bool {
        // Relaxed: who does what is asked takes it.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Takes what has been asked; followed by [`Requests::rewrite`].
    pub(crate) fn take(&self) -> Request {
        Request(self.0.swap(0, Ordering::AcqRel) & ((1 << SURELY) - 1))
    }

    /// Writes the poll word, `quiet` unless something is asked.
    pub(crate) fn rewrite(&self, word: &impl PollWord, quiet: usize) {
        word.store(quiet, Ordering::Relaxed);
        // Invariant 2: pairs with the fence in `ask`.
        if !left_out(LeftOut::RequestFence) {
            light_fence();
        }
        if self.0.load(Ordering::Relaxed) != 0 {
            word.store(usize::MAX, Ordering::Relaxed);
        }
    }
}

#[cfg(all(test, stackmark_loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicUsize, leave_out};
    use loom::{sync::Arc, thread};

    impl PollWord for AtomicUsize {
        fn store(&self, word: usize, order: Ordering) {
            AtomicUsize::store(self, word, order);
        }
    }

    fn a_request_comes_while_the_word_is_rewritten() {
        loom::model(|| {
            let shared = Arc::new((Requests::new(), AtomicUsize::new(0)));
            let goroutine = shared.clone();
            // Its stack grows, and it polls.
            let thread = thread::spawn(move || {
                let (requests, word) = &*goroutine;
                requests.rewrite(word, 1);
                let taken = requests.take();
                requests.rewrite(word, 2);
                taken.has(Request::SCAN)
            });
            // As who waits for the goroutine does.
            shared.0.ask(Request::SCAN, Asking::InPassing, &shared.1);
            shared.0.ask(Request::SCAN, Asking::Surely, &shared.1);
            let taken = thread.join().unwrap();
            let word = shared.1.load(Ordering::Relaxed);
            assert!(taken || word == usize::MAX, "the request is neither taken nor visible");
        });
    }

    #[test]
    fn loom_no_request_is_lost_while_the_word_is_rewritten() {
        a_request_comes_while_the_word_is_rewritten();
    }

    #[test]
    fn loom_no_request_is_lost_when_two_ask_for_the_same() {
        loom::model(|| {
            let shared = Arc::new((Requests::new(), AtomicUsize::new(0)));
            let [goroutine, other] = [shared.clone(), shared.clone()];
            let runs = thread::spawn(move || {
                let (requests, word) = &*goroutine;
                let taken = requests.take();
                requests.rewrite(word, 1);
                taken.has(Request::SCAN)
            });
            let asks = thread::spawn(move || other.0.ask(Request::SCAN, Asking::Surely, &other.1));
            shared.0.ask(Request::SCAN, Asking::Surely, &shared.1);
            let taken = runs.join().unwrap();
            asks.join().unwrap();
            let word = shared.1.load(Ordering::Relaxed);
            assert!(taken || word == usize::MAX, "the request is neither taken nor visible");
        });
    }

    #[test]
    #[should_panic]
    fn loom_twin_without_fences_loses_a_request() {
        leave_out(LeftOut::RequestFence);
        a_request_comes_while_the_word_is_rewritten();
    }
}
