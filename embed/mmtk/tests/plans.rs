//! Each plan of MMTk's under goroutines whose every frame looks at its object and its parent's slot
//! on its way back.

mod vm;

use vm::Run;
use vm::code::Work;
use vm::plans::{PLANS, Plan, in_a_process, of_this_process, runs};

/// At least so many collections, and the bytes from one to the next.
const COLLECTIONS: usize = 100;
const STRESS_FACTOR: usize = 150_000;
/// Under stress there are so many times fewer objects.
const FEWER: usize = 10;

fn child(plan: &Plan, stress: bool) {
    let fewer = if stress { FEWER } else { 1 };
    let run = Run {
        depth: if stress { 100 } else { 2000 },
        goroutines: 4,
        work: Work { at_bottom: 300_000 / fewer, on_return: 2000 / fewer, every: 64, wiggle: 50 },
        ..plan.run(STRESS_FACTOR / fewer, stress)
    };
    let collections = if plan.name == "NoGC" { 0 } else { COLLECTIONS };
    let shown = vm::run(&run, collections);
    println!("{}: {shown}", plan.name);
    plan.check(&shown, collections);
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
