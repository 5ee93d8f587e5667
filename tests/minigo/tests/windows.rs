//! What is otherwise on Windows. What minigo has on other systems only is refused with one line
//! that says so, and a fault ends a program with Go's line for this system.
// Other systems lack nothing, and have signals.
#![cfg(windows)]

#[macro_use]
mod runner;

use runner::{Outcome, Program, Size, command, minigo, programs, run};
use std::fs;
use std::path::Path;

#[track_caller]
fn one_line(outcome: &Outcome, status: i32, wanted: &str) {
    outcome.expect(status, "").expect_stderr(wanted);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}\n{}", outcome.command, outcome.stderr);
}

#[test]
fn programs_with_c_code_are_refused() {
    for name in ["c_calls", "callback_gc"] {
        let outcome = minigo(&[], &Program::with_c(name).file(Size::Full));
        one_line(&outcome, 1, ": C code is not supported on Windows\n");
        let source = fs::read_to_string(Program::with_c(name).file(Size::Full)).unwrap();
        let line = source.lines().position(|line| line == "import \"C\"").unwrap() + 1;
        outcome.expect_stderr(&format!("{name}.go:{line}: "));
    }
}

#[test]
fn executables_are_refused() {
    let mut build = command();
    build.arg("build").arg(programs().join("ints.go"));
    one_line(&run(build), 2, "minigo: executables are not built on Windows\n");
}

#[test]
fn profiles_are_refused() {
    let outcome = minigo(&["--profile", "profile"], &programs().join("ints.go"));
    one_line(&outcome, 2, "minigo: profiles are not supported on Windows\n");
}

/// The handler runs on the goroutine's stack. That has grown here: 2 KiB are not enough.
#[test]
fn a_fault_ends_the_program_with_a_line() {
    let source = "package main\n\nimport \"unsafe\"\n\n\
                  func grow(n int) int {\n\tif n == 0 {\n\t\treturn 0\n\t}\n\
                  \treturn grow(n-1) + 1\n}\n\n\
                  func main() {\n\tprintln(grow(10000))\n\
                  \tp := (*int)(unsafe.Pointer(uintptr(0x5000)))\n\tprintln(*p)\n}\n";
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wild.go");
    fs::write(&file, source).unwrap();
    let outcome = minigo(&[], &file);
    outcome.expect(2, "").expect_stderr("10000\nException 0xc0000005 0x0 0x5000 0x");
}
