//! Processes on Windows. What their threads do is not to be seen: only time on a processor is
//! progress.

use super::Doing;
use std::time::Duration;
use windows_sys::Win32::Foundation::{CloseHandle, FILETIME};
use windows_sys::Win32::System::Threading::{
    GetProcessTimes, OpenProcess, PROCESS_QUERY_LIMITED_INFORMATION, PROCESS_TERMINATE,
    TerminateProcess,
};

/// The calling thread: its own time counts, too.
pub(super) fn this_thread() -> Option<u32> {
    None
}

/// The CPU time that a process has used.
pub(super) fn look_at(process: u32, _but_for: Option<u32>) -> (Duration, Doing) {
    let mut times = [FILETIME::default(); 4];
    let [created, ended, kernel, user] = &mut times;
    // SAFETY: the system writes the times, or fails: the process may have ended.
    unsafe {
        let handle = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, 0, process);
        if !handle.is_null() {
            GetProcessTimes(handle, created, ended, kernel, user);
            CloseHandle(handle);
        }
    }
    let ticks =
        |time: &FILETIME| u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
    (Duration::from_nanos((ticks(kernel) + ticks(user)) * 100), Doing::Nothing)
}

/// The process alone.
pub(super) fn tree(process: u32) -> Vec<u32> {
    vec![process]
}

/// Nothing is known.
pub(super) fn what_threads_do(process: u32) -> String {
    format!("process {process}")
}

/// Kills a process that may have ended.
pub(super) fn kill(process: u32) {
    // SAFETY: the handle is our own.
    unsafe {
        let handle = OpenProcess(PROCESS_TERMINATE, 0, process);
        if !handle.is_null() {
            TerminateProcess(handle, 1);
            CloseHandle(handle);
        }
    }
}
