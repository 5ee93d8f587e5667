//! The fence of all threads: membarrier(2), and what works without it.

use std::ffi::{c_int, c_ulong};
use std::io;

const MEMBARRIER_PRIVATE_EXPEDITED: c_int = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: c_int = 1 << 4;

fn membarrier(command: c_int) -> io::Result<()> {
    // SAFETY: the call touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Registers the process for [`fence_all_threads`]. False: the system has no such fence.
pub(crate) fn prepare_fence_of_all_threads() -> bool {
    membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED).is_ok()
}

/// Makes every running thread of the process execute a full fence before this returns.
///
/// # Errors
/// The system's error.
pub(crate) fn fence_all_threads() -> io::Result<()> {
    membarrier(MEMBARRIER_PRIVATE_EXPEDITED)
}

/// As [`fence_all_threads`], without membarrier: visits every processor. The calling thread
/// runs on each in turn. A thread that ran there has been switched out or has moved meanwhile,
/// and either is a full fence. A thread that did not run at the beginning has had its fence. So
/// this holds on every architecture, where interrupts by mprotect(2) do not: some processors
/// shoot down translations without interrupts.
///
/// A processor that the system refuses as invalid is one on which no thread of the process may
/// run, unless its threads are in different cpusets. Takes a thread switch for each processor.
///
/// # Errors
/// The system's error. The thread may stay on one processor then.
pub(crate) fn visit_all_processors() -> io::Result<()> {
    /// Processors that the largest mask has: more than any Linux.
    const MOST: usize = 1 << 16;
    const BITS: usize = c_ulong::BITS as usize;
    let mut mine: Vec<c_ulong> = vec![0; MOST / BITS];
    let call = |number, mask: &mut [c_ulong]| {
        // SAFETY: the call reads or writes so many bytes of the mask.
        let result = unsafe { libc::syscall(number, 0, size_of_val(mask), mask.as_mut_ptr()) };
        usize::try_from(result).map_err(|_| io::Error::last_os_error())
    };
    let bytes = call(libc::SYS_sched_getaffinity, &mut mine)?;
    mine.truncate(bytes / size_of::<c_ulong>());
    let mut one = vec![0; mine.len()];
    for processor in 0..mine.len() * BITS {
        one.fill(0);
        one[processor / BITS] = 1 << (processor % BITS);
        match call(libc::SYS_sched_setaffinity, &mut one) {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => return Err(error),
            _ => {}
        }
    }
    call(libc::SYS_sched_setaffinity, &mut mine).map(|_| ())
}
