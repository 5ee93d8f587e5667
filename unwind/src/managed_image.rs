//! Managed code that was compiled ahead of time: from the sections of a loaded image to regions.
//!
//! The stack maps name the functions. The image's CFI says how far each reaches, and its symbols
//! say what it is called. Functions that lie side by side become one region. Code of the image that
//! no map names, for example its C functions, is in no region: were such a frame to stand on a
//! managed stack, a walk would say so instead of passing over it.
//!
//! A function that several objects have in a COMDAT group (a template, an inline function) has one
//! copy of its code, and maps of each object: linkers drop code by group, and keep all maps. The
//! maps all name the copy that was kept. They are used if they are equal.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::arch::CALL_PUSHES;
use crate::image::ImageError;
use crate::image::contents::Contents;
use crate::image::rule_source::Extent;
use crate::os_images;
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
    /// Several objects have a function, and their maps of it differ: they have compiled it in
    /// different ways. The linker has kept one copy of the code, and does not say whose.
    #[error(
        "image {image}, section {section}, offset {offset:#x}: function {function} has other maps \
         here than at offset {first:#x}: objects with different copies of it were linked"
    )]
    Copies {
        /// The image's name.
        image: String,
        /// The section's name.
        section: &'static str,
        /// Where the function's maps begin in the section.
        offset: usize,
        /// The function's name.
        function: String,
        /// Where its other maps begin.
        first: usize,
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
        match *section {
            llvm::SECTION => of_llvm(&contents, bytes, &mut items)?,
            _ => of_object(&contents, bytes, &mut items)?,
        }
    }
    if items.is_empty() {
        return Err(ManagedImageError::NoMaps { image: image() });
    }
    let pcs: Vec<usize> = items.iter().map(|item| item.pc).collect();
    let extents = os_images::extents(address, &pcs)?;
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

fn of_llvm(
    contents: &Contents,
    section: &[u8],
    items: &mut Vec<Item>,
) -> Result<(), ManagedImageError> {
    let image = || contents.name.clone();
    let malformed = |source| ManagedImageError::Llvm { image: image(), source };
    let mut copies = Copies::new(contents, llvm::SECTION);
    for records in llvm::by_function(section).map_err(malformed)? {
        let Some(first) = records.first() else { continue };
        let (offset, function, stack_size) = (first.offset, first.function, first.stack_size);
        let map = |record: &llvm::Record| {
            let offset = record.offset;
            let failed = |source| ManagedImageError::Statepoint { image: image(), offset, source };
            Ok::<_, ManagedImageError>((offset, record.statepoint().map_err(failed)?))
        };
        let maps = records.iter().map(map).collect::<Result<Vec<(usize, StackMap)>, _>>()?;
        let bare: Vec<StackMap> = maps.iter().map(|(_, map)| map.clone()).collect();
        if copies.is_another(function, offset, (stack_size, bare))? {
            continue;
        }
        let frame = stack_size.map(|size| size.saturating_add(CALL_PUSHES as u64));
        let section = llvm::SECTION;
        // A call may lie in a part of the function that has been put elsewhere.
        let what = What::Function { moves_return_address: false };
        items.push(Item { section, offset, pc: function, frame, what });
        for (offset, map) in maps {
            let pc = map.return_address.wrapping_sub(1);
            items.push(Item { section, offset, pc, frame, what: What::StackMap(map) });
        }
    }
    Ok(())
}

fn of_object(
    contents: &Contents,
    section: &[u8],
    items: &mut Vec<Item>,
) -> Result<(), ManagedImageError> {
    let malformed = |source| ManagedImageError::Object { image: contents.name.clone(), source };
    let mut copies = Copies::new(contents, object::SECTION);
    for (offset, maps) in object::read(section).map_err(malformed)? {
        if copies.is_another(maps.address, offset, maps.clone())? {
            continue;
        }
        let object::FunctionMaps { address, moves_return_address, has_room, safepoints } = maps;
        let mut push = |pc, frame, what| {
            items.push(Item { section: object::SECTION, offset, pc, frame: Some(frame), what });
        };
        push(address, 0, What::Function { moves_return_address });
        for mut safepoint in safepoints {
            safepoint.return_address = safepoint.return_address.wrapping_add(address);
            let pc = safepoint.return_address.wrapping_sub(1);
            let frame = if has_room { 0 } else { safepoint.cfa_offset.into() };
            push(pc, frame, What::Safepoint(safepoint));
        }
    }
    Ok(())
}

/// The maps of each function of a section, to compare those of several objects.
struct Copies<'c, M> {
    contents: &'c Contents,
    section: &'static str,
    /// By the function's address: where its first maps begin, and what they say.
    seen: HashMap<usize, (usize, M)>,
}

impl<'c, M: PartialEq> Copies<'c, M> {
    fn new(contents: &'c Contents, section: &'static str) -> Copies<'c, M> {
        Copies { contents, section, seen: HashMap::new() }
    }

    /// Whether the function's maps have come before, in those of another object.
    ///
    /// # Errors
    ///
    /// They were others.
    fn is_another(
        &mut self,
        address: usize,
        offset: usize,
        maps: M,
    ) -> Result<bool, ManagedImageError> {
        let known = match self.seen.entry(address) {
            Entry::Vacant(place) => {
                place.insert((offset, maps));
                return Ok(false);
            }
            Entry::Occupied(known) => known.into_mut(),
        };
        if known.1 == maps {
            return Ok(true);
        }
        let function = self.contents.symbol(address);
        Err(ManagedImageError::Copies {
            image: self.contents.name.clone(),
            section: self.section,
            offset,
            function: function.map_or_else(|| format!("{address:#x}"), str::to_owned),
            first: known.0,
        })
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
