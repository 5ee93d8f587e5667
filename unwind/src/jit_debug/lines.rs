//! The lines of managed functions as DWARF: one unit for a region, with an entry for each function
//! of which a line is known.

use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, FileId, LineProgram, LineString, Sections,
};
use gimli::{
    DW_AT_external, DW_AT_high_pc, DW_AT_language, DW_AT_low_pc, DW_AT_name, DW_LANG_C99,
    DW_TAG_subprogram, DwLang, Encoding, Format, LineEncoding, LittleEndian, SectionId,
};

use crate::arch::WORD;
use crate::region::{Function, Region, SourceLines};

/// The language of the unit. Debuggers show names of C as they are, whatever they look like.
const LANGUAGE: DwLang = DW_LANG_C99;

/// A name and the bytes of a section.
type Section = (&'static str, Vec<u8>);

/// The sections, or none if no function's lines are known.
pub(super) fn sections(region: &Region) -> Vec<Section> {
    let known = region.functions.iter().filter_map(|function| {
        let source = function.source.as_ref()?;
        (!text(&source.file).is_empty()).then_some((function, source))
    });
    let known: Vec<_> = known.collect();
    // All addresses are constants, so nothing in it can fail. A debugger does without lines.
    if known.is_empty() { Vec::new() } else { unit(region, &known).unwrap_or_default() }
}

fn unit(
    region: &Region,
    known: &[(&Function, &SourceLines)],
) -> Result<Vec<Section>, gimli::write::Error> {
    let encoding = Encoding { format: Format::Dwarf32, version: 4, address_size: WORD as u8 };
    let first = &known[0].1.file;
    let mut program =
        LineProgram::new(encoding, LineEncoding::default(), string("/"), None, string(first), None);
    let directory = program.default_directory();
    for (function, source) in known {
        let file = program.add_file(string(&source.file), directory, None);
        add_lines(&mut program, file, function, source);
    }
    let mut dwarf = DwarfUnit::new(encoding);
    dwarf.unit.line_program = program;
    let root = dwarf.unit.get_mut(dwarf.unit.root());
    root.set(DW_AT_name, name(first));
    root.set(DW_AT_language, AttributeValue::Language(LANGUAGE));
    root.set(DW_AT_low_pc, address(region.start));
    root.set(DW_AT_high_pc, AttributeValue::Udata(region.len as u64));
    for (function, _) in known {
        let entry = dwarf.unit.add(dwarf.unit.root(), DW_TAG_subprogram);
        let entry = dwarf.unit.get_mut(entry);
        entry.set(DW_AT_name, name(&function.name));
        entry.set(DW_AT_external, AttributeValue::FlagPresent);
        entry.set(DW_AT_low_pc, address(function.start));
        entry.set(DW_AT_high_pc, AttributeValue::Udata(function.len as u64));
    }
    let mut sections = Sections::new(EndianVec::new(LittleEndian));
    dwarf.write(&mut sections)?;
    let mut written = Vec::new();
    sections.for_each_mut(|id, section| -> Result<(), gimli::write::Error> {
        if [SectionId::DebugAbbrev, SectionId::DebugInfo, SectionId::DebugLine].contains(&id) {
            written.push((id.name(), section.take()));
        }
        Ok(())
    })?;
    Ok(written)
}

/// Writes the function's lines. Offsets that do not ascend or lie outside of it are left out.
fn add_lines(program: &mut LineProgram, file: FileId, function: &Function, source: &SourceLines) {
    program.begin_sequence(Some(Address::Constant(function.start as u64)));
    let mut next = 0;
    for &(offset, line) in &source.lines {
        if u64::from(offset) < next || offset as usize >= function.len {
            continue;
        }
        next = u64::from(offset) + 1;
        let row = program.row();
        (row.address_offset, row.file, row.line) = (offset.into(), file, line.into());
        program.generate_row();
    }
    program.end_sequence(function.len as u64);
}

fn address(address: usize) -> AttributeValue {
    AttributeValue::Address(Address::Constant(address as u64))
}

fn name(name: &str) -> AttributeValue {
    AttributeValue::String(text(name).to_owned())
}

fn string(name: &str) -> LineString {
    LineString::String(text(name).to_owned())
}

/// The bytes of a name. A zero byte would end it.
fn text(name: &str) -> &[u8] {
    name.split('\0').next().unwrap_or("").as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gimli::{Dwarf, EndianSlice};
    use proptest::prelude::*;

    /// The rows that a debugger reads: address, file, line.
    fn rows(sections: &[Section]) -> Vec<(u64, String, u64)> {
        let of = |id: SectionId| -> Result<_, gimli::Error> {
            let section = sections.iter().find(|(name, _)| *name == id.name());
            Ok(EndianSlice::new(section.map_or(&[], |(_, bytes)| bytes), LittleEndian))
        };
        let dwarf = Dwarf::load(of).expect("sections");
        let mut rows = Vec::new();
        let mut units = dwarf.units();
        while let Some(header) = units.next().expect("a unit") {
            let unit = dwarf.unit(header).expect("a unit");
            let mut program = unit.line_program.clone().expect("lines").rows();
            while let Some((header, row)) = program.next_row().expect("a row") {
                if !row.end_sequence() {
                    let file = row.file(header).expect("a file").path_name();
                    let file = dwarf.attr_string(&unit, file).expect("a name");
                    let line = row.line().map_or(0, u64::from);
                    rows.push((row.address(), file.to_string_lossy().into_owned(), line));
                }
            }
        }
        rows
    }

    fn function(start: usize, file: &str, lines: &[(u32, u32)]) -> Function {
        let source = SourceLines { file: file.into(), lines: lines.to_vec() };
        Function { name: "f".into(), start, len: 0x40, source: Some(source), ..Function::default() }
    }

    fn region(functions: Vec<Function>) -> Region {
        Region { start: 0x1000, len: 0x100, functions, ..Region::default() }
    }

    #[test]
    fn the_lines_of_each_function_come_with_its_file() {
        let region = region(vec![
            function(0x1000, "/a.go", &[(0, 7), (9, 8)]),
            Function { name: "g".into(), start: 0x1040, len: 0x40, ..Function::default() },
            function(0x1080, "b\0.go", &[(4, 0), (8, 70_000)]),
        ]);
        let expected = [(0x1000, "/a.go", 7), (0x1009, "/a.go", 8), (0x1084, "b", 0)];
        let expected = expected.into_iter().chain([(0x1088, "b", 70_000)]);
        let expected: Vec<_> = expected.map(|(at, file, line)| (at, file.into(), line)).collect();
        assert_eq!(rows(&sections(&region)), expected);
    }

    #[test]
    fn without_lines_there_are_no_sections() {
        let plain = Function { start: 0x1000, len: 1, ..Function::default() };
        assert!(sections(&region(vec![plain, function(0x1010, "\0", &[(0, 1)])])).is_empty());
    }

    proptest! {
        #[test]
        fn whatever_the_lines_rows_ascend_within_their_function(
            lines in prop::collection::vec((0..0x60u32, any::<u32>()), 0..20),
        ) {
            let rows = rows(&sections(&region(vec![function(0x1000, "/a.go", &lines)])));
            prop_assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0));
            prop_assert!(rows.iter().all(|row| (0x1000..0x1040).contains(&row.0)));
            for (at, _, line) in rows {
                prop_assert!(lines.contains(&((at - 0x1000) as u32, line as u32)));
            }
        }
    }
}
