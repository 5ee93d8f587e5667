//! Programs compiled by LLVM, with statepoints, on a goroutine with a fixed stack. Each is
//! registered as an image, by one call. They are collected at every safepoint, or all the time
//! while they run. Every mark is verified.

// LLVM has statepoints for processors of 64 bits alone.
#![cfg(target_pointer_width = "64")]
// It builds shared objects with LLVM's tools, which wine does not run.
#![cfg(not(windows))]

#[path = "llvm/images.rs"]
mod images;
#[path = "llvm/moving.rs"]
mod moving;
#[path = "../../unwind/tests/support/llvm.rs"]
mod support;
#[path = "llvm/world.rs"]
mod world;

use std::sync::atomic::Ordering;

use images::{HAS_BARRIERS, PLAIN, WITH_FRAME_POINTERS};
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
    let Some(statistics) =
        run("every-poll", PLAIN, BarrierMode::Incremental, When::EveryPoll, SMALL)
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
    assert_eq!(statistics.barriers.placed > 0, HAS_BARRIERS, "{:?}", statistics.barriers);
}

#[test]
fn is_collected_at_every_safepoint_with_a_barrier_in_every_frame() {
    let mode = BarrierMode::EveryFrame;
    let Some(statistics) = run("every-frame", PLAIN, mode, When::EveryPoll, SMALL) else { return };
    check(&statistics, SMALL);
    assert!(statistics.barriers.hit > 2000, "{:?}", statistics.barriers);
}

#[test]
fn is_collected_while_it_runs_with_frame_pointers() {
    let size = Size { trees: 40, height: 9, depth: 5000 };
    let mode = BarrierMode::EveryFrame;
    let Some(statistics) = run("running", WITH_FRAME_POINTERS, mode, When::AllTheTime, size) else {
        return;
    };
    check(&statistics, size);
    assert!(SHADED.load(Ordering::Relaxed) > 0, "stores are reported while marking runs");
    assert!(statistics.barriers.hit > 0, "{:?}", statistics.barriers);
}

/// A safepoint says where a return address is only if it is beside a frame pointer. On other
/// processors it lies right below the CFA.
#[test]
#[cfg(target_arch = "aarch64")]
fn code_without_frame_pointers_is_refused_by_name() {
    use stackmark::unwind::Code;
    let program = include_str!("llvm/program.ll").replace("REF", "i64 addrspace(1)*");
    let Some(library) = support::load("without", &program, &[]) else { return };
    let registered = Code::new().register_image(library.address("entry"), None);
    let error = registered.expect_err("no frame pointers");
    assert!(format!("{error:?}").contains("why: ReturnAddress"), "{error:?}");
}
