//! Programs compiled by LLVM, with statepoints, on a goroutine with a fixed stack. Each is
//! registered as an image, by one call. They are collected at every safepoint, or all the time
//! while they run. Every mark is verified.
// Its programs are compiled for x86-64.
#![cfg(target_arch = "x86_64")]

#[path = "llvm/images.rs"]
mod images;
#[path = "llvm/moving.rs"]
mod moving;
#[path = "../../unwind/tests/support/llvm.rs"]
mod support;
#[path = "llvm/world.rs"]
mod world;

use std::sync::atomic::Ordering;

use stackmark::stack::BarrierMode;
use stackmark::stats::Statistics;
use world::{Run, SHADED, When};

/// How large a run is: the number of trees, their height, the depth of the recursion.
#[derive(Clone, Copy)]
struct Size {
    trees: u64,
    height: u32,
    depth: u64,
}

impl Size {
    /// The number that the program computes.
    fn result(self) -> u64 {
        let tree = (1..=u64::from(self.height)).fold(0, |below, height| 2 * below + height);
        // The recursion sums the first tree and one of height 1 for each frame.
        tree + self.depth + self.trees * tree
    }
}

/// Runs the program; `None` if LLVM is missing.
fn run(
    name: &str,
    options: &[&str],
    barriers: BarrierMode,
    when: When,
    size: Size,
) -> Option<Statistics> {
    let program = include_str!("llvm/program.ll").replace("REF", "i64 addrspace(1)*");
    let library = support::load(name, &program, options)?;
    let mut argument = [size.trees, u64::from(size.height), size.depth, 0];
    let run = Run { library: &library, barriers, when, parked: &|_, _| {} };
    let statistics = run.run(&mut argument);
    assert_eq!(argument[3], size.result());
    Some(statistics)
}

/// Checks what every run must have done.
fn check(statistics: &Statistics, size: Size) {
    let nodes = size.trees * ((1 << size.height) - 1) + size.depth + size.trees * 3;
    assert_eq!(statistics.heap.objects_swept, nodes + 1, "after the program everything is garbage");
    assert!(statistics.cycles > 2, "{} cycles", statistics.cycles);
    let frames = statistics.frames.scanned_stopped + statistics.frames.scanned_running;
    assert!(frames > statistics.cycles, "{frames} frames scanned");
    assert!(statistics.stacks.grown > 0, "the stack grows where it lies");
    assert_eq!(statistics.stacks.moved_bytes, 0, "and does not move");
}

const SMALL: Size = Size { trees: 5, height: 4, depth: 600 };

#[test]
fn is_collected_at_every_safepoint() {
    let Some(statistics) = run("every-poll", &[], BarrierMode::Incremental, When::EveryPoll, SMALL)
    else {
        return;
    };
    check(&statistics, SMALL);
    assert!(statistics.cycles > 2000, "{} cycles", statistics.cycles);
    let deepest = statistics.cycles_detail.iter().map(|cycle| cycle.objects_marked).max();
    assert!(
        deepest > Some(SMALL.depth),
        "at the bottom of the recursion every frame's object is live: {deepest:?}"
    );
    assert!(statistics.barriers.placed > 0, "{:?}", statistics.barriers);
}

#[test]
fn is_collected_at_every_safepoint_with_a_barrier_in_every_frame() {
    let mode = BarrierMode::EveryFrame;
    let Some(statistics) = run("every-frame", &[], mode, When::EveryPoll, SMALL) else { return };
    check(&statistics, SMALL);
    assert!(statistics.barriers.hit > 2000, "{:?}", statistics.barriers);
}

#[test]
fn is_collected_while_it_runs_with_frame_pointers() {
    let size = Size { trees: 40, height: 9, depth: 5000 };
    let mode = BarrierMode::EveryFrame;
    let Some(statistics) = run("running", &["-frame-pointer=all"], mode, When::AllTheTime, size)
    else {
        return;
    };
    check(&statistics, size);
    assert!(SHADED.load(Ordering::Relaxed) > 0, "stores are reported while marking runs");
    assert!(statistics.barriers.hit > 0, "{:?}", statistics.barriers);
}
