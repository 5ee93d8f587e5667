//! The command `inspect --core FILE`.

use clap::Parser;
use inspect::{Core, Process, report};
use object::ReadCache;
use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Lists the goroutines of a core file and their stacks.
#[derive(Parser)]
#[command(name = "inspect", version)]
struct Arguments {
    /// The core file.
    #[arg(long, value_name = "FILE")]
    core: PathBuf,
    /// The program, if it is not where it was when it ran.
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match list(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inspect: {}: {error}", arguments.core.display());
            ExitCode::FAILURE
        }
    }
}

fn list(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // A core may be much larger than memory, and little of it is read.
    let cache = ReadCache::new(File::open(&arguments.core)?);
    let process = Process::new(Core::parse(&cache)?, arguments.program.as_deref())?;
    for complaint in process.complaints() {
        eprintln!("inspect: {complaint}");
    }
    let mut text = String::new();
    report(&process, &mut text)?;
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
