//! The runtime: what all goroutines and machines of an embedder share.

use crate::attach::Spare;
use crate::barrier::StubPool;
use crate::exception::NativeException;
use crate::goroutine::Goroutine;
use crate::machine::Caller;
use crate::memory::{StackError, StackKind, StackMemory, StackPool};
use crate::observe::Observed;
use crate::request::{Asking, Request};
use crate::return_protection::{Detection, ReturnProtection, in_use};
use crate::spare::SpareList;
use crate::stats::{Counters, Histogram};
use crate::status::Status;
use crate::world::{Gate, World};
use crate::{MIN_STACK, STACK_GUARD};
use parking_lot::Mutex;
use stackmark_asm::{self as asm, barrier, layout::GoroutineHeader};
use stackmark_unwind::{Code, CodeError, FrameKind, NativeRule};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock};

/// Whether return addresses are hijacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum BarrierMode {
    /// A stack is scanned a little at a time, behind a frontier, while its goroutine runs; mark
    /// barriers at 1 KiB, 2 KiB, 4 KiB ... from the stack pointer of a scan bound the rescan.
    #[default]
    Incremental,
    /// A stack is scanned whole while its goroutine waits; mark barriers bound the rescan.
    RescanLimit,
    /// For debugging: as [`BarrierMode::RescanLimit`], with a barrier in every frame that may have
    /// one.
    EveryFrame,
    /// None: stacks that have run since their scan are rescanned whole.
    Off,
}

impl std::fmt::Display for BarrierMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BarrierMode::Incremental => "incremental",
            BarrierMode::RescanLimit => "rescan limit",
            BarrierMode::EveryFrame => "every frame",
            BarrierMode::Off => "off",
        })
    }
}

/// The mode of barriers that a runtime is in, and why: where it is not the one that was chosen, it
/// is [`BarrierMode::Off`] because of a protection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ModeInForce {
    /// The mode.
    pub mode: BarrierMode,
    /// The mode that [`Config::barriers`] asked for.
    pub chosen: BarrierMode,
    /// The protection of return addresses that was found, or assumed.
    pub protection: Option<ReturnProtection>,
}

impl ModeInForce {
    fn new(config: &Config, code: &Code) -> ModeInForce {
        let chosen = config.barriers;
        let (protection, mode) = match config.protection {
            Detection::Ask => (in_use(code), BarrierMode::Off),
            Detection::Assume(protection) => (Some(protection), BarrierMode::Off),
            Detection::Ignore => (in_use(code), chosen),
        };
        ModeInForce { mode: if protection.is_some() { mode } else { chosen }, chosen, protection }
    }
}

/// How a runtime behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// The largest stack, in bytes.
    pub max_stack: usize,
    /// A stack that outgrows this many bytes moves once more, into a reserved range, and grows in
    /// place from then on.
    pub move_limit: usize,
    /// Whether return addresses are hijacked, where nothing forbids it.
    pub barriers: BarrierMode,
    /// How it is found out whether the hardware forbids it.
    pub protection: Detection,
    /// For debugging: scan very few frames at a time, in every mode but [`BarrierMode::Off`].
    pub scan_few_frames: bool,
    /// For a test of the assertion that catches it: place barriers in the slots of callbacks, where
    /// none may be.
    #[doc(hidden)]
    pub hijack_callbacks: bool,
    /// For debugging: move the stack at every poll.
    pub move_every_poll: bool,
    /// For debugging: overwrite stack memory that is not used any more.
    pub poison: bool,
    /// For debugging: every stack check calls out, also where nothing is asked.
    pub poll_always: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_stack: 1_000_000_000,
            move_limit: 256 << 10,
            barriers: BarrierMode::default(),
            protection: Detection::default(),
            scan_few_frames: false,
            hijack_callbacks: false,
            move_every_poll: false,
            poison: false,
            poll_always: false,
        }
    }
}

const PAGE: usize = 4096;
/// Bytes in use of a new fixed stack.
const FIXED_STACK: usize = 16 << 10;

/// What the stack half asks of the embedder. Its methods run on system stacks.
pub trait Host: Send + Sync {
    /// The goroutine's stack would exceed its maximum. It never runs again.
    fn stack_overflow(&self, goroutine: &Goroutine, limit: usize) -> !;

    /// Something is wrong that cannot be gone on with, as a frame without a rule: roots are never
    /// skipped.
    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        eprintln!("stackmark: {error}");
        std::process::abort()
    }

    /// An exception of native code, a Rust panic for example, has left the goroutine's oldest
    /// managed frame. It never runs again. The default makes it an unrecovered panic.
    fn uncaught(&self, caller: Caller<'_>, exception: NativeException) -> ! {
        crate::die_of_panic(caller.runtime(), &exception.to_string())
    }

    /// The file and line of the managed code at `pc`, a pc within a call's instruction, for
    /// tracebacks.
    fn source(&self, _pc: usize) -> Option<(String, u32)> {
        None
    }

    /// Something is likely to go wrong later. The default writes it to standard error.
    fn warn(&self, message: &str) {
        eprintln!("stackmark: {message}");
    }

    /// A thread is being attached, and this is called there: what it returns is the word that each
    /// goroutine finds in [`GoroutineHeader::machine_word`] as long as it runs on that machine.
    fn machine_word(&self) -> usize {
        0
    }

    /// For debugging modes that see every poll: the goroutine is at one, and what was asked of it
    /// is done. May park it.
    fn at_poll(&self, _caller: Caller<'_>) {}
}

/// Who runs goroutines that are ready.
pub trait Schedule: Send + Sync {
    /// `goroutine` may run. Called from any thread, also from the collector's.
    fn ready(&self, goroutine: Arc<Goroutine>);

    /// The collector uses so many processors from now on; 0: none any more. So many goroutines
    /// fewer had better run at a time, but one at least, if they are more together than there are
    /// processors.
    fn make_room(&self, _processors: usize) {}
}

/// What the stack half asks of the collector half.
pub trait Collector: Send + Sync {
    /// These words are roots: each may be a reference, or an integer, or an address outside the
    /// heap. Called under a `scan_lock`: must not wait for goroutines.
    fn roots(&self, words: &[usize]);

    /// There is a stack that [`Runtime::scan_frozen`] may go on with, from whatever thread. If
    /// nobody does, [`WorldStopped::rescan`](crate::WorldStopped::rescan) finishes it.
    fn stack_waits(&self) {}
}

/// What the world knows of a machine.
#[derive(Debug)]
pub(crate) struct MachineEntry {
    pub(crate) gate: Gate,
    /// The goroutine that it runs. Records are never freed before the runtime is, so a stale
    /// pointer does no harm: the wrong goroutine polls once.
    pub(crate) current: AtomicPtr<Goroutine>,
    /// How often the goroutine that runs here has gone outside while it went on being this
    /// machine's. Written by the machine; Relaxed: who reads the same number twice knows enough.
    pub(crate) times_away: AtomicU64,
}

impl AsRef<Gate> for MachineEntry {
    fn as_ref(&self) -> &Gate {
        &self.gate
    }
}

impl MachineEntry {
    pub(crate) fn new() -> MachineEntry {
        MachineEntry {
            gate: Gate::new(),
            current: AtomicPtr::default(),
            times_away: AtomicU64::new(0),
        }
    }

    /// The goroutine that the machine runs, or ran a moment ago.
    pub(crate) fn current(&self) -> Option<&Goroutine> {
        // Acquire: the record's memory before the pointer to it.
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: the pointer is null or a record that lives as long as the runtime, see the field.
        unsafe { current.as_ref() }
    }

    pub(crate) fn ask(&self, what: Request, asking: Asking) {
        if let Some(goroutine) = self.current() {
            goroutine.ask(what, asking);
        }
    }
}

/// See the module.
pub struct Runtime {
    /// With the mode of barriers that is in force.
    pub(crate) config: Config,
    mode: ModeInForce,
    pub(crate) code: Arc<Code>,
    pub(crate) host: Box<dyn Host>,
    pub(crate) scheduler: OnceLock<Arc<dyn Schedule>>,
    pub(crate) collector: OnceLock<Arc<dyn Collector>>,
    pub(crate) world: World,
    pub(crate) machines: Mutex<Vec<Arc<MachineEntry>>>,
    /// Threads that have called in by themselves and not ended.
    pub(crate) attached: AtomicUsize,
    /// Machines for threads that call in by themselves.
    pub(crate) spare: SpareList<Spare>,
    /// Every record there is, dead ones too.
    pub(crate) all: Mutex<Vec<Arc<Goroutine>>>,
    /// Records of goroutines that have ended.
    ended: Mutex<Vec<Arc<Goroutine>>>,
    next_id: AtomicU64,
    live: AtomicUsize,
    pub(crate) stacks: StackPool,
    /// The cycle whose stacks are being scanned, 0 outside of marking. Written while the world may
    /// run: Release, after the handshake of the write barrier; goroutines read it when they begin
    /// to run.
    pub(crate) scanning: AtomicU64,
    /// The cycle since whose scans it is noted which goroutines have run: the one that is scanning,
    /// or, if the next one may be young, that was last; 0 if nobody wants to know. Written as
    /// `scanning`.
    pub(crate) watched: AtomicU64,
    /// The cycle whose scans the present one goes on from; 0: none. Written before `scanning`,
    /// while no scan is under way.
    pub(crate) kept: AtomicU64,
    /// The number of the last round of scans. Written by who drives the cycle, before the
    /// goroutines are asked: SeqCst with the request.
    pub(crate) round: AtomicU64,
    /// Goroutines parts of whose stacks nobody has visited in this cycle.
    pub(crate) unscanned: Mutex<VecDeque<Arc<Goroutine>>>,
    /// Goroutines that have run since their scan in this cycle.
    pub(crate) dirty: Mutex<VecDeque<Arc<Goroutine>>>,
    /// They are being scanned again, and whoever adds one scans one. Relaxed: it only decides who
    /// does it.
    pub(crate) rescanning: AtomicBool,
    pub(crate) scanned: (crate::sync::Mutex<()>, crate::sync::Condvar),
    pub(crate) counters: Counters,
    pub(crate) observed: Observed,
    pub(crate) holds: Histogram,
    /// The longest hold and the most frames of one stack since they were taken last.
    pub(crate) longest_hold: AtomicU64,
    pub(crate) deepest_frames: AtomicU64,
}

impl std::fmt::Debug for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runtime")
            .field("config", &self.config)
            .field("live", &self.live)
            .finish_non_exhaustive()
    }
}

/// The stubs of the image, shared by all runtimes of the process.
pub(crate) fn stubs() -> &'static StubPool {
    static POOL: OnceLock<StubPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let stubs = (0..barrier::TABLE_WORDS).rev().filter(|&i| barrier::is_stub(i));
        StubPool::new(stubs.map(|i| i as u32))
    })
}

/// Tells `code` the frames that assembly makes, so that walks know them.
fn register_assembly(code: &Code) -> Result<(), CodeError> {
    code.register_native(asm::system_call_range(), FrameKind::SystemCall, NativeRule::FromImage)?;
    let cfa_offset = asm::CALLBACK_FRAME_BYTES as u32;
    code.register_native(
        asm::callback_range(),
        FrameKind::Callback,
        NativeRule::Fixed { cfa_offset },
    )?;
    code.register_native(asm::entry_range(), FrameKind::Entry, NativeRule::End)
}

impl Runtime {
    /// A runtime over the code registered in `code`, now or later.
    ///
    /// # Errors
    /// If the frames of the assembly cannot be found in the program's image, or `code` is another
    /// runtime's.
    pub fn new(
        mut config: Config,
        code: Arc<Code>,
        host: Box<dyn Host>,
    ) -> Result<Arc<Runtime>, CodeError> {
        register_assembly(&code)?;
        crate::sync::prepare_fences();
        let mode = ModeInForce::new(&config, &code);
        if let Some(protection) = mode.protection
            && mode.mode != mode.chosen
        {
            host.warn(&format!(
                "return addresses are protected ({protection}): no barriers, stacks are scanned whole"
            ));
        }
        config.barriers = mode.mode;
        if config.barriers != BarrierMode::Off {
            // Rather than in the first scan.
            stubs();
        }
        let handlers = crate::signal_stack::handlers_without_it();
        if !handlers.is_empty() {
            host.warn(&format!(
                "handlers of signals {handlers:?} lack SA_ONSTACK and would overrun a goroutine's stack"
            ));
        }
        Ok(Arc::new(Runtime {
            stacks: StackPool::new(config.max_stack),
            config,
            mode,
            code,
            host,
            scheduler: OnceLock::new(),
            collector: OnceLock::new(),
            world: World::new(),
            machines: Mutex::default(),
            attached: AtomicUsize::new(0),
            spare: SpareList::new(),
            all: Mutex::default(),
            ended: Mutex::default(),
            next_id: AtomicU64::new(1),
            live: AtomicUsize::new(0),
            scanning: AtomicU64::new(0),
            watched: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            round: AtomicU64::new(0),
            unscanned: Mutex::default(),
            dirty: Mutex::default(),
            rescanning: AtomicBool::new(false),
            scanned: (crate::sync::Mutex::new(()), crate::sync::Condvar::new()),
            counters: Counters::default(),
            observed: Observed::default(),
            holds: Histogram::default(),
            longest_hold: AtomicU64::new(0),
            deepest_frames: AtomicU64::new(0),
        }))
    }

    /// Names who runs goroutines that are ready. Once.
    ///
    /// # Panics
    /// The second time.
    pub fn set_scheduler(&self, scheduler: Arc<dyn Schedule>) {
        assert!(self.scheduler.set(scheduler).is_ok(), "a runtime has one scheduler");
    }

    /// Names who takes roots. Once.
    ///
    /// # Panics
    /// The second time.
    pub fn set_collector(&self, collector: Arc<dyn Collector>) {
        assert!(self.collector.set(collector).is_ok(), "a runtime has one collector");
    }

    /// The code that walks know.
    pub fn code(&self) -> &Arc<Code> {
        &self.code
    }

    /// How this runtime was configured; without barriers where the hardware forbids them.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Which mode of barriers is in force, and why.
    pub fn mode(&self) -> ModeInForce {
        self.mode
    }

    /// A new goroutine that will call `entry(goroutine header, argument)`, managed code of the C
    /// convention, on a moving stack. It is Runnable and in no queue. `argument` is a root until
    /// `entry` has begun.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    ///
    /// # Safety
    /// `entry` is managed code that keeps contracts C1 to C6.
    pub unsafe fn spawn(
        &self,
        entry: usize,
        argument: usize,
    ) -> Result<Arc<Goroutine>, StackError> {
        // SAFETY: the caller's contract is that of a moving stack.
        unsafe { self.spawn_on(StackKind::Moving, entry, argument) }
    }

    /// As [`Runtime::spawn`], on a stack of this kind.
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`], also where no range can be reserved for a fixed stack.
    ///
    /// # Safety
    /// `entry` is managed code that keeps the contracts which the kind asks for.
    pub unsafe fn spawn_on(
        &self,
        kind: StackKind,
        entry: usize,
        argument: usize,
    ) -> Result<Arc<Goroutine>, StackError> {
        let memory = match kind {
            StackKind::Moving => self.stacks.take(MIN_STACK)?,
            StackKind::Fixed => self
                .stacks
                .reserve(FIXED_STACK.min(self.config.max_stack.next_multiple_of(PAGE)))?,
        };
        let goroutine = self.record();
        goroutine.header.entry.store(entry, Ordering::Relaxed);
        goroutine.header.start_arg.store(argument, Ordering::Relaxed);
        self.bring_to_life(&goroutine, kind, memory, Status::Runnable);
        Ok(goroutine)
    }

    /// A dead goroutine that nobody else refers to gets a stack on which it has not run yet.
    pub(crate) fn bring_to_life(
        &self,
        g: &Goroutine,
        kind: StackKind,
        memory: StackMemory,
        status: Status,
    ) {
        g.begin_life(self.next_id.fetch_add(1, Ordering::Relaxed), kind);
        g.every_poll
            .store(self.config.poll_always || self.config.move_every_poll, Ordering::Relaxed);
        g.header.resume_value.store(0, Ordering::Relaxed);
        g.header
            .on_exit
            .store(crate::machine::goroutine_exit as *const () as usize, Ordering::Relaxed);
        g.header
            .on_uncaught
            .store(crate::machine::goroutine_uncaught as *const () as usize, Ordering::Relaxed);
        g.publish_bounds(&memory);
        // SAFETY: the stack is fresh and ours; stack sizes keep hi 16-aligned.
        unsafe { asm::prepare(&g.header) };
        *g.memory.lock() = Some(memory);
        g.scanned_in.store(0, Ordering::Relaxed);
        g.ran.forget();
        g.status.revive(status);
        // Pairs with the fence in begin_scanning: either the scan finds the goroutine alive, or we
        // find the scan begun.
        fence(Ordering::SeqCst);
        // Acquire: with the handshake before it is set, the write barrier is on if a cycle is
        // scanning.
        let cycle = self.scanning.load(Ordering::Acquire);
        if cycle != 0 {
            self.roots(&[g.header.start_arg.load(Ordering::Relaxed)]);
            g.scanned_in.store(self.round.load(Ordering::Relaxed), Ordering::Release);
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        self.counters.started.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn record(&self) -> Arc<Goroutine> {
        {
            let mut ended = self.ended.lock();
            // Two owners: the list of all and the list of ended ones. A few tries; somebody may
            // still look at it.
            let free = ended.iter().rev().take(4).position(|g| Arc::strong_count(g) == 2);
            if let Some(back) = free {
                let at = ended.len() - 1 - back;
                return ended.swap_remove(at);
            }
        }
        let goroutine = Arc::new(Goroutine::new());
        self.all.lock().push(goroutine.clone());
        goroutine
    }

    pub(crate) fn has_ended(&self, goroutine: Arc<Goroutine>) {
        self.count_ended();
        self.ended.lock().push(goroutine);
    }

    /// A goroutine has ended whose record is kept.
    pub(crate) fn count_ended(&self) {
        self.live.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many goroutines there are that have not ended.
    pub fn live_goroutines(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// How many threads that have called in by themselves have not ended.
    pub fn attached_threads(&self) -> usize {
        self.attached.load(Ordering::Relaxed)
    }

    /// Makes a parked goroutine ready; its call out returns `value`.
    ///
    /// # Panics
    /// If it is not parked.
    pub fn ready(&self, goroutine: Arc<Goroutine>, value: usize) {
        goroutine.header.resume_value.store(value, Ordering::Relaxed);
        let own_thread = goroutine.in_callback();
        goroutine.status.ready();
        if own_thread {
            *goroutine.woken.lock() = true;
            goroutine.wake.notify_one();
        } else {
            self.schedule(goroutine);
        }
    }

    /// Hands a Runnable goroutine to the scheduler.
    ///
    /// # Panics
    /// If there is none.
    pub fn schedule(&self, goroutine: Arc<Goroutine>) {
        self.scheduler
            .get()
            .expect("a runtime that makes goroutines ready has a scheduler")
            .ready(goroutine);
    }

    /// Asks the scheduler, if there is one, for so many processors: see [`Schedule::make_room`].
    pub fn make_room(&self, processors: usize) {
        if let Some(scheduler) = self.scheduler.get() {
            scheduler.make_room(processors);
        }
    }

    /// Whether a cycle is scanning stacks or marking.
    pub fn is_scanning(&self) -> bool {
        self.scanning.load(Ordering::Acquire) != 0
    }

    /// Whether what scans have found of stacks still counts: during a cycle, and until the next one
    /// if that may be young.
    pub(crate) fn keeps_scans(&self) -> bool {
        self.watched.load(Ordering::Acquire) != 0
    }

    pub(crate) fn roots(&self, words: &[usize]) {
        if let Some(collector) = self.collector.get() {
            collector.roots(words);
        }
    }

    /// Called by whoever runs `goroutine`, when it has become Running: it is no longer as it was
    /// scanned.
    pub(crate) fn note_running(&self, goroutine: &Arc<Goroutine>) {
        let cycle = self.watched.load(Ordering::Acquire);
        if cycle != 0 && !goroutine.ran.is_noted(cycle) {
            goroutine.ran.note(cycle);
            // `watched` is written first, but nothing is scanned before `scanning` is.
            if self.is_scanning() {
                self.dirty.lock().push_back(goroutine.clone());
                if self.rescanning.load(Ordering::Relaxed) {
                    self.rescan_another(goroutine);
                }
            }
        }
    }

    /// Whether [`Runtime::note_running`] has nothing to do.
    #[inline]
    pub(crate) fn is_noted(&self, goroutine: &Goroutine) -> bool {
        let cycle = self.watched.load(Ordering::Acquire);
        cycle == 0 || goroutine.ran.is_noted(cycle)
    }

    /// Gives up, by way of [`Host::fatal`].
    pub fn fatal(&self, error: &dyn std::error::Error) -> ! {
        self.host.fatal(error)
    }

    /// Where an observer of this runtime's activities, and of its collector's, is installed.
    pub fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Asks every machine's goroutine to let others run at its next poll.
    pub fn preempt_all(&self) {
        for machine in self.machines.lock().iter() {
            machine.ask(Request::YIELD, Asking::Surely);
        }
    }

    /// The running totals.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long single goroutines stood still that would have run: while they scanned their own
    /// stacks, or were held.
    pub fn holds(&self) -> &Histogram {
        &self.holds
    }

    /// The memory of stacks.
    pub fn stacks(&self) -> &StackPool {
        &self.stacks
    }

    /// How often a barrier was not placed because all stubs were in use.
    pub fn pool_exhausted(&self) -> u64 {
        stubs().exhausted()
    }

    /// The goroutines that have not ended, at this moment.
    pub fn goroutines(&self) -> Vec<Arc<Goroutine>> {
        self.all.lock().iter().filter(|g| g.status() != Status::Dead).cloned().collect()
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        for goroutine in self.all.get_mut().drain(..) {
            goroutine.scan_lock().end(stubs());
            if let Some(memory) = goroutine.memory.lock().take() {
                self.stacks.give(memory);
            }
        }
    }
}

// A goroutine's header has the address of its record; a new stack has room above the guard.
const _: () = assert!(std::mem::offset_of!(Goroutine, header) == 0);
const _: () = assert!(MIN_STACK > STACK_GUARD + asm::PREPARED_BYTES + 256);
const _: () = assert!(align_of::<Goroutine>() >= align_of::<GoroutineHeader>());
