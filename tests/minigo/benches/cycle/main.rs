//! What one cycle costs, and the longest stop of the world or of one goroutine in it, against the
//! number of objects, the depth of a stack and the number of goroutines.
//!
//! `cargo bench -p minigo --bench cycle [-- --quick]`. Each point is a program of its own that
//! collects a few times; the median of its cycles counts. Writes three plots,
//! `target/plots/cycle_{heap,depth,goroutines}.svg`, and ends with lines `figure NAME VALUE UNIT`.
//! `exponent` is the slope in the plot from its second point on: 1 is linear growth, 0 is none.

#[path = "../plot/mod.rs"]
mod plot;

use plot::{Curve, Plot, exponent};
use serde_json::Value;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Objects in lists of a thousand.
const HEAP: &str = "package main

import \"runtime\"

type node struct {
	next *node
	data int
}

func main() {
	lists := make([]*node, SIZE/1000+1)
	for i := 0; i < SIZE; i++ {
		at := i % len(lists)
		lists[at] = &node{lists[at], i}
	}
	for i := 0; i < 5; i++ {
		runtime.GC()
	}
	println(lists[0].data)
}
";

/// One goroutine so many frames deep that each hold an object.
const DEPTH: &str = "package main

import \"runtime\"

type node struct{ data int }

func descend(depth int) int {
	n := &node{depth}
	sum := 0
	if depth > 0 {
		sum = descend(depth - 1)
	} else {
		for i := 0; i < 5; i++ {
			runtime.GC()
		}
	}
	return sum + n.data
}

func main() {
	println(descend(SIZE))
}
";

/// Parked goroutines, ten frames deep.
const GOROUTINES: &str = "package main

import \"runtime\"

type node struct{ data int }

func descend(depth int, ready, release chan int) int {
	n := &node{depth}
	sum := 0
	if depth > 0 {
		sum = descend(depth-1, ready, release)
	} else {
		ready <- 1
		<-release
	}
	return sum + n.data
}

func main() {
	ready := make(chan int)
	release := make(chan int)
	for i := 0; i < SIZE; i++ {
		go func() { descend(10, ready, release) }()
	}
	for i := 0; i < SIZE; i++ {
		<-ready
	}
	for i := 0; i < 5; i++ {
		runtime.GC()
	}
	println(SIZE)
}
";

/// One of the three: its name, what is on the axis below, the program, and the sizes, with how many
/// of them `--quick` takes.
struct Experiment {
    name: &'static str,
    axis: &'static str,
    program: &'static str,
    sizes: &'static [usize],
    quick: usize,
}

const EXPERIMENTS: [Experiment; 3] = [
    Experiment {
        name: "heap",
        axis: "objects",
        program: HEAP,
        sizes: &[10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000],
        quick: 3,
    },
    Experiment {
        name: "depth",
        axis: "frames of one stack",
        program: DEPTH,
        sizes: &[1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000],
        quick: 3,
    },
    Experiment {
        name: "goroutines",
        axis: "goroutines",
        program: GOROUTINES,
        sizes: &[100, 300, 1_000, 3_000, 10_000, 30_000, 100_000],
        quick: 3,
    },
];

/// The medians of a program's forced cycles, in nanoseconds: the whole cycle, the longest that the
/// world or one goroutine stood still.
fn measure(program: &str, size: usize, directory: &Path) -> Result<(f64, f64), Box<dyn Error>> {
    let (file, stats) = (directory.join("cycle.go"), directory.join("cycle.json"));
    std::fs::write(&file, program.replace("SIZE", &size.to_string()))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
    // Only what the program asks for.
    let out = command.args(["--gc-percent", "-1", "--stats"]).arg(&stats).arg(&file).output()?;
    if !out.status.success() {
        return Err(format!(
            "size {size}: {}\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        )
        .into());
    }
    let statistics: Value = serde_json::from_slice(&std::fs::read(&stats)?)?;
    let cycles = statistics["cycles_detail"].as_array().ok_or("no cycles")?;
    let median = |of: &dyn Fn(&Value) -> f64| {
        let mut values: Vec<f64> = cycles.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let nanos = |cycle: &Value, key: &str| cycle[key].as_f64().unwrap_or(f64::NAN);
    let whole = median(&|cycle| nanos(cycle, "mark_ns"));
    Ok((whole, median(&|cycle| nanos(cycle, "world_stop_ns").max(nanos(cycle, "longest_hold_ns")))))
}

fn main() -> Result<(), Box<dyn Error>> {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let directory: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plots");
    std::fs::create_dir_all(&directory)?;
    let mut figures = Vec::new();
    for experiment in &EXPERIMENTS {
        let sizes =
            &experiment.sizes[..if quick { experiment.quick } else { experiment.sizes.len() }];
        println!("{:>12} {:>14} {:>14}", experiment.axis, "cycle", "longest stop");
        let (mut whole, mut stop) = (Vec::new(), Vec::new());
        for size in sizes {
            let (cycle, longest) = measure(experiment.program, *size, &directory)?;
            println!("{size:>12} {:>11.3} ms {:>11.3} ms", cycle / 1e6, longest / 1e6);
            whole.push((*size as f64, cycle / 1e6));
            stop.push((*size as f64, longest / 1e6));
        }
        let name = experiment.name;
        for (what, points) in [("cycle", &whole), ("stop", &stop)] {
            let last = points.last().expect("a point");
            figures.push(format!("figure {what}_{name}_{} {:.3} ms", last.0, last.1));
            figures
                .push(format!("figure {what}_{name}_exponent {:.3} slope", exponent(&points[1..])));
        }
        let file = directory.join(format!("cycle_{name}.svg"));
        let curves = vec![
            Curve { name: "whole cycle", points: whole },
            Curve { name: "longest stop", points: stop },
        ];
        let plot =
            Plot { title: "One cycle", below: experiment.axis, left: "milliseconds", curves };
        plot::write(&file, &[plot])?;
        println!("wrote {}\n", file.display());
    }
    drop(machine);
    figures.iter().for_each(|figure| println!("{figure}"));
    Ok(())
}
