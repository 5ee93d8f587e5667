//! The record of a goroutine.

use crate::memory::{NATIVE_GUARD, StackKind, StackMemory};
use crate::protocol::sync::{AtomicU64, Condvar, Mutex, MutexGuard};
use crate::protocol::{
    Dirty, Held, Request, Requests, Signal, StackScan, Status, StatusWord, ask_all,
};
use crate::word::{Word, WordKind};
use smallvec::SmallVec;
use stackmark_asm as asm;
use stackmark_asm::layout::{GoroutineHeader, Sched};
use stackmark_unwind::{Registers, prefetch};
use std::mem::offset_of;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// The registers of managed code that has called out.
#[inline]
pub(crate) fn registers(at: &Sched) -> Registers {
    let Sched { pc, sp, fp } = at;
    Registers {
        pc: pc.load(Ordering::Relaxed),
        sp: sp.load(Ordering::Relaxed),
        fp: fp.load(Ordering::Relaxed),
    }
}

/// Bits of [`Goroutine::way_back`]: on its thread's own stack; native code has called back.
const ON_THREAD: u32 = 1;
const CALLED_BACK: u32 = 2;

/// Bytes that memory is fetched by.
const LINE: usize = 64;
/// The most bytes of frames that are prefetched: goroutines that wait mostly have less.
const PREFETCHED: usize = 512;

/// The words of a transfer. Mostly there is one, which needs no memory of its own.
pub(crate) type Transfer = SmallVec<[Word; 1]>;

/// A managed thread of execution with a stack of its own.
///
/// The record stays at its address as long as the runtime. It is reused for another goroutine when
/// this one has ended and no handle to it is left.
#[repr(C)]
#[derive(Debug)]
pub struct Goroutine {
    /// The words that assembly and managed code use. The first field, so that its
    /// address is the record's.
    pub(crate) header: GoroutineHeader,
    /// The number of its runtime, which owns the record.
    runtime: u64,
    /// Bytes at the low end of a stack of the runtime's own that frames leave free.
    guard: u32,
    id: AtomicU64,
    /// The record of the same runtime that was made before this one, for debuggers. Written before
    /// the record is listed.
    next_record: AtomicPtr<Goroutine>,
    /// The system's number of the thread that has run it last, for debuggers. Relaxed: debuggers
    /// stop the process.
    thread: AtomicI32,
    pub(crate) status: StatusWord,
    /// The memory of the stack. Locked for short moments only, mostly by the goroutine
    /// itself or by its holder.
    pub(crate) memory: Mutex<Option<StackMemory>>,
    /// The bytes of room that the last poll asked for. A shrink leaves that much, also when the
    /// goroutine has parked in that poll. Relaxed: the goroutine writes it before it stops, and the
    /// status word orders the stop.
    pub(crate) room: AtomicUsize,
    /// The stack does not move. Relaxed: written before the goroutine comes to life.
    fixed: AtomicBool,
    /// Not 0: the stack is the one of the goroutine's thread: see [`Goroutine::begin_on_thread`].
    /// Relaxed for the same reason. 32 bits, for debuggers.
    on_thread: AtomicU32,
    /// `scan_lock`.
    scan: Mutex<StackScan>,
    requests: Requests,
    /// A debugging mode sees every poll: the poll word stays at `usize::MAX`. Relaxed: written
    /// before the goroutine comes to life.
    pub(crate) every_poll: AtomicBool,
    /// The depth at which the goroutine polls for the bound of its young part; 0: none. Relaxed:
    /// the goroutine writes it while it runs, its holder while it stands still. The status word
    /// orders the two.
    bound: AtomicUsize,
    /// The last round of scans that has begun this stack's scan, so that its unvisited frames are
    /// blocked. Written under `scan_lock`, Release. The collector's thread reads it Acquire while
    /// it waits: it then sees the roots delivered.
    pub(crate) scanned_in: AtomicU64,
    /// On a native stack: the place of the youngest native call that has called managed code
    /// without going outside, below the stack pointer of its managed caller; `usize::MAX`: none.
    /// Relaxed: the goroutine writes it while it runs, and its holder reads it.
    entered_inside: AtomicUsize,
    /// On a native stack: the address of the oldest native frame, if that is known. Beyond it the
    /// thread has other things. Relaxed: written before the goroutine comes to life.
    oldest_frame: AtomicUsize,
    /// What the goroutine has to do on its way back from a foreign call, besides becoming Running.
    /// Relaxed: only the goroutine's own thread uses it.
    way_back: AtomicU32,
    /// The goroutine's native call does not return to managed code. Relaxed: only the goroutine's
    /// own thread uses it.
    ends: AtomicBool,
    /// Whether the goroutine has run since its scan.
    pub(crate) dirty: Dirty,
    /// What `start_arg` of the header is.
    argument_kind: WordKind,
    /// What `resume_value` of the header is.
    resume_kind: WordKind,
    /// Words that native code keeps for the goroutine. They are roots.
    transfer: Mutex<Transfer>,
    /// Whether there are any. Written under the lock.
    has_transfer: AtomicBool,
    /// A goroutine that parks inside a callback keeps its OS thread, which waits here.
    pub(crate) woken: Mutex<bool>,
    pub(crate) wake: Condvar,
    /// See [`Goroutine::owned_outside`].
    owned_outside: AtomicUsize,
}

impl Goroutine {
    /// A dead record of the runtime with this number, of whose stacks `guard` bytes stay free.
    pub(crate) fn new(runtime: u64, guard: u32) -> Self {
        Goroutine {
            header: GoroutineHeader::new(),
            runtime,
            guard,
            id: AtomicU64::new(0),
            next_record: AtomicPtr::default(),
            thread: AtomicI32::new(0),
            status: StatusWord::new(Status::Dead),
            memory: Mutex::new(None),
            room: AtomicUsize::new(0),
            fixed: AtomicBool::new(false),
            on_thread: AtomicU32::new(0),
            scan: Mutex::new(StackScan::default()),
            requests: Requests::new(),
            every_poll: AtomicBool::new(false),
            bound: AtomicUsize::new(0),
            scanned_in: AtomicU64::new(0),
            entered_inside: AtomicUsize::new(usize::MAX),
            oldest_frame: AtomicUsize::new(usize::MAX),
            way_back: AtomicU32::new(0),
            ends: AtomicBool::new(false),
            dirty: Dirty::default(),
            argument_kind: WordKind::default(),
            resume_kind: WordKind::default(),
            transfer: Mutex::new(Transfer::new()),
            has_transfer: AtomicBool::new(false),
            woken: Mutex::new(false),
            wake: Condvar::new(),
            owned_outside: AtomicUsize::new(0),
        }
    }

    pub(crate) fn begin_life(&self, id: u64, kind: StackKind) {
        self.id.store(id, Ordering::Relaxed);
        self.fixed.store(kind == StackKind::Fixed, Ordering::Relaxed);
        self.on_thread.store(0, Ordering::Relaxed);
        self.way_back.store(0, Ordering::Relaxed);
        // The thread of the record's last life may have ended with managed frames on its stack.
        self.header.entered.store(0, Ordering::Relaxed);
        self.requests.forget();
        self.thread.store(0, Ordering::Relaxed);
        self.room.store(0, Ordering::Relaxed);
        self.bound.store(0, Ordering::Relaxed);
        self.ends.store(false, Ordering::Relaxed);
        self.exception_is_gone();
        // Relaxed: there is no other handle.
        if self.has_transfer.load(Ordering::Relaxed) {
            self.with_transfer(Transfer::clear);
        }
        self.header.language.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// The goroutine of a thread that runs managed code on its own stack, at these addresses. It is
    /// in a callback for life: it keeps its thread. It stands in a foreign call that no code has
    /// made, below a frame that every walk ends at. `oldest_frame` is the
    /// address of the thread's oldest native frame, if that is known.
    pub(crate) fn begin_on_thread(&self, stack: Range<usize>, oldest_frame: Option<usize>) {
        self.oldest_frame.store(oldest_frame.unwrap_or(usize::MAX), Ordering::Relaxed);
        let Sched { pc, sp, fp } = &self.header.sched;
        pc.store(asm::entry_pc(), Ordering::Relaxed);
        // Nothing is read there.
        sp.store(stack.end - size_of::<[usize; 2]>(), Ordering::Relaxed);
        fp.store(0, Ordering::Relaxed);
        self.header.watch.store(usize::MAX, Ordering::Relaxed);
        self.entered_inside.store(usize::MAX, Ordering::Relaxed);
        self.header.callback_depth.store(1, Ordering::Relaxed);
        self.on_thread.store(1, Ordering::Relaxed);
        self.way_back.store(ON_THREAD, Ordering::Relaxed);
        self.set_bounds(stack);
    }

    /// For debuggers, as are those below: where this is in a record, in bytes.
    pub(crate) const NEXT_OFFSET: usize = offset_of!(Goroutine, next_record);
    pub(crate) const ID_OFFSET: usize = offset_of!(Goroutine, id);
    pub(crate) const STATUS_OFFSET: usize = offset_of!(Goroutine, status);
    pub(crate) const THREAD_OFFSET: usize = offset_of!(Goroutine, thread);
    pub(crate) const ON_THREAD_OFFSET: usize = offset_of!(Goroutine, on_thread);

    /// Sets the record that comes behind this one in the list for debuggers. Called before this one
    /// is in the list.
    pub(crate) fn set_next_record(&self, next: *mut Goroutine) {
        self.next_record.store(next, Ordering::Relaxed);
    }

    /// Notes for debuggers the thread that the goroutine is on, by the system's number.
    #[inline]
    pub(crate) fn set_thread(&self, thread: i32) {
        self.thread.store(thread, Ordering::Relaxed);
    }

    /// The goroutine's number: 1 for the first of a runtime, never reused.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// The number of its runtime.
    #[inline]
    pub(crate) fn runtime(&self) -> u64 {
        self.runtime
    }

    /// What it is doing at this moment.
    pub fn status(&self) -> Status {
        self.status.get()
    }

    /// The address that managed code knows the goroutine by: its header's. The header's offsets are
    /// in [`asm::layout`](stackmark_asm::layout).
    pub fn address(&self) -> usize {
        (&raw const self.header) as usize
    }

    /// The embedder's word of the header, at offset `G_USER`. It is not a root. Native code and
    /// managed code may write it at any time. The accesses are relaxed.
    pub fn user_word(&self) -> &AtomicUsize {
        &self.header.user
    }

    /// How many of its handles another language owns. The door to that language counts, to find
    /// those that are given back twice; nothing else reads it.
    #[doc(hidden)]
    pub fn owned_outside(&self) -> &AtomicUsize {
        &self.owned_outside
    }

    /// Whether an exception that nothing else catches is on its way to the goroutine's oldest
    /// frame. Until it arrives the stack does not move.
    pub(crate) fn is_crossed_by_exception(&self) -> bool {
        self.header.exception_crosses.load(Ordering::Relaxed) != 0
    }

    /// The exception has arrived, or was given up.
    pub(crate) fn exception_is_gone(&self) {
        self.header.exception_crosses.store(0, Ordering::Relaxed);
    }

    /// Whether native code that the goroutine called out to has called back into managed code. Such
    /// a goroutine keeps its thread. One on its [thread's own
    /// stack](crate::Runtime::attach_native_stack) always counts as called back.
    pub fn in_callback(&self) -> bool {
        self.header.callback_depth.load(Ordering::Relaxed) != 0
    }

    /// Whether a thread keeps the goroutine, which is held or stands still with this status. The
    /// stack does not move then: a signal handler of that thread may walk it at any time.
    pub(crate) fn has_a_thread(&self, status: Status) -> bool {
        status == Status::Foreign || self.in_callback()
    }

    /// Notes that the native call on this thread does not return to managed code: the goroutine
    /// has come to its end.
    pub(crate) fn will_not_return(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Whether [`Goroutine::will_not_return`] was called in this life.
    #[inline]
    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// Locks `scan_lock`.
    #[inline]
    pub(crate) fn scan_lock(&self) -> MutexGuard<'_, StackScan> {
        self.scan.lock()
    }

    /// Prefetches the record for a scan.
    pub(crate) fn prefetch(&self) {
        let at = (&raw const *self) as usize;
        (0..size_of::<Self>()).step_by(LINE).for_each(|line| prefetch(at + line));
    }

    /// Prefetches the youngest frames for a scan. The record should be there already.
    pub(crate) fn prefetch_frames(&self) {
        let (sp, hi) = (self.header.sched.sp.load(Ordering::Relaxed), self.bounds().end);
        // A guess, where the goroutine runs: any address may be prefetched.
        let used = hi.wrapping_sub(sp).min(PREFETCHED);
        (0..used).step_by(LINE).for_each(|line| prefetch(sp.wrapping_add(line)));
    }

    /// Holds the goroutine if it stands still.
    ///
    /// # Errors
    /// Its status, if that is Running or Dead.
    pub(crate) fn hold(&self) -> Result<Held<'_, StackScan>, Status> {
        self.status.hold(&self.scan)
    }

    /// As [`Goroutine::hold`], without waiting: `None` if another thread has its `scan_lock`.
    pub(crate) fn hold_now(&self) -> Option<Result<Held<'_, StackScan>, Status>> {
        self.status.hold_now(&self.scan)
    }

    /// Makes the goroutine Running; false while it is held.
    #[inline]
    pub(crate) fn try_start(&self, from: Status) -> bool {
        self.status.try_start(from)
    }

    /// Makes the goroutine Running; waits while it is held.
    #[cold]
    pub(crate) fn start_running(&self, from: Status) {
        self.status.start_running(from, &self.scan);
    }

    /// The addresses of the stack in use.
    #[inline]
    pub(crate) fn bounds(&self) -> Range<usize> {
        self.header.stack_lo.load(Ordering::Relaxed)..self.header.stack_hi.load(Ordering::Relaxed)
    }

    /// Asks the goroutine to do something at its next poll. A goroutine that is not running finds
    /// the request when it runs.
    pub fn request(&self, what: Request) {
        self.ask(what, Signal::Fenced);
    }

    /// As [`Goroutine::request`], for several goroutines, with one fence.
    pub(crate) fn ask_all<'g>(what: Request, goroutines: impl Iterator<Item = &'g Goroutine>) {
        ask_all(
            what,
            goroutines.map(|goroutine| (&goroutine.requests, &goroutine.header.stack_limit)),
        );
    }

    pub(crate) fn ask(&self, what: Request, signal: Signal) {
        self.requests.ask(what, signal, &self.header.stack_limit);
    }

    /// Whether a request waits for the goroutine's next poll.
    pub fn is_awaited(&self) -> bool {
        self.requests.any()
    }

    /// Takes what has been asked, and writes the limit to the poll word again.
    pub(crate) fn take_requests(&self) -> Request {
        let taken = self.requests.take();
        self.rewrite_limit();
        taken
    }

    /// Writes the poll word from the stack's bounds, or `usize::MAX` while something is asked. The
    /// goroutine itself or its holder calls it after a change of the bounds.
    pub(crate) fn rewrite_limit(&self) {
        let lo = self.header.stack_lo.load(Ordering::Relaxed);
        let mut quiet =
            if self.every_poll.load(Ordering::Relaxed) { usize::MAX } else { lo + self.guard() };
        if let Some(bound) = self.bound() {
            quiet = quiet.max(self.bounds().end.saturating_sub(bound));
        }
        self.requests.rewrite(&self.header.stack_limit, quiet);
    }

    /// The depth at which the goroutine polls, though its stack has room.
    #[inline]
    pub(crate) fn bound(&self) -> Option<usize> {
        Some(self.bound.load(Ordering::Relaxed)).filter(|bound| *bound != 0)
    }

    /// Sets [`Goroutine::bound`]. The goroutine itself or its holder calls it.
    pub(crate) fn set_bound(&self, bound: Option<usize>) {
        self.bound.store(bound.unwrap_or(0), Ordering::Relaxed);
        self.rewrite_limit();
    }

    /// Writes the bounds of `memory` to the header after the stack has changed.
    pub(crate) fn publish_bounds(&self, memory: &StackMemory) {
        self.set_bounds(memory.lo..memory.hi);
    }

    fn set_bounds(&self, stack: Range<usize>) {
        self.header.stack_lo.store(stack.start, Ordering::Relaxed);
        self.header.stack_hi.store(stack.end, Ordering::Relaxed);
        self.rewrite_limit();
    }

    /// Bytes at the low end of the stack that managed code leaves free.
    pub(crate) fn guard(&self) -> usize {
        if self.is_on_thread() { NATIVE_GUARD } else { self.guard as usize }
    }

    /// Whether it runs on its thread's own stack.
    #[inline]
    pub(crate) fn is_on_thread(&self) -> bool {
        self.on_thread.load(Ordering::Relaxed) != 0
    }

    /// Notes that native code has called back in this foreign call.
    #[inline]
    pub(crate) fn has_called_back(&self) {
        self.way_back.store(self.way_back.load(Ordering::Relaxed) | CALLED_BACK, Ordering::Relaxed);
    }

    /// Whether the way back from a foreign call is not the shortest: see [`Goroutine::way_back`].
    #[inline]
    pub(crate) fn has_a_longer_way_back(&self) -> bool {
        self.way_back.load(Ordering::Relaxed) != 0
    }

    /// Whether native code has called back since the last call of this, or since the beginning.
    #[inline]
    pub(crate) fn take_called_back(&self) -> bool {
        let way = self.way_back.load(Ordering::Relaxed);
        if way & CALLED_BACK != 0 {
            self.way_back.store(way - CALLED_BACK, Ordering::Relaxed);
        }
        way & CALLED_BACK != 0
    }

    /// On a native stack: sets the place of the youngest native call that has called managed code
    /// without going outside. Its return is watched if a scan comes before.
    pub(crate) fn set_entered_inside(&self, place: Option<usize>) {
        self.entered_inside.store(place.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// On a native stack: has native calls ask on their way back where something is younger than
    /// the frame returned to that has to be settled first. That is a barrier in a frame that was
    /// left in no way that settles it, or a native call that has called managed code. A scan may
    /// rest at such a call. The goroutine itself or its holder calls it.
    #[inline]
    pub(crate) fn watch(&self, scan: &StackScan) {
        if self.is_on_thread() {
            let (hi, entered) = (self.bounds().end, self.entered_inside.load(Ordering::Relaxed));
            let entered = (entered != usize::MAX).then(|| hi - entered);
            let watch = scan.watched(entered).map_or(usize::MAX, |depth| hi - depth);
            self.header.watch.store(watch, Ordering::Relaxed);
        }
    }

    /// On a native stack: where the native frames end that lie next to the anchor with this stack
    /// pointer.
    pub(crate) fn native_frames_to(&self, anchor: usize) -> usize {
        anchor.min(self.oldest_frame.load(Ordering::Relaxed))
    }

    /// Whether its stack may move.
    pub(crate) fn stack_kind(&self) -> StackKind {
        if self.fixed.load(Ordering::Relaxed) { StackKind::Fixed } else { StackKind::Moving }
    }

    /// The argument that the goroutine's entry function has not got yet, or 0.
    pub(crate) fn argument(&self) -> Word {
        // Acquire: pairs with the Release of the store, behind that of the kind.
        self.argument_kind.of(self.header.start_arg.load(Ordering::Acquire))
    }

    /// Hands an argument to the entry function. Before the goroutine comes to life.
    pub(crate) fn set_argument(&self, word: Word) {
        self.argument_kind.set(word);
        self.header.start_arg.store(word.bits(), Ordering::Release);
    }

    /// What the goroutine's call out returns next, where that is known already.
    pub(crate) fn resume_value(&self) -> Word {
        // Acquire: as in `argument`.
        self.resume_kind.of(self.header.resume_value.load(Ordering::Acquire))
    }

    /// What the goroutine's call out is to return. The goroutine itself stores it while it runs,
    /// and the thread that makes a parked goroutine ready, before it is in a queue.
    #[inline]
    pub(crate) fn set_resume_value(&self, word: Word) {
        self.resume_kind.set(word);
        self.header.resume_value.store(word.bits(), Ordering::Release);
    }

    /// Calls `f` with the words of the transfer, under a lock.
    pub(crate) fn with_transfer<R>(&self, f: impl FnOnce(&mut Transfer) -> R) -> R {
        let mut transfer = self.transfer.lock();
        let result = f(&mut transfer);
        self.has_transfer.store(!transfer.is_empty(), Ordering::Relaxed);
        result
    }
}

// A goroutine's header has the address of its record.
const _: () = assert!(std::mem::offset_of!(Goroutine, header) == 0);
const _: () = assert!(align_of::<Goroutine>() >= align_of::<GoroutineHeader>());
