//! An image of this process whose CFI, stack maps and file are of any content: it is registered, or
//! refused with a typed error, and each rule can be evaluated.
//!
//! The image is a small shared object that `cc` makes at the start. What the loader itself reads
//! stays as it is. An input is a list of changes, four bytes each: where (the CFI in memory, either
//! kind of stack maps in memory, the file), the offset there, and the byte.

#![cfg_attr(fuzzing, no_main)]

use stackmark_unwind::{Code, MemorySnapshot, RegisterSet};
use std::ffi::{CStr, CString, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Bytes of the segment with the CFI that are changed. The image has fewer.
const CFI: usize = 128;

/// The largest frame that is allowed.
const MAX_FRAME: u32 = 1024;

/// The image, as it was made.
struct Mapped {
    path: PathBuf,
    file: Vec<u8>,
    code: Range<usize>,
    /// Where the CFI, an object file's maps, and LLVM's lie in memory.
    pieces: [Range<usize>; 3],
    contents: [Vec<u8>; 3],
}

/// Makes the image and loads it.
fn made() -> Mapped {
    let directory = std::env::temp_dir().join(format!("stackmark-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let (source, path) = (directory.join("image.s"), directory.join("image.so"));
    std::fs::write(&source, include_str!("image.s")).expect("the source is written");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-nostdlib", "-Wl,-z,separate-code", "-o"]).arg(&path).arg(&source);
    assert!(cc.status().expect("cc").success(), "cc makes the image");
    let file = std::fs::read(&path).expect("the image");
    let name = CString::new(path.as_os_str().as_bytes()).expect("no zero in it");
    // SAFETY: the image has no initialisers.
    let image = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
    assert!(!image.is_null(), "it is loaded");
    let symbol = |name: &CStr| {
        // SAFETY: the image stays loaded.
        let at = unsafe { libc::dlsym(image, name.as_ptr()) } as usize;
        assert!(at != 0, "{name:?}");
        at
    };
    let (code, cfi) = (symbol(c"first")..symbol(c"second") + 16, cfi_segment(&path));
    let pieces = [
        cfi..cfi + CFI,
        symbol(c"object_maps")..symbol(c"object_maps_end"),
        symbol(c"llvm_maps")..symbol(c"llvm_maps_end"),
    ];
    let bytes = |piece: &Range<usize>| {
        // SAFETY: readable memory of the image.
        unsafe { std::slice::from_raw_parts(piece.start as *const u8, piece.len()) }.to_vec()
    };
    let contents = pieces.each_ref().map(bytes);
    Mapped { path, file, code, pieces, contents }
}

/// Where the segment begins that has the CFI: the first one behind the code that is read alone.
fn cfi_segment(path: &Path) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("the system's list");
    let path = path.to_str().expect("a path in UTF-8");
    let own = maps.lines().filter(|line| line.ends_with(path));
    let line = own.skip_while(|line| !line.contains(" r-xp ")).nth(1).expect("a segment");
    assert!(line.contains(" r--p "), "{line}");
    usize::from_str_radix(line.split('-').next().expect("an address"), 16).expect("a number")
}

/// Makes the memory of a piece other than it is.
fn put(piece: &Range<usize>, bytes: &[u8]) {
    const PAGE: usize = 4096;
    let pages = piece.start / PAGE * PAGE..piece.end.next_multiple_of(PAGE);
    let protect = |protection| {
        // SAFETY: pages of the image, which stay readable.
        let result = unsafe { libc::mprotect(pages.start as *mut c_void, pages.len(), protection) };
        assert_eq!(result, 0, "mprotect");
    };
    protect(libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: writable now. Neither the loader nor another thread reads it meanwhile.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), piece.start as *mut u8, bytes.len()) };
    // The maps lie among data that the loader has made unwritable, or has not: both are read.
    protect(libc::PROT_READ);
}

fn run(input: &[u8]) {
    static MAPPED: OnceLock<Mapped> = OnceLock::new();
    let mapped = MAPPED.get_or_init(|| {
        let mapped = made();
        register(&mapped).expect("the image is right as it was made");
        mapped
    });
    let (mut memory, mut file) = (mapped.contents.clone(), mapped.file.clone());
    let mut is_other_file = false;
    for change in input.chunks_exact(4) {
        let offset = usize::from(u16::from_le_bytes([change[1], change[2]]));
        let place = match change[0] % 4 {
            3 => {
                is_other_file = true;
                &mut file
            }
            piece => &mut memory[usize::from(piece)],
        };
        let len = place.len();
        place[offset % len] = change[3];
    }
    let replace = |bytes: &[u8]| {
        // Another file of the same name: what is mapped stays.
        let other = mapped.path.with_extension("other");
        std::fs::write(&other, bytes).expect("a file is written");
        std::fs::rename(&other, &mapped.path).expect("a file is renamed");
    };
    mapped.pieces.iter().zip(&memory).for_each(|(piece, bytes)| put(piece, bytes));
    if is_other_file {
        replace(&file);
    }
    if let Err(error) = register(mapped) {
        assert!(!error.is_empty());
    }
    mapped.pieces.iter().zip(&mapped.contents).for_each(|(piece, bytes)| put(piece, bytes));
    if is_other_file {
        replace(&mapped.file);
    }
}

/// Registers the managed code, looks up what there is, and forgets it.
fn register(mapped: &Mapped) -> Result<(), String> {
    let code = Code::new();
    let registered = code.register_image(mapped.code.start, Some(MAX_FRAME));
    code.refresh_images();
    let stack = MemorySnapshot { start: 0x1000, words: vec![0x1000; 16] };
    let snapshot = code.snapshot();
    for pc in mapped.code.clone() {
        if let Ok(Some(rule)) = snapshot.rule(pc) {
            let _ = rule.evaluate(&RegisterSet::new(pc, 0x1000, 0x1008), &stack);
            let _ = rule.to_string();
        }
        let _ = snapshot.function(pc);
        if let Some(safepoint) = snapshot.safepoint(pc) {
            let _ = (safepoint.cfa_offset(), safepoint.roots().count(), safepoint.slots().count());
        }
    }
    drop(snapshot);
    let image = registered.map_err(|error| error.to_string())?;
    code.unregister_image(&image).map_err(|error| format!("not registered: {error}"))
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| run(input));

#[cfg(not(fuzzing))]
fn main() {
    stackmark_fuzz::run_files(run);
}
