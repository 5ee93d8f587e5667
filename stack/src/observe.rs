//! What an observer is told: which activity each thread is in, from when to when.

use std::sync::{Arc, OnceLock};

/// Something that a thread does for the collector, or that delays a goroutine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activity {
    /// A cycle, from its beginning to its end, on the collector's thread.
    Cycle,
    /// Waiting for all goroutines to have heard of the write barrier.
    Handshake,
    /// The world is being stopped, or is.
    Pause,
    /// A worker marks.
    Mark,
    /// A thread that allocates marks, or waits for marking.
    Assist,
    /// Part of a stack is scanned.
    Scan,
    /// What the last cycle condemned is swept, by the collector's thread.
    Sweep,
    /// A goroutine returns through a barrier.
    BarrierHit,
    /// A goroutine's stack grows.
    Growth,
    /// A goroutine is in native code that may wait.
    ForeignCall,
}

impl Activity {
    /// A name to be shown.
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

/// Who is told of activities. Called on the thread that they are on, also under locks of the
/// library: it must not wait for goroutines, nor call the library. On each thread activities are
/// nested.
pub trait Observer: Send + Sync + 'static {
    /// An activity begins; `goroutine` is the number of the goroutine that it concerns, or 0.
    fn begin(&self, activity: Activity, goroutine: u64);

    /// The activity that began last on this thread ends.
    fn end(&self, activity: Activity);
}

/// Where the observer is kept, if there is one.
#[derive(Clone, Default)]
pub struct Observed(Arc<OnceLock<Arc<dyn Observer>>>);

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Observed").field(&self.0.get().is_some()).finish()
    }
}

/// An activity that lasts as long as this value.
#[must_use]
pub struct Span(Option<(Arc<dyn Observer>, Activity)>);

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Span").field(&self.0.as_ref().map(|(_, activity)| activity)).finish()
    }
}

impl Observed {
    /// Installs the observer. Activities that have begun already are not told of.
    ///
    /// # Panics
    /// If there is one.
    pub fn set(&self, observer: Arc<dyn Observer>) {
        assert!(self.0.set(observer).is_ok(), "there is one observer");
    }

    /// An activity begins on this thread.
    #[inline]
    pub fn span(&self, activity: Activity, goroutine: u64) -> Span {
        match self.0.get() {
            None => Span(None),
            Some(observer) => Span::begin(observer, activity, goroutine),
        }
    }
}

impl Span {
    // Cold, both: a foreign call without an observer takes less time than a call of these.
    #[cold]
    fn begin(observer: &Arc<dyn Observer>, activity: Activity, goroutine: u64) -> Span {
        observer.begin(activity, goroutine);
        Span(Some((Arc::clone(observer), activity)))
    }

    #[cold]
    fn end(&mut self) {
        if let Some((observer, activity)) = self.0.take() {
            observer.end(activity);
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.end();
        }
    }
}
