//! The properties of a stack's scan, over invented frames: foreign calls and callbacks, frames
//! without a legal slot, and a pool that other goroutines empty.
//!
//! A frame has a *version*, which counts up when the frame runs. A visit notes the version that it
//! sees. So a frame that ran before its visit, or that a rescan leaves out though it has run since
//! its visit, shows.

mod exact;

use super::access::FramePointer;
use super::young::YoungBound;
use super::*;
use crate::protocol::barrier::{Barrier, Refusal};
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;

const WORD: usize = 8;
const STUBS: u32 = 16;
/// Return addresses are smaller.
const STUB_WORD: usize = 1 << (SIGNATURE_SHIFT - 1);
/// Where the signature of a word begins.
const SIGNATURE_SHIFT: u32 = usize::BITS / 2;
/// Bytes of `call_system`, and of `callback`.
const PART: usize = 4 * WORD;
const MOST_FRAMES: usize = 120;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A function, and whether a barrier may lie in its return slot.
    Managed { legal: bool },
    /// `call_system`, below a callback.
    Foreign,
    /// `callback`. The next older frame is `Foreign`.
    Callback,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    /// Depth of its stack pointer.
    depth: usize,
    /// Depth of its return slot; 0 for the oldest frame.
    slot: usize,
    /// The return address that the slot held when the frame was called.
    returns_to: usize,
    version: u64,
    /// The version at the visit that counts. `None`: the present scan must visit it.
    seen: Option<u64>,
    /// Whether the frame was there when the present scan began.
    old: bool,
    /// How often the present scan has visited it.
    visits: u32,
}

impl Frame {
    fn is_legal(&self) -> bool {
        self.kind == Kind::Managed { legal: true } && self.slot != 0
    }
}

/// The memory of the stack, and the table.
#[derive(Default)]
struct Memory {
    /// Oldest first.
    frames: RefCell<Vec<Frame>>,
    slots: RefCell<BTreeMap<usize, usize>>,
    table: RefCell<BTreeMap<u32, usize>>,
    /// How many frames have been visited.
    visits: Cell<u64>,
}

/// Whether a frame with its return slot there signs its return address. The signature names the
/// place.
fn signs(slot: usize) -> bool {
    slot / WORD % 3 == 1
}

impl Slots for &Memory {
    fn read(&self, depth: usize, signed: bool) -> usize {
        let word = self.slots.borrow()[&depth];
        let signature = if signed { depth } else { 0 };
        assert_eq!(word >> SIGNATURE_SHIFT, signature, "the signature of the slot at {depth}");
        word & ((1 << SIGNATURE_SHIFT) - 1)
    }
    fn write(&mut self, depth: usize, address: usize, signed: bool) {
        let signature = if signed { depth } else { 0 };
        self.slots.borrow_mut().insert(depth, address | signature << SIGNATURE_SHIFT);
    }
}

impl Table for &Memory {
    fn save(&self, stub: u32, return_address: usize) {
        assert!(return_address < STUB_WORD, "a barrier on top of a barrier");
        self.table.borrow_mut().insert(stub, return_address);
    }
    fn saved(&self, stub: u32) -> usize {
        self.table.borrow()[&stub]
    }
    fn hijacked_word(&self, stub: u32) -> usize {
        STUB_WORD + stub as usize
    }
}

struct Walk<'m> {
    memory: &'m Memory,
    /// The number of frames left to visit.
    left: usize,
    visits: Visits,
}

/// Which frames a walk may visit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visits {
    /// Those that were there when the scan began, once.
    Old,
    /// Those that the owner visits again.
    Again,
    None,
}

impl<'m> Walk<'m> {
    fn new(memory: &'m Memory, at: Position) -> Walk<'m> {
        let frames = memory.frames.borrow();
        let at = frames.iter().position(|frame| frame.depth == at.depth);
        let left = at.expect("a position is that of a frame") + 1;
        Walk { memory, left, visits: Visits::Old }
    }
}

impl Frames for Walk<'_> {
    type Error = Infallible;
    fn visit(&mut self) -> Result<Option<usize>, Infallible> {
        let Some(next) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = next;
        let mut frames = self.memory.frames.borrow_mut();
        let frame = &mut frames[next];
        assert!(self.visits != Visits::None, "frame {next} is visited");
        if self.visits == Visits::Old {
            assert!(frame.old, "a scan visits what was there when it began");
            frame.visits += 1;
            assert_eq!(frame.visits, 1, "frame {next} is visited twice");
        }
        frame.seen = Some(frame.version);
        self.memory.visits.set(self.memory.visits.get() + 1);
        Ok(Some(frame.slot))
    }
    fn visit_plain(&mut self, beyond: usize, most: u64) -> u64 {
        let mut visited = 0;
        while visited < most && self.left > 0 {
            let frame = self.memory.frames.borrow()[self.left - 1];
            // As a walk that does not have the rule of each frame at hand.
            let is_plain = matches!(frame.kind, Kind::Managed { .. }) && frame.slot / WORD % 5 != 2;
            if !is_plain || frame.slot <= beyond {
                break;
            }
            let Ok(_) = self.visit();
            visited += 1;
        }
        visited
    }
    fn pass(&mut self) -> Result<Option<usize>, Infallible> {
        let Some(next) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = next;
        Ok(Some(self.memory.frames.borrow()[next].slot))
    }
    fn refusal(&self) -> Option<Refusal> {
        match self.memory.frames.borrow()[self.left].kind {
            Kind::Managed { legal: true } => None,
            Kind::Managed { legal: false } => Some(Refusal::NoSafepoint),
            Kind::Foreign => Some(Refusal::SystemCall),
            Kind::Callback => Some(Refusal::Callback),
        }
    }
    fn is_signed(&self) -> bool {
        signs(self.memory.frames.borrow()[self.left].slot)
    }
    fn may_rest(&self) -> bool {
        self.memory.frames.borrow()[self.left].kind == Kind::Callback
    }
    fn position(&self) -> Position {
        let frames = self.memory.frames.borrow();
        position(self.left.checked_sub(1).map_or(0, |next| frames[next].depth))
    }
}

fn position(depth: usize) -> Position {
    Position { pc: 0, depth, fp: FramePointer::Word(0) }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begin {
    /// A new cycle, which visits every frame.
    Major,
    /// A new cycle, which continues the last one.
    Minor,
    /// The same cycle, again.
    Again,
}

struct Goroutine {
    memory: Memory,
    pool: StubPool,
    scan: StackScan,
    /// Stubs that other goroutines have.
    others: BarrierList,
    budget: Budget,
    spacing: Spacing,
    bound: YoungBound,
    cycle: u64,
    next_address: usize,
    ran: bool,
    /// The pool was empty at some time since the last whole scan began.
    starved: bool,
    /// Every scan since the last whole one has ended at a barrier or at the end, and no frames were
    /// left at once: the numbers of frames are exact.
    counts_exactly: bool,
    /// sp(l), d and m of invariant 9.
    begun_at: usize,
    deepest: usize,
    least: usize,
}

impl Goroutine {
    fn new(chunk: u64, spacing: Spacing) -> Goroutine {
        let mut g = Goroutine {
            memory: Memory::default(),
            pool: StubPool::new(0..STUBS),
            scan: StackScan::default(),
            others: BarrierList::default(),
            budget: Budget { frames: chunk, bytes: usize::MAX },
            spacing,
            bound: YoungBound { most: 64 * WORD, step: 8 * WORD },
            cycle: 0,
            next_address: 1,
            ran: true,
            starved: false,
            counts_exactly: true,
            begun_at: 0,
            deepest: 0,
            least: 0,
        };
        g.push(Kind::Managed { legal: false }, PART);
        g.call(false, 2);
        g
    }

    fn count(&self) -> usize {
        self.memory.frames.borrow().len()
    }

    fn youngest(&self) -> Frame {
        *self.memory.frames.borrow().last().expect("the oldest frame stays")
    }

    fn push(&mut self, kind: Kind, bytes: usize) {
        let caller = self.memory.frames.borrow().last().map(|frame| frame.depth);
        let slot = caller.map_or(0, |depth| depth + WORD);
        let returns_to = self.next_address;
        self.next_address += 1;
        (&self.memory).write(slot, returns_to, signs(slot));
        self.memory.frames.borrow_mut().push(Frame {
            kind,
            depth: caller.unwrap_or(0) + bytes,
            slot,
            returns_to,
            version: 0,
            seen: None,
            old: false,
            visits: 0,
        });
    }

    /// The youngest frame runs.
    fn run(&mut self) {
        let at = self.count() - 1;
        self.change(at);
    }

    /// Frame `at` changes without the write barrier.
    fn change(&mut self, at: usize) {
        let frame = &mut self.memory.frames.borrow_mut()[at];
        assert!(
            !frame.old || frame.seen.is_some() || frame.version == u64::MAX,
            "frame {at} changes before its visit"
        );
        frame.version += 1;
        self.ran = true;
    }

    fn call(&mut self, legal: bool, words: usize) {
        if self.count() < MOST_FRAMES {
            if self.count() > 1 {
                self.run();
            }
            self.push(Kind::Managed { legal }, (1 + words) * WORD);
            self.run();
        }
    }

    /// The youngest frame calls native code, which calls back.
    fn call_back(&mut self) {
        if self.count() + 3 < MOST_FRAMES {
            self.run();
            self.counts_exactly = false;
            self.push(Kind::Foreign, PART);
            self.scan.calls_back(self.youngest().depth);
            self.push(Kind::Callback, PART);
            // It returns to `callback`, which is no safepoint.
            self.push(Kind::Managed { legal: false }, 3 * WORD);
            self.run();
        }
    }

    fn return_once(&mut self) {
        if self.count() == 2 {
            return;
        }
        self.run();
        let left = self.memory.frames.borrow_mut().pop().expect("it runs");
        let mut found = (&self.memory).read(left.slot, signs(left.slot));
        if found >= STUB_WORD {
            let mut access = access(&self.memory, &self.pool);
            let settled = self.scan.hit(&mut access, left.slot, (found - STUB_WORD) as u32);
            assert_eq!(settled.expect("a known barrier").hit, 1);
            self.protect(left.slot - WORD);
            self.follow(left.slot - WORD);
            found = (&self.memory).read(left.slot, false);
        }
        assert_eq!(found, left.returns_to, "the return reaches its caller");
        if self.youngest().kind == Kind::Callback {
            self.memory.frames.borrow_mut().pop();
            let foreign = self.youngest();
            assert_eq!(foreign.kind, Kind::Foreign);
            self.protect(foreign.depth);
            self.memory.frames.borrow_mut().pop();
        }
        self.runs_older();
    }

    /// An exception leaves `n` frames.
    fn unwind(&mut self, n: usize) {
        let mut keep = self.count().saturating_sub(n).max(2);
        let frames = self.memory.frames.borrow();
        while !matches!(frames[keep - 1].kind, Kind::Managed { .. }) {
            keep -= 1;
        }
        let depth = frames[keep - 1].depth;
        let callbacks = (keep..frames.len()).rev().filter(|at| frames[*at].kind == Kind::Callback);
        let calls: Vec<_> = callbacks.map(|at| frames[at - 1].depth).collect();
        drop(frames);
        // Each callback in between is left on its own.
        for call in calls {
            self.leave_for(call, true);
        }
        self.leave_for(depth, false);
        self.memory.frames.borrow_mut().truncate(keep);
        self.runs_older();
    }

    fn leave_for(&mut self, depth: usize, foreign_call: bool) {
        let settled = self.scan.leave_for(&self.pool, position(depth), foreign_call);
        self.protect(depth);
        if settled.leapfrogged > 0 {
            self.follow(depth);
            self.counts_exactly = false;
        }
    }

    fn runs_older(&mut self) {
        self.least = self.least.min(self.youngest().depth);
        self.run();
    }

    /// Protects, and checks that it visits no more than one chunk.
    fn protect(&mut self, depth: usize) {
        let (memory, available) = (&self.memory, self.pool.available());
        let (visits, barriers) = (memory.visits.get(), self.scan.barriers().unhit().len());
        let rests = self.scan.rest.is_some_and(|rest| rest < depth);
        let mut most = 0;
        let counts = self
            .scan
            .protect(&mut access(memory, &self.pool), depth, self.budget, |at| {
                most = chunk(memory, at, depth, self.budget.frames);
                Walk::new(memory, at)
            })
            .unwrap();
        assert_eq!(counts.frames, memory.visits.get() - visits);
        assert_eq!(counts.placed, (self.scan.barriers().unhit().len() - barriers) as u64);
        assert!(!rests || counts.frames == 0, "a foreign call blocks the way");
        self.check_counts(counts, available, most);
        self.scan.check(&&self.memory, &&self.memory, depth);
    }

    /// The frame at `depth` is about to run, behind a barrier that has been settled.
    fn follow(&mut self, depth: usize) {
        let at = position(depth);
        let least = self.scan.limit().map_or(0, |(depth, _)| depth);
        let end = self.scan.unscanned.map_or(0, |unscanned| unscanned.at.depth);
        let frames: Vec<_> = self.memory.frames.borrow().iter().rev().copied().collect();
        let wanted = frames
            .iter()
            .find(|frame| depth.saturating_sub(frame.slot) >= self.bound.step && frame.is_legal());
        let wanted = wanted.filter(|frame| frame.slot > least.max(end));
        let (memory, available) = (&self.memory, self.pool.available());
        let placed = self.scan.follow(&mut access(memory, &self.pool), at, self.bound.step, || {
            Walk { visits: Visits::None, ..Walk::new(memory, at) }
        });
        if depth.saturating_sub(least) <= 2 * self.bound.step {
            assert_eq!(placed, Ok(0), "the next barrier is near");
        } else if available > 0 {
            let lowest = self.scan.barriers().lowest().map_or(0, |barrier| barrier.depth);
            assert!(wanted.is_none_or(|frame| frame.slot == lowest), "{wanted:?}, not {lowest}");
        }
        self.scan.check(&memory, &memory, depth);
    }

    /// The goroutine polls, and visits its young part.
    fn catch_up(&mut self, foreign: bool) {
        if self.cycle == 0 {
            return;
        }
        let at = position(self.youngest().depth);
        self.protect(at.depth);
        let (complete, rescanned) = (self.scan.is_complete(), self.rescanned().len());
        let (memory, visits) = (&self.memory, self.memory.visits.get());
        let mut walk = Walk { visits: Visits::Again, ..Walk::new(memory, at) };
        let mut access = access(memory, &self.pool);
        let Ok(caught) = self.scan.catch_up(&mut access, at, self.spacing, foreign, &mut walk);
        self.starved |= self.pool.available() == 0;
        assert_eq!(caught.frames, memory.visits.get() - visits);
        assert_eq!(self.scan.is_complete(), complete);
        self.scan.check(&memory, &memory, at.depth);
        if complete {
            assert!(self.starved || caught.frames == rescanned as u64, "the young part, exactly");
            self.check_thin(at.depth);
        }
        // Where it thins barriers out, it counts as a scan: also one that goes on.
        self.begun_at = at.depth;
        self.deepest = self.deepest.max(at.depth);
        self.least = at.depth;
        let polls_at = self.scan.polls_at(at.depth, self.bound);
        let young = at.depth - self.scan.limit().map_or(0, |(lowest, _)| lowest);
        assert!(polls_at > at.depth, "it makes progress before it polls again");
        assert!(polls_at <= at.depth + self.bound.most.max(young), "it pays in proportion");
    }

    /// No barrier is left that a rescan from `from` on does not need: there are O(log depth).
    fn check_thin(&self, from: usize) {
        if self.spacing == Spacing::EveryFrame {
            return;
        }
        let unhit: Vec<_> = self.scan.barriers().unhit().iter().collect();
        for three in unhit.windows(3) {
            let [older, _, younger] = three else { unreachable!() };
            assert!(from - older.depth > 2 * (from - younger.depth), "{three:?} from {from}");
        }
    }

    fn check_counts(&mut self, counts: ScanCounts, available: usize, most: u64) {
        self.starved |= self.pool.available() == 0;
        assert!(counts.whole <= 1, "a scan is finished once");
        if counts.whole == 1 {
            assert!(self.scan.is_complete(), "without a stub the scan is finished whole");
            assert_eq!(self.pool.available(), 0, "a barrier that blocks may have any stub");
        } else if available > 0 {
            assert!(counts.frames <= most, "{} frames in a chunk of {most}", counts.frames);
        }
    }

    /// A worker visits frames.
    fn work(&mut self, frames: u64) {
        let (memory, visits) = (&self.memory, self.memory.visits.get());
        let budget = Budget { frames, bytes: usize::MAX };
        let mut most = 0;
        let visited = self
            .scan
            .visit_frozen(self.cycle, budget, |at| {
                assert!(at.depth < self.memory.frames.borrow().last().unwrap().depth);
                most = chunk(memory, at, at.depth, frames);
                Walk::new(memory, at)
            })
            .unwrap();
        assert!(visited <= most, "{visited} frames in a chunk of {most}");
        assert_eq!(visited, memory.visits.get() - visits);
        let again = self.scan.visit_frozen(self.cycle + 1, budget, |at| Walk::new(memory, at));
        assert_eq!(again, Ok(0), "another cycle's worker visits nothing");
    }

    fn begin(&mut self, how: Begin, foreign: bool) {
        let how = if self.cycle == 0 { Begin::Major } else { how };
        if how != Begin::Major {
            self.work(u64::MAX);
            assert!(self.scan.is_complete());
            self.check_complete();
        }
        let last = self.cycle;
        self.cycle += u64::from(how != Begin::Again);
        assert_eq!(self.scan.is_kept(last), last != 0);
        assert!(!self.scan.is_kept(self.cycle + 1));
        if how == Begin::Minor && !self.ran {
            let before = self.scan.limit();
            self.scan.keep(self.cycle);
            assert_eq!((self.scan.epoch(), self.scan.limit()), (self.cycle, before));
            return;
        }
        self.ran = false;
        for frame in self.memory.frames.borrow_mut().iter_mut() {
            let kept = how != Begin::Major && frame.seen == Some(frame.version);
            *frame = Frame { old: true, visits: 0, seen: frame.seen.filter(|_| kept), ..*frame };
        }
        let at = position(self.youngest().depth);
        let mut access = access(&self.memory, &self.pool);
        if how == Begin::Major {
            self.scan.begin(&mut access, self.cycle, at, self.spacing, foreign);
            (self.deepest, self.starved) = (0, self.pool.available() == 0);
            let frames = self.memory.frames.borrow();
            self.counts_exactly = frames.iter().all(|frame| frame.kind != Kind::Callback);
        } else {
            self.scan.begin_again(&mut access, self.cycle, at, self.spacing, foreign);
        }
        assert_eq!(self.scan.epoch(), self.cycle);
        self.begun_at = at.depth;
        self.deepest = self.deepest.max(at.depth);
        self.least = at.depth;
        self.protect(at.depth);
    }

    /// Changes a word of some frame without the write barrier.
    fn thaw(&mut self, by: usize) {
        let at = by % self.count();
        let frame = self.memory.frames.borrow()[at];
        // A frame of the least size has no word besides its return slot.
        if !matches!(frame.kind, Kind::Managed { .. }) || at == 0 || frame.depth == frame.slot {
            return;
        }
        let (memory, available, depth) =
            (&self.memory, self.pool.available(), self.youngest().depth);
        let (visits, barriers) = (memory.visits.get(), self.scan.barriers().unhit().len());
        let counts = self
            .scan
            .thaw(&mut access(memory, &self.pool), depth, frame.depth, |at| Walk::new(memory, at))
            .unwrap();
        assert_eq!(counts.frames, memory.visits.get() - visits);
        let after = self.scan.barriers().unhit().len() as u64 + counts.removed;
        assert_eq!(counts.placed, after - barriers as u64);
        self.check_counts(counts, available, u64::MAX);
        self.least = self.least.min(frame.depth);
        self.change(at);
    }

    /// Other goroutines take stubs, or give them back.
    fn starve(&mut self, stubs: usize) {
        let memory = Memory::default();
        let mut slots = &memory;
        self.others.end(&self.pool);
        for depth in 1..=stubs {
            slots.write(depth, 1, false);
            if let Some(stub) = self.pool.take() {
                let barrier = Barrier { depth, stub, frame: 0, signed: false };
                self.others.place(&mut slots, &&memory, barrier);
            }
        }
        self.starved |= self.pool.available() == 0;
    }

    /// The frames that a rescan visits, youngest first.
    fn rescanned(&self) -> Vec<usize> {
        let frames = self.memory.frames.borrow();
        let limit = self.scan.limit().map(|(depth, _)| depth);
        let mut visited = Vec::new();
        for (at, frame) in frames.iter().enumerate().rev() {
            visited.push(at);
            let frozen = frame.kind == Kind::Callback && self.scan.is_frozen(frames[at - 1].depth);
            if limit == Some(frame.slot) || frozen {
                break;
            }
        }
        visited
    }

    fn check(&mut self) {
        if self.scan.is_complete() && self.cycle > 0 {
            self.check_complete();
        }
        let pending: Vec<_> = self.scan.pending.iter_mut().collect();
        for two in pending.windows(2) {
            assert!(two[0].depth > two[1].depth, "youngest first: {two:?}");
        }
        drop(pending);
        let lowest = self.scan.barriers().lowest();
        for barrier in self.scan.barriers().unhit() {
            assert!(Some(*barrier) == lowest || barrier.depth < lowest.unwrap().depth);
            let frames = self.memory.frames.borrow();
            let owner = frames.iter().find(|frame| frame.slot == barrier.depth);
            assert!(owner.expect("a barrier lies in a slot").is_legal());
        }
        assert_eq!(
            self.pool.available() + self.scan.barriers().stubs() + self.others.stubs(),
            STUBS as usize,
            "each stub is somewhere"
        );
    }

    fn check_complete(&mut self) {
        let frames = self.memory.frames.borrow();
        let rescanned = self.rescanned();
        for (at, frame) in frames.iter().enumerate() {
            assert!(!frame.old || frame.seen.is_some(), "frame {at} was never visited");
            let changed = frame.seen != Some(frame.version);
            assert!(!changed || rescanned.contains(&at), "frame {at} is left out: {rescanned:?}");
        }
        if let Some((depth, beyond)) = self.scan.limit().filter(|_| self.counts_exactly) {
            let older = frames.iter().position(|frame| frame.slot == depth);
            assert_eq!(older, Some(beyond as usize), "the frames beyond the limit");
        }
        self.check_bound(&frames, frames[*rescanned.last().expect("it has frames")].slot);
    }

    /// Invariant 9. `limit` is the depth of the last slot of the rescan.
    fn check_bound(&self, frames: &[Frame], limit: usize) {
        let Spacing::Doubling(distance) = self.spacing else { return };
        if self.starved {
            return;
        }
        let touched = self.deepest - self.least;
        let Some(target) = self.begun_at.checked_sub(touched + distance.max(touched)) else {
            return;
        };
        let beyond = |frame: &&Frame| frame.is_legal() && frame.slot <= target;
        let Some(wanted) = frames.iter().rev().find(beyond) else { return };
        assert!(
            limit >= wanted.slot,
            "the rescan goes to {limit}, not to {} at most: {touched} touched from {}",
            wanted.slot,
            self.begun_at
        );
    }
}

fn access<'m>(memory: &'m Memory, pool: &'m StubPool) -> StackAccess<'m, &'m Memory, &'m Memory> {
    StackAccess { slots: memory, table: memory, pool }
}

/// The most frames that one chunk from `at` on visits: up to the first at which a barrier or a
/// foreign call can block the way of a goroutine whose stack pointer is at `depth`.
fn chunk(memory: &Memory, at: Position, depth: usize, budget: u64) -> u64 {
    let frames = memory.frames.borrow();
    let left = frames.iter().filter(|frame| (depth + 1..=at.depth).contains(&frame.depth)).count();
    let mut visited = 0;
    for frame in frames.iter().rev().filter(|frame| frame.depth <= at.depth.min(depth)) {
        visited += 1;
        if visited >= budget && (frame.is_legal() || frame.kind == Kind::Callback) {
            break;
        }
    }
    // A chunk that ends in frames that were left is followed by another.
    if left == 0 { visited } else { left as u64 + budget + visited }
}

#[derive(Clone, Debug)]
enum Step {
    Call { legal: bool, words: usize },
    CallBack,
    Return(usize),
    Unwind(usize),
    Begin(Begin, bool),
    Work(u64),
    Thaw(usize),
    Starve(usize),
    CatchUp(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let how = prop_oneof![Just(Begin::Major), Just(Begin::Minor), Just(Begin::Again)];
    prop_oneof![
        8 => (prop::bool::weighted(0.8), 0..12usize)
            .prop_map(|(legal, words)| Step::Call { legal, words }),
        3 => Just(Step::CallBack),
        5 => (1..6usize).prop_map(Step::Return),
        1 => (1..6usize).prop_map(Step::Unwind),
        4 => (how, any::<bool>()).prop_map(|(how, foreign)| Step::Begin(how, foreign)),
        3 => (0..5u64).prop_map(Step::Work),
        2 => any::<usize>().prop_map(Step::Thaw),
        1 => (0..=STUBS as usize).prop_map(Step::Starve),
        2 => any::<bool>().prop_map(Step::CatchUp),
    ]
}

fn spacing() -> impl Strategy<Value = Spacing> {
    prop_oneof![
        4 => (1..6usize).prop_map(|words| Spacing::Doubling(words * 4 * WORD)),
        1 => Just(Spacing::EveryFrame),
        1 => Just(Spacing::Never),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]
    #[test]
    fn no_frame_runs_before_its_visit_and_a_rescan_leaves_out_none_that_has_run(
        chunk in 1..6u64,
        spacing in spacing(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut g = Goroutine::new(chunk, spacing);
        for step in steps {
            match step {
                Step::Call { legal, words } => g.call(legal, words),
                Step::CallBack => g.call_back(),
                Step::Return(n) => (0..n).for_each(|_| g.return_once()),
                Step::Unwind(n) => g.unwind(n),
                Step::Begin(how, foreign) => g.begin(how, foreign),
                Step::Work(frames) => g.work(frames),
                Step::Thaw(by) => g.thaw(by),
                Step::Starve(stubs) => g.starve(stubs),
                Step::CatchUp(foreign) => g.catch_up(foreign),
            }
            g.check();
        }
        while g.count() > 2 {
            g.return_once();
            g.check();
        }
        g.scan.end(&g.pool);
        g.others.end(&g.pool);
        prop_assert_eq!(g.pool.available(), STUBS as usize, "every stub comes back");
        prop_assert!(g.scan.is_complete() && !g.scan.is_frozen(WORD));
        prop_assert_eq!((g.scan.epoch(), g.scan.limit()), (0, None));
    }
}
