//! Programs in C and C++ on the installed libraries.

#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::process::Command;
use support::{compiled, ran};

fn holds(program: &str, shared: bool) {
    let Some(compiled) = compiled(program, shared) else { return };
    let output = ran(&mut Command::new(compiled));
    let name = program.split('.').next().expect("a name");
    assert_eq!(output, format!("{name}: all checks hold\n"));
}

#[test]
fn calls_and_roots_by_the_shared_library() {
    holds("calls.c", true);
}

#[test]
fn calls_and_roots_by_the_static_library() {
    holds("calls.c", false);
}

#[test]
fn exceptions_cross_foreign_calls_and_callbacks_by_the_shared_library() {
    holds("exceptions.cc", true);
}

#[test]
fn exceptions_cross_foreign_calls_and_callbacks_by_the_static_library() {
    holds("exceptions.cc", false);
}

#[test]
fn a_scheduler_of_its_own_by_the_shared_library() {
    holds("scheduling.c", true);
}

#[test]
fn a_heap_of_functions_is_marked_in_batches() {
    holds("own_heap.c", true);
}

#[test]
fn misuse_gives_a_code() {
    let Some(program) = compiled("misuse.c", true) else { return };
    let output = ran(Command::new(program).arg("codes"));
    let count: usize = output.trim().trim_end_matches(" codes").parse().expect("a number");
    assert!(count > 50, "{output}");
}

#[test]
fn misuse_ends_the_process_with_one_line() {
    let Some(program) = compiled("misuse.c", true) else { return };
    let list = ran(Command::new(&program).arg("list"));
    let list: Vec<(&str, &str)> =
        list.lines().map(|line| line.split_once('\t').expect("a name and a text")).collect();
    assert!(list.len() > 20, "{list:?}");
    for (misuse, says) in list {
        let output = Command::new(&program).arg(misuse).output().expect("the program");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{misuse}: {error}");
        assert_eq!(error.lines().count(), 1, "{misuse}: {error}");
        assert!(error.starts_with("stackmark: the process ends: "), "{misuse}: {error}");
        assert!(error.contains(says), "{misuse}: {error}");
        assert!(output.stdout.is_empty(), "{misuse}");
    }
}

#[test]
fn ends_that_are_asked_for_say_so() {
    let Some(program) = compiled("misuse.c", true) else { return };
    for (end, line) in
        [("die", "panic: no more\n\ngoroutine 0 [idle]:\n"), ("overflow", "stackmark: ")]
    {
        let output = Command::new(&program).arg(end).output().expect("the program");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{end}: {error}");
        assert!(error.starts_with(line), "{end}: {error}");
        assert!(output.stdout.is_empty(), "{end}");
    }
}
