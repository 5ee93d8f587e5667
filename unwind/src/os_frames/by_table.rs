//! Windows takes tables of functions whose code was made at run time.

use std::ptr;

use windows_sys::Win32::System::Diagnostics::Debug::{
    IMAGE_RUNTIME_FUNCTION_ENTRY, IMAGE_RUNTIME_FUNCTION_ENTRY_0, RtlAddFunctionTable,
    RtlDeleteFunctionTable,
};

use crate::os::Pages;
use crate::region::Region;

/// The table of a region's functions, and their UNWIND_INFO, which the system's unwinder knows for
/// as long as this lives. So exceptions, panics and backtraces cross managed frames.
#[derive(Debug)]
pub(crate) struct SystemFrames {
    /// The entries, and behind them what they refer to. Not touched while they are registered.
    pages: Pages,
}

/// Addresses in the table have so many bits, and count from the region's start.
const REACH: usize = u32::MAX as usize;

impl SystemFrames {
    /// Registers a copy of the region's UNWIND_INFO, which has been read through without error.
    /// `None` if it has none, or if there is no room for it near the region.
    pub(crate) fn register(region: &Region) -> Option<SystemFrames> {
        let infos = &region.unwind_info;
        let count = u32::try_from(infos.len()).ok().filter(|count| *count != 0)?;
        let aligned = |len: usize| len.next_multiple_of(4);
        let table = infos.len() * size_of::<IMAGE_RUNTIME_FUNCTION_ENTRY>();
        let size = table + infos.iter().map(|info| aligned(info.bytes.len())).sum::<usize>();
        let pages = Pages::above(region.start + region.len, REACH - region.len, size)?;
        // The system searches them by halves.
        let mut sorted: Vec<_> = infos.iter().collect();
        sorted.sort_by_key(|info| info.start);
        let mut at = pages.start() + table;
        for (i, info) in sorted.into_iter().enumerate() {
            let begin = (info.start - region.start) as u32;
            let unwind =
                IMAGE_RUNTIME_FUNCTION_ENTRY_0 { UnwindInfoAddress: (at - region.start) as u32 };
            let entry = IMAGE_RUNTIME_FUNCTION_ENTRY {
                BeginAddress: begin,
                EndAddress: begin + info.len as u32,
                Anonymous: unwind,
            };
            // SAFETY: within the new pages, which have room for all entries and for what is behind
            // them, and which nobody else knows yet.
            unsafe {
                let entries = pages.start() as *mut IMAGE_RUNTIME_FUNCTION_ENTRY;
                entries.add(i).write(entry);
                ptr::copy_nonoverlapping(info.bytes.as_ptr(), at as *mut u8, info.bytes.len());
            }
            at += aligned(info.bytes.len());
        }
        // SAFETY: the pages hold the entries, ascending, and their information. They stay as they
        // are until `drop` has taken the table back.
        let done =
            unsafe { RtlAddFunctionTable(pages.start() as *const _, count, region.start as u64) };
        done.then_some(SystemFrames { pages })
    }
}

impl Drop for SystemFrames {
    fn drop(&mut self) {
        // SAFETY: registered by `register`, and only once.
        unsafe { RtlDeleteFunctionTable(self.pages.start() as *const _) };
    }
}
