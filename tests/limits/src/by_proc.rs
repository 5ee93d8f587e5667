//! Processes and their threads, as Linux's `/proc` shows them.

use super::Doing;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The unit of CPU times in `/proc`: USER_HZ, 100 on all architectures in use.
const TICK: Duration = Duration::from_millis(10);

/// The calling thread.
///
/// # Panics
/// Without `/proc`.
pub(super) fn this_thread() -> Option<u32> {
    let thread = fs::read_link("/proc/thread-self").expect("Linux's /proc");
    thread.file_name().and_then(|id| id.to_str()?.parse().ok())
}

/// The CPU time that a process and its descendants have used, and what they do. `but_for` is not
/// looked at for the latter.
pub(super) fn look_at(process: u32, but_for: Option<u32>) -> (Duration, Doing) {
    let (mut ticks, mut doing) = (0, Doing::Nothing);
    for process in tree(process) {
        // utime, stime, and those of children that have been waited for.
        if let Some(fields) = stat(&format!("/proc/{process}/stat")) {
            ticks += fields[11..15].iter().filter_map(|t| t.parse::<u64>().ok()).sum::<u64>();
        }
        for thread in numbers_in(&format!("/proc/{process}/task")) {
            let state = stat(&format!("/proc/{process}/task/{thread}/stat"));
            let does = match state.as_ref().map(|fields| &*fields[0]) {
                Some("R" | "D") => Doing::Something,
                Some("T") => Doing::Stopped,
                _ => Doing::Nothing,
            };
            if Some(thread) != but_for {
                doing = doing.max(does);
            }
        }
    }
    (TICK * ticks as u32, doing)
}

/// The fields of a `stat` file from the state on: what comes before it may hold spaces.
fn stat(path: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(path).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

/// A process and its descendants, parents before children.
pub(super) fn tree(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let mut next = 0;
    while let Some(&process) = all.get(next) {
        next += 1;
        for thread in numbers_in(&format!("/proc/{process}/task")) {
            let children = fs::read_to_string(format!("/proc/{process}/task/{thread}/children"));
            let children = children.unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
        }
    }
    all
}

/// What the threads of a process and its descendants do, as the system says, and gdb where it is
/// installed: a hang that comes once in a thousand runs is not met again with a debugger at hand.
pub(super) fn what_threads_do(process: u32) -> String {
    let mut said = String::new();
    for process in tree(process) {
        for thread in numbers_in(&format!("/proc/{process}/task")) {
            said += &format!("thread {thread} of process {process}:");
            for about in ["comm", "wchan", "syscall"] {
                let text = fs::read_to_string(format!("/proc/{process}/task/{thread}/{about}"));
                said += &format!(" {}", text.as_deref().unwrap_or("?").trim());
            }
            said.push('\n');
        }
        let mut gdb = Command::new("timeout");
        gdb.args(["60", "gdb", "-batch", "-p", &process.to_string()]);
        gdb.args(["-ex", "thread apply all bt 30"]);
        let seen = gdb.stdin(Stdio::null()).stderr(Stdio::null()).output();
        let seen = seen.map(|seen| seen.stdout).unwrap_or_default();
        said += &String::from_utf8_lossy(&seen);
    }
    said
}

/// The names in a directory that are numbers.
fn numbers_in(directory: &str) -> Vec<u32> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// Kills a process that may have ended.
pub(super) fn kill(process: u32) {
    // SAFETY: a system call that takes no memory.
    unsafe { libc::kill(process as i32, libc::SIGKILL) };
}
