//! Models of placing, hitting and removing barriers.

use super::*;
use crate::protocol::status::{Status, StatusWord};
use crate::protocol::sync::{AtomicUsize, leave_out};
use loom::{cell::UnsafeCell, sync::Arc, thread};

/// The hijacked word of stub 0.
pub(in crate::protocol) const STUB_WORD: usize = 1 << 20;
const WORD: usize = 8;

/// The table of saved return addresses. Its words are relaxed atomics: the protocol alone orders
/// the accesses.
pub(in crate::protocol) struct TableModel(Vec<AtomicUsize>);

impl TableModel {
    pub(in crate::protocol) fn new(stubs: u32) -> TableModel {
        TableModel((0..stubs).map(|_| AtomicUsize::new(0)).collect())
    }
}

impl Table for &TableModel {
    fn save(&self, stub: u32, return_address: usize) {
        self.0[stub as usize].store(return_address, Ordering::Relaxed);
    }
    fn saved(&self, stub: u32) -> usize {
        self.0[stub as usize].load(Ordering::Relaxed)
    }
    fn hijacked_word(&self, stub: u32) -> usize {
        STUB_WORD + stub as usize
    }
}

/// The table, and the return slots of one stack.
struct Stack {
    table: TableModel,
    slots: Vec<UnsafeCell<usize>>,
}

struct View<'s>(&'s Stack);

impl Slots for View<'_> {
    fn read(&self, depth: usize, _signed: bool) -> usize {
        // SAFETY: loom checks that no thread writes.
        self.0.slots[depth / WORD].with(|slot| unsafe { *slot })
    }
    fn write(&mut self, depth: usize, word: usize, _signed: bool) {
        // SAFETY: loom checks that no other thread is there.
        self.0.slots[depth / WORD].with_mut(|slot| unsafe { *slot = word })
    }
}

struct Modelled {
    status: StatusWord,
    scan: Mutex<BarrierList>,
    stack: Stack,
    /// Depth of the goroutine's stack pointer.
    sp: UnsafeCell<usize>,
    pool: StubPool,
}

fn return_address(frame: usize) -> usize {
    1000 + frame
}

/// A goroutine with `frames` frames, of which frame 0 is the oldest, and barriers in the slots of
/// the frames `barriers`.
fn modelled(status: Status, frames: usize, barriers: &[usize]) -> Arc<Modelled> {
    let slots = (0..frames).map(|frame| UnsafeCell::new(return_address(frame))).collect();
    let stack = Stack { table: TableModel::new(4), slots };
    let pool = StubPool::new(0..4);
    let mut list = BarrierList::default();
    place(&mut list, &stack, &pool, barriers);
    let sp = UnsafeCell::new(frames * WORD);
    Arc::new(Modelled { status: StatusWord::new(status), scan: Mutex::new(list), stack, sp, pool })
}

fn place(list: &mut BarrierList, stack: &Stack, pool: &StubPool, frames: &[usize]) {
    for &frame in frames.iter().rev() {
        let stub = list.take(pool, false).expect("enough stubs");
        list.place(
            &mut View(stack),
            &&stack.table,
            Barrier { depth: frame * WORD, stub, frame: 0, signed: false },
        );
    }
}

impl Modelled {
    /// The goroutine returns from `frame`, as the ret instruction and the stub do.
    fn return_from(&self, frame: usize) {
        let depth = frame * WORD;
        let found = View(&self.stack).read(depth, false);
        let target = if found >= STUB_WORD {
            let stub = (found - STUB_WORD) as u32;
            let mut list = self.scan.lock();
            list.hit(&mut View(&self.stack), &&self.stack.table, &self.pool, depth, stub)
                .expect("a known barrier");
            View(&self.stack).read(depth, false)
        } else {
            found
        };
        assert_eq!(target, return_address(frame));
        // SAFETY: loom checks that no other thread is there.
        self.sp.with_mut(|sp| unsafe { *sp = depth });
    }

    /// A holder removes all barriers and places new ones in the frames that are still there.
    fn renew(&self, barriers: &[usize]) {
        let Ok(mut held) = self.status.hold(&self.scan) else { return };
        let foreign = held.status == Status::Foreign;
        // SAFETY: loom checks that no thread writes.
        let sp = self.sp.with(|sp| unsafe { *sp });
        let list = &mut *held.state;
        list.remove_all(&mut View(&self.stack), &&self.stack.table, &self.pool, sp, foreign);
        let there: Vec<_> = barriers.iter().copied().filter(|frame| frame * WORD < sp).collect();
        place(list, &self.stack, &self.pool, &there);
    }
}

fn bounded(bound: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(bound);
    builder.check(model);
}

#[test]
fn loom_a_return_meets_the_removal_of_its_barrier() {
    a_return_meets_a_removal();
}

#[test]
#[should_panic]
fn loom_twin_of_a_return_and_a_removal_without_holding() {
    leave_out(LeftOut::Held);
    a_return_meets_a_removal();
}

/// Go's issue 18206: the goroutine comes back from native code while another
/// thread removes its barriers.
fn a_return_meets_a_removal() {
    bounded(3, || {
        let m = modelled(Status::Foreign, 3, &[0, 1, 2]);
        let goroutine = m.clone();
        let thread = thread::spawn(move || {
            goroutine.status.start_running(Status::Foreign, &goroutine.scan);
            for frame in (0..3).rev() {
                goroutine.return_from(frame);
            }
            goroutine.status.stop(Status::Dead);
        });
        m.renew(&[]);
        thread.join().unwrap();
        let mut list = m.scan.lock();
        assert_eq!(list.lowest(), None);
        list.end(&m.pool);
        assert_eq!(m.pool.available(), 4, "every stub came back");
    });
}

#[test]
fn loom_a_return_meets_the_renewal_of_barriers() {
    bounded(3, || {
        let m = modelled(Status::Parked, 2, &[1]);
        let goroutine = m.clone();
        let thread = thread::spawn(move || {
            goroutine.status.ready();
            goroutine.status.start_running(Status::Runnable, &goroutine.scan);
            goroutine.return_from(1);
            goroutine.status.stop(Status::Parked);
            goroutine.status.ready();
            goroutine.status.start_running(Status::Runnable, &goroutine.scan);
            goroutine.return_from(0);
            goroutine.status.stop(Status::Dead);
        });
        m.renew(&[0]);
        thread.join().unwrap();
    });
}
