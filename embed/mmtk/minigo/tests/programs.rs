//! minigo's programs, with C code and without, print what real Go prints on each plan of MMTk's in
//! which objects stay where they are; other plans are refused, with the reason.

use limits::Limits;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::thread;

/// A plan, its options, the sizes that programs have, and at least how many pauses all programs
/// together have.
struct Way {
    plan: &'static str,
    options: &'static [&'static str],
    small: bool,
    pauses: usize,
}

/// What is left out in its full size, and why.
const LEFT_OUT: &[(&str, &str)] =
    &[("panic_across_callback", "measures memory, which grows up to the heap's limit")];

const OFTEN: &[&str] = &["--collect-every", "20000", "--stress", "move-every-poll,poison,verify"];
const SMALL_HEAP: &[&str] = &["--heap-limit", "134217728", "--stress", "verify"];
const HEAP: &[&str] = &["--heap-limit", "268435456", "--stress", "verify"];

const WAYS: &[Way] = &[
    Way { plan: "NoGC", options: &["--heap-limit", "4294967296"], small: true, pauses: 0 },
    Way { plan: "MarkSweep", options: OFTEN, small: true, pauses: 500 },
    Way { plan: "Immix", options: OFTEN, small: true, pauses: 500 },
    Way { plan: "Immix", options: HEAP, small: false, pauses: 20 },
    Way { plan: "ConcurrentImmix", options: SMALL_HEAP, small: false, pauses: 20 },
];

fn programs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/programs")
}

/// The directories of all programs that run to their ends, and their names, sorted.
fn all() -> Vec<(PathBuf, String)> {
    let names = |directory: &Path| -> Vec<String> {
        let entries = fs::read_dir(directory).expect("the programs");
        entries.map(|entry| entry.expect("one").file_name().into_string().expect("text")).collect()
    };
    let (here, with_c) = (programs(), programs().join("c"));
    let plain = names(&here)
        .into_iter()
        .filter_map(|name| Some((here.clone(), name.strip_suffix(".go")?.to_owned())));
    let c = names(&with_c).into_iter().map(|name| (with_c.join(&name), name));
    let ends = |(directory, name): &(PathBuf, String)| {
        directory.join(format!("{name}.stress.out")).exists()
    };
    let mut all: Vec<_> = plain.chain(c).filter(ends).collect();
    all.sort();
    all
}

/// The file to run. A small one is a copy, with the number behind `// stress:` as its size.
fn file(directory: &Path, name: &str, small: bool) -> PathBuf {
    let original = directory.join(format!("{name}.go"));
    if !small {
        return original;
    }
    let own = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&own).expect("a directory");
    if directory != programs() {
        for entry in fs::read_dir(directory).expect("the program") {
            let file = entry.expect("one").path();
            if file.extension().is_some_and(|extension| extension == "c") {
                fs::copy(&file, own.join(file.file_name().expect("a name"))).expect("a copy");
            }
        }
    }
    let source = fs::read_to_string(&original).expect("the program");
    let lines = source.lines().map(|line| {
        match line.strip_prefix("const size = ").and_then(|line| line.split_once(" // stress: ")) {
            Some((_, small)) => format!("const size = {small}\n"),
            None => format!("{line}\n"),
        }
    });
    let copy = own.join(format!("{name}.go"));
    fs::write(&copy, lines.collect::<String>()).expect("a copy");
    copy
}

/// Runs the command. Returns what it has written to both outputs.
fn run(arguments: &[&str]) -> (ExitStatus, String, String) {
    let mut command = limits::program(env!("CARGO_BIN_EXE_minigo-mmtk"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a process");
    let (out, err) = (child.stdout.take().expect("a pipe"), child.stderr.take().expect("a pipe"));
    let out = thread::spawn(|| std::io::read_to_string(out).expect("text"));
    let err = thread::spawn(|| std::io::read_to_string(err).expect("text"));
    let status = limits::wait(&mut child, Limits::default());
    let (out, err) = (out.join().expect("no panic"), err.join().expect("no panic"));
    let status = status.unwrap_or_else(|limit| panic!("{arguments:?}: {limit}\n{err}"));
    (status, out, err)
}

fn each_program(way: &Way) {
    let (mut count, mut pauses) = (0, 0);
    for (directory, name) in all() {
        if let Some((_, why)) = LEFT_OUT.iter().find(|(left, _)| !way.small && *left == name) {
            println!("{name} is left out: it {why}");
            continue;
        }
        let file = file(&directory, &name, way.small);
        let mut arguments = vec!["--mmtk", way.plan, "--report"];
        arguments.extend(way.options);
        arguments.push(file.to_str().expect("text"));
        let (status, out, err) = run(&arguments);
        let end = if way.small { "stress.out" } else { "out" };
        let wanted = fs::read_to_string(directory.join(format!("{name}.{end}"))).expect("output");
        assert!(status.success() && out == wanted, "{arguments:?}: {status}\n{out}\n{err}");
        let line = err.lines().find_map(|line| line.strip_prefix(way.plan)?.strip_prefix(": "));
        let of_it = line.and_then(|line| line.split(' ').next()?.parse::<usize>().ok());
        pauses += of_it.unwrap_or_else(|| panic!("{arguments:?} reports nothing\n{err}"));
        count += 1;
    }
    println!("{} {}: {count} programs, {pauses} pauses", way.plan, way.options.join(" "));
    assert!(pauses >= way.pauses, "{pauses} pauses");
}

macro_rules! ways {
    ($($name:ident = $index:literal)*) => {
        $(#[test] fn $name() {
            each_program(&WAYS[$index]);
        })*
    };
}

ways! {
    nogc = 0
    mark_sweep = 1
    immix_with_pins = 2
    immix_with_pins_in_full_size = 3
    concurrent_immix_in_full_size = 4
}

#[test]
fn plans_that_move_objects_are_refused_with_the_reason() {
    for (plan, says) in [
        ("SemiSpace", "its objects move, and cannot be pinned"),
        ("GenCopy", "its objects move, and cannot be pinned"),
        ("GenImmix", "its objects move, and cannot be pinned"),
        ("MarkCompact", "its objects move, and cannot be pinned"),
        ("Compressor", "its objects move, and cannot be pinned"),
        ("StickyImmix", "it must hear into which object a reference is stored"),
        ("Immixx", "there is no such plan"),
    ] {
        let (status, _, err) = run(&["--mmtk", plan, "x.go"]);
        assert!(status.code() == Some(2) && err.contains(says), "{plan}: {status}\n{err}");
    }
}

/// Each frame holds an object that nothing else refers to.
const HOLDS: &str = "package main

type node struct {
	next *node
	n    int
}

func build(n int) *node {
	own := &node{nil, n}
	if n > 0 {
		own.next = build(n - 1)
	}
	return own
}

func main() {
	sum := 0
	for i := 0; i < 200; i++ {
		for at := build(100 + i); at != nil; at = at.next {
			sum += at.n
		}
	}
	println(sum)
}
";

#[test]
fn verification_finds_what_kept_slots_lose() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("holds.go");
    fs::write(&file, HOLDS).expect("a program");
    for plan in ["MarkSweep", "Immix"] {
        let file = file.to_str().expect("text");
        let right = ["--mmtk", plan, "--collect-every", "20000", "--stress", "verify", file];
        let (status, _, err) = run(&right);
        assert!(status.success(), "{plan}: {status}\n{err}");
        let (status, _, err) = run(&[&right[..], &["--break-roots"]].concat());
        assert!(!status.success(), "{plan}: nothing is found\n{err}");
        let line = err.lines().find(|line| line.contains("verification: the root "));
        println!("{plan}: {}", line.unwrap_or_else(|| panic!("{plan}: {status}\n{err}")));
    }
}

#[test]
fn a_program_that_needs_more_than_the_heap_ends_with_an_error() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("too_large.go");
    let text = "package main\n\nfunc main() {\n\tvar all [][]int\n\tfor {\n\t\tall = append(all, \
                make([]int, 1000))\n\t}\n}\n";
    fs::write(&file, text).expect("a program");
    for plan in ["NoGC", "MarkSweep", "Immix", "ConcurrentImmix"] {
        let file = file.to_str().expect("text");
        let (status, _, err) = run(&["--mmtk", plan, "--heap-limit", "33554432", file]);
        assert!(
            status.code() == Some(2) && err.contains("out of memory"),
            "{plan}: {status}\n{err}"
        );
    }
}
