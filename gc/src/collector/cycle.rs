//! One cycle: prepare, mark, terminate. The parent module describes the steps.

use std::time::{Duration, Instant};

use stackmark_stack::{
    Activity, CycleDriver, CycleFigures, CycleStopped, NextCycle, ScanError, ScanScope, Straggler,
    Visited,
};

use super::phases::{self, Closed, Closing, Completing, Opening};
use super::plan::{Plan, Planner, Rescan};
use super::state::CollectorState;
use crate::bytes::in_memory;
use crate::generation::Generation;
use crate::handle::Handle;
use crate::heap::{BY_COLLECTOR, Heap, Marked};
use crate::mark::Marker;
use crate::pace::CycleMeasurement;
use crate::stats::{CycleStats, ThreadStats};
use crate::verify::{RootKind, UnmarkedObject, Verifier};
use crate::weak::Callback;

/// How often, at most, the write barrier's buffers are emptied before the world stops. What is
/// traced before need not be traced then.
const DRAIN_ROUNDS: usize = 4;

/// So many goroutines that have run since their scan may be left for the stopped world. Of each it
/// visits [`CycleDriver::YOUNG_BYTES`] of frames at most.
const FEW_GOROUTINES: usize = 16;

/// A minor cycle that has marked for a shorter time leaves what few goroutines have done meanwhile
/// to the stopped world.
const BRIEF_MARK: Duration = Duration::from_micros(50);

/// How often, at most, goroutines that have run since their scan are scanned again. They help with
/// it, so the second time there are few.
const RESCAN_ROUNDS: usize = 4;

/// Why a cycle cannot be completed. The host is told and ends the process: roots are never skipped.
#[derive(Debug, thiserror::Error)]
pub(super) enum CycleError {
    #[error(transparent)]
    Scan(#[from] ScanError),
    #[error("cycle {cycle}: {error}")]
    Unmarked { cycle: u64, error: UnmarkedObject },
}

/// Callbacks to be called, each with the unreachable object that it was registered for.
pub(super) type DueCallbacks = Vec<(Handle, Callback)>;

/// A cycle that runs.
pub(super) struct Cycle<'a, H: Heap> {
    collector: &'a CollectorState<H>,
    stacks: &'a mut CycleDriver,
    marker: &'a mut Marker<H>,
    planner: &'a mut Planner,
    number: u64,
    plan: Plan,
    begun: Instant,
    /// The heap's `allocated_since_cycle` when allocation became black.
    allocated_before: usize,
    /// The goroutine that answered the first handshake last.
    answered_last: Option<Straggler>,
}

impl<'a, H: Heap> Cycle<'a, H> {
    /// Begins the cycle with this number. The last sweep is complete.
    pub(super) fn begin(
        collector: &'a CollectorState<H>,
        stacks: &'a mut CycleDriver,
        marker: &'a mut Marker<H>,
        planner: &'a mut Planner,
        number: u64,
        wanted: Generation,
    ) -> Cycle<'a, H> {
        collector.runtime.take_cycle_figures();
        let begun = Instant::now();
        let live = in_memory(collector.heap.counts().live_bytes);
        let size = live.saturating_add(collector.heap.allocated_since_cycle());
        let plan = planner.plan(wanted, live, size);
        Cycle {
            collector,
            stacks,
            marker,
            planner,
            number,
            plan,
            begun,
            allocated_before: 0,
            answered_last: None,
        }
    }

    /// Runs it to its end. Returns the plan that it followed and the callbacks that are due.
    pub(super) fn run(mut self) -> Result<(Plan, DueCallbacks), CycleError> {
        let _span = self.collector.runtime.observed().span(Activity::Cycle, 0);
        let (clears_marks, forgets) = (self.plan.clears_marks, self.plan.forgets_remembered);
        phases::open(&mut self, clears_marks, forgets);
        self.mark()?;
        let due = self.terminate()?;
        Ok((self.plan, due))
    }

    /// Shades the roots and traces, while the world runs.
    fn mark(&mut self) -> Result<(), ScanError> {
        let CollectorState { marking, globals, handles, .. } = self.collector;
        let short =
            self.plan.short_scans && self.stacks.begin_scanning(self.number, ScanScope::Short);
        if !short {
            let begun = self.stacks.begin_scanning(self.number, ScanScope::Whole);
            debug_assert!(begun, "whole scans go on from nothing");
        }
        if self.plan.rescan == Rescan::IfLongOrMany {
            self.stacks.bound_rescans();
        }
        globals.visit(|words| marking.shade(words));
        handles.visit(|words| marking.shade(words));
        self.stacks.scan_goroutines(|| self.marker.drain_backlog())?;
        let scanned = Instant::now();
        self.drain();
        self.rescan(scanned.elapsed())
    }

    /// Scans the frames that have run since their scan, so that few are left to the stopped world:
    /// of few goroutines, a bounded number of each. Marking has taken `marked` so far.
    fn rescan(&mut self, marked: Duration) -> Result<(), ScanError> {
        let mut rounds = match self.plan.rescan {
            Rescan::Never => return Ok(()),
            Rescan::IfLongOrMany => usize::from(marked >= BRIEF_MARK),
            Rescan::Once => 1,
        };
        for round in 0..RESCAN_ROUNDS {
            if round >= rounds && self.stacks.dirty_goroutines() <= FEW_GOROUTINES {
                break;
            }
            rounds = 0;
            self.stacks.rescan_concurrently()?;
            self.drain();
        }
        Ok(())
    }

    /// Marks until there is nothing left to trace, or little.
    fn drain(&mut self) {
        let collector = self.collector;
        for _ in 0..DRAIN_ROUNDS {
            let more = collector.barrier.take_buffers()
                | collector.weak.shade_values(|word| collector.is_marked(word));
            self.marker.drain();
            if !more {
                break;
            }
        }
    }

    /// Completes marking in a stopped world, and clears the weak references while the world runs
    /// again.
    fn clear_weak(&mut self) -> Result<Cleared, CycleError> {
        let collector = self.collector;
        let marker = &mut *self.marker;
        let pause = collector.runtime.observed().span(Activity::Pause, 0);
        let stopping = Instant::now();
        let rescans = self.plan.rescan != Rescan::Never;
        let (rescanned, held) = self.stacks.stop_world(|world| {
            let mut end = EndOfMarking { collector, marker, world, rescans };
            let rescanned = phases::complete(&mut end)?;
            Ok::<_, CycleError>((rescanned, collector.weak.hold(|| end.drain())))
        })?;
        let world_stop = stopping.elapsed();
        drop(pause);
        // There is no marking left to help with.
        collector.assists.end();
        let due = collector.weak.clear(held, |word| collector.is_marked(word), || marker.drain());
        // What scans that began meanwhile have left.
        marker.drain();
        Ok(Cleared { due, stop: FirstStop { rescanned, nanos: nanos(world_stop) } })
    }

    /// Stops the world, completes the marking and condemns what is unmarked.
    fn terminate(&mut self) -> Result<DueCallbacks, CycleError> {
        let collector = self.collector;
        let cleared = if collector.weak.is_large() { Some(self.clear_weak()?) } else { None };
        let (marker, planner) = (&mut *self.marker, &mut *self.planner);
        let (number, plan, begun) = (self.number, &self.plan, self.begun);
        let allocated_before = self.allocated_before;
        let runtime = &*collector.runtime;
        // What has been marked by then is all, and so there is nothing to visit again.
        let rescans = plan.rescan != Rescan::Never && cleared.is_none();
        let (due, earlier) = cleared.map(|cleared| (cleared.due, cleared.stop)).unzip();
        let pause = runtime.observed().span(Activity::Pause, 0);
        let stopping = Instant::now();
        let stopped = self.stacks.stop_world(|world| {
            let time_to_stop = stopping.elapsed();
            let straggler = world.straggler();
            let mut ending = Ending {
                end: EndOfMarking { collector, marker, world, rescans },
                due,
                planner,
                number,
                plan,
                begun,
                allocated_before,
                measured: CycleMeasurement::default(),
                figures: CycleFigures::default(),
            };
            let Closed { visited: rescanned, due, marked } = phases::close(&mut ending)?;
            let (measured, figures) = (ending.measured, ending.figures);
            Ok::<_, CycleError>((
                time_to_stop,
                straggler,
                rescanned,
                due,
                marked,
                measured,
                figures,
            ))
        });
        let (time_to_stop, stopped_last, rescanned, due, marked, measured, figures) = stopped?;
        let CycleFigures { longest_hold_ns, deepest_frames, .. } = figures;
        drop(pause);
        let world_stop = nanos(stopping.elapsed());
        self.stacks.let_go();
        runtime.trim_stacks();
        let (rescanned, world_stop) = earlier.map_or((rescanned, world_stop), |earlier| {
            collector.record_stop(earlier.nanos.min(world_stop));
            (earlier.rescanned, earlier.nanos.max(world_stop))
        });
        self.collector.record(CycleStats {
            minor: self.plan.is_minor(),
            deepest_frames,
            rescanned: rescanned.frames,
            skipped: rescanned.skipped,
            world_stop_ns: world_stop,
            time_to_stop_ns: nanos(time_to_stop),
            stopped_last,
            answered_last: self.answered_last,
            longest_hold_ns,
            mark_ns: measured.mark_ns,
            objects_marked: marked.objects,
            bytes_marked: marked.bytes,
            allocated_meanwhile: measured.allocated as u64,
            assisted: self.collector.assists.assisted(),
            threads: ThreadStats::default(),
        });
        Ok(due)
    }
}

impl<H: Heap> Opening for Cycle<'_, H> {
    fn clear_marks(&mut self) {
        self.collector.heap.clear_marks(BY_COLLECTOR);
    }

    fn turn_on(&mut self) {
        self.collector.barrier.turn_on();
    }

    fn handshake(&mut self) {
        let _span = self.collector.runtime.observed().span(Activity::Handshake, 0);
        self.answered_last = self.stacks.handshake();
    }

    fn forget_remembered(&mut self) {
        self.collector.barrier.forget_remembered();
    }

    fn blacken_allocation(&mut self) {
        let CollectorState { heap, assists, .. } = self.collector;
        self.allocated_before = heap.allocated_since_cycle();
        let size = self.plan.live_before.saturating_add(self.allocated_before);
        assists.begin(size, self.plan.expected, self.plan.goal);
        heap.begin_cycle(BY_COLLECTOR);
    }

    fn open_marking(&mut self) {
        self.marker.open();
    }
}

/// What is left of a stop that completed marking, of which the weak references are cleared.
struct Cleared {
    due: DueCallbacks,
    stop: FirstStop,
}

/// The first of a cycle's two stops.
struct FirstStop {
    rescanned: Visited,
    nanos: u64,
}

/// The end of marking, in the stopped world.
struct EndOfMarking<'a, 'w, H: Heap> {
    collector: &'a CollectorState<H>,
    marker: &'a mut Marker<H>,
    world: &'a mut CycleStopped<'w>,
    /// Stacks that have run since their scan are visited again.
    rescans: bool,
}

impl<H: Heap> Completing for EndOfMarking<'_, '_, H> {
    type Error = CycleError;
    type Visited = Visited;

    fn take_buffers(&mut self) {
        self.collector.barrier.take_buffers();
    }

    fn finish_stacks(&mut self) -> Result<Visited, CycleError> {
        if self.rescans {
            Ok(self.world.rescan_dirty()?)
        } else {
            self.world.finish_scans()?;
            Ok(Visited::default())
        }
    }

    fn drain(&mut self) {
        self.marker.drain();
    }
}

/// The end of a cycle, in the stopped world.
struct Ending<'a, 'w, H: Heap> {
    end: EndOfMarking<'a, 'w, H>,
    /// The callbacks that are due, if weak references are cleared already.
    due: Option<DueCallbacks>,
    planner: &'a mut Planner,
    number: u64,
    plan: &'a Plan,
    begun: Instant,
    allocated_before: usize,
    measured: CycleMeasurement,
    figures: CycleFigures,
}

impl<H: Heap> Completing for Ending<'_, '_, H> {
    type Error = CycleError;
    type Visited = Visited;

    fn take_buffers(&mut self) {
        self.end.take_buffers();
    }

    fn finish_stacks(&mut self) -> Result<Visited, CycleError> {
        self.end.finish_stacks()
    }

    fn drain(&mut self) {
        self.end.drain();
    }
}

impl<H: Heap> Closing for Ending<'_, '_, H> {
    type Due = DueCallbacks;
    type Marked = Marked;

    fn process_weak(&mut self) -> DueCallbacks {
        let (collector, end) = (self.end.collector, &mut self.end);
        let process = || collector.weak.process(|word| collector.is_marked(word), || end.drain());
        self.due.take().unwrap_or_else(process)
    }

    fn verify(&mut self) -> Result<(), CycleError> {
        let collector = self.end.collector;
        if !collector.verify {
            return Ok(());
        }
        let mut verifier = Verifier::new(&*collector.heap);
        collector.globals.visit(|words| verifier.roots(RootKind::Global, words));
        collector.handles.visit(|words| verifier.roots(RootKind::Handle, words));
        collector.weak.visit_values(|word| verifier.roots(RootKind::WeakValue, &[word]));
        self.end.world.visit_all(&mut |words| verifier.roots(RootKind::Goroutine, words))?;
        if let Err(mut error) = verifier.finish() {
            if error.root.kind == RootKind::Goroutine {
                error.place =
                    self.end.world.find_root(error.root.word)?.map(|place| place.to_string());
            }
            return Err(CycleError::Unmarked { cycle: self.number, error });
        }
        Ok(())
    }

    fn turn_off(&mut self) {
        self.end.collector.barrier.turn_off(self.plan.remembers_stores);
    }

    fn close_marking(&mut self) -> Marked {
        self.end.marker.close()
    }

    /// Also decides when the next cycle begins.
    fn condemn(&mut self, marked: &Marked) {
        let CollectorState { heap, runtime, .. } = self.end.collector;
        let allocated = heap.allocated_since_cycle().saturating_sub(self.allocated_before);
        heap.end_cycle(*marked, BY_COLLECTOR);
        self.end.world.end_scanning(if self.plan.watches_stacks {
            NextCycle::MayBeShort
        } else {
            NextCycle::IsWhole
        });
        self.figures = runtime.take_cycle_figures();
        self.measured = CycleMeasurement {
            marked: in_memory(marked.bytes),
            stacks: in_memory(self.figures.stack_bytes),
            allocated,
            mark_ns: nanos(self.begun.elapsed()),
        };
        self.planner.marked(self.plan, &self.measured, runtime.stack_bytes().resident);
        heap.set_trigger(self.planner.trigger(), BY_COLLECTOR);
    }
}

fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
