//! A model of a stack's layout, with the real scanning, hitting and moving over a real stack.
//!
//! Bytes become steps: calls and returns of invented functions, scans, rescans, short scans, moves,
//! growth, exceptions. After each step every frame of the real stack is compared with the model.
//! The property tests and the fuzz target supply the bytes.

use crate::goroutine::Goroutine;
use crate::memory::{MAX_FRAME, STACK_GUARD};
use crate::protocol::Budget;
use crate::runtime::{BarrierMode, Config, Host, RootSink, Runtime, stubs};
use crate::scan::{self, Extent};
use parking_lot::Mutex;
use stackmark_asm as asm;
use stackmark_unwind::{Code, Function, Region, Registers, Safepoint};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const WORD: usize = 8;
/// Bytes above the locals of a frame: the saved frame pointer and the return address.
const RECORD: usize = 2 * WORD;
/// The part of `call_system` at the young end.
const CALL_SYSTEM: usize = 7 * WORD;
const FUNCTION_BYTES: usize = 64;
const FUNCTIONS: usize = 16;
/// The offset of the safepoint's return address in each function.
const CALL_SITE: usize = 32;
/// The smallest invented reference. No stack lies there.
const REFERENCE: usize = 0x10;
/// The model stops growing here, so that a run stays short.
const MOST_FRAMES: usize = 400;

/// The invented code, which is never executed.
static CODE: [u8; FUNCTIONS * FUNCTION_BYTES] = [0xcc; FUNCTIONS * FUNCTION_BYTES];

/// The number of words of locals of function `f`, and the words that are live at its call.
fn shape(f: usize) -> (usize, impl Iterator<Item = usize>) {
    let words = [2, 3, 4, 6, 8, 12, 16, 2, 24, 40, 5, 60, 90, 124, 7, 10][f];
    (words, (0..words).filter(move |i| (i + f).is_multiple_of(1 + f % 3)))
}

/// `.eh_frame` for frames with a frame pointer: CFA = rbp + 16 from the fifth byte on.
fn eh_frame(start: usize, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut record = |body: Vec<u8>| {
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend(body);
    };
    // CIE: version 1, no augmentation, alignments 1 and -8, return address in 16; CFA = rsp + 8.
    record(vec![0, 0, 0, 0, 1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1, 0, 0, 0, 0, 0, 0]);
    let mut fde = Vec::from(28u32.to_le_bytes());
    fde.extend(start.to_le_bytes());
    fde.extend(len.to_le_bytes());
    // After 1 byte: CFA + 16, rbp saved; after 3 more: CFA = rbp + 16.
    fde.extend([0x41, 0x0e, 16, 0x86, 2, 0x43, 0x0d, 6, 0, 0, 0, 0]);
    record(fde);
    bytes.extend([0; 4]);
    bytes
}

fn register(code: &Code) {
    let base = CODE.as_ptr() as usize;
    let functions = (0..FUNCTIONS).map(|f| Function {
        name: format!("invented{f}"),
        start: base + f * FUNCTION_BYTES,
        len: FUNCTION_BYTES,
        moves_return_address: f == FUNCTIONS - 1,
    });
    let safepoints = (0..FUNCTIONS).map(|f| {
        let (words, live) = shape(f);
        Safepoint {
            return_address: return_address(f),
            cfa_offset: (words * WORD + RECORD) as u32,
            slots: live.map(|i| (i * WORD) as u32).collect(),
        }
    });
    code.register(Region {
        name: "invented".into(),
        start: base,
        len: CODE.len(),
        eh_frame: eh_frame(base, CODE.len()),
        functions: functions.collect(),
        safepoints: safepoints.collect(),
        max_frame: Some(MAX_FRAME as u32),
        ..Region::default()
    })
    .expect("a correct region");
}

fn return_address(f: usize) -> usize {
    CODE.as_ptr() as usize + f * FUNCTION_BYTES + CALL_SITE
}

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
        Model {
            runtime,
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
            None => asm::entry_range().start + 1,
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
        (3..=7).for_each(|i| self.write(sp + i * WORD, 0));
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

    /// Whether each frame may have a barrier.
    fn is_plain(&self) -> bool {
        self.frames.iter().all(|frame| match frame {
            Frame::Managed { function, .. } => *function != FUNCTIONS - 1,
            Frame::Callback { .. } => false,
        })
    }

    /// Checks invariant 12.
    fn check_bound(&self) {
        if self.bounded && self.is_plain() {
            let scan = self.goroutine.scan_lock();
            let young = self.sp() - scan.limit().map_or(0, |(depth, _)| depth);
            let most = self.runtime.config().young_bound().most;
            assert!(young <= most + MAX_FRAME, "{young} bytes of young frames");
        }
    }

    fn ensure_space(&self, bytes: usize) {
        if self.sp() + bytes + STACK_GUARD > self.hi() - self.goroutine.bounds().start {
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
        (2..=5).for_each(|i| self.write(call_out + i * WORD, self.hi()));
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
            scan::hit(&self.runtime, &self.goroutine, self.hi() - slot, stub, fp);
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

    /// The references in the frames from `first` on.
    fn references(&self, first: usize) -> Vec<usize> {
        let mut words: Vec<_> =
            self.references_of_frames(first).into_iter().map(|(_, word)| word).collect();
        words.sort_unstable();
        words
    }

    /// The same, each with the index of its frame.
    fn references_of_frames(&self, first: usize) -> Vec<(usize, usize)> {
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

    fn take_collected(&self) -> Vec<usize> {
        let mut found = std::mem::take(&mut *self.collected.0.lock());
        found.sort_unstable();
        found
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
        // SAFETY: the lock is ours, the goroutine stands still.
        unsafe { scan::begin(&self.runtime, &self.goroutine, &mut scan, self.cycle) }
            .expect("a true stack");
        scan::bound(&self.runtime, &self.goroutine, &scan);
        drop(scan);
        self.scanned(how == Begin::Major);
        self.compare();
    }

    /// A worker visits a few frames.
    fn visit_frozen(&mut self, budget: Budget) {
        let mut scan = self.goroutine.scan_lock();
        scan::visit_frozen(&self.runtime, &self.goroutine, &mut scan, self.cycle, budget)
            .expect("a true stack");
    }

    fn finish(&mut self) {
        self.visit_frozen(Budget::WHOLE);
        self.compare();
        assert_eq!(self.expected, None, "the scan is complete");
    }

    /// Checks that a complete scan has found exactly the expected roots, and of frames that were
    /// left before it came to them any.
    fn compare(&mut self) {
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

    /// Visits all frames.
    fn verify(&mut self) {
        self.finish();
        let to = |words: &[usize]| self.collected.roots(words);
        let scan = self.goroutine.scan_lock();
        // SAFETY: the lock is ours, the goroutine stands still.
        unsafe { scan::visit(&self.runtime, &self.goroutine, &scan, Extent::Verify, &to) }
            .expect("a true stack");
        assert_eq!(self.take_collected(), self.references(0));
    }

    fn check(&self) {
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
                let mut memory = scan::memory_to_shrink(&model.runtime, &model.goroutine);
                let scan_lock = model.goroutine.scan_lock();
                // SAFETY: as above, and the lock is ours.
                unsafe { scan::shrink(&model.runtime, &model.goroutine, &mut memory) }
                    .expect("a true stack");
                drop(scan_lock);
                if let Some(memory) = memory {
                    scan::release(&model.runtime, memory);
                }
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
        assert_eq!(stubs().available(), free, "no stub is lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stack_of_callbacks_where_no_slot_is_legal_is_scanned_in_bounded_steps() {
        let mut model = Model::new(BarrierMode::Incremental, false, 256 << 10, false);
        model.call_out();
        model.call(0, 1);
        for seed in 0..190 {
            model.call_back(0, seed);
        }
        model.begin(Begin::Major);
        let visited = |model: &Model| model.collected.0.lock().len();
        let all = model.references(0).len();
        assert!(!model.goroutine.scan_lock().is_complete());
        // Each return is a return to a foreign call, where the goroutine visits more frames.
        let mut last = visited(&model);
        assert!(0 < last && last < all / 3, "{last} of {all} roots at once");
        while model.expected.is_some() {
            model.return_once();
            let now = model.expected.as_ref().map_or(all, |_| visited(&model));
            assert!(now - last < all / 3, "{last}, then {now} of {all} roots");
            last = now;
            model.compare();
            model.check();
        }
    }

    #[test]
    fn a_goroutine_that_pushes_and_returns_keeps_its_young_part_within_the_bound() {
        for (mode, few) in [
            (BarrierMode::Incremental, false),
            (BarrierMode::Incremental, true),
            (BarrierMode::RescanLimit, true),
        ] {
            let mut model = Model::new(mode, few, 256 << 10, false);
            model.call_out();
            (0..20).for_each(|seed| model.call(seed % 8, seed));
            model.begin(Begin::Major);
            model.bound();
            for n in [380, 0, 300, 40, 390, 200, 350, 10, 400] {
                while model.frames.len() < n {
                    model.call(8, n);
                    model.check_bound();
                }
                while model.frames.len() > n {
                    model.return_once();
                    model.check_bound();
                }
            }
            let caught_up = model.runtime.counters().scanned_stopped.load(Relaxed);
            assert!(caught_up > 400, "{caught_up} frames were visited at polls");
            assert!(caught_up < 4000, "{caught_up} frames were visited at polls");
        }
    }

    fn deep(frames: usize) -> Model {
        let mut model = Model::new(BarrierMode::Incremental, false, 256 << 10, false);
        model.call_out();
        (0..frames).for_each(|seed| model.call(0, seed));
        model
    }

    #[test]
    fn a_minor_cycle_visits_what_was_returned_to_or_called_since_and_no_more() {
        let mut model = deep(300);
        model.begin(Begin::Major);
        model.finish();
        for cycle in 0..50 {
            (0..3).for_each(|_| model.return_once());
            (0..3).for_each(|seed| model.call(0, cycle + seed));
            model.begin(Begin::Minor);
            assert!(model.goroutine.scan_lock().is_complete(), "a few frames are visited at once");
            model.finish();
            model.verify();
        }
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed);
        assert!(
            count(&model.runtime.counters().kept) > 50 * 200,
            "{} frames",
            count(&model.runtime.counters().kept)
        );
    }

    #[test]
    fn scans_that_begin_again_further_down_visit_at_most_twice_what_was_touched_since_the_first() {
        for step in 1..40 {
            let mut model = deep(390);
            model.begin(Begin::Major);
            while model.frames.len() > step {
                (0..step).for_each(|_| model.return_once());
                model.begin(Begin::Minor);
                model.finish();
                (0..2).for_each(|_| model.return_once());
                // `rescan` checks the bound.
                model.rescan();
            }
        }
    }

    #[test]
    fn the_next_goroutine_of_a_record_inherits_no_scan() {
        let mut model = deep(100);
        model.begin(Begin::Major);
        model.finish();
        let mut scan = model.goroutine.scan_lock();
        assert!(scan.is_frozen(WORD) && scan.is_kept(model.cycle));
        scan.end(stubs());
        assert!(!scan.is_frozen(WORD) && !scan.is_kept(model.cycle));
    }

    #[test]
    fn the_next_goroutine_of_a_record_inherits_no_note_of_having_run() {
        let runtime = deep(0).runtime;
        runtime.cycle.end(false);
        runtime.cycle.begin(7, 0);
        // SAFETY: the goroutine never runs.
        let spawn = || unsafe { runtime.spawn(0, 0) }.expect("memory");
        let first = spawn();
        first.start_running(crate::protocol::Status::Runnable);
        scan::mark_dirty(&runtime, &first);
        first.scan_lock().end(stubs());
        first.status.stop(crate::protocol::Status::Dead);
        runtime.stacks.give(first.memory.lock().take().expect("it has lived"));
        let record = Arc::as_ptr(&first);
        runtime.cycle.take_dirty();
        runtime.registry.has_ended(first);
        let second = spawn();
        assert_eq!(Arc::as_ptr(&second), record);
        scan::mark_dirty(&runtime, &second);
        assert_eq!(
            runtime.cycle.take_dirty().len(),
            1,
            "mark termination looks at the second one, too"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn scans_hits_and_moves_agree_with_the_model(
            bytes in prop::collection::vec(any::<u8>(), 0..160),
        ) {
            super::run(&bytes);
        }
    }
}
