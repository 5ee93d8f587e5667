//! Pointers that are derived from references follow their objects, on each plan that moves objects:
//! in whole scans and short ones, and where workers share the chunks of deep stacks.

mod vm;

use vm::Run;
use vm::code::Work;
use vm::plans::{PLANS, Plan, in_a_process, of_this_process};

/// At least so many collections, and the bytes from one to the next.
const COLLECTIONS: usize = 100;
const STRESS_FACTOR: usize = 200_000;

fn child(plan: &Plan) {
    let run = Run {
        depth: 2000,
        goroutines: 2,
        work: Work { at_bottom: 600_000, on_return: 0, every: 1, wiggle: 50 },
        ..plan.run(STRESS_FACTOR, false)
    };
    let shown = vm::derived::run(&run);
    println!("{}: {shown}", plan.name);
    plan.check(&shown, COLLECTIONS);
}

#[test]
fn each_frame_finds_its_object_by_each_of_its_pointers() {
    if let Some((plan, _)) = of_this_process() {
        return child(plan);
    }
    for plan in PLANS.iter().filter(|plan| plan.moves) {
        let test = "each_frame_finds_its_object_by_each_of_its_pointers";
        println!("{}", in_a_process(test, plan, false));
    }
}
