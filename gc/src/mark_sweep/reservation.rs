//! Reserved address space, of which a part is accessible.

use std::io;

/// A range of address space. Accessible parts hold zeros until they are written.
pub(super) struct Reservation {
    start: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes, none of them accessible.
    ///
    /// # Errors
    /// When the system has no such range.
    pub(super) fn new(len: usize) -> io::Result<Reservation> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the system's choice touches no memory of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // Debuggers that write a core file would read all of it. Where the advice is not taken, a
        // core is larger.
        // SAFETY: the mapping is ours, and the advice changes no memory.
        unsafe { libc::madvise(start, len, libc::MADV_DONTDUMP) };
        Ok(Reservation { start: start as usize, len })
    }

    /// The address at which the range begins, a multiple of the page size.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Asks for huge pages. A system that has none, or does not take the advice, has small ones.
    pub(super) fn ask_for_huge_pages(&self) {
        // SAFETY: the mapping is ours, and the advice changes no memory.
        unsafe { libc::madvise(self.start as *mut _, self.len, libc::MADV_HUGEPAGE) };
    }

    /// Makes the first `len` bytes accessible.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn make_accessible(&self, len: usize) -> io::Result<()> {
        let len = len.next_multiple_of(4096).min(self.len.next_multiple_of(4096));
        // SAFETY: the range is our own mapping.
        match unsafe {
            libc::mprotect(self.start as *mut _, len, libc::PROT_READ | libc::PROT_WRITE)
        } {
            0 => {
                // SAFETY: as above.
                unsafe { libc::madvise(self.start as *mut _, len, libc::MADV_DODUMP) };
                Ok(())
            }
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing refers into it: its owner is gone.
        unsafe { libc::munmap(self.start as *mut _, self.len) };
    }
}
