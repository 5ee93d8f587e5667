//! Each system call of a program that uses everything fails once, at one place after another. The
//! program ends right, or with a line and status 2, and never hangs.
//!
//! [`ROWS`] says what each failure does. `FAULTS=whole` tries up to 36 places of each call; by
//! default two are tried, which `FAULTS_SEED` chooses.
// Its table has the system calls of x86-64.
#![cfg(target_arch = "x86_64")]
// The calls are Linux's, and so is what makes them fail.
#![cfg(not(windows))]

#[path = "faults/compiler.rs"]
mod compiler;
#[path = "faults/injector.rs"]
mod injector;
#[path = "faults/rows.rs"]
mod rows;
mod runner;

use injector::{Answer, Asked, Call, Ended};
use limits::Limits;
use rows::{ROWS, Row};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// A run takes a second; a busy machine takes longer.
const LIMITS: Limits = Limits { cpu: Duration::from_secs(60), standstill: Duration::from_secs(20) };

fn run(asked: Asked<'_>, answer: impl FnMut(Call, u64) -> Answer + Send) -> Ended {
    let file = runner::programs().join("os/everything/everything.go");
    let mut command = Command::new(env!("CARGO_BIN_EXE_minigo"));
    command.args(["--threads", "3", "--mark-workers", "2"]).arg(file);
    command.env("PATH", compiler::path());
    command.env("RUST_BACKTRACE", "0");
    injector::run(command, LIMITS, asked, answer)
}

/// What the program prints, and how often it makes which call, when none fails.
fn undisturbed() -> &'static (String, BTreeMap<Call, u64>) {
    static RUN: OnceLock<(String, BTreeMap<Call, u64>)> = OnceLock::new();
    RUN.get_or_init(|| {
        // The first run fills the compiler's cache.
        let _ = run(Asked::These(&[]), |_, _| Answer::GoOn);
        let ended = run(Asked::All, |_, _| Answer::GoOn);
        let status = ended.status.as_ref().ok().and_then(|status| status.code());
        assert_eq!(status, Some(0), "{:?}\n{}", ended.status, ended.stderr);
        assert!(ended.stdout.ends_with("end\n"), "{}", ended.stdout);
        (ended.stdout, ended.made)
    })
}

/// How the program ended after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Right,
    /// A line and status 2; what had been printed is there.
    Line,
    /// A line and status 1, before the program ran: it could not be compiled.
    NotCompiled,
}

/// # Errors
/// What is wrong with how it ended.
fn class(ended: &Ended) -> Result<Class, String> {
    let expected = &undisturbed().0;
    let status = ended.status.as_ref().map_err(|exceeded| format!("it {exceeded}"))?;
    match status.code() {
        Some(0) if ended.stdout == *expected => Ok(Class::Right),
        Some(0) => Err(format!("it prints {:?}", ended.stdout)),
        _ if !expected.starts_with(&ended.stdout) => Err(format!("it prints {:?}", ended.stdout)),
        _ if ended.stderr.trim().is_empty() => Err(format!("{status} without a word")),
        Some(1) if ended.stdout.is_empty() => Ok(Class::NotCompiled),
        Some(2) => Ok(Class::Line),
        _ => Err(format!("{status}: {}", ended.stderr)),
    }
}

/// The places of `count` calls to try.
fn places(count: u64, row: usize) -> Vec<u64> {
    let spread = |parts: u64| (0..parts).map(move |part| part * count / parts);
    if std::env::var("FAULTS").is_ok_and(|how| how == "whole") {
        let mut all: Vec<u64> = (0..count.min(12)).chain(spread(24)).collect();
        all.sort_unstable();
        all.dedup();
        return all;
    }
    let seed: u64 = std::env::var("FAULTS_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let mixed = (seed + row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    vec![mixed % count.max(1), (mixed >> 8) % count.clamp(1, 12)]
}

/// Each failure of a row at each place. Returns what is wrong.
fn try_row(number: usize, row: &Row, count: u64) -> Vec<String> {
    let (mut wrong, mut seen) = (Vec::new(), BTreeMap::<Class, (u32, String)>::new());
    for &failure in row.failures {
        for place in places(count, number) {
            let answer = |call, before| {
                if call == row.call && before == place { failure } else { Answer::GoOn }
            };
            let ended = run(Asked::These(&[row.call]), answer);
            let said = ended.said();
            match class(&ended) {
                Ok(class) if row.after.allows(class == Class::Right) => {
                    seen.entry(class).or_insert((0, said)).0 += 1;
                }
                Ok(class) => wrong.push(format!(
                    "{} {place} {failure:?}: {class:?}, not {:?}: {said}",
                    row.name, row.after
                )),
                Err(error) => wrong.push(format!("{} {place} {failure:?}: {error}", row.name)),
            }
        }
    }
    println!("{:20} {count:6} {seen:?}", row.name);
    wrong
}

#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "a sanitizer makes calls of its own")]
fn the_table_has_each_call_that_the_program_makes() {
    let (_, made) = undisturbed();
    let known = |call: &Call| ROWS.iter().any(|row| row.call == *call);
    let missing: Vec<_> = made.iter().filter(|(call, _)| !known(call)).collect();
    assert!(missing.is_empty(), "calls (number, times) that no row is about: {missing:?}");
    let unseen: Vec<&str> = ROWS
        .iter()
        .filter(|row| !row.sometimes && !made.contains_key(&row.call))
        .map(|row| row.name)
        .collect();
    assert!(unseen.is_empty(), "rows about calls that the program does not make: {unseen:?}");
}

#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "a sanitizer makes calls of its own")]
fn each_call_may_fail() {
    let (_, made) = undisturbed();
    let mut wrong = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        if let Some(&count) = made.get(&row.call) {
            wrong.extend(try_row(number, row, count));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The table's words, for readers of a failed run.
#[test]
fn each_row_says_what_its_failure_does() {
    for row in ROWS {
        assert!(!row.does.is_empty(), "{}", row.name);
        assert_eq!(row.failures.is_empty(), row.does.starts_with("cannot fail"), "{}", row.name);
    }
}
