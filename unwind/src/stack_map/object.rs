//! Safepoints in an object file: the section `.stackmark_maps`, for compilers that know the whole
//! layout of their frames, as Cranelift does.
//!
//! All numbers are little-endian. The section has one blob for each linked object, aligned to eight
//! bytes. Zero words between blobs are a linker's padding. A blob is:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `SMM1` |
//! | 4 | its length in bytes, from the first one on; a multiple of 8 |
//! | 4 | the number of its functions |
//! | 4 | 0 |
//! | 16 a function | address (8, relocated), number of its safepoints (4), flags (4) |
//! | 12 a safepoint and 4 a slot | the functions' safepoints, in order |
//! | to a multiple of 8 | 0 |
//!
//! A safepoint is: its return address, from the function's start (4); its CFA minus its stack
//! pointer (4); the number of its slots (4); the slots' offsets from the stack pointer (4 each).
//!
//! Flag 1 says that the function
//! [moves its return address](crate::Function::moves_return_address), flag 2 that there is
//! [room](FunctionMaps::has_room) for its frame. A function without safepoints may be listed too:
//! it has a name in backtraces then.

use crate::safepoint::Safepoint;

/// The section's name.
pub const SECTION: &str = ".stackmark_maps";

const MAGIC: [u8; 4] = *b"SMM1";
const HEADER: usize = 16;
const FUNCTION: usize = 16;
const MOVES_RETURN_ADDRESS: u32 = 1;
const HAS_ROOM: u32 = 2;

/// The safepoints of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionMaps {
    /// Its address. Not written: the linker fills it in.
    pub address: usize,
    /// It moves its return address: see [`Function`](crate::Function::moves_return_address).
    pub moves_return_address: bool,
    /// What calls it has made room for its frame, which may be larger than the runtime's limit.
    pub has_room: bool,
    /// Its safepoints. Their return addresses count from the function's start.
    pub safepoints: Vec<Safepoint>,
}

/// What is wrong with the section, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObjectMapsError {
    /// The section ends in the middle of a blob.
    #[error("the maps end at offset {offset:#x}, in the middle of a blob")]
    Truncated {
        /// Where it ends.
        offset: usize,
    },
    /// Something that is no blob of this version.
    #[error("at offset {offset:#x} there is no blob of maps of version 1")]
    Version {
        /// Where.
        offset: usize,
    },
    /// A blob whose functions and safepoints do not fill it.
    #[error("the blob at offset {offset:#x} does not have the length of what is in it")]
    Length {
        /// Where it begins.
        offset: usize,
    },
    /// A flag that this version does not have.
    #[error("the function at offset {offset:#x} has unknown flags {flags:#x}")]
    Flags {
        /// Where its entry lies.
        offset: usize,
        /// Its flags.
        flags: u32,
    },
}

/// The bytes of one blob, and for each function the offset of the word that a relocation fills with
/// its address.
///
/// # Panics
///
/// If a safepoint is 4 GiB or more behind its function's start, or the blob is 4 GiB or larger.
pub fn write(functions: &[FunctionMaps]) -> (Vec<u8>, Vec<u32>) {
    let number = |n: usize| u32::try_from(n).expect("less than 4 GiB of maps").to_le_bytes();
    let mut bytes = MAGIC.to_vec();
    bytes.extend([[0; 4], number(functions.len()), [0; 4]].concat());
    let mut relocations = Vec::with_capacity(functions.len());
    for function in functions {
        relocations.push(u32::from_le_bytes(number(bytes.len())));
        bytes.extend([0; 8]);
        bytes.extend(number(function.safepoints.len()));
        let moves = if function.moves_return_address { MOVES_RETURN_ADDRESS } else { 0 };
        let flags = moves | if function.has_room { HAS_ROOM } else { 0 };
        bytes.extend(flags.to_le_bytes());
    }
    for safepoint in functions.iter().flat_map(|function| &function.safepoints) {
        bytes.extend(number(safepoint.return_address));
        bytes.extend(safepoint.cfa_offset.to_le_bytes());
        bytes.extend(number(safepoint.slots.len()));
        bytes.extend(safepoint.slots.iter().flat_map(|slot| slot.to_le_bytes()));
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let length = number(bytes.len());
    bytes[4..8].copy_from_slice(&length);
    (bytes, relocations)
}

/// The functions of a section that lies relocated in memory, each with the offset of its entry.
/// Return addresses count from the function's start.
///
/// # Errors
///
/// The section is malformed.
pub fn read(section: &[u8]) -> Result<Vec<(usize, FunctionMaps)>, ObjectMapsError> {
    let mut functions = Vec::new();
    let mut at = 0;
    while at < section.len() {
        let rest = &section[at..];
        if rest.first_chunk() == Some(&[0; 8]) {
            at += 8;
            continue;
        }
        if rest.get(..4) != Some(&MAGIC) {
            return Err(ObjectMapsError::Version { offset: at });
        }
        let truncated = ObjectMapsError::Truncated { offset: section.len() };
        let length = word(rest, 4).ok_or(truncated)? as usize;
        let blob = rest.get(..length).ok_or(truncated)?;
        let bad = ObjectMapsError::Length { offset: at };
        if length < HEADER || !length.is_multiple_of(8) {
            return Err(bad);
        }
        blob_functions(blob, at, &mut functions)?.filter(|end| *end == length).ok_or(bad)?;
        at += length;
    }
    Ok(functions)
}

/// Reads the functions of one blob, which lies at `offset`. Yields where their safepoints end, up
/// to a multiple of eight bytes; `None` if that is behind the blob.
fn blob_functions(
    blob: &[u8],
    offset: usize,
    functions: &mut Vec<(usize, FunctionMaps)>,
) -> Result<Option<usize>, ObjectMapsError> {
    let Some(count) = word(blob, 8) else { return Ok(None) };
    let Some(mut at) = (count as usize).checked_mul(FUNCTION).and_then(|n| n.checked_add(HEADER))
    else {
        return Ok(None);
    };
    // The number may be wrong, so no memory is reserved for it.
    for entry in (HEADER..at).step_by(FUNCTION) {
        let fields = (|| {
            let address = blob.get(entry..)?.first_chunk().map(|word| u64::from_le_bytes(*word))?;
            Some((address as usize, word(blob, entry + 8)?, word(blob, entry + 12)?))
        })();
        let Some((address, safepoints, flags)) = fields else { return Ok(None) };
        let offset = offset + entry;
        if flags & !(MOVES_RETURN_ADDRESS | HAS_ROOM) != 0 {
            return Err(ObjectMapsError::Flags { offset, flags });
        }
        let mut function = FunctionMaps {
            address,
            moves_return_address: flags & MOVES_RETURN_ADDRESS != 0,
            has_room: flags & HAS_ROOM != 0,
            safepoints: Vec::new(),
        };
        for _ in 0..safepoints {
            let Some((safepoint, end)) = safepoint(blob, at) else { return Ok(None) };
            function.safepoints.push(safepoint);
            at = end;
        }
        functions.push((offset, function));
    }
    Ok(at.checked_next_multiple_of(8))
}

/// The safepoint at an offset, and where it ends.
fn safepoint(blob: &[u8], at: usize) -> Option<(Safepoint, usize)> {
    let (return_address, cfa_offset) = (word(blob, at)? as usize, word(blob, at + 4)?);
    let slots = (word(blob, at + 8)? as usize).checked_mul(4)?;
    let slots = blob.get(at + 12..)?.get(..slots)?;
    let end = at + 12 + slots.len();
    let slots = slots.as_chunks().0.iter().map(|slot| u32::from_le_bytes(*slot)).collect();
    Some((Safepoint { return_address, cfa_offset, slots }, end))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{FunctionMaps, ObjectMapsError, read, write};
    use crate::safepoint::Safepoint;

    fn functions() -> impl Strategy<Value = Vec<FunctionMaps>> {
        let safepoint = (0..1_usize << 20, any::<u32>(), prop::collection::vec(any::<u32>(), 0..5))
            .prop_map(|(return_address, cfa_offset, slots)| Safepoint {
                return_address,
                cfa_offset,
                slots,
            });
        let flags = (any::<bool>(), any::<bool>());
        let function = (flags, prop::collection::vec(safepoint, 0..6)).prop_map(
            |((moves_return_address, has_room), safepoints)| FunctionMaps {
                address: 0,
                moves_return_address,
                has_room,
                safepoints,
            },
        );
        prop::collection::vec(function, 0..6)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_with_the_linkers_addresses_and_padding(
            objects in prop::collection::vec((functions(), 0..3_usize), 1..4),
        ) {
            let (mut section, mut expected) = (Vec::new(), Vec::new());
            for (functions, padding) in objects {
                let (mut bytes, relocations) = write(&functions);
                for (mut function, at) in functions.into_iter().zip(relocations) {
                    let offset = section.len() + at as usize;
                    function.address = 0x1000 + offset;
                    let address = function.address as u64;
                    bytes[at as usize..][..8].copy_from_slice(&address.to_le_bytes());
                    expected.push((offset, function));
                }
                section.extend(bytes);
                section.extend(vec![0; padding * 8]);
            }
            prop_assert_eq!(read(&section), Ok(expected));
        }

        #[test]
        fn broken_sections_are_refused_or_read_and_never_a_panic(
            functions in functions(),
            mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut section = [write(&functions).0, write(&functions).0].concat();
            for (at, byte) in mutations {
                let at = at.index(section.len());
                section[at] = byte;
            }
            section.truncate(cut.index(section.len() * 2).max(1));
            let _ = read(&section);
        }
    }

    #[test]
    fn what_is_no_section_of_maps_is_refused_with_its_place() {
        let safepoints = vec![Safepoint { return_address: 8, cfa_offset: 16, slots: vec![] }];
        let one = FunctionMaps { safepoints, ..FunctionMaps::default() };
        let (section, _) = write(&[one]);
        for offset in 5..section.len() {
            let error = read(&section[..offset]);
            assert_eq!(error, Err(ObjectMapsError::Truncated { offset }));
        }
        let broken = |at: usize, byte: u8| {
            let mut section = section.clone();
            section[at] = byte;
            read(&section)
        };
        assert_eq!(broken(3, b'2'), Err(ObjectMapsError::Version { offset: 0 }));
        assert_eq!(broken(4, 24), Err(ObjectMapsError::Length { offset: 0 }));
        assert_eq!(broken(8, 0), Err(ObjectMapsError::Length { offset: 0 }));
        assert_eq!(broken(8, 255), Err(ObjectMapsError::Length { offset: 0 }));
        assert_eq!(broken(28, 4), Err(ObjectMapsError::Flags { offset: 16, flags: 4 }));
    }
}
