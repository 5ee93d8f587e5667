//! Images whose headers and tables are wrong: errors, and no byte is read outside of a mapping.

use proptest::prelude::*;

use super::*;
use crate::arch::{ProgramHeader, RETURN_ADDRESS, STACK_POINTER, WORD};

/// Bytes of the small image: code, then the search table, `.eh_frame` and a note.
const IMAGE: usize = 0x400;
const TABLE: usize = 0x100;
const FRAME: usize = 0x200;
const NOTE: usize = 0x300;

/// An image in memory of its own, as the loader would map it.
struct Small {
    memory: Box<[u64]>,
    headers: Vec<ProgramHeader>,
}

fn header(kind: u32, flags: u32, place: Range<usize>) -> ProgramHeader {
    ProgramHeader {
        p_type: kind,
        p_flags: flags,
        p_offset: 0,
        p_vaddr: place.start as _,
        p_paddr: 0,
        p_filesz: place.len() as _,
        p_memsz: place.len() as _,
        p_align: 8,
    }
}

impl Small {
    /// With two functions of 16 bytes, at 0 and at 32.
    fn new() -> Small {
        let mut bytes = vec![0_u8; IMAGE];
        // The version, and how pointers are written: relative to themselves, to the table.
        bytes[TABLE..TABLE + 4].copy_from_slice(&[1, 0x1b, 0x03, 0x3b]);
        let mut put = |at: usize, word: i32| bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        put(TABLE + 4, (FRAME - TABLE - 4) as i32);
        put(TABLE + 8, 2);
        let from_table = |at: usize| at as i32 - TABLE as i32;
        for (i, (code, entry)) in [(0, FRAME + 24), (32, FRAME + 48)].into_iter().enumerate() {
            put(TABLE + 12 + i * 8, from_table(code));
            put(TABLE + 16 + i * 8, from_table(entry));
            put(entry, 20);
            put(entry + 4, (entry + 4 - FRAME) as i32);
            put(entry + 8, code as i32 - (entry + 8) as i32);
            put(entry + 12, 16);
        }
        put(FRAME, 20);
        // Version 1, "zR", factors 1 and minus a word, pointers relative to themselves; the CFA a
        // word above the stack pointer, the return address below it.
        let [sp, ra] = [STACK_POINTER, RETURN_ADDRESS].map(|register| register.0 as u8);
        let (word, factor) = (WORD as u8, 0x80 - WORD as u8);
        let cie = [1, b'z', b'R', 0, 1, factor, ra, 1, 0x1b, 0x0c, sp, word, 0x80 | ra, 1, 0, 0];
        bytes[FRAME + 8..FRAME + 24].copy_from_slice(&cie);
        let read = libc::PF_R;
        let headers = vec![
            header(PT_LOAD, read | libc::PF_X, 0..IMAGE),
            header(PT_GNU_EH_FRAME, read, TABLE..FRAME),
            header(PT_NOTE, read, NOTE..NOTE + 32),
        ];
        let words = bytes.chunks(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8")));
        Small { memory: words.collect(), headers }
    }

    fn base(&self) -> usize {
        self.memory.as_ptr() as usize
    }

    fn byte(&mut self, at: usize, byte: u8) {
        let mut word = self.memory[at / 8].to_ne_bytes();
        word[at % 8] = byte;
        self.memory[at / 8] = u64::from_ne_bytes(word);
    }

    /// What the look-ups say of the two functions: extents and rows; and the copy for later.
    fn look_up(&self) -> (Result<Vec<Option<Extent>>, ImageError>, usize, bool) {
        let base = self.base();
        // SAFETY: zeros are valid: nulls and numbers. The headers stay as long as the image.
        let mut info: libc::dl_phdr_info = unsafe { std::mem::zeroed() };
        info.dlpi_addr = base as _;
        info.dlpi_phdr = self.headers.as_ptr();
        info.dlpi_phnum = self.headers.len() as u16;
        // SAFETY: readable segments lie in `memory`, or are no places at all; nothing writes there
        // meanwhile.
        let image = unsafe { MappedImage::new(&info) };
        let pcs = [base, base + 40, base + 20];
        let extents = with_index(&image, base, |index| {
            pcs.iter().map(|pc| index.extent(*pc as u64)).collect()
        });
        let rows = functions_of(&image, &(base..base + 48)).map_or(0, |(rows, _)| rows.len());
        let _ = LoadedImage::new(&image);
        let copied = copied(&image, base);
        let rule = copied.ok().flatten().is_some_and(|source| {
            pcs.map(|pc| source.rule(pc as u64)).iter().any(|rule| matches!(rule, Ok(Some(_))))
        });
        (extents, rows, rule)
    }
}

#[test]
fn a_right_image_is_read() {
    for flags in [libc::PF_R, libc::PF_R | libc::PF_W] {
        let mut small = Small::new();
        small.headers[0].p_flags = flags;
        let base = small.base();
        let (extents, rows, rule) = small.look_up();
        let found = extents.unwrap().into_iter().map(|extent| extent.map(|extent| extent.code));
        let expected = [Some(base..base + 16), Some(base + 32..base + 48), None];
        assert_eq!(found.collect::<Vec<_>>(), expected, "flags {flags}");
        assert!(rows == 2 && rule);
    }
}

#[test]
fn segments_that_cannot_be_read_or_wrap_around_are_not_read() {
    const FAR: u32 = if WORD == 8 { 40 } else { 20 };
    let change: [fn(&mut ProgramHeader); 4] = [
        |header| header.p_flags = libc::PF_X,
        |header| header.p_memsz = !0,
        |header| header.p_memsz = 0,
        |header| header.p_vaddr = header.p_vaddr.wrapping_sub(1 << FAR),
    ];
    for (i, change) in change.into_iter().enumerate() {
        let mut small = Small::new();
        change(&mut small.headers[0]);
        let address = small.base();
        let (extents, rows, rule) = small.look_up();
        assert_eq!(extents.unwrap_err(), ImageError::NoCfi { address }, "change {i}");
        assert!(rows == 0 && !rule, "change {i}");
    }
}

#[test]
fn a_table_that_reaches_out_of_its_segment_is_not_read() {
    let mut small = Small::new();
    small.headers[1].p_memsz = IMAGE as _;
    let (extents, ..) = small.look_up();
    assert_eq!(extents.unwrap_err(), ImageError::NoCfi { address: small.base() });
}

#[test]
fn a_table_of_more_entries_than_it_has_bytes_is_an_error() {
    let mut small = Small::new();
    // The count has eight bytes.
    small.byte(TABLE + 2, 0x04);
    (TABLE + 8..TABLE + 16).for_each(|at| small.byte(at, 0xff));
    let (extents, rows, _) = small.look_up();
    assert!(matches!(extents, Err(ImageError::Header { .. })), "{extents:?}");
    assert_eq!(rows, 0);
}

proptest! {
    /// Bytes of table and entries are anything, and so are all headers, but that a readable segment
    /// lies within what is mapped.
    #[test]
    fn malformed_headers_and_tables_give_errors(
        bytes in prop::collection::vec((TABLE..NOTE + 32, any::<u8>()), 0..12),
        numbers in prop::collection::vec((0..3_usize, 0..4_usize, any::<u64>()), 0..3),
        segment in (0..IMAGE, 0..IMAGE),
    ) {
        let mut small = Small::new();
        bytes.iter().for_each(|(at, byte)| small.byte(*at, *byte));
        for (i, field, number) in numbers {
            let header = &mut small.headers[i];
            match field {
                0 => header.p_vaddr = number as _,
                1 => header.p_memsz = number as _,
                2 => header.p_flags = number as u32,
                _ => header.p_type = [PT_LOAD, PT_NOTE, PT_GNU_EH_FRAME][number as usize % 3],
            }
        }
        let base = small.base();
        let is_readable = |header: &&mut ProgramHeader| {
            header.p_type == PT_LOAD && header.p_flags & libc::PF_R != 0
        };
        for header in small.headers.iter_mut().filter(is_readable) {
            let start = base.wrapping_add(header.p_vaddr as usize);
            let end = start.checked_add(header.p_memsz as usize);
            if end.is_some_and(|end| start < base || end > base + IMAGE) {
                header.p_vaddr = segment.0 as _;
                header.p_memsz = segment.1.min(IMAGE - segment.0) as _;
            }
        }
        // Whatever it says, it says so without a crash.
        let _ = small.look_up();
    }
}
