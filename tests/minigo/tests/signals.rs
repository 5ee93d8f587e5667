//! Signals every millisecond, in every thread, do not disturb goroutines on stacks smaller than a
//! signal frame.
// There are no signals.
#![cfg(not(windows))]

#[macro_use]
mod runner;

use runner::{Program, Size, run};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The library that sends and handles the signals, compiled for one test.
fn library(test: &str) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/signals/every_millisecond.c");
    let library =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("every_millisecond_{test}.so"));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(&source);
    run(cc).expect_status(0);
    library
}

fn check(name: &str, options: &[&str], size: Size) {
    if limits::is_skipped_under_emulation("the emulator would load the library for itself") {
        return;
    }
    let test = format!("{name}{}", options.concat().replace([',', '-'], "_"));
    let counts = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("signals_{test}"));
    let _ = fs::remove_file(&counts);
    let program = Program::new(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
    command.args(options).arg(program.file(size));
    command.env("LD_PRELOAD", library(&test)).env("SIGNALS_COUNTED_IN", &counts);
    let outcome = run(command);
    outcome.expect(0, &program.expected(size));
    let count = u64::from_le_bytes(fs::read(&counts).unwrap()[..8].try_into().unwrap());
    assert!(count > 0, "{}\nno signal was handled", outcome.command);
}

#[test]
fn on_a_chain_of_goroutines() {
    check("prime_sieve", &[], Size::Full);
}

#[test]
fn on_four_threads() {
    check("prime_sieve", &["--threads", "4"], Size::Full);
}

#[test]
fn while_stacks_grow() {
    check("f128", &["--threads", "4"], Size::Full);
}

#[test]
fn while_stacks_move_at_every_poll() {
    check("f128", &["--stress", "move-every-poll,poison,barrier-every-frame"], Size::Stress);
}

#[test]
fn while_a_graph_changes_under_the_collector() {
    check("collections", &["--threads", "2"], Size::Full);
}
