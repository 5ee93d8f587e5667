//! What a goroutine is asked to do at its next poll: contract C6.
//!
//! Invariants:
//!
//! 1. The flags are the request. The poll word echoes them: it is `usize::MAX` while a flag is set
//!    and the goroutine is not about to read the flags.
//! 2. A [fenced](Signal::Fenced) asker stores the flag, fences, and stores the word. The goroutine
//!    rewrites the word, fences, and reads the flags. So either one of the two leaves the word at
//!    `usize::MAX`, or the goroutine has taken the request.
//! 3. The fence interrupts every thread of the process. An asker that asks again, as long as it
//!    waits, sends a [hint](Signal::Hint) without the fence. The goroutine may miss the flag and
//!    overwrite the word where both are stored while it rewrites the word. The next hint stores the
//!    word again.

use crate::protocol::sync::{AtomicU32, LeftOut, Ordering, heavy_fence, left_out, light_fence};

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

/// How a request is made visible to the goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Flag and word are stored. For an asker that asks again soon, and for the goroutine's own
    /// thread, which rewrites the word afterwards.
    Hint,
    /// Flag and word are stored with a heavy fence between them: invariant 2.
    Fenced,
}

/// A fenced request also sets its flag shifted up by this many bits.
const FENCED_SHIFT: u32 = 8;

/// The word that managed code compares its stack pointer with. In a model it is a loom atomic, not
/// the header's word.
pub(crate) trait PollWord {
    fn load(&self, order: Ordering) -> usize;
    fn store(&self, word: usize, order: Ordering);
}

impl PollWord for std::sync::atomic::AtomicUsize {
    fn load(&self, order: Ordering) -> usize {
        std::sync::atomic::AtomicUsize::load(self, order)
    }

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
        // Relaxed: no thread asks a goroutine that has not begun, and a request to one that has
        // ended has no effect.
        self.0.store(0, Ordering::Relaxed);
    }

    /// Asks.
    pub(crate) fn ask(&self, what: Request, signal: Signal, word: &impl PollWord) {
        match signal {
            Signal::Hint => {
                if self.0.load(Ordering::Relaxed) & what.0 != what.0 {
                    // Release: pairs with the Acquire of `take`. What the asker wrote before is
                    // visible to the goroutine that takes the request. Not so where the flag is set
                    // already: what the goroutine then misses, the asker asks for again.
                    self.0.fetch_or(what.0, Ordering::Release);
                }
                // A word that is read too early is as a store that the goroutine overwrites. Asked
                // again and again, the goroutine keeps the word's cache line.
                if word.load(Ordering::Relaxed) == usize::MAX {
                    return;
                }
            }
            Signal::Fenced => {
                if !self.announce(what) {
                    return;
                }
                fence_requests();
            }
        }
        word.store(usize::MAX, Ordering::Relaxed);
    }

    /// Sets the flags of a fenced request. Followed by the fence, and by a store of the word.
    /// False: the same was asked before and is not taken yet, and the earlier asker does the rest.
    fn announce(&self, what: Request) -> bool {
        // Release: as in `ask`.
        let asked = self.0.fetch_or(what.0 | what.0 << FENCED_SHIFT, Ordering::Release);
        asked >> FENCED_SHIFT & what.0 != what.0
    }

    /// Whether any request is pending.
    pub(crate) fn any(&self) -> bool {
        // Relaxed: the goroutine orders by `take` before it does what is asked.
        self.0.load(Ordering::Relaxed) != 0
    }

    /// Takes what has been asked; followed by [`Requests::rewrite`].
    pub(crate) fn take(&self) -> Request {
        // Acquire: pairs with the Release of `ask`.
        Request(self.0.swap(0, Ordering::Acquire) & ((1 << FENCED_SHIFT) - 1))
    }

    /// Writes the poll word: `quiet`, or `usize::MAX` if a request is pending.
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

/// Asks several goroutines for the same, fenced, with one fence for all.
pub(crate) fn ask_all<'g, W: PollWord + 'g>(
    what: Request,
    goroutines: impl Iterator<Item = (&'g Requests, &'g W)>,
) {
    let words: Vec<_> =
        goroutines.filter(|(requests, _)| requests.announce(what)).map(|(_, word)| word).collect();
    if !words.is_empty() {
        fence_requests();
    }
    for word in words {
        word.store(usize::MAX, Ordering::Relaxed);
    }
}

/// Invariant 2: pairs with the fence in [`Requests::rewrite`].
fn fence_requests() {
    if !left_out(LeftOut::RequestFence) {
        heavy_fence();
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
