//! What threads do when they end and their thread-locals are gone: observers still hear of it.

use stackmark::stack::{Activity, Observer};
use stackmark::trace_file::TraceFile;
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

/// Tells an observer of an activity when it is dropped.
struct Late(Arc<dyn Observer>);

impl Drop for Late {
    fn drop(&mut self) {
        self.0.begin(Activity::Scan, 7);
        self.0.end(Activity::Scan);
    }
}

/// Tells the observer of an activity on a thread that runs, and of another one when all
/// thread-locals that are younger than the thread's first are gone: the observer's are among them.
fn observed_to_the_end(observer: Arc<dyn Observer>) {
    thread_local! {
        static FIRST: RefCell<Option<Late>> = const { RefCell::new(None) };
    }
    let run = move || {
        FIRST.set(Some(Late(Arc::clone(&observer))));
        observer.begin(Activity::Mark, 7);
        observer.end(Activity::Mark);
    };
    // A panic of a thread-local's destructor would end the process.
    std::thread::spawn(run).join().expect("no panic");
}

#[test]
fn what_comes_after_the_thread_locals_end_is_no_part_of_the_threads_trace() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("late_trace.json");
    let trace = TraceFile::create(&file).expect("a directory of ours");
    observed_to_the_end(Arc::clone(&trace) as _);
    trace.finish().expect("the file");
    let text = std::fs::read_to_string(&file).expect("written just now");
    let lines = |name| text.lines().filter(|line| line.contains(name)).count();
    assert_eq!(lines(r#""name":"mark""#), 1, "{text}");
    // There they begin anew, as those of another thread.
    let anew = usize::from(cfg!(windows));
    assert_eq!(lines(r#""name":"scan""#), anew, "{text}");
    assert_eq!(lines(r#""name":"thread_name""#), 1 + anew, "{text}");
}

#[cfg(feature = "tracing")]
#[test]
fn spans_are_left_out_after_the_thread_locals_end() {
    observed_to_the_end(Arc::new(stackmark::spans::Spans));
}
