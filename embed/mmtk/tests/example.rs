//! The programs of the example's language, on each plan of MMTk's.

#[path = "../example/compile.rs"]
mod compile;
#[path = "../example/natives.rs"]
mod natives;
#[path = "../example/run.rs"]
mod run;
#[path = "../example/syntax.rs"]
mod syntax;
#[path = "../example/types.rs"]
mod types;
mod vm;

use run::PROGRAMS;
use stackmark_mmtk::stack::unwind::Code;
use vm::plans::{PLANS, Plan, in_a_process, of_this_process, runs};

/// At least so many collections, and the bytes from one to the next.
const COLLECTIONS: usize = 100;
const STRESS_FACTOR: usize = 200_000;

/// Programs whose stacks are too deep to be moved at every poll.
const DEEP: [&str; 4] = ["list", "closures", "sort", "deep"];

fn child(plan: &Plan, stress: bool) {
    let run = plan.run(STRESS_FACTOR, stress);
    let programs: Vec<_> = PROGRAMS
        .iter()
        .filter(|program| !stress || !DEEP.contains(&program.name))
        .copied()
        .collect();
    run::run(&run, &programs, 1, |program, _| {
        let printed = run::printed();
        if program.name == "weak" && plan.name != "NoGC" {
            assert!(printed[0] < 200, "no weak reference is cleared");
        }
    });
    let shown = vm::shown();
    println!("{}: {} programs, {shown}", plan.name, programs.len());
    let fewest = if stress || plan.name == "ConcurrentImmix" { 20 } else { COLLECTIONS };
    plan.check(&shown, fewest);
}

#[test]
fn each_program_returns_what_it_says_on_each_plan() {
    if let Some((plan, stress)) = of_this_process() {
        return child(plan, stress);
    }
    let test = "each_program_returns_what_it_says_on_each_plan";
    for plan in &PLANS {
        for _ in 0..runs() {
            println!("{}", in_a_process(test, plan, false));
            // That takes long: where each plan is run several times, or never.
            if runs() > 1 {
                println!("{}, stacks moved at every poll", in_a_process(test, plan, true));
            }
        }
    }
}

#[test]
fn what_is_wrong_with_a_program_is_said() {
    for (text, says) in [
        ("(fn main () int (+ 1 nil))", "line 1: a number is missing"),
        ("(fn main () int\n (get node value nil))", "line 2: no such cell"),
        ("(fn main () int (main 1))", "line 1: main takes 0"),
        ("(fn main () int (", "line 1: a parenthesis is not closed"),
        ("(fn main () ref 1)", "line 1: the function returns another kind"),
        ("(fn other () int 1)", "line 0: there is no (fn main () ...)"),
    ] {
        let wrong = compile::compile(text, &Code::new()).expect_err(text);
        assert_eq!(wrong.to_string(), says);
    }
}
