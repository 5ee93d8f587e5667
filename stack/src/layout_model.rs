//! A stack that only the model knows to be true, and the real scanning, hitting and moving over it.
//!
//! Bytes become steps: calls and returns of invented functions, scans, rescans, moves, growth, exceptions. After each step every
//! frame of the real stack is compared with the model. The property tests and the fuzz target feed it.

use crate::goroutine::Goroutine;
use crate::runtime::{BarrierMode, Collector, Config, Host, Runtime, stubs};
use crate::scan::{self, Extent};
use crate::{MAX_FRAME, STACK_GUARD, moving, poll};
use parking_lot::Mutex;
use stackmark_asm as asm;
use stackmark_unwind::{Code, Function, Region, Safepoint};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const WORD: usize = 8;
/// What lies above the locals of a frame: the saved frame pointer and the return address.
const RECORD: usize = 2 * WORD;
/// The part of `call_system` at the young end.
const CALL_SYSTEM: usize = 7 * WORD;
const FUNCTION_BYTES: usize = 64;
const FUNCTIONS: usize = 16;
/// Where in its function each safepoint's return address lies.
const CALL_SITE: usize = 32;
/// The smallest invented reference: no stack lies there.
const REFERENCE: usize = 0x10;
/// The model stops growing here, so that a run stays short.
const MOST_FRAMES: usize = 400;

/// The invented code: nothing of it is ever executed.
static CODE: [u8; FUNCTIONS * FUNCTION_BYTES] = [0xcc; FUNCTIONS * FUNCTION_BYTES];

/// Words of locals of function `f`, and which of them are live at its call.
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

impl Collector for Collected {
    fn roots(&self, words: &[usize]) {
        self.0.lock().extend_from_slice(words);
    }
}

/// What a local holds.
#[derive(Clone, Copy, Debug)]
enum Local {
    Reference(usize),
    /// The address of the stack at this depth.
    Own(usize),
    /// Not live: a word that nobody may change, whatever it looks like.
    Dead(usize),
}

struct Frame {
    function: usize,
    /// Depth of the frame's stack pointer.
    depth: usize,
    locals: Vec<Local>,
}

struct Model {
    runtime: Arc<Runtime>,
    collected: Arc<Collected>,
    goroutine: Arc<Goroutine>,
    /// Oldest first.
    frames: Vec<Frame>,
    next_reference: usize,
}

impl Model {
    fn new(mode: BarrierMode, move_limit: usize) -> Model {
        let code = Arc::new(Code::new());
        register(&code);
        let config = Config { barriers: mode, move_limit, max_stack: 8 << 20, poison: true, ..Config::default() };
        let runtime = Runtime::new(config, code, Box::new(NoHost)).expect("the assembly's frames");
        let collected = Arc::new(Collected::default());
        runtime.set_collector(collected.clone());
        // SAFETY: the goroutine never runs.
        let goroutine = unsafe { runtime.spawn(0, 0) }.expect("memory");
        Model { runtime, collected, goroutine, frames: Vec::new(), next_reference: REFERENCE }
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

    /// Depth of the managed stack pointer: of the youngest frame, or of the bottom under `goroutine_entry`.
    fn sp(&self) -> usize {
        self.frames.last().map_or(asm::PREPARED_BYTES - CALL_SYSTEM, |f| f.depth)
    }

    /// Depth of the saved frame pointer of frame `i`: where its frame pointer points.
    fn fp(&self, i: usize) -> usize {
        self.frames[i].depth - self.frames[i].locals.len() * WORD
    }

    fn fp_value(&self, count: usize) -> usize {
        if count == 0 { 0 } else { self.hi() - self.fp(count - 1) }
    }

    fn return_of(&self, count: usize) -> usize {
        if count == 0 { asm::entry_range().start + 1 } else { return_address(self.frames[count - 1].function) }
    }

    /// Lets the goroutine stand in `call_system`, called by the youngest frame.
    fn call_out(&self) {
        let sp = self.sp();
        self.write(sp + WORD, self.return_of(self.frames.len()));
        self.write(sp + 2 * WORD, self.fp_value(self.frames.len()));
        (3..=7).for_each(|i| self.write(sp + i * WORD, 0));
        let sched = &self.goroutine.header.sched;
        sched.pc.store(asm::resume_pc(), Relaxed);
        sched.sp.store(self.hi() - sp - CALL_SYSTEM, Relaxed);
        sched.fp.store(self.fp_value(self.frames.len()), Relaxed);
    }

    fn call(&mut self, function: usize, seed: usize) {
        if self.frames.len() == MOST_FRAMES {
            return;
        }
        let (words, live) = shape(function);
        if self.sp() + RECORD + words * WORD + CALL_SYSTEM + STACK_GUARD > self.hi() - self.goroutine.bounds().start {
            // SAFETY: the goroutine stands still in its call out.
            unsafe { moving::grow(&self.runtime, &self.goroutine, 0) }.expect("room");
        }
        let count = self.frames.len();
        let caller_sp = self.sp();
        self.write(caller_sp + WORD, self.return_of(count));
        self.write(caller_sp + RECORD, self.fp_value(count));
        let depth = caller_sp + RECORD + words * WORD;
        let mut locals: Vec<_> = (0..words).map(|i| Local::Dead(self.hi() - depth + i * seed)).collect();
        for i in live {
            locals[i] = match (seed + i) % 4 {
                0 => Local::Reference(0),
                1 if depth > 64 => Local::Own((depth - (seed * 24) % (depth - 32)) / WORD * WORD),
                _ => {
                    self.next_reference += WORD;
                    Local::Reference(self.next_reference)
                }
            };
        }
        for (i, local) in locals.iter().enumerate() {
            self.write(depth - i * WORD, self.word(*local));
        }
        self.frames.push(Frame { function, depth, locals });
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
            poll::hit(&self.runtime, &self.goroutine, self.hi() - slot, stub);
        }
        assert_eq!(self.read(slot), self.return_of(count), "the return reaches the caller");
        self.frames.pop();
        self.call_out();
    }

    /// An exception leaves `n` frames.
    fn unwind(&mut self, n: usize) {
        let keep = self.frames.len().saturating_sub(n);
        self.frames.truncate(keep);
        self.goroutine.scan_lock().barriers.leave(stubs(), self.sp());
        self.call_out();
    }

    /// Scans and compares what was found with what the model has.
    fn scan(&self, extent: Extent) {
        let mut state = self.goroutine.scan_lock();
        let lowest = state.barriers.lowest();
        self.collected.0.lock().clear();
        // SAFETY: the lock is ours, the goroutine stands still.
        let visited =
            unsafe { scan::scan(&self.runtime, &self.goroutine, &mut state, extent) }.expect("a true stack");
        let owner = |i: usize| extent == Extent::Rescan && lowest.is_some_and(|b| b.depth == self.fp(i) - WORD);
        let first = (0..self.frames.len()).rev().find(|i| owner(*i)).unwrap_or(0);
        let mut want: Vec<_> = self.frames[first..].iter().flat_map(|f| &f.locals).collect::<Vec<_>>();
        want.retain(|local| matches!(local, Local::Reference(1..)));
        let mut want: Vec<_> = want.into_iter().map(|local| self.word(*local)).collect();
        let mut found = std::mem::take(&mut *self.collected.0.lock());
        want.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, want);
        // call_system's frame, and goroutine_entry's if the walk came so far.
        let ends = if extent == Extent::Rescan && lowest.is_some() { 1 } else { 2 };
        assert_eq!(visited.frames as usize, self.frames.len() - first + ends);
    }

    fn check(&self) {
        let sched = &self.goroutine.header.sched;
        assert_eq!(self.hi() - sched.sp.load(Relaxed), self.sp() + CALL_SYSTEM);
        assert_eq!(sched.fp.load(Relaxed), self.fp_value(self.frames.len()));
        let true_return = |found| asm::barrier::original(found).unwrap_or(found);
        assert_eq!(self.read(self.sp() + WORD), self.return_of(self.frames.len()), "no barrier under call_system");
        for (i, frame) in self.frames.iter().enumerate() {
            for (at, local) in frame.locals.iter().enumerate() {
                assert_eq!(
                    self.read(frame.depth - at * WORD),
                    self.word(*local),
                    "local {at} of frame {i}: {local:?}"
                );
            }
            assert_eq!(self.read(self.fp(i)), self.fp_value(i), "the saved frame pointer of frame {i}");
            assert_eq!(true_return(self.read(self.fp(i) - WORD)), self.return_of(i), "the return slot of frame {i}");
        }
        // SAFETY: the lock is ours, the goroutine stands still.
        unsafe { scan::check_barriers(&self.goroutine, &self.goroutine.scan_lock()) };
    }
}

/// Runs the steps that `bytes` stand for.
///
/// # Panics
/// When the real stack is not what the model says.
pub fn run(bytes: &[u8]) {
    let mut bytes = bytes.iter().map(|b| usize::from(*b));
    let Some(first) = bytes.next() else { return };
    let mode = [BarrierMode::Exponential, BarrierMode::EveryFrame, BarrierMode::Off][first % 3];
    let mut model = Model::new(mode, if first & 0x80 == 0 { 256 << 10 } else { 8 << 10 });
    model.call_out();
    let free = stubs().available();
    while let (Some(step), Some(by)) = (bytes.next(), bytes.next()) {
        match step % 8 {
            0..=2 => (0..=by % 8).for_each(|i| model.call((step + i) % FUNCTIONS, by + i)),
            3 => (0..=by % 16).for_each(|_| model.return_once()),
            4 => model.scan(Extent::First),
            5 => model.scan(if by.is_multiple_of(4) { Extent::Verify } else { Extent::Rescan }),
            // SAFETY: the goroutine stands still in its call out.
            6 if by.is_multiple_of(2) => unsafe {
                moving::move_elsewhere(&model.runtime, &model.goroutine).expect("memory");
            },
            6 => {
                let _scan_lock = model.goroutine.scan_lock();
                // SAFETY: as above, and the lock is ours.
                unsafe { moving::shrink(&model.runtime, &model.goroutine) }.expect("a true stack");
            }
            _ => model.unwind(by % 6),
        }
        model.check();
    }
    while !model.frames.is_empty() {
        model.return_once();
    }
    assert_eq!(model.goroutine.scan_lock().barriers.lowest(), None, "every barrier was hit or settled");
    if cfg!(fuzzing) {
        assert_eq!(stubs().available(), free, "no stub is lost");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
        #[test]
        fn scans_hits_and_moves_agree_with_the_model(bytes in prop::collection::vec(any::<u8>(), 0..160)) {
            super::run(&bytes);
        }
    }
}
