//! Programs built ahead of time, by `minigo build`.

use minigo::Build;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The runtime's archive, made by Cargo.
///
/// # Errors
/// The command was not started by Cargo, or Cargo fails.
pub(crate) fn archive() -> Result<PathBuf, Box<dyn Error>> {
    let cargo = std::env::var_os("CARGO").ok_or("`cargo run -p peers` makes them")?;
    let here = std::env::current_exe()?;
    let profile = here.parent().ok_or("the command has no directory")?;
    let target = profile.parent().ok_or("the command lies in no target directory")?;
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "-p", "minigo-runtime", "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(profile.join("libminigo_runtime.a"))
}

/// Builds a program beside its source, in a process of its own.
///
/// # Errors
/// The program is not built.
pub(crate) fn build(file: &Path, archive: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let output = file.with_extension("built");
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--program").arg(file).arg("--build").arg(&output).arg("--archive").arg(archive);
    let status = command.status()?;
    if !status.success() {
        return Err(format!("{command:?}: {status}").into());
    }
    Ok(output)
}

/// What that process does.
///
/// # Errors
/// The program is not built.
pub(crate) fn build_here(
    file: &Path,
    output: PathBuf,
    archive: PathBuf,
) -> Result<(), Box<dyn Error>> {
    let build = Build { file: file.to_owned(), output, runtime: Some(archive) };
    minigo::build(&build).map_err(|not_run| not_run.message.into())
}
