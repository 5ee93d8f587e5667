//! Activities as spans of the crate `tracing`. Behind the feature `tracing`.

use std::cell::RefCell;

use stackmark_stack::{Activity, Observer};
use tracing::span::EnteredSpan;
use tracing::trace_span;

/// An [`Observer`] that enters a span for each activity, at level TRACE with the target
/// `stackmark`. The field `goroutine` is the goroutine's number. Subscribers are called where
/// [`Observer`] says; they must not wait for goroutines. Installed with
/// `runtime.observed().set(Arc::new(Spans))`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans;

thread_local! {
    static ENTERED: RefCell<Vec<(Activity, EnteredSpan)>> = const { RefCell::new(Vec::new()) };
}

impl Observer for Spans {
    fn begin(&self, activity: Activity, goroutine: u64) {
        macro_rules! span {
            ($name:literal) => {
                trace_span!(target: "stackmark", $name, goroutine)
            };
        }
        let span = match activity {
            Activity::Cycle => span!("cycle"),
            Activity::Handshake => span!("handshake"),
            Activity::Pause => span!("pause"),
            Activity::Mark => span!("mark"),
            Activity::Assist => span!("assist"),
            Activity::Scan => span!("scan"),
            Activity::Sweep => span!("sweep"),
            Activity::BarrierHit => span!("barrier hit"),
            Activity::Growth => span!("growth"),
            Activity::ForeignCall => span!("foreign call"),
        };
        let entered = span.entered();
        // A thread that ends has no such list any more, and enters no span.
        let _ = ENTERED.try_with(|open| open.borrow_mut().push((activity, entered)));
    }

    fn end(&self, activity: Activity) {
        // Frames that were unwound have not ended their activities.
        let ended = ENTERED.try_with(|open| {
            let mut open = open.borrow_mut();
            let at = open.iter().rposition(|(open, _)| *open == activity);
            at.map_or(Vec::new(), |at| open.split_off(at))
        });
        // The youngest first. Not under the borrow: dropping runs subscribers.
        ended.into_iter().flatten().rev().for_each(drop);
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Metadata, Subscriber};

    /// Notes the names of spans entered (+) and left (-).
    #[derive(Default)]
    struct Notes {
        names: Mutex<Vec<&'static str>>,
        seen: Arc<Mutex<Vec<String>>>,
    }

    impl Subscriber for Notes {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "stackmark"
        }
        fn new_span(&self, span: &Attributes<'_>) -> Id {
            let mut names = self.names.lock().unwrap();
            names.push(span.metadata().name());
            Id::from_u64(names.len() as u64)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {}
        fn enter(&self, id: &Id) {
            let name = self.names.lock().unwrap()[id.into_u64() as usize - 1];
            self.seen.lock().unwrap().push(format!("+{name}"));
        }
        fn exit(&self, id: &Id) {
            let name = self.names.lock().unwrap()[id.into_u64() as usize - 1];
            self.seen.lock().unwrap().push(format!("-{name}"));
        }
    }

    #[test]
    fn activities_are_nested_spans_also_when_an_end_is_missing() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Notes { seen: Arc::clone(&seen), ..Notes::default() };
        tracing::subscriber::with_default(notes, || {
            Spans.begin(Activity::Cycle, 0);
            Spans.begin(Activity::ForeignCall, 7);
            Spans.begin(Activity::Scan, 7);
            Spans.end(Activity::ForeignCall);
            Spans.end(Activity::Growth);
            Spans.end(Activity::Cycle);
        });
        let expected = ["+cycle", "+foreign call", "+scan", "-scan", "-foreign call", "-cycle"];
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}
