//! A sampling profile: a thousand times a second, each thread that runs is interrupted and notes
//! where it is, up to the oldest frame of its goroutine or of itself. At exit the functions are
//! written to a file.
//!
//! The handler does only what is safe in one: it takes one of a fixed number of caches, walks, and
//! writes to memory that was set aside. Everything else happens in the thread that sends the
//! signals, and at exit.

use super::image_of;
use parking_lot::Mutex;
use stackmark::stack::asm;
use stackmark::stack::sample;
use stackmark::unwind::{Code, RuleCache, WalkError};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const PERIOD: Duration = Duration::from_millis(1);
/// Handlers that may run at the same time.
const CACHES: usize = 64;
/// Pcs that a cache holds.
const CACHED: usize = 4096;
/// Frames of a sample that are kept, from the youngest.
const KEPT: usize = 64;
/// Frames of a sample that are walked.
const WALKED: usize = 100_000;
/// Words for samples: untouched, they take no memory.
const WORDS: usize = 1 << 24;

/// How a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(usize)]
enum End {
    /// At a goroutine's oldest frame.
    Goroutine = 1,
    /// At a thread's oldest frame.
    Thread,
    /// After [`WALKED`] frames.
    Cut,
    /// By an error.
    Broken,
}

impl End {
    const ALL: [(End, &'static str); 4] = [
        (End::Goroutine, "goroutine"),
        (End::Thread, "thread"),
        (End::Cut, "cut"),
        (End::Broken, "broken"),
    ];
}

struct Profiler {
    code: Arc<Code>,
    caches: Vec<Mutex<RuleCache>>,
    /// Samples one behind the other: how it ended and the number of pcs, then the pcs. The first
    /// word is written last.
    words: Box<[AtomicUsize]>,
    used: AtomicUsize,
    /// Samples for which there was no room.
    lost: AtomicUsize,
    /// Signals for threads that run no goroutines, or that were exchanging their stack.
    elsewhere: AtomicUsize,
    /// Signals that have interrupted a stub.
    in_stubs: AtomicUsize,
    ended: AtomicBool,
}

static PROFILER: OnceLock<Profiler> = OnceLock::new();

extern "C" fn on_signal(
    _signal: i32,
    _info: *mut libc::siginfo_t,
    interrupted: *mut libc::ucontext_t,
) {
    // SAFETY: the thread's own variable.
    let errno = unsafe { *libc::__errno_location() };
    if let Some(profiler) = PROFILER.get() {
        // SAFETY: what the system gave to the handler of a signal that has interrupted this thread.
        unsafe { profiler.sample(&*interrupted) };
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

impl Profiler {
    /// Signal-safe: the lock is only tried, and its owner is always another thread's handler.
    ///
    /// # Safety
    /// As for [`sample::trace_interrupted`].
    unsafe fn sample(&self, interrupted: &libc::ucontext_t) {
        let Some(mut cache) = self.caches.iter().find_map(Mutex::try_lock) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let mut pcs = [0; KEPT];
        let (mut count, mut oldest) = (0, 0);
        // SAFETY: our contract.
        let walked = unsafe {
            sample::trace_interrupted(&self.code, &mut cache, interrupted, |frame| {
                oldest = frame.lookup_pc();
                // A thread that stands in a barrier's stub is on its way to the frame behind it.
                if asm::barrier::pool().contains(&oldest) {
                    if count == 0 {
                        self.in_stubs.fetch_add(1, Ordering::Relaxed);
                    }
                } else {
                    if let Some(pc) = pcs.get_mut(count) {
                        *pc = oldest;
                    }
                    count += 1;
                }
                if count == WALKED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        };
        drop(cache);
        let end = match walked {
            None => {
                self.elsewhere.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Some(Ok(None)) if asm::entry_range().contains(&oldest) => End::Goroutine,
            Some(Ok(None)) => End::Thread,
            Some(Ok(Some(()))) => End::Cut,
            Some(Err(error)) => {
                // Where it happened, and where the walk stood.
                let WalkError::NoRule { pc } = error else {
                    return self.keep(End::Broken, &pcs[..count.min(KEPT)]);
                };
                count = count.min(KEPT - 1);
                pcs[count] = pc;
                count += 1;
                End::Broken
            }
        };
        self.keep(end, &pcs[..count.min(KEPT)]);
    }

    fn keep(&self, end: End, pcs: &[usize]) {
        let at = self.used.fetch_add(pcs.len() + 1, Ordering::Relaxed);
        let Some(words) = self.words.get(at..at + pcs.len() + 1) else {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        for (word, pc) in words[1..].iter().zip(pcs) {
            word.store(*pc, Ordering::Relaxed);
        }
        // Release: a reader of this word also sees the pcs.
        words[0].store((end as usize) << 32 | pcs.len(), Ordering::Release);
    }

    /// The samples, as far as they are complete.
    fn samples(&self) -> Vec<(End, Vec<usize>)> {
        let mut samples = Vec::new();
        let mut at = 0;
        while let Some(word) = self.words.get(at) {
            // Acquire: pairs with the Release in `keep`.
            let first = word.load(Ordering::Acquire);
            let Some((end, _)) = End::ALL.into_iter().find(|(end, _)| *end as usize == first >> 32)
            else {
                break;
            };
            let count = first as u32 as usize;
            let pcs = self.words[at + 1..at + 1 + count]
                .iter()
                .map(|pc| pc.load(Ordering::Relaxed))
                .collect();
            samples.push((end, pcs));
            at += 1 + count;
        }
        samples
    }
}

/// Begins to interrupt the threads of this process.
pub(crate) fn start(code: &Arc<Code>) -> Result<(), Box<dyn std::error::Error>> {
    code.refresh_images();
    code.snapshot().read_images()?;
    let profiler = Profiler {
        code: Arc::clone(code),
        caches: (0..CACHES).map(|_| Mutex::new(RuleCache::fixed(CACHED))).collect(),
        words: (0..WORDS).map(|_| AtomicUsize::new(0)).collect(),
        used: AtomicUsize::new(0),
        lost: AtomicUsize::new(0),
        elsewhere: AtomicUsize::new(0),
        in_stubs: AtomicUsize::new(0),
        ended: AtomicBool::new(false),
    };
    assert!(PROFILER.set(profiler).is_ok(), "started once");
    // SAFETY: the handler does only what may be done in one, on the alternate stack that each
    // machine has.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut())
    };
    if installed != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    std::thread::Builder::new().name("minigo-profile".into()).spawn(send_signals)?;
    Ok(())
}

/// Sends a signal to each thread that runs, again and again.
fn send_signals() {
    // SAFETY: plain questions to the system.
    let (process, own) = unsafe { (libc::getpid(), libc::gettid()) };
    let profiler = PROFILER.get().expect("set before this thread was started");
    while !profiler.ended.load(Ordering::Relaxed) {
        std::thread::sleep(PERIOD);
        let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { continue };
        for thread in tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok())
        {
            if thread != own && runs(thread) {
                // SAFETY: a signal that has a handler.
                unsafe { libc::syscall(libc::SYS_tgkill, process, thread, libc::SIGPROF) };
            }
        }
    }
}

/// Whether a thread of this process is running, not waiting.
fn runs(thread: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")) else {
        return false;
    };
    // The state stands behind the name, which is in parentheses.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('R'))
}

/// Writes what was seen so far to `file`, if a profile was started.
pub(crate) fn write(file: &Path) -> std::io::Result<()> {
    let Some(profiler) = PROFILER.get() else { return Ok(()) };
    profiler.ended.store(true, Ordering::Relaxed);
    let samples = profiler.samples();
    let mut names = Names::new(&profiler.code);
    let mut by_end: BTreeMap<End, usize> = BTreeMap::new();
    let mut functions: HashMap<String, (usize, usize)> = HashMap::new();
    let mut broken = String::new();
    for (end, pcs) in &samples {
        *by_end.entry(*end).or_default() += 1;
        let frames: Vec<&str> = names.of(pcs);
        if *end == End::Broken {
            let _ = writeln!(broken, "broken: {}", frames.join(" < "));
        }
        let mut seen = HashSet::new();
        for (i, name) in frames.iter().enumerate() {
            let (own, with_callees) = functions.entry((*name).into()).or_default();
            *own += usize::from(i == 0);
            *with_callees += usize::from(seen.insert(*name));
        }
    }
    let mut text = format!("samples {}\n", samples.len());
    for (end, name) in End::ALL {
        let _ = writeln!(text, "{name} {}", by_end.get(&end).unwrap_or(&0));
    }
    let counters = [
        ("lost", &profiler.lost),
        ("elsewhere", &profiler.elsewhere),
        ("in_stubs", &profiler.in_stubs),
    ];
    for (name, count) in counters {
        let _ = writeln!(text, "{name} {}", count.load(Ordering::Relaxed));
    }
    text += &broken;
    text += "\n    own    with callees  function\n";
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by(|a, b| (b.1, &a.0).cmp(&(a.1, &b.0)));
    for (name, (own, with_callees)) in functions {
        let _ = writeln!(text, "{own:>7} {with_callees:>15}  {name}");
    }
    std::fs::write(file, text)
}

/// Function names by address.
struct Names<'c> {
    code: &'c Code,
    images: HashMap<String, Option<object::SymbolMap<object::SymbolMapName<'static>>>>,
    known: HashMap<usize, String>,
}

impl<'c> Names<'c> {
    fn new(code: &'c Code) -> Names<'c> {
        Names { code, images: HashMap::new(), known: HashMap::new() }
    }

    fn of(&mut self, pcs: &[usize]) -> Vec<&str> {
        for pc in pcs {
            if !self.known.contains_key(pc) {
                let name = self.look_up(*pc);
                self.known.insert(*pc, name);
            }
        }
        pcs.iter().map(|pc| &*self.known[pc]).collect()
    }

    fn look_up(&mut self, pc: usize) -> String {
        let snapshot = self.code.snapshot();
        if let Some(function) = snapshot.function(pc) {
            return function.name.into();
        }
        let Some(image) = snapshot.image(pc) else { return format!("{pc:#x}") };
        let map = self.images.entry(image.name().into()).or_insert_with(|| symbols(image.name()));
        let offset = pc - image_of(pc).unwrap_or(0);
        let symbol = map.as_ref().and_then(|map| map.before(offset as u64));
        let file = Path::new(image.name())
            .file_name()
            .map_or_else(Default::default, |name| name.to_string_lossy());
        symbol.map_or_else(
            || format!("[{file}]"),
            |symbol| rustc_demangle::demangle(symbol.name()).to_string(),
        )
    }
}

/// The symbols of a file, if it can be read. They live as long as the process, which is about to
/// end.
fn symbols(file: &str) -> Option<object::SymbolMap<object::SymbolMapName<'static>>> {
    let bytes: &'static [u8] = Vec::leak(std::fs::read(file).ok()?);
    Some(object::Object::symbol_map(&object::File::parse(bytes).ok()?))
}
