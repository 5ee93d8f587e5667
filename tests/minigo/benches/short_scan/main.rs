//! What short scans save: `cargo bench -p minigo --bench short_scan [-- --quick]`.
//!
//! One goroutine recurses to a depth, every frame with six references to old objects, and then
//! allocates garbage in a loop at the top: a minor collection for each so many bytes. With short
//! scans a collection visits the few frames that have run since the last one; without, in the same
//! generational mode, the whole stack. The time of a collection is the collector's own account,
//! from its beginning to the end of marking; sweeping is left out of it, and is the same in both.
//! One thread runs the program, another collects. The two alternate, on a goroutine's stack and on
//! a thread's own; means and medians are over the
//! minor collections of all rounds, the ratio is that of the medians.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes allocated from one minor collection to the next.
const NURSERY: usize = 256 << 10;
/// So many of them are allocated. Those that are allocated while a collection runs make none.
const NURSERIES: usize = 2000;
/// Bytes of one of the program's objects.
const OBJECT: usize = 16;
/// The first collections of the deep stack, which visit the new frames.
const WARM_UP: usize = 3;

/// Minor collections of one mode: the nanoseconds of each.
#[derive(Default)]
struct Collections {
    times: Vec<u64>,
}

impl Collections {
    fn mean(&self) -> f64 {
        self.times.iter().sum::<u64>() as f64 / self.times.len().max(1) as f64
    }

    /// One that nothing has disturbed.
    fn shortest(&self) -> f64 {
        self.times.iter().copied().min().unwrap_or(0) as f64
    }

    fn median(&self) -> f64 {
        let mut sorted = self.times.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0) as f64
    }
}

struct Bench {
    directory: PathBuf,
    depth: usize,
    collections: usize,
}

impl Bench {
    fn source(&self) -> Result<PathBuf, Box<dyn Error>> {
        let allocations = NURSERIES * NURSERY / OBJECT;
        let text = include_str!("deep.go")
            .replace("depth       = 100000", &format!("depth = {}", self.depth))
            .replace("allocations = 1000000", &format!("allocations = {allocations}"));
        let file = self.directory.join(format!("deep_{}.go", self.depth));
        std::fs::write(&file, text)?;
        Ok(file)
    }

    /// Runs the program once and adds its minor collections.
    fn run(&self, options: &[&str], into: &mut Collections) -> Result<(), Box<dyn Error>> {
        let stats = self.directory.join("stats.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(["--mark-workers", "1"]).arg(format!("--generational={NURSERY}"));
        let out = command.args(options).arg("--stats").arg(&stats).arg(self.source()?).output()?;
        if !out.status.success() {
            return Err(format!(
                "{command:?}: {}\n{}",
                out.status,
                String::from_utf8_lossy(&out.stderr)
            )
            .into());
        }
        let stats: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(stats)?)?;
        let cycles = stats["cycles_detail"].as_array().ok_or("no cycles in the statistics")?;
        let is_deep =
            |cycle: &serde_json::Value| cycle["deepest_frames"].as_u64() >= Some(self.depth as u64);
        let minor =
            cycles.iter().filter(|cycle| cycle["minor"] == true && is_deep(cycle)).skip(WARM_UP);
        let times: Vec<u64> =
            minor.filter_map(|cycle| cycle["mark_ns"].as_u64()).take(self.collections).collect();
        if times.is_empty() {
            return Err(
                format!("no minor collection of a deep stack among {}", cycles.len()).into()
            );
        }
        into.times.extend(times);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let _machine = quiet::Machine::look();
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("short_scan");
    std::fs::create_dir_all(&directory)?;
    let (depths, rounds, collections): (&[usize], _, _) =
        if quick { (&[1000, 100_000], 1, 20) } else { (&[1000, 10_000, 100_000], 5, 100) };
    println!(
        "{:<10}{:>9}  {:>24}{:>26}{:>8}  (us for a minor collection: mean, median)",
        "stack", "frames", "short scans", "whole scans", "ratio"
    );
    for &depth in depths {
        let bench = Bench { directory: directory.clone(), depth, collections };
        let mut measured = STACKS.map(|_| [Collections::default(), Collections::default()]);
        for _ in 0..rounds {
            for ((.., options), [short, whole]) in STACKS.iter().zip(&mut measured) {
                bench.run(options, short)?;
                bench.run(&[options, &["--whole-scans"][..]].concat(), whole)?;
            }
        }
        for ((stack, prefix, _), [short, whole]) in STACKS.iter().zip(&measured) {
            let [a, b, c, d] =
                [short.mean(), short.median(), whole.mean(), whole.median()].map(|ns| ns / 1e3);
            println!("{stack:<10}{depth:>9}  {a:>12.1}{b:>12.1}{c:>14.1}{d:>12.1}{:>8.1}", d / b);
            if depth == 100_000 {
                figures(prefix, short, whole);
            }
        }
    }
    Ok(())
}

/// What a goroutine runs on, how the names of its figures begin, and the options.
const STACKS: [(&str, &str, &[&str]); 2] =
    [("goroutine", "", &["--threads", "1"]), ("thread", "native_", &["--native-stacks"])];

fn figures(prefix: &str, short: &Collections, whole: &Collections) {
    for (name, of) in [("short", short), ("whole", whole)] {
        println!("figure {prefix}minor_{name}_mean {:.1} us", of.mean() / 1e3);
        println!("figure {prefix}minor_{name}_median {:.1} us", of.median() / 1e3);
        println!("figure {prefix}minor_{name}_shortest {:.1} us", of.shortest() / 1e3);
    }
    let speedup = |name: &str, of: fn(&Collections) -> f64| {
        println!("figure {prefix}short_scan_speedup{name} {:.1} ratio", of(whole) / of(short));
    };
    speedup("_shortest", Collections::shortest);
    speedup("_mean", Collections::mean);
    speedup("", Collections::median);
}
