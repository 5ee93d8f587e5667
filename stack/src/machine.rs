//! Machines: OS threads that run goroutines, and how a goroutine leaves its machine.

use crate::goroutine::{Goroutine, Request};
use crate::runtime::{MachineEntry, Runtime, stubs};
use crate::scan::{self, ScanError};
use crate::status::Status;
use crate::world::Gate;
use stackmark_asm::{
    self as asm,
    layout::{GoroutineHeader, MachineHeader},
};
use stackmark_unwind::FrameKind;
use std::cell::Cell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering, fence};

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

/// An OS thread attached to a runtime. Stays on its thread; dropping it detaches the thread.
#[derive(Debug)]
pub struct Machine {
    /// Boxed: the thread's TLS word points to it.
    shared: Box<Shared>,
    _on_its_thread: PhantomData<*mut ()>,
}

#[repr(C)]
struct Shared {
    header: MachineHeader,
    entry: Arc<MachineEntry>,
    runtime: Arc<Runtime>,
    /// Where the thread's own stack lies.
    system: Range<usize>,
    /// The goroutine that runs here, owned. Touched by this thread alone.
    running: Cell<Option<Arc<Goroutine>>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").field("entry", &self.entry).finish_non_exhaustive()
    }
}

/// The thread is attached already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this thread is attached to a runtime already")]
pub struct AlreadyAttached;

impl Machine {
    /// Attaches the calling thread.
    ///
    /// # Errors
    /// [`AlreadyAttached`].
    pub fn attach(runtime: &Arc<Runtime>) -> Result<Machine, AlreadyAttached> {
        if !asm::current().is_null() {
            return Err(AlreadyAttached);
        }
        crate::signal_stack::ensure();
        let entry = Arc::new(MachineEntry { gate: Gate::new(), current: AtomicPtr::default() });
        let shared = Box::new(Shared {
            header: MachineHeader::new(),
            entry: entry.clone(),
            runtime: runtime.clone(),
            system: thread_stack(),
            running: Cell::new(None),
        });
        shared.header.on_hit.store(crate::poll::on_hit as *const () as usize, Ordering::Relaxed);
        shared.header.on_leapfrog.store(crate::poll::on_leapfrog as *const () as usize, Ordering::Relaxed);
        shared.header.host.store(&raw const *shared as usize, Ordering::Relaxed);
        runtime.machines.lock().push(entry);
        runtime.stacks.open_cache();
        // SAFETY: the box stays in place until drop, on this thread, detaches; no managed frame is here yet.
        unsafe { asm::set_current((&raw const shared.header).cast_mut()) };
        Ok(Machine { shared, _on_its_thread: PhantomData })
    }

    /// Runs a Runnable goroutine until it ends, parks or yields. Waits while somebody holds it or the world is stopped.
    ///
    /// # Panics
    /// If it is not Runnable.
    pub fn run(&self, goroutine: Arc<Goroutine>) -> Left {
        let shared = &*self.shared;
        let (runtime, entry) = (&*shared.runtime, &*shared.entry);
        runtime.world.enter(&entry.gate);
        goroutine.start_running(Status::Runnable);
        let header = (&raw const goroutine.header).cast_mut();
        entry.current.store(Arc::as_ptr(&goroutine).cast_mut(), Ordering::SeqCst);
        // Whoever asked this machine while it had no goroutine to ask has raised the flag before we look.
        fence(Ordering::SeqCst);
        if runtime.world.wants(&entry.gate) {
            goroutine.request(Request::SAFEPOINT);
        }
        goroutine.rewrite_limit();
        runtime.note_running(&goroutine);
        shared.running.set(Some(goroutine));
        // SAFETY: this is the thread's machine; the goroutine was Runnable, so its `sched` is a stopped one's, and it is
        // Running now, so nobody else runs it.
        let left = unsafe { asm::run((&raw const shared.header).cast_mut(), header) };
        entry.current.store(std::ptr::null_mut(), Ordering::Release);
        let goroutine = shared.running.take().expect("what was run");
        runtime.world.exit(&entry.gate);
        match left {
            EXITED => {
                // Not before: a signal handler may have walked the stack until now.
                let memory = goroutine.memory.lock().take().expect("a goroutine that has run has a stack");
                crate::moving::release(runtime, memory);
                runtime.has_ended(goroutine);
                Left::Exited
            }
            PARKED => Left::Parked,
            YIELDED => Left::Yielded(goroutine),
            other => unreachable!("left with {other}"),
        }
    }

    /// The runtime that this thread is attached to.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.shared.runtime
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let entry = &self.shared.entry;
        self.shared.runtime.machines.lock().retain(|m| !Arc::ptr_eq(m, entry));
        self.shared.runtime.stacks.close_cache();
        // SAFETY: no managed frame is on this thread: `run` borrows the machine.
        unsafe { asm::set_current(std::ptr::null_mut()) };
    }
}

/// What native code that managed code called out to sees: its goroutine, machine and runtime.
///
/// A value of this type is used within one native function, on the thread that it was made on.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'m> {
    shared: &'m Shared,
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
    pub unsafe fn current() -> Caller<'m> {
        // SAFETY: our contract is the same.
        unsafe { Caller::try_current() }.expect("this thread runs a goroutine")
    }

    /// As [`Caller::current`]; `None` if this thread runs no goroutine.
    ///
    /// # Safety
    /// As for [`Caller::current`].
    pub unsafe fn try_current() -> Option<Caller<'m>> {
        // SAFETY: attach stored the address of Shared, which lives until the thread is detached, which is not
        // before the native function has ended; `running` keeps the goroutine alive as long.
        unsafe {
            let machine = asm::current().as_ref()?;
            let goroutine = (machine.goroutine.load(Ordering::Relaxed) as *const Goroutine).as_ref()?;
            let shared = &*(machine.host.load(Ordering::Relaxed) as *const Shared);
            Some(Caller { shared, goroutine })
        }
    }

    /// Where the stack of this thread lies, if it is attached. Signal-safe.
    pub(crate) fn system_stack() -> Option<Range<usize>> {
        // SAFETY: the thread's own machine, which lives until it is detached; only the range is read, which nobody changes.
        unsafe {
            let machine = asm::current().as_ref()?;
            let shared = machine.host.load(Ordering::Relaxed) as *const Shared;
            Some((*shared).system.clone())
        }
    }

    /// The header of the goroutine that this thread runs. Signal-safe.
    pub(crate) fn goroutine_header() -> Option<&'m GoroutineHeader> {
        // SAFETY: the thread's own machine, see above; records of goroutines live as long as the runtime.
        unsafe { (asm::current().as_ref()?.goroutine.load(Ordering::Relaxed) as *const GoroutineHeader).as_ref() }
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
    pub fn runtime(&self) -> &'m Arc<Runtime> {
        &self.shared.runtime
    }

    fn machine(&self) -> *mut MachineHeader {
        (&raw const self.shared.header).cast_mut()
    }

    /// Parks the goroutine. `publish` makes it visible to those who may wake it, typically by releasing the lock of the
    /// queue that it has been put on; it runs when the goroutine counts as parked already, so that a waker cannot come
    /// too early. Returns what the waker gave to [`Runtime::ready`] if the goroutine is inside a callback and so keeps
    /// its thread; otherwise does not return: the native function ends here, its call returns that value to managed
    /// code, on whatever machine.
    ///
    /// # Safety
    /// No frame between managed code and here owns anything that must be released: their destructors do not run.
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
        // SAFETY: the machine runs a goroutine that called out to us; the caller vouches for the frames.
        unsafe { asm::leave(machine, PARKED) }
    }

    fn wait_on_this_thread(&self) -> usize {
        let gate = &self.shared.entry.gate;
        let world = &self.shared.runtime.world;
        world.exit(gate);
        let mut woken = self.goroutine.woken.lock();
        while !*woken {
            woken = self.goroutine.wake.wait(woken);
        }
        *woken = false;
        drop(woken);
        self.back_inside(Status::Runnable);
        self.goroutine.header.resume_value.load(Ordering::Relaxed)
    }

    /// Becomes Running on this thread again.
    fn back_inside(&self, from: Status) {
        self.shared.runtime.world.enter(&self.shared.entry.gate);
        self.goroutine.start_running(from);
        self.goroutine.rewrite_limit();
        if self.shared.runtime.is_scanning() {
            self.shared.runtime.note_running(&self.handle());
        }
    }

    /// Lets others run: the goroutine goes back to the scheduler, [`Left::Yielded`]. Its call returns `value`. Inside a
    /// callback it keeps its thread and returns at once.
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

    /// Native code that may wait: while `f` runs, the goroutine is InForeign. It may be scanned and its machine does not
    /// keep the world from stopping; afterwards, also when `f` unwinds, it waits while it is held.
    pub fn foreign<R>(self, f: impl FnOnce() -> R) -> R {
        struct BackInside<'m>(Caller<'m>);
        impl Drop for BackInside<'_> {
            fn drop(&mut self) {
                self.0.back_inside(Status::Foreign);
            }
        }
        self.go_outside();
        let _back = BackInside(self);
        f()
    }

    /// Becomes InForeign.
    fn go_outside(&self) {
        self.goroutine.status.stop(Status::Foreign);
        self.shared.runtime.world.exit(&self.shared.entry.gate);
    }

    /// Calls managed code `f(argument)` on the goroutine's stack, from within [`Caller::foreign`]. An exception that
    /// passes `f` passes this too.
    ///
    /// # Panics
    /// If the goroutine is not InForeign, or if a barrier stub has got into `sched.pc`.
    ///
    /// # Safety
    /// `f` is managed code. Native code keeps no address in the goroutine's stack across the call.
    pub unsafe fn callback(self, f: asm::ManagedFn, argument: usize) -> usize {
        struct GoOutside<'m>(Caller<'m>);
        impl Drop for GoOutside<'_> {
            fn drop(&mut self) {
                let pc = self.0.goroutine.header.sched.pc.load(Ordering::Relaxed);
                assert_eq!(pc, asm::resume_pc(), "a callback's return slot holds a place in call_system");
                self.0.go_outside();
            }
        }
        assert_eq!(self.goroutine.status(), Status::Foreign, "callbacks are made from foreign calls");
        self.back_inside(Status::Foreign);
        let _out = GoOutside(self);
        let header = (&raw const self.goroutine.header).cast_mut();
        // SAFETY: the goroutine called out to us and is Running on this machine; the guard leaves room for the frame.
        unsafe { asm::callback(header, f, argument) }
    }

    /// Calls `visit` for each frame of the goroutine, youngest first, with its kind and its pc: a return address, so that
    /// the function is looked up at the byte before it.
    ///
    /// # Errors
    /// [`ScanError`]: the walk ends early.
    pub fn backtrace(&self, visit: impl FnMut(FrameKind, usize)) -> Result<(), ScanError> {
        // SAFETY: the goroutine has called out to us: it stands still, and only itself moves its stack while it runs.
        unsafe { scan::backtrace(&self.shared.runtime, self.goroutine, visit) }
    }

    /// Answers handshakes and waits while the world is stopped. The goroutine is at a safepoint.
    pub(crate) fn safepoint(&self) {
        self.shared.runtime.world.safepoint(&self.shared.entry.gate);
    }
}

/// Where the calling thread's stack lies, as far as the system knows.
fn thread_stack() -> Range<usize> {
    let mut range = 0..0;
    // SAFETY: the attributes are initialised by the first call, read, and given back.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) == 0 {
            let (mut start, mut size) = (std::ptr::null_mut(), 0);
            if libc::pthread_attr_getstack(&raw const attributes, &raw mut start, &raw mut size) == 0 {
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
pub(crate) unsafe extern "C-unwind" fn goroutine_exit(_header: *mut c_void, _result: usize) -> usize {
    // SAFETY: not used after leave.
    let caller = unsafe { Caller::current() };
    let (goroutine, runtime) = (caller.goroutine, caller.runtime());
    {
        let mut state = goroutine.scan_lock();
        let settled = state.barriers.leave(stubs(), 0);
        state.barriers.settle_limbo(stubs());
        state.frames = 0;
        runtime.counters.leapfrogged.fetch_add(settled.leapfrogged.into(), Ordering::Relaxed);
        goroutine.status.stop(Status::Dead);
    }
    // Release: those who wait for it to be scanned see it dead.
    let (lock, changed) = &runtime.scanned;
    if runtime.is_scanning() {
        drop(lock.lock());
        changed.notify_all();
    }
    let machine = caller.machine();
    // SAFETY: the machine runs this goroutine; the frames here own nothing any more.
    unsafe { asm::leave(machine, EXITED) }
}

/// What `goroutine_entry` calls with an exception that nobody has caught.
///
/// # Safety
/// Called by `goroutine_entry` alone.
pub(crate) unsafe extern "C-unwind" fn goroutine_uncaught(exception: *mut c_void, _header: usize) -> usize {
    // SAFETY: the host's method does not return.
    let caller = unsafe { Caller::current() };
    caller.runtime().host.uncaught(caller.goroutine, exception)
}
