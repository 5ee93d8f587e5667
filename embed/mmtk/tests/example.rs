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

/// At least so many collections of each program, and the bytes from one to the next.
const COLLECTIONS: usize = 100;
const STRESS_FACTOR: usize = 50_000;
/// Under stress there are so many times fewer bytes: a program that moves its stacks all the time
/// is slow, so it is run less often.
const FEWER: usize = 10;

fn child(plan: &Plan, stress: bool) {
    let run = plan.run(STRESS_FACTOR / if stress { FEWER } else { 1 }, stress);
    let collections = if plan.name == "NoGC" { 0 } else { COLLECTIONS };
    let (mut times, mut fewest) = (0, usize::MAX);
    run::run(&run, PROGRAMS, collections, |program, ran| {
        let printed = run::printed();
        if program.name == "weak" && plan.name != "NoGC" {
            assert!(printed.iter().any(|alive| *alive < 200), "no weak reference is cleared");
        }
        let run::Ran { result, times: again, collections, moved } = ran;
        println!(
            "  {}: {result}; {again} runs, {collections} collections, {moved} objects moved",
            program.name
        );
        times += again;
        fewest = fewest.min(collections);
    });
    let shown = vm::shown();
    let count = PROGRAMS.len();
    println!(
        "{}: {count} programs, {times} runs, at least {fewest} collections of each; {shown}",
        plan.name
    );
    plan.check(&shown, COLLECTIONS * count);
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
            println!("{}, stacks moved at every poll", in_a_process(test, plan, true));
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
