//! Running a program and measuring what it took.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What a run took and left behind.
pub(crate) struct Ran {
    pub(crate) wall: Duration,
    /// The most memory that was resident at once, in bytes.
    pub(crate) peak: u64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `command` to its end; its output goes through files in `scratch`, so that neither waits for
/// a reader.
///
/// # Errors
/// If it cannot be run, or fails: then with what it wrote to standard error.
pub(crate) fn run(command: &mut Command, scratch: &Path) -> io::Result<Ran> {
    let (out, err) = (scratch.join("stdout"), scratch.join("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out)?).stderr(File::create(&err)?);
    let begun = Instant::now();
    let child = command.spawn()?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    let pid = child.id() as libc::pid_t;
    loop {
        // SAFETY: our own child, waited for only here; both pointers are to our own variables.
        match unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) } {
            waited if waited == pid => break,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
            _ => return Err(io::Error::last_os_error()),
        }
    }
    let wall = begun.elapsed();
    // SAFETY: wait4 has filled it; all zeros would be valid too.
    let peak = unsafe { usage.assume_init() }.ru_maxrss as u64 * 1024;
    let (stdout, stderr) = (std::fs::read_to_string(out)?, std::fs::read_to_string(err)?);
    if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
        let tail = &stderr[stderr.floor_char_boundary(stderr.len().saturating_sub(2000))..];
        return Err(io::Error::other(format!(
            "{command:?} ended with wait status {status:#x}\n{tail}"
        )));
    }
    Ok(Ran { wall, peak, stdout, stderr })
}
