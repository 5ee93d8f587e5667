//! Starting goroutines, and making parked ones ready.

use super::shared::Runtime;
use crate::alarm;
use crate::goroutine::{Goroutine, Transfer};
use crate::memory::{StackError, StackKind, StackMemory};
use crate::os;
use crate::protocol::Status;
use crate::word::Word;
use stackmark_asm as asm;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes in use of a new fixed stack.
const FIXED_STACK: usize = 16 << 10;

impl Runtime {
    /// Makes a goroutine that will call `entry(goroutine header, argument)` on a moving stack.
    /// `entry` is managed code of the C convention. The goroutine is Runnable and in no queue.
    /// `argument` is a root until `entry` has begun: see [`Word`].
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    ///
    /// # Safety
    /// `entry` is managed code that keeps contracts C1 to C6.
    pub unsafe fn spawn(
        &self,
        entry: usize,
        argument: impl Into<Word>,
    ) -> Result<Arc<Goroutine>, StackError> {
        // SAFETY: the caller's contract is that of a moving stack.
        unsafe { self.spawn_on(StackKind::Moving, entry, argument) }
    }

    /// As [`Runtime::spawn`], on a stack of this kind.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`], also where no range can be reserved for a fixed stack.
    ///
    /// # Safety
    /// `entry` is managed code that keeps the contracts which the kind asks for.
    pub unsafe fn spawn_on(
        &self,
        kind: StackKind,
        entry: usize,
        argument: impl Into<Word>,
    ) -> Result<Arc<Goroutine>, StackError> {
        // Before the locks below: in the child of a fork, a thread that is not there may hold them.
        alarm::check_fork();
        let memory = match kind {
            StackKind::Moving => self.stacks.take(self.config.first_stack())?,
            StackKind::Fixed => {
                let largest = self.config.max_stack.next_multiple_of(os::page_size());
                self.stacks.reserve(FIXED_STACK.min(largest))?
            }
        };
        let goroutine = self.registry.record();
        goroutine.header.entry.store(entry, Ordering::Relaxed);
        goroutine.set_argument(argument.into());
        self.bring_to_life(&goroutine, kind, memory, Status::Runnable);
        Ok(goroutine)
    }

    /// Brings a dead record, to which no other handle exists, to life on a fresh stack.
    pub(crate) fn bring_to_life(
        &self,
        g: &Goroutine,
        kind: StackKind,
        memory: StackMemory,
        status: Status,
    ) {
        self.begin_life(g, kind);
        g.publish_bounds(&memory);
        // SAFETY: the stack is fresh and ours; stack sizes keep hi 16-aligned.
        unsafe { asm::prepare(&g.header) };
        *g.memory.lock() = Some(memory);
        self.revive(g, status);
    }

    /// Brings a dead record, to which no other handle exists, to life on this thread's stack, at
    /// these addresses. It is InForeign.
    pub(crate) fn bring_to_life_on_thread(
        &self,
        g: &Goroutine,
        stack: Range<usize>,
        oldest_frame: Option<usize>,
    ) {
        g.header.entry.store(0, Ordering::Relaxed);
        g.set_argument(Word::Plain(0));
        self.begin_life(g, StackKind::Fixed);
        g.begin_on_thread(stack, oldest_frame);
        self.revive(g, Status::Foreign);
    }

    fn begin_life(&self, g: &Goroutine, kind: StackKind) {
        g.begin_life(self.registry.next_id(), kind);
        let every_poll = self.config.poll_always
            || self.config.move_every_poll
            || self.sink().is_some_and(|sink| sink.sees_every_poll());
        g.every_poll.store(every_poll, Ordering::Relaxed);
        g.set_resume_value(Word::Plain(0));
        g.header.on_exit.store(self.entry_points.goroutine_exit, Ordering::Relaxed);
        g.header.on_uncaught.store(self.entry_points.goroutine_uncaught, Ordering::Relaxed);
    }

    /// Makes a record that is ready for it a living goroutine.
    fn revive(&self, g: &Goroutine, status: Status) {
        g.scanned_in.store(0, Ordering::Relaxed);
        g.dirty.clear();
        g.status.revive(status);
        // Either the scan finds the goroutine alive, or this thread finds the scan begun.
        if self.cycle.has_begun() {
            self.give_roots(&[g.argument()]);
            self.cycle.scanned(g);
        }
    }

    /// Makes a parked goroutine ready; its call out returns `value`. The write barrier shades a
    /// reference, which stays alive from now on.
    ///
    /// # Panics
    /// If the goroutine is not parked, or belongs to another runtime: nothing is changed then. If
    /// there is no scheduler.
    pub fn ready(&self, goroutine: Arc<Goroutine>, value: Word) {
        alarm::check_fork();
        self.assert_own(&goroutine);
        goroutine.status.ready();
        // Not before: a goroutine that runs may begin a callback and park there.
        let own_thread = goroutine.in_callback();
        // The goroutine is in no queue yet, so it does not read the value before it is stored. A
        // scan in a stopped world may, and finds 0 then: it was stored when the goroutine parked.
        goroutine.set_resume_value(value);
        self.shade(&[value]);
        if own_thread {
            *goroutine.woken.lock() = true;
            goroutine.wake.notify_one();
        } else {
            self.give_to_scheduler(goroutine);
        }
    }

    /// Replaces the words that native code keeps for a goroutine: values on their way to or from a
    /// parked goroutine. They are roots until [`Runtime::take_transfer`] takes them. The write
    /// barrier shades old and new words. Waits while a stopped world has given away the places of
    /// such words: see [`CycleStopped::begin_slots`](crate::CycleStopped::begin_slots).
    ///
    /// # Panics
    /// If the goroutine belongs to another runtime. On the thread that has stopped such a world.
    pub fn set_transfer(&self, goroutine: &Goroutine, words: &[Word]) {
        self.with_transfer_of(goroutine, |transfer| {
            transfer.clear();
            transfer.extend_from_slice(words);
        });
        self.shade(words);
    }

    /// Takes the words that [`Runtime::set_transfer`] has left with a goroutine, and adds them to
    /// `into`, under a lock. The write barrier shades them: the goroutine that takes them may be
    /// scanned already, and the one that they were left with not yet. Waits as
    /// [`Runtime::set_transfer`] does.
    ///
    /// # Panics
    /// As [`Runtime::set_transfer`].
    pub fn take_transfer(&self, goroutine: &Goroutine, into: &mut impl Extend<usize>) {
        self.with_transfer_of(goroutine, |transfer| {
            into.extend(transfer.drain(..).map(Word::bits));
        });
    }

    /// Calls `f` with the words of a goroutine's transfer, which the write barrier shades before.
    fn with_transfer_of(&self, goroutine: &Goroutine, f: impl FnOnce(&mut Transfer)) {
        self.assert_own(goroutine);
        let mut f = Some(f);
        loop {
            let lent = goroutine.with_transfer(|transfer| {
                // Under the transfer's lock: a scan that has given its places away came before.
                if self.cycle.has_lent_slots() {
                    return true;
                }
                // Under the lock, too: the goroutine's own scan visits the words before or not at
                // all. A cycle that begins later scans the taker with them.
                if self.cycle.is_scanning() {
                    self.give_roots(transfer);
                }
                f.take().into_iter().for_each(|f| f(transfer));
                false
            });
            if !lent {
                return;
            }
            self.wait_for_stopped_world();
        }
    }

    /// Gives words to the collector that may be references.
    fn give_roots(&self, words: &[Word]) {
        let references = words.iter().filter_map(|word| word.reference());
        self.roots(&references.collect::<Vec<_>>());
    }

    /// Shades the references that native code hands to a goroutine: a scan that came before does
    /// not see them.
    fn shade(&self, words: &[Word]) {
        if words.iter().all(|word| word.reference().is_none()) {
            return;
        }
        // Either the scan sees the words, or this thread finds the scan begun.
        if self.cycle.has_begun() {
            self.give_roots(words);
        }
    }
}
