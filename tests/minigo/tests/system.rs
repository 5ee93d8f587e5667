//! What the system does to a program after its start: it refuses calls, runs out of mappings, runs
//! handlers, forks. A program ends right, or with one clear line and status 2, and never hangs.
// C code is not supported on Windows.
#![cfg(not(windows))]

#[macro_use]
mod runner;

use runner::{Outcome, minigo, programs};
use std::fs;
use std::path::{Path, PathBuf};

/// A program with C code of the directory for these tests.
fn program(name: &str) -> PathBuf {
    programs().join("os").join(name).join(format!("{name}.go"))
}

/// Runs it.
fn run_program(name: &str, options: &[&str]) -> Outcome {
    minigo(options, &program(name))
}

/// A copy of it in which `from` is replaced.
fn changed(name: &str, from: &str, to: &str) -> PathBuf {
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}_{}", to.len()));
    let copy = copy.join(to.replace(|c: char| !c.is_alphanumeric(), "_"));
    fs::create_dir_all(&copy).unwrap();
    let (go, c) = (format!("{name}.go"), format!("{name}.c"));
    let source = fs::read_to_string(program(name)).unwrap();
    assert!(source.contains(from), "{name} has no {from:?}");
    fs::write(copy.join(&go), source.replace(from, to)).unwrap();
    fs::copy(program(name).with_file_name(&c), copy.join(&c)).unwrap();
    copy.join(go)
}

/// Asserts that standard error is one line with this text.
#[track_caller]
fn one_line(outcome: &Outcome, wanted: &str) {
    outcome.expect_stderr(wanted);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}\n{}", outcome.command, outcome.stderr);
}

#[test]
fn a_sandbox_may_refuse_membarrier_after_the_start() {
    for options in [&[][..], &["--threads", "4"], &["--threads", "1", "--generational"]] {
        run_program("seccomp", options).expect(0, "sandbox 0\nend\n");
    }
}

#[test]
fn a_sandbox_may_say_that_there_is_no_membarrier() {
    let text = fs::read_to_string(program("seccomp").with_file_name("seccomp.c")).unwrap();
    let file = changed("seccomp", "sandbox()", "sandbox( )");
    fs::write(file.with_file_name("seccomp.c"), text.replace("| EPERM", "| ENOSYS")).unwrap();
    minigo(&[], &file).expect(0, "sandbox 0\nend\n");
}

/// Neither membarrier nor a visit to each processor: one line, and what was printed before.
#[test]
fn a_sandbox_that_refuses_every_fence_of_all_threads_gets_one_line() {
    let text = fs::read_to_string(program("seccomp").with_file_name("seccomp.c")).unwrap();
    let file = changed("seccomp", "sandbox()", "sandbox(  )");
    let stricter = text
        .replace("SYS_membarrier, 0, 1", "SYS_membarrier, 1, 0")
        .replace(
            "        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO",
            "        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_sched_setaffinity, 0, 1),\n\
             \x20       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO",
        )
        .replace("p = { 4, f }", "p = { 5, f }");
    assert_ne!(text, stricter);
    fs::write(file.with_file_name("seccomp.c"), stricter).unwrap();
    let outcome = minigo(&[], &file);
    outcome.expect_status(2);
    one_line(&outcome, "membarrier is refused");
}

#[test]
fn a_process_with_all_its_mappings_in_use_ends_right_or_with_one_line() {
    for options in [&[][..], &["--threads", "4"]] {
        let outcome = run_program("maps", options);
        if outcome.status.code() == Some(0) {
            assert!(outcome.stdout.lines().any(|line| line.starts_with("all ended")));
        } else {
            outcome.expect_status(2);
        }
        assert!(outcome.stdout.starts_with("taken "), "{}\n{}", outcome.stdout, outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    }
}

/// The numbers in a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
}

/// Goroutines that were deep once need after some collections at most twice what others need.
#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "a sanitizer has memory of its own")]
fn goroutines_that_were_deep_once_shrink_to_what_the_others_have() {
    let outcome = run_program("shrink", &[]);
    outcome.expect_status(0);
    let after: Vec<(u64, u64)> = outcome
        .stdout
        .lines()
        .filter(|line| line.starts_with("after"))
        .map(|line| (numbers(line)[1], numbers(line)[2]))
        .collect();
    let [shallow, deep, deeper] = after[..] else { panic!("{}", outcome.stdout) };
    for (memory, mappings) in [deep, deeper] {
        assert!(memory <= 2 * shallow.0, "memory: {}", outcome.stdout);
        assert!(mappings <= 2 * shallow.1, "mappings: {}", outcome.stdout);
    }
}

#[test]
fn a_handler_installed_later_without_its_stack_is_found_on_the_way_back() {
    for options in [&[][..], &["--threads", "4"], &["--threads", "1"]] {
        let outcome = run_program("late_handler", options);
        outcome.expect(2, "");
        one_line(&outcome, "a handler of signal 10 has been installed without SA_ONSTACK");
    }
}

#[test]
fn a_handler_installed_later_with_its_stack_does_no_harm() {
    let file = changed("late_handler", "C.install(0)", "C.install(1)");
    minigo(&[], &file).expect(0, "signals true\n");
}

#[test]
fn a_handler_that_another_thread_installs_is_found_by_the_monitor() {
    let outcome = run_program("later_handler", &[]);
    outcome.expect(2, "start 0\n");
    one_line(&outcome, "a handler of signal 12 has been installed without SA_ONSTACK");
}

#[test]
fn the_child_of_a_fork_that_goes_on_ends_with_one_line() {
    for options in [&[][..], &["--threads", "1"]] {
        let outcome = run_program("forks", options);
        outcome.expect(0, "status 512\n");
        one_line(&outcome, "the child of a fork has called into the runtime");
    }
}

/// Forks by the plain system call, calls from a child on a thread with and without a machine; and
/// what a child may do: exec and exit.
#[test]
fn children_of_forks_end_where_they_call_in() {
    let outcome = run_program("forks_raw", &[]);
    outcome.expect(0, "512\n512\n512\n1792\n2048\n");
    let line = "the child of a fork has called into the runtime";
    assert_eq!(outcome.stderr.matches(line).count(), 3, "{}", outcome.stderr);
}

#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "frames are larger then")]
fn native_calls_may_nest_as_deep_as_the_systems_stack_and_no_deeper() {
    for options in [&[][..], &["--threads", "1"]] {
        let outcome = run_program("nest", options);
        outcome.expect(2, "1000\n9000\n");
        one_line(&outcome, "has overflowed its native stack of 8");
    }
}

/// Whatever ends the process, what was printed is there.
#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "a sanitizer reports such faults itself")]
fn what_was_printed_is_there_whatever_ends_the_process() {
    for (how, line) in [
        (0, "SIGABRT: abort"),
        (1, ""),
        (2, ""),
        (3, "SIGSEGV: segmentation violation"),
        (4, "SIGILL: illegal instruction"),
        (5, "SIGFPE: floating-point exception"),
        (6, ""),
        (7, ""),
    ] {
        let file = changed("aborts", "how = 0 ", &format!("how = {how} "));
        let outcome = minigo(&[], &file);
        assert_eq!(outcome.stdout, "printed before\n", "way {how}");
        assert_eq!(outcome.status.code(), if how == 7 { None } else { Some(2) }, "way {how}");
        outcome.expect_stderr(line);
    }
}
