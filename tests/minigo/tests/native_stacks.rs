//! Every program prints what real Go prints where each goroutine is a thread, on whose own stack it
//! runs: by default, and while the collector and the barriers do their worst.
#[macro_use]
mod runner;

use runner::{ALL_STRESS, Program, Size, VERIFIED, minigo, number};
use std::path::Path;

/// Programs that have more goroutines at once, in their full size, than a system gives threads:
/// each takes four to six of the 65,530 mappings that Linux gives a process.
const TOO_MANY_THREADS: [(&str, u64); 2] =
    [("deep_goroutines", 20_000), ("parked_goroutines", 100_000)];

/// A program with threads of C's own, whose stacks have 256 KiB. The recursion of its full size
/// does not fit there.
#[cfg(not(windows))]
const SMALL_THREADS: &str = "callback_gc";

fn full_size(name: &str) -> Size {
    match TOO_MANY_THREADS.iter().any(|(program, _)| *program == name) {
        true => Size::Stress,
        false => Size::Full,
    }
}

#[test]
fn the_programs_that_do_not_run_in_their_full_size_have_so_many_goroutines() {
    for (name, goroutines) in TOO_MANY_THREADS {
        assert_eq!(Program::new(name).full_size(), goroutines);
    }
}

/// Programs that recover a panic. Frames of a thread's own stack are not left on Windows.
const RECOVER: [&str; 11] = [
    "blanks",
    "deferred_nil",
    "defers",
    "interfaces",
    "maps",
    "method_values",
    "panics_move",
    "printing",
    "recoveries",
    "runtime_errors",
    "select",
];

/// The program of this name. `None`, said on standard output, if it does not run so on this system.
fn on_threads(name: &str) -> Option<Program> {
    if cfg!(windows) && RECOVER.contains(&name) {
        println!("skipped: {name} leaves frames of a thread's own stack");
        return None;
    }
    Some(Program::new(name))
}

/// Runs a program under each of these stress lists.
fn stressed(program: &Program, lists: &[&str], options: &[&str]) {
    for list in lists {
        let options = [&["--native-stacks", "--stress", list], options].concat();
        program.check(&options, Size::Stress);
    }
}

/// Some of each, alone; the others are in [`VERIFIED`].
const UNVERIFIED: [&str; 3] =
    ["collect-every-poll", "barrier-every-frame", "collect-every-poll,barrier-every-frame"];

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(mod $name {
            use super::*;

            const NAME: &str = stringify!($name);

            #[test]
            fn by_default() {
                let Some(program) = on_threads(NAME) else { return };
                program.check(&["--native-stacks"], full_size(NAME));
            }

            #[test]
            fn with_barriers_for_the_rescan_limit() {
                let Some(program) = on_threads(NAME) else { return };
                let options = ["--native-stacks", "--barriers", "rescan-limit"];
                program.check(&options, Size::Stress);
            }

            #[test]
            fn each_stress_item() {
                let Some(program) = on_threads(NAME) else { return };
                stressed(&program, &UNVERIFIED, &[]);
            }

            #[test]
            fn each_stress_item_verified() {
                let Some(program) = on_threads(NAME) else { return };
                stressed(&program, &VERIFIED, &[]);
            }

            #[test]
            fn all_together_and_minor_with_a_hybrid_write_barrier() {
                let options = ["--generational", "--write-barrier", "hybrid"];
                let Some(program) = on_threads(NAME) else { return };
                stressed(&program, &[ALL_STRESS], &options);
            }
        })*
    };
}

for_each_program!(tests);

// C code is not supported on Windows.
#[cfg(not(windows))]
macro_rules! c_tests {
    ($($name:ident),* $(,)?) => {
        mod with_c {
            use super::*;

            $(#[test]
            fn $name() {
                let program = Program::with_c(stringify!($name));
                if stringify!($name) != SMALL_THREADS {
                    program.check(&["--native-stacks"], Size::Full);
                }
                stressed(&program, &VERIFIED, &[]);
                stressed(&program, &[ALL_STRESS], &["--generational"]);
            })*
        }
    };
}

#[cfg(not(windows))]
for_each_c_program!(c_tests);

// C code is not supported on Windows.
#[cfg(not(windows))]
#[test]
fn programs_with_c_that_fail_end_with_go_s_message() {
    for name in ["callback_panics", "external_thread_panic", "goexit_on_foreign_thread"] {
        let file = Program::with_c(name).file(Size::Full);
        let read = |suffix| std::fs::read_to_string(file.with_extension(suffix)).unwrap();
        let outcome = minigo(&["--native-stacks"], &file);
        outcome.expect(2, &read("out"));
        assert_eq!(outcome.stderr.lines().next(), read("err").lines().next(), "{name}");
    }
}

#[test]
fn stacks_neither_move_nor_grow_and_are_scanned_incrementally() {
    let statistics =
        |program: &str, options: &[&str]| Program::new(program).statistics(options, Size::Full);
    let options = ["--native-stacks", "--gc-percent", "20", "--max-stack", "134217728"];
    let (own, moving) =
        (statistics("deep_recursion", &options), statistics("deep_recursion", &options[1..]));
    assert_eq!(number(&own, "stacks.moved_bytes"), 0);
    assert!(number(&moving, "stacks.moved_bytes") > 0);
    for statistics in [&own, &moving] {
        assert!(number(statistics, "barriers.placed") > 0);
    }
}

#[test]
fn a_trace_goes_on_where_threads_end() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("native_trace.json");
    let options = ["--native-stacks", "--gc-percent", "10", "--trace", file.to_str().unwrap()];
    Program::new("goroutines").check(&options, Size::Full);
    let trace = std::fs::read_to_string(&file).unwrap();
    assert!(trace.contains("\"name\":\"cycle\""), "{trace}");
}

// C code is not supported on Windows.
#[cfg(not(windows))]
#[test]
fn a_recursion_that_a_thread_of_c_has_no_room_for_is_an_overflow_of_the_stack() {
    let file = Program::with_c(SMALL_THREADS).file(Size::Full);
    minigo(&["--native-stacks"], &file)
        .expect_status(2)
        .expect_stderr("runtime: goroutine stack exceeds 262144-byte limit\n")
        .expect_stderr("fatal error: stack overflow\n");
}

// The system gives any stack here.
#[cfg(not(windows))]
#[test]
fn a_goroutine_for_which_there_is_no_thread_ends_the_program_with_a_line() {
    let promises = std::fs::read_to_string("/proc/sys/vm/overcommit_memory");
    if promises.is_ok_and(|mode| mode.trim() == "1") {
        println!("skipped: this system gives any stack");
        return;
    }
    let file = Program::new("channels").file(Size::Stress);
    let stack = (1_u64 << 40).to_string();
    minigo(&["--native-stacks", "--max-stack", &stack], &file)
        .expect(2, "")
        .expect_stderr("minigo: the system gives no thread for goroutine 1: ");
}

#[test]
fn goroutines_that_are_threads_need_no_number_of_threads() {
    let file = Program::new("channels").file(Size::Stress);
    minigo(&["--native-stacks", "--threads", "2"], &file)
        .expect(2, "")
        .expect_stderr("cannot be used with");
}
