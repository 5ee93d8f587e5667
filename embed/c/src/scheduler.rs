//! The scheduler that comes with the library.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use stackmark::stack::scheduler::{Scheduler, Threads};

use crate::abi::{Failure, Out, SYSTEM, User, code, make};
use crate::machine::inside;
use crate::object::{Owned, Ref, kind};
use crate::runtime::RuntimeBox;

/// `stackmark_scheduler`.
#[derive(Debug)]
pub(crate) struct SchedulerBox {
    scheduler: Arc<Scheduler>,
    threads: Mutex<Option<Threads>>,
    /// It starts once: some threads may run even where the others could not be made.
    started: AtomicBool,
}

kind!(SchedulerBox = "stackmark_scheduler");

#[unsafe(no_mangle)]
extern "C" fn stackmark_scheduler_new(
    runtime: Ref<RuntimeBox>,
    threads: usize,
    on_deadlock: Option<extern "C" fn(*mut c_void)>,
    user: *mut c_void,
    out: Out<'_, Owned<SchedulerBox>>,
) -> c_int {
    make(out, "out", || {
        let runtime = runtime.given("runtime")?;
        if threads == 0 || threads > Scheduler::MOST_THREADS {
            return Err(Failure::invalid(format_args!("a scheduler with {threads} threads")));
        }
        let user = User(user);
        let on_deadlock = Box::new(move || {
            if let Some(f) = on_deadlock {
                f(user.pointer());
            }
        });
        let scheduler = Scheduler::new(&runtime.0, threads, on_deadlock);
        Ok(Owned::new(SchedulerBox {
            scheduler,
            threads: Mutex::default(),
            started: AtomicBool::new(false),
        }))
    })
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_scheduler_start(scheduler: Ref<SchedulerBox>) -> c_int {
    code((|| {
        let scheduler = scheduler.given("scheduler")?;
        let mut threads = scheduler.threads.lock();
        // Relaxed: under the lock.
        if scheduler.started.swap(true, Ordering::Relaxed) {
            return Err(Failure::invalid("the scheduler has started"));
        }
        let started = scheduler.scheduler.start();
        *threads = Some(started.map_err(|error| Failure::new(SYSTEM, error))?);
        Ok(())
    })())
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_scheduler_stop(scheduler: Ref<SchedulerBox>) {
    let scheduler = scheduler.get("stackmark_scheduler_stop: scheduler");
    assert!(
        inside().is_err(),
        "stackmark_scheduler_stop: the scheduler's threads wait for this one, which counts as \
         running"
    );
    if let Some(threads) = scheduler.and_then(|scheduler| scheduler.threads.lock().take()) {
        threads.stop();
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_scheduler_free(scheduler: Owned<SchedulerBox>) {
    if let Some(scheduler) = scheduler.take("stackmark_scheduler_free: scheduler") {
        let runs = scheduler.threads.lock().is_some();
        assert!(!runs, "stackmark_scheduler_free: the scheduler runs: it is stopped first");
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_await_wakeup(scheduler: Ref<SchedulerBox>) {
    if let Some(scheduler) = scheduler.get("stackmark_await_wakeup: scheduler") {
        scheduler.scheduler.await_wakeup();
    }
}

#[unsafe(no_mangle)]
extern "C" fn stackmark_wakeup_done(scheduler: Ref<SchedulerBox>) {
    if let Some(scheduler) = scheduler.get("stackmark_wakeup_done: scheduler") {
        scheduler.scheduler.wakeup_done();
    }
}
