//! Nanoseconds a frame of this crate and of other unwinders, over the same stacks in one process.
//!
//! `cargo bench -p stackmark-unwind --bench walk [-- --quick]`. The stacks have one recursive
//! function, or 256 or 4,096 functions in random order, with and without frame pointers. They are
//! 100, 1,000 and 100,000 frames deep. libunwind is left out if it is not installed. The output
//! ends with lines `figure NAME VALUE UNIT`.

mod managed;
mod peers;
mod stacks;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

use stackmark_unwind::{Code, LiveMemory, RegisterSet, RuleCache, Unwinder};

use stacks::{Flavour, Shape};

/// Folds return addresses, so that walks can be compared and none is optimised away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    frames: usize,
    hash: u64,
}

impl Sum {
    #[inline(always)]
    fn add(&mut self, address: usize) {
        self.frames += 1;
        self.hash = self.hash.rotate_left(5) ^ address as u64;
    }
}

/// Follows saved frame pointers.
#[inline(never)]
fn walk_frame_pointers(fp: usize, limit: usize) -> Sum {
    let mut sum = Sum::default();
    let mut fp = fp as *const usize;
    while sum.frames < limit {
        // SAFETY: the stack's frames keep a frame pointer each, and there are `limit` of them.
        unsafe {
            sum.add(*fp.add(1));
            fp = *fp as *const usize;
        }
    }
    sum
}

#[inline(never)]
fn walk_trace<const REGISTERS: bool>(
    code: &Code,
    cache: &mut RuleCache,
    memory: &LiveMemory,
    limit: usize,
) -> Sum {
    let snapshot = code.snapshot();
    let context = RegisterSet::capture();
    let mut sum = Sum::default();
    macro_rules! go {
        ($trace:expr) => {{
            let mut trace = $trace;
            let result = trace.for_each(|frame| {
                sum.add(frame.return_address);
                if sum.frames == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            assert_eq!(result, Ok(Some(())), "after {} frames", sum.frames);
            black_box(trace.register_slot(gimli::X86_64::R12));
            black_box(&trace);
        }};
    }
    if REGISTERS {
        go!(Unwinder::new(&snapshot, cache, memory, (), context));
    } else {
        go!(Unwinder::lean(&snapshot, cache, memory, (), context));
    }
    sum
}

/// Nanoseconds a frame, of `repeat` walks.
fn time(repeat: usize, frames: usize, mut walk: impl FnMut() -> Sum) -> f64 {
    let begun = Instant::now();
    for _ in 0..repeat {
        assert_eq!(black_box(walk()).frames, frames);
    }
    begun.elapsed().as_nanos() as f64 / (repeat * frames) as f64
}

/// Times by walker.
type Times = BTreeMap<&'static str, Vec<f64>>;

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

struct Bench {
    code: Code,
    framehop: peers::Framehop,
    libunwind: Option<peers::Libunwind>,
    quick: bool,
}

impl Bench {
    /// Times all walkers over a stack. Runs in its youngest frame.
    fn measure(&self, memory: &LiveMemory, fp: usize, depth: usize, flavour: Flavour) -> Times {
        let mut times = Times::new();
        let (mut lean, mut full) = (RuleCache::new(), RuleCache::new());
        let mut hop = peers::framehop_cache();
        // Many short rounds: other work of the machine then spoils some rounds, but not the median.
        let rounds = if self.quick { 15 } else { 61 };
        let (fast, slow) = match (depth, self.quick) {
            (..=1000, true) => (20, 1),
            (..=1000, false) => (50, 2),
            _ => (1, 1),
        };
        for round in 0..=rounds {
            let mut note = |name, time| {
                if round > 0 {
                    times.entry(name).or_default().push(time);
                }
            };
            if flavour == Flavour::FramePointers {
                note("frame pointers", time(fast, depth, || walk_frame_pointers(fp, depth)));
            }
            note(
                "trace",
                time(fast, depth, || walk_trace::<false>(&self.code, &mut lean, memory, depth)),
            );
            note(
                "trace, registers",
                time(fast, depth, || walk_trace::<true>(&self.code, &mut full, memory, depth)),
            );
            note("framehop", time(slow, depth, || self.framehop.walk(&mut hop, depth)));
            note("libgcc", time(slow, depth, || peers::walk_libgcc(depth)));
            note("backtrace", time(slow, depth, || peers::walk_backtrace(depth)));
            if let Some(libunwind) = &self.libunwind {
                note("unw_backtrace", time(fast, depth, || libunwind.backtrace(depth)));
                if round <= 3 {
                    note("unw_step", time(1, depth, || libunwind.step(depth)));
                }
            }
            note(
                "first trace",
                time(1, depth, || {
                    walk_trace::<false>(&self.code, &mut RuleCache::new(), memory, depth)
                }),
            );
            note(
                "first framehop",
                time(1, depth, || self.framehop.walk(&mut peers::framehop_cache(), depth)),
            );
        }
        times
    }

    /// Whether the walkers see the same frames.
    fn verify(&self, memory: &LiveMemory, depth: usize) {
        let expected = peers::libgcc_frames(depth);
        let snapshot = self.code.snapshot();
        let mut cache = RuleCache::new();
        let mut trace = Unwinder::new(&snapshot, &mut cache, memory, (), RegisterSet::capture());
        let mut frames = Vec::new();
        while frames.len() < depth
            && let Ok(Some(frame)) = trace.next_frame()
        {
            frames.push(frame.return_address);
        }
        let common = |frames: &[usize]| -> Vec<usize> {
            frames
                .iter()
                .copied()
                .filter(|pc| stacks::functions().contains(pc))
                .take(depth - 50)
                .collect()
        };
        assert!(common(&frames).len() >= depth - 50);
        assert_eq!(common(&frames), common(&expected), "the walkers see different frames");
    }
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let thread = std::thread::Builder::new().stack_size(256 << 20);
    thread.spawn(move || run(quick)).expect("a thread").join().expect("the benchmark");
}

fn run(quick: bool) {
    let machine = quiet::Machine::look();
    let code = Code::new();
    code.refresh_images();
    code.snapshot().read_images().expect("the CFI of this process");
    let bench = Bench {
        code,
        framehop: peers::Framehop::new(),
        libunwind: peers::Libunwind::load(),
        quick,
    };
    let depths: &[usize] = if quick { &[1_000] } else { &[100, 1_000, 100_000] };
    let mut figures: Vec<(String, f64, &str)> = Vec::new();
    for flavour in [Flavour::FramePointers, Flavour::StackPointer] {
        for shape in [Shape::Mono, Shape::Poly(256), Shape::Poly(4096)] {
            for depth in depths.iter().copied() {
                let top = &raw const depth as usize + 64;
                let mut times = Times::new();
                stacks::run(shape, flavour, depth + 16, &mut |fp| {
                    let here = &raw const fp as usize;
                    // SAFETY: this thread's stack, from well below this frame, which is mapped, to
                    // above the oldest frame that is walked.
                    let memory = unsafe { LiveMemory::new(here - 16384..top) };
                    bench.verify(&memory, depth);
                    times = bench.measure(&memory, fp, depth, flavour);
                });
                println!("{} {depth} frames, {}", shape.name(), flavour.name());
                let medians: BTreeMap<&str, f64> =
                    times.iter_mut().map(|(name, times)| (*name, median(times))).collect();
                for (name, time) in &medians {
                    println!("  {name:20} {time:9.2} ns/frame");
                }
                if depth == 1_000 && flavour == Flavour::FramePointers {
                    let ratio = |a: &str, b: &str| medians[a] / medians[b];
                    let name = shape.name();
                    figures.push((
                        format!("walk_{name}_vs_fp"),
                        ratio("trace", "frame pointers"),
                        "x",
                    ));
                    figures.push((
                        format!("walk_{name}_framehop_ratio"),
                        ratio("framehop", "trace"),
                        "x",
                    ));
                    if medians.contains_key("unw_backtrace") {
                        figures.push((
                            format!("walk_{name}_libunwind_ratio"),
                            ratio("unw_backtrace", "trace"),
                            "x",
                        ));
                    }
                    figures.push((format!("walk_{name}_ns"), medians["trace"], "ns"));
                    if shape == Shape::Poly(256) {
                        figures.push((
                            "walk_regs_extra".into(),
                            ratio("trace, registers", "trace") - 1.0,
                            "fraction",
                        ));
                    }
                    if shape == Shape::Poly(4096) {
                        let first = ratio("first trace", "first framehop");
                        figures.push(("walk_first_vs_framehop".into(), first, "x"));
                    }
                }
            }
        }
    }
    for (name, time) in
        ["mono", "poly1024"].into_iter().zip(managed::measure(if quick { 21 } else { 101 }))
    {
        let [frame_by_frame, in_a_row, frame_pointers] = time;
        figures.push((format!("walk_managed_{name}_ns"), frame_by_frame, "ns"));
        figures.push((format!("walk_managed_row_{name}_ns"), in_a_row, "ns"));
        let ratio = in_a_row / frame_pointers;
        figures.push((format!("walk_managed_row_{name}_vs_fp"), ratio, "x"));
    }
    figures.push(("safepoint_bytes".into(), managed::safepoint_bytes(), "B"));
    drop(machine);
    for (name, value, unit) in figures {
        println!("figure {name} {value:.3} {unit}");
    }
}
