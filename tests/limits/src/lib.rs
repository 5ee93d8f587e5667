//! Limits for tests that run a process or wait for something: CPU time against endless loops, and
//! progress against hangs.
//!
//! A limit of wall time fails on a busy machine. These do not: a process that wants a processor
//! and gets none is neither charged nor taken for one that hangs.
//!
//! A process *stands still* while none of its threads, nor of its descendants' threads, runs, is
//! ready to run or waits for a disk. A process that polls (a monitor thread, a progress line each
//! second) stands still too: activity counts from one part in twenty on. Output does not count.
//! While a process is stopped by a signal it neither makes progress nor stands still, and while the
//! watching thread is held up nothing is known.

#[cfg(not(windows))]
#[path = "by_proc.rs"]
mod processes;
#[cfg(windows)]
#[path = "by_windows.rs"]
mod processes;

use processes::{kill, look_at, this_thread, tree, what_threads_do};
use std::ffi::OsStr;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

/// How often the processes are looked at. A process that ends sooner is never looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// From one look to the next, at most so much time counts as standing still.
const LOOK_COUNTS: Duration = Duration::from_secs(1);

/// The part of the time that a process must be active to make progress: one in so many.
const ACTIVE_PART: u32 = 20;

/// How much more CPU time a process may use where a program plays the processor.
const EMULATED: u32 = 10;

/// What a process may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// CPU time of the process and its descendants, all threads together. Ten times as much under
    /// an emulator.
    pub cpu: Duration,
    /// Wall time without progress.
    pub standstill: Duration,
}

impl Default for Limits {
    /// Four minutes of CPU time, or the seconds in the environment's `STACKMARK_TEST_SECONDS`; a
    /// minute without progress.
    fn default() -> Limits {
        let seconds = std::env::var("STACKMARK_TEST_SECONDS").ok().and_then(|s| s.parse().ok());
        Limits {
            cpu: Duration::from_secs(seconds.unwrap_or(240)),
            standstill: Duration::from_secs(60),
        }
    }
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exceeded {
    /// The process loops: it has used this much CPU time.
    Cpu(Duration),
    /// The process hangs: it has made no progress for this long.
    Standstill(Duration),
}

impl std::fmt::Display for Exceeded {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Exceeded::Cpu(used) => write!(f, "loops: it has used {used:.1?} of CPU time"),
            Exceeded::Standstill(still) => write!(f, "hangs: no progress for {still:.1?}"),
        }
    }
}

impl std::error::Error for Exceeded {}

/// Waits until a child process ends. Kills it, and the processes it started, when a limit is
/// reached, after it has printed what their threads do. The caller reads the child's pipes
/// meanwhile, or the child hangs on a full one.
///
/// # Errors
/// The limit that was reached.
///
/// # Panics
/// If the child was waited for before.
pub fn wait(child: &mut Child, limits: Limits) -> Result<ExitStatus, Exceeded> {
    let mut watch = Watch::of(child.id(), limits);
    loop {
        if let Some(status) = child.try_wait().expect("a child that nothing else waits for") {
            return Ok(status);
        }
        if let Err(exceeded) = watch.look() {
            eprintln!("{}", what_threads_do(child.id()));
            for descendant in tree(child.id()).into_iter().rev() {
                kill(descendant);
            }
            child.kill().expect("a child that has not been waited for");
            child.wait().expect("a child that nothing else waits for");
            return Err(exceeded);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The test program that runs, to be run again for a test in a process of its own.
///
/// # Panics
/// If the system does not say which program runs.
pub fn this_program() -> Command {
    program(std::env::current_exe().expect("a program that the system knows"))
}

/// A program that was built as the test was: under an emulator if the test runs under one.
/// `STACKMARK_TEST_EMULATOR` has the emulator's command; a program of Windows needs none to run
/// others.
pub fn program(path: impl AsRef<OsStr>) -> Command {
    let emulator = std::env::var("STACKMARK_TEST_EMULATOR").unwrap_or_default();
    let emulator = if cfg!(windows) { "" } else { &*emulator };
    let mut words = emulator.split_whitespace();
    match words.next() {
        None => Command::new(path),
        Some(word) => {
            let mut command = Command::new(word);
            command.args(words).arg(path);
            command
        }
    }
}

/// Whether a program plays the processor. Everything takes ten times as long then.
pub fn is_emulated() -> bool {
    std::env::var_os("STACKMARK_TEST_EMULATOR").is_some()
}

/// Whether a program plays the processor. It leaves out some of what a system does: then this says
/// that the test is skipped, and why.
pub fn is_skipped_under_emulation(why: &str) -> bool {
    let emulated = is_emulated();
    if emulated {
        println!("skipped: {why}");
    }
    emulated
}

/// Waits on this thread until `done` says so, within the limits for this process.
///
/// # Panics
/// With `what` when a limit is reached. The calling thread's own activity is no progress; that of
/// tests beside this one is.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let mut watch = Watch::own();
    while !done() {
        watch.check(what);
        thread::sleep(Duration::from_millis(1));
    }
}

/// Holds a process to its limits, for as long as it is looked at.
#[derive(Debug)]
pub struct Watch {
    process: u32,
    /// The watching thread, if it belongs to the process.
    watcher: Option<u32>,
    limits: Limits,
    /// CPU time that the process had used when the watch began.
    before: Duration,
    /// When the process was last looked at, and what it had used.
    last: (Instant, Duration),
    /// When it last made progress, and how long it has been active since.
    still_since: Instant,
    active: Duration,
}

impl Watch {
    /// Watches a process, from now on.
    pub fn of(process: u32, limits: Limits) -> Watch {
        Watch::new(process, None, limits)
    }

    /// Watches this process, but for the calling thread.
    ///
    /// # Panics
    /// Without `/proc`.
    pub fn own() -> Watch {
        Watch::new(std::process::id(), this_thread(), Limits::default())
    }

    fn new(process: u32, watcher: Option<u32>, mut limits: Limits) -> Watch {
        if is_emulated() {
            limits.cpu *= EMULATED;
        }
        let (now, used) = (Instant::now(), look_at(process, watcher).0);
        Watch {
            process,
            watcher,
            limits,
            before: used,
            last: (now, used),
            still_since: now,
            active: Duration::ZERO,
        }
    }

    /// Looks at the process, if the last look was not just now.
    ///
    /// # Errors
    /// The limit that was reached.
    pub fn look(&mut self) -> Result<(), Exceeded> {
        let now = Instant::now();
        let (then, used_before) = self.last;
        if now - then < LOOK_EVERY {
            return Ok(());
        }
        let (used, doing) = look_at(self.process, self.watcher);
        self.last = (now, used);
        let spent = used.saturating_sub(self.before);
        if spent > self.limits.cpu {
            return Err(Exceeded::Cpu(spent));
        }
        self.active += used.saturating_sub(used_before);
        match doing {
            Doing::Something => self.active += now - then,
            Doing::Stopped => self.still_since += now - then,
            Doing::Nothing => self.still_since += (now - then).saturating_sub(LOOK_COUNTS),
        }
        let still = now - self.still_since;
        if self.active >= self.limits.standstill / ACTIVE_PART {
            self.still_since = now;
            self.active = Duration::ZERO;
        } else if still > self.limits.standstill {
            return Err(Exceeded::Standstill(still));
        }
        Ok(())
    }

    /// As [`look`](Self::look).
    ///
    /// # Panics
    /// With `what` when a limit is reached.
    #[track_caller]
    pub fn check(&mut self, what: &str) {
        if let Err(exceeded) = self.look() {
            panic!("{what}; the process {exceeded}");
        }
    }
}

/// What the threads of a process and its descendants do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(windows, expect(dead_code, reason = "what threads do is not to be seen there"))]
enum Doing {
    Nothing,
    /// One is stopped by a signal, and none does something.
    Stopped,
    /// One runs, is ready to run or waits for a disk.
    Something,
}
