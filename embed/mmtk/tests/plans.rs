//! Each plan of MMTk's under goroutines whose every frame looks at its object and its parent's slot
//! on its way back.

mod vm;

use stackmark_mmtk::Options;
use stackmark_mmtk::stack::{BarrierMode, Config};
use vm::Run;
use vm::code::Work;
use vm::plans::{PLANS, Plan, in_a_process, of_this_process, runs};

/// At least so many collections, and the bytes from one to the next.
const COLLECTIONS: usize = 100;
const STRESS_FACTOR: usize = 150_000;
/// Under stress there are so many times fewer objects.
const FEWER: usize = 10;

fn child(plan: &Plan, stress: bool) {
    let config = Config {
        barriers: BarrierMode::Incremental,
        move_every_poll: stress,
        poison: stress,
        exact_language_words: true,
        ..Config::default()
    };
    // Two pauses for each half of the heap, if the plan marks beside the program.
    let times = if plan.name == "ConcurrentImmix" { 6 } else { 1 };
    let fewer = if stress { FEWER } else { 1 };
    let run = Run {
        plan: plan.name.into(),
        heap: plan.heap(STRESS_FACTOR / fewer),
        config,
        options: Options { verify: true, ..Options::default() },
        depth: if stress { 100 } else { 2000 },
        goroutines: 4,
        threads: 2,
        work: Work {
            at_bottom: times * 300_000 / fewer,
            on_return: 2000 / fewer,
            every: 64,
            wiggle: 50,
        },
    };
    let shown = vm::run(&run);
    println!("{}: {shown}", plan.name);
    if plan.name == "NoGC" {
        return;
    }
    // Two of its pauses come after each half of its heap, which takes long under stress.
    let fewest = if stress && plan.name == "ConcurrentImmix" { 20 } else { COLLECTIONS };
    assert!(shown.collections >= fewest, "{} collections", shown.collections);
    assert_eq!(shown.moved > 0, plan.moves, "{} objects moved", shown.moved);
    assert_eq!(shown.short > 0, plan.short, "{} short collections", shown.short);
}

#[test]
fn each_plan_keeps_what_frames_refer_to() {
    if let Some((plan, stress)) = of_this_process() {
        return child(plan, stress);
    }
    let run = |plan, stress| in_a_process("each_plan_keeps_what_frames_refer_to", plan, stress);
    for plan in &PLANS {
        for _ in 0..runs() {
            println!("{}", run(plan, false));
            println!("{}, stacks moved at every poll", run(plan, true));
        }
    }
}
