//! What the system does to a program after its start: it refuses calls, runs out of mappings, runs
//! handlers, forks. A program ends right, or with one clear line and status 2, and never hangs.
#[macro_use]
mod runner;

use runner::{Outcome, minigo, programs};
use std::path::PathBuf;

/// A program with C code of the directory for these tests.
fn program(name: &str) -> PathBuf {
    programs().join("os").join(name).join(format!("{name}.go"))
}

/// Runs it.
fn run_program(name: &str, options: &[&str]) -> Outcome {
    minigo(options, &program(name))
}

#[test]
fn a_sandbox_may_refuse_membarrier_after_the_start() {
    for options in [&[][..], &["--threads", "4"], &["--threads", "1", "--generational"]] {
        run_program("seccomp", options).expect(0, "sandbox 0\nend\n");
    }
}
