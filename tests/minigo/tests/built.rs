//! Programs that are built ahead of time print what real Go prints: by default, and under each item
//! of stress. Cargo makes the runtime's archive here.
// Executables are not built on Windows.
#![cfg(not(windows))]

#[macro_use]
mod runner;

use runner::{
    ALL_STRESS, Outcome, Program, Size, command, emulated_options, number, programs, run,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The archive, made anew where it is not of this tree.
fn runtime() -> &'static Path {
    static RUNTIME: OnceLock<PathBuf> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let minigo = Path::new(env!("CARGO_BIN_EXE_minigo"));
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "-p", "minigo-runtime", "--target-dir"]);
        // TARGET/debug/minigo, and with another target's name between them if there is one.
        let named = usize::from(std::env::var_os("CARGO_BUILD_TARGET").is_some());
        cargo.arg(minigo.ancestors().nth(2 + named).unwrap());
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap();
        assert!(status.success(), "{cargo:?}: {status}");
        minigo.with_file_name("libminigo_runtime.a")
    })
}

/// Builds the executable of a program.
fn build(file: &Path, output: &Path) -> Outcome {
    let mut minigo = command();
    minigo.args(["build", "--runtime"]).arg(runtime()).arg("-o").arg(output).arg(file);
    run(minigo)
}

/// A program's executable, at its small size.
fn built(name: &str) -> (Program, PathBuf) {
    let program = Program::new(name);
    let file = program.file(Size::Stress);
    let output = file.with_file_name(format!("{name}.built"));
    build(&file, &output).expect(0, "");
    (program, output)
}

fn run_with(executable: &Path, options: &[&str]) -> Outcome {
    let mut command = limits::program(executable.to_str().unwrap());
    command.args(emulated_options(options)).args(options);
    run(command)
}

fn check(name: &str) {
    let (program, executable) = built(name);
    let expected = program.expected(Size::Stress);
    run_with(&executable, &[]).expect(0, &expected);
    for item in ALL_STRESS.split(',') {
        run_with(&executable, &["--stress", item]).expect(0, &expected);
    }
    run_with(&executable, &["--threads", "2", "--stress", ALL_STRESS]).expect(0, &expected);
    fs::remove_file(executable).unwrap();
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            check(stringify!($name));
        })*
    };
}

for_each_program!(tests);

#[test]
fn barriers_are_placed_and_hit_in_code_of_an_image() {
    let (_, executable) = built("deep_recursion");
    let file = executable.with_extension("json");
    run_with(&executable, &["--stats", file.to_str().unwrap()]).expect_status(0);
    let statistics = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    for count in ["barriers.placed", "barriers.hit"] {
        assert!(number(&statistics, count) > 0, "{count}: {statistics}");
    }
    fs::remove_file(executable).unwrap();
}

#[test]
fn a_traceback_names_functions_and_lines_of_a_built_program() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("traced");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("traced.go");
    let source = "package main\n\nfunc down(n int) {\n\tif n == 0 {\n\t\tpanic(\"BOOM\")\n\t}\n\
                  \tdown(n - 1)\n}\n\nfunc main() { down(3) }\n";
    fs::write(&file, source).unwrap();
    let executable = directory.join("traced");
    build(&file, &executable).expect(0, "");
    let outcome = run_with(&executable, &[]);
    outcome.expect_status(2).expect_stderr("panic: BOOM").expect_stderr("main.down(...)");
    outcome.expect_stderr("traced.go:5").expect_stderr("traced.go:7");
}

#[test]
fn what_cannot_be_built_is_refused_in_one_line() {
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("not-built");
    let with_c = Program::with_c("callbacks").file(Size::Full);
    build(&with_c, &output).expect_status(1).expect_stderr("with C code are not built");
    let file = programs().join("closures.go");
    let mut minigo = command();
    minigo.args(["build", "--runtime", "/nowhere/libminigo_runtime.a", "-o"]).arg(&output);
    let refused = run({
        minigo.arg(&file);
        minigo
    });
    refused.expect_status(2).expect_stderr("/nowhere/libminigo_runtime.a is missing");
    assert!(!output.exists());
}
