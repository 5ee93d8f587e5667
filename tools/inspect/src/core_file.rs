//! An ELF core file: memory, threads, and the files that were mapped.

use crate::error::Error;
use crate::x86_64;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadRef, elf};
use stackmark_unwind::{Memory, RegisterSet};
use std::ops::Range;

type Header = elf::FileHeader64<Endianness>;

/// Memory is read by blocks of this size: a reader that caches what it has read keeps few of them.
const BLOCK: usize = 4096;

/// The most bytes of one piece of memory that are copied.
const MAX_COPY: usize = 1 << 30;

/// An ELF core file. `R` is where its bytes come from: memory, or an
/// [`object::ReadCache`] over a file.
#[derive(Debug)]
pub struct Core<R> {
    data: R,
    /// By address.
    segments: Vec<Segment>,
    pub(crate) threads: Vec<(i32, RegisterSet)>,
    pub(crate) files: Vec<Mapped>,
}

/// Memory that is in the file.
#[derive(Debug)]
struct Segment {
    memory: Range<usize>,
    offset: u64,
}

/// A part of a file that the process had mapped.
#[derive(Debug)]
pub(crate) struct Mapped {
    pub(crate) memory: Range<usize>,
    /// Where the part begins in the file.
    pub(crate) offset: usize,
    pub(crate) path: String,
}

impl<'d, R: ReadRef<'d>> Core<R> {
    /// Reads headers and notes.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(data: R) -> Result<Core<R>, Error> {
        let header = Header::parse(data)?;
        let endian = header.endian()?;
        let (kind, machine) = (header.e_type(endian), header.e_machine(endian));
        if kind != elf::ET_CORE {
            return Err(Error::NoCore(kind.0));
        }
        if machine != x86_64::MACHINE || endian != Endianness::Little {
            return Err(Error::Machine(machine.0));
        }
        let mut core = Core { data, segments: Vec::new(), threads: Vec::new(), files: Vec::new() };
        for segment in header.program_headers(endian, data)? {
            if segment.p_type(endian) == elf::PT_LOAD {
                core.add_segment(
                    segment.p_vaddr(endian),
                    segment.p_filesz(endian),
                    segment.p_offset(endian),
                );
            }
            let Some(mut notes) = segment.notes(endian, data)? else { continue };
            while let Some(note) = notes.next()? {
                match note.n_type(endian) {
                    elf::NT_PRSTATUS if note.name() == elf::ELF_NOTE_CORE => {
                        let thread = x86_64::thread(note.desc()).ok_or(Error::Note("PRSTATUS"))?;
                        core.threads.push(thread);
                    }
                    elf::NT_FILE if note.name() == elf::ELF_NOTE_CORE => {
                        core.files.extend(files(note.desc()).ok_or(Error::Note("FILE"))?);
                    }
                    _ => {}
                }
            }
        }
        core.segments.sort_by_key(|segment| segment.memory.start);
        Ok(core)
    }

    fn add_segment(&mut self, address: u64, length: u64, offset: u64) {
        let memory = usize::try_from(address).ok().zip(usize::try_from(length).ok());
        let memory = memory.and_then(|(start, length)| Some(start..start.checked_add(length)?));
        if let Some(memory) = memory.filter(|memory| !memory.is_empty()) {
            self.segments.push(Segment { memory, offset });
        }
    }

    /// The bytes from `address` to the end of its block, if they are in the file.
    fn block(&self, address: usize) -> Option<&'d [u8]> {
        let behind = self.segments.partition_point(|segment| segment.memory.start <= address);
        let Segment { memory, offset } = self.segments.get(behind.checked_sub(1)?)?;
        if !memory.contains(&address) {
            return None;
        }
        let within = address - memory.start;
        let begin = within - within % BLOCK;
        let length = BLOCK.min(memory.len() - begin);
        let at = offset.checked_add(begin as u64)?;
        self.data.read_bytes_at(at, length as u64).ok()?.get(within - begin..)
    }

    /// A copy of memory, if all of it is in the file.
    pub(crate) fn bytes(&self, address: usize, length: usize) -> Option<Vec<u8>> {
        if length > MAX_COPY {
            return None;
        }
        let mut bytes = Vec::new();
        while bytes.len() < length {
            let block = self.block(address.checked_add(bytes.len())?)?;
            bytes.extend(&block[..block.len().min(length - bytes.len())]);
        }
        Some(bytes)
    }

    /// A half word, if it is in the file.
    pub(crate) fn half(&self, address: usize) -> Option<u32> {
        self.block(address)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// Where memory of mapped files is in the file that the process may have written: the data of
    /// the program and its shared objects.
    pub(crate) fn data_of_files(&self) -> impl Iterator<Item = Range<usize>> {
        self.segments.iter().map(|segment| segment.memory.clone()).filter(|memory| {
            self.files
                .iter()
                .any(|file| file.memory.start < memory.end && memory.start < file.memory.end)
        })
    }
}

impl<'d, R: ReadRef<'d>> Memory for Core<R> {
    fn read(&self, address: usize) -> Option<usize> {
        if !address.is_multiple_of(size_of::<usize>()) {
            return None;
        }
        self.block(address)?.first_chunk().map(|bytes| usize::from_le_bytes(*bytes))
    }
}

/// The parts of files in a note `NT_FILE`: their number, the unit of offsets, three words for each
/// part, then the paths.
fn files(note: &[u8]) -> Option<Vec<Mapped>> {
    let word = |i: usize| {
        let bytes = note.get(i.checked_mul(8)?..)?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(*bytes)).ok()
    };
    let (count, unit) = (word(0)?, word(1)?);
    let names = note.get(count.checked_mul(24)?.checked_add(16)?..)?;
    let mut names = names.split(|byte| *byte == 0);
    let mut files = Vec::new();
    for i in 0..count {
        let [start, end, offset] = [word(2 + 3 * i)?, word(3 + 3 * i)?, word(4 + 3 * i)?];
        let path = String::from_utf8_lossy(names.next()?).into_owned();
        files.push(Mapped { memory: start..end, offset: offset.wrapping_mul(unit), path });
    }
    Some(files)
}
