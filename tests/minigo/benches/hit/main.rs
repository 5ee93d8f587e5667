//! What return barriers cost: `cargo bench -p minigo --bench hit [-- --quick]`.
//!
//! First one return through a barrier against a plain return: compiled code recurses, barriers are
//! placed in every frame, and all frames return. Then whole programs, with collections going on all
//! the time: barriers of each kind against none. Medians.

use jit::Embedder;
use parking_lot::Mutex;
use stackmark_stack::unwind::Code;
use stackmark_stack::{
    BarrierMode, Caller, Config, CycleDriver, Left, Machine, NextCycle, RootSink, Runtime,
    ScanScope,
};
use std::error::Error;
use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// Takes roots and does nothing with them.
struct NoCollector;

impl RootSink for NoCollector {
    fn roots(&self, _words: &[usize]) {}
}

/// Drives the cycles of the runtime of the moment.
static CYCLES: Mutex<Option<CycleDriver>> = Mutex::new(None);
/// When the bottom was left last.
static LEFT: Mutex<Option<Instant>> = Mutex::new(None);

/// At the bottom: a cycle, which places barriers where the mode says so.
unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    // SAFETY: used within this function alone.
    let caller = unsafe { Caller::current() };
    caller.foreign(|| {
        let mut cycles = CYCLES.lock();
        let cycles = cycles.as_mut().expect("the runtime's");
        cycles.handshake();
        assert!(cycles.begin_scanning(1, ScanScope::Whole));
        cycles.scan_goroutines(|| {}).expect("a stack that can be walked");
        cycles.stop_world(|world| world.end_scanning(NextCycle::IsWhole));
    });
    *LEFT.lock() = Some(Instant::now());
    0
}

/// How long `frames` frames take to return, and through how many barriers.
fn return_time(barriers: BarrierMode, frames: u64) -> Result<(Duration, u64), Box<dyn Error>> {
    let code = Arc::new(Code::new());
    let compiled = jit::compile(&code, bottom, 0);
    let config = Config { barriers, ..Config::default() };
    let runtime = Runtime::new(config, code, Box::new(Embedder))?;
    *CYCLES.lock() = Some(CycleDriver::new(&runtime, Arc::new(NoCollector))?);
    let object = 7u64;
    let mut argument = [frames, &raw const object as u64, 0];
    let machine = Machine::attach(&runtime)?;
    // SAFETY: the entry is compiled code that keeps the contracts.
    let goroutine = unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize)? };
    assert!(matches!(machine.run(goroutine), Left::Exited));
    let took = LEFT.lock().take().ok_or("the bottom was not reached")?.elapsed();
    let hit = runtime.counters().hit.load(Relaxed);
    drop((machine, CYCLES.lock().take(), compiled));
    Ok((took, hit))
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Nanoseconds of a plain return and of one through a barrier.
fn hits(runs: usize) -> Result<(f64, f64), Box<dyn Error>> {
    const FRAMES: u64 = 20_000;
    let (mut plain, mut hit) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (took, none) = return_time(BarrierMode::Off, FRAMES)?;
        assert_eq!(none, 0);
        plain.push(took.as_nanos() as f64 / FRAMES as f64);
        let (took, hits) = return_time(BarrierMode::EveryFrame, FRAMES)?;
        assert!(hits >= FRAMES - 2, "{hits} barriers were hit");
        hit.push(took.as_nanos() as f64 / FRAMES as f64);
    }
    Ok((median(plain), median(hit)))
}

/// How long a program runs, in seconds.
fn run(directory: &Path, what: &str, barriers: &str, quick: bool) -> Result<f64, Box<dyn Error>> {
    let mut text =
        include_str!("throughput.go").replace("work(\"fib\")", &format!("work(\"{what}\")"));
    if quick {
        text = text.replace("fib(35)", "fib(22)").replace("< 400;", "< 2;").replace("< 5;", "< 1;");
    }
    let file = directory.join(format!("{what}.go"));
    std::fs::write(&file, text)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
    command.args(["--threads", "2", "--mark-workers", "1", "--barriers", barriers]).arg(file);
    let begun = Instant::now();
    let out = command.output()?;
    let took = begun.elapsed().as_secs_f64();
    if !out.status.success() {
        return Err(format!(
            "{command:?}: {}\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        )
        .into());
    }
    Ok(took)
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let runs = if quick { 2 } else { 9 };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hit");
    std::fs::create_dir_all(&directory)?;
    let (plain, hit) = hits(runs)?;
    println!("a return takes {plain:.1} ns, one through a barrier {hit:.1} ns");
    let mut figures = vec![format!("figure hit_ns {:.1} ns", hit - plain)];
    println!("{:<8}{:>14}{:>14}{:>14}", "seconds", "incremental", "rescan limit", "none");
    for what in ["fib", "trees", "deep"] {
        let mut took = [const { Vec::new() }; 3];
        for _ in 0..runs {
            for (took, mode) in took.iter_mut().zip(["incremental", "rescan-limit", "off"]) {
                took.push(run(&directory, what, mode, quick)?);
            }
        }
        let [incremental, limit, none] = took.map(median);
        println!("{what:<8}{incremental:>14.3}{limit:>14.3}{none:>14.3}");
        figures.push(format!(
            "figure throughput_{what}_incremental_vs_none {:.3} ratio",
            none / incremental
        ));
        figures.push(format!(
            "figure throughput_{what}_incremental_vs_rescan_limit {:.3} ratio",
            limit / incremental
        ));
    }
    drop(machine);
    figures.iter().for_each(|figure| println!("{figure}"));
    Ok(())
}
