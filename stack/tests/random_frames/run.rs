//! Stacks of compiled frames that call, return, poll, move, call back and are scanned, against a
//! simple model of what they hold.
//!
//! Each byte of the input chooses what the innermost frame does next. Checked are: every word that
//! a frame holds, after everything that it did; every result, also when it comes through a barrier;
//! that a first scan finds exactly the references of all frames; that a rescan finds those of the
//! youngest frames and of no others, all that have run since the scan among them; and that a
//! verifying walk finds all again.

use crate::code::{Compiled, Natives};
use crate::model::{Event, Model};
use parking_lot::Mutex;
use stackmark_stack::unwind::{Code, RegionId};
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, CycleStopped, Goroutine, Host, Left, Machine,
    NextCycle, RootSink, Runtime, ScanScope,
};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

/// Everything here runs on one thread; the lock is never waited for, and not held while managed
/// code runs.
static RUN: Mutex<Option<Run>> = Mutex::new(None);

/// Drives the cycles of the run.
static CYCLES: Mutex<Option<CycleDriver>> = Mutex::new(None);
/// The words of the last scan.
static FOUND: Mutex<Vec<usize>> = Mutex::new(Vec::new());

static COMPILED: LazyLock<Compiled> = LazyLock::new(|| Compiled::new(NATIVES));

const NATIVES: Natives = Natives { begin, fresh, step, check, leave };

struct Run {
    model: Model,
    /// The number of the last cycle begun.
    cycle: u64,
    /// Whether it is under way.
    scanning: bool,
    /// The references that were there when the cycle began.
    first: Vec<usize>,
    /// Those of frames that exceptions have left since. A scan that had not come to such a frame
    /// does not find its references.
    dropped: Vec<usize>,
}

/// What native code throws over managed frames.
struct Thrown;

/// Barriers of all runs: placed, hit, moved, leapfrogged.
pub(crate) static BARRIERS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];

fn with_model<R>(f: impl FnOnce(&mut Model) -> R) -> R {
    f(&mut RUN.lock().as_mut().expect("a run is under way").model)
}

unsafe extern "C-unwind" fn begin(_: *mut c_void, layout: usize) -> usize {
    with_model(|model| model.begin(layout));
    0
}

unsafe extern "C-unwind" fn fresh(layout: *mut c_void, index: usize) -> usize {
    with_model(|model| model.fresh(layout as usize, index))
}

unsafe extern "C-unwind" fn check(word: *mut c_void, index: usize) -> usize {
    with_model(|model| model.check(word as usize, index));
    0
}

unsafe extern "C-unwind" fn leave(_: *mut c_void, _layout: usize) -> usize {
    with_model(Model::leave)
}

unsafe extern "C-unwind" fn step(_: *mut c_void, _layout: usize) -> usize {
    let (event, action) = with_model(Model::next);
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    match event {
        Event::None => {}
        Event::Cycle => cycle(caller),
        Event::Callback => {
            let block = [caller.goroutine().address()];
            // SAFETY: the entry for callbacks is a function of one word, in the convention of
            // managed code.
            let callback: stackmark_stack::asm::ManagedFn =
                unsafe { std::mem::transmute(COMPILED.callback) };
            let block = block.as_ptr() as usize;
            // SAFETY: nothing here points into the goroutine's stack.
            let call = || caller.foreign(|| unsafe { caller.callback(callback, block) });
            match catch_unwind(AssertUnwindSafe(call)) {
                Ok(result) => {
                    let result = result.expect("a foreign call");
                    with_model(|model| model.callback_returned(result));
                }
                Err(thrown) if thrown.is::<Thrown>() => {
                    let dropped = with_model(Model::callback_left);
                    RUN.lock().as_mut().expect("a run").dropped.extend(dropped);
                }
                Err(panic) => resume_unwind(panic),
            }
        }
        Event::Throw => resume_unwind(Box::new(Thrown)),
    }
    action
}

/// Takes the words that the last scans have found, without those that are no references of the
/// model.
fn found() -> Vec<usize> {
    let mut words = std::mem::take(&mut *FOUND.lock());
    words.sort_unstable();
    words
}

/// Begins a cycle with a first scan, or ends it with a rescan, as its thread would while the
/// goroutine is in C.
fn cycle(caller: Caller<'_>) {
    let mut cycles = CYCLES.lock();
    let cycles = cycles.as_mut().expect("a run is under way");
    let (number, ends) = {
        let mut run = RUN.lock();
        let run = run.as_mut().expect("a run is under way");
        let ends = run.scanning;
        run.scanning = !ends;
        run.cycle += u64::from(!ends);
        (run.cycle, ends)
    };
    if ends {
        caller.foreign(|| cycles.stop_world(finish));
        return;
    }
    FOUND.lock().clear();
    caller.foreign(|| {
        cycles.handshake();
        assert!(cycles.begin_scanning(number, ScanScope::Whole));
        cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
    });
    // The scan finds now, or later by returns into frames that are not visited yet, what there is
    // now.
    let there = with_model(|model| {
        model.scanned();
        model.references_of_youngest(model.depth())
    });
    let mut run = RUN.lock();
    let run = run.as_mut().expect("a run");
    (run.first, run.dropped) = (there, Vec::new());
}

/// Ends a cycle.
fn finish(world: &mut CycleStopped<'_>) {
    world.finish_scans().expect("a stack that can be walked");
    let (mut first, dropped) = {
        let mut run = RUN.lock();
        let run = run.as_mut().expect("a run");
        (std::mem::take(&mut run.first), std::mem::take(&mut run.dropped))
    };
    let there = found();
    first.retain(|word| !dropped.contains(word) || there.binary_search(word).is_ok());
    assert_eq!(there, first, "the first scan");
    let visited = world.rescan_dirty().expect("a stack that can be walked");
    let rescanned = found();
    let all = world
        .visit_all(&mut |words| FOUND.lock().extend(words))
        .expect("a stack that can be walked");
    // Frames beyond a foreign call that has not returned are skipped without being counted.
    assert!(visited.frames + visited.skipped <= all.frames, "{visited:?} of {all:?}");
    with_model(|model| {
        let depth = model.depth();
        assert_eq!(found(), model.references_of_youngest(depth), "the verifying walk");
        let enough = (model.touched()..=depth)
            .find(|&count| model.references_of_youngest(count).len() >= rescanned.len());
        let count = enough
            .unwrap_or_else(|| panic!("{} references in the rescan are too many", rescanned.len()));
        let youngest = model.references_of_youngest(count);
        assert_eq!(rescanned, youngest, "the rescan of {depth} frames");
        assert!(visited.frames >= model.touched() as u64);
    });
    world.end_scanning(NextCycle::IsWhole);
}

/// Gathers the words of scans.
struct Gather;

impl RootSink for Gather {
    fn roots(&self, words: &[usize]) {
        FOUND.lock().extend(words);
    }
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("the stack exceeds {limit} bytes")
    }
    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        panic!("{error}")
    }
}

fn config(choice: u8) -> Config {
    Config {
        max_stack: 16 << 20,
        move_limit: if choice & 1 == 0 { 16 << 10 } else { 256 << 10 },
        barriers: match choice >> 1 & 3 {
            0 => BarrierMode::Incremental,
            1 => BarrierMode::RescanLimit,
            2 => BarrierMode::EveryFrame,
            _ => BarrierMode::Off,
        },
        move_every_poll: choice & 8 != 0,
        poison: choice & 16 != 0,
        poll_always: choice & 32 != 0,
        scan_few_frames: choice & 64 != 0,
        ..Config::default()
    }
}

/// A runtime that programs run on, one after the other. There is one at a time.
pub(crate) struct Setting {
    runtime: Arc<Runtime>,
    region: RegionId,
    /// The number of the last cycle.
    cycle: u64,
}

impl Setting {
    /// `choice` says how the runtime behaves.
    pub(crate) fn new(choice: u8) -> Setting {
        let code = Arc::new(Code::new());
        let region = code.register(COMPILED.region()).expect("a correct region");
        let runtime = Runtime::new(config(choice), code, Box::new(Embedder));
        let runtime = runtime.expect("the frames of the assembly");
        let cycles = CycleDriver::new(&runtime, Arc::new(Gather)).expect("one collector");
        *CYCLES.lock() = Some(cycles);
        Setting { runtime, region, cycle: 0 }
    }

    /// Runs one program, with so many frames at once at most.
    ///
    /// # Panics
    /// If something differs from the model. A panic below managed code ends the process.
    pub(crate) fn run(&mut self, input: &[u8], deepest: usize) {
        let model = Model::new(input, deepest);
        let cycle = self.cycle;
        *RUN.lock() = Some(Run { model, cycle, scanning: false, first: vec![], dropped: vec![] });
        let machine = Machine::attach(&self.runtime).expect("a thread of its own");
        // SAFETY: the entry is managed code that keeps the contracts.
        let mut goroutine = unsafe { self.runtime.spawn(COMPILED.entry, 0) }.expect("memory");
        loop {
            match machine.run(goroutine) {
                Left::Yielded(again) => goroutine = again,
                Left::Exited => break,
                Left::Parked => panic!("no goroutine parks here"),
            }
        }
        assert_eq!(with_model(|model| model.depth()), 0);
        let (cycle, scanning) = {
            let run = RUN.lock();
            let run = run.as_ref().expect("a run");
            (run.cycle, run.scanning)
        };
        self.cycle = cycle;
        // All frames have returned since the cycle began.
        if scanning {
            CYCLES.lock().as_mut().expect("the setting's").stop_world(finish);
        }
        drop(machine);
        let census = self.runtime.census();
        assert_eq!(census.imbalances(), [""; 0]);
        assert_eq!((census.goroutines, census.barriers, census.taken_stubs), (0, 0, 0));
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        *CYCLES.lock() = None;
        let counters = self.runtime.counters();
        let counted = [&counters.placed, &counters.hit, &counters.moved, &counters.leapfrogged];
        for (sum, count) in BARRIERS.iter().zip(counted) {
            sum.fetch_add(count.load(Relaxed), Relaxed);
        }
        self.runtime.unregister(&[self.region]).expect("no frame is left");
    }
}
