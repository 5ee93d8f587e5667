//! Mappings and their pages.

use super::areas;
use std::io;
use std::ops::Range;
use std::sync::OnceLock;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_DECOMMIT, MEM_RELEASE, PAGE_READWRITE, VirtualAlloc, VirtualFree,
};
use windows_sys::Win32::System::SystemInformation::{GetSystemInfo, SYSTEM_INFO};

/// Bytes of a page.
pub(crate) fn page_size() -> usize {
    static PAGE: OnceLock<usize> = OnceLock::new();
    *PAGE.get_or_init(|| {
        let mut info = SYSTEM_INFO::default();
        // SAFETY: the system writes the structure.
        unsafe { GetSystemInfo(&raw mut info) };
        info.dwPageSize as usize
    })
}

/// What a mapping is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// Memory that is used soon.
    Memory,
    /// Addresses that nothing may touch before they are [made accessible](make_accessible).
    Reserved,
}

/// Maps `bytes` of zeroed memory, or of addresses, for a stack. Returns the first address.
///
/// # Errors
/// The system's error.
pub(crate) fn map(bytes: usize, mapping: Mapping) -> io::Result<usize> {
    let bytes = bytes.next_multiple_of(page_size());
    let at = areas::take(bytes)?;
    if mapping == Mapping::Memory {
        // SAFETY: the addresses are ours alone.
        unsafe { make_accessible(at..at + bytes) }.inspect_err(|_| areas::give(at, bytes))?;
    }
    Ok(at)
}

/// Reserves `bytes` of addresses for a heap. Returns the first one. No area has them: a heap may be
/// larger, and has no barriers.
///
/// # Errors
/// The system's error.
pub(crate) fn reserve(bytes: usize) -> io::Result<usize> {
    areas::reserve_apart(bytes)
}

/// Makes a part of a reserved mapping memory, whose pages appear when they are touched. What is
/// accessible already stays as it is.
///
/// # Errors
/// The system's error.
///
/// # Safety
/// The range consists of whole pages of a mapping made by [`map`] or [`reserve`].
pub(crate) unsafe fn make_accessible(range: Range<usize>) -> io::Result<()> {
    let at = range.start as *const _;
    // SAFETY: our contract: nothing else uses these addresses.
    let done = unsafe { VirtualAlloc(at, range.len(), MEM_COMMIT, PAGE_READWRITE) };
    if done.is_null() { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// # Safety
/// Nothing uses the pages of the range.
unsafe fn decommit(range: &Range<usize>) -> io::Result<()> {
    // SAFETY: our contract.
    let done = unsafe { VirtualFree(range.start as *mut _, range.len(), MEM_DECOMMIT) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Unmaps `bytes` at `at`.
///
/// # Errors
/// The system's error; the mapping is still there then.
///
/// # Safety
/// The range is a mapping made by [`map`], and nothing uses it any more.
pub(crate) unsafe fn unmap(at: usize, bytes: usize) -> io::Result<()> {
    let bytes = bytes.next_multiple_of(page_size());
    // SAFETY: our contract.
    unsafe { decommit(&(at..at + bytes)) }?;
    areas::give(at, bytes);
    Ok(())
}

/// Ends a mapping made by [`reserve`]. The system knows how long it is.
///
/// # Errors
/// The system's error; the mapping is still there then.
///
/// # Safety
/// `at` is its first address, and nothing uses it any more.
pub(crate) unsafe fn release(at: usize, _bytes: usize) -> io::Result<()> {
    // SAFETY: our contract.
    let done = unsafe { VirtualFree(at as *mut _, 0, MEM_RELEASE) };
    if done == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the pages wholly inside `range` back to the system. They read as zero afterwards. A
/// failure only costs memory.
///
/// # Safety
/// The range lies in a mapping made by [`map`], and its contents are dead.
pub(crate) unsafe fn give_pages_back(range: Range<usize>) {
    let page = page_size();
    let range = range.start.next_multiple_of(page)..range.end / page * page;
    if !range.is_empty() {
        // SAFETY: our contract. Where the system refuses new pages, a reserved mapping gets them
        // with an error or without, before it is used again. Others give no pages back, because the
        // system unmaps them.
        unsafe {
            if decommit(&range).is_ok() {
                let _ = make_accessible(range);
            }
        }
    }
}

/// Gives pages of a heap back to the system. They are not accessible before they are [taken
/// again](take_again), and read as zero then. Returns false if the system refuses.
///
/// The system promises memory when it commits pages, and may have none. So the pages wait for who
/// takes them, and learns of it by an error. With MEM_RESET they would stay accessible and keep
/// that promise: other programs could not have the memory.
///
/// # Safety
/// The range consists of whole pages of a mapping made by [`reserve`], and its contents are dead.
pub(crate) unsafe fn discard(range: Range<usize>) -> bool {
    // SAFETY: our contract.
    unsafe { decommit(&range) }.is_ok()
}

/// Makes pages that may have been [discarded](discard) accessible again. Others stay as they are.
///
/// # Errors
/// The system's error.
///
/// # Safety
/// The range consists of whole pages of a mapping made by [`reserve`], which have been accessible.
pub(crate) unsafe fn take_again(range: Range<usize>) -> io::Result<()> {
    // SAFETY: our contract.
    unsafe { make_accessible(range) }
}

/// Huge pages would be locked in memory, and need a privilege: there are none.
pub(crate) fn ask_for_huge_pages(_range: Range<usize>) {}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn pages_that_were_given_back_read_as_zero() {
        let (page, bytes) = (page_size(), 1 << 30);
        let at = map(bytes, Mapping::Reserved).expect("addresses");
        let used = at + bytes - 2 * page..at + bytes;
        // SAFETY: pages of the mapping, which nothing else uses.
        unsafe {
            make_accessible(used.clone()).expect("memory");
            let word = used.start as *mut usize;
            word.write(7);
            make_accessible(used.clone()).expect("it is accessible");
            assert_eq!(word.read(), 7);
            give_pages_back(used);
            assert_eq!(word.read(), 0);
            unmap(at, bytes).expect("unmapped");
        }
    }

    #[test]
    fn a_mapping_has_the_records_of_its_barriers_above_it() {
        let mapped: Vec<usize> =
            (0..6).map(|_| map(1_000_000_000, Mapping::Reserved).expect("addresses")).collect();
        for at in &mapped {
            let stack = *at..at + 1_000_000_000;
            let record = super::super::barrier_record(&stack, 1).expect("one") as usize;
            assert!(record > stack.end && record - stack.start < u32::MAX as usize);
        }
        // SAFETY: our own mappings, which nothing uses.
        mapped.iter().for_each(|at| unsafe { unmap(*at, 1_000_000_000) }.expect("unmapped"));
    }
}
