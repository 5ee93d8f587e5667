//! Starting goroutines, and making parked ones ready.

use super::shared::Runtime;
use super::word::Word;
use crate::goroutine::Goroutine;
use crate::memory::{MIN_STACK, StackError, StackKind, StackMemory};
use crate::os;
use crate::protocol::Status;
use stackmark_asm as asm;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Bytes in use of a new fixed stack.
const FIXED_STACK: usize = 16 << 10;

impl Runtime {
    /// Makes a goroutine that will call `entry(goroutine header, argument)` on a moving stack.
    /// `entry` is managed code of the C convention. The goroutine is Runnable and in no queue.
    /// `argument` is a root until `entry` has begun.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    ///
    /// # Safety
    /// `entry` is managed code that keeps contracts C1 to C6.
    pub unsafe fn spawn(
        &self,
        entry: usize,
        argument: usize,
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
        argument: usize,
    ) -> Result<Arc<Goroutine>, StackError> {
        let memory = match kind {
            StackKind::Moving => self.stacks.take(MIN_STACK)?,
            StackKind::Fixed => {
                let largest = self.config.max_stack.next_multiple_of(os::page_size());
                self.stacks.reserve(FIXED_STACK.min(largest))?
            }
        };
        let goroutine = self.registry.record();
        goroutine.header.entry.store(entry, Ordering::Relaxed);
        goroutine.header.start_arg.store(argument, Ordering::Relaxed);
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
        g.begin_life(self.registry.next_id(), kind);
        let every_poll = self.config.poll_always
            || self.config.move_every_poll
            || self.sink().is_some_and(|sink| sink.sees_every_poll());
        g.every_poll.store(every_poll, Ordering::Relaxed);
        g.header.resume_value.store(0, Ordering::Relaxed);
        g.header.on_exit.store(self.entry_points.goroutine_exit, Ordering::Relaxed);
        g.header.on_uncaught.store(self.entry_points.goroutine_uncaught, Ordering::Relaxed);
        g.publish_bounds(&memory);
        // SAFETY: the stack is fresh and ours; stack sizes keep hi 16-aligned.
        unsafe { asm::prepare(&g.header) };
        *g.memory.lock() = Some(memory);
        g.scanned_in.store(0, Ordering::Relaxed);
        g.dirty.clear();
        g.status.revive(status);
        // Either the scan finds the goroutine alive, or this thread finds the scan begun.
        if self.cycle.has_begun() {
            self.roots(&[g.header.start_arg.load(Ordering::Relaxed)]);
            self.cycle.scanned(g);
        }
        self.registry.count_begun();
        self.statistics.counters.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Makes a parked goroutine ready; its call out returns `value`. The write barrier shades a
    /// reference, which stays alive from now on.
    ///
    /// # Panics
    /// If the goroutine is not parked, or belongs to another runtime: nothing is changed then. If
    /// there is no scheduler.
    pub fn ready(&self, goroutine: Arc<Goroutine>, value: Word) {
        self.assert_own(&goroutine);
        goroutine.status.ready();
        // Not before: a goroutine that runs may begin a callback and park there.
        let own_thread = goroutine.in_callback();
        // The goroutine is in no queue yet, so no thread reads the value before it is stored.
        goroutine.header.resume_value.store(value.bits(), Ordering::Relaxed);
        self.shade(&[value]);
        if own_thread {
            *goroutine.woken.lock() = true;
            goroutine.wake.notify_one();
        } else {
            self.schedule(goroutine);
        }
    }

    /// Replaces the words that native code keeps for a goroutine: values on their way to or from a
    /// parked goroutine. They are roots until [`Runtime::take_transfer`] takes them. The write
    /// barrier shades old and new words.
    ///
    /// # Panics
    /// If the goroutine belongs to another runtime.
    pub fn set_transfer(&self, goroutine: &Goroutine, words: &[Word]) {
        self.assert_own(goroutine);
        goroutine.with_transfer(|transfer| {
            if self.cycle.is_scanning() {
                self.roots(transfer);
            }
            transfer.clear();
            transfer.extend(words.iter().map(|word| word.bits()));
        });
        self.shade(words);
    }

    /// Takes the words that [`Runtime::set_transfer`] has left with a goroutine into `into`,
    /// replacing its contents. The write barrier shades them: the goroutine that takes them may be
    /// scanned already, and the one that they were left with not yet.
    ///
    /// # Panics
    /// If the goroutine belongs to another runtime.
    pub fn take_transfer(&self, goroutine: &Goroutine, into: &mut Vec<usize>) {
        self.assert_own(goroutine);
        into.clear();
        goroutine.with_transfer(|transfer| {
            // Under the transfer's lock: the goroutine's own scan visits the words before or not
            // at all. A cycle that begins later scans the taker with them.
            if self.cycle.is_scanning() {
                self.roots(transfer);
            }
            into.append(transfer);
        });
    }

    /// Shades the references that native code hands to a goroutine: a scan that came before does
    /// not see them.
    fn shade(&self, words: &[Word]) {
        if words.iter().all(|word| word.reference().is_none()) {
            return;
        }
        // Either the scan sees the words, or this thread finds the scan begun.
        if self.cycle.has_begun() {
            let references = words.iter().filter_map(|word| word.reference());
            self.roots(&references.collect::<Vec<_>>());
        }
    }
}
