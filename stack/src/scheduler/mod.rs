//! A work-stealing scheduler: goroutines run on OS threads, of which a fixed number run managed
//! code at a time. An embedder may bring its own scheduler instead: see
//! [`Schedule`](crate::Schedule).
//!
//! A thread has a *permit* while it runs goroutines, looks for one, or sleeps until there is one.
//! The scheduler has as many permits as it was made with threads. A monitor thread looks at the
//! threads every 20 microseconds to 10 milliseconds. The longer nothing has happened, the longer it
//! sleeps, as Go's sysmon does. The monitor retakes the permit of a thread whose goroutine has been
//! in the same foreign call, or parked in the same callback, since the last look. Then another
//! thread, a new one if necessary, runs the other goroutines, also those in the queue of the
//! blocked thread. A thread that comes back without a permit runs its goroutine until that parks,
//! yields or ends; then it waits for a permit. The monitor asks running goroutines to yield every
//! 10 milliseconds. So one more thread than permits may run for about that long.
//!
//! A goroutine that is made ready on a thread of the scheduler runs there next. So two goroutines
//! that hand one another work stay on one thread. Another thread is woken only for work that is
//! worth it: to wake a thread costs its waker some 10 microseconds, and the thread runs after 20.
//! So a thread measures how long its goroutines run, and wakes another one when those that wait
//! would wait for longer than that. Where it misjudges them the monitor wakes one, a millisecond
//! later: for goroutines of a thread that runs one for so long, or that has others in its queue all
//! the time. (Go wakes a thread whenever none looks for work.)
//!
//! A collector may [reserve processors](crate::Schedule::reserve_processors). If the system has too
//! few for both, that many threads sleep with their permits. Go does the same: its mark workers
//! count among GOMAXPROCS. Otherwise a thread that a stopped world waits for could lose its
//! processor to another thread for a time slice.
//!
//! A thread may end while it runs a goroutine, for example by `pthread_exit` in a foreign call. It
//! is replaced. Where the system gives no thread, goroutines wait for the existing threads, and the
//! monitor tries again at each look.

mod backlog;
mod monitor;
mod next_slot;
mod permits;
mod queues;
mod start;
mod state;
mod threads;

pub use start::Threads;
pub use threads::{OnDeadlock, Scheduler};
