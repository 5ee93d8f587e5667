//! Shows what an ELF file's CFI becomes, or the UNWIND_INFO of a file in Microsoft's format:
//! `inspect [--check] [--pc ADDR] [--table] FILE...`
//!
//! Without options it prints a summary of each file: functions, rules by form, bytes of CFI and of
//! compiled tables, LLVM safepoints, code that no CFI covers. `--table` lists all functions. `--pc`
//! prints the rule for an address of the file. `--check` evaluates every row as gimli does, and
//! exits with 1 if any differs, or if there is none. Rows that gimli refuses and libgcc takes are
//! evaluated as libgcc does. An object file is laid out from 0x1000 on. UNWIND_INFO is compared at
//! each instruction with what `RtlVirtualUnwind` would do there; rows are those that it becomes.

#[path = "../tests/support/pe_reference.rs"]
mod pe_reference;
#[path = "../tests/support/reference.rs"]
mod reference;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian, Register,
    UnwindSection,
};
use object::{
    Object, ObjectKind, ObjectSection, ObjectSymbol, ObjectSymbolTable, RelocationTarget,
};
use pe_reference::Reference;
use reference::{Outcome, State};
use stackmark_unwind::stack_map::{StackMaps, llvm};
use stackmark_unwind::{Image, Memory, Recovered, RegisterSet, UnwindRule};

/// Bytes of an address.
const ADDRESS_SIZE: u8 = size_of::<usize>() as u8;

type Failure = Box<dyn std::error::Error>;
type Reader<'a> = EndianSlice<'a, LittleEndian>;

#[derive(Default)]
struct Options {
    check: bool,
    table: bool,
    pc: Option<usize>,
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("{message}\nusage: inspect [--check] [--table] [--pc ADDR] FILE...");
            return ExitCode::from(2);
        }
    };
    let mut differences = 0;
    let mut failed = false;
    for file in &options.files {
        match inspect(file, &options) {
            Ok(found) => differences += found,
            Err(error) => {
                eprintln!("{}: {error}", file.display());
                failed = true;
            }
        }
    }
    ExitCode::from(u8::from(differences > 0 || failed))
}

fn options() -> Result<Options, String> {
    let mut options = Options::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--check" => options.check = true,
            "--table" => options.table = true,
            "--pc" => {
                let address = arguments.next().ok_or("--pc needs an address")?;
                let digits = address.strip_prefix("0x").unwrap_or(&address);
                options.pc = Some(
                    usize::from_str_radix(digits, 16)
                        .map_err(|error| format!("{address}: {error}"))?,
                );
            }
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            file => options.files.push(file.into()),
        }
    }
    if options.files.is_empty() {
        return Err("no file".into());
    }
    Ok(options)
}

/// Prints what the options ask for. Yields the number of rows that differ.
fn inspect(path: &Path, options: &Options) -> Result<usize, Failure> {
    let bytes = std::fs::read(path)?;
    let file = object::File::parse(&*bytes)?;
    let image = Image::open(path, 0, &[PathBuf::from("/usr/lib/debug")])?;
    if let Some(pc) = options.pc {
        match image.rule(pc)? {
            Some(rule) => println!("{pc:#x}: {rule}"),
            None => println!("{pc:#x}: no CFI covers it"),
        }
        return Ok(0);
    }
    // Its entries are read one by one.
    let single = Image::open(path, 0, &[PathBuf::from("/usr/lib/debug")])?;
    let begun = Instant::now();
    let compiled = image.compile()?;
    let time = begun.elapsed();
    let functions = image.functions()?;
    if options.table {
        print_table(&file, &image, &functions)?;
    }
    let mut rows = Census::default();
    let is_elf = file.format() == object::BinaryFormat::Elf;
    let differences = match is_elf {
        true => census([&image, &single], options.check, &mut rows)?,
        false => census_of_functions([&image, &single], &bytes, options.check, &mut rows)?,
    };
    if options.check && rows.rows == 0 {
        return Err("no CFI was found, so there is nothing to check".into());
    }
    let uncovered: Vec<Range<usize>> = uncovered(&file, &image, &functions);
    let safepoints = safepoints(&file, &image)?;
    println!(
        "{}: {} functions, {} rows ({} not packed), {} bytes of CFI -> {compiled} ({:.2}), \
         {:.1} ms/MiB, {} uncovered ranges of code ({} bytes){}",
        path.display(),
        functions.len(),
        rows.rows,
        rows.unpacked,
        image.cfi_bytes(),
        compiled as f64 / image.cfi_bytes().max(1) as f64,
        time.as_secs_f64() * 1e3 / (image.cfi_bytes().max(1) as f64 / f64::from(1 << 20)),
        uncovered.len(),
        uncovered.iter().map(ExactSizeIterator::len).sum::<usize>(),
        safepoints.as_ref().map_or_else(String::new, |maps| {
            format!(
                ", {} safepoints ({:.1} bytes each)",
                maps.len(),
                maps.bytes() as f64 / maps.len().max(1) as f64
            )
        }),
    );
    if options.table {
        for range in &uncovered {
            println!("  uncovered {range:#x?}");
        }
    }
    if options.check {
        println!(
            "  checked: {} rows equal, {differences} differ, {} that the reference refuses too",
            rows.rows - rows.refused - differences.min(rows.rows - rows.refused),
            rows.refused
        );
    }
    Ok(differences)
}

/// LLVM's stack maps, if there are any, with the addresses that the file gives to its functions.
fn safepoints(file: &object::File<'_>, image: &Image) -> Result<Option<StackMaps>, Failure> {
    let Some(section) = file.section_by_name(".llvm_stackmaps") else { return Ok(None) };
    let mut contents = section.uncompressed_data()?.into_owned();
    let dynamic = file.dynamic_relocations().into_iter().flatten();
    for (at, relocation) in dynamic.chain(section.relocations()) {
        let offset = at.wrapping_sub(section.address()) as usize;
        let Some(word) = contents.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) else {
            continue;
        };
        let base = match relocation.target() {
            RelocationTarget::Symbol(index) if file.kind() == ObjectKind::Relocatable => {
                symbol_address(image, &file.symbol_by_index(index)?)
            }
            RelocationTarget::Symbol(index) => {
                let symbols = file.dynamic_symbol_table().ok_or("relocations without symbols")?;
                symbols.symbol_by_index(index)?.address()
            }
            _ => 0,
        };
        *word = base.wrapping_add_signed(relocation.addend()).to_le_bytes();
    }
    let maps: Result<Vec<_>, _> = llvm::stack_maps(&contents)?.into_iter().collect();
    Ok(Some(StackMaps::new(maps?)?))
}

/// Where a symbol lies, in an object file too, whose sections the image has laid out.
fn symbol_address<'a>(image: &Image, symbol: &impl ObjectSymbol<'a>) -> u64 {
    let section = symbol.section_index().and_then(|index| image.section_address(index.0));
    symbol.address() + section.unwrap_or(0) as u64
}

fn print_table(
    file: &object::File<'_>,
    image: &Image,
    functions: &[Range<usize>],
) -> Result<(), Failure> {
    let mut names: Vec<(u64, &str)> = file
        .symbols()
        .chain(file.dynamic_symbols())
        .filter_map(|symbol| Some((symbol_address(image, &symbol), symbol.name().ok()?)))
        .collect();
    names.sort_unstable();
    for function in functions {
        let i = names.partition_point(|name| name.0 < function.start as u64);
        let name =
            names.get(i).filter(|name| name.0 == function.start as u64).map_or("?", |name| name.1);
        println!("  {:#x}..{:#x} {name}", function.start, function.end);
        let mut last: Option<UnwindRule<'_>> = None;
        for pc in function.clone() {
            let rule = image.rule(pc).unwrap_or(None);
            if rule != last {
                match &rule {
                    Some(rule) => println!("    +{:#x} {rule}", pc - function.start),
                    None => println!("    +{:#x} no rule", pc - function.start),
                }
                last = rule;
            }
        }
    }
    Ok(())
}

/// The parts of `.text` that no function covers, padding between functions aside.
fn uncovered(
    file: &object::File<'_>,
    image: &Image,
    functions: &[Range<usize>],
) -> Vec<Range<usize>> {
    let Some(text) = file.section_by_name(".text") else { return Vec::new() };
    let start = image.section_address(text.index().0).unwrap_or(text.address() as usize);
    let contents = text.uncompressed_data().unwrap_or_default();
    let end = start + contents.len();
    let mut ranges = Vec::new();
    let mut covered = start;
    for function in functions.iter().filter(|function| function.start < end).chain([&(end..end)]) {
        if function.start > covered {
            let gap = &contents[covered - start..function.start - start];
            // Compilers fill with nops of any length, and with traps.
            if gap.len() >= 16
                && gap
                    .iter()
                    .any(|byte| !matches!(byte, 0xcc | 0x90 | 0x66 | 0x2e | 0x0f | 0x1f | 0))
            {
                ranges.push(covered..function.start);
            }
        }
        covered = covered.max(function.end);
    }
    ranges
}

#[derive(Default)]
struct Census {
    rows: usize,
    unpacked: usize,
    refused: usize,
}

/// Goes through the rows of the image's sections, and compares each, if asked to: by the compiled
/// tables and by its entry alone. Yields how many differ.
fn census(
    [image, single]: [&Image; 2],
    check: bool,
    census: &mut Census,
) -> Result<usize, Failure> {
    let mut differences = 0;
    // What the sections before describe: an earlier one counts.
    let mut covered: Vec<Range<u64>> = Vec::new();
    for (bytes, is_debug_frame, bases, bias) in image.cfi_sections() {
        let mut own = Vec::new();
        let sections = Sections { image, single, bias: bias as u64, covered: &covered, check };
        differences += if is_debug_frame {
            let mut section = DebugFrame::new(bytes, LittleEndian);
            section.set_address_size(ADDRESS_SIZE);
            section.set_vendor(reference::VENDOR);
            rows(&section, bases, &sections, &mut own, census)?
        } else {
            let mut section = EhFrame::new(bytes, LittleEndian);
            section.set_address_size(ADDRESS_SIZE);
            section.set_vendor(reference::VENDOR);
            rows(&section, bases, &sections, &mut own, census)?
        };
        covered.append(&mut own);
        covered.sort_by_key(|range| range.start);
    }
    Ok(differences)
}

/// The same for an image with UNWIND_INFO.
fn census_of_functions(
    [image, single]: [&Image; 2],
    bytes: &[u8],
    check: bool,
    census: &mut Census,
) -> Result<usize, Failure> {
    let reference = Reference::read(bytes)?;
    let mut differences = 0;
    for function in &reference.functions {
        let (mut last, mut is_equal) = (None, true);
        for at in reference.instructions(function) {
            let pc = reference.base() + u64::from(at);
            let rule = image.rule(pc as usize)?.ok_or("an entry of code that is none")?;
            if last.as_ref() != Some(&rule) {
                census.rows += 1;
                census.unpacked += usize::from(rule.is_interpreted());
                differences += usize::from(!std::mem::replace(&mut is_equal, true));
                last = Some(rule.clone());
            }
            if !check || !is_equal {
                continue;
            }
            is_equal &= single.rule(pc as usize)?.as_ref() == Some(&rule);
            is_equal &= reference.agrees(*function, at, &rule);
            if !is_equal {
                println!("  {pc:#x}: became {rule}");
            }
        }
        differences += usize::from(!is_equal);
    }
    Ok(differences)
}

struct Sections<'a> {
    image: &'a Image,
    single: &'a Image,
    /// An address in memory minus the same one in the section.
    bias: u64,
    covered: &'a [Range<u64>],
    check: bool,
}

impl Sections<'_> {
    fn is_covered(&self, pc: u64) -> bool {
        let i = self.covered.partition_point(|range| range.start <= pc);
        i.checked_sub(1).is_some_and(|i| self.covered[i].contains(&pc))
    }
}

fn rows<'a, S: UnwindSection<Reader<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    sections: &Sections<'_>,
    own: &mut Vec<Range<u64>>,
    census: &mut Census,
) -> Result<usize, Failure>
where
    S::Offset: gimli::UnwindOffset<usize>,
{
    let Sections { image, single, bias, check, .. } = *sections;
    let mut differences = 0;
    let mut entries = section.entries(bases);
    while let Some(entry) = entries.next()? {
        let CieOrFde::Fde(partial) = entry else { continue };
        let fde = partial.parse(S::cie_from_offset)?;
        let start = fde.initial_address().wrapping_add(bias);
        // Linkers leave entries of code that they have dropped, at 0, and of empty functions.
        if fde.initial_address() == 0 || fde.len() == 0 || !image.holds(start as usize) {
            continue;
        }
        own.push(start..fde.end_address().wrapping_add(bias));
        let rows = match reference::rows(section, bases, &fde) {
            Ok(rows) => rows,
            Err(error) => {
                // The image refuses what the reference refuses.
                println!("  entry at {:#x} for {start:#x}: {error}", fde.offset());
                census.rows += 1;
                census.refused += 1;
                let last = fde.end_address().wrapping_add(bias) - 1;
                differences +=
                    usize::from(!sections.is_covered(last) && image.rule(last as usize).is_ok());
                continue;
            }
        };
        for (first, behind, row) in rows {
            let (mut equal, mut refused, mut seen) = (true, false, false);
            let signal_frame = fde.is_signal_trampoline();
            for pc in [first, first + (behind - first) / 2, behind - 1] {
                let at = pc.wrapping_add(bias);
                if sections.is_covered(at) {
                    continue;
                }
                let rule = image.rule(at as usize).unwrap_or(None);
                let is_first = !std::mem::replace(&mut seen, true);
                census.unpacked +=
                    usize::from(is_first && rule.as_ref().is_some_and(UnwindRule::is_interpreted));
                if !check {
                    break;
                }
                equal &= single.rule(at as usize).unwrap_or(None) == rule;
                for seed in [pc, !pc] {
                    let values = reference::registers(seed);
                    let expected = reference::evaluate(section, &row, signal_frame, &values);
                    match (expected, rule.as_ref().and_then(|rule| outcome(rule, &values))) {
                        (Ok(expected), Some(outcome)) => equal &= expected == outcome,
                        (Err(_), None) => refused = true,
                        _ => equal = false,
                    }
                }
                if !equal {
                    println!(
                        "  {at:#x}: {row:?}\n    became {}",
                        rule.map_or("nothing".into(), |r| r.to_string())
                    );
                    break;
                }
            }
            census.rows += usize::from(seen);
            census.refused += usize::from(refused);
            differences += usize::from(!equal);
        }
    }
    Ok(differences)
}

/// A memory that holds something at every address.
struct Everywhere;

impl Memory for Everywhere {
    fn read(&self, address: usize) -> Option<usize> {
        Some(reference::memory(address as u64) as usize)
    }
}

/// What a rule yields, in the words of the reference; `None` if it cannot be evaluated.
fn outcome(rule: &UnwindRule<'_>, values: &[u64; reference::REGISTERS]) -> Option<Outcome> {
    let mut context = RegisterSet::new(0, 0, 0);
    for (number, value) in values.iter().enumerate() {
        context.set(Register(number as u16), *value as usize);
    }
    let recovery = rule.evaluate(&context, &Everywhere).ok()?;
    let registers =
        std::array::from_fn(|number| match recovery.register(Register(number as u16)) {
            _ if recovery.oldest => State::Unknown,
            Recovered::Unknown => State::Unknown,
            Recovered::Same => State::Same,
            Recovered::At(address) => State::At(address as u64),
            Recovered::Value(value) => State::Value(value as u64),
        });
    let (cfa, oldest, signal_frame) = (recovery.cfa as u64, recovery.oldest, recovery.signal_frame);
    Some(Outcome { cfa, oldest, signal_frame, registers })
}
