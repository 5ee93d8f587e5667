//! A core file of the test's own process: what debuggers read of it, and the stacks of its
//! goroutines.

use stackmark_stack::asm::{barrier, layout};
use stackmark_stack::{Goroutine, stackmark_debug_info};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

const PAGE: usize = 4096;

/// What a core file is made of.
pub(crate) struct Contents {
    /// Where this process has its own program: its first page, its data, and its path.
    pub(crate) program: (Range<usize>, Range<usize>, String),
    /// Pages of memory.
    pub(crate) pages: Vec<(usize, Vec<u8>)>,
}

/// A word of this process.
///
/// # Safety
/// The address is that of a word that no thread writes now.
unsafe fn word(address: usize) -> usize {
    // SAFETY: by our contract.
    unsafe { (address as *const usize).read() }
}

impl Contents {
    /// The pages that describe these goroutines, which stand still.
    pub(crate) fn of(goroutines: &[Arc<Goroutine>]) -> Contents {
        let info = &raw const stackmark_debug_info as usize;
        let mut ranges = vec![info..info + size_of_val(&stackmark_debug_info), barrier::table()];
        let runtime = stackmark_debug_info.runtimes.load(Relaxed) as usize;
        ranges.push(runtime..runtime + 64);
        for goroutine in goroutines {
            let record = goroutine.address();
            // The record is a little larger than its header.
            ranges.push(record..record + size_of::<Goroutine>());
            // SAFETY: the goroutine stands still.
            unsafe {
                ranges.push(word(record + layout::G_STACK_LO)..word(record + layout::G_STACK_HI));
            }
        }
        let descriptor = stackmark_debug_info.jit_descriptor.load(Relaxed);
        ranges.push(descriptor..descriptor + 24);
        // SAFETY: gdb's interface, and no test registers code meanwhile.
        unsafe {
            let mut entry = word(descriptor + 16);
            while entry != 0 {
                let (object, length) = (word(entry + 16), word(entry + 24));
                ranges.extend([entry..entry + 32, object..object + length]);
                entry = word(entry);
            }
        }
        let pages: BTreeSet<usize> =
            ranges.iter().flat_map(|r| r.start / PAGE..r.end.div_ceil(PAGE)).collect();
        let copy = |page: usize| {
            // SAFETY: pages that hold something of ours are mapped. Other threads may write other
            // words of them: the copy is by atomic words.
            let words = (0..PAGE / 8).map(|i| unsafe {
                let word =
                    std::sync::atomic::AtomicU64::from_ptr((page * PAGE + 8 * i) as *mut u64);
                word.load(Relaxed)
            });
            (page * PAGE, words.flat_map(u64::to_le_bytes).collect())
        };
        Contents { program: program(info), pages: pages.into_iter().map(copy).collect() }
    }

    /// The core file. `path` takes the place of the program's path.
    pub(crate) fn core(&self, path: &str) -> Vec<u8> {
        let (base, data, _) = &self.program;
        // The unit of offsets is a byte here.
        let mut files = [2, 1, base.start, base.end, 0, data.start, data.end, PAGE]
            .map(|word| word as u64)
            .map(u64::to_le_bytes)
            .concat();
        for _ in 0..2 {
            files.extend(path.bytes().chain([0]));
        }
        let notes = note(0x4649_4c45, &files);
        let headers = 64 + 56 * (1 + self.pages.len());
        let first = (headers + notes.len()).next_multiple_of(PAGE);
        let mut core = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        for half in [4u16, 62] {
            core.extend(half.to_le_bytes());
        }
        core.extend(1u32.to_le_bytes());
        for word in [0u64, 64, 0] {
            core.extend(word.to_le_bytes());
        }
        core.extend(0u32.to_le_bytes());
        for half in [64, 56, 1 + self.pages.len() as u16, 0, 0, 0] {
            core.extend(half.to_le_bytes());
        }
        let mut segment = |kind: u32, flags: u32, offset: usize, address: usize, size: usize| {
            core.extend(kind.to_le_bytes());
            core.extend(flags.to_le_bytes());
            for word in [offset, address, 0, size, size, 4] {
                core.extend((word as u64).to_le_bytes());
            }
        };
        segment(4, 4, headers, 0, notes.len());
        for (i, (address, bytes)) in self.pages.iter().enumerate() {
            segment(1, 6, first + i * PAGE, *address, bytes.len());
        }
        core.extend(notes);
        core.resize(first, 0);
        core.extend(self.pages.iter().flat_map(|(_, bytes)| bytes));
        core
    }
}

fn note(kind: u32, contents: &[u8]) -> Vec<u8> {
    let mut note = Vec::new();
    for half in [5, contents.len() as u32, kind] {
        note.extend(half.to_le_bytes());
    }
    note.extend(b"CORE\0\0\0\0");
    note.extend(contents);
    note.resize(note.len().next_multiple_of(4), 0);
    note
}

/// The first page of the program, the mapping of it that holds `data`, and its path.
fn program(data: usize) -> (Range<usize>, Range<usize>, String) {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the system's list of mappings");
    let path = std::env::current_exe().expect("a path").display().to_string();
    let mut own = maps.lines().filter(|line| line.ends_with(&path)).map(|line| {
        let (range, _) = line.split_once(' ').expect("a range");
        let (start, end) = range.split_once('-').expect("a range");
        let number = |text| usize::from_str_radix(text, 16).expect("an address");
        number(start)..number(end)
    });
    let first = own.next().expect("the program");
    let data = own.find(|range| range.contains(&data)).expect("the program's data");
    (first, data, path)
}
