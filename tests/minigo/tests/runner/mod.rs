//! Runs the minigo command over a Go program, within limits, and looks at what it did.
#![allow(dead_code, unused_macros, reason = "each file of tests uses its part of the runner")]

use limits::Limits;
use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

/// Every item of `--stress`, together.
pub(crate) const ALL_STRESS: &str =
    "collect-every-poll,barrier-every-frame,move-every-poll,poison,verify,scan-few-frames";

/// Each item of `--stress`, and all, with a collection at every poll and everything walked again
/// after each.
pub(crate) const VERIFIED: [&str; 6] = [
    "collect-every-poll,verify",
    "collect-every-poll,verify,barrier-every-frame",
    "collect-every-poll,verify,move-every-poll",
    "collect-every-poll,verify,poison",
    "collect-every-poll,verify,scan-few-frames",
    ALL_STRESS,
];

/// More output than this is a program gone wild; its pipe is closed then.
const OUTPUT_LIMIT: u64 = 64 << 20;

/// Calls the macro `$tests` with the names of all programs that run to their end.
macro_rules! for_each_program {
    ($tests:ident) => {
        $tests! {
            arrays, backtrace, bad_formats, batches, binary_trees, blanks, channels, closures,
            collections, constants, control, crowd, deep_goroutines, deep_recursion, deferred_nil,
            defers, descents, evaluation, f128, float32s, floats, formats, formats_more, globals,
            goroutines, interfaces, ints, large_frames, linked_list, lists_kept, mandelbrot, maps,
            method_values, methods, multiple_results, nqueens, panics_move, parked_goroutines,
            ping_pong, pointers, prime_sieve, printing, recoveries, recursive_types,
            runtime_errors, select, shifts, sizes, slice_in_loop, slices, stack_arrays,
            stack_shrinks, strings, structs,
        }
    };
}

/// Calls the macro `$tests` with the names of all programs with C code that run to their end.
macro_rules! for_each_c_program {
    ($tests:ident) => {
        $tests! {
            c_calls, callback_gc, callback_stack_copied_under_call, callbacks,
            libcall_survives_callback, panic_across_callback, return_after_grow,
            return_after_grow_from_go, threads_call_in,
        }
    };
}

/// The directory of the Go programs.
pub(crate) fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs")
}

/// The names of the programs with C code, sorted.
pub(crate) fn names_with_c() -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(programs().join("c"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The names of the Go programs in a directory, without `.go`, sorted.
pub(crate) fn names_in(directory: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut names: Vec<String> = entries
        .filter_map(|entry| {
            Some(entry.unwrap().file_name().to_str()?.strip_suffix(".go")?.to_owned())
        })
        .collect();
    names.sort();
    names
}

/// What a run of minigo left behind.
pub(crate) struct Outcome {
    pub(crate) command: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// Asserts the exit status and the exact standard output.
    #[track_caller]
    pub(crate) fn expect(&self, status: i32, stdout: &str) -> &Self {
        self.expect_status(status);
        if self.stdout != stdout {
            let line = self
                .stdout
                .lines()
                .zip(stdout.lines())
                .take_while(|(ours, wanted)| ours == wanted)
                .count();
            panic!(
                "{}\nstandard output differs from line {} on:\n\
                 \x20 here:    {:?}\n  real Go: {:?}\n{}",
                self.command,
                line + 1,
                self.stdout.lines().nth(line),
                stdout.lines().nth(line),
                self.stderr_tail(),
            );
        }
        self
    }

    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn expect_status(&self, status: i32) -> &Self {
        assert!(
            self.status.code() == Some(status),
            "{}\nended with {}, not with status {status}\n{}",
            self.command,
            self.status,
            self.stderr_tail(),
        );
        self
    }

    /// Asserts that standard error contains a text.
    #[track_caller]
    pub(crate) fn expect_stderr(&self, wanted: &str) -> &Self {
        assert!(
            self.stderr.contains(wanted),
            "{}\nstandard error lacks {wanted:?}\n{}",
            self.command,
            self.stderr_tail(),
        );
        self
    }

    fn stderr_tail(&self) -> String {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let mut text = String::from("standard error:\n");
        for line in &lines[..lines.len().min(10)] {
            writeln!(text, "  {line}").unwrap();
        }
        if lines.len() > 30 {
            writeln!(text, "  ... {} lines ...", lines.len() - 30).unwrap();
        }
        for line in &lines[lines.len().min(10).max(lines.len().saturating_sub(20))..] {
            writeln!(text, "  {line}").unwrap();
        }
        text
    }
}

/// The options that a program with these gets besides under an emulator, where address space is
/// dear. A heap that reserves much takes a third of an empty program's time. And of native stacks
/// each takes the most that one may have.
pub(crate) fn emulated_options(options: &[&str]) -> Vec<&'static str> {
    let mut more = Vec::new();
    if limits::is_emulated() {
        if !options.contains(&"--heap-limit") {
            more.extend(["--heap-limit", "268435456"]);
        }
        if options.contains(&"--native-stacks") && !options.contains(&"--max-stack") {
            more.extend(["--max-stack", "8388608"]);
        }
    }
    more
}

/// Runs `minigo OPTIONS FILE`.
pub(crate) fn minigo(options: &[&str], file: &Path) -> Outcome {
    let mut command = command();
    command.args(emulated_options(options)).args(options).arg(file);
    run(command)
}

/// The minigo command. Under an emulator it gets the C compiler for what is emulated.
pub(crate) fn command() -> Command {
    let mut command = limits::program(env!("CARGO_BIN_EXE_minigo"));
    if let Ok(prefix) = std::env::var("STACKMARK_TEST_TOOLS") {
        command.env("CC", format!("{prefix}gcc"));
    }
    command
}

/// Runs a command to its end. If it loops or hangs, kills it and fails.
pub(crate) fn run(mut command: Command) -> Outcome {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{shown}: {e}"));
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let ended = limits::wait(&mut child, Limits::default());
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let status = ended.unwrap_or_else(|exceeded| {
        let printed = stdout.len();
        panic!("{shown}\n{exceeded}; it printed {printed} bytes, and to standard error:\n{stderr}")
    });
    Outcome { command: shown, status, stdout, stderr }
}

fn collect(pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.take(OUTPUT_LIMIT).read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Which of its two sizes a program runs with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// As the file says.
    Full,
    /// The number after `// stress:`, small enough for a collection at every poll.
    Stress,
}

/// A Go program of the collection.
pub(crate) struct Program {
    name: String,
    /// Where it lies, with what belongs to it.
    directory: PathBuf,
}

impl Program {
    pub(crate) fn new(name: &str) -> Program {
        Program { name: name.to_owned(), directory: programs() }
    }

    /// One with C code: it has a directory of its own.
    pub(crate) fn with_c(name: &str) -> Program {
        Program { name: name.to_owned(), directory: programs().join("c").join(name) }
    }

    /// The file to run. With the stress size that is a copy with the one line changed.
    pub(crate) fn file(&self, size: Size) -> PathBuf {
        let original = self.directory.join(format!("{}.go", self.name));
        if size == Size::Full {
            return original;
        }
        // A directory for each process and thread, since tests with the same program run side by
        // side.
        let own = format!("stress-{}-{:?}", std::process::id(), thread::current().id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(own.replace(['(', ')'], "-"));
        fs::create_dir_all(&directory).unwrap();
        let copy = directory.join(format!("{}.go", self.name));
        fs::write(&copy, self.stress_source(&original)).unwrap();
        if self.directory == programs() {
            return copy;
        }
        // With its C files, and without those of the program before.
        let own = directory.join(&self.name);
        fs::create_dir_all(&own).unwrap();
        for entry in fs::read_dir(&self.directory).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|e| e == "c") {
                fs::copy(&file, own.join(file.file_name().unwrap())).unwrap();
            }
        }
        let moved = own.join(copy.file_name().unwrap());
        fs::rename(copy, &moved).unwrap();
        moved
    }

    /// The source with the number after `// stress:` in the place of the size.
    fn stress_source(&self, original: &Path) -> String {
        let source =
            fs::read_to_string(original).unwrap_or_else(|e| panic!("{}: {e}", original.display()));
        let mut substituted = 0;
        let lines: Vec<String> = source
            .lines()
            .map(|line| {
                match line
                    .strip_prefix("const size = ")
                    .and_then(|rest| rest.split_once(" // stress: "))
                {
                    Some((_, small)) => {
                        substituted += 1;
                        format!("const size = {small}")
                    }
                    None => line.to_owned(),
                }
            })
            .collect();
        assert_eq!(
            substituted,
            1,
            "{}: one line must be 'const size = N // stress: M'",
            original.display()
        );
        lines.join("\n") + "\n"
    }

    /// The number in the line that says the size.
    pub(crate) fn full_size(&self) -> u64 {
        let source = fs::read_to_string(self.file(Size::Full)).unwrap();
        let line = source.lines().find_map(|line| line.strip_prefix("const size = ")).unwrap();
        line.split(' ').next().unwrap().parse().unwrap()
    }

    /// What real Go prints.
    pub(crate) fn expected(&self, size: Size) -> String {
        let suffix = if size == Size::Full { "out" } else { "stress.out" };
        let file = self.directory.join(format!("{}.{suffix}", self.name));
        fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
    }

    /// Runs the program and asserts that it prints what real Go prints.
    #[track_caller]
    pub(crate) fn check(&self, options: &[&str], size: Size) -> Outcome {
        let outcome = minigo(options, &self.file(size));
        outcome.expect(0, &self.expected(size));
        outcome
    }

    /// As `check`, and returns the statistics that the run wrote as JSON.
    #[track_caller]
    pub(crate) fn statistics(&self, options: &[&str], size: Size) -> serde_json::Value {
        let own =
            format!("stats-{}-{}-{:?}.json", self.name, std::process::id(), thread::current().id());
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(own.replace(['(', ')'], "-"));
        let mut with_stats = vec!["--stats", file.to_str().unwrap()];
        with_stats.extend(options);
        let outcome = self.check(&with_stats, size);
        let text = fs::read_to_string(&file)
            .unwrap_or_else(|e| panic!("{}\nwrote no statistics: {e}", outcome.command));
        serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{}\nstatistics are not JSON: {e}\n{text}", outcome.command))
    }
}

/// A number in statistics, named by the path to it: `number(&stats, "stacks.moved_bytes")`.
#[track_caller]
pub(crate) fn number(statistics: &serde_json::Value, path: &str) -> u64 {
    let value = path.split('.').fold(statistics, |value, key| &value[key]);
    value.as_u64().unwrap_or_else(|| panic!("statistics have no number {path}: {value}"))
}
