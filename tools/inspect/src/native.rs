//! The files that a process had mapped: their CFI and their symbols.

use crate::core_file::{Core, Mapped};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSymbol, ReadRef, SymbolKind, elf};
use stackmark_unwind::{Code, Image};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Native code and its names.
#[derive(Default)]
pub(crate) struct Native {
    files: Vec<NativeFile>,
    pub(crate) complaints: Vec<String>,
}

struct NativeFile {
    code: Vec<Range<usize>>,
    bias: usize,
    /// The file's own name, without its directory.
    name: String,
    /// Its functions by address in the file: address, size or 0, name.
    functions: Vec<(u64, u64, String)>,
}

impl Native {
    /// Adds the images of the process to `code`. `program` takes the place of the first file, which
    /// is the program itself.
    pub(crate) fn load<'d, R: ReadRef<'d>>(
        core: &Core<R>,
        program: Option<&Path>,
        code: &Code,
    ) -> Native {
        let mut native = Native::default();
        // Each file once, where its first byte lies.
        let mut files: BTreeMap<usize, &Mapped> = BTreeMap::new();
        for mapped in core.files.iter().filter(|mapped| mapped.offset == 0) {
            files.entry(mapped.memory.start).or_insert(mapped);
        }
        let first = core.files.first().map(|mapped| &mapped.path);
        for (base, mapped) in files {
            let instead = program.filter(|_| Some(&mapped.path) == first);
            let path = instead.map_or_else(|| PathBuf::from(&mapped.path), Path::to_owned);
            match open(core, base, &path) {
                Ok(Some((image, file))) => match code.add_image(image) {
                    Ok(()) => native.files.push(file),
                    Err(error) => native.complaints.push(error.to_string()),
                },
                Ok(None) => {}
                Err(why) => native.complaints.push(format!("{}: {why}", path.display())),
            }
        }
        native
    }

    /// The function at `pc`, or the file that `pc` lies in.
    pub(crate) fn name(&self, pc: usize) -> Option<String> {
        let holds = |file: &&NativeFile| file.code.iter().any(|range| range.contains(&pc));
        let file = self.files.iter().find(holds)?;
        let address = pc.wrapping_sub(file.bias) as u64;
        let behind = file.functions.partition_point(|function| function.0 <= address);
        let function = behind.checked_sub(1).map(|at| &file.functions[at]);
        let function = function.filter(|(at, size, _)| *size == 0 || address - at < *size);
        Some(function.map_or_else(
            || format!("[{}]", file.name),
            |(.., name)| format!("{:#}", rustc_demangle::demangle(name)),
        ))
    }
}

/// The image of a file that lies at `base`. `None` if the file is no ELF file with code.
fn open<'d, R: ReadRef<'d>>(
    core: &Core<R>,
    base: usize,
    path: &Path,
) -> Result<Option<(Image, NativeFile)>, String> {
    // A name in a core may be that of a device.
    let plain = std::fs::metadata(path).map_err(|error| error.to_string())?.is_file();
    if !plain {
        return Ok(None);
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let Ok(header) = elf::FileHeader64::<Endianness>::parse(&*bytes) else { return Ok(None) };
    let malformed = |error: object::Error| error.to_string();
    let endian = header.endian().map_err(malformed)?;
    let segments = header.program_headers(endian, &*bytes).map_err(malformed)?;
    let loaded = || segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
    let Some(lowest) = loaded().map(|segment| segment.p_vaddr(endian)).min() else {
        return Ok(None);
    };
    if !loaded().any(|segment| segment.p_flags(endian).0 & elf::PF_X.0 != 0) {
        return Ok(None);
    }
    let page = 4096;
    let bias = base.wrapping_sub((lowest & !(page - 1)) as usize);
    for segment in segments.iter().filter(|segment| segment.p_type(endian) == elf::PT_NOTE) {
        let (Ok(note), at) = (segment.data(endian, &*bytes), segment.p_vaddr(endian)) else {
            continue;
        };
        let held = core.bytes(bias.wrapping_add(at as usize), note.len());
        if held.is_some_and(|held| held != note) {
            return Err("the file has changed since the process began".into());
        }
    }
    let debug = [PathBuf::from("/usr/lib/debug")];
    let image = Image::open(path, bias, &debug).map_err(|error| error.to_string())?;
    let file = object::File::parse(&*bytes).map_err(malformed)?;
    let symbols = file.symbols().chain(file.dynamic_symbols());
    let functions = symbols.filter(|symbol| {
        // Labels of the assembly have no kind.
        matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown) && symbol.is_definition()
    });
    let mut functions: Vec<_> = functions
        .filter_map(|symbol| Some((symbol.address(), symbol.size(), symbol.name().ok()?.into())))
        .collect();
    functions.sort_unstable();
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let code = image.code().to_vec();
    Ok(Some((image, NativeFile { code, bias, name: name.unwrap_or_default(), functions })))
}
