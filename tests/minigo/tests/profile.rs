//! A profiler may interrupt a program anywhere: every sample runs to the oldest frame of its goroutine or of its thread. Stress
//! programs are sampled for as long as `PROFILE_SECONDS` says, 5 if it is not set.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size, minigo};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

struct Profile {
    text: String,
}

/// What a profiler is to interrupt, and how many samples have met it.
#[derive(Default, Debug)]
struct Places {
    samples: u64,
    stub: u64,
    /// What all stubs do on the goroutine's stack.
    barrier_common: u64,
    /// The function that handles a hit, and what it calls.
    hit: u64,
    /// Moving a stack.
    moving: u64,
    /// The assembly that changes from one stack to another.
    switch: u64,
}

impl Places {
    fn add(&mut self, profile: &Profile) {
        self.samples += profile.count("samples");
        self.stub += profile.count("in_stubs");
        for (own, with_callees, name) in profile.functions() {
            match name {
                "barrier_common" => self.barrier_common += own,
                "__morestack"
                | "stackmark_call_system"
                | "stackmark_callback"
                | "stackmark_run"
                | "stackmark_leave" => {
                    self.switch += own;
                }
                "stackmark_stack::poll::on_hit" => self.hit += with_callees,
                _ if name.starts_with("stackmark_stack::moving::") => self.moving += with_callees,
                _ => {}
            }
        }
    }
}

impl Profile {
    /// How often each function was the youngest, and on the stack, and its name.
    fn functions(&self) -> impl Iterator<Item = (u64, u64, &str)> {
        let table = self.text.lines().skip_while(|line| !line.ends_with("  function")).skip(1);
        table.map(|line| {
            let mut words = line.trim_start().splitn(2, ' ');
            let own = words.next().and_then(|own| own.parse().ok()).unwrap_or_else(|| panic!("{line}"));
            let (with_callees, name) = words.next().and_then(|rest| rest.trim_start().split_once("  ")).expect(line);
            (own, with_callees.parse().expect(line), name)
        })
    }

    fn count(&self, name: &str) -> u64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }
}

/// Runs a program with a profile, and checks what holds for all of them.
fn profiled(name: &str, options: &[&str], size: Size) -> Profile {
    profiled_program(name, &Program::new(name), options, size)
}

fn profiled_program(name: &str, program: &Program, options: &[&str], size: Size) -> Profile {
    let test = format!("profile_{name}{}", options.concat().replace([',', '-'], "_"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
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

/// Programs, whether they have C code, and options that make them stand in every odd place.
const STRESS: [(&str, bool, &[&str]); 20] = [
    ("deep_recursion", false, &["--stress", "barrier-every-frame,verify"]),
    ("f128", false, &["--threads", "4", "--stress", "move-every-poll,poison,barrier-every-frame"]),
    ("callbacks", true, &["--stress", ALL_STRESS]),
    ("panics_move", false, &["--threads", "2", "--stress", ALL_STRESS]),
    ("binary_trees", false, &["--threads", "4", "--stress", "move-every-poll,poison,barrier-every-frame"]),
    ("callback_gc", true, &["--threads", "2", "--stress", "barrier-every-frame,move-every-poll,poison"]),
    ("collections", false, &["--threads", "2", "--stress", ALL_STRESS]),
    ("panic_across_callback", true, &["--threads", "2", "--stress", ALL_STRESS]),
    ("deep_goroutines", false, &["--threads", "2", "--stress", "barrier-every-frame,scan-few-frames"]),
    ("threads_call_in", true, &["--threads", "4", "--stress", ALL_STRESS]),
    ("prime_sieve", false, &["--threads", "2", "--stress", ALL_STRESS]),
    ("callback_stack_copied_under_call", true, &["--stress", ALL_STRESS]),
    ("closures", false, &["--threads", "4", "--stress", "move-every-poll,poison,barrier-every-frame"]),
    ("return_after_grow_from_go", true, &["--stress", "move-every-poll,barrier-every-frame,collect-every-poll"]),
    ("linked_list", false, &["--threads", "2", "--stress", ALL_STRESS]),
    ("libcall_survives_callback", true, &["--threads", "2", "--stress", ALL_STRESS]),
    ("defers", false, &["--threads", "2", "--stress", ALL_STRESS]),
    ("c_calls", true, &["--stress", ALL_STRESS]),
    ("goroutines", false, &["--threads", "2", "--stress", ALL_STRESS]),
    ("select", false, &["--threads", "4", "--stress", "collect-every-poll,scan-few-frames,poison"]),
];

#[test]
fn of_stress_programs_one_after_the_other() {
    let seconds = std::env::var("PROFILE_SECONDS").ok().and_then(|value| value.parse().ok()).unwrap_or(5);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut places = Places::default();
    for (name, with_c, options) in STRESS.into_iter().cycle() {
        let program = if with_c { Program::with_c(name) } else { Program::new(name) };
        places.add(&profiled_program(name, &program, options, Size::Stress));
        if Instant::now() > end {
            break;
        }
    }
    println!("{places:?}");
    if seconds >= 60 {
        let Places { samples, stub, barrier_common, hit, moving, switch } = places;
        let met = [samples / 10_000, stub + barrier_common, hit, moving, switch];
        assert!(met.iter().all(|&count| count > 0), "{seconds} seconds have not met every place: {places:?}");
    }
}
