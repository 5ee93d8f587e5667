//! Machines, and running a goroutine on one.

use super::attach::attach_with_new_machine;
use super::error::AttachError;
use super::thread::{EXITED, PARKED, ThreadRecord, YIELDED, give_stack_back, start_running};
use super::watch::Watch;
use crate::goroutine::Goroutine;
use crate::protocol::{Gate, Request, Signal, Status, World, sync::light_fence};
use crate::runtime::Runtime;
use crate::scan;
use crate::word::Word;
use stackmark_asm as asm;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a goroutine came back from [`Machine::run`].
#[derive(Debug)]
pub enum Left {
    /// The goroutine has ended.
    Exited,
    /// The goroutine waits. Another goroutine or thread will make it ready, or has already.
    Parked,
    /// The goroutine lets others run first. It is Runnable and in no queue.
    Yielded(Arc<Goroutine>),
}

/// Managed code gives this to [`switch_out`](asm::switch_out_address) to let others run. The
/// goroutine goes back to its scheduler as by [`Caller::yield_now`](crate::Caller::yield_now), but
/// without a call of native code. The call returns 0. It returns this value, and does nothing, if
/// the goroutine is in a callback.
pub const YIELD: usize = 3;

/// An OS thread attached to a runtime. The value stays on its thread.
/// Dropping it detaches the thread.
#[derive(Debug)]
pub struct Machine {
    record: NonNull<ThreadRecord>,
    _on_its_thread: PhantomData<*mut ()>,
}

impl Machine {
    /// Attaches the calling thread; waits while the world is stopped. A thread that ends without
    /// dropping the value, for example by `pthread_exit` in a call out, is detached at its end, and
    /// the goroutine that called out ends.
    ///
    /// # Errors
    /// [`AttachError`].
    ///
    /// # Panics
    /// In a signal handler, in [`Host::machine_attached`](crate::Host::machine_attached), and if
    /// this thread has stopped the world.
    pub fn attach(runtime: &Arc<Runtime>) -> Result<Machine, AttachError> {
        let record = attach_with_new_machine(runtime)?;
        Ok(Machine { record, _on_its_thread: PhantomData })
    }

    /// Runs a Runnable goroutine until it ends, parks or yields. Waits while the goroutine is held
    /// or the world is stopped.
    ///
    /// Inlined, for the scheduler's loop: see [`asm::run`].
    ///
    /// # Panics
    /// If the goroutine is not Runnable or belongs to another runtime, or if this machine already
    /// runs one: native code that a goroutine has called out to must not run another one on its
    /// thread. Or if this thread has stopped the world. Runtime and machine are then unchanged.
    #[inline(always)]
    pub fn run(&self, goroutine: Arc<Goroutine>) -> Left {
        /// Takes the machine outside again if the goroutine cannot be started.
        struct Enter<'w>(&'w World, &'w Gate);
        impl Drop for Enter<'_> {
            fn drop(&mut self) {
                self.0.exit(self.1);
            }
        }
        let record = self.record();
        let (runtime, entry) = (&*record.runtime, &*record.entry);
        if record.goroutine().is_some()
            || record.is_inside()
            || goroutine.in_callback()
            || !runtime.owns(&goroutine)
        {
            refuse(record, &goroutine);
        }
        runtime.enter_world(&entry.gate);
        let entered = Enter(&runtime.world, &entry.gate);
        start_running(runtime, &goroutine, Status::Runnable);
        std::mem::forget(entered);
        // Relaxed: the goroutine is this thread's, and only managed code on this thread reads it.
        goroutine.header.machine_word.store(record.word(), Ordering::Relaxed);
        let header = (&raw const goroutine.header).cast_mut();
        entry.current.store(Arc::as_ptr(&goroutine).cast_mut(), Ordering::Release);
        // Pairs with the heavy fences in `World`. A stopper or initiator may have found no
        // goroutine to ask here. Then this thread sees in `wants` what it has stored before.
        light_fence();
        if runtime.world.wants(&entry.gate) {
            goroutine.ask(Request::SAFEPOINT, Signal::Hint);
        }
        goroutine.set_thread(entry.thread());
        goroutine.rewrite_limit();
        scan::mark_dirty(runtime, &goroutine);
        record.running().set(Some(goroutine));
        // SAFETY: this is the thread's machine. The goroutine was Runnable, so its `sched` is that
        // of a stopped goroutine. It is Running now, so no other thread runs it.
        let left = unsafe { asm::run(record.machine(), header) };
        // None: it has parked, and is its wakers'.
        let goroutine = record.running().take();
        if left == YIELD
            && let Some(goroutine) = &goroutine
        {
            goroutine.set_resume_value(Word::Plain(0));
            goroutine.status.stop(Status::Runnable);
        }
        entry.current.store(std::ptr::null_mut(), Ordering::Release);
        // What the goroutine's native code has from `Inside` ends here.
        record.leave_world();
        match (left, goroutine) {
            (PARKED, None) => Left::Parked,
            (YIELDED | YIELD, Some(goroutine)) => Left::Yielded(goroutine),
            (EXITED, Some(goroutine)) => {
                // Not earlier: a signal handler may have walked the stack until now.
                give_stack_back(runtime, &goroutine);
                runtime.registry.has_ended(goroutine);
                Left::Exited
            }
            (other, _) => unreachable!("left with {other}"),
        }
    }

    /// A view of this machine for a monitor: it tells whether a goroutine keeps the
    /// machine without running.
    pub fn watch(&self) -> Watch {
        Watch::new(self.record().entry.clone())
    }

    /// The runtime that this thread is attached to.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.record().runtime
    }

    pub(super) fn record(&self) -> &ThreadRecord {
        // SAFETY: the record lives until drop.
        unsafe { self.record.as_ref() }
    }
}

/// Panics with the reason why the machine does not run the goroutine.
#[cold]
fn refuse(record: &ThreadRecord, goroutine: &Goroutine) -> ! {
    if let Some(running) = record.goroutine() {
        panic!(
            "a machine runs one goroutine at a time: goroutine {} has called the native code that \
             is to run another one",
            running.id()
        );
    }
    assert!(
        !record.is_inside(),
        "no goroutine is run from within Machine::inside, or while another one parks here"
    );
    assert!(
        !record.runtime.owns(goroutine) || !goroutine.in_callback(),
        "goroutine {} is in a callback, and goes on on its own thread",
        goroutine.id()
    );
    panic!("goroutine {} belongs to another runtime than this machine", goroutine.id())
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: a machine stays on its thread. `run` borrows it, so no
        // managed frame is on the thread.
        unsafe { ThreadRecord::detach(self.record) };
    }
}
