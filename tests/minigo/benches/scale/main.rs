//! What grows with what: `cargo bench -p minigo --bench scale [-- --quick]`.
//!
//! One program (`scale.go`) in four experiments. Goroutines: 10^2 to 10^6 that wait ten frames
//! deep. Frames: one goroutine that waits 10^2 to 10^7 frames deep. Threads: the same work on 1 to
//! 16. Memory: a thousand goroutines that wait at several depths. Of each size: how long it takes
//! to start them, to collect while they wait, and to wake them and hear from all; the longest stop
//! of the world or of one goroutine; and the most memory. Real Go runs the same source beside it,
//! in turn, where it is to be had. Medians of the rounds count, of ratios those of each round.
//!
//! Writes `target/plots/scale_{goroutines,frames,threads,memory}.svg`. `exponent` is the slope in a
//! plot from its second point on: 1 is linear growth, 0 is none.

#[path = "../../../peers/src/go.rs"]
#[allow(dead_code, unused_imports)]
mod go;
#[path = "../plot/mod.rs"]
mod plot;
#[path = "../../../peers/src/process.rs"]
#[allow(dead_code)]
mod process;

use plot::{Curve, Plot, exponent};
use process::Ran;
use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How the program is run.
#[derive(Clone, Copy)]
struct Size {
    goroutines: usize,
    depth: usize,
    work: usize,
    threads: usize,
}

/// A size that stands for the others.
const USUAL: Size = Size { goroutines: 1_000, depth: 10, work: 0, threads: 2 };

/// One of the four: what is on the axis below, how a point makes a size, and the points, with how
/// many of them `--quick` takes.
struct Experiment {
    name: &'static str,
    axis: &'static str,
    size: fn(usize) -> Size,
    points: &'static [usize],
    quick: usize,
    /// What is drawn.
    drawn: &'static [What],
}

/// What is measured, in the order of the table's columns. Nanoseconds, and bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum What {
    Start,
    Collect,
    Wake,
    Stop,
    Memory,
}

use What::{Collect, Memory, Start, Stop, Wake};

impl What {
    const ALL: [What; 5] = [Start, Collect, Wake, Stop, Memory];

    fn name(self) -> &'static str {
        match self {
            Start => "start",
            Collect => "collect",
            Wake => "wake",
            Stop => "stop",
            Memory => "memory",
        }
    }

    /// The unit of plots and tables.
    fn unit(self) -> &'static str {
        if self == Memory { "MB" } else { "ms" }
    }
}

const EXPERIMENTS: [Experiment; 4] = [
    Experiment {
        name: "goroutines",
        axis: "goroutines, ten frames deep",
        size: |goroutines| Size { goroutines, ..USUAL },
        points: &[100, 1_000, 10_000, 100_000, 1_000_000],
        quick: 2,
        drawn: &[Start, Collect, Wake, Stop],
    },
    Experiment {
        name: "frames",
        axis: "frames of one goroutine",
        size: |depth| Size { goroutines: 1, depth, ..USUAL },
        points: &[100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000],
        quick: 3,
        drawn: &[Start, Collect, Wake, Stop],
    },
    Experiment {
        name: "threads",
        axis: "threads",
        size: |threads| Size { work: 200, threads, ..USUAL },
        points: &[1, 2, 4, 8, 16],
        quick: 2,
        drawn: &[Start, Wake, Stop],
    },
    Experiment {
        name: "memory",
        axis: "frames of each of a thousand goroutines",
        size: |depth| Size { depth, ..USUAL },
        points: &[1, 10, 100, 1_000, 10_000],
        quick: 2,
        drawn: &[Memory],
    },
];

/// Nanoseconds of a millisecond, and bytes of a megabyte.
const UNIT: f64 = 1e6;

/// What one run has measured.
type Measured = BTreeMap<What, f64>;

struct Bench {
    directory: PathBuf,
    go: Option<go::Go>,
}

impl Bench {
    fn source(&self, size: Size) -> Result<PathBuf, Box<dyn Error>> {
        let text = include_str!("scale.go")
            .replace("goroutines  = 100\n", &format!("goroutines  = {}\n", size.goroutines))
            .replace("depth       = 10\n", &format!("depth       = {}\n", size.depth))
            .replace("work        = 0\n", &format!("work        = {}\n", size.work));
        let file = self.directory.join("scale.go");
        std::fs::write(&file, text)?;
        Ok(file)
    }

    fn ours(&self, size: Size) -> Result<Measured, Box<dyn Error>> {
        let stats = self.directory.join("stats.json");
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(["--gc-percent", "-1", "--threads", &size.threads.to_string(), "--stats"]);
        command.arg(&stats).arg(self.source(size)?);
        let mut measured = self.measured(&mut command)?;
        let stats: serde_json::Value = serde_json::from_slice(&std::fs::read(&stats)?)?;
        let cycles = stats["cycles_detail"].as_array().ok_or("no cycles in the statistics")?;
        let stop = |cycle: &serde_json::Value| {
            let of = |name: &str| cycle[name].as_u64().unwrap_or(0);
            of("world_stop_ns").max(of("longest_hold_ns")) as f64
        };
        measured.insert(Stop, median(cycles.iter().map(stop)));
        Ok(measured)
    }

    /// Real Go's, if there is any.
    fn go(&self, size: Size) -> Result<Option<Measured>, Box<dyn Error>> {
        let Some(go) = &self.go else { return Ok(None) };
        let program = self.directory.join("scale");
        let file = self.source(size)?;
        // Its frames are larger, and its stacks double: the default limit is too low.
        let text = std::fs::read_to_string(&file)?
            .replace("\t\"runtime\"\n", "\t\"runtime\"\n\t\"runtime/debug\"\n")
            .replace("func main() {\n", "func main() {\n\tdebug.SetMaxStack(1 << 33)\n");
        std::fs::write(&file, text)?;
        go.build(&file, &program)?;
        let mut command = Command::new(program);
        command.env("GOGC", "off").env("GOMAXPROCS", size.threads.to_string());
        self.measured(&mut command).map(Some)
    }

    /// What the program prints, and its most memory.
    fn measured(&self, command: &mut Command) -> Result<Measured, Box<dyn Error>> {
        let Ran { stdout, peak, .. } = process::run(command, &self.directory)?;
        let of = |what: What| {
            let lines = stdout.lines().filter_map(|line| line.strip_prefix(what.name()));
            (what, median(lines.filter_map(|rest| rest.trim().parse().ok())))
        };
        let mut measured: Measured = [Start, Collect, Wake].map(of).into();
        measured.insert(Memory, peak as f64);
        Ok(measured)
    }
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = of.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The rounds of one point: ours, and Go's.
#[derive(Default)]
struct Rounds {
    ours: Vec<Measured>,
    go: Vec<Measured>,
}

impl Rounds {
    fn ours(&self, what: What) -> f64 {
        median(self.ours.iter().filter_map(|run| run.get(&what).copied()))
    }

    fn go(&self, what: What) -> f64 {
        median(self.go.iter().filter_map(|run| run.get(&what).copied()))
    }

    fn ratio(&self, what: What) -> f64 {
        let pairs = self.ours.iter().zip(&self.go);
        median(pairs.filter_map(|(ours, go)| Some(ours.get(&what)? / go.get(&what)?)))
    }
}

/// Runs the points of one experiment, prints them, draws them and returns their figures.
fn run(
    bench: &Bench,
    experiment: &Experiment,
    quick: bool,
    rounds: usize,
    directory: &Path,
) -> Result<Vec<String>, Box<dyn Error>> {
    let points =
        &experiment.points[..if quick { experiment.quick } else { experiment.points.len() }];
    print!("{:>12}", experiment.name);
    What::ALL.iter().for_each(|what| print!("{:>14}{:>8}", what.name(), "Go's"));
    println!("   (ms, MB; Go's: ours over it)");
    let mut all = Vec::new();
    for &point in points {
        let size = (experiment.size)(point);
        let mut of_point = Rounds::default();
        for _ in 0..rounds {
            of_point.ours.push(bench.ours(size)?);
            of_point.go.extend(bench.go(size)?);
        }
        print!("{point:>12}");
        for what in What::ALL {
            let ratio = Some(of_point.ratio(what)).filter(|ratio| ratio.is_finite());
            let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
            print!("{:>14.3}{ratio:>8}", of_point.ours(what) / UNIT);
        }
        println!();
        all.push((point as f64, of_point));
    }
    let curves = |of: fn(&Rounds, What) -> f64, what: What| -> Vec<(f64, f64)> {
        let points = all.iter().map(|(at, rounds)| (*at, of(rounds, what) / UNIT));
        points.filter(|(_, value)| *value > 0.0).collect()
    };
    let (mut drawn, mut figures) = (Vec::new(), Vec::new());
    let name = experiment.name;
    for &what in experiment.drawn {
        let (ours, go) = (curves(Rounds::ours, what), curves(Rounds::go, what));
        if let Some((at, value)) = ours.last().filter(|_| ours.len() > 1) {
            let (unit, key) = (what.unit(), what.name());
            figures.push(format!("figure scale_{name}_{key}_{at} {value:.3} {unit}"));
            let slope = exponent(&ours[usize::from(ours.len() > 2)..]);
            figures.push(format!("figure scale_{name}_{key}_exponent {slope:.3} slope"));
        }
        let ratio = all.last().map_or(f64::NAN, |(_, rounds)| rounds.ratio(what));
        if ratio.is_finite() {
            figures.push(format!("figure scale_{name}_{}_vs_go {ratio:.3} ratio", what.name()));
        }
        drawn.push((what.name().to_owned(), ours));
        drawn.push((format!("{}, Go's", what.name()), go));
    }
    let curves = drawn
        .iter()
        .filter(|(_, points)| !points.is_empty())
        .map(|(name, points)| Curve { name, points: points.clone() })
        .collect();
    let left = experiment.drawn[0].unit();
    let file = directory.join(format!("scale_{name}.svg"));
    plot::write(&file, &[Plot { title: name, below: experiment.axis, left, curves }])?;
    println!("wrote {}\n", file.display());
    Ok(figures)
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let go = match quick {
        true => None,
        false => {
            go::Go::find(None, target).inspect_err(|error| println!("Go is skipped: {error}")).ok()
        }
    };
    if let Some(go) = &go {
        println!("Go is {}", go.version);
    }
    let bench = Bench { directory: target.join("scale"), go };
    std::fs::create_dir_all(&bench.directory)?;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plots");
    std::fs::create_dir_all(&directory)?;
    let mut figures = Vec::new();
    for experiment in &EXPERIMENTS {
        figures.extend(run(&bench, experiment, quick, if quick { 1 } else { 5 }, &directory)?);
    }
    drop(machine);
    figures.iter().for_each(|figure| println!("{figure}"));
    Ok(())
}
