//! All goroutines with whole stacks, by name and line: in gdb, by `tools/gdb/stackmark.py`, of the
//! live program and of its core file, and in the core file by `inspect`.
// No gdb debugs a process of wine's, and core files are of Linux.
#![cfg(not(windows))]

mod debugger;
#[macro_use]
mod runner;

use debugger::{gdb, is_missing_with_python};
use inspect::{Core, Process};
use object::ReadCache;
use runner::{Outcome, run};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program's innermost call ends in.
const BREAKPOINT: &str = "minigo::runtime::goroutine::num_goroutine";

fn script() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tools/gdb/stackmark.py");
    format!("source {}", file.display())
}

/// Commands that bring the program to where its goroutines are compared.
fn settle() -> String {
    format!("source {}", program().with_file_name("settle.py").display())
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/debuggers/program.go")
}

/// A stack as a tool has printed it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stack {
    /// Without the thread.
    state: String,
    /// Whether it is on a thread.
    on_thread: bool,
    /// Names, with file and line where they are known, youngest first.
    frames: Vec<String>,
}

impl Stack {
    /// The frames of the program's functions, in Go and in C. What lies between two of them in
    /// minigo is left out.
    fn own(&self) -> Vec<&str> {
        let own = |frame: &&str| {
            let name = frame.split(' ').next().unwrap_or_default();
            let between = [".value", ".export"].iter().any(|end| name.ends_with(end));
            name.starts_with("main.") && !between || ["waitInC", "callBack"].contains(&name)
        };
        self.frames.iter().map(String::as_str).filter(own).collect()
    }
}

/// The stacks in what a tool has printed, by the goroutine's number.
fn stacks(text: &str) -> BTreeMap<u64, Stack> {
    let mut stacks = BTreeMap::new();
    let mut number = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("goroutine ").and_then(|l| l.strip_suffix("]:")) {
            let (id, state) = rest.split_once(" [").unwrap_or_else(|| panic!("{line}"));
            let (state, thread) = state.split_once(", ").unwrap_or((state, ""));
            let id: u64 = id.parse().unwrap_or_else(|_| panic!("{line}"));
            let (state, on_thread) = (state.to_owned(), thread.contains("LWP"));
            assert!(stacks.insert(id, Stack { state, on_thread, frames: vec![] }).is_none());
            number = Some(id);
        } else if let Some(stack) = number.and_then(|id| stacks.get_mut(&id))
            && line.starts_with('#')
        {
            let (_, frame) = line.split_once(" in ").unwrap_or_else(|| panic!("{line}"));
            for hidden in ["barrier_pool", "__morestack", "goroutine_entry", "??"] {
                assert!(!frame.starts_with(hidden), "{hidden} is shown: {text}");
            }
            stack.frames.push(frame.to_owned());
        }
        assert!(!line.contains("cut off"), "{text}");
    }
    stacks
}

/// `NAME at FILE:LINE`, with the line of the program that has this text.
fn at(name: &str, file: &str, text: &str) -> String {
    let path = program().with_file_name(file);
    let source = std::fs::read_to_string(&path).expect("the program");
    let line = source.lines().position(|line| line.trim() == text);
    let line = line.unwrap_or_else(|| panic!("{file} has no line {text:?}")) + 1;
    format!("{name} at {}:{line}", path.display())
}

/// What must be seen: the goroutines by what they have begun with; state, whether on a thread, and
/// own frames.
fn expected() -> Vec<(&'static str, bool, Vec<String>)> {
    let go = |name, text| at(name, "program.go", text);
    let descend = |n: usize| {
        let mut frames = vec![go("main.descend", "return <-never + l.n")];
        frames.extend(vec![go("main.descend", "return descend(n-1, &list{l, n}) + l.n"); n]);
        frames
    };
    let running = [
        vec![go("main.stop", "return runtime.NumGoroutine()")],
        vec![go("main.stop", "return stop(n-1) + 1"); 3],
        vec![go("main.main", "stop(3)")],
    ];
    let parked = [descend(20), vec![go("main.parked", "descend(depth, &list{nil, 0})")]];
    let called_back = [
        descend(3),
        vec![
            go("main.goWait", "descend(3, &list{nil, 0})"),
            "callBack".into(),
            go("main.calledBack", "C.callBack()"),
        ],
    ];
    let foreign = vec!["waitInC".into(), go("main.foreign", "C.waitInC()")];
    vec![
        ("running", true, running.concat()),
        ("parked", false, parked.concat()),
        ("parked in a callback", true, called_back.concat()),
        ("foreign", true, foreign),
        ("runnable", false, vec![]),
    ]
}

/// Asserts that a tool has shown exactly the goroutines that there are, whole.
#[track_caller]
fn check(text: &str) {
    let stacks = stacks(text);
    // C code is compiled without debugging information, or with.
    let own = |stack: &Stack| -> Vec<String> {
        let short = |frame: &str| match frame.split_once(' ') {
            Some((name, _)) if !name.starts_with("main.") => name.to_owned(),
            _ => frame.to_owned(),
        };
        stack.own().into_iter().map(short).collect()
    };
    let mut found: Vec<_> = stacks
        .values()
        .map(|stack| (stack.state.replace(" in a callback", ""), stack.on_thread, own(stack)))
        .collect();
    let mut wanted: Vec<_> = expected()
        .into_iter()
        .map(|(state, on, own)| (state.replace(" in a callback", ""), on, own))
        .collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted, "{text}");
}

/// A file of the tests that no other test writes.
fn file(name: &str) -> PathBuf {
    let own = format!("debuggers-{name}-{}", std::process::id());
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(own)
}

/// gdb on the core file.
fn gdb_of_core(core: &Path, commands: &[&str]) -> Outcome {
    let mut command = Command::new("gdb");
    command.args(["-batch", "-nx"]);
    let settings = [
        "set pagination off",
        "set width 0",
        "set debuginfod enabled off",
        "set print demangle off",
    ];
    for line in settings {
        command.args(["-ex", line]);
    }
    command.arg(env!("CARGO_BIN_EXE_minigo")).arg(core);
    for line in commands {
        command.args(["-ex", line]);
    }
    run(command)
}

/// All three ways, with these options for minigo.
fn compare(name: &str, options: &[&str]) {
    let cores = "the emulator writes no core files, and gdb cannot ask it for one";
    if limits::is_skipped_under_emulation(cores) || is_missing_with_python() {
        return;
    }
    let (script, settle, core) = (script(), settle(), file(name));
    let breakpoint = format!("break {BREAKPOINT}");
    let generate = format!("generate-core-file {}", core.display());
    let mut command = gdb(&[
        &breakpoint,
        "$RUN",
        &script,
        &settle,
        "info goroutines",
        "goroutine all bt",
        &generate,
        "kill",
    ]);
    // The C code's own file lives as long as the process.
    let library = file(&format!("{name}.so"));
    command.args(["--threads", "1", "--c-library"]).arg(&library).args(options).arg(program());
    let live = run(command);
    assert!(live.stdout.contains("Breakpoint 1,"), "{}\n{}", live.stdout, live.stderr);
    check(&live.stdout);
    for text in ["main.stop at ", "waitInC", "at its beginning"] {
        assert!(live.stdout.contains(text), "info goroutines lacks {text}: {}", live.stdout);
    }

    let dead = gdb_of_core(&core, &[&script, "info goroutines", "goroutine all bt"]);
    check(&dead.stdout);

    let cache = ReadCache::new(File::open(&core).expect("the core file"));
    std::fs::remove_file(&core).expect("the core file");
    let inspected = Core::parse(&cache).and_then(|core| Process::new(core, None));
    let inspected = inspected.unwrap_or_else(|error| panic!("{error}"));
    let mut text = inspected.complaints().join("\n") + "\n";
    inspect::report(&inspected, &mut text).unwrap_or_else(|error| panic!("{error}"));
    check(&text);
    std::fs::remove_file(&library).expect("the C code's library");
}

#[test]
fn all_show_all_goroutines() {
    compare("plain", &[]);
}

#[test]
fn barriers_show_as_the_frames_that_they_stand_for() {
    compare("barriers", &["--stress", "barrier-every-frame,move-every-poll,poison"]);
}
