//! Machines: OS threads that run goroutines, and how a goroutine leaves its machine.

use crate::attach::{self, CallInError, SpareMachine};
use crate::exception::NativeException;
use crate::goroutine::Goroutine;
use crate::lib_call::LibCall;
use crate::memory::StackError;
use crate::observe::Activity;
use crate::poll;
use crate::request::{Asking, Request};
use crate::runtime::{MachineEntry, Runtime, stubs};
use crate::scan::{self, ScanError};
use crate::signal_stack::{self, NoSignalStack, SignalStack};
use crate::status::Status;
use crate::sync::light_fence;
use stackmark_asm::{
    self as asm,
    layout::{GoroutineHeader, MachineHeader},
};
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a goroutine came back from [`Machine::run`].
#[derive(Debug)]
pub enum Left {
    /// It has ended.
    Exited,
    /// It waits; somebody else will make it ready, or has already.
    Parked,
    /// It lets others run first. It is Runnable and in no queue.
    Yielded(Arc<Goroutine>),
}

const EXITED: usize = 0;
const PARKED: usize = 1;
const YIELDED: usize = 2;

/// What managed code gives to [`switch_out`](asm::switch_out_address) to let others run: the
/// goroutine goes back to its scheduler as by [`Caller::yield_now`], but without a call of native
/// code. The call returns 0, or this value if it did nothing because the goroutine is in a
/// callback.
pub const YIELD: usize = 3;

/// An OS thread attached to a runtime. Stays on its thread; dropping it detaches the thread.
#[derive(Debug)]
pub struct Machine {
    shared: NonNull<Shared>,
    _on_its_thread: PhantomData<*mut ()>,
}

/// A thread's own. Found through the TLS word of the assembly, and through a pthread key when the
/// thread ends.
#[repr(C)]
pub(crate) struct Shared {
    header: MachineHeader,
    pub(crate) entry: Arc<MachineEntry>,
    pub(crate) runtime: Arc<Runtime>,
    /// Where the thread's own stack lies.
    system: Range<usize>,
    /// The goroutine that runs here, owned. Touched by this thread alone.
    running: Cell<Option<Arc<Goroutine>>>,
    /// What the host wants managed code to find here.
    word: usize,
    /// The library call under way.
    pub(crate) lib_call: Cell<LibCall>,
    /// Where this thread's signal handlers run.
    handlers_run_in: Range<usize>,
    signal_stack: Option<SignalStack>,
    /// What a thread that came by itself was attached with.
    spare: Option<SpareMachine>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// Why a thread cannot be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AttachError {
    /// It is attached already.
    #[error("this thread is attached to a runtime already")]
    AlreadyAttached,
    /// There is no memory for its alternate signal stack.
    #[error("signal handlers: {0}")]
    SignalStack(#[source] StackError),
}

impl Shared {
    /// A machine of the calling thread, which is attached with that. The thread has the key to it.
    ///
    /// # Safety
    /// The thread is not attached. It gives the value to [`Shared::detach`], or ends and leaves
    /// that to the key.
    pub(crate) unsafe fn attach(
        runtime: &Arc<Runtime>,
        entry: Arc<MachineEntry>,
        handlers_run_in: Range<usize>,
        signal_stack: Option<SignalStack>,
        spare: Option<SpareMachine>,
    ) -> NonNull<Shared> {
        let shared = Box::leak(Box::new(Shared {
            header: MachineHeader::new(),
            entry,
            runtime: runtime.clone(),
            system: thread_stack(),
            running: Cell::new(None),
            word: runtime.host.machine_word(),
            lib_call: Cell::default(),
            handlers_run_in,
            signal_stack,
            spare,
        }));
        let header = &shared.header;
        header.on_hit.store(crate::poll::on_hit as *const () as usize, Ordering::Relaxed);
        header.on_leapfrog.store(crate::poll::on_leapfrog as *const () as usize, Ordering::Relaxed);
        header.host.store(&raw const *shared as usize, Ordering::Relaxed);
        attach::set_key((&raw const *shared).cast());
        // SAFETY: it stays in place until the thread is detached; no managed frame is here yet.
        unsafe { asm::set_current((&raw const shared.header).cast_mut()) };
        NonNull::from(shared)
    }

    #[inline]
    fn is_in_lib_call(&self) -> bool {
        // SAFETY: only this thread touches it.
        unsafe { (*self.lib_call.as_ptr()).function != 0 }
    }

    /// Goes outside with the goroutine that runs here.
    #[inline]
    fn leave_world(&self) {
        let times = &self.entry.times_away;
        times.store(times.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.runtime.world.exit(&self.entry.gate);
    }

    /// The goroutine `goroutine` is this thread's from now on, InForeign.
    pub(crate) fn bind(&self, goroutine: Arc<Goroutine>) {
        let record = Arc::as_ptr(&goroutine);
        goroutine.header.machine_word.store(self.word, Ordering::Relaxed);
        self.header.goroutine.store(record as usize, Ordering::Relaxed);
        // Release: who asks it finds the record whole.
        self.entry.current.store(record.cast_mut(), Ordering::Release);
        self.running.set(Some(goroutine));
    }

    /// The thread is no machine any more. A goroutine that still runs here, because its thread ends
    /// in a call out, ends with it.
    ///
    /// # Safety
    /// On the machine's own thread, on which no managed code runs any more; the value is not used
    /// again.
    pub(crate) unsafe fn detach(this: NonNull<Shared>) {
        // SAFETY: leaked by attach; nobody else frees it.
        let mut this = unsafe { Box::from_raw(this.as_ptr()) };
        this.end_goroutine();
        // SAFETY: by our contract no managed frame is on this thread.
        unsafe { asm::set_current(std::ptr::null_mut()) };
        attach::set_key(std::ptr::null());
        if let Some(signal_stack) = &mut this.signal_stack {
            signal_stack.give_up();
        }
        match this.spare.take() {
            Some(spare) => {
                this.runtime.attached.fetch_sub(1, Ordering::Relaxed);
                spare.give_back(&this.runtime, this.signal_stack.take());
            }
            None => {
                this.runtime.machines.lock().retain(|m| !Arc::ptr_eq(m, &this.entry));
                this.runtime.stacks.close_cache();
            }
        }
    }

    /// A goroutine that still stands in a call out ends with its thread.
    fn end_goroutine(&self) {
        if let Some(goroutine) = self.running.take() {
            self.running.set(Some(goroutine.clone()));
            // SAFETY: the thread's goroutine; not used after this block.
            let caller = unsafe { Caller::current() };
            if goroutine.status.is_foreign() {
                caller.back_inside(Status::Foreign);
            }
            goroutine.header.callback_depth.store(0, Ordering::Relaxed);
            caller.end();
            self.header.goroutine.store(0, Ordering::Relaxed);
            give_stack_back(&self.runtime, &goroutine);
            self.entry.current.store(std::ptr::null_mut(), Ordering::Release);
            self.runtime.world.exit(&self.entry.gate);
            self.running.set(None);
            match &self.spare {
                // Its record stays with the spare machine.
                Some(_) => self.runtime.count_ended(),
                None => self.runtime.has_ended(goroutine),
            }
        }
    }
}

impl Machine {
    /// Attaches the calling thread. If the thread ends without dropping the value, as by
    /// `pthread_exit` in a call out, it is detached then, and the goroutine that called out ends.
    ///
    /// # Errors
    /// [`AttachError`].
    ///
    /// # Panics
    /// In a signal handler.
    pub fn attach(runtime: &Arc<Runtime>) -> Result<Machine, AttachError> {
        if !asm::current().is_null() {
            return Err(AttachError::AlreadyAttached);
        }
        let mut signal_stack = None;
        let handlers_run_in = match signal_stack::ensure(&mut signal_stack) {
            Ok(range) => range,
            Err(NoSignalStack::Memory(error)) => return Err(AttachError::SignalStack(error)),
            Err(NoSignalStack::InHandler) => panic!("no thread is attached in a signal handler"),
        };
        let entry = Arc::new(MachineEntry::new());
        runtime.machines.lock().push(entry.clone());
        runtime.stacks.open_cache();
        // SAFETY: not attached; Machine detaches on drop, on its thread.
        let shared = unsafe { Shared::attach(runtime, entry, handlers_run_in, signal_stack, None) };
        Ok(Machine { shared, _on_its_thread: PhantomData })
    }

    /// Runs a Runnable goroutine until it ends, parks or yields. Waits while somebody holds it or
    /// the world is stopped.
    ///
    /// Inlined, for the scheduler's loop: see [`asm::run`].
    ///
    /// # Panics
    /// If it is not Runnable.
    #[inline(always)]
    pub fn run(&self, goroutine: Arc<Goroutine>) -> Left {
        let shared = self.shared();
        let (runtime, entry) = (&*shared.runtime, &*shared.entry);
        runtime.world.enter(&entry.gate);
        runtime.start_running(&goroutine, Status::Runnable);
        // Relaxed: the goroutine is ours; managed code on this thread reads it.
        goroutine.header.machine_word.store(shared.word, Ordering::Relaxed);
        let header = (&raw const goroutine.header).cast_mut();
        entry.current.store(Arc::as_ptr(&goroutine).cast_mut(), Ordering::Release);
        // Whoever asked this machine while it had no goroutine to ask has raised the flag before we
        // look: pairs with the fences of the world.
        light_fence();
        if runtime.world.wants(&entry.gate) {
            goroutine.ask(Request::SAFEPOINT, Asking::InPassing);
        }
        goroutine.rewrite_limit();
        runtime.note_running(&goroutine);
        shared.running.set(Some(goroutine));
        // SAFETY: this is the thread's machine; the goroutine was Runnable, so its `sched` is a
        // stopped one's, and it is Running now, so nobody else runs it.
        let left = unsafe { asm::run((&raw const shared.header).cast_mut(), header) };
        let goroutine = shared.running.take().expect("what was run");
        if left == YIELD {
            goroutine.header.resume_value.store(0, Ordering::Relaxed);
            goroutine.status.stop(Status::Runnable);
        }
        entry.current.store(std::ptr::null_mut(), Ordering::Release);
        runtime.world.exit(&entry.gate);
        match left {
            EXITED => {
                // Not before: a signal handler may have walked the stack until now.
                give_stack_back(runtime, &goroutine);
                runtime.has_ended(goroutine);
                Left::Exited
            }
            PARKED => Left::Parked,
            YIELDED | YIELD => Left::Yielded(goroutine),
            other => unreachable!("left with {other}"),
        }
    }

    /// For a monitor, which sees by it whether a goroutine keeps this machine without running.
    pub fn watch(&self) -> Watch {
        Watch(self.shared().entry.clone())
    }

    /// The runtime that this thread is attached to.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.shared().runtime
    }

    fn shared(&self) -> &Shared {
        // SAFETY: it lives until drop.
        unsafe { self.shared.as_ref() }
    }
}

/// A machine as seen from other threads.
#[derive(Clone, Debug)]
pub struct Watch(Arc<MachineEntry>);

impl Watch {
    /// A number if the machine's goroutine is in a foreign call or parked in a callback, and the
    /// same one as long as it is in that same one.
    pub fn away(&self) -> Option<u64> {
        let times = self.0.times_away.load(Ordering::Relaxed);
        let keeps = !self.0.current.load(Ordering::Relaxed).is_null();
        (keeps && !self.0.gate.is_inside()).then_some(times)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: a machine stays on its thread; `run` borrows it, so that no managed frame is
        // here.
        unsafe { Shared::detach(self.shared) };
    }
}

/// What native code that managed code called out to sees: its goroutine, machine and runtime.
///
/// A value of this type is used within one native function, on the thread that it was made on.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'m> {
    pub(crate) shared: &'m Shared,
    goroutine: &'m Goroutine,
}

impl<'m> Caller<'m> {
    /// The goroutine that called out to the running native function.
    ///
    /// # Panics
    /// If this thread runs no goroutine.
    ///
    /// # Safety
    /// The value is not used after the native function has returned, parked or yielded.
    #[inline]
    pub unsafe fn current() -> Caller<'m> {
        // SAFETY: our contract is the same.
        unsafe { Caller::try_current() }.expect("this thread runs a goroutine")
    }

    /// As [`Caller::current`]; `None` if this thread runs no goroutine.
    ///
    /// # Safety
    /// As for [`Caller::current`].
    #[inline]
    pub unsafe fn try_current() -> Option<Caller<'m>> {
        // SAFETY: attach stored the address of Shared, which lives until the thread is detached,
        // which is not before the native function has ended; `running` keeps the goroutine alive as
        // long.
        unsafe {
            let machine = asm::current().as_ref()?;
            let goroutine =
                (machine.goroutine.load(Ordering::Relaxed) as *const Goroutine).as_ref()?;
            let shared = &*(machine.host.load(Ordering::Relaxed) as *const Shared);
            Some(Caller { shared, goroutine })
        }
    }

    /// Where the stack of this thread lies, if it is attached. Signal-safe.
    pub(crate) fn system_stack() -> Option<Range<usize>> {
        // SAFETY: the thread's own machine, which lives until it is detached; only the range is
        // read, which nobody changes.
        unsafe {
            let machine = asm::current().as_ref()?;
            let shared = machine.host.load(Ordering::Relaxed) as *const Shared;
            Some((*shared).system.clone())
        }
    }

    /// The header of the goroutine that this thread runs. Signal-safe.
    pub(crate) fn goroutine_header() -> Option<&'m GoroutineHeader> {
        // SAFETY: the thread's own machine, see above; records of goroutines live as long as the
        // runtime.
        unsafe {
            (asm::current().as_ref()?.goroutine.load(Ordering::Relaxed) as *const GoroutineHeader)
                .as_ref()
        }
    }

    /// The goroutine.
    pub fn goroutine(&self) -> &'m Goroutine {
        self.goroutine
    }

    /// The goroutine, to be kept: for a queue of waiters.
    pub fn handle(&self) -> Arc<Goroutine> {
        let goroutine = self.shared.running.take().expect("a goroutine runs");
        let handle = goroutine.clone();
        self.shared.running.set(Some(goroutine));
        handle
    }

    /// The runtime.
    #[inline]
    pub fn runtime(&self) -> &'m Arc<Runtime> {
        &self.shared.runtime
    }

    fn machine(&self) -> *mut MachineHeader {
        (&raw const self.shared.header).cast_mut()
    }

    /// Parks the goroutine. `publish` makes it visible to those who may wake it, typically by
    /// releasing the lock of the queue that it has been put on; it runs when the goroutine counts
    /// as parked already, so that a waker cannot come too early. Returns what the waker gave to
    /// [`Runtime::ready`] if the goroutine is inside a callback and so keeps its thread; otherwise
    /// does not return: the native function ends here, its call returns that value to managed code,
    /// on whatever machine.
    ///
    /// # Safety
    /// No frame between managed code and here owns anything that must be released: their
    /// destructors do not run.
    pub unsafe fn park(self, publish: impl FnOnce()) -> usize {
        let goroutine = self.goroutine;
        if goroutine.in_callback() {
            goroutine.status.stop(Status::Parked);
            publish();
            return self.wait_on_this_thread();
        }
        let machine = self.machine();
        goroutine.status.stop(Status::Parked);
        publish();
        // From here on another machine may run the goroutine: nothing of it is touched any more.
        // SAFETY: the machine runs a goroutine that called out to us; the caller vouches for the
        // frames.
        unsafe { asm::leave(machine, PARKED) }
    }

    fn wait_on_this_thread(&self) -> usize {
        self.shared.leave_world();
        let mut woken = self.goroutine.woken.lock();
        while !*woken {
            woken = self.goroutine.wake.wait(woken);
        }
        *woken = false;
        drop(woken);
        self.back_inside(Status::Runnable);
        self.goroutine.header.resume_value.load(Ordering::Relaxed)
    }

    /// Becomes Running on this thread again. The poll word says what it said: requests that came
    /// meanwhile are in it.
    #[inline]
    pub(crate) fn back_inside(&self, from: Status) {
        let runtime = &*self.shared.runtime;
        let entered = runtime.world.try_enter(&self.shared.entry.gate);
        let started = entered && self.goroutine.try_start(from);
        if !started || !runtime.is_noted(self.goroutine) {
            self.back_inside_slowly(from, entered, started);
        }
    }

    /// The same when the world stands still, the goroutine is held or has not run since its scan.
    #[cold]
    fn back_inside_slowly(&self, from: Status, entered: bool, started: bool) {
        let runtime = &*self.shared.runtime;
        if !entered {
            runtime.world.enter_again(&self.shared.entry.gate);
        }
        if !started {
            runtime.start_running(self.goroutine, from);
        }
        if !runtime.is_noted(self.goroutine) {
            runtime.note_running(&self.handle());
        }
    }

    /// Depth of the frame of `call_system` that called out to us.
    fn depth(&self) -> usize {
        self.goroutine.bounds().end - self.goroutine.header.sched.sp.load(Ordering::Relaxed)
    }

    /// Lets others run: the goroutine goes back to the scheduler, [`Left::Yielded`]. Its call
    /// returns `value`. Inside a callback it keeps its thread and returns at once.
    ///
    /// # Safety
    /// As for [`Caller::park`].
    pub unsafe fn yield_now(self, value: usize) -> usize {
        if self.goroutine.in_callback() {
            return value;
        }
        self.goroutine.header.resume_value.store(value, Ordering::Relaxed);
        self.goroutine.status.stop(Status::Runnable);
        // SAFETY: as in park.
        unsafe { asm::leave(self.machine(), YIELDED) }
    }

    /// Native code that may wait: while `f` runs, the goroutine is InForeign. It may be scanned and
    /// its machine does not keep the world from stopping; afterwards, also when `f` unwinds, it
    /// waits while it is held.
    #[inline]
    pub fn foreign<R>(self, f: impl FnOnce() -> R) -> R {
        struct BackInside<'m>(Caller<'m>);
        impl Drop for BackInside<'_> {
            #[inline]
            fn drop(&mut self) {
                self.0.back_inside(Status::Foreign);
                // Written by the goroutine itself alone.
                let called_back = &self.0.goroutine.called_back;
                if called_back.load(Ordering::Relaxed) {
                    called_back.store(false, Ordering::Relaxed);
                    // A frontier may rest here, where there can be no stub, or have rested.
                    poll::come_back(&self.0.shared.runtime, self.0.goroutine, self.0.depth());
                }
            }
        }
        let _span = self.shared.runtime.observed.span(Activity::ForeignCall, self.goroutine.id());
        self.go_outside();
        let _back = BackInside(self);
        f()
    }

    /// Whether the goroutine is InForeign, so that it may be called back.
    #[inline]
    pub(crate) fn check_foreign(&self) -> Result<(), CallInError> {
        if self.goroutine.status.is_foreign() {
            return Ok(());
        }
        Err(CallInError::NotForeign { goroutine: self.goroutine.id(), status: Status::Running })
    }

    /// Becomes InForeign.
    #[inline]
    fn go_outside(&self) {
        self.goroutine.status.stop(Status::Foreign);
        self.shared.leave_world();
    }

    /// Calls managed code `f(argument)` on the goroutine's stack, from within [`Caller::foreign`]
    /// or [`Runtime::call_in`]. An exception that passes `f` passes this too. The machine's
    /// [`LibCall`] is what it was afterwards.
    ///
    /// # Errors
    /// [`CallInError::SignalHandler`]; [`CallInError::NotForeign`].
    ///
    /// # Panics
    /// If a barrier stub has got into `sched.pc`.
    ///
    /// # Safety
    /// `f` is managed code. Native code keeps no address in the goroutine's stack across the call.
    #[inline]
    pub unsafe fn callback(self, f: asm::ManagedFn, argument: usize) -> Result<usize, CallInError> {
        if self.shared.handlers_run_in.contains(&asm::stack_pointer()) {
            return Err(CallInError::SignalHandler);
        }
        self.check_foreign()?;
        // SAFETY: our contract; the goroutine is InForeign.
        Ok(unsafe {
            if self.shared.is_in_lib_call() {
                self.call_managed_in_lib_call(f, argument)
            } else {
                self.call_managed(f, argument)
            }
        })
    }

    /// # Safety
    /// As for [`Caller::callback`], which has made its checks.
    #[cold]
    unsafe fn call_managed_in_lib_call(self, f: asm::ManagedFn, argument: usize) -> usize {
        struct Restore<'m>(Caller<'m>, LibCall);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.shared.lib_call.set(self.1);
            }
        }
        let _under_way = Restore(self, self.shared.lib_call.get());
        self.shared.lib_call.set(LibCall::default());
        // SAFETY: our contract.
        unsafe { self.call_managed(f, argument) }
    }

    /// # Safety
    /// As for [`Caller::callback`], which has made its checks.
    #[inline]
    unsafe fn call_managed(self, f: asm::ManagedFn, argument: usize) -> usize {
        struct GoOutside<'m>(Caller<'m>);
        impl Drop for GoOutside<'_> {
            #[inline]
            fn drop(&mut self) {
                let goroutine = self.0.goroutine;
                let pc = goroutine.header.sched.pc.load(Ordering::Relaxed);
                assert_eq!(
                    pc,
                    asm::resume_pc(),
                    "a callback's return slot holds a place in call_system"
                );
                goroutine.called_back.store(true, Ordering::Relaxed);
                self.0.go_outside();
            }
        }
        self.back_inside(Status::Foreign);
        if self.shared.runtime.keeps_scans() {
            self.note_callback();
        }
        let _out = GoOutside(self);
        let header = (&raw const self.goroutine.header).cast_mut();
        // SAFETY: the goroutine called out to us and is Running on this machine; the guard leaves
        // room for the frame.
        unsafe { asm::callback(header, f, argument) }
    }

    #[cold]
    fn note_callback(&self) {
        self.goroutine.scan_lock().calls_back(self.depth());
    }

    /// The native function is about to write to words of the goroutine's own stack that may hold
    /// references, without the write barrier: from now until its call returns it may, in the frame
    /// that `words`, addresses, lie in. Nothing happens if they lie elsewhere.
    ///
    /// # Errors
    /// [`ScanError`]: the stack cannot be walked.
    pub fn note_stack_write(&self, words: std::ops::Range<usize>) -> Result<(), ScanError> {
        let (runtime, bounds) = (&self.shared.runtime, self.goroutine.bounds());
        if words.is_empty() || !bounds.contains(&words.start) || !bounds.contains(&(words.end - 1))
        {
            return Ok(());
        }
        let mut scan = self.goroutine.scan_lock();
        // The word of the oldest byte that changes.
        let depth = bounds.end - (words.end - 1) / size_of::<usize>() * size_of::<usize>();
        // SAFETY: the goroutine has called out to us, on this thread.
        unsafe { scan::thaw(runtime, self.goroutine, &mut scan, depth) }.map(drop)
    }

    /// Answers handshakes and waits while the world is stopped. The goroutine is at a safepoint.
    pub(crate) fn safepoint(&self) {
        self.shared.runtime.world.safepoint(&self.shared.entry.gate);
    }
}

impl Caller<'_> {
    /// The goroutine ends: nothing older is run any more. It is Running.
    fn end(self) {
        let (goroutine, runtime) = (self.goroutine, self.runtime());
        {
            let settled = goroutine.scan_lock().end(stubs());
            runtime.counters.leapfrogged.fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
            goroutine.status.stop(Status::Dead);
        }
        // Release: those who wait for it to be scanned see it dead.
        let (lock, changed) = &runtime.scanned;
        if runtime.is_scanning() {
            drop(lock.lock());
            changed.notify_all();
        }
    }
}

/// Gives back the stack of a goroutine that has ended.
fn give_stack_back(runtime: &Runtime, goroutine: &Goroutine) {
    let memory = goroutine.memory.lock().take().expect("a goroutine that has run has a stack");
    crate::moving::release(runtime, memory);
}

/// Where the calling thread's stack lies, as far as the system knows.
fn thread_stack() -> Range<usize> {
    let mut range = 0..0;
    // SAFETY: the attributes are initialised by the first call, read, and given back.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) == 0 {
            let (mut start, mut size) = (std::ptr::null_mut(), 0);
            if libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size)
                == 0
            {
                range = start as usize..start as usize + size;
            }
            libc::pthread_attr_destroy(&raw mut attributes);
        }
    }
    range
}

/// What `goroutine_entry` calls when the managed function has returned.
///
/// # Safety
/// Called by `goroutine_entry` alone.
pub(crate) unsafe extern "C-unwind" fn goroutine_exit(
    _header: *mut c_void,
    _result: usize,
) -> usize {
    // SAFETY: not used after leave.
    let caller = unsafe { Caller::current() };
    caller.end();
    let machine = caller.machine();
    // SAFETY: the machine runs this goroutine; the frames here own nothing any more.
    unsafe { asm::leave(machine, EXITED) }
}

/// What `goroutine_entry` calls with an exception that nobody has caught.
///
/// # Safety
/// Called by `goroutine_entry` alone.
pub(crate) unsafe extern "C-unwind" fn goroutine_uncaught(
    exception: *mut c_void,
    _header: usize,
) -> usize {
    // SAFETY: the host's method does not return; nobody else has caught the exception.
    let (caller, exception) = unsafe { (Caller::current(), NativeException::new(exception)) };
    caller.runtime().host.uncaught(caller, exception)
}
