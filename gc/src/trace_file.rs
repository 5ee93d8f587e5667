//! A record of activities over time, as a file in Chrome's JSON trace format, which Perfetto shows
//! too. Each thread has a track: each machine, each mark worker and the collector. The track holds
//! the thread's activities with their goroutines.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use parking_lot::Mutex;
use stackmark_stack::{Activity, Observer, thread_ends};

/// An [`Observer`] that writes a trace file. Installed with `runtime.observed().set(trace)`.
pub struct TraceFile {
    out: Mutex<Out>,
    begun: Instant,
}

struct Out {
    /// `None` when it is finished, or could not be written.
    file: Option<BufWriter<File>>,
    error: Option<io::Error>,
    empty: bool,
}

/// An activity that has begun on this thread.
struct Open {
    activity: Activity,
    goroutine: u64,
    begun: Instant,
}

thread_local! {
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    /// The number of this thread's track; 0 before it has one.
    static TRACK: Cell<u64> = const { Cell::new(0) };
}

impl std::fmt::Debug for TraceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TraceFile").field("begun", &self.begun).finish_non_exhaustive()
    }
}

impl TraceFile {
    /// Creates the file.
    ///
    /// # Errors
    /// When the file cannot be created or written.
    pub fn create(path: &Path) -> io::Result<Arc<TraceFile>> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(b"[\n")?;
        let out = Out { file: Some(file), error: None, empty: true };
        Ok(Arc::new(TraceFile { out: Mutex::new(out), begun: Instant::now() }))
    }

    /// Completes the file. Later activities are not recorded.
    ///
    /// # Errors
    /// When this, or anything before it, could not be written.
    pub fn finish(&self) -> io::Result<()> {
        let mut out = self.out.lock();
        if let Some(error) = out.error.take() {
            return Err(error);
        }
        let Some(mut file) = out.file.take() else { return Ok(()) };
        file.write_all(b"\n]\n")?;
        file.flush()
    }

    /// Microseconds since the trace began, as the format wants them.
    fn micros(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.begun).as_nanos() as f64 / 1e3
    }

    fn write(&self, line: &str) {
        let mut out = self.out.lock();
        let separator = if std::mem::replace(&mut out.empty, false) { "" } else { ",\n" };
        let Some(file) = &mut out.file else { return };
        if let Err(error) = write!(file, "{separator}{line}") {
            out.error = Some(error);
            out.file = None;
        }
    }

    /// The number of this thread's track. The first call on a thread writes the track's name.
    fn track(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if TRACK.get() == 0 {
            // Relaxed: only unique.
            TRACK.set(NEXT.fetch_add(1, Relaxed));
            let known = (!thread_ends()).then(std::thread::current);
            let name = known.as_ref().and_then(|thread| thread.name());
            let name = name.unwrap_or("a thread of the program").replace(['"', '\\'], "'");
            self.write(&format!(
                r#"{{"ph":"M","pid":1,"tid":{},"name":"thread_name","args":{{"name":"{name}"}}}}"#,
                TRACK.get()
            ));
        }
        TRACK.get()
    }
}

impl Observer for TraceFile {
    fn begin(&self, activity: Activity, goroutine: u64) {
        let begun = Open { activity, goroutine, begun: Instant::now() };
        // A thread that ends has no such list any more.
        let _ = OPEN.try_with(|open| open.borrow_mut().push(begun));
    }

    fn end(&self, activity: Activity) {
        let now = Instant::now();
        // Frames that were unwound have not ended their activities.
        let ended = OPEN.try_with(|open| {
            let mut open = open.borrow_mut();
            let at = open.iter().rposition(|open| open.activity == activity)?;
            open.drain(at..).next()
        });
        let Ok(Some(ended)) = ended else { return };
        let (track, begun) = (self.track(), self.micros(ended.begun));
        let goroutine = match ended.goroutine {
            0 => String::new(),
            number => format!(r#","args":{{"goroutine":{number}}}"#),
        };
        self.write(&format!(
            r#"{{"ph":"X","pid":1,"tid":{track},"ts":{begun:.3},"dur":{:.3},"name":"{}"{}}}"#,
            self.micros(now) - begun,
            activity.name(),
            goroutine,
        ));
    }
}
