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
        let len = bytes.max(1).next_multiple_of(system::page());
        let start = system::map(len);
        assert_ne!(start, 0, "no memory for {len} bytes of code");
        CodeMemory { start, len }
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
        // SAFETY: the mapping is our own, and nothing else refers to it yet.
        let protected = unsafe {
            at.copy_from_nonoverlapping(code.as_ptr(), code.len());
            system::make_executable(self.start, self.len, if guarded { guard() } else { 0 })
        };
        assert!(protected, "{}", std::io::Error::last_os_error());
        code_is_written(self.start, code.len());
    }
}

#[cfg(not(windows))]
mod system {
    pub(super) fn page() -> usize {
        // SAFETY: nothing is asked for.
        unsafe { libc::sysconf(libc::_SC_PAGESIZE) as usize }
    }

    /// Pages that are written; 0 if there are none.
    pub(super) fn map(len: usize) -> usize {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
        if at == libc::MAP_FAILED { 0 } else { at as usize }
    }

    /// # Safety
    /// The pages are of [`map`].
    pub(super) unsafe fn make_executable(at: usize, len: usize, guard: i32) -> bool {
        // SAFETY: our contract.
        unsafe { libc::mprotect(at as *mut _, len, libc::PROT_READ | libc::PROT_EXEC | guard) == 0 }
    }
}

#[cfg(windows)]
mod system {
    use windows_sys::Win32::System::Memory::{
        MEM_COMMIT, MEM_RESERVE, PAGE_EXECUTE_READ, PAGE_READWRITE, VirtualAlloc, VirtualProtect,
    };

    /// The unit in which addresses are handed out.
    pub(super) fn page() -> usize {
        1 << 16
    }

    /// Pages that are written; 0 if there are none.
    pub(super) fn map(len: usize) -> usize {
        let kind = MEM_RESERVE | MEM_COMMIT;
        // SAFETY: a new mapping.
        unsafe { VirtualAlloc(std::ptr::null(), len, kind, PAGE_READWRITE) as usize }
    }

    /// # Safety
    /// The pages are of [`map`].
    pub(super) unsafe fn make_executable(at: usize, len: usize, _guard: i32) -> bool {
        let mut before = 0;
        // SAFETY: our contract.
        unsafe { VirtualProtect(at as *const _, len, PAGE_EXECUTE_READ, &raw mut before) != 0 }
    }
}
