//! Observation: which activity each thread is in, from its beginning to its end.

use super::under_lock::under_lock;
use std::hint::cold_path;
use std::sync::{Arc, OnceLock};

const OBSERVER: &str = "an observer";

/// Something that a thread does for the collector, or that delays a goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// A cycle, from its beginning to its end, on the collector's thread.
    Cycle,
    /// The collector waits until the write barrier is on for every goroutine.
    Handshake,
    /// The world is being stopped, or is stopped.
    Pause,
    /// A worker marks.
    Mark,
    /// A thread that allocates marks, or waits for marking.
    Assist,
    /// Part of a stack is scanned.
    Scan,
    /// The collector's thread sweeps what the last cycle left unmarked.
    Sweep,
    /// A goroutine returns through a barrier.
    BarrierHit,
    /// A goroutine's stack grows.
    Growth,
    /// A goroutine is in native code that may wait.
    ForeignCall,
}

impl Activity {
    /// The name for display.
    pub const fn name(self) -> &'static str {
        match self {
            Activity::Cycle => "cycle",
            Activity::Handshake => "handshake",
            Activity::Pause => "pause",
            Activity::Mark => "mark",
            Activity::Assist => "assist",
            Activity::Scan => "scan",
            Activity::Sweep => "sweep",
            Activity::BarrierHit => "barrier hit",
            Activity::Growth => "growth",
            Activity::ForeignCall => "foreign call",
        }
    }
}

/// An observer of activities. Its methods are called on the thread of the activity, also
/// under locks of the library. They must not wait for goroutines, nor call the library. A panic
/// there ends the process with status 2. On each thread activities nest. The end of a thread with a
/// goroutine is observed, too, when the thread-locals of the thread are gone.
pub trait Observer: Send + Sync + 'static {
    /// An activity begins on this thread. `goroutine` is the number of the goroutine that it
    /// concerns, or 0.
    fn begin(&self, activity: Activity, goroutine: u64);

    /// The activity that began last on this thread ends.
    fn end(&self, activity: Activity);
}

/// A place for an observer. Clones share it.
#[derive(Clone, Default)]
pub struct Observed(Arc<OnceLock<Arc<dyn Observer>>>);

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Observed").field(&self.0.get().is_some()).finish()
    }
}

/// An activity that ends when this value is dropped.
// Two scalars, so that a move goes through registers. As `Option<(Arc<dyn Observer>, Activity)>` a
// foreign call wrote one byte and then read the word around it, which took 3 of its 15 ns.
#[must_use]
pub struct Span {
    /// There if there is an observer.
    observed: Option<Observed>,
    activity: Activity,
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let activity = self.observed.as_ref().map(|_| self.activity);
        f.debug_tuple("Span").field(&activity).finish()
    }
}

/// As [`Span`], where the place of the observer outlives it. It owns nothing, so a function keeps
/// it in a register: a [`Span`] would be in memory for its destructor.
#[must_use]
pub(crate) struct SpanWithin<'o> {
    /// There if there is an observer.
    observed: Option<&'o Observed>,
    activity: Activity,
}

impl Drop for SpanWithin<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(observed) = self.observed {
            observed.end(self.activity);
        }
    }
}

impl Observed {
    /// Installs the observer. It does not see the beginning and the end of
    /// activities that have begun before.
    ///
    /// # Panics
    /// If there is an observer already.
    pub fn set(&self, observer: Arc<dyn Observer>) {
        assert!(self.0.set(observer).is_ok(), "there is one observer");
    }

    /// Begins an activity on this thread. `goroutine` is as for [`Observer::begin`].
    #[inline]
    pub fn span(&self, activity: Activity, goroutine: u64) -> Span {
        match self.0.get() {
            None => Span { observed: None, activity },
            Some(observer) => {
                begin(&**observer, activity, goroutine);
                Span { observed: Some(self.clone()), activity }
            }
        }
    }

    /// As [`Observed::span`]. Asks for the goroutine's number only if there is an observer.
    #[inline]
    pub(crate) fn span_within(
        &self,
        activity: Activity,
        goroutine: impl FnOnce() -> u64,
    ) -> SpanWithin<'_> {
        let observed = self.0.get().map(|observer| {
            cold_path();
            begin(&**observer, activity, goroutine());
            self
        });
        SpanWithin { observed, activity }
    }

    // Cold, as `begin`.
    #[cold]
    fn end(&self, activity: Activity) {
        if let Some(observer) = self.0.get() {
            under_lock(OBSERVER, || observer.end(activity));
        }
    }
}

// Without an observer a foreign call takes less time than a call of this.
#[cold]
fn begin(observer: &dyn Observer, activity: Activity, goroutine: u64) {
    under_lock(OBSERVER, || observer.begin(activity, goroutine));
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(observed) = &self.observed {
            observed.end(self.activity);
        }
    }
}
