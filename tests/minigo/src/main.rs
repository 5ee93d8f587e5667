//! The commands `minigo [options] FILE.go` and `minigo build [options] FILE.go`.

use clap::{Parser, Subcommand};
use minigo::{Build, Runs};
use std::path::PathBuf;
use std::process::ExitCode;

/// Compiles and runs a Go program on moving stacks, under a concurrent collector with return
/// barriers.
#[derive(Parser)]
#[command(name = "minigo", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    instead: Option<Instead>,
    /// The program.
    #[arg(required = true)]
    file: Option<PathBuf>,
    #[command(flatten)]
    runs: Runs,
}

#[derive(Subcommand)]
enum Instead {
    /// Makes an executable of a program without C code. It takes the options of a run.
    Build {
        /// The program.
        file: PathBuf,
        /// The executable [default: the program's name without .go].
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// The archive of the package minigo-runtime [default: the one beside this command].
        #[arg(long, value_name = "FILE")]
        runtime: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let run = || match arguments.instead {
        Some(Instead::Build { file, output, runtime }) => {
            let output = output.unwrap_or_else(|| file.with_extension(""));
            minigo::build(&Build { file, output, runtime }).err()
        }
        None => {
            let file = arguments.file.expect("clap asks for it");
            Some(minigo::run(&arguments.runs.options(file)))
        }
    };
    // A panic has written its message. It comes of the system: a wrong program has an error.
    let run = || minigo::on_large_stack(run);
    match std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)) {
        Err(_) => ExitCode::from(2),
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(not_run)) => {
            not_run.report();
            not_run.status.into()
        }
    }
}
