//! Models of the protocol: goroutines, holders and workers over stacks of a few frames, in every
//! order up to a bound on preemptions.
//!
//! A frame is a cell. The goroutine writes it while it runs the frame, and a visit reads it. loom
//! reports any two unordered accesses. So a visit of a frame that is not frozen ends the model, and
//! so does a return into a frame that is being visited. Most models have a twin that leaves out one
//! lock, fence or order. loom must catch the twin.

use super::*;
use crate::protocol::barrier::Refusal;
use crate::protocol::barrier::models::{STUB_WORD, TableModel};
use crate::protocol::frontier::access::FramePointer;
use crate::protocol::status::{Status, StatusWord};
use crate::protocol::sync::{AtomicUsize, Mutex, Ordering, leave_out};
use loom::{cell::UnsafeCell, sync::Arc, thread};
use std::convert::Infallible;

const WORD: usize = 8;

/// One stack's memory, and the table.
struct Memory {
    table: Arc<TableModel>,
    slots: Vec<AtomicUsize>,
    frames: Vec<UnsafeCell<usize>>,
    visits: Vec<AtomicUsize>,
    /// The value of each frame at its last visit. Relaxed: read where all threads have ended.
    seen: Vec<AtomicUsize>,
    /// The frame that is a callback's. The next older one has called out.
    callback: Option<usize>,
}

impl Memory {
    fn new(table: &Arc<TableModel>, frames: usize) -> Memory {
        Memory {
            table: table.clone(),
            slots: (0..frames).map(|frame| AtomicUsize::new(return_address(frame))).collect(),
            frames: (0..frames).map(|_| UnsafeCell::new(0)).collect(),
            visits: (0..frames).map(|_| AtomicUsize::new(0)).collect(),
            seen: (0..frames).map(|_| AtomicUsize::new(0)).collect(),
            callback: None,
        }
    }

    fn run(&self, frame: usize) {
        // SAFETY: loom checks that no other thread is there.
        self.frames[frame].with_mut(|frame| unsafe { *frame += 1 });
    }

    fn visits(&self) -> Vec<usize> {
        // Relaxed, everywhere: they are read when all threads have ended.
        self.visits.iter().map(|visits| visits.load(Ordering::Relaxed)).collect()
    }
}

fn return_address(frame: usize) -> usize {
    1000 + frame
}

/// Return slots. Frame `i`, counted from the oldest, has its return slot and its stack pointer at
/// depth `(i + 1) * WORD`.
struct View<'m>(&'m Memory);

impl Slots for View<'_> {
    fn read(&self, depth: usize, _signed: bool) -> usize {
        self.0.slots[depth / WORD - 1].load(Ordering::Acquire)
    }
    fn write(&mut self, depth: usize, word: usize, _signed: bool) {
        // Release: the saved return address is visible before the stub, as in the real slots.
        self.0.slots[depth / WORD - 1].store(word, Ordering::Release);
    }
}

struct Walk<'m> {
    memory: &'m Memory,
    /// The number of frames left to visit.
    left: usize,
}

impl<'m> Walk<'m> {
    fn new(memory: &'m Memory, at: Position) -> Self {
        Walk { memory, left: at.depth / WORD }
    }
}

impl Frames for Walk<'_> {
    type Error = Infallible;
    fn visit(&mut self) -> Result<Option<usize>, Infallible> {
        let Some(frame) = self.left.checked_sub(1) else { return Ok(None) };
        // SAFETY: loom checks that no thread writes.
        let found = self.memory.frames[frame].with(|frame| unsafe { *frame });
        self.memory.seen[frame].store(found, Ordering::Relaxed);
        self.memory.visits[frame].fetch_add(1, Ordering::Relaxed);
        self.left = frame;
        Ok(Some(if frame == 0 { 0 } else { (frame + 1) * WORD }))
    }
    fn pass(&mut self) -> Result<Option<usize>, Infallible> {
        let Some(frame) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = frame;
        Ok(Some(if frame == 0 { 0 } else { (frame + 1) * WORD }))
    }
    fn refusal(&self) -> Option<Refusal> {
        let callback = self.memory.callback?;
        // The frame that the callback has called returns to no safepoint.
        (callback..=callback + 1).contains(&self.left).then_some(Refusal::Callback)
    }
    fn is_signed(&self) -> bool {
        false
    }
    fn may_rest(&self) -> bool {
        self.memory.callback == Some(self.left)
    }
    fn position(&self) -> Position {
        position(self.left)
    }
}

/// The position of the youngest of `frames` frames.
fn position(frames: usize) -> Position {
    Position { pc: 0, depth: frames * WORD, fp: FramePointer::Word(0) }
}

struct Goroutine {
    status: StatusWord,
    scan: Mutex<StackScan>,
    memory: Vec<Memory>,
    /// The index of the memory that is the stack.
    place: UnsafeCell<usize>,
    pool: Arc<StubPool>,
    budget: Budget,
}

fn table(stubs: u32) -> (Arc<TableModel>, Arc<StubPool>) {
    (Arc::new(TableModel::new(stubs)), Arc::new(StubPool::new(0..stubs)))
}

/// A goroutine with `frames` frames that visits `chunk` of them at a time.
fn goroutine(status: Status, frames: usize, chunk: u64) -> Arc<Goroutine> {
    let (table, pool) = table(frames as u32);
    Arc::new(with_pool(status, frames, chunk, &table, &pool))
}

fn with_pool(
    status: Status,
    frames: usize,
    chunk: u64,
    table: &Arc<TableModel>,
    pool: &Arc<StubPool>,
) -> Goroutine {
    Goroutine {
        status: StatusWord::new(status),
        scan: Mutex::new(StackScan::default()),
        memory: vec![Memory::new(table, frames)],
        place: UnsafeCell::new(0),
        pool: pool.clone(),
        budget: Budget { frames: chunk, bytes: usize::MAX },
    }
}

impl Goroutine {
    fn memory(&self) -> &Memory {
        // SAFETY: loom checks that no thread moves the stack.
        &self.memory[self.place.with(|place| unsafe { *place })]
    }

    fn access<'m>(&'m self, memory: &'m Memory) -> StackAccess<'m, View<'m>, &'m TableModel> {
        StackAccess { slots: View(memory), table: &*memory.table, pool: &self.pool }
    }

    fn frames(&self) -> usize {
        self.memory[0].slots.len()
    }

    /// The owner begins a scan of cycle `epoch` while no frame has returned.
    fn begin(&self, scan: &mut StackScan, epoch: u64, spacing: Spacing, foreign: bool) {
        let memory = self.memory();
        let at = position(self.frames());
        scan.begin(&mut self.access(memory), epoch, at, spacing, foreign);
        self.protect(scan, memory, at.depth);
    }

    fn protect(&self, scan: &mut StackScan, memory: &Memory, depth: usize) {
        scan.protect(&mut self.access(memory), depth, self.budget, |at| Walk::new(memory, at))
            .unwrap();
    }

    /// The goroutine returns from `frame`, as the ret instruction and the stub do.
    fn return_from(&self, frame: usize) {
        let depth = (frame + 1) * WORD;
        let found = View(self.memory()).read(depth, false);
        let target = if found >= STUB_WORD {
            let mut scan = self.scan.lock();
            let memory = self.memory();
            scan.hit(&mut self.access(memory), depth, (found - STUB_WORD) as u32)
                .expect("a known barrier");
            self.protect(&mut scan, memory, depth - WORD);
            View(memory).read(depth, false)
        } else {
            found
        };
        assert_eq!(target, return_address(frame));
    }

    /// The goroutine runs the youngest frame, returns, runs the next one, and so on. Then it ends.
    fn run_to_the_end(&self) {
        for frame in (0..self.frames()).rev() {
            if self.memory().callback == Some(frame) {
                // Back to the frame that has called out.
                let mut scan = self.scan.lock();
                self.protect(&mut scan, self.memory(), frame * WORD);
                continue;
            }
            self.memory().run(frame);
            self.return_from(frame);
        }
        self.scan.lock().end(&self.pool);
        self.status.stop(Status::Dead);
    }

    /// A worker visits `chunk` frames for cycle `epoch`.
    fn work(&self, epoch: u64, chunk: u64) {
        let mut scan = self.scan.lock();
        let memory = self.memory();
        let budget = Budget { frames: chunk, bytes: usize::MAX };
        scan.visit_frozen(epoch, budget, |at| Walk::new(memory, at)).unwrap();
    }
}

fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

/// Declares a model, and a twin that leaves something out.
macro_rules! model_and_twin {
    ($model:ident, $twin:ident without $left_out:ident, $body:expr) => {
        #[test]
        fn $model() {
            $body();
        }

        #[test]
        #[should_panic]
        fn $twin() {
            leave_out(LeftOut::$left_out);
            $body();
        }
    };
}

mod native;
mod short;
mod young;

const DOUBLING: Spacing = Spacing::Doubling(2 * WORD);

fn a_return_meets_a_worker(frames: usize, chunk: u64, spacing: Spacing) {
    bounded(3, move || {
        let g = goroutine(Status::Running, frames, chunk);
        g.begin(&mut g.scan.lock(), 1, spacing, false);
        let worker = g.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| worker.work(1, chunk)));
        g.run_to_the_end();
        thread.join().unwrap();
        assert_eq!(g.memory().visits(), vec![1; frames], "each frame is visited once");
        assert_eq!(g.pool.available(), frames, "every stub came back");
    });
}

// With a chunk of one frame the frontier comes to lie in every frame.
model_and_twin!(
    loom_a_return_meets_a_worker_at_every_barrier,
    loom_twin_of_a_return_and_a_worker_without_a_frontier without Frontier,
    || for chunk in [1, 2] {
        a_return_meets_a_worker(4, chunk, DOUBLING);
    }
);

model_and_twin!(
    loom_a_return_meets_a_worker_with_a_barrier_in_every_frame,
    loom_twin_of_barriers_in_every_frame_without_locks without Lock,
    || a_return_meets_a_worker(4, 2, Spacing::EveryFrame)
);

/// No barrier can lie in the youngest frames: the goroutine runs on over a foreign call, where the
/// scan rests. A worker goes on from there.
fn a_return_to_a_foreign_call_meets_a_worker() {
    bounded(3, || {
        let (table, pool) = table(4);
        let mut modelled = with_pool(Status::Running, 4, 1, &table, &pool);
        modelled.memory[0].callback = Some(2);
        let g = Arc::new(modelled);
        {
            let mut scan = g.scan.lock();
            g.begin(&mut scan, 1, DOUBLING, false);
            assert_eq!(scan.barriers().lowest(), None, "it rests at the call");
            assert!(!scan.is_complete());
        }
        let worker = g.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| worker.work(1, 1)));
        g.run_to_the_end();
        thread.join().unwrap();
        assert_eq!(g.memory().visits(), vec![1; 4], "each frame is visited once");
        assert_eq!(g.pool.available(), 4, "every stub came back");
    });
}

model_and_twin!(
    loom_a_return_to_a_foreign_call_meets_a_worker,
    loom_twin_of_a_return_to_a_foreign_call_without_a_frontier without Frontier,
    a_return_to_a_foreign_call_meets_a_worker
);

/// The pool has fewer stubs than two goroutines want: a scan that gets none is finished before its
/// goroutine runs, and a stub that one gives back the other may take.
fn two_goroutines_share_a_pool(stubs: u32, bound: usize) {
    bounded(bound, move || {
        let (table, pool) = table(stubs);
        let goroutine = || Arc::new(with_pool(Status::Running, 3, 1, &table, &pool));
        let (one, other) = (goroutine(), goroutine());
        let begin = |g: &Goroutine| g.begin(&mut g.scan.lock(), 1, DOUBLING, false);
        begin(&one);
        let (runs, worker) = (other.clone(), one.clone());
        let runs = thread::spawn(move || {
            runs.begin(&mut runs.scan.lock(), 1, DOUBLING, false);
            runs.run_to_the_end();
        });
        let works = thread::spawn(move || worker.work(1, 1));
        one.run_to_the_end();
        runs.join().unwrap();
        works.join().unwrap();
        for g in [one, other] {
            assert_eq!(g.memory().visits(), vec![1; 3], "each frame is visited once");
        }
        assert_eq!(pool.available(), stubs as usize, "every stub came back");
    });
}

model_and_twin!(
    loom_two_goroutines_share_an_empty_pool,
    loom_twin_of_an_empty_pool_without_whole_scans without Frontier,
    || two_goroutines_share_a_pool(0, 2)
);

#[test]
fn loom_two_goroutines_share_one_stub() {
    two_goroutines_share_a_pool(1, 2);
}

#[test]
fn loom_a_return_meets_a_worker_on_eight_frames() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let g = goroutine(Status::Running, 8, 3);
        g.begin(&mut g.scan.lock(), 1, DOUBLING, false);
        let worker = g.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| worker.work(1, 2)));
        g.run_to_the_end();
        thread.join().unwrap();
        assert_eq!(g.memory().visits(), vec![1; 8]);
    });
}

fn two_workers_visit_one_goroutine() {
    bounded(2, || {
        let g = goroutine(Status::Parked, 4, 1);
        let mut held = g.status.hold(&g.scan).expect("it is parked");
        g.begin(&mut held.state, 1, DOUBLING, false);
        drop(held);
        let (one, other) = (g.clone(), g.clone());
        let one = thread::spawn(move || (0..2).for_each(|_| one.work(1, 1)));
        let other = thread::spawn(move || (0..2).for_each(|_| other.work(1, 2)));
        one.join().unwrap();
        other.join().unwrap();
        assert_eq!(g.memory().visits(), vec![1; 4], "each frame is visited once");
    });
}

model_and_twin!(
    loom_two_workers_visit_one_goroutine,
    loom_twin_of_two_workers_without_locks without Lock,
    two_workers_visit_one_goroutine
);

fn a_resume_meets_a_scan() {
    bounded(3, || {
        let g = goroutine(Status::Parked, 3, 1);
        let goroutine = g.clone();
        let thread = thread::spawn(move || {
            goroutine.status.ready();
            goroutine.status.start_running(Status::Runnable, &goroutine.scan);
            goroutine.run_to_the_end();
        });
        let held = match g.status.hold(&g.scan) {
            Ok(mut held) => {
                g.begin(&mut held.state, 1, DOUBLING, false);
                true
            }
            Err(_) => false,
        };
        g.work(1, 1);
        thread.join().unwrap();
        assert_eq!(g.memory().visits(), vec![usize::from(held); 3]);
    });
}

model_and_twin!(
    loom_a_resume_meets_a_scan,
    loom_twin_of_a_resume_without_holding without Held,
    a_resume_meets_a_scan
);

fn a_park_meets_a_scan() {
    bounded(3, || {
        let g = goroutine(Status::Running, 3, 1);
        let holder = g.clone();
        let thread = thread::spawn(move || {
            if let Ok(mut held) = holder.status.hold(&holder.scan) {
                holder.begin(&mut held.state, 1, DOUBLING, false);
            }
        });
        g.memory().run(2);
        g.status.stop(Status::Parked);
        thread.join().unwrap();
    });
}

model_and_twin!(
    loom_a_park_meets_a_scan,
    loom_twin_of_a_park_that_publishes_nothing without StopRelease,
    a_park_meets_a_scan
);

fn a_leap_meets_a_worker() {
    bounded(3, || {
        let g = goroutine(Status::Running, 4, 1);
        g.begin(&mut g.scan.lock(), 1, DOUBLING, false);
        let worker = g.clone();
        let thread = thread::spawn(move || (0..2).for_each(|_| worker.work(1, 1)));
        // An exception leaves two frames.
        {
            let mut scan = g.scan.lock();
            scan.leave_for(&g.pool, position(2), false);
            g.protect(&mut scan, g.memory(), 2 * WORD);
        }
        g.memory().run(1);
        g.return_from(1);
        g.memory().run(0);
        thread.join().unwrap();
        let mut scan = g.scan.lock();
        assert_eq!(g.memory().visits()[0], 1, "what runs has been visited");
        scan.end(&g.pool);
        assert_eq!(g.pool.available(), 4, "every stub came back");
    });
}

model_and_twin!(
    loom_a_leap_meets_a_worker,
    loom_twin_of_a_leap_without_a_frontier without Frontier,
    a_leap_meets_a_worker
);

fn a_move_meets_a_worker() {
    bounded(3, || {
        let (table, pool) = table(3);
        let mut modelled = with_pool(Status::Running, 3, 1, &table, &pool);
        modelled.memory.push(Memory::new(&table, 3));
        let g = Arc::new(modelled);
        g.begin(&mut g.scan.lock(), 1, DOUBLING, false);
        let worker = g.clone();
        let thread = thread::spawn(move || worker.work(1, 1));
        // The stack moves: it is copied, and the old memory is poisoned.
        {
            let _scan_lock = g.scan.lock();
            for frame in 0..3 {
                let word = g.memory[0].slots[frame].load(Ordering::Relaxed);
                g.memory[1].slots[frame].store(word, Ordering::Relaxed);
                g.memory[0].slots[frame].store(0xdead, Ordering::Relaxed);
                g.memory[0].run(frame);
            }
            // SAFETY: loom checks that no other thread is there.
            g.place.with_mut(|place| unsafe { *place = 1 });
        }
        g.run_to_the_end();
        thread.join().unwrap();
        let visits: Vec<_> =
            g.memory[0].visits().iter().zip(g.memory[1].visits()).map(|(a, b)| a + b).collect();
        assert_eq!(visits, vec![1; 3]);
    });
}

model_and_twin!(
    loom_a_move_meets_a_worker,
    loom_twin_of_a_move_without_locks without Lock,
    a_move_meets_a_worker
);

fn a_cycle_begins_while_a_worker_visits_for_the_last_one() {
    bounded(3, || {
        let g = goroutine(Status::Parked, 3, 1);
        let hold = |epoch| {
            let mut held = g.status.hold(&g.scan).expect("it is parked");
            g.begin(&mut held.state, epoch, DOUBLING, false);
            // Only visits of the new cycle count.
            g.memory().visits.iter().for_each(|visits| visits.store(0, Ordering::Relaxed));
        };
        hold(1);
        let late = g.clone();
        let thread = thread::spawn(move || late.work(1, 2));
        hold(2);
        thread.join().unwrap();
        assert_eq!(
            g.memory().visits(),
            vec![0; 3],
            "a late worker leaves the new cycle's frames alone"
        );
    });
}

model_and_twin!(
    loom_a_cycle_begins_while_a_worker_visits_for_the_last_one,
    loom_twin_of_a_late_worker_without_epochs without Epoch,
    a_cycle_begins_while_a_worker_visits_for_the_last_one
);

fn an_unwinder_reads_while_barriers_are_placed() {
    bounded(3, || {
        let g = goroutine(Status::Foreign, 3, 3);
        let unwinder = g.clone();
        // An unwinder on the goroutine's own thread, in native code. It takes no lock.
        let thread = thread::spawn(move || {
            let memory = &unwinder.memory[0];
            for frame in (1..3).rev() {
                let found = memory.slots[frame].load(Ordering::Acquire);
                let original = if found >= STUB_WORD {
                    (&*memory.table).saved((found - STUB_WORD) as u32)
                } else {
                    found
                };
                assert_eq!(original, return_address(frame));
            }
        });
        let mut held = g.status.hold(&g.scan).expect("it is in native code");
        g.begin(&mut held.state, 1, Spacing::EveryFrame, true);
        drop(held);
        thread.join().unwrap();
    });
}

model_and_twin!(
    loom_an_unwinder_reads_while_barriers_are_placed,
    loom_twin_of_an_unwinder_that_comes_before_the_table without SavedFirst,
    an_unwinder_reads_while_barriers_are_placed
);

fn a_stub_is_wanted_again_while_an_unwinder_looks_at_it() {
    bounded(3, || {
        // Two stubs: the one that the first goroutine loses is the next to be taken.
        let (table, pool) = table(2);
        let first = Arc::new(with_pool(Status::Foreign, 2, 2, &table, &pool));
        let second = Arc::new(with_pool(Status::Parked, 2, 2, &table, &pool));
        let begin = |g: &Goroutine, epoch, spacing, foreign| {
            let mut held = g.status.hold(&g.scan).expect("it stands still");
            g.begin(&mut held.state, epoch, spacing, foreign);
        };
        begin(&first, 1, Spacing::EveryFrame, true);
        let unwinder = first.clone();
        let thread = thread::spawn(move || {
            let memory = &unwinder.memory[0];
            let found = memory.slots[1].load(Ordering::Acquire);
            let original = if found >= STUB_WORD {
                (&*memory.table).saved((found - STUB_WORD) as u32)
            } else {
                found
            };
            assert_eq!(
                original,
                return_address(1),
                "the unwinder follows the stub that it has read"
            );
        });
        begin(&first, 2, Spacing::Never, true);
        // A return address of another goroutine. It must not get into the stub that was read.
        second.memory[0].slots[1].store(7777, Ordering::Relaxed);
        begin(&second, 2, Spacing::EveryFrame, false);
        thread.join().unwrap();
    });
}

model_and_twin!(
    loom_a_stub_is_wanted_again_while_an_unwinder_looks_at_it,
    loom_twin_of_recycling_without_limbo without Limbo,
    a_stub_is_wanted_again_while_an_unwinder_looks_at_it
);
