//! The record of an attached thread: how the thread is attached and detached, and how its goroutine
//! goes outside and comes back.

use super::lib_call::LibCall;
use super::places::Places;
use crate::alarm;
use crate::goroutine::Goroutine;
use crate::memory::SignalStack;
use crate::os;
use crate::protocol::Status;
use crate::runtime::{Host, MachineEntry, Runtime, SpareMachine, stubs};
use crate::scan;
use stackmark_asm::{
    self as asm,
    layout::{GoroutineHeader, KEEPS_ALL, KEEPS_NARROW, KEEPS_RESULTS, MachineHeader},
};
use stackmark_unwind::Vectors;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

thread_local! {
    // Without a destructor, so that it can be read when others have run.
    static ENDS: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread ends: the library's own destructor has begun. An
/// [`Observer`](crate::Observer) may be called then, when the thread-locals of the thread are gone
/// and [`std::thread::current`] may panic.
pub fn thread_ends() -> bool {
    ENDS.get()
}

/// What [`asm::leave`] makes [`asm::run`] return: the goroutine has ended.
pub(crate) const EXITED: usize = 0;
/// See [`EXITED`]: the goroutine has parked.
pub(crate) const PARKED: usize = 1;
/// See [`EXITED`]: the goroutine lets others run.
pub(crate) const YIELDED: usize = 2;

/// The record of an attached thread. The thread finds it by the TLS word of the assembly, and at
/// its end by the system's key. Only the thread itself uses it, except for `entry`.
#[repr(C)]
pub(crate) struct ThreadRecord {
    header: MachineHeader,
    pub(crate) entry: Arc<MachineEntry>,
    pub(crate) runtime: Arc<Runtime>,
    /// The addresses of the thread's own stack.
    system: Range<usize>,
    /// The goroutine that runs here, owned.
    running: Cell<Option<Arc<Goroutine>>>,
    /// The host's word for this machine: see `Host::machine_attached`. `None` until the host has
    /// heard of it.
    word: Cell<Option<usize>>,
    /// What [`alarm::check`] looks at.
    alarm: &'static AtomicU32,
    /// The library call under way.
    pub(crate) lib_call: Cell<LibCall>,
    /// On a native stack: where the foreign calls under way have begun.
    pub(crate) foreign_calls: Places,
    /// On a native stack: the native calls that have called managed code without going outside.
    pub(crate) entries: Places,
    /// The addresses of the thread's alternate signal stack.
    pub(crate) handlers_run_in: Range<usize>,
    signal_stack: RefCell<Option<SignalStack>>,
    /// The spare machine of a thread that called in by itself.
    spare: Cell<Option<SpareMachine>>,
}

impl std::fmt::Debug for ThreadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// What a thread is attached with.
pub(crate) struct Attachment {
    pub(crate) entry: Arc<MachineEntry>,
    pub(crate) handlers_run_in: Range<usize>,
    pub(crate) signal_stack: Option<SignalStack>,
    pub(crate) spare: Option<SpareMachine>,
}

impl ThreadRecord {
    /// Attaches the calling thread, and tells the host. Waits while the world is stopped.
    ///
    /// # Panics
    /// If this thread has stopped the world, and in the host: the thread is not attached then.
    ///
    /// # Safety
    /// The thread is not attached. It gives the value to [`ThreadRecord::detach`], or the
    /// destructor at the thread's end does.
    pub(crate) unsafe fn attach(runtime: &Arc<Runtime>, with: Attachment) -> NonNull<ThreadRecord> {
        unsafe extern "C" fn at_end(record: *mut c_void) {
            ENDS.set(true);
            // SAFETY: the value is the record of this thread, which is attached. It will not run
            // managed code with it again. If another destructor calls in, the thread is attached
            // again, and this function is called again.
            unsafe { ThreadRecord::detach(NonNull::new_unchecked(record.cast())) }
        }
        with.entry.bind_to_this_thread();
        let record = NonNull::from(Box::leak(Box::new(ThreadRecord {
            header: MachineHeader::new(),
            entry: with.entry,
            runtime: runtime.clone(),
            system: os::thread_stack(),
            running: Cell::new(None),
            word: Cell::new(None),
            alarm: alarm::word(),
            lib_call: Cell::default(),
            foreign_calls: Places::default(),
            entries: Places::default(),
            handlers_run_in: with.handlers_run_in,
            signal_stack: RefCell::new(with.signal_stack),
            spare: Cell::new(with.spare),
        })));
        // SAFETY: leaked just now.
        let header = unsafe { &record.as_ref().header };
        header.on_hit.store(runtime.entry_points.on_hit, Ordering::Relaxed);
        header.on_leapfrog.store(runtime.entry_points.on_leapfrog, Ordering::Relaxed);
        header.on_watched.store(runtime.entry_points.on_watched, Ordering::Relaxed);
        header.on_thrown.store(runtime.entry_points.on_thrown, Ordering::Relaxed);
        const {
            assert!(Vectors::Results as u8 == KEEPS_RESULTS);
            assert!(Vectors::Narrow as u8 == KEEPS_NARROW && Vectors::All as u8 == KEEPS_ALL);
        }
        let kept = runtime.code.vectors().as_ptr();
        header.kept_vectors.store(kept as usize, Ordering::Relaxed);
        header.host.store(record.as_ptr() as usize, Ordering::Relaxed);
        os::set_thread_end(record.as_ptr().cast(), at_end);
        // SAFETY: the record stays in place until the thread is detached. No managed frame is on
        // the thread yet.
        unsafe { asm::set_current(record.as_ptr().cast()) };
        /// Detaches a thread of which the host does not hear.
        struct Undo(NonNull<ThreadRecord>);
        impl Drop for Undo {
            fn drop(&mut self) {
                // SAFETY: attached just now, and not given to the caller.
                unsafe { ThreadRecord::detach(self.0) };
            }
        }
        let undo = Undo(record);
        // SAFETY: it lives until it is detached.
        let attached = unsafe { record.as_ref() };
        attached.word.set(Some(attached.call_host(|host| host.machine_attached())));
        std::mem::forget(undo);
        record
    }

    /// The calling thread's record, if it is attached.
    ///
    /// # Safety
    /// The reference is not used after the thread was detached.
    #[inline]
    pub(crate) unsafe fn current<'m>() -> Option<&'m ThreadRecord> {
        // SAFETY: `attach` stored the address of the record, which lives
        // until the thread is detached.
        unsafe {
            let machine = asm::current().as_ref()?;
            (machine.host.load(Ordering::Relaxed) as *const ThreadRecord).as_ref()
        }
    }

    /// The goroutine that this thread runs.
    #[inline]
    pub(crate) fn goroutine(&self) -> Option<&Goroutine> {
        let goroutine = self.header.goroutine.load(Ordering::Relaxed) as *const Goroutine;
        // SAFETY: null, or the goroutine that `running` keeps.
        unsafe { goroutine.as_ref() }
    }

    /// The header of the goroutine that this thread runs, if any, and the addresses of the thread's
    /// own stack. `None` if the thread is not attached. Signal-safe.
    pub(crate) fn interrupted<'m>() -> Option<(Option<&'m GoroutineHeader>, Range<usize>)> {
        // SAFETY: the thread's own record. The words read do not change meanwhile. Records of
        // goroutines live as long as the runtime.
        let record = unsafe { ThreadRecord::current() }?;
        let goroutine = record.header.goroutine.load(Ordering::Relaxed) as *const GoroutineHeader;
        // SAFETY: as above.
        Some((unsafe { goroutine.as_ref() }, record.system.clone()))
    }

    /// The machine's header, as the assembly knows it.
    #[inline]
    pub(crate) fn machine(&self) -> *mut MachineHeader {
        (&raw const self.header).cast_mut()
    }

    /// The goroutine that runs here, owned.
    #[inline]
    pub(crate) fn running(&self) -> &Cell<Option<Arc<Goroutine>>> {
        &self.running
    }

    /// Another handle to the goroutine that runs here.
    pub(crate) fn handle(&self) -> Arc<Goroutine> {
        let goroutine = self.running.take().expect("a goroutine runs");
        let handle = goroutine.clone();
        self.running.set(Some(goroutine));
        handle
    }

    /// The host's word for this machine: see `Host::machine_attached`.
    #[inline]
    pub(crate) fn word(&self) -> usize {
        self.word.get().unwrap_or_default()
    }

    /// Calls `hook` of the host inside: a stop of the world waits for its end, and it waits for the
    /// end of a stop.
    fn call_host<R>(&self, hook: impl FnOnce(&dyn Host) -> R) -> R {
        struct Leave<'r>(&'r ThreadRecord);
        impl Drop for Leave<'_> {
            fn drop(&mut self) {
                self.0.leave_world();
            }
        }
        self.runtime.enter_world(&self.entry.gate);
        let _leave = Leave(self);
        hook(&*self.runtime.host)
    }

    #[inline]
    pub(crate) fn is_in_lib_call(&self) -> bool {
        // SAFETY: only this thread uses it.
        unsafe { (*self.lib_call.as_ptr()).function != 0 }
    }

    /// No library call is under way any more.
    pub(crate) fn end_lib_call(&self) {
        self.lib_call.set(LibCall { function: 0, ..self.lib_call.get() });
    }

    /// Where native code starts when managed code calls out: see [`MachineHeader::system_sp`].
    pub(crate) fn system_sp(&self) -> usize {
        self.header.system_sp.load(Ordering::Relaxed)
    }

    /// Whether the thread counts as running.
    #[inline]
    pub(crate) fn is_inside(&self) -> bool {
        self.entry.gate.is_inside()
    }

    /// How often the thread has gone outside while it kept its goroutine, or native code that runs
    /// has called managed code.
    #[inline]
    pub(crate) fn times_away(&self) -> u64 {
        self.entry.times_away.load(Ordering::Relaxed)
    }

    /// Ends what `Inside` has proven until now.
    #[inline]
    pub(crate) fn break_off(&self) {
        self.entry.break_off();
    }

    /// Goes outside with the goroutine that runs here.
    #[inline]
    pub(crate) fn leave_world(&self) {
        // Loaded before the stores, behind which the compiler would load them again.
        let (world, entry) = (&self.runtime.world, &*self.entry);
        entry.break_off();
        world.exit(&entry.gate);
    }

    /// Goes outside with `goroutine`, which becomes InForeign.
    #[inline]
    pub(crate) fn go_outside(&self, goroutine: &Goroutine) {
        goroutine.status.stop(Status::Foreign);
        self.leave_world();
    }

    /// Makes `goroutine` Running on this thread again. Leaves the poll word, which has the requests
    /// that came meanwhile.
    // Always: a foreign call is so short that a call of this would be a part of it that counts.
    #[inline(always)]
    pub(crate) fn back_inside(&self, goroutine: &Goroutine, from: Status) {
        alarm::check_word(self.alarm);
        let runtime = &*self.runtime;
        // One test after another: so the frequent way is one without jumps.
        if !runtime.world.try_enter(&self.entry.gate) {
            self.back_inside_slowly(goroutine, from, false, false);
        } else if !goroutine.try_start(from) {
            self.back_inside_slowly(goroutine, from, true, false);
        } else if !scan::is_dirty(runtime, goroutine) {
            self.back_inside_slowly(goroutine, from, true, true);
        }
    }

    /// The same where the world is stopped, or the goroutine is held or must be marked dirty.
    #[cold]
    fn back_inside_slowly(
        &self,
        goroutine: &Goroutine,
        from: Status,
        entered: bool,
        started: bool,
    ) {
        let runtime = &*self.runtime;
        if !entered {
            runtime.enter_stopped_world(&self.entry.gate);
        }
        if !started {
            start_running(runtime, goroutine, from);
        }
        if !scan::is_dirty(runtime, goroutine) {
            scan::mark_dirty(runtime, &self.handle());
        }
    }

    /// Makes `goroutine`, which is InForeign, the goroutine of this thread.
    pub(crate) fn bind(&self, goroutine: Arc<Goroutine>) {
        let record = Arc::as_ptr(&goroutine);
        goroutine.header.machine_word.store(self.word(), Ordering::Relaxed);
        goroutine.set_thread(self.entry.thread());
        self.header.goroutine.store(record as usize, Ordering::Relaxed);
        // Release: pairs with the Acquire of `MachineEntry::current`. The record is visible whole.
        self.entry.current.store(record.cast_mut(), Ordering::Release);
        self.running.set(Some(goroutine));
    }

    /// This thread has no goroutine any more. Before the goroutine stops: then another machine may
    /// run it, so neither this thread's signal handlers nor its native code may walk its stack.
    #[inline]
    pub(crate) fn unbind(&self) {
        // Relaxed: only this thread and its signal handlers read it. The store of the status that
        // follows is a Release, so a handler that interrupts later sees it.
        self.header.goroutine.store(0, Ordering::Relaxed);
    }

    /// Ends the goroutine, which is Running: it runs no older frame any more.
    pub(crate) fn end(&self, goroutine: &Goroutine) {
        let runtime = &*self.runtime;
        {
            let settled = goroutine.scan_lock().end(stubs());
            runtime.statistics.counters.settle(settled);
            goroutine.status.stop(Status::Dead);
        }
        // The thread that waits for its scan sees it dead.
        if runtime.is_scanning() {
            runtime.cycle.notify_scanned();
        }
    }

    /// Detaches the thread. A goroutine that still runs here, because the thread
    /// ends in a call out, ends.
    ///
    /// # Safety
    /// Called on the record's own thread, on which no managed code runs any more. The
    /// value is not used again.
    pub(crate) unsafe fn detach(this: NonNull<ThreadRecord>) {
        {
            // SAFETY: leaked by `attach`, and freed below.
            let record = unsafe { this.as_ref() };
            record.end_goroutine();
            if record.is_inside() {
                // The thread ends within `Machine::inside`.
                record.leave_world();
            }
            if let Some(word) = record.word.take() {
                record.call_host(|host| host.machine_detached(word));
            }
            // SAFETY: by our contract no managed frame is on this thread.
            unsafe { asm::set_current(std::ptr::null_mut()) };
            os::clear_thread_end();
            let mut signal_stack = record.signal_stack.take();
            if let Some(signal_stack) = &mut signal_stack {
                signal_stack.give_up();
            }
            match record.spare.take() {
                Some(spare) => {
                    record.runtime.registry.thread_ended();
                    record.runtime.registry.give_spare_back(spare, signal_stack);
                }
                None => {
                    let runtime = &record.runtime;
                    runtime.registry.remove_machine(&record.entry, &runtime.statistics.counters);
                    record.runtime.stacks.close_cache();
                }
            }
        }
        // SAFETY: leaked by `attach`. Nothing refers to the record any more, because
        // the thread has no machine.
        drop(unsafe { Box::from_raw(this.as_ptr()) });
    }

    /// Ends a goroutine that still stands in a call out on this thread.
    fn end_goroutine(&self) {
        if let Some(goroutine) = self.running.take() {
            self.running.set(Some(goroutine.clone()));
            if goroutine.status.is_foreign() {
                self.back_inside(&goroutine, Status::Foreign);
            }
            goroutine.header.callback_depth.store(0, Ordering::Relaxed);
            self.end(&goroutine);
            self.header.goroutine.store(0, Ordering::Relaxed);
            self.entry.current.store(std::ptr::null_mut(), Ordering::Release);
            self.runtime.world.exit(&self.entry.gate);
            // Outside: a deep stack has many pages.
            give_stack_back(&self.runtime, &goroutine);
            self.running.set(None);
            let spare = self.spare.take();
            match &spare {
                // The record stays with the spare machine.
                Some(_) => self.runtime.registry.count_ended(),
                None => self.runtime.registry.has_ended(goroutine),
            }
            self.spare.set(spare);
        }
    }
}

/// Makes the goroutine Running; waits while it is held.
#[inline]
pub(crate) fn start_running(runtime: &Runtime, goroutine: &Goroutine, from: Status) {
    if !goroutine.try_start(from) {
        let begun = Instant::now();
        goroutine.start_running(from);
        runtime.statistics.record_hold(begun);
    }
}

/// Gives back the stack of a goroutine that has ended, unless it is its thread's own.
pub(crate) fn give_stack_back(runtime: &Runtime, goroutine: &Goroutine) {
    if goroutine.is_on_thread() {
        return;
    }
    let memory = goroutine.memory.lock().take().expect("a goroutine that has run has a stack");
    scan::release(runtime, memory);
}
