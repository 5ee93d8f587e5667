//! Managed code that was compiled ahead of time: from the sections of a loaded image to regions.
//!
//! The stack maps name the functions. The image's CFI says how far each reaches, and its symbols
//! say what it is called. Functions that lie side by side become one region. Code of the image that
//! no map names, for example its C functions, is in no region: were such a frame to stand on a
//! managed stack, a walk would say so instead of passing over it.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::arch::CALL_PUSHES;
use crate::image::ImageError;
use crate::image::contents::Contents;
use crate::image::loaded::{self, Extent};
use crate::region::{Announce, Function, Region};
use crate::safepoint::Safepoint;
use crate::stack_map::llvm::{self, LlvmError};
use crate::stack_map::map::StackMap;
use crate::stack_map::object::{self, ObjectMapsError};

/// A linker's padding between two functions is smaller than this.
const PADDING: usize = 64;

/// Why the managed code of an image cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManagedImageError {
    /// The image or its file cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The image has no stack maps. A linker may have dropped the section, which no code refers to.
    #[error(
        "image {image} has neither a section {} nor a section {} with a function in it",
        llvm::SECTION,
        object::SECTION
    )]
    NoMaps {
        /// The image's name.
        image: String,
    },
    /// LLVM's section is malformed.
    #[error("image {image}, section {}: {source}", llvm::SECTION)]
    Llvm {
        /// The image's name.
        image: String,
        /// What is wrong, with its offset in the section.
        source: LlvmError,
    },
    /// The section of an object file's maps is malformed.
    #[error("image {image}, section {}: {source}", object::SECTION)]
    Object {
        /// The image's name.
        image: String,
        /// What is wrong, with its offset in the section.
        source: ObjectMapsError,
    },
    /// A record of LLVM's section is none of a statepoint whose roots can be visited.
    #[error("image {image}, section {}, offset {offset:#x}: {source}", llvm::SECTION)]
    Statepoint {
        /// The image's name.
        image: String,
        /// Where the record lies in the section.
        offset: usize,
        /// What is wrong with it.
        source: LlvmError,
    },
    /// The image's CFI covers no code at an address that a map names. The function has no unwind
    /// tables, or the section was not relocated.
    #[error("image {image}, section {section}, offset {offset:#x}: no CFI covers {address:#x}")]
    NotCovered {
        /// The image's name.
        image: String,
        /// The section's name.
        section: &'static str,
        /// Where the map lies in the section.
        offset: usize,
        /// The address.
        address: usize,
    },
    /// A frame is larger than allowed, or of a size that is not fixed.
    #[error(
        "image {image}, section {section}, offset {offset:#x}: function {function} has a frame of \
         {}; {limit} bytes are allowed",
        frame.map_or("no fixed size".into(), |bytes| format!("{bytes} bytes"))
    )]
    FrameTooLarge {
        /// The image's name.
        image: String,
        /// The section's name.
        section: &'static str,
        /// Where the map lies in the section.
        offset: usize,
        /// The function's name.
        function: String,
        /// The size of its frame in bytes, if it is fixed.
        frame: Option<u64>,
        /// The limit.
        limit: u32,
    },
}

/// One map or function of a section.
struct Item {
    section: &'static str,
    /// Where it lies in the section.
    offset: usize,
    /// An address in the code that it is about.
    pc: usize,
    /// The size of the frame without what calls push; `None` if it is not fixed.
    frame: Option<u64>,
    what: What,
}

enum What {
    Function { moves_return_address: bool },
    Safepoint(Safepoint),
    StackMap(StackMap),
}

/// The regions of the image that holds `address`, and its name.
pub(crate) fn regions(
    address: usize,
    max_frame: Option<u32>,
) -> Result<(String, Vec<Region>), ManagedImageError> {
    let contents = Contents::read(address, &[llvm::SECTION, object::SECTION])?;
    let image = || contents.name.clone();
    let mut items = Vec::new();
    for (section, bytes) in &contents.sections {
        if *section == llvm::SECTION {
            of_llvm(&contents.name, bytes, &mut items)?;
        } else {
            let functions = object::read(bytes)
                .map_err(|source| ManagedImageError::Object { image: image(), source })?;
            functions.into_iter().for_each(|(offset, maps)| of_object(offset, maps, &mut items));
        }
    }
    if items.is_empty() {
        return Err(ManagedImageError::NoMaps { image: image() });
    }
    let pcs: Vec<usize> = items.iter().map(|item| item.pc).collect();
    let extents = loaded::extents(address, &pcs)?;
    let mut functions: BTreeMap<usize, (Range<usize>, Vec<Item>)> = BTreeMap::new();
    for (item, extent) in items.into_iter().zip(extents) {
        let Item { section, offset, pc, frame, .. } = item;
        let missing =
            ManagedImageError::NotCovered { image: image(), section, offset, address: pc };
        let Extent { number, code } = extent.ok_or(missing)?;
        if let Some(limit) = max_frame
            && frame.is_none_or(|frame| frame > u64::from(limit))
        {
            let function = name(&contents, &code);
            let image = image();
            let error =
                ManagedImageError::FrameTooLarge { image, section, offset, function, frame, limit };
            return Err(error);
        }
        functions.entry(number).or_insert_with(|| (code, Vec::new())).1.push(item);
    }
    let mut regions: Vec<Region> = Vec::new();
    let mut last = None;
    for (number, (code, items)) in functions {
        let end = regions.last().map(|region| region.start + region.len);
        let beside = last == number.checked_sub(1)
            && end.is_some_and(|end| end <= code.start && code.start - end < PADDING);
        if !beside {
            let (name, announce) = (image(), Announce::NONE);
            regions.push(Region { name, start: code.start, announce, ..Region::default() });
        }
        last = Some(number);
        add(regions.last_mut().expect("pushed"), name(&contents, &code), code, items);
    }
    Ok((contents.name, regions))
}

fn of_llvm(image: &str, section: &[u8], items: &mut Vec<Item>) -> Result<(), ManagedImageError> {
    let malformed = |source| ManagedImageError::Llvm { image: image.into(), source };
    for record in llvm::records(section).map_err(malformed)? {
        let offset = record.offset;
        let failed = |source| ManagedImageError::Statepoint { image: image.into(), offset, source };
        let map = record.statepoint().map_err(failed)?;
        let item = |pc, what| Item {
            section: llvm::SECTION,
            offset,
            pc,
            frame: record.stack_size.map(|size| size.saturating_add(CALL_PUSHES as u64)),
            what,
        };
        // The call may lie in a part of the function that has been put elsewhere.
        let function = What::Function { moves_return_address: false };
        items.push(item(record.function, function));
        items.push(item(map.return_address.wrapping_sub(1), What::StackMap(map)));
    }
    Ok(())
}

fn of_object(offset: usize, maps: object::FunctionMaps, items: &mut Vec<Item>) {
    let object::FunctionMaps { address, moves_return_address, safepoints } = maps;
    let mut push = |pc, frame, what| {
        items.push(Item { section: object::SECTION, offset, pc, frame: Some(frame), what });
    };
    push(address, 0, What::Function { moves_return_address });
    for mut safepoint in safepoints {
        safepoint.return_address = safepoint.return_address.wrapping_add(address);
        let pc = safepoint.return_address.wrapping_sub(1);
        push(pc, u64::from(safepoint.cfa_offset), What::Safepoint(safepoint));
    }
}

/// The function's name; where it lies, if the image is stripped.
fn name(contents: &Contents, code: &Range<usize>) -> String {
    contents.symbol(code.start).map_or_else(|| format!("{:#x}", code.start), str::to_owned)
}

fn add(region: &mut Region, name: String, code: Range<usize>, items: Vec<Item>) {
    region.len = code.end - region.start;
    let mut function = Function { name, start: code.start, len: code.len(), ..Function::default() };
    for item in items {
        match item.what {
            What::Function { moves_return_address } => {
                function.moves_return_address |= moves_return_address;
            }
            What::Safepoint(safepoint) => region.safepoints.push(safepoint),
            What::StackMap(map) => region.stack_maps.push(map),
        }
    }
    region.functions.push(function);
}
