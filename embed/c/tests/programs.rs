//! Programs in C and C++ on the installed libraries.

#[allow(dead_code, reason = "each test uses a part")]
mod support;

use std::path::Path;
use std::process::Command;
use support::{C, compiled, has, here, prefix, ran};

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
fn managed_code_alternates_with_c_on_a_threads_own_stack() {
    holds("native.c", true);
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
fn managed_code_of_the_program_itself_is_registered_by_its_maps() {
    holds("image.c", true);
}

/// What a version of LLVM needs, as its own tool says: a name, and switches. Debian's tools may be
/// there without the headers. The functions that are used are the same in all of them.
fn llvms() -> Vec<(u32, Vec<String>)> {
    let said = |version: u32, what: &str| {
        let mut tool = Command::new(format!("llvm-config-{version}"));
        let output = tool.arg(what).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let has_headers = |directory: &String| Path::new(directory).join("llvm-c/Core.h").exists();
    let versions: Vec<u32> = (13..40).filter(|v| said(*v, "--version").is_some()).collect();
    let headers = versions.iter().filter_map(|v| said(*v, "--includedir")).find(has_headers);
    let switches = |version: u32| {
        let own = said(version, "--includedir").filter(has_headers);
        let mut switches = vec![format!("-I{}", own.or(headers.clone())?)];
        switches.extend(said(version, "--libdir").map(|directory| format!("-L{directory}")));
        switches.push(format!("-lLLVM-{version}"));
        if version < 15 {
            switches.push("-DTYPED_POINTERS".to_owned());
        }
        Some((version, switches))
    };
    versions.into_iter().filter_map(switches).collect()
}

#[test]
fn code_that_llvm_makes_at_run_time_is_collected() {
    let llvms = llvms();
    if llvms.is_empty() {
        println!("skipped: there is no llvm-config-N with LLVM's headers");
    }
    for (version, switches) in llvms {
        let program = support::scratch("programs").join(format!("llvm-{version}"));
        if support::compile("llvm.c", &program, true, &switches) {
            let output = ran(&mut Command::new(program));
            assert_eq!(output, "llvm: all checks hold\n", "LLVM {version}");
        }
    }
}

#[test]
fn a_library_that_is_closed_stays_for_the_ends_of_its_threads() {
    if !has("gcc") {
        return;
    }
    let program = support::scratch("programs").join("unloaded");
    let mut compiler = Command::new("gcc");
    compiler.args(C).args(["-g", "-O1", "-pthread", "-I"]).arg(prefix().join("include"));
    compiler.arg(here().join("tests/programs/unloaded.c")).arg("-o").arg(&program).arg("-ldl");
    ran(&mut compiler);
    let library = prefix().join("lib/libstackmark.so");
    let version = format!("version {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(ran(Command::new(program).arg(library)), version);
}

#[test]
fn misuse_gives_a_code() {
    let Some(program) = compiled("misuse.c", true) else { return };
    let output = ran(Command::new(program).arg("codes"));
    let count: usize = output.trim().trim_end_matches(" codes").parse().expect("a number");
    assert!(count > 50, "{output}");
}

#[test]
fn the_child_of_a_fork_ends_with_one_line() {
    let Some(program) = compiled("misuse.c", true) else { return };
    assert_eq!(ran(Command::new(program).arg("forks")), "all children end\n");
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
fn an_exception_that_leaves_a_function_which_must_not_throw_ends_the_process() {
    let Some(program) = compiled("exceptions.cc", true) else { return };
    let output = Command::new(&program).arg("publish").output().expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("in a function that cannot unwind"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
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
