//! Models of allocation against sweeping, and against the beginnings and ends of cycles.
//!
//! A block's bits and memory are plain cells that loom watches. A thread that touches a block which
//! it does not own is caught, and so is an order that no synchronisation makes. Marks are relaxed
//! atomics, as in the real block.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;
use stackmark_stack::sync::Ordering::{Acquire, Relaxed, Release};
use stackmark_stack::sync::{AtomicBool, AtomicUsize, LeftOut, Mutex, leave_out};

use super::super::blocks::{Blocks, Occupancy, Protocol, Space};
use super::super::runs::{begin_marking, end_marking};
use super::super::slot::{AllocationSlot, LocalRuns, Slots};
use super::{condemn, sweep_everything};

const CELLS: usize = 2;
const SIZE: usize = 8;
/// The address of block `n` is `STEP * (n + 1)`.
const STEP: usize = 1000;
const SPACE: usize = 0;

/// What a cell of memory holds that is not an object: zeros, or the contents of a dead one.
const ZERO: u32 = 0;
const STALE: u32 = u32::MAX;

/// One slot, for one space.
#[derive(Default)]
struct OneSlot(AllocationSlot);

impl Slots for OneSlot {
    fn slot(&self, space: usize) -> &AllocationSlot {
        assert_eq!(space, SPACE);
        &self.0
    }
}

/// The part of a block that only its owner writes.
#[derive(Default)]
struct Owned {
    handed_out: [bool; CELLS],
    sweeps: u32,
}

struct Block {
    owned: UnsafeCell<Owned>,
    marked: AtomicUsize,
    memory: [UnsafeCell<u32>; CELLS],
}

struct Heap {
    protocol: Protocol<OneSlot>,
    space: Mutex<Space>,
    blocks: Vec<Block>,
    /// Locks of loom's own: `LeftOut::Lock` leaves out those of the protocol.
    unused: loom::sync::Mutex<Vec<usize>>,
    freed: loom::sync::Mutex<Vec<usize>>,
}

// SAFETY: the cells are watched by loom.
unsafe impl Sync for Heap {}
// SAFETY: as above.
unsafe impl Send for Heap {}

#[derive(Debug, PartialEq, Eq)]
struct NoBlock;

impl Heap {
    /// A heap with a used block for each of `marked`, and `unused` other ones. A used block has
    /// marks as given, and dead objects in its other cells.
    fn new(marked: &[usize], unused: usize) -> Arc<Heap> {
        let count = marked.len() + unused;
        let block = |number: usize| {
            let used = number < marked.len();
            Block {
                owned: UnsafeCell::new(Owned { handed_out: [used; CELLS], sweeps: 0 }),
                marked: AtomicUsize::new(marked.get(number).copied().unwrap_or(0)),
                memory: [(); CELLS].map(|()| UnsafeCell::new(if used { STALE } else { ZERO })),
            }
        };
        let heap = Heap {
            protocol: Protocol::default(),
            space: Mutex::new(Space { unswept: (0..marked.len()).collect(), ..Space::default() }),
            blocks: (0..count).map(block).collect(),
            unused: loom::sync::Mutex::new((marked.len()..count).rev().collect()),
            freed: loom::sync::Mutex::new(Vec::new()),
        };
        if !marked.is_empty() {
            heap.protocol.begin_sweep();
        }
        Arc::new(heap)
    }

    fn owned<R>(&self, block: usize, f: impl FnOnce(&mut Owned) -> R) -> R {
        // SAFETY: loom checks that no other thread uses it meanwhile.
        self.blocks[block].owned.with_mut(|owned| f(unsafe { &mut *owned }))
    }

    fn memory<R>(&self, block: usize, cell: usize, f: impl FnOnce(&mut u32) -> R) -> R {
        // SAFETY: as above.
        self.blocks[block].memory[cell].with_mut(|memory| f(unsafe { &mut *memory }))
    }

    fn is_marked(&self, (block, cell): (usize, usize)) -> bool {
        self.blocks[block].marked.load(Relaxed) >> cell & 1 != 0
    }

    /// A new object, as by `Allocator::allocate`. Only the caller writes it.
    fn allocate(&self, local: &LocalRuns<OneSlot>) -> (usize, usize) {
        let address = local.slots.0.bump(SIZE).unwrap_or_else(|| {
            local.next_run(self, SPACE).expect("there are blocks enough");
            local.slots.0.bump(SIZE).expect("a run has at least one cell")
        });
        let address = address.as_ptr() as usize;
        let (block, cell) = (address / STEP - 1, address % STEP / SIZE);
        self.memory(block, cell, |memory| {
            assert_eq!(
                *memory, ZERO,
                "cell {cell} of block {block} is handed out zeroed, and once"
            );
            *memory = 1;
        });
        (block, cell)
    }

    fn sweep_all(&self) {
        sweep_everything(self, || {}, || {});
    }

    /// Ends a cycle, as the collector does with the world stopped.
    fn end_cycle(&self) {
        end_marking(self);
        condemn(self, false);
        self.protocol.begin_sweep();
    }

    /// Checks, when all threads have ended, that each block is in one place and how often it was
    /// swept.
    fn check(&self, sweeps: impl Fn(usize) -> u32) {
        let mut places = vec![0; self.blocks.len()];
        let mut found = |blocks: &[usize]| blocks.iter().for_each(|block| places[*block] += 1);
        let lists = self.space.lock();
        found(&lists.available);
        found(&lists.full);
        found(&lists.old);
        assert_eq!(lists.unswept.len(), 0, "everything is swept");
        found(&self.unused.lock().unwrap());
        found(&self.freed.lock().unwrap());
        for local in self.protocol.allocators.lock().iter() {
            let _state = local.state.lock();
            found(local.slots.0.block().as_slice());
        }
        assert!(places.iter().all(|n| *n == 1), "each block is in one place: {places:?}");
        for block in 0..self.blocks.len() {
            assert_eq!(self.owned(block, |owned| owned.sweeps), sweeps(block), "block {block}");
        }
    }
}

impl Blocks for Heap {
    type Error = NoBlock;
    type Slots = OneSlot;

    fn protocol(&self) -> &Protocol<OneSlot> {
        &self.protocol
    }
    fn space(&self, _space: usize) -> &Mutex<Space> {
        &self.space
    }
    fn spaces(&self) -> Vec<usize> {
        vec![SPACE]
    }
    fn fresh(&self, _space: usize) -> Result<usize, NoBlock> {
        self.unused.lock().unwrap().pop().ok_or(NoBlock)
    }
    fn free(&self, blocks: &mut Vec<usize>) {
        self.freed.lock().unwrap().append(blocks);
    }
    fn sweep(&self, block: usize) -> Occupancy {
        let marked = self.blocks[block].marked.load(Relaxed);
        self.blocks[block].marked.store(0, Relaxed);
        self.owned(block, |owned| {
            owned.sweeps += 1;
            owned.handed_out = std::array::from_fn(|cell| marked >> cell & 1 != 0);
        });
        for cell in (0..CELLS).filter(|cell| marked >> cell & 1 == 0) {
            self.memory(block, cell, |memory| *memory = STALE);
        }
        match marked.count_ones() as usize {
            0 => Occupancy::Empty,
            CELLS => Occupancy::Full,
            _ => Occupancy::Partial,
        }
    }
    fn cells_of(&self, block: usize) -> (usize, usize) {
        ((block + 1) * STEP, SIZE)
    }
    fn next_free_run(&self, block: usize, from: usize) -> Option<(usize, usize)> {
        self.owned(block, |owned| {
            let first = (from..CELLS).find(|cell| !owned.handed_out[*cell])?;
            let end = (first..CELLS).find(|cell| owned.handed_out[*cell]).unwrap_or(CELLS);
            Some((first, end))
        })
    }
    fn clear(&self, block: usize, from: usize, to: usize) {
        (from..to).for_each(|cell| self.memory(block, cell, |memory| *memory = ZERO));
    }
    fn blacken(&self, block: usize, from: usize, to: usize) {
        (from..to).for_each(|cell| {
            self.blocks[block].marked.fetch_or(1 << cell, Relaxed);
        });
    }
    fn hand_out(&self, block: usize, from: usize, to: usize) {
        self.owned(block, |owned| owned.handed_out[from..to].fill(true));
    }
    fn take_back(&self, block: usize, from: usize, to: usize) {
        self.owned(block, |owned| owned.handed_out[from..to].fill(false));
        (from..to).for_each(|cell| {
            self.blocks[block].marked.fetch_and(!(1 << cell), Relaxed);
        });
    }
    fn count_allocated(&self, _bytes: i64) {}
}

/// All interleavings with so many preemptions.
fn model(bound: usize, run: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(run);
}

/// Starts a thread that allocates `count` objects and returns them.
fn allocating(heap: &Arc<Heap>, count: usize) -> thread::JoinHandle<Vec<(usize, usize)>> {
    let (heap, local) = (heap.clone(), LocalRuns::register(OneSlot::default(), &**heap));
    thread::spawn(move || (0..count).map(|_| heap.allocate(&local)).collect())
}

/// The collector sweeps everything and marks for the next cycle, while a thread that allocates
/// sweeps for itself.
fn allocation_against_the_sweeper() {
    model(3, || {
        // In the first block an object lives, in the second none, in the third two.
        let heap = Heap::new(&[0b01, 0b00, 0b11], 2);
        let allocator = allocating(&heap, 3);
        heap.sweep_all();
        // No thread sweeps now: a mark stays.
        heap.blacken(0, 0, 1);
        let objects = allocator.join().unwrap();
        assert!(heap.is_marked((0, 0)), "a mark was swept away");
        assert!(
            objects.iter().all(|(block, cell)| (*block, *cell) != (0, 0) && *block != 2),
            "{objects:?} live"
        );
        heap.memory(0, 0, |memory| assert_eq!(*memory, STALE, "the object is as it was"));
        heap.check(|block| u32::from(block < 3));
    });
}

#[test]
fn loom_a_block_is_swept_once_and_no_live_cell_is_handed_out() {
    allocation_against_the_sweeper();
}

#[test]
#[should_panic]
fn loom_without_locks_two_sweep_one_block() {
    leave_out(LeftOut::Lock);
    allocation_against_the_sweeper();
}

#[test]
#[should_panic]
fn loom_marking_before_an_allocator_has_swept_its_block_is_noticed() {
    leave_out(LeftOut::SweepWait);
    allocation_against_the_sweeper();
}

#[test]
fn loom_two_allocators_and_the_sweeper_share_no_block() {
    model(2, || {
        let heap = Heap::new(&[0b01, 0b10], 2);
        let allocators = [allocating(&heap, 2), allocating(&heap, 2)];
        heap.sweep_all();
        heap.blacken(0, 0, 1);
        let mut objects: Vec<_> =
            allocators.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert!(heap.is_marked((0, 0)));
        objects.sort_unstable();
        objects.dedup();
        assert_eq!(objects.len(), 4, "no cell is handed out twice");
        heap.check(|block| u32::from(block < 2));
    });
}

/// A cycle begins while a thread allocates. What it allocates from then on is black, and survives
/// the cycle. A `late` allocator is made just then.
fn allocation_against_the_beginning_of_a_cycle(late: bool) {
    model(3, move || {
        let heap = Heap::new(&[], 3);
        let begun = Arc::new(AtomicBool::new(false));
        let early = (!late).then(|| LocalRuns::register(OneSlot::default(), &*heap));
        let mutator = {
            let (heap, begun) = (heap.clone(), begun.clone());
            thread::spawn(move || {
                let local =
                    early.unwrap_or_else(|| LocalRuns::register(OneSlot::default(), &*heap));
                let mut black = Vec::new();
                for _ in 0..3 {
                    let is_begun = begun.load(Acquire);
                    let object = heap.allocate(&local);
                    assert!(!is_begun || heap.is_marked(object), "{object:?} is white");
                    black.extend(is_begun.then_some(object));
                }
                // The world stops: this thread is at a safepoint.
                black
            })
        };
        begin_marking(&*heap);
        begun.store(true, Release);
        let black = mutator.join().unwrap();
        heap.end_cycle();
        heap.sweep_all();
        for (block, cell) in black {
            assert!(heap.owned(block, |owned| owned.handed_out[cell]), "a black object was swept");
        }
        let unused = heap.unused.lock().unwrap().clone();
        heap.check(|block| u32::from(!unused.contains(&block)));
    });
}

#[test]
fn loom_what_is_allocated_in_a_cycle_is_black() {
    allocation_against_the_beginning_of_a_cycle(false);
}

#[test]
fn loom_an_allocator_that_comes_while_a_cycle_begins_allocates_black() {
    allocation_against_the_beginning_of_a_cycle(true);
}

#[test]
#[should_panic]
fn loom_a_flag_that_is_read_before_the_lock_is_noticed() {
    leave_out(LeftOut::MarkingLock);
    allocation_against_the_beginning_of_a_cycle(false);
}

#[test]
#[should_panic]
fn loom_runs_whose_rest_stays_white_are_noticed() {
    leave_out(LeftOut::BlackRest);
    allocation_against_the_beginning_of_a_cycle(false);
}

/// A thread ends in native code while the world is stopped and the cycle ends. Another one
/// allocates when the world runs again.
fn the_end_of_an_allocator_against_the_end_of_a_cycle() {
    model(3, || {
        let heap = Heap::new(&[], 3);
        let (ending, staying) = (
            LocalRuns::register(OneSlot::default(), &*heap),
            LocalRuns::register(OneSlot::default(), &*heap),
        );
        begin_marking(&*heap);
        let objects = [heap.allocate(&ending), heap.allocate(&staying)];
        let ends = {
            let heap = heap.clone();
            thread::spawn(move || ending.give_up(&*heap))
        };
        heap.end_cycle();
        // The world runs.
        let new = heap.allocate(&staying);
        heap.sweep_all();
        ends.join().unwrap();
        assert!(!objects.contains(&new), "a live cell was handed out");
        for (block, cell) in objects {
            assert!(heap.owned(block, |owned| owned.handed_out[cell]), "a black object was swept");
        }
        heap.check(|block| u32::from(objects.iter().any(|(used, _)| *used == block)));
    });
}

#[test]
fn loom_blocks_of_a_thread_that_ends_are_swept() {
    the_end_of_an_allocator_against_the_end_of_a_cycle();
}

#[test]
#[should_panic]
fn loom_blocks_that_are_not_given_up_are_noticed() {
    leave_out(LeftOut::Retire);
    the_end_of_an_allocator_against_the_end_of_a_cycle();
}
