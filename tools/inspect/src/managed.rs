//! Managed code in the memory of a process: the ELF objects of gdb's JIT interface.

use crate::core_file::Core;
use crate::error::Error;
use addr2line::Context;
use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian};
use object::{Object, ObjectSection, ObjectSymbol, ReadRef, SymbolKind};
use stackmark_unwind::{Announce, Code, Function, Memory, Region};
use std::collections::HashSet;
use std::ops::Range;
use std::rc::Rc;

/// The lines of managed code.
#[derive(Default)]
pub(crate) struct Lines {
    /// By address: first byte, the byte behind the last, file, line.
    rows: Vec<(u64, u64, Rc<str>, u32)>,
}

impl Lines {
    /// File and line of the code at `pc`.
    pub(crate) fn find(&self, pc: usize) -> Option<(String, u32)> {
        let pc = pc as u64;
        let behind = self.rows.partition_point(|row| row.0 <= pc);
        let (_, end, file, line) = self.rows.get(behind.checked_sub(1)?)?;
        (pc < *end).then(|| (file.to_string(), *line))
    }

    /// Adds the lines of an object, if it has any.
    fn add(&mut self, object: &[u8], code: Range<usize>) {
        let Ok(file) = object::File::parse(object) else { return };
        let dwarf = Dwarf::load(|id| -> Result<_, object::Error> {
            let bytes = match file.section_by_name(id.name()) {
                Some(section) => section.data()?,
                None => &[],
            };
            Ok(EndianSlice::new(bytes, LittleEndian))
        });
        let Ok(Ok(context)) = dwarf.map(Context::from_dwarf) else { return };
        let range = context.find_location_range(code.start as u64, code.end as u64);
        let mut last: Rc<str> = "".into();
        for (start, length, location) in range.into_iter().flatten() {
            let (Some(file), Some(line)) = (location.file, location.line) else { continue };
            if *last != *file {
                last = file.into();
            }
            self.rows.push((start, start.saturating_add(length), last.clone(), line));
        }
    }

    /// To be called when all is added.
    fn sort(&mut self) {
        self.rows.sort_unstable_by_key(|row| row.0);
    }
}

/// What was found, and what could not be used.
#[derive(Default)]
pub(crate) struct Managed {
    pub(crate) lines: Lines,
    pub(crate) complaints: Vec<String>,
}

/// Registers all objects of the list at `descriptor` with `code`.
pub(crate) fn register<'d, R: ReadRef<'d>>(
    core: &Core<R>,
    descriptor: usize,
    code: &Code,
) -> Result<Managed, Error> {
    let word = |address: usize| {
        let what = "the list of managed code";
        core.read(address).ok_or(Error::Unreadable { what, address })
    };
    let mut found = Managed::default();
    let mut seen = HashSet::new();
    // `struct jit_descriptor`: two half words, the entry in question, the first entry.
    let mut entry = word(descriptor.wrapping_add(16))?;
    while entry != 0 {
        if !seen.insert(entry) {
            return Err(Error::Endless("managed code"));
        }
        // `struct jit_code_entry`: next, previous, address of the object, its size.
        let (next, address) = (word(entry)?, word(entry.wrapping_add(16))?);
        let length = word(entry.wrapping_add(24))?;
        let object = core
            .bytes(address, length)
            .ok_or(Error::Unreadable { what: "an object of managed code", address })?;
        match region(&object) {
            Ok(region) => {
                let range = region.start..region.start.wrapping_add(region.len);
                match code.register(region) {
                    Ok(_) => found.lines.add(&object, range),
                    Err(error) => found.complaints.push(format!("managed code: {error}")),
                }
            }
            Err(error) => found.complaints.push(format!("managed code at {address:#x}: {error}")),
        }
        entry = next;
    }
    found.lines.sort();
    Ok(found)
}

/// The region that an object describes.
fn region(object: &[u8]) -> Result<Region, object::Error> {
    let file = object::File::parse(object)?;
    // `.text` has no bytes, and its address is the code's.
    let text = file.section_by_name(".text");
    let (start, len) = text.map_or((0, 0), |text| (text.address() as usize, text.size() as usize));
    let (eh_frame, eh_frame_address) = match file.section_by_name(".eh_frame") {
        Some(section) => (section.data()?.to_vec(), section.address() as usize),
        None => (Vec::new(), 0),
    };
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let functions = functions.filter_map(|symbol| {
        Some(Function {
            name: symbol.name().ok()?.to_owned(),
            start: start.wrapping_add(symbol.address() as usize),
            len: symbol.size() as usize,
            ..Function::default()
        })
    });
    Ok(Region {
        name: "managed code".into(),
        start,
        len,
        eh_frame,
        eh_frame_address,
        functions: functions.collect(),
        announce: Announce::NONE,
        ..Region::default()
    })
}
