//! Windows: what the system says of the process and its threads.

use std::ops::Range;
use std::os::windows::ffi::OsStringExt;
use std::path::PathBuf;
use std::{ffi::OsString, io, ptr};

use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::System::Diagnostics::Debug::ReadProcessMemory;
use windows_sys::Win32::System::LibraryLoader::GetModuleFileNameW;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_FREE, MEM_RELEASE, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_READWRITE,
    VirtualAlloc, VirtualFree, VirtualQuery,
};
use windows_sys::Win32::System::ProcessStatus::K32EnumProcessModules;
use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetCurrentThreadStackLimits};

/// There is no directory of separate debug files.
pub(crate) const DEBUG_DIRECTORY: &str = "";

/// Where the images of the process begin in memory. One may be gone by the time that it is read.
pub(crate) fn modules() -> Vec<usize> {
    let mut modules: Vec<HMODULE> = vec![ptr::null_mut(); 64];
    loop {
        let size = size_of_val(&*modules) as u32;
        let mut needed = 0;
        // SAFETY: the system writes at most `size` bytes of handles, for which there is room.
        let done = unsafe {
            K32EnumProcessModules(GetCurrentProcess(), modules.as_mut_ptr(), size, &raw mut needed)
        };
        if done == 0 {
            return Vec::new();
        }
        let count = needed as usize / size_of::<HMODULE>();
        if count <= modules.len() {
            modules.truncate(count);
            return modules.into_iter().map(|module| module as usize).collect();
        }
        // More may come meanwhile.
        modules.resize(count + 16, ptr::null_mut());
    }
}

/// The path of the file of the image that begins there; empty if the system does not say.
pub(crate) fn module_path(base: usize) -> PathBuf {
    let mut path = [0_u16; 1 << 15];
    let room = path.len() as u32;
    // SAFETY: the system writes at most `room` units, and looks the handle up, which may be that of
    // no image any more.
    let len = unsafe { GetModuleFileNameW(base as HMODULE, path.as_mut_ptr(), room) };
    OsString::from_wide(&path[..len as usize]).into()
}

/// The stack of the calling thread, from its lowest address on.
pub(crate) fn thread_stack() -> io::Result<Range<usize>> {
    let (mut low, mut high) = (0, 0);
    // SAFETY: the system writes the two words.
    unsafe { GetCurrentThreadStackLimits(&raw mut low, &raw mut high) };
    Ok(low..high)
}

/// Handlers of exceptions run on the stack of their thread.
pub(crate) fn signal_stack() -> Option<Range<usize>> {
    None
}

/// There are no contexts of the C library.
pub(crate) fn context_end() -> Option<usize> {
    None
}

/// Reads bytes of this process, which need not be mapped. Yields how many could be read. May be
/// called while a thread is stopped, and in the handler of an exception.
pub(crate) fn read_bytes(address: usize, into: &mut [u8]) -> usize {
    let mut read = 0;
    // SAFETY: the system writes at most as many bytes as `into` has, and fails where memory cannot
    // be read.
    unsafe {
        ReadProcessMemory(
            GetCurrentProcess(),
            address as *const _,
            into.as_mut_ptr().cast(),
            into.len(),
            &raw mut read,
        )
    };
    read.min(into.len())
}

/// The eight bytes at an address of this process, which need not be mapped.
pub(crate) fn read_code(address: usize) -> Option<u64> {
    let mut word = [0; 8];
    (read_bytes(address, &mut word) == word.len()).then(|| u64::from_le_bytes(word))
}

/// Pages of this process, written before they are shared.
#[derive(Debug)]
pub(crate) struct Pages {
    start: usize,
}

/// The system hands out addresses in multiples of it.
const GRANULARITY: usize = 1 << 16;

impl Pages {
    /// At least `len` bytes, all 0, that end less than `reach` bytes behind `address`. `None` if
    /// there is no room.
    pub(crate) fn above(address: usize, reach: usize, len: usize) -> Option<Pages> {
        let mut at = address.checked_next_multiple_of(GRANULARITY)?;
        let last = address.checked_add(reach)?.checked_sub(len)?;
        while at < last {
            let mut found = MEMORY_BASIC_INFORMATION::default();
            let size = size_of_val(&found);
            // SAFETY: the system writes the structure, or says that there is no such address.
            if unsafe { VirtualQuery(at as *const _, &raw mut found, size) } == 0 {
                return None;
            }
            let end = found.BaseAddress as usize + found.RegionSize;
            if found.State == MEM_FREE && end - at >= len {
                let (kind, protection) = (MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
                // SAFETY: the system gives memory that nobody has, or fails.
                let start = unsafe { VirtualAlloc(at as *const _, len, kind, protection) } as usize;
                if start != 0 {
                    return Some(Pages { start });
                }
                // Another thread was faster, or the system keeps the place.
                at += GRANULARITY;
                continue;
            }
            at = end.checked_next_multiple_of(GRANULARITY)?;
        }
        None
    }

    /// Where they begin.
    pub(crate) fn start(&self) -> usize {
        self.start
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: memory of this value alone, which is given back once.
        unsafe { VirtualFree(self.start as *mut _, 0, MEM_RELEASE) };
    }
}
