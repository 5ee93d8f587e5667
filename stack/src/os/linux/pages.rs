//! Mappings and their pages.

use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::OnceLock;

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        // SAFETY: the call only asks.
        let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(bytes).ok().filter(|bytes| bytes.is_power_of_two()).unwrap_or(4096)
    })
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Memory that is used soon.
    Memory,
    /// Addresses whose pages appear when they are touched.
    Reserved,
}

/// Maps `bytes` of zeroed memory. Returns its address.
///
/// # Errors
/// The system's error.
pub(crate) fn map(bytes: usize, mapping: Mapping) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let flags = match mapping {
        Mapping::Memory => flags,
        Mapping::Reserved => flags | libc::MAP_NORESERVE,
    };
    // SAFETY: a fresh anonymous mapping touches no existing memory.
    let at = unsafe {
        libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as usize) }
}

/// Unmaps `bytes` at `at`.
///
/// # Errors
/// The system's error; the mapping is still there then.
///
/// # Safety
/// The range is a mapping made by [`map`], and nothing uses it any more.
pub(crate) unsafe fn unmap(at: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: our contract.
    let result = unsafe { libc::munmap(at as *mut c_void, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes a page a guard: each access to it faults.
///
/// # Errors
/// The system's error.
///
/// # Safety
/// The page is the caller's, and nothing uses it.
pub(crate) unsafe fn guard_page(at: usize) -> io::Result<()> {
    // SAFETY: our contract.
    let result = unsafe { libc::mprotect(at as *mut c_void, page_size(), libc::PROT_NONE) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives the pages wholly inside `range` back to the system. They read as zero afterwards. A
/// failure only costs memory.
///
/// # Safety
/// The range lies in a mapping made by [`map`], and its contents are dead.
pub(crate) unsafe fn give_pages_back(range: Range<usize>) {
    let page = page_size();
    let (lo, hi) = (range.start.next_multiple_of(page), range.end / page * page);
    if lo < hi {
        // SAFETY: our contract.
        unsafe { libc::madvise(lo as *mut c_void, hi - lo, libc::MADV_DONTNEED) };
    }
}
