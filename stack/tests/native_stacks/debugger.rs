//! What gdb shows of goroutines on threads' own stacks, by the script in `tools/gdb`.

use crate::*;
use std::path::Path;
use std::process::Command;

const LEVELS: usize = 1000;

/// gdb stops here.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn native_stacks_stop_here() -> usize {
    std::hint::black_box(1)
}

#[inline(never)]
fn alternates(setting: &Setting, stack: Stack, level: usize) -> usize {
    setting.call(stack, 1, &|| match level {
        LEVELS => {
            // Once without barriers, once with one in every frame.
            let before = native_stacks_stop_here();
            caller().foreign(|| setting.scan());
            before * native_stacks_stop_here()
        }
        _ if level.is_multiple_of(2) && stack == Stack::Threads => {
            alternates(setting, stack, level + 1)
        }
        _ => caller().foreign(|| alternates(setting, stack, level + 1)),
    })
}

fn alternates_on(stack: Stack) {
    let setting = Setting::new(configs()[1].clone());
    setting.on(stack, || {
        let result = alternates(&setting, stack, 1);
        assert_eq!(result, LEVELS * rec_adds(1) + 1);
    });
    setting.check_at_end();
}

#[test]
fn what_gdb_looks_at_alternates() {
    alternates_on(Stack::Threads);
}

#[test]
fn what_gdb_looks_at_alternates_over_two_stacks() {
    alternates_on(Stack::Goroutines);
}

#[test]
#[cfg_attr(any(stackmark_asan, stackmark_tsan), ignore = "gdb shows the same without a sanitizer")]
fn gdb_shows_managed_and_native_frames_in_their_order() {
    if limits::is_skipped_under_emulation("gdb sees the emulator") {
        return;
    }
    gdb_shows("debugger::what_gdb_looks_at_alternates");
    gdb_shows("debugger::what_gdb_looks_at_alternates_over_two_stacks");
}

/// What gdb shows where that test stops.
fn gdb_shows(test: &str) {
    if cfg!(target_pointer_width = "32") {
        println!("skipped: the script for gdb reads words of 64 bits");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tools/gdb/stackmark.py");
    let mut command = Command::new("gdb");
    command.args(["-nx", "-batch", "-ex", "set debuginfod enabled off", "-x"]).arg(script);
    for each in [
        "set breakpoint pending on",
        "break native_stacks_stop_here",
        "run",
        "info goroutines",
        "goroutine 1 bt",
        "continue",
        "echo with barriers\\n",
        "goroutine 1 bt",
        "kill",
    ] {
        command.args(["-ex", each]);
    }
    command.arg("--args").arg(std::env::current_exe().expect("a path"));
    command.args(["--exact", test]);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("skipped: gdb: {error}");
            return;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let shown = || format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let listed = text.lines().find(|line| line.starts_with("1 "));
    assert!(listed.is_some_and(|line| line.contains("running")), "{}", shown());
    let (before, behind) = text.split_once("with barriers\n").expect("it stops twice");
    let stack = |text| -> Vec<&str> { str::lines(text).filter_map(frame).collect() };
    let (before, stack) = (stack(before), stack(behind));
    assert!(from_managed(&before) == from_managed(&stack), "not as without: {}", shown());
    let count = |name: &str| stack.iter().filter(|line| line.contains(name)).count();
    assert_eq!(count(" in back"), LEVELS, "{}", shown());
    assert_eq!(count(" in rec"), 2 * LEVELS, "{}", shown());
    assert!(count("alternates") >= LEVELS, "{}", shown());
    for hidden in ["barrier_pool", "stackmark_enter_managed", "stackmark_call_native", "cut off"] {
        assert!(!stack.iter().any(|line| line.contains(hidden)), "{hidden}: {}", shown());
    }
}

/// The frames from the youngest managed one on. The native function that stops is called from two
/// places.
fn from_managed<'s>(stack: &'s [&'s str]) -> &'s [&'s str] {
    let first = stack.iter().position(|frame| frame.ends_with(" in rec"));
    &stack[first.expect("a managed frame")..]
}

/// A frame's pc and function, of the line `#1   0x4f1c60 in back at FILE:LINE`.
fn frame(line: &str) -> Option<&str> {
    let frame = line.strip_prefix('#')?.split_once(' ')?.1.trim_start();
    Some(frame.split_once(" at ").map_or(frame, |(frame, _)| frame))
}
