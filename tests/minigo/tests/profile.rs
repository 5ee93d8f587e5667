//! A profiler may interrupt a program anywhere: every sample runs to the oldest frame of its goroutine or of its thread.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size, minigo};
use std::fs;
use std::path::Path;

struct Profile {
    text: String,
}

impl Profile {
    fn count(&self, name: &str) -> u64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }
}

/// Runs a program with a profile, and checks what holds for all of them.
fn profiled(name: &str, options: &[&str], size: Size) -> Profile {
    let test = format!("profile_{name}{}", options.concat().replace([',', '-'], "_"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let program = Program::new(name);
    let options = [&["--profile", file.to_str().unwrap()], options].concat();
    minigo(&options, &program.file(size)).expect(0, &program.expected(size));
    let profile = Profile { text: fs::read_to_string(&file).unwrap() };
    for wrong in ["broken", "lost"] {
        assert_eq!(profile.count(wrong), 0, "{options:?}\n{}", profile.text);
    }
    assert!(!profile.text.contains("barrier_pool"), "a stub is no function:\n{}", profile.text);
    let ends: u64 = ["goroutine", "thread", "cut"].iter().map(|end| profile.count(end)).sum();
    assert_eq!(ends, profile.count("samples"));
    println!("{name}: {}", profile.text.split("\n\n").next().unwrap().replace('\n', ", "));
    profile
}

#[test]
fn shows_where_a_program_is() {
    // However little of the processor it gets: at some try it is met.
    let met = |_: &i32| {
        let profile = profiled("parked_goroutines", &[], Size::Full);
        profile.count("goroutine") > 0 && profile.text.lines().any(|line| line.contains("  main."))
    };
    assert!((0..20).any(|i| met(&i)), "no function of the program in 20 profiles");
}

#[test]
fn of_deep_recursions_with_barriers() {
    profiled("deep_recursion", &["--stress", "barrier-every-frame,verify"], Size::Stress);
}

#[test]
fn of_stacks_that_move_at_every_poll() {
    for name in ["f128", "binary_trees", "closures"] {
        profiled(name, &["--threads", "4", "--stress", "move-every-poll,poison,barrier-every-frame"], Size::Stress);
    }
}

#[test]
fn of_programs_under_all_stress() {
    for name in ["collections", "prime_sieve", "linked_list", "goroutines", "strings"] {
        profiled(name, &["--threads", "2", "--stress", ALL_STRESS], Size::Stress);
    }
}

#[test]
fn of_goroutines_that_come_and_go() {
    for name in ["goroutines", "prime_sieve", "parked_goroutines", "channels"] {
        profiled(name, &["--threads", "4"], Size::Full);
    }
}
