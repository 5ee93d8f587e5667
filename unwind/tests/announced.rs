//! What debuggers and the system's unwinder are told of a region. A program of its own: the list
//! that debuggers read is the process's, and a test beside this one would change it while it reads.
// The system's unwinder has another table there: see tests/windows.rs.
#![cfg(not(windows))]

mod support;

use std::ffi::c_void;

use stackmark_unwind::{Announce, Code};
use support::region;

/// `struct jit_code_entry` and `struct jit_descriptor` of gdb's interface.
#[repr(C)]
struct Entry {
    next: *const Entry,
    prev: *const Entry,
    file: *const u8,
    size: u64,
}
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *const Entry,
    first: *const Entry,
}
unsafe extern "C" {
    static __jit_debug_descriptor: Descriptor;
    /// libgcc's search for the CFI of a pc.
    #[cfg(not(target_arch = "arm"))]
    #[link_name = "_Unwind_Find_FDE"]
    fn find(pc: *const c_void, bases: *mut [usize; 3]) -> *const c_void;
    /// Its search for the table that has a pc, and the number of the table's entries.
    #[cfg(target_arch = "arm")]
    #[link_name = "__gnu_Unwind_Find_exidx"]
    fn find(pc: *const c_void, entries: *mut [usize; 3]) -> *const c_void;
}

fn is_known_to_system(pc: usize) -> bool {
    let mut more = [0; 3];
    // SAFETY: the search reads what is registered, which stays while it is.
    !unsafe { find(pc as *const c_void, &raw mut more) }.is_null()
}

/// Whether a file that debuggers are shown has `name` in it.
fn is_known_to_debugger(name: &str) -> bool {
    // SAFETY: the one test of this process changes the list; its entries and files are in place.
    unsafe {
        let mut entry = (&raw const __jit_debug_descriptor.first).read_volatile();
        while !entry.is_null() {
            let file = std::slice::from_raw_parts((*entry).file, (*entry).size as usize);
            if file.windows(name.len()).any(|bytes| bytes == name.as_bytes()) {
                return true;
            }
            entry = (*entry).next;
        }
    }
    false
}

#[test]
fn debuggers_and_the_systems_unwinder_are_told_as_the_region_wishes() {
    let code = Code::new();
    for (i, [debugger, system_unwinder]) in
        [[false, false], [false, true], [true, false], [true, true]].into_iter().enumerate()
    {
        let start = 0x7654_0000 + i * 0x1_0000;
        let name = format!("function_to_announce_{i}");
        let mut region = region(start, &[&[(0x20, 32, &[0])]]);
        region.functions[0].name.clone_from(&name);
        region.announce = Announce { debugger, system_unwinder };
        let id = code.register(region).unwrap();
        assert_eq!(is_known_to_system(start + 0x20), system_unwinder);
        assert_eq!(is_known_to_debugger(&name), debugger);
        assert!(code.snapshot().safepoint(start + 0x20).is_some());
        code.unregister(id).unwrap();
        assert!(!is_known_to_system(start + 0x20) && !is_known_to_debugger(&name));
    }
    assert_eq!(Announce::default(), Announce::ALL);
}
