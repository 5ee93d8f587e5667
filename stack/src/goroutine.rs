//! The record of a goroutine.

use crate::frontier::StackScan;
use crate::memory::{StackKind, StackMemory};
use crate::ran::Ran;
use crate::request::{Asking, Request, Requests};
use crate::status::{Held, Status, StatusWord};
use crate::sync::{Mutex, MutexGuard};
use crate::{STACK_GUARD, memory::Origin};
use stackmark_asm::layout::GoroutineHeader;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// A managed thread of execution with a movable stack of its own.
///
/// The record stays in place and is reused for another goroutine when this one has ended and nobody
/// refers to it.
#[repr(C)]
#[derive(Debug)]
pub struct Goroutine {
    /// What assembly and managed code address. First, so that its address is the record's.
    pub(crate) header: GoroutineHeader,
    id: AtomicU64,
    pub(crate) status: StatusWord,
    /// The memory of the stack. Only the goroutine itself, or its holder, locks it; so it never
    /// waits long.
    pub(crate) memory: Mutex<Option<StackMemory>>,
    /// What its last poll asked room for, in bytes: a shrink leaves that much, also when the
    /// goroutine has parked in that poll. Relaxed: written by itself before it stops.
    pub(crate) room: AtomicUsize,
    /// The stack stays where it is. Relaxed: written before the goroutine comes to life.
    fixed: AtomicBool,
    /// `scan_lock`.
    scan: Mutex<StackScan>,
    requests: Requests,
    /// Kept at `usize::MAX` by a debugging mode that wants to see every poll.
    pub(crate) every_poll: AtomicBool,
    /// The round of scans that has come to this stack last: what is not visited is blocked. Written
    /// under `scan_lock`, Release; read Acquire by who waits for it.
    pub(crate) scanned_in: AtomicU64,
    /// Native code has called back since this thread's last return from a foreign call. Relaxed:
    /// only the goroutine's own thread uses it.
    pub(crate) called_back: AtomicBool,
    /// Whether it has run since its scan.
    pub(crate) ran: Ran,
    /// References that native code keeps for it: scanned as roots.
    transfer: Mutex<Vec<usize>>,
    /// A parked goroutine that must go on on its own OS thread (it is inside a callback) waits
    /// here.
    pub(crate) woken: Mutex<bool>,
    pub(crate) wake: crate::sync::Condvar,
}

impl Goroutine {
    pub(crate) fn new() -> Self {
        Goroutine {
            header: GoroutineHeader::new(),
            id: AtomicU64::new(0),
            status: StatusWord::new(Status::Dead),
            memory: Mutex::new(None),
            room: AtomicUsize::new(0),
            fixed: AtomicBool::new(false),
            scan: Mutex::new(StackScan::default()),
            requests: Requests::new(),
            every_poll: AtomicBool::new(false),
            scanned_in: AtomicU64::new(0),
            called_back: AtomicBool::new(false),
            ran: Ran::default(),
            transfer: Mutex::new(Vec::new()),
            woken: Mutex::new(false),
            wake: crate::sync::Condvar::new(),
        }
    }

    pub(crate) fn begin_life(&self, id: u64, kind: StackKind) {
        self.id.store(id, Ordering::Relaxed);
        self.fixed.store(kind == StackKind::Fixed, Ordering::Relaxed);
        self.requests.forget();
        self.room.store(0, Ordering::Relaxed);
        self.header.language.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Its number: 1 for the first of a runtime, never reused.
    #[inline]
    pub fn id(&self) -> u64 {
        self.id.load(Ordering::Relaxed)
    }

    /// What it is doing at this moment.
    pub fn status(&self) -> Status {
        self.status.get()
    }

    /// The address that managed code knows it by.
    pub fn header(&self) -> &GoroutineHeader {
        &self.header
    }

    /// Whether native code that it called out to has called back into managed code.
    pub fn in_callback(&self) -> bool {
        self.header.callback_depth.load(Ordering::Relaxed) != 0
    }

    /// Locks `scan_lock`.
    pub(crate) fn scan_lock(&self) -> MutexGuard<'_, StackScan> {
        self.scan.lock()
    }

    /// Holds it if it stands still.
    ///
    /// # Errors
    /// Its status, if that is Running or Dead.
    pub(crate) fn hold(&self) -> Result<Held<'_, StackScan>, Status> {
        self.status.hold(&self.scan)
    }

    /// As [`Goroutine::hold`], without waiting: `None` if somebody has its `scan_lock`.
    pub(crate) fn hold_now(&self) -> Option<Result<Held<'_, StackScan>, Status>> {
        self.status.hold_now(&self.scan)
    }

    /// Becomes Running; false while it is held.
    #[inline]
    pub(crate) fn try_start(&self, from: Status) -> bool {
        self.status.try_start(from)
    }

    /// Becomes Running; waits while it is held.
    #[cold]
    pub(crate) fn start_running(&self, from: Status) {
        self.status.start_running(from, &self.scan);
    }

    /// Bytes of its stack, used or not, at this moment.
    pub fn stack_size(&self) -> usize {
        let bounds = self.bounds();
        bounds.end - bounds.start
    }

    /// The bounds of its stack.
    pub(crate) fn bounds(&self) -> std::ops::Range<usize> {
        self.header.stack_lo.load(Ordering::Relaxed)..self.header.stack_hi.load(Ordering::Relaxed)
    }

    /// Asks it to do something at its next poll. If it is not running it meets the request when it
    /// runs.
    pub fn request(&self, what: Request) {
        self.ask(what, Asking::Surely);
    }

    pub(crate) fn ask(&self, what: Request, asking: Asking) {
        self.requests.ask(what, asking, &self.header.stack_limit);
    }

    /// Whether it has been asked to do something at its next poll and has not done it yet.
    pub fn is_awaited(&self) -> bool {
        self.requests.any()
    }

    /// Takes what has been asked, and makes the poll word say the limit again.
    pub(crate) fn take_requests(&self) -> Request {
        let taken = self.requests.take();
        self.rewrite_limit();
        taken
    }

    /// Writes the poll word from the stack's bounds, unless something is asked. Called by the
    /// goroutine itself or by its holder, after anything that changed the bounds.
    pub(crate) fn rewrite_limit(&self) {
        let lo = self.header.stack_lo.load(Ordering::Relaxed);
        let quiet =
            if self.every_poll.load(Ordering::Relaxed) { usize::MAX } else { lo + STACK_GUARD };
        self.requests.rewrite(&self.header.stack_limit, quiet);
    }

    /// The header's view of `memory`, after the stack has changed.
    pub(crate) fn publish_bounds(&self, memory: &StackMemory) {
        self.header.stack_lo.store(memory.lo, Ordering::Relaxed);
        self.header.stack_hi.store(memory.hi, Ordering::Relaxed);
        self.rewrite_limit();
    }

    /// Whether its stack may move.
    pub(crate) fn stack_kind(&self) -> StackKind {
        if self.fixed.load(Ordering::Relaxed) { StackKind::Fixed } else { StackKind::Moving }
    }

    /// Whether its stack grows in place.
    pub(crate) fn grows_in_place(memory: &StackMemory) -> bool {
        matches!(memory.origin, Origin::Reserved { .. })
    }

    /// Replaces the words that native code keeps for it. They are roots until they are taken: a
    /// value on its way from or to a parked goroutine. During marking the caller has passed
    /// references through the write barrier.
    pub fn set_transfer(&self, words: &[usize]) {
        let mut transfer = self.transfer.lock();
        transfer.clear();
        transfer.extend_from_slice(words);
    }

    /// Takes the words that [`Goroutine::set_transfer`] left into `into`, replacing its contents.
    pub fn take_transfer(&self, into: &mut Vec<usize>) {
        let mut transfer = self.transfer.lock();
        into.clear();
        into.append(&mut transfer);
    }

    /// Calls `f` with the words of the transfer.
    pub fn with_transfer<R>(&self, f: impl FnOnce(&mut Vec<usize>) -> R) -> R {
        f(&mut self.transfer.lock())
    }
}
