//! A profiler may interrupt a program anywhere: every sample runs to the oldest frame of its
//! goroutine or of its thread. Stress programs are sampled for as long as `PROFILE_SECONDS` says, 5
//! if it is not set.
// There are no signals, by which threads are sampled.
#![cfg(not(windows))]

#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size, minigo, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
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
    /// And on the system stack.
    barrier_on_system: u64,
    /// The function that handles a hit, and what it calls.
    hit: u64,
    /// Moving a stack.
    moving: u64,
    /// The assembly that changes from one stack to another.
    switch: u64,
}

/// How the names of the assembly that changes stacks begin.
const SWITCHES: [&str; 5] = [
    "stackmark_call_system",
    "stackmark_system_call",
    "stackmark_callback",
    "stackmark_run",
    "stackmark_leave",
];

impl Places {
    fn add(&mut self, profile: &Profile) {
        self.samples += profile.count("samples");
        self.stub += profile.count("in_stubs");
        for (own, with_callees, name) in profile.functions() {
            // The symbols of functions of Rust begin with their room and end in a hash. A function
            // may move to another room.
            match name {
                "barrier_common" => self.barrier_common += own,
                // Two names of one place.
                "barrier_on_system" | "stackmark_callback_end" => self.barrier_on_system += own,
                "__morestack" => self.switch += own,
                _ if SWITCHES.iter().any(|switch| name.starts_with(switch)) => self.switch += own,
                _ if name.contains("::on_hit::") => self.hit += with_callees,
                _ if name.contains("::moving::") => self.moving += with_callees,
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
            let own =
                words.next().and_then(|own| own.parse().ok()).unwrap_or_else(|| panic!("{line}"));
            let (with_callees, name) =
                words.next().and_then(|rest| rest.trim_start().split_once("  ")).expect(line);
            (own, with_callees.parse().expect(line), name)
        })
    }

    /// Broken samples of libgcc's own functions. While one of them installs a context, its frame
    /// and that of its caller are half gone: no unwinder comes out of it. The youngest function may
    /// be one without a symbol, which has the name of another, but its caller has its own.
    fn broken_in_libgcc(&self) -> u64 {
        let broken = self.text.lines().filter_map(|line| line.strip_prefix("broken: "));
        let is_its =
            |name: &str| ["[libgcc_s", "_Unwind_", "uw_"].iter().any(|its| name.starts_with(its));
        broken.filter(|names| names.split(" < ").take(2).any(is_its)).count() as u64
    }

    fn count(&self, name: &str) -> u64 {
        let line = self.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|count| count.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in\n{}", self.text))
    }
}

/// Runs a program with a profile, and checks what holds for all of them.
fn profiled(name: &str, options: &[&str], size: Size) -> Profile {
    let program = Program::new(name);
    profiled_file(name, &program.file(size), &program.expected(size), options)
}

fn profiled_file(name: &str, source: &Path, expected: &str, options: &[&str]) -> Profile {
    let test = format!("profile_{name}{}", options.concat().replace([',', '-'], "_"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    let options = [&["--profile", file.to_str().unwrap()], options].concat();
    minigo(&options, source).expect(0, expected);
    let profile = Profile { text: fs::read_to_string(&file).unwrap() };
    let own_stacks = options.contains(&"--native-stacks");
    let excused = if own_stacks { profile.broken_in_libgcc() } else { 0 };
    for (wrong, excused) in [("broken", excused), ("lost", 0)] {
        assert_eq!(profile.count(wrong), excused, "{options:?}\n{}", profile.text);
    }
    assert!(!profile.text.contains("barrier_pool"), "a stub is no function:\n{}", profile.text);
    let ends: u64 = ["goroutine", "thread", "cut"].iter().map(|end| profile.count(end)).sum();
    assert_eq!(ends + excused, profile.count("samples"));
    assert!(!own_stacks || profile.count("goroutine") == 0, "every thread has one stack");
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
        profiled(
            name,
            &["--threads", "4", "--stress", "move-every-poll,poison,barrier-every-frame"],
            Size::Stress,
        );
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

/// A program of so many recursions, so deep, and what it prints.
fn returns(name: &str, rounds: usize, depth: usize) -> (PathBuf, String) {
    let source = include_str!("returns.go.in");
    let source = source.replace("ROUNDS", &rounds.to_string()).replace("DEPTH", &depth.to_string());
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, source).unwrap();
    (file, format!("{}\n", rounds * depth * (depth + 1) / 2))
}

/// By chance it is met there once in thousands of samples; gdb sends the signals where they are
/// wanted.
#[test]
fn of_a_thread_in_a_stub_and_in_what_all_stubs_do() {
    if limits::is_skipped_under_emulation("gdb sees the emulator") {
        return;
    }
    if Command::new("gdb").arg("--version").output().is_err() {
        eprintln!("skipped: gdb is not installed");
        return;
    }
    let (program, expected) = returns("stubs.go", 5, 300);
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("profile_in_a_stub");
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx"]);
    for line in [
        "set confirm off",
        "set pagination off",
        "set debuginfod enabled off",
        "set language c",
        "handle SIGPROF nostop noprint pass",
        "tbreak *(char *)&barrier_common",
        "run",
        "set language c",
        // The word on the stack is the return address of the stub's call. The stub will be used
        // again.
        "set $stub = *(long *)$rsp - 5",
        "tbreak *$stub",
        "continue",
        "tbreak *(char *)&barrier_common",
        "signal SIGPROF",
        "tbreak *(char *)&barrier_common + 24",
        "signal SIGPROF",
        "tbreak *(char *)&barrier_on_system",
        "signal SIGPROF",
        "signal SIGPROF",
    ] {
        command.args(["-ex", line]);
    }
    command
        .arg("--args")
        .args([env!("CARGO_BIN_EXE_minigo"), "--threads", "1", "--profile"])
        .arg(&file);
    command.args(EVERY_FRAME).arg(&program);
    let outcome = run(command);
    let shown = format!("{}\n{}\n{}", outcome.command, outcome.stdout, outcome.stderr);
    assert!(
        outcome.stdout.contains(&expected)
            && outcome.stdout.matches("Temporary breakpoint").count() >= 5,
        "{shown}"
    );
    let profile = Profile { text: fs::read_to_string(&file).unwrap() };
    assert_eq!((profile.count("broken"), profile.count("lost")), (0, 0), "{}", profile.text);
    let mut places = Places::default();
    places.add(&profile);
    assert!(
        places.stub >= 1 && places.barrier_common >= 2 && places.barrier_on_system >= 1,
        "{places:?}\n{shown}"
    );
}

/// What is sampled in turn.
enum Subject {
    /// A program of the collection.
    Go(&'static str, Size),
    /// One with C code.
    C(&'static str, Size),
    /// So many recursions, so deep.
    Returns { rounds: usize, depth: usize },
}

impl Subject {
    fn profile(&self, options: &[&str]) -> Profile {
        let (name, program, size) = match *self {
            Subject::Go(name, size) => (name, Program::new(name), size),
            Subject::C(name, size) => (name, Program::with_c(name), size),
            Subject::Returns { rounds, depth } => {
                let (file, expected) = returns("returns.go", rounds, depth);
                return profiled_file("returns", &file, &expected, options);
            }
        };
        profiled_file(name, &program.file(size), &program.expected(size), options)
    }
}

const EVERY_FRAME: &[&str] = &["--stress", "barrier-every-frame"];
const MOVES: &[&str] =
    &["--threads", "4", "--stress", "move-every-poll,poison,barrier-every-frame"];
const ALL: &[&str] = &["--threads", "2", "--stress", ALL_STRESS];

/// Programs, and options that make them stand in every odd place.
const STRESS: [(Subject, &[&str]); 22] = [
    (Subject::Returns { rounds: 500, depth: 3000 }, EVERY_FRAME),
    (Subject::Returns { rounds: 500, depth: 200 }, MOVES),
    (Subject::C("callbacks", Size::Full), EVERY_FRAME),
    (
        Subject::Go("prime_sieve", Size::Full),
        &["--threads", "2", "--stress", "scan-few-frames,poison"],
    ),
    (Subject::Go("f128", Size::Stress), MOVES),
    (Subject::C("callback_gc", Size::Stress), MOVES),
    (Subject::Go("panics_move", Size::Stress), ALL),
    (Subject::Returns { rounds: 500, depth: 3000 }, &["--stress", "barrier-every-frame,verify"]),
    (Subject::C("callbacks", Size::Stress), ALL),
    (
        Subject::Go("deep_goroutines", Size::Full),
        &["--threads", "2", "--stress", "barrier-every-frame"],
    ),
    (Subject::Go("collections", Size::Stress), ALL),
    (Subject::C("panic_across_callback", Size::Stress), ALL),
    (Subject::Returns { rounds: 500, depth: 3000 }, &["--stress", "scan-few-frames"]),
    (Subject::C("threads_call_in", Size::Stress), ALL),
    (Subject::Go("channels", Size::Full), EVERY_FRAME),
    (Subject::C("callback_stack_copied_under_call", Size::Stress), ALL),
    (Subject::Go("closures", Size::Full), MOVES),
    (Subject::C("return_after_grow_from_go", Size::Stress), ALL),
    (Subject::Go("defers", Size::Stress), ALL),
    (Subject::C("libcall_survives_callback", Size::Stress), ALL),
    (Subject::C("c_calls", Size::Full), &["--stress", "move-every-poll,poison"]),
    (Subject::Go("goroutines", Size::Stress), ALL),
];

/// Programs on threads' own stacks: managed frames return through barriers and are left by panics,
/// with C frames between and without.
const ON_THREADS: [(Subject, &str); 9] = [
    (Subject::Returns { rounds: 500, depth: 3000 }, "barrier-every-frame"),
    (Subject::C("panic_across_callback", Size::Stress), "barrier-every-frame"),
    (Subject::Go("panics_move", Size::Full), "barrier-every-frame"),
    (Subject::C("callbacks", Size::Full), "barrier-every-frame"),
    (Subject::Go("defers", Size::Stress), ALL_STRESS),
    (Subject::Returns { rounds: 500, depth: 3000 }, "scan-few-frames,verify"),
    (Subject::Go("channels", Size::Full), "barrier-every-frame"),
    (Subject::C("threads_call_in", Size::Stress), ALL_STRESS),
    (Subject::Go("goroutines", Size::Full), "barrier-every-frame,poison"),
];

/// How long programs are sampled.
fn seconds() -> u64 {
    std::env::var("PROFILE_SECONDS").ok().and_then(|value| value.parse().ok()).unwrap_or(5)
}

#[test]
fn of_stress_programs_on_threads_own_stacks() {
    let end = Instant::now() + Duration::from_secs(seconds());
    let mut places = Places::default();
    for (subject, list) in ON_THREADS.iter().cycle() {
        places.add(&subject.profile(&["--native-stacks", "--stress", list]));
        if Instant::now() > end {
            break;
        }
    }
    println!("{places:?}");
}

#[test]
fn of_stress_programs_one_after_the_other() {
    let seconds = seconds();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut places = Places::default();
    for (subject, options) in STRESS.iter().cycle() {
        places.add(&subject.profile(options));
        if Instant::now() > end {
            break;
        }
    }
    println!("{places:?}");
    if seconds >= 60 {
        let Places { samples, stub, barrier_common, barrier_on_system, hit, moving, switch } =
            places;
        // A stub is one instruction.
        let met = [samples / 1000, stub + barrier_common, barrier_on_system, hit, moving, switch];
        assert!(
            met.iter().all(|&count| count > 0),
            "{seconds} seconds have not met every place: {places:?}"
        );
    }
}
