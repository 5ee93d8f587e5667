//! A work-stealing scheduler: goroutines on OS threads, of which so many at a time run managed code
//! as it was made for. It uses only this crate's public calls, so an embedder may bring its own.
//!
//! A thread that runs goroutines, or looks for one, has a *permit*; there are as many as the
//! scheduler was made for. A monitor thread looks at the threads every 20 microseconds to 10
//! milliseconds (the longer nothing has happened, the more seldom, as Go's sysmon): one whose
//! goroutine has been in the same foreign call, or parked in a callback, since the last look loses
//! its permit. Then another thread, a new one if need be, runs the other goroutines, also those in
//! the queue of the blocked one. A thread that comes back without a permit runs its goroutine on
//! until that yields, which it is asked to do every 10 milliseconds, and gets in line then; so for
//! so long there may be a thread more.
//!
//! While a collector [wants processors](Schedule::make_room) that there are not beside the threads,
//! so many threads sleep with their permits, as in Go, whose mark workers count among GOMAXPROCS: a
//! thread that loses its processor to another for a time slice may be the one that a stopped world
//! waits for.
//!
//! Threads may end in the midst of a goroutine (`pthread_exit` in a foreign call); they are
//! replaced. Where the system gives no thread, goroutines wait for those that there are, and the
//! monitor tries again at each of its looks.

use crate::sync::{heavy_fence, light_fence};
use crate::{Goroutine, Left, Machine, Runtime, Schedule, Watch};
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// A goroutine that runs longer than this without parking is asked to let others run.
const TIME_SLICE: Duration = Duration::from_millis(10);
/// How long the monitor sleeps at least, and after how many looks at which nothing happened it
/// begins to sleep longer.
const SHORTEST_LOOK: Duration = Duration::from_micros(20);
const EAGER_LOOKS: u32 = 50;
/// How long it sleeps at most while threads sleep for a collector: nobody else may run what one
/// that is away has left.
const LOOK_WHILE_LENT: Duration = Duration::from_micros(500);
/// Every so many turns a thread looks at the shared queue first, so that nobody starves there.
const FAIRNESS: usize = 61;
/// Threads without a permit that are kept for the next foreign calls that last.
const KEPT_THREADS: usize = 16;

thread_local! {
    /// The queue of this thread, if it is a scheduler's. Without a destructor: it may be looked at
    /// to the very end.
    static LOCAL: Cell<*const Local> = const { Cell::new(ptr::null()) };
    /// What is to be done when the thread ends, however it ends.
    static AT_END: RefCell<Option<AtEnd>> = const { RefCell::new(None) };
}

struct Local {
    queue: Worker<Arc<Goroutine>>,
    scheduler: *const Scheduler,
}

impl Local {
    /// Leaves what is queued here to others.
    fn hand_over(&self, injector: &Injector<Arc<Goroutine>>) {
        while let Some(goroutine) = self.queue.pop() {
            injector.push(goroutine);
        }
    }
}

/// A thread of the scheduler, as others see it.
struct Seat {
    number: usize,
    stealer: Stealer<Arc<Goroutine>>,
    /// Set once the thread is attached.
    watch: OnceLock<Watch>,
    /// The monitor has taken its permit. Written under `state`; Relaxed reads: the thread looks
    /// again and again.
    expelled: AtomicBool,
}

/// Dropped by its thread at the end of it, also by one that ends in the midst of a goroutine.
struct AtEnd {
    scheduler: Arc<Scheduler>,
    seat: Arc<Seat>,
    /// Here, because the frames of a thread that ends so are gone when others still look at it.
    local: Box<Local>,
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        LOCAL.set(ptr::null());
        self.local.hand_over(&self.scheduler.injector);
        self.scheduler.thread_ends(&self.seat);
    }
}

#[derive(Debug, Default)]
struct State {
    /// Threads with a permit that sleep.
    sleeping: usize,
    /// Permits that nobody has.
    free: usize,
    /// Threads that wait for a permit.
    standby: usize,
    /// Threads without a permit whose goroutine has not come back yet.
    blocked: usize,
    /// Threads that have not ended.
    live: usize,
    /// The number of the next thread.
    next: usize,
    stopped: bool,
    /// Permits that shall not be used: of threads that sleep, or that nobody has.
    lent: usize,
    /// That there is nothing to do has been told, and nothing has been done since.
    told: bool,
    /// The system gave no thread when one was wanted: the monitor tries again.
    short: bool,
}

impl State {
    /// Permits that are not used.
    fn unused(&self) -> usize {
        self.sleeping + self.free
    }

    /// How many of them may be.
    fn wakeable(&self) -> usize {
        self.unused().saturating_sub(self.lent)
    }

    /// Whether more permits are used than shall be.
    fn is_crowded(&self) -> bool {
        self.unused() < self.lent
    }

    /// Whether a thread may take a permit that nobody has.
    fn may_take(&self) -> bool {
        self.free > 0 && self.wakeable() > 0
    }
}

/// What happens when no goroutine can ever run again.
pub type OnDeadlock = Box<dyn Fn() + Send + Sync>;

/// See the module.
pub struct Scheduler {
    this: Weak<Scheduler>,
    runtime: Weak<Runtime>,
    injector: Injector<Arc<Goroutine>>,
    seats: RwLock<Vec<Arc<Seat>>>,
    threads: usize,
    /// Of the machine.
    processors: usize,
    state: Mutex<State>,
    /// For threads that sleep, for those that wait for a permit, and for whoever waits for the end
    /// of all.
    work: Condvar,
    permit: Condvar,
    ended: Condvar,
    /// For the monitor.
    look: Condvar,
    /// [`State::wakeable`]: whether it makes sense to wake somebody. Written under `state`; read by
    /// those who have made work, after a light fence.
    wakeable: AtomicUsize,
    /// [`State::is_crowded`]. Relaxed: a thread that sees it late runs one goroutine more.
    crowded: AtomicBool,
    /// Wake-ups that will come from outside of goroutines.
    awaited: AtomicUsize,
    /// Relaxed: a thread that sees it late runs one goroutine more.
    stop: AtomicBool,
    on_deadlock: OnDeadlock,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// The running threads of a scheduler.
#[derive(Debug)]
pub struct Threads {
    scheduler: Arc<Scheduler>,
}

impl Scheduler {
    /// A scheduler that runs managed code on `threads` threads at a time, which is the runtime's
    /// from now on. `on_deadlock` is called when all of them have nothing to do, no goroutine is
    /// ready or in a foreign call, no thread is attached that came by itself, and no wake-up is
    /// [awaited](Scheduler::await_wakeup); once, by one of them.
    ///
    /// # Panics
    /// If `threads` is 0 or the runtime has a scheduler.
    pub fn new(runtime: &Arc<Runtime>, threads: usize, on_deadlock: OnDeadlock) -> Arc<Scheduler> {
        assert_ne!(threads, 0, "a scheduler needs a thread");
        let scheduler = Arc::new_cyclic(|this| Scheduler {
            this: this.clone(),
            runtime: Arc::downgrade(runtime),
            injector: Injector::new(),
            seats: RwLock::default(),
            threads,
            processors: std::thread::available_parallelism().map_or(1, |n| n.get()),
            state: Mutex::default(),
            work: Condvar::new(),
            permit: Condvar::new(),
            ended: Condvar::new(),
            look: Condvar::new(),
            wakeable: AtomicUsize::new(0),
            crowded: AtomicBool::new(false),
            awaited: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            on_deadlock,
        });
        runtime.set_scheduler(scheduler.clone());
        scheduler
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// If the system gives no thread. Those that were started end, as by [`Threads::stop`].
    ///
    /// # Panics
    /// The second time, or if the runtime is gone.
    pub fn start(self: &Arc<Self>) -> std::io::Result<Threads> {
        assert!(self.runtime.strong_count() > 0, "the runtime outlives its scheduler's start");
        let running = Threads { scheduler: self.clone() };
        match self.start_threads() {
            Ok(()) => Ok(running),
            Err(error) => {
                running.stop();
                Err(error)
            }
        }
    }

    fn start_threads(self: &Arc<Self>) -> std::io::Result<()> {
        let mut state = self.state.lock();
        assert_eq!(state.next, 0, "a scheduler is started once");
        let monitored = Arc::downgrade(self);
        let monitor =
            std::thread::Builder::new().name("monitor".into()).spawn(move || monitor(&monitored));
        let started =
            monitor.and_then(|_| (0..self.threads).try_for_each(|_| self.start_thread(&mut state)));
        started.map_err(|error| {
            // Before the others find something to run.
            self.stop.store(true, Ordering::Relaxed);
            state.stopped = true;
            std::io::Error::new(
                error.kind(),
                format!("cannot start a thread for goroutines: {error}"),
            )
        })
    }

    /// Starts a thread that has a permit.
    fn start_thread(&self, state: &mut State) -> std::io::Result<()> {
        let number = state.next;
        let queue = Worker::new_fifo();
        let seat = Arc::new(Seat {
            number,
            stealer: queue.stealer(),
            watch: OnceLock::new(),
            expelled: AtomicBool::new(false),
        });
        let scheduler = self.this.upgrade().expect("we are there");
        let its_seat = seat.clone();
        let thread = std::thread::Builder::new().name(format!("machine-{number}"));
        thread.spawn(move || {
            // Whoever starts threads holds it until all are there, or will not be.
            drop(scheduler.state.lock());
            let local = Box::new(Local { queue, scheduler: Arc::as_ptr(&scheduler) });
            let at = &raw const *local;
            LOCAL.set(at);
            let at_end = AtEnd { scheduler: scheduler.clone(), seat: its_seat.clone(), local };
            AT_END.set(Some(at_end));
            // SAFETY: the box stays in place until AT_END is emptied, below.
            scheduler.run_thread(unsafe { &*at }, &its_seat);
            drop(AT_END.take());
        })?;
        (state.next, state.live) = (number + 1, state.live + 1);
        self.seats.write().push(seat);
        Ok(())
    }

    fn run_thread(&self, local: &Local, seat: &Seat) {
        let Some(runtime) = self.runtime.upgrade() else { return };
        let Ok(machine) = Machine::attach(&runtime) else {
            // There is a thread, but no memory for its signal stack.
            self.state.lock().short = true;
            return;
        };
        drop(runtime);
        let _ = seat.watch.set(machine.watch());
        let mut turn = 0usize;
        while let Some(goroutine) = self.next(local, seat, turn) {
            turn = turn.wrapping_add(1);
            if let Left::Yielded(goroutine) = machine.run(goroutine) {
                // To the end of the line. If it is the only one there, nobody is called to take it.
                let alone = local.queue.is_empty();
                local.queue.push(goroutine);
                if !alone {
                    self.wake_one();
                }
            }
        }
    }

    /// The next goroutine to run; waits for one. `None`: the thread ends.
    #[inline]
    fn next(&self, local: &Local, seat: &Seat, turn: usize) -> Option<Arc<Goroutine>> {
        loop {
            if seat.expelled.load(Ordering::Relaxed) {
                self.regain_permit(local, seat)?;
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            if self.crowded.load(Ordering::Relaxed) && self.makes_way(local) {
                self.sleep(local, seat)?;
                continue;
            }
            if let Some(goroutine) = self.find(local, seat, turn) {
                return Some(goroutine);
            }
            self.sleep(local, seat)?;
        }
    }

    #[inline]
    fn find(&self, local: &Local, seat: &Seat, turn: usize) -> Option<Arc<Goroutine>> {
        if !turn.is_multiple_of(FAIRNESS)
            && let Some(goroutine) = local.queue.pop()
        {
            return Some(goroutine);
        }
        self.find_elsewhere(local, seat)
    }

    fn find_elsewhere(&self, local: &Local, seat: &Seat) -> Option<Arc<Goroutine>> {
        loop {
            let mut stolen = self.injector.steal_batch_and_pop(&local.queue);
            if stolen.is_empty() && local.queue.is_empty() {
                let seats = self.seats.read();
                let (older, younger) =
                    seats.split_at(seats.partition_point(|other| other.number <= seat.number));
                let others =
                    younger.iter().chain(older).filter(|other| other.number != seat.number);
                stolen =
                    others.map(|other| other.stealer.steal_batch_and_pop(&local.queue)).collect();
            }
            match stolen {
                Steal::Success(goroutine) => return Some(goroutine),
                Steal::Empty => return local.queue.pop(),
                Steal::Retry => {}
            }
        }
    }

    /// Whether this thread shall sleep though there is work; then it has handed over what is queued
    /// here.
    #[cold]
    fn makes_way(&self, local: &Local) -> bool {
        let state = self.state.lock();
        if !state.is_crowded() {
            self.crowded.store(false, Ordering::Relaxed);
            return false;
        }
        // If not, the next time, perhaps.
        let makes_way = self.others_run(&state);
        if makes_way {
            local.hand_over(&self.injector);
        }
        makes_way
    }

    /// Whether there is more to run than threads that shall.
    fn is_pressed(&self, state: &State) -> bool {
        state.is_crowded() || self.has_work()
    }

    /// Whether a thread beside this one runs a goroutine, or looks for one. One that is away may be
    /// so for long.
    fn others_run(&self, state: &State) -> bool {
        let away = |seat: &&Arc<Seat>| {
            !seat.expelled.load(Ordering::Relaxed)
                && seat.watch.get().and_then(Watch::away).is_some()
        };
        let away = self.seats.read().iter().filter(away).count();
        self.threads.saturating_sub(state.unused() + away) > 1
    }

    fn has_work(&self) -> bool {
        !self.injector.is_empty() || self.seats.read().iter().any(|seat| !seat.stealer.is_empty())
    }

    fn note_wakeable(&self, state: &State) {
        self.wakeable.store(state.wakeable(), Ordering::Relaxed);
        // Pairs with the fence in wake_one: either we see the work, or its maker sees whom to wake.
        heavy_fence();
    }

    /// Whether nothing can happen any more but what is awaited.
    fn is_quiet(&self, state: &State) -> bool {
        // SeqCst: whoever ends a wait has made its goroutine ready before, so that is seen as work.
        state.unused() == self.threads
            && state.blocked == 0
            && self.awaited.load(Ordering::SeqCst) == 0
            && self.runtime.upgrade().is_none_or(|runtime| runtime.attached_threads() == 0)
    }

    /// Sleeps until there may be work. `None`: the scheduler stops.
    fn sleep(&self, local: &Local, seat: &Seat) -> Option<()> {
        let mut state = self.state.lock();
        if seat.expelled.load(Ordering::Relaxed) {
            // Just now, before this thread was back: it has no permit to sleep with.
            return Some(());
        }
        state.sleeping += 1;
        self.note_wakeable(&state);
        while !state.stopped
            && (state.wakeable() == 0 || !self.has_work() && local.queue.is_empty())
        {
            if !state.told && self.is_quiet(&state) && !self.has_work() {
                state.told = true;
                drop(state);
                (self.on_deadlock)();
                state = self.state.lock();
                continue;
            }
            self.work.wait(&mut state);
        }
        state.sleeping -= 1;
        state.told = false;
        self.wakeable.store(state.wakeable(), Ordering::Relaxed);
        (!state.stopped).then_some(())
    }

    #[inline]
    fn wake_one(&self) {
        // Pairs with the fence in note_wakeable.
        light_fence();
        if self.wakeable.load(Ordering::Relaxed) != 0 {
            self.wake(&mut self.state.lock());
        }
    }

    /// Wakes a thread that sleeps or, if there is a permit, one that waits for it, or starts one.
    #[cold]
    fn wake(&self, state: &mut MutexGuard<'_, State>) {
        if state.wakeable() == 0 {
            // Whoever runs finds what there is.
        } else if state.sleeping > 0 {
            self.work.notify_one();
        } else if state.free > 0 && !state.stopped {
            if state.standby > 0 {
                self.permit.notify_one();
            } else if self.start_thread(state).is_ok() {
                state.free -= 1;
                self.wakeable.store(state.wakeable(), Ordering::Relaxed);
            } else {
                state.short = true;
            }
        }
    }

    /// There was no thread, or none that could be used, when one was wanted: tries again.
    fn try_again(&self) {
        let mut state = self.state.lock();
        if std::mem::take(&mut state.short) && self.has_work() {
            self.wake(&mut state);
        }
    }

    /// The permit of this thread was taken while its goroutine was away: takes one that is free, or
    /// hands over what is queued here and waits until one is, and there is work. `None`: the thread
    /// is not needed any more.
    #[cold]
    fn regain_permit(&self, local: &Local, seat: &Seat) -> Option<()> {
        let mut state = self.state.lock();
        seat.expelled.store(false, Ordering::Relaxed);
        state.blocked -= 1;
        if !state.may_take() {
            local.hand_over(&self.injector);
            // Also if nothing was queued: whoever sleeps may find that nothing can happen any more.
            self.work.notify_one();
            if state.standby < KEPT_THREADS {
                state.standby += 1;
                while !state.stopped && (!state.may_take() || !self.has_work()) {
                    self.permit.wait(&mut state);
                }
                state.standby -= 1;
            }
        }
        if !state.may_take() || state.stopped {
            // The end of the thread gives up a permit or counts it as blocked.
            seat.expelled.store(true, Ordering::Relaxed);
            state.blocked += 1;
            return None;
        }
        state.free -= 1;
        self.wakeable.store(state.wakeable(), Ordering::Relaxed);
        Some(())
    }

    /// Takes the permits of threads whose goroutine has been away since the last call. Whether
    /// there was one.
    fn expel(&self, seen: &mut HashMap<usize, u64>) -> bool {
        let seats = self.seats.read().clone();
        let mut any = false;
        for seat in seats {
            let away = seat.watch.get().and_then(Watch::away);
            let Some(away) = away.filter(|_| !seat.expelled.load(Ordering::Relaxed)) else {
                seen.remove(&seat.number);
                continue;
            };
            if seen.insert(seat.number, away) != Some(away) {
                continue;
            }
            let mut state = self.state.lock();
            // It may have come back meanwhile, and sleep. If it comes back from now on, it finds
            // itself expelled before it does.
            if seat.watch.get().and_then(Watch::away) != Some(away) {
                continue;
            }
            seat.expelled.store(true, Ordering::Relaxed);
            state.blocked += 1;
            state.free += 1;
            self.note_wakeable(&state);
            if self.has_work() {
                self.wake(&mut state);
            }
            any = true;
        }
        any
    }

    /// A thread has ended, on its own or in the midst of a goroutine.
    fn thread_ends(&self, seat: &Seat) {
        self.seats.write().retain(|other| other.number != seat.number);
        let mut state = self.state.lock();
        state.live -= 1;
        if seat.expelled.load(Ordering::Relaxed) {
            state.blocked -= 1;
        } else {
            state.free += 1;
        }
        self.note_wakeable(&state);
        if state.short {
            // The next one would end in the same way: the monitor tries again.
        } else if self.has_work() || state.live == 0 {
            self.wake(&mut state);
        } else {
            // Whoever sleeps may find that nothing can happen any more.
            self.work.notify_one();
        }
        self.ended.notify_all();
    }

    /// Says that a goroutine which is about to park will be made ready by something that is not a
    /// goroutine, for example a collector: no deadlock, until [`Scheduler::wakeup_done`].
    pub fn await_wakeup(&self) {
        self.awaited.fetch_add(1, Ordering::SeqCst);
    }

    /// Ends [`Scheduler::await_wakeup`], after the goroutine was made ready.
    pub fn wakeup_done(&self) {
        self.awaited.fetch_sub(1, Ordering::SeqCst);
        // All threads may have gone to sleep waiting for just this.
        fence(Ordering::SeqCst);
        if self.wakeable.load(Ordering::Relaxed) != 0 {
            drop(self.state.lock());
            self.work.notify_all();
        }
    }
}

/// Expels and preempts until the scheduler stops.
fn monitor(scheduler: &Weak<Scheduler>) {
    let mut seen = HashMap::new();
    let (mut delay, mut looks) = (SHORTEST_LOOK, 0);
    let (mut sliced, mut crowded) = (Instant::now(), None::<Instant>);
    loop {
        let Some(scheduler) = scheduler.upgrade() else { return };
        let mut state = scheduler.state.lock();
        if state.lent > 0 && scheduler.is_pressed(&state) {
            delay = delay.min(LOOK_WHILE_LENT);
        }
        scheduler.look.wait_for(&mut state, delay);
        // Often somebody parks at once; otherwise those who run are asked to give one of them the
        // chance to make way.
        crowded = if state.is_crowded() { crowded.or_else(|| Some(Instant::now())) } else { None };
        drop(state);
        let Some(runtime) = scheduler.runtime.upgrade() else { return };
        if scheduler.stop.load(Ordering::Relaxed) {
            return;
        }
        scheduler.try_again();
        if crowded.is_some_and(|since| since.elapsed() >= LOOK_WHILE_LENT) {
            crowded = None;
            runtime.preempt_all();
        }
        if scheduler.expel(&mut seen) {
            (delay, looks) = (SHORTEST_LOOK, 0);
        } else {
            looks += 1;
            if looks > EAGER_LOOKS {
                delay = (delay * 2).min(TIME_SLICE);
            }
        }
        if sliced.elapsed() >= TIME_SLICE {
            sliced = Instant::now();
            runtime.preempt_all();
        }
    }
}

impl Schedule for Scheduler {
    fn ready(&self, goroutine: Arc<Goroutine>) {
        let local = LOCAL.get();
        // SAFETY: the pointer is set while its thread runs and the box is there, see AtEnd.
        match unsafe { local.as_ref() } {
            Some(local) if ptr::eq(local.scheduler, self) => local.queue.push(goroutine),
            _ => self.injector.push(goroutine),
        }
        self.wake_one();
    }

    fn make_room(&self, processors: usize) {
        let wanted = (self.threads + processors)
            .saturating_sub(self.processors)
            .min(processors)
            .min(self.threads - 1);
        let mut state = self.state.lock();
        let before = std::mem::replace(&mut state.lent, wanted);
        if before == wanted {
            return;
        }
        self.note_wakeable(&state);
        self.crowded.store(state.is_crowded(), Ordering::Relaxed);
        if self.has_work() {
            (wanted..before).for_each(|_| self.wake(&mut state));
        }
        // Not for nothing: the monitor, too, takes a processor from somebody.
        if wanted > before && self.is_pressed(&state) {
            self.look.notify_one();
        }
    }
}

impl Threads {
    /// Ends the threads when the goroutines that they run have parked, yielded or ended, and
    /// returns then.
    pub fn stop(self) {
        let scheduler = &self.scheduler;
        scheduler.stop.store(true, Ordering::Relaxed);
        scheduler.state.lock().stopped = true;
        scheduler.work.notify_all();
        scheduler.permit.notify_all();
        scheduler.look.notify_all();
        if let Some(runtime) = scheduler.runtime.upgrade() {
            runtime.preempt_all();
        }
        let mut state = scheduler.state.lock();
        while state.live > 0 {
            scheduler.ended.wait(&mut state);
        }
    }
}
