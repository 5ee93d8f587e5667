//! Runs the system's C compiler and reports its errors.

use crate::error::{CompileError, Compiled};
use std::path::Path;
use std::process::Command;

/// A run of the compiler.
pub(crate) struct Output {
    pub(crate) success: bool,
    /// What it wrote to standard error.
    pub(crate) messages: String,
}

/// Runs the compiler with these arguments: `cc`, or what the variable `CC` says, as with Go.
pub(crate) fn run(file: &str, arguments: &[String]) -> Compiled<Output> {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let output = Command::new(&compiler).env("LC_ALL", "C").args(arguments).output();
    match output {
        Ok(o) => Ok(Output {
            success: o.status.success(),
            messages: String::from_utf8_lossy(&o.stderr).into_owned(),
        }),
        Err(e) => Err(CompileError {
            place: file.into(),
            message: format!("the C compiler {compiler} cannot be run: {e}"),
        }),
    }
}

/// The flags that an environment variable of cgo's adds to those of every program.
pub(crate) fn flags(variable: &str) -> Vec<String> {
    let value = std::env::var(variable).unwrap_or_default();
    value.split_whitespace().map(str::to_owned).collect()
}

/// As `run`; a failure becomes its first error, with its place.
pub(crate) fn must_run(file: &str, arguments: &[String]) -> Compiled<()> {
    let output = run(file, arguments)?;
    if output.success { Ok(()) } else { Err(first_error(file, &output.messages)) }
}

/// The first line of the form `PLACE: error: MESSAGE`; all messages if there is none.
pub(crate) fn first_error(file: &str, messages: &str) -> CompileError {
    for line in messages.lines() {
        for mark in [": error: ", ": fatal error: "] {
            if let Some((place, message)) = line.split_once(mark) {
                return CompileError { place: place.into(), message: message.into() };
            }
        }
    }
    CompileError {
        place: file.into(),
        message: format!("the C compiler refuses it:\n{}", messages.trim_end()),
    }
}

/// A directive that makes the compiler name lines of the Go file.
pub(crate) fn line_directive(line: usize, file: &str) -> String {
    format!("#line {line} \"{}\"\n", file.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A path as an argument.
pub(crate) fn argument(path: &Path) -> String {
    path.display().to_string()
}
