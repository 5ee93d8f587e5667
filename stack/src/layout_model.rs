//! A model of a stack's layout, with the real scanning, hitting and moving over a real stack.
//!
//! Bytes become steps: calls and returns of invented functions, scans, rescans, short scans, moves,
//! growth, exceptions. After each step every frame of the real stack is compared with the model.
//! The property tests and the fuzz target supply the bytes.

mod checks;
mod code;

use crate::goroutine::Goroutine;
use crate::memory::MAX_FRAME;
use crate::protocol::Budget;
use crate::runtime::{BarrierMode, Config, Host, MachineEntry, RootSink, Runtime, stubs};
use crate::scan::{self, Extent};
use code::{FUNCTIONS, register, return_address, shape};
use parking_lot::Mutex;
use stackmark_asm as asm;
use stackmark_unwind::{Code, Registers};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const WORD: usize = size_of::<usize>();
/// Bytes above the locals of a frame: the saved frame pointer and the return address.
const RECORD: usize = 2 * WORD;
/// The part of `call_system` at the young end. A new goroutine has more.
const CALL_SYSTEM: usize = asm::CALL_SYSTEM_BYTES;
/// The smallest invented reference. No stack lies there.
const REFERENCE: usize = 0x10;
/// The model stops growing here, so that a run stays short.
const MOST_FRAMES: usize = 400;

struct NoHost;

impl Host for NoHost {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        panic!("{error}")
    }
}

#[derive(Default)]
struct Collected(Mutex<Vec<usize>>);

impl RootSink for Collected {
    fn roots(&self, words: &[usize]) {
        self.0.lock().extend_from_slice(words);
    }
}

/// The value of a local.
#[derive(Clone, Copy, Debug)]
enum Local {
    Reference(usize),
    /// The address at this depth of the stack.
    Own(usize),
    /// Not live: a word that must not change, whatever it looks like.
    Dead(usize),
}

/// A frame of a managed function, or of a callback.
enum Frame {
    Managed {
        function: usize,
        /// Depth of the frame's stack pointer.
        depth: usize,
        locals: Vec<Local>,
    },
    /// The frame of `callback`, above that of `call_system`, whose stack pointer is at this depth.
    Callback { call_out: usize },
}

struct Model {
    runtime: Arc<Runtime>,
    machine: Arc<MachineEntry>,
    collected: Arc<Collected>,
    goroutine: Arc<Goroutine>,
    /// Oldest first.
    frames: Vec<Frame>,
    next_reference: usize,
    cycle: u64,
    /// The roots that the incomplete scan must have found at its end: the index of each one's
    /// frame, and the word.
    expected: Option<Vec<(usize, usize)>>,
    /// More roots that it may have found: their frames were left before it came to them.
    optional: Vec<usize>,
    /// Frames from this index on have run or were written to since their visit.
    touched: usize,
    /// Depth of the stack pointer that the last scan began at: sp(l) of invariant 9 in
    /// `protocol/frontier.rs`. `reached` is the least depth since: m.
    scanned_at: usize,
    reached: usize,
    /// The largest depth that a scan began at, from the last whole one on: d of invariant 9.
    marked_from: usize,
    /// The goroutine has run since the last scan began.
    ran: std::cell::Cell<bool>,
    /// Cycles bound the young part from their beginning.
    bounds_early: bool,
    /// Invariant 12 of `protocol/frontier/young.rs` holds.
    bounded: bool,
}

/// How a scan begins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// In a new cycle, which visits every frame.
    Major,
    /// In a new cycle, which continues the last one.
    Minor,
    /// In the same cycle, again.
    Again,
}

impl Model {
    fn new(
        mode: BarrierMode,
        scan_few_frames: bool,
        move_limit: usize,
        bounds_early: bool,
    ) -> Model {
        let code = Arc::new(Code::new());
        register(&code);
        let config = Config {
            barriers: mode,
            scan_few_frames,
            move_limit,
            max_stack: 8 << 20,
            poison: true,
            ..Config::default()
        };
        let runtime = Runtime::new(config, code, Box::new(NoHost)).expect("the assembly's frames");
        let collected = Arc::new(Collected::default());
        let _ = runtime.set_root_sink(collected.clone());
        // SAFETY: the goroutine never runs.
        let goroutine = unsafe { runtime.spawn(0, 0) }.expect("memory");
        let machine = Arc::new(MachineEntry::new());
        runtime.registry.add_machine(machine.clone());
        Model {
            runtime,
            machine,
            collected,
            goroutine,
            frames: Vec::new(),
            next_reference: REFERENCE,
            cycle: 0,
            expected: None,
            optional: Vec::new(),
            touched: 0,
            scanned_at: 0,
            reached: 0,
            marked_from: 0,
            ran: std::cell::Cell::new(true),
            bounds_early: bounds_early && mode != BarrierMode::Off,
            bounded: false,
        }
    }

    fn hi(&self) -> usize {
        self.goroutine.bounds().end
    }

    fn read(&self, depth: usize) -> usize {
        // SAFETY: depths of the model lie within the stack.
        unsafe { *((self.hi() - depth) as *const usize) }
    }

    fn write(&self, depth: usize, word: usize) {
        // SAFETY: as above.
        unsafe { *((self.hi() - depth) as *mut usize) = word }
    }

    /// Depth of the managed stack pointer: that of the youngest frame, or that of the stack without
    /// frames, under `goroutine_entry`.
    fn sp(&self) -> usize {
        match self.frames.last() {
            None => asm::PREPARED_BYTES - CALL_SYSTEM,
            Some(Frame::Managed { depth, .. }) => *depth,
            Some(Frame::Callback { call_out }) => call_out + asm::CALLBACK_FRAME_BYTES,
        }
    }

    /// Depth of the slot with the saved frame pointer of managed frame `i`, to which
    /// its frame pointer points.
    fn fp(&self, i: usize) -> usize {
        match &self.frames[i] {
            Frame::Managed { depth, locals, .. } => depth - locals.len() * WORD,
            Frame::Callback { .. } => unreachable!("a callback has no frame pointer of its own"),
        }
    }

    /// The value of the frame pointer register with `count` frames.
    fn fp_value(&self, count: usize) -> usize {
        let youngest =
            self.frames[..count].iter().rposition(|frame| matches!(frame, Frame::Managed { .. }));
        youngest.map_or(0, |i| self.hi() - self.fp(i))
    }

    fn return_of(&self, count: usize) -> usize {
        match self.frames[..count].last() {
            None => asm::entry_pc(),
            Some(Frame::Managed { function, .. }) => return_address(*function),
            Some(Frame::Callback { .. }) => asm::callback_range().end - 1,
        }
    }

    /// Makes the goroutine stand in `call_system`, called by the youngest frame.
    fn call_out(&self) {
        self.ran.set(true);
        let sp = self.sp();
        self.write(sp + WORD, self.return_of(self.frames.len()));
        self.write(sp + 2 * WORD, self.fp_value(self.frames.len()));
        (3..=CALL_SYSTEM / WORD).for_each(|i| self.write(sp + i * WORD, 0));
        let sched = &self.goroutine.header.sched;
        sched.pc.store(asm::resume_pc(), Relaxed);
        sched.sp.store(self.hi() - sp - CALL_SYSTEM, Relaxed);
        sched.fp.store(self.fp_value(self.frames.len()), Relaxed);
    }

    /// The registers with which the youngest frame goes on.
    fn registers(&self) -> Registers {
        let count = self.frames.len();
        Registers { pc: self.return_of(count), sp: self.hi() - self.sp(), fp: self.fp_value(count) }
    }

    fn call(&mut self, function: usize, seed: usize) {
        if self.frames.len() == MOST_FRAMES {
            return;
        }
        let (words, live) = shape(function);
        self.poll();
        self.ensure_space(RECORD + words * WORD + CALL_SYSTEM);
        self.push(function, words, live, seed);
        self.call_out();
    }

    /// Compares the stack pointer with the poll word, as a prologue does.
    fn poll(&mut self) {
        let limit = self.goroutine.header.stack_limit.load(Relaxed);
        if self.hi() - self.sp() < limit && scan::is_at_bound(&self.goroutine) {
            self.catch_up();
        }
    }

    /// The goroutine visits its young part.
    fn catch_up(&mut self) {
        if !self.runtime.cycle.bounds_young() {
            // SAFETY: the goroutine stands still in its call out, as at a poll.
            unsafe { scan::catch_up_at_poll(&self.runtime, &self.goroutine) };
            assert_eq!(self.goroutine.bound(), None, "no cycle asks for it");
            return;
        }
        let before = std::mem::take(&mut *self.collected.0.lock());
        // SAFETY: as above.
        unsafe { scan::catch_up_at_poll(&self.runtime, &self.goroutine) };
        let found = self.take_collected();
        assert!(
            (0..=self.touched).rev().any(|first| found == self.references(first)),
            "all that has run is visited, and whole frames"
        );
        *self.collected.0.lock() = before;
        self.scanned(false);
        self.bounded = self.is_plain();
    }

    /// A scan of changed frames has begun, and of all if `whole`.
    fn scanned(&mut self, whole: bool) {
        self.touched = self.frames.len().saturating_sub(1);
        (self.scanned_at, self.reached) = (self.sp(), self.sp());
        self.marked_from = if whole { self.sp() } else { self.marked_from.max(self.sp()) };
    }

    /// The present cycle bounds young parts from now on.
    fn bound(&mut self) {
        if self.cycle > 0 && self.runtime.config().barriers != BarrierMode::Off {
            self.runtime.cycle.bound_young();
            self.catch_up();
        }
    }

    fn ensure_space(&self, bytes: usize) {
        if self.sp() + bytes + self.runtime.config().guard()
            > self.hi() - self.goroutine.bounds().start
        {
            let (mut answers, hi) = (0, self.hi());
            // SAFETY: the goroutine stands still in its call out.
            unsafe { scan::grow(&self.runtime, &self.goroutine, 0, &mut || answers += 1) }
                .expect("room");
            // However deep the stack: there are at most 256 frames between two answers. A stack
            // that grows in place takes no time to speak of.
            let few = self.frames.len() < 256 * (answers + 1);
            assert!(few || self.hi() == hi, "{answers} answers");
        }
    }

    fn push(
        &mut self,
        function: usize,
        words: usize,
        live: impl Iterator<Item = usize>,
        seed: usize,
    ) {
        let count = self.frames.len();
        let caller_sp = self.sp();
        self.write(caller_sp + WORD, self.return_of(count));
        self.write(caller_sp + RECORD, self.fp_value(count));
        let depth = caller_sp + RECORD + words * WORD;
        let mut locals: Vec<_> =
            (0..words).map(|i| Local::Dead(self.hi() - depth + i * seed)).collect();
        for i in live {
            locals[i] = match (seed + i) % 4 {
                0 => Local::Reference(0),
                1 if depth > 64 => Local::Own((depth - (seed * 24) % (depth - 32)) / WORD * WORD),
                _ => self.reference(),
            };
        }
        for (i, local) in locals.iter().enumerate() {
            self.write(depth - i * WORD, self.word(*local));
        }
        self.frames.push(Frame::Managed { function, depth, locals });
    }

    fn reference(&mut self) -> Local {
        self.next_reference += WORD;
        Local::Reference(self.next_reference)
    }

    /// The native code that the youngest frame called out to calls back `function`, a small one.
    fn call_back(&mut self, function: usize, seed: usize) {
        if self.frames.is_empty() || self.frames.len() + 2 > MOST_FRAMES {
            return;
        }
        let (words, live) = shape(function);
        self.ensure_space(
            CALL_SYSTEM + asm::CALLBACK_FRAME_BYTES + RECORD + words * WORD + CALL_SYSTEM,
        );
        let call_out = self.sp() + CALL_SYSTEM;
        self.goroutine.scan_lock().calls_back(call_out);
        self.write(call_out + WORD, self.goroutine.header.sched.pc.load(Relaxed));
        self.write(call_out + 2 * WORD, self.goroutine.header.sched.fp.load(Relaxed));
        let rest = 3..=asm::CALLBACK_FRAME_BYTES / WORD;
        rest.for_each(|i| self.write(call_out + i * WORD, self.hi()));
        self.frames.push(Frame::Callback { call_out });
        self.push(function, words, live, seed);
        self.call_out();
    }

    fn word(&self, local: Local) -> usize {
        match local {
            Local::Reference(word) | Local::Dead(word) => word,
            Local::Own(depth) => self.hi() - depth,
        }
    }

    fn return_once(&mut self) {
        let Some(count) = self.frames.len().checked_sub(1) else { return };
        let slot = self.fp(count) - WORD;
        if let Some(stub) = asm::barrier::index_of(self.read(slot)) {
            let fp = self.fp_value(count);
            let at = (self.hi() - slot, stub, fp);
            scan::hit(&self.runtime, &self.machine, &self.goroutine, at);
        }
        assert_eq!(self.read(slot), self.return_of(count), "the return reaches the caller");
        self.frames.pop();
        if let Some(Frame::Callback { call_out }) = self.frames.last() {
            assert_eq!(
                self.read(call_out + WORD),
                asm::resume_pc(),
                "no barrier in a callback's slot"
            );
            scan::come_back(&self.runtime, &self.goroutine, *call_out);
            self.frames.pop();
        }
        self.runs_older_frames();
    }

    /// An exception leaves `n` frames.
    fn unwind(&mut self, n: usize) {
        let left = self.frames.len().saturating_sub(n);
        // What the scan has not come to is left out.
        if let Some(expected) = &mut self.expected {
            self.optional.extend(expected.extract_if(.., |(i, _)| *i >= left).map(|(_, w)| w));
        }
        // The callbacks one by one.
        while self.frames.len() > left {
            if let Some(Frame::Callback { call_out }) = self.frames.pop() {
                scan::leave_callback(&self.runtime, &self.goroutine, call_out);
            }
        }
        if let Some(Frame::Callback { call_out }) = self.frames.last() {
            scan::leave_callback(&self.runtime, &self.goroutine, *call_out);
            self.frames.pop();
        }
        scan::leave_frames(&self.runtime, &self.goroutine, self.registers());
        self.runs_older_frames();
    }

    fn runs_older_frames(&mut self) {
        self.touched = self.touched.min(self.frames.len().saturating_sub(1));
        self.reached = self.reached.min(self.sp());
        self.call_out();
    }

    /// Changes a reference in some frame without the write barrier.
    fn write_in_bulk(&mut self, by: usize) {
        let Some(i) = by.checked_rem(self.frames.len()) else { return };
        let new = self.reference();
        let Frame::Managed { depth, locals, .. } = &mut self.frames[i] else { return };
        let Some(at) = locals.iter().position(|local| matches!(local, Local::Reference(_))) else {
            return;
        };
        locals[at] = new;
        let word = *depth - at * WORD;
        // SAFETY: the goroutine stands still in its call out, and the lock is ours.
        unsafe {
            scan::thaw(&self.runtime, &self.goroutine, &mut self.goroutine.scan_lock(), word)
        }
        .expect("a true stack");
        self.write(word, self.word(new));
        self.touched = self.touched.min(i);
        self.reached = self.reached.min(word);
        self.ran.set(true);
        self.bounded = false;
    }

    /// Begins a scan in the given way.
    fn begin(&mut self, how: Begin) {
        self.finish();
        let how = if self.cycle == 0 { Begin::Major } else { how };
        let first = if how == Begin::Major { 0 } else { self.rescan() };
        let kept = if how == Begin::Minor { self.cycle } else { 0 };
        self.cycle += u64::from(how != Begin::Again);
        if how != Begin::Again {
            self.runtime.cycle.end(true);
            self.runtime.cycle.begin(self.cycle, kept);
            if self.bounds_early {
                self.runtime.cycle.bound_young();
            }
            self.bounded = self.bounds_early && self.is_plain();
        }
        if how == Begin::Minor && !self.ran.get() {
            let kept = scan::keep(
                &self.runtime,
                &self.goroutine,
                &mut self.goroutine.scan_lock(),
                self.cycle,
                &|words: &[usize]| self.runtime.roots(words),
            );
            assert!(kept, "the last cycle has scanned it");
            assert_eq!(self.take_collected(), [], "nothing is visited where nothing has run");
            scan::bound(&self.runtime, &self.goroutine, &self.goroutine.scan_lock());
            return;
        }
        self.ran.set(false);
        self.expected = Some(self.references_of_frames(first));
        self.optional.clear();
        let mut scan = self.goroutine.scan_lock();
        let to = |words: &[usize]| self.runtime.roots(words);
        // SAFETY: the lock is ours, the goroutine stands still.
        unsafe { scan::begin(&self.runtime, &self.goroutine, &mut scan, self.cycle, &to) }
            .expect("a true stack");
        scan::bound(&self.runtime, &self.goroutine, &scan);
        drop(scan);
        self.scanned(how == Begin::Major);
        self.compare();
    }

    /// A worker visits a few frames.
    fn visit_frozen(&mut self, budget: Budget) {
        let mut scan = self.goroutine.scan_lock();
        let to = |words: &[usize]| self.runtime.roots(words);
        scan::visit_frozen(&self.runtime, &self.goroutine, &mut scan, self.cycle, budget, &to)
            .expect("a true stack");
    }

    fn finish(&mut self) {
        self.visit_frozen(Budget::WHOLE);
        self.compare();
        assert_eq!(self.expected, None, "the scan is complete");
    }

    /// Visits what has changed since the scan. Returns the index of the oldest frame visited.
    fn rescan(&mut self) -> usize {
        self.finish();
        let to = |words: &[usize]| self.collected.roots(words);
        let scan = self.goroutine.scan_lock();
        self.take_collected();
        // SAFETY: the lock is ours, the goroutine stands still.
        let visited =
            unsafe { scan::visit(&self.runtime, &self.goroutine, &scan, Extent::Rescan, &to) };
        let mut left = visited.expect("a true stack").frames - 1;
        let mut first = self.frames.len();
        while left > 0 && first > 0 {
            first -= 1;
            left -= match self.frames[first] {
                Frame::Managed { .. } => 1,
                // The scan may end between the callback and the call out below it.
                Frame::Callback { .. } => left.min(2),
            };
        }
        assert!(left == 0 || (left, first) == (1, 0), "{left} frames besides goroutine_entry");
        assert_eq!(self.take_collected(), self.references(first));
        assert!(first <= self.touched || self.cycle == 0, "all that has run is visited again");
        let limit = scan.limit();
        let bounded = self.runtime.config().barriers != BarrierMode::Off && self.cycle > 0;
        if bounded && self.is_plain() {
            let touched = self.marked_from.saturating_sub(self.reached);
            let bound = 2 * touched + 2 * MAX_FRAME + 1024;
            let visited = self.scanned_at.saturating_sub(limit.map_or(0, |(depth, _)| depth));
            assert!(
                visited <= bound || limit.is_none() && self.reached < 4096,
                "{visited} for {touched} touched"
            );
        }
        first
    }
}

/// Runs the steps that `bytes` stand for.
///
/// # Panics
/// If the real stack is not what the model says.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes.iter().map(|b| usize::from(*b));
    let Some(first) = bytes.next() else { return };
    let mode = [
        BarrierMode::Incremental,
        BarrierMode::EveryFrame,
        BarrierMode::RescanLimit,
        BarrierMode::Off,
    ][first % 4];
    let move_limit = if first & 0x80 == 0 { 256 << 10 } else { 8 << 10 };
    let mut model = Model::new(mode, first & 0x40 != 0, move_limit, first & 0x20 != 0);
    model.call_out();
    let free = stubs().available();
    while let (Some(step), Some(by)) = (bytes.next(), bytes.next()) {
        match step % 15 {
            0..=2 => (0..=by % 8).for_each(|i| model.call((step + i) % FUNCTIONS, by + i)),
            3 => (0..=by % 16).for_each(|_| model.return_once()),
            4 => model.begin(Begin::Major),
            5 if by % 4 == 0 => model.verify(),
            5 => drop(model.rescan()),
            // SAFETY: the goroutine stands still in its call out.
            6 if by.is_multiple_of(2) => unsafe {
                scan::move_elsewhere(&model.runtime, &model.goroutine).expect("memory");
            },
            6 => {
                let (runtime, goroutine) = (&model.runtime, &model.goroutine);
                let shrunk = scan::with_memory_to_shrink(runtime, goroutine, |memory| {
                    let scan = goroutine.scan_lock();
                    // SAFETY: as above, and the lock is ours.
                    unsafe { scan::shrink(runtime, goroutine, &scan, memory) }
                });
                shrunk.expect("a true stack");
            }
            7 => model.unwind(by % 6),
            8 => model.visit_frozen(Budget { frames: by as u64 % 8, bytes: by * 64 }),
            9 => model.begin(Begin::Again),
            10 => model.call_back([0, 1, 2, 7][by % 4], by),
            11 => model.begin(Begin::Minor),
            12 => model.bound(),
            13 => model.catch_up(),
            _ => model.write_in_bulk(by),
        }
        model.compare();
        model.check();
        model.check_bound();
    }
    while !model.frames.is_empty() {
        model.return_once();
    }
    model.finish();
    assert_eq!(
        model.goroutine.scan_lock().barriers().lowest(),
        None,
        "every barrier was hit or settled"
    );
    let counters = model.runtime.counters();
    let [placed, hit, left] =
        [&counters.placed, &counters.hit, &counters.leapfrogged].map(|n| n.load(Relaxed));
    assert!(hit + left <= placed, "{hit} hit and {left} left of {placed}");
    if cfg!(fuzzing) {
        let at_hand = model.goroutine.scan_lock().barriers().stubs();
        assert_eq!(stubs().available() + at_hand, free, "no stub is lost");
    }
}

#[cfg(test)]
mod tests;
