//! One cycle, from start to end.
//!
//! 1. The rest of the last cycle's garbage is swept.
//! 2. The write barrier goes on, and every machine hears of it: a handshake. Only then
//! 3. what is allocated is black, and only then
//! 4. the first stack is scanned. (If a goroutine could be scanned while another does not have the barrier on yet, the other
//!    one could hide an object behind it.) Each goroutine is scanned once: held, or by itself at a poll. The workers mark
//!    from the roots meanwhile, and from the globals and handles.
//! 5. When there is nothing left to trace, the world stops. Goroutines that have run since their scan are looked at again, up to
//!    the owner of their lowest unhit barrier; what that and the write barrier's buffers add is traced, and marking is
//!    complete. The barrier goes off, what is unmarked is condemned, and the world goes on.
//! 6. Sweeping, while the world runs.

use std::sync::Arc;
use std::time::Instant;

use crate::collector::{CycleError, Inner, gather};
use crate::heap::Heap;
use crate::stats::CycleStats;
use crate::verify::Verifier;
use crate::write_barrier::Sink;

/// How often the buffers of the write barrier are emptied, at most, before the world stops all the same.
const ROUNDS: usize = 4;

impl<H: Heap> Inner<H> {
    /// Runs cycles until told to leave.
    pub(crate) fn run(&self) {
        while let Some(cycle) = self.requests.next() {
            if let Err(error) = self.cycle(cycle) {
                let error = Arc::new(error);
                self.give_up();
                (self.options.on_failure)(&error);
                self.requests.fail(&error);
            } else {
                self.requests.complete();
            }
        }
    }

    fn cycle(&self, number: u64) -> Result<(), CycleError> {
        let (runtime, heap) = (&self.runtime, &*self.heap);
        heap.finish_sweep();
        let begun = Instant::now();

        self.barrier.turn_on();
        runtime.handshake();
        heap.begin_cycle();
        let allocated_before = heap.counts().allocated_bytes;
        runtime.begin_scanning(number);
        self.marker.open();

        runtime.scan_goroutines()?;
        self.globals.visit(|words| self.marker.shared().shade(words));
        // A handle's part of the table is locked: the words are only queued there.
        self.handles.visit(|words| self.marker.shared().take(words.to_vec()));
        for _ in 0..ROUNDS {
            self.marker.drain();
            if !self.barrier.take_buffers() {
                break;
            }
        }

        let stop_begun = Instant::now();
        let mut stopped = runtime.stop_world();
        let time_to_stop = stop_begun.elapsed();
        let rescanned = stopped.rescan()?;
        self.barrier.take_buffers();
        self.marker.drain();
        if self.options.verify {
            self.verify(&mut stopped)?;
        }
        stopped.end_scanning();
        self.barrier.turn_off();
        let marked = self.marker.close();
        heap.end_cycle(marked);
        let allocated_meanwhile = heap.counts().allocated_bytes.saturating_sub(allocated_before);
        let (trigger, goal) = {
            let mut pace = self.pace.lock();
            pace.cycle(heap.counts().live_bytes as usize, allocated_meanwhile as usize);
            (pace.trigger(), pace.goal())
        };
        heap.set_trigger(trigger);
        drop(stopped);

        let (longest_hold_ns, deepest_frames) = runtime.take_cycle_maxima();
        self.record(CycleStats {
            deepest_frames,
            rescanned: rescanned.frames,
            skipped: rescanned.skipped,
            world_stop_ns: stop_begun.elapsed().as_nanos() as u64,
            time_to_stop_ns: time_to_stop.as_nanos() as u64,
            longest_hold_ns,
            mark_ns: begun.elapsed().as_nanos() as u64,
            objects_marked: marked.objects,
            bytes_marked: marked.bytes,
            allocated_meanwhile,
        });
        runtime.stacks().trim();
        heap.finish_sweep();
        self.pace.lock().set_live(heap.counts().live_bytes as usize);
        // What the system may have back is what the heap will not need before the next cycle.
        heap.release(goal.saturating_add(goal / 10));
        Ok(())
    }

    /// Walks everything again, with the world stopped.
    fn verify(&self, stopped: &mut stackmark_stack::WorldStopped) -> Result<(), CycleError> {
        let roots = gather(|| stopped.visit_all().map(drop))?;
        let mut verifier = Verifier::new(&*self.heap);
        verifier.roots(&roots);
        self.globals.visit(|words| verifier.roots(words));
        self.handles.visit(|words| verifier.roots(words));
        verifier.finish()?;
        Ok(())
    }

    /// After a failure: the world goes on with the barrier off, but what is garbage stays, and black allocation stays on.
    fn give_up(&self) {
        self.marker.open();
        let mut stopped = self.runtime.stop_world();
        stopped.end_scanning();
        self.barrier.turn_off();
        self.barrier.take_buffers();
        self.marker.drain();
        self.marker.close();
    }
}
