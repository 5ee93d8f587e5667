//! Limits of memory: the heap's hard one, the soft one for objects and stacks together, and
//! allocation that waits for marking.
#[macro_use]
mod runner;

use runner::{Program, Size, minigo, number};
use std::fs;
use std::path::{Path, PathBuf};

fn written(name: &str, source: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, source).unwrap();
    file
}

const HOARD: &str = "package main

type node struct {
	next *node
	data [30]int
}

func main() {
	println(\"before\")
	var all *node
	for {
		all = &node{next: all}
	}
}
";

#[test]
fn a_program_that_keeps_more_than_the_heap_holds_ends_with_an_error() {
    let file = written("hoard.go", HOARD);
    for options in
        [&["--heap-limit", "20000000"][..], &["--heap-limit", "20000000", "--gc-percent", "-1"]]
    {
        let outcome = minigo(options, &file);
        outcome.expect_status(2).expect_stderr("out of memory");
        outcome.expect_stderr("bytes wanted").expect_stderr("main.main");
    }
}

#[test]
fn an_array_that_the_heap_cannot_hold_ends_the_program_with_an_error() {
    let file = written(
        "huge.go",
        "package main\n\nfunc main() {\n\tn := 1 << 30\n\tprintln(len(make([]int, n)))\n}\n",
    );
    minigo(&["--heap-limit", "20000000"], &file).expect_status(2).expect_stderr("out of memory");
}

const RECOVERS: &str = "package main

import \"fmt\"

func try(n int) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			fmt.Println(p)
		}
	}()
	large := make([]int, n)
	return len(large) == n
}

func main() {
	fmt.Println(try(1000), try(1<<30), try(1000))
}
";

#[test]
fn out_of_memory_is_a_panic_that_a_program_can_recover() {
    let file = written("recovers.go", RECOVERS);
    let outcome = minigo(&["--heap-limit", "20000000"], &file);
    outcome.expect_status(0);
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(
        lines[0].starts_with("runtime error: out of memory: 8589934592 bytes wanted"),
        "{}",
        outcome.stdout
    );
    assert_eq!(lines[1..], ["true false true"]);
}

/// With collections on request alone, a full heap asks for one.
#[test]
fn a_full_heap_is_collected_before_an_allocation_fails() {
    let statistics = Program::new("binary_trees")
        .statistics(&["--heap-limit", "30000000", "--gc-percent", "-1"], Size::Full);
    assert!(number(&statistics, "cycles") >= 2);
    assert!(number(&statistics, "heap.allocated_bytes") > 60_000_000);
    assert!(number(&statistics, "heap.resident_bytes") < 30_100_000);
}

#[test]
fn near_the_soft_limit_collections_come_more_often() {
    let cycles = |limit: &str| {
        let statistics = Program::new("lists_kept")
            .statistics(&["--gc-percent", "400", "--memory-limit", limit], Size::Full);
        number(&statistics, "cycles")
    };
    let (tight, wide) = (cycles("12000000"), cycles("1000000000"));
    assert!(tight > 2 * wide, "{tight} and {wide}");
}

// There is no limit of a process's address space on Windows.
#[cfg(not(windows))]
#[test]
fn with_too_little_address_space_a_program_works_or_says_what_is_missing() {
    use runner::run;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    // What is missing first: address space for code, for objects, for threads, for stacks; or
    // anything that the program's own parts allocate.
    const MISSING: [&str; 5] = [
        "cannot reserve address space",
        "cannot start a thread for",
        "no memory for a stack of",
        "out of memory",
        // The standard library's words, and what it says of a new thread's signal stack.
        "memory allocation of",
    ];
    const NO_SIGNAL_STACK: &str = "failed to allocate an alternative stack";

    if limits::is_skipped_under_emulation("the emulator needs memory of its own") {
        return;
    }
    let program = Program::new("deep_goroutines");
    let (file, expected) = (program.file(Size::Full), program.expected(Size::Full));
    let (mut worked, mut missed) = (0, [0; MISSING.len()]);
    for mebibytes in (100..1600).step_by(50).chain([2000, 4000]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
        command.args(["--threads", "2"]).arg(&file).env("RUST_BACKTRACE", "0");
        let limit = libc::rlimit { rlim_cur: mebibytes << 20, rlim_max: mebibytes << 20 };
        // SAFETY: between fork and exec one system call is made, which sets limits of the new
        // process.
        unsafe {
            command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &raw const limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let outcome = run(command);
        if outcome.status.success() {
            outcome.expect(0, &expected);
            worked += 1;
            continue;
        }
        let said = MISSING.iter().position(|what| outcome.stderr.contains(what));
        assert!(
            said.is_some() || outcome.stderr.contains(NO_SIGNAL_STACK),
            "with {mebibytes} MiB: {}\n{}",
            outcome.status,
            outcome.stderr
        );
        assert!(
            matches!(outcome.status.signal(), None | Some(libc::SIGABRT)),
            "{}",
            outcome.status
        );
        missed[said.unwrap_or(MISSING.len() - 1)] += 1;
    }
    println!("{worked} worked, {missed:?} missed {MISSING:?}");
    assert!(worked >= 2 && missed.iter().filter(|n| **n > 0).count() >= 2, "{worked}, {missed:?}");
}
