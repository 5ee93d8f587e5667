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
    /// Addresses that nothing may touch before they are [made accessible](make_accessible), and
    /// that core files do without.
    Reserved,
}

/// Maps `bytes` of zeroed memory, or of addresses. Returns the first address.
///
/// # Errors
/// The system's error.
pub(crate) fn map(bytes: usize, mapping: Mapping) -> io::Result<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let (flags, protection) = match mapping {
        Mapping::Memory => (flags, ACCESSIBLE),
        Mapping::Reserved => (flags | libc::MAP_NORESERVE, libc::PROT_NONE),
    };
    // SAFETY: a fresh anonymous mapping touches no existing memory.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    if mapping == Mapping::Reserved {
        // Where the advice is not taken, a debugger writes larger core files.
        // SAFETY: our own mapping, of which the advice changes no memory.
        unsafe { libc::madvise(at, bytes, libc::MADV_DONTDUMP) };
    }
    Ok(at as usize)
}

/// Reserves `bytes` of addresses for a heap, whole pages. Returns the first one.
///
/// # Errors
/// The system's error.
pub(crate) fn reserve(bytes: usize) -> io::Result<usize> {
    map(bytes, Mapping::Reserved)
}

const ACCESSIBLE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Makes a part of a reserved mapping memory, whose pages appear when they are touched. What is
/// accessible already stays as it is.
///
/// # Errors
/// The system's error.
///
/// # Safety
/// The range consists of whole pages of a mapping made by [`map`] or [`reserve`].
pub(crate) unsafe fn make_accessible(range: Range<usize>) -> io::Result<()> {
    let (at, bytes) = (range.start as *mut c_void, range.len());
    // SAFETY: our contract: nothing else uses these addresses.
    if unsafe { libc::mprotect(at, bytes, ACCESSIBLE) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above; the advice changes no memory.
    unsafe { libc::madvise(at, bytes, libc::MADV_DODUMP) };
    Ok(())
}

/// Unmaps `bytes` at `at`.
///
/// # Errors
/// The system's error; the mapping is still there then.
///
/// # Safety
/// The range is a mapping made by [`map`] or [`reserve`], and nothing uses it any more.
pub(crate) unsafe fn unmap(at: usize, bytes: usize) -> io::Result<()> {
    // SAFETY: our contract.
    let result = unsafe { libc::munmap(at as *mut c_void, bytes) };
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
        unsafe { discard(lo..hi) };
    }
}

/// Gives pages of a heap back to the system. They read as zero once they are [taken
/// again](take_again). Returns false if the system refuses.
///
/// # Safety
/// The range lies in a mapping made by [`map`] or [`reserve`], and its contents are dead.
pub(crate) unsafe fn discard(range: Range<usize>) -> bool {
    let at = range.start as *mut c_void;
    // SAFETY: our contract.
    unsafe { libc::madvise(at, range.len(), libc::MADV_DONTNEED) == 0 }
}

/// Makes pages that may have been [discarded](discard) accessible again: here they are.
///
/// # Errors
/// None; elsewhere the system's error.
///
/// # Safety
/// The range consists of whole pages of a mapping made by [`reserve`], which have been accessible.
pub(crate) unsafe fn take_again(_range: Range<usize>) -> io::Result<()> {
    Ok(())
}

/// Asks for huge pages in a reserved mapping. Nothing else changes.
pub(crate) fn ask_for_huge_pages(range: Range<usize>) {
    // SAFETY: the advice changes no memory.
    unsafe { libc::madvise(range.start as *mut c_void, range.len(), libc::MADV_HUGEPAGE) };
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// What the system says of the mapping that an address is in: its protection, and its flags.
    fn mapping_of(address: usize) -> (String, String) {
        let all = std::fs::read_to_string("/proc/self/smaps").expect("the system's list");
        let mut found = None;
        for line in all.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().unwrap_or("");
            let bounds = first.split_once('-').and_then(|(start, end)| {
                let number = |text| usize::from_str_radix(text, 16).ok();
                Some(number(start)?..number(end)?)
            });
            if let Some(bounds) = bounds {
                let protection = words.next().unwrap_or("").to_owned();
                found = bounds.contains(&address).then_some(protection);
            } else if let (Some(flags), Some(protection)) = (line.strip_prefix("VmFlags:"), &found)
            {
                return (protection.clone(), flags.to_owned());
            }
        }
        panic!("no mapping at {address:#x}");
    }

    #[test]
    fn what_is_reserved_only_is_not_accessible_and_not_in_core_files() {
        if limits::is_skipped_under_emulation(
            "the emulator does not pass on what is said of core files",
        ) {
            return;
        }
        let (page, bytes) = (page_size(), 1 << 30);
        let at = map(bytes, Mapping::Reserved).expect("addresses");
        let used = at + bytes - 2 * page..at + bytes;
        // SAFETY: pages of the mapping.
        unsafe { make_accessible(used.clone()) }.expect("memory");
        let (protection, flags) = mapping_of(at);
        assert!(protection.starts_with("---") && flags.contains(" dd"), "{protection} {flags}");
        let (protection, flags) = mapping_of(used.start);
        assert!(protection.starts_with("rw") && !flags.contains(" dd"), "{protection} {flags}");
        // SAFETY: our own mapping, which nothing uses.
        unsafe { unmap(at, bytes) }.expect("unmapped");
    }
}
