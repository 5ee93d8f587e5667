//! What the model expects of the real stack, after each step and at the end of each scan.

use super::code::FUNCTIONS;
use super::{CALL_SYSTEM, Frame, Local, Model, WORD};
use crate::memory::MAX_FRAME;
use crate::runtime::RootSink;
use crate::scan::{self, Extent};
use stackmark_asm as asm;
use std::sync::atomic::Ordering::Relaxed;

impl Model {
    /// The references in the frames from `first` on.
    pub(super) fn references(&self, first: usize) -> Vec<usize> {
        let mut words: Vec<_> =
            self.references_of_frames(first).into_iter().map(|(_, word)| word).collect();
        words.sort_unstable();
        words
    }

    /// The same, each with the index of its frame.
    pub(super) fn references_of_frames(&self, first: usize) -> Vec<(usize, usize)> {
        let locals = self.frames.iter().enumerate().skip(first).flat_map(|(i, frame)| {
            let locals = match frame {
                Frame::Managed { locals, .. } => &locals[..],
                Frame::Callback { .. } => &[],
            };
            locals.iter().map(move |local| (i, local))
        });
        locals
            .filter(|(_, local)| matches!(local, Local::Reference(1..)))
            .map(|(i, local)| (i, self.word(*local)))
            .collect()
    }

    pub(super) fn take_collected(&self) -> Vec<usize> {
        let mut found = std::mem::take(&mut *self.collected.0.lock());
        found.sort_unstable();
        found
    }

    /// Checks that a complete scan has found exactly the expected roots, and of frames that were
    /// left before it came to them any.
    pub(super) fn compare(&mut self) {
        if self.goroutine.scan_lock().is_complete()
            && let Some(expected) = self.expected.take()
        {
            let mut found = self.take_collected();
            let mut expected: Vec<_> = expected.into_iter().map(|(_, word)| word).collect();
            expected.sort_unstable();
            for word in std::mem::take(&mut self.optional) {
                let surplus = |words: &[usize]| words.iter().filter(|w| **w == word).count();
                if surplus(&found) > surplus(&expected) {
                    found.remove(found.binary_search(&word).expect("just counted"));
                }
            }
            assert_eq!(found, expected);
        }
    }

    /// Visits all frames.
    pub(super) fn verify(&mut self) {
        self.finish();
        let to = |words: &[usize]| self.collected.roots(words);
        let scan = self.goroutine.scan_lock();
        // SAFETY: the lock is ours, the goroutine stands still.
        unsafe { scan::visit(&self.runtime, &self.goroutine, &scan, Extent::Verify, &to) }
            .expect("a true stack");
        assert_eq!(self.take_collected(), self.references(0));
    }

    pub(super) fn check(&self) {
        let sched = &self.goroutine.header.sched;
        assert_eq!(self.hi() - sched.sp.load(Relaxed), self.sp() + CALL_SYSTEM);
        assert_eq!(sched.fp.load(Relaxed), self.fp_value(self.frames.len()));
        let true_return = |found| asm::barrier::original(found).unwrap_or(found);
        assert_eq!(
            self.read(self.sp() + WORD),
            self.return_of(self.frames.len()),
            "no barrier under call_system"
        );
        for (i, frame) in self.frames.iter().enumerate() {
            let Frame::Managed { depth, locals, .. } = frame else { continue };
            for (at, local) in locals.iter().enumerate() {
                assert_eq!(
                    self.read(depth - at * WORD),
                    self.word(*local),
                    "local {at} of frame {i}: {local:?}"
                );
            }
            assert_eq!(
                self.read(self.fp(i)),
                self.fp_value(i),
                "the saved frame pointer of frame {i}"
            );
            assert_eq!(
                true_return(self.read(self.fp(i) - WORD)),
                self.return_of(i),
                "the return slot of frame {i}"
            );
        }
        // SAFETY: the lock is ours, the goroutine stands still.
        unsafe { scan::check(&self.goroutine, &self.goroutine.scan_lock()) };
    }

    /// Checks invariant 12.
    pub(super) fn check_bound(&self) {
        if self.bounded && self.is_plain() {
            let scan = self.goroutine.scan_lock();
            let young = self.sp() - scan.limit().map_or(0, |(depth, _)| depth);
            let most = self.runtime.config().young_bound().most;
            assert!(young <= most + MAX_FRAME, "{young} bytes of young frames");
        }
    }

    /// Whether each frame may have a barrier.
    pub(super) fn is_plain(&self) -> bool {
        self.frames.iter().all(|frame| match frame {
            Frame::Managed { function, .. } => *function != FUNCTIONS - 1,
            Frame::Callback { .. } => false,
        })
    }
}
