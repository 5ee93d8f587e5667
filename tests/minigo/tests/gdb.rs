//! A debugger sees through it all: from a native function, across the switch of stacks and barrier
//! stubs, by name through the managed frames to the goroutine's oldest frame.
// No gdb debugs a process of wine's.
#![cfg(not(windows))]

mod debugger;
#[macro_use]
mod runner;

use debugger::{gdb, is_missing};
use runner::{Outcome, Program, Size, run};

/// The function of the runtime that is behind `runtime.NumGoroutine`, which the program calls in
/// its innermost frame only.
const BREAKPOINT: &str = "minigo::runtime::goroutine::num_goroutine";

/// The backtrace in the native function, with the given options for minigo.
fn backtrace(options: &[&str]) -> Outcome {
    let at = format!("break {BREAKPOINT}");
    let mut command = gdb(&[&at, "$RUN", "backtrace -frame-arguments none", "kill"]);
    command.args(options).arg(Program::new("backtrace").file(Size::Full));
    run(command)
}

/// The names of the frames of the innermost backtrace, youngest first.
fn frames(outcome: &Outcome) -> Vec<String> {
    let lines = outcome.stdout.lines().filter(|line| line.starts_with('#'));
    lines
        .map(|line| {
            let rest = line
                .trim_start_matches(['#', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
                .trim_start();
            let name = rest.split_once(" in ").map_or(rest, |(_, name)| name);
            name.split(" (").next().unwrap().to_owned()
        })
        .collect()
}

/// Asserts that the backtrace runs through all frames of the recursion and ends at the oldest
/// frame.
fn check(outcome: &Outcome) -> Vec<String> {
    let frames = frames(outcome);
    let shown = || format!("{}\n{}\n{}", outcome.command, outcome.stdout, outcome.stderr);
    // Where it begins to run an emulated program, gdb may know no function.
    let there = outcome.stdout.find("Breakpoint 1,");
    let there = there.unwrap_or_else(|| panic!("{BREAKPOINT} was not reached: {}", shown()));
    let last = frames.last().unwrap_or_else(|| panic!("no backtrace: {}", shown()));
    assert!(last.contains("goroutine_entry"), "the backtrace ends at {last}: {}", shown());
    let managed = frames.iter().filter(|name| name.contains("main.descend")).count();
    assert_eq!(managed, 21, "frames of main.descend: {}", shown());
    assert!(frames.iter().any(|name| name.contains("main.main.func1")), "{}", shown());
    assert!(
        frames.iter().any(|name| name.contains("__morestack")),
        "the switch of stacks is a frame: {}",
        shown()
    );
    let switch = frames.iter().position(|name| name.contains("__morestack")).unwrap();
    let first_managed = frames.iter().position(|name| name.contains("main.descend")).unwrap();
    assert!(switch < first_managed, "native frames are younger than managed ones: {}", shown());
    for complaint in ["Backtrace stopped", "corrupt", "??"] {
        assert!(!outcome.stdout[there..].contains(complaint), "gdb complains: {}", shown());
    }
    frames
}

#[test]
fn names_every_frame() {
    if is_missing() {
        return;
    }
    check(&backtrace(&[]));
}

#[test]
fn crosses_barrier_stubs() {
    if is_missing() {
        return;
    }
    let outcome = backtrace(&["--stress", "barrier-every-frame"]);
    let stubs = check(&outcome).iter().filter(|name| name.contains("barrier_pool")).count();
    assert!(stubs >= 10, "only {stubs} barrier stubs in the backtrace: {}", outcome.stdout);
}

#[test]
fn crosses_barrier_stubs_after_moves_on_worker_threads() {
    if is_missing() {
        return;
    }
    let outcome =
        backtrace(&["--threads", "4", "--stress", "barrier-every-frame,move-every-poll,poison"]);
    check(&outcome);
}
