//! Memory for code.

use crate::encoder::{code_is_written, guard};

/// Memory in which code is written, and then runs until the process ends.
#[derive(Debug)]
pub(crate) struct CodeMemory {
    start: usize,
    len: usize,
}

impl CodeMemory {
    /// # Panics
    /// If the system gives none.
    pub(crate) fn new(bytes: usize) -> CodeMemory {
        // SAFETY: nothing is asked for.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let len = bytes.max(1).next_multiple_of(page);
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED, "no memory for {len} bytes of code");
        CodeMemory { start: at as usize, len }
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Writes the code and makes it run. With `guarded`, jumps go to landing pads alone, where the
    /// processor looks at that.
    ///
    /// # Panics
    /// If it is too long, or the system refuses it.
    pub(crate) fn write(self, code: &[u8], guarded: bool) {
        assert!(code.len() <= self.len);
        let at = self.start as *mut u8;
        let guard = if guarded { guard() } else { 0 };
        // SAFETY: the mapping is our own, and nothing else refers to it yet.
        let protected = unsafe {
            at.copy_from_nonoverlapping(code.as_ptr(), code.len());
            libc::mprotect(at.cast(), self.len, libc::PROT_READ | libc::PROT_EXEC | guard)
        };
        assert_eq!(protected, 0, "{}", std::io::Error::last_os_error());
        code_is_written(self.start, code.len());
    }
}
