//! gdb at random instants of a program with a barrier in every frame, within stubs and in the
//! function that handles a hit, too: it shows the stack that the program has at the same place
//! without barriers, whole.
// No gdb debugs a process of wine's.
#![cfg(not(windows))]

mod debugger;
#[macro_use]
mod runner;

use debugger::{gdb, is_missing_with_python};
use runner::run;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How often the program calls `leaf` while it is looked at.
const EVENTS: usize = 60;

/// A frame of managed code, as gdb shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    name: String,
    /// Of its pc in it.
    offset: u64,
    /// Of its CFA below the goroutine's oldest frame: it tells frames of a recursion apart, and
    /// does not change when the stack moves.
    depth: u64,
}

/// What gdb has shown at one instant.
#[derive(Clone, Debug)]
struct Walk {
    /// How many calls of `leaf` have begun.
    event: usize,
    /// Whether one is just beginning.
    at_event: bool,
    /// All frames, youngest first: name, offset in it, stack pointer.
    frames: Vec<(String, u64, u64)>,
}

fn is_managed(name: &str) -> bool {
    ["main.", "*main.", "minigo."].iter().any(|package| name.starts_with(package))
}

impl Walk {
    fn parse(line: &str) -> Walk {
        let value: serde_json::Value =
            serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!(value["stopped"], "outermost", "gdb has not come to the oldest frame: {line}");
        let number = |value: &serde_json::Value| value.as_u64().unwrap_or_else(|| panic!("{line}"));
        let frames = value["frames"].as_array().unwrap_or_else(|| panic!("{line}")).iter();
        let frames = frames.map(|frame| {
            (
                frame[0].as_str().unwrap_or_else(|| panic!("{line}")).to_owned(),
                number(&frame[1]),
                number(&frame[2]),
            )
        });
        let at_event = value["at_event"].as_bool().unwrap_or_else(|| panic!("{line}"));
        Walk { event: number(&value["event"]) as usize, at_event, frames: frames.collect() }
    }

    /// Whether the thread is on a goroutine; else it is between two of them, and gdb shows the
    /// frames of the thread.
    fn is_of_goroutine(&self) -> bool {
        let (oldest, ..) = self.frames.last().expect("a frame");
        match oldest.as_str() {
            "goroutine_entry" => true,
            "clone3" | "clone" => false,
            _ => panic!("a stack ends in {oldest}: {self:?}"),
        }
    }

    /// The managed frames, youngest first. Between them there are stubs of barriers and nothing
    /// else.
    fn managed(&self) -> Vec<Frame> {
        let (.., entry) = self.frames.last().expect("a frame");
        let mut managed = Vec::new();
        for (i, (name, offset, _)) in self.frames.iter().enumerate() {
            if is_managed(name) {
                // Where its caller's stack pointer is, is its CFA.
                managed.push(Frame {
                    name: name.clone(),
                    offset: *offset,
                    depth: entry - self.frames[i + 1].2,
                });
            } else if !managed.is_empty() && name != "barrier_pool" && name != "goroutine_entry" {
                panic!("{name} has called managed code: {self:?}");
            }
        }
        managed
    }

    /// Whether the thread is in a barrier: in its stub, in what all stubs do, or in the function
    /// that handles the hit. What is younger than the managed frames is as it must be there, or in
    /// a call out.
    fn in_barrier(&self) -> bool {
        let younger: Vec<&str> = self
            .frames
            .iter()
            .map(|(name, ..)| name.as_str())
            .take_while(|name| !is_managed(name))
            .collect();
        let (in_barrier, younger) = match younger.split_last() {
            Some((&"barrier_pool", younger)) => (true, younger),
            _ => (false, &younger[..]),
        };
        let fits = match younger {
            [] => true,
            ["barrier_common"] => in_barrier,
            ["stackmark_call_system" | "stackmark_run"] => !in_barrier,
            [native @ .., "__morestack"] => native.iter().all(|name| {
                let assembly = ["barrier_pool", "barrier_common", "__morestack", "goroutine_entry"];
                !name.starts_with("No symbol") && !assembly.contains(name)
            }),
            _ => false,
        };
        assert!(fits, "frames that are not there: {self:?}");
        in_barrier
    }
}

/// What gdb shows of the program, with these options for minigo.
fn walks(seed: u64, options: &[&str]) -> Vec<Walk> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gdb_instants");
    let script = format!("source {}", directory.join("walks.py").display());
    let mut command = gdb(&["set backtrace past-main on", &script]);
    // Instructions at most, from one instant to the next. A step takes an emulator a hundredth of a
    // second.
    let leaps = if limits::is_emulated() { "8,20,40,90,150" } else { "8,40,90,400,2000" };
    command.env("EVENTS", EVENTS.to_string()).env("SEED", seed.to_string()).env("LEAPS", leaps);
    command.args(["--threads", "1", "--gc-percent", "-1"]);
    command.args(options).arg(directory.join("program.go"));
    let outcome = run(command);
    let walks: Vec<Walk> = outcome
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("walk "))
        .map(Walk::parse)
        .collect();
    let reached = walks.iter().map(|walk| walk.event).max().unwrap_or(0);
    assert!(
        reached >= EVENTS,
        "{reached} events in {}\n{}\n{}",
        outcome.command,
        outcome.stdout,
        outcome.stderr
    );
    walks
}

/// Whether `found` is the older part of `expected`, from the frame at the same depth on. Unless a
/// return to it is all that comes next, the youngest frame may be anywhere in its function.
fn is_older_part(found: &[Frame], expected: &[Frame], returning: bool) -> bool {
    let Some((youngest, older)) = found.split_first() else { return false };
    let Some(at) = expected.iter().position(|frame| frame.depth == youngest.depth) else {
        return false;
    };
    expected[at].name == youngest.name
        && (!returning || expected[at].offset == youngest.offset)
        && expected[at + 1..] == *older
}

/// Compares a program with barriers, at random instants, with the same program without. Every
/// instant lies between two calls of `leaf`, and every function calls that before it returns: so
/// the stack is the older part of the stack at one of the two calls.
fn compare(seed: u64, options: &[&str]) {
    if is_missing_with_python() {
        return;
    }
    // The last event has no next one.
    let expected: BTreeMap<usize, Vec<Frame>> =
        walks(0, &["--barriers", "off"]).iter().map(|walk| (walk.event, walk.managed())).collect();
    let (mut compared, mut in_barrier, mut stubs, mut places) = (0, 0, 0, BTreeSet::new());
    for walk in
        walks(seed, options).iter().filter(|walk| walk.event < EVENTS && walk.is_of_goroutine())
    {
        let found = walk.managed();
        let (before, after) = (&expected[&walk.event], &expected[&(walk.event + 1)]);
        if walk.at_event {
            assert_eq!(found, *before, "{options:?}, seed {seed}: {walk:?}");
        } else {
            // What a barrier returns to was there before.
            let fits = is_older_part(&found, before, walk.in_barrier())
                || !walk.in_barrier() && is_older_part(&found, after, false);
            assert!(
                fits,
                "{options:?}, seed {seed}:\n{walk:?}\nis neither part of\n{before:?}\n\
                 nor of\n{after:?}"
            );
        }
        compared += 1;
        in_barrier += usize::from(walk.in_barrier());
        stubs += walk.frames.iter().filter(|(name, ..)| name == "barrier_pool").count();
        let (name, offset, _) = &walk.frames[0];
        match name.as_str() {
            "barrier_pool" => _ = places.insert((name.clone(), 0)),
            "barrier_common" | "__morestack" => _ = places.insert((name.clone(), *offset)),
            _ => {}
        }
    }
    let in_assembly = places.len();
    println!(
        "{options:?}, seed {seed}: {compared} instants, {in_barrier} of them in barriers, at \
         {in_assembly} instructions of their assembly; {stubs} stubs seen"
    );
    assert!(compared >= 100 && in_barrier >= 60 && stubs > 1000, "too little was seen");
    // The stub, 22 instructions until the switch of stacks, and at least 40 behind it.
    assert!(in_assembly >= 60, "{places:?}");
}

#[test]
fn barriers_hide_nothing() {
    compare(1, &["--stress", "barrier-every-frame"]);
}

#[test]
fn barriers_in_stacks_that_move_hide_nothing() {
    compare(2, &["--stress", "barrier-every-frame,move-every-poll,poison"]);
}
