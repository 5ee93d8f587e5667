//! What this crate asks of its surroundings: the embedder ([`Host`]), the scheduler ([`Schedule`])
//! and the collector ([`RootSink`]).

use super::exception::NativeException;
use crate::goroutine::Goroutine;
use std::any::Any;
use std::sync::Arc;

/// What this crate asks of the embedder.
///
/// The methods run on system stacks. A method that is called on a goroutine's thread may get the
/// goroutine's [`Caller`](crate::Caller) by [`Caller::current`](crate::Caller::current), and use it
/// until it returns.
pub trait Host: Any + Send + Sync {
    /// The goroutine's stack would exceed its maximum of `limit` bytes. Called on the goroutine's
    /// thread, at its poll, from which it cannot go on.
    fn stack_overflow(&self, goroutine: &Goroutine, limit: usize) -> !;

    /// Ends the process, which cannot go on. An example is a frame without an unwind rule: no root
    /// may be skipped. Called on any thread, under locks of the library: a panic ends the process,
    /// too, with status 2. Called once: other threads that fail meanwhile wait for the end. The
    /// default writes the error to standard error and aborts.
    fn fatal(&self, error: &dyn std::error::Error) -> ! {
        eprintln!("stackmark: {error}");
        std::process::abort()
    }

    /// An exception of native code, for example a Rust panic, has left the goroutine's oldest
    /// managed frame. Called on the goroutine's thread, which counts as running. The goroutine
    /// never runs managed code again: the host ends the process in its own way, or returns an
    /// exception, with which the process ends as of an unrecovered panic: see
    /// [`die_of_panic`](crate::die_of_panic).
    fn uncaught(&self, _goroutine: &Goroutine, exception: NativeException) -> NativeException {
        exception
    }

    /// The file and line of the managed code at `pc`, for tracebacks. `pc` lies within the call
    /// instruction. Called on any thread.
    fn source(&self, _pc: usize) -> Option<(String, u32)> {
        None
    }

    /// Reports a problem that does not end the process. Called on any thread. The default writes
    /// the message to standard error.
    fn warn(&self, message: &str) {
        eprintln!("stackmark: {message}");
    }

    /// The calling thread has become a machine, by [`Machine::attach`](crate::Machine::attach), by
    /// [`Runtime::call_in`](crate::Runtime::call_in) or for a [native stack](crate#native-stacks).
    /// The returned word is in `machine_word` of a goroutine's header while the goroutine runs on
    /// that machine. The thread counts as running: no world is stopped meanwhile, so a collector
    /// that looks at all machines in a stopped world sees this one whole or not at all. If this
    /// panics, the thread is not attached.
    fn machine_attached(&self) -> usize {
        0
    }

    /// The calling thread stops being a machine. `word` is what [`Host::machine_attached`] returned
    /// for it. No managed frame is on the thread, which counts as running, as there.
    fn machine_detached(&self, _word: usize) {}

    /// The goroutine's entry function has returned `result`. Called on the goroutine's thread,
    /// which counts as running. A host that needs the result keeps it here, and roots it if it is a
    /// reference: [`Left::Exited`](crate::Left::Exited) does not have it. The goroutine neither
    /// parks nor yields here.
    fn goroutine_exited(&self, _goroutine: &Goroutine, _result: usize) {}

    /// For debugging modes that see every poll: the goroutine of this thread is at a poll.
    /// Its growth, scan and safepoint are done; a request to yield comes afterwards. The
    /// host may park the goroutine.
    fn at_poll(&self, _goroutine: &Goroutine) {}
}

/// A scheduler: it runs goroutines that are ready.
pub trait Schedule: Send + Sync {
    /// Takes `goroutine`, which is Runnable, to run it on some machine. Called on any thread, also
    /// on the collector's. A panic ends the process with status 2: the goroutine would be lost.
    fn ready(&self, goroutine: Arc<Goroutine>);

    /// Reserves `processors` processors for the collector; 0 ends the reservation. The scheduler
    /// runs up to that many fewer goroutines at a time, but at least one, if both together would
    /// need more processors than the system has. The default does nothing.
    fn reserve_processors(&self, _processors: usize) {}
}

/// What this crate asks of the collector: it takes the roots of stacks. A panic of
/// [`RootSink::roots`] or [`RootSink::stack_waits`] ends the process with status 2: roots would be
/// lost.
pub trait RootSink: Send + Sync {
    /// Takes roots. Each word may be a reference, an integer, or an address outside the heap.
    /// Called on any thread, also under a goroutine's `scan_lock`: must not wait for goroutines.
    /// [`Runtime::frames`](crate::Runtime::frames) and the like panic there.
    fn roots(&self, words: &[usize]);

    /// A stack has unvisited frames: [`Runtime::scan_frozen`](crate::Runtime::scan_frozen) visits
    /// them, on any thread. [`CycleStopped::rescan_dirty`](crate::CycleStopped::rescan_dirty)
    /// finishes the rest. The default does nothing.
    fn stack_waits(&self) {}

    /// Whether the collector wants [`RootSink::at_poll`] called: a stress mode. Asked when a
    /// goroutine begins.
    fn sees_every_poll(&self) -> bool {
        false
    }

    /// The goroutine is at a poll, on this thread, which counts as running; what was asked of the
    /// goroutine is done.
    fn at_poll(&self, _goroutine: &Goroutine) {}
}
