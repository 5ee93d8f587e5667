//! CFI of any content, as the `.eh_frame` or the `.debug_frame` of an image with a page of code:
//! each pc has a rule, no rule or a typed error, the same by its entry alone as by the compiled
//! tables.
//!
//! The first byte of the input chooses the section, the rest is its content.

#![cfg_attr(fuzzing, no_main)]

use stackmark_unwind::{Image, MemorySnapshot, RegisterSet};

const TEXT: u64 = 0x1000;
const TEXT_LEN: u64 = 0x400;
const FRAME: u64 = 0x3000;

/// An ELF file with one executable segment at `TEXT` and one section of CFI at `FRAME`.
fn elf(name: &str, cfi: &[u8]) -> Vec<u8> {
    let names = format!("\0.shstrtab\0{name}\0");
    let (program, code) = (64_u64, 64 + 56);
    let cfi_at = code + TEXT_LEN;
    let names_at = cfi_at + cfi.len() as u64;
    let sections_at = (names_at + names.len() as u64).next_multiple_of(8);
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([3_u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    file.extend([TEXT, program, sections_at].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 64, 3, 1].map(u16::to_le_bytes).concat());
    // PT_LOAD, readable and executable.
    file.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    file.extend([code, TEXT, TEXT, TEXT_LEN, TEXT_LEN, 1].map(u64::to_le_bytes).concat());
    file.resize(cfi_at as usize, 0x90);
    file.extend(cfi);
    file.extend(names.as_bytes());
    file.resize(sections_at as usize, 0);
    let mut section = |name: u32, kind: u32, address: u64, offset: u64, len: u64| {
        file.extend([name, kind].map(u32::to_le_bytes).concat());
        file.extend([0, address, offset, len].map(u64::to_le_bytes).concat());
        file.extend([0_u32; 2].map(u32::to_le_bytes).concat());
        file.extend([1_u64, 0].map(u64::to_le_bytes).concat());
    };
    section(0, 0, 0, 0, 0);
    section(1, 3, 0, names_at, names.len() as u64);
    section(11, 1, FRAME, cfi_at, cfi.len() as u64);
    file
}

fn run(input: &[u8]) {
    let Some((choice, cfi)) = input.split_first() else { return };
    let file = elf(if choice & 1 == 0 { ".eh_frame" } else { ".debug_frame" }, cfi);
    let open = || Image::from_elf("fuzzed", &file, 0);
    let Ok(single) = open() else { return };
    let compiled = open().expect("read before");
    let is_compiled = compiled.compile().is_ok();
    let stack = MemorySnapshot { start: 0x1000, words: vec![0x1000; 16] };
    for pc in TEXT as usize..(TEXT + TEXT_LEN) as usize {
        let rule = single.rule(pc);
        if let Ok(Some(rule)) = &rule {
            let _ = rule.evaluate(&RegisterSet::new(pc, 0x1000, 0x1008), &stack);
            let _ = rule.to_string();
            if is_compiled {
                assert!(compiled.rule(pc).is_ok(), "the tables lose {rule} at {pc:#x}");
            }
        }
    }
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| run(input));

#[cfg(not(fuzzing))]
fn main() {
    stackmark_fuzz::run_files(run);
}
