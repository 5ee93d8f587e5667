//! Stack maps: where the live references of a frame are, by its return address.
//!
//! Compilers write them in forms of their own: [`cranelift`], [`llvm`]. Those whose roots all stand in the frame become
//! [`Safepoint`](crate::Safepoint)s of a region, which walks find in one probe. The general form, [`StackMap`], has derived
//! pointers and registers as well; [`StackMaps`] keeps any number of them in a few bytes each.

pub mod cranelift;
pub mod llvm;

use std::collections::HashMap;

use gimli::Register;

/// Where a value stands at a safepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Location {
    /// In the word so many bytes above the stack pointer.
    Stack(i32),
    /// In the word so many bytes above the frame pointer.
    Frame(i32),
    /// In a callee-saved register: in the slot where a younger frame has saved it.
    Register(Register),
}

impl Location {
    /// The address of the word, for a frame with this stack and frame pointer. `register_slot` says where a register has
    /// been saved, as [`Trace::register_slot`](crate::Trace::register_slot) does; `None` if it is still in the register.
    pub fn address(
        self,
        sp: usize,
        fp: usize,
        register_slot: impl FnOnce(Register) -> Option<usize>,
    ) -> Option<usize> {
        match self {
            Location::Stack(offset) => Some(sp.wrapping_add_signed(offset as isize)),
            Location::Frame(offset) => Some(fp.wrapping_add_signed(offset as isize)),
            Location::Register(register) => register_slot(register),
        }
    }
}

/// A live reference, and a pointer derived from it if there is one: when the object moves, the derived pointer keeps its
/// distance from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// The reference to the object.
    pub base: Location,
    /// The pointer into it; the base itself for a plain reference.
    pub derived: Location,
}

impl Root {
    /// A reference from which nothing is derived.
    pub fn plain(base: Location) -> Root {
        Root { base, derived: base }
    }
}

/// The live references at one safepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackMap {
    /// The address of the instruction behind the call.
    pub return_address: usize,
    /// The frame's CFA minus its stack pointer there, in bytes; `None` if the compiler does not say.
    pub cfa_offset: Option<u32>,
    /// What is live.
    pub roots: Vec<Root>,
}

/// Whatever knows the live references of frames: tables, or a closure of the host.
pub trait StackMapSource {
    /// Calls `each` for every root of the safepoint at `return_address`. False if that is no safepoint.
    fn roots(&self, return_address: usize, each: &mut dyn FnMut(Root)) -> bool;
}

impl<F: Fn(usize, &mut dyn FnMut(Root)) -> bool> StackMapSource for F {
    fn roots(&self, return_address: usize, each: &mut dyn FnMut(Root)) -> bool {
        self(return_address, each)
    }
}

impl StackMapSource for StackMaps {
    fn roots(&self, return_address: usize, each: &mut dyn FnMut(Root)) -> bool {
        let map = self.get(return_address);
        map.iter().flat_map(StackMapRef::roots).for_each(each);
        map.is_some()
    }
}

/// Why stack maps cannot be written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StackMapError {
    /// Two maps for one return address.
    #[error("two stack maps for {return_address:#x}")]
    Twice {
        /// The return address.
        return_address: usize,
    },
    /// A location that is not aligned to a word.
    #[error("the stack map for {return_address:#x} has an unaligned location")]
    Unaligned {
        /// The return address.
        return_address: usize,
    },
}

/// How many safepoints share one entry of the index.
const BLOCK: usize = 32;
const WORD: i32 = 8;

/// Stack maps by return address. Addresses are differences to the one before, equal maps are stored once, and so is
/// each slot as its difference to the last: about five bytes a safepoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackMaps {
    /// The first return address of each block, and where the block begins in `addresses`.
    blocks: Vec<(usize, u32)>,
    /// For each safepoint, the difference to the one before and where its map begins in `maps`, as numbers of seven bits
    /// a byte.
    addresses: Vec<u8>,
    maps: Vec<u8>,
    len: usize,
}

impl StackMaps {
    /// Writes maps down, in any order.
    pub fn new(maps: impl IntoIterator<Item = StackMap>) -> Result<StackMaps, StackMapError> {
        let mut maps: Vec<StackMap> = maps.into_iter().collect();
        maps.sort_by_key(|map| map.return_address);
        let mut table = StackMaps::default();
        let mut places: HashMap<Vec<u8>, u64> = HashMap::new();
        let mut last = None;
        for map in &maps {
            let return_address = map.return_address;
            let delta = match last {
                Some(last) if last == return_address => return Err(StackMapError::Twice { return_address }),
                Some(last) if !table.len.is_multiple_of(BLOCK) => return_address - last,
                _ => {
                    table.blocks.push((return_address, table.addresses.len() as u32));
                    0
                }
            };
            last = Some(return_address);
            let encoded = encode(map)?;
            let place = *places.entry(encoded).or_insert_with_key(|encoded| {
                let place = table.maps.len() as u64;
                table.maps.extend(encoded);
                place
            });
            push(&mut table.addresses, delta as u64);
            push(&mut table.addresses, place);
            table.len += 1;
        }
        Ok(table)
    }

    /// How many safepoints it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that the tables take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.blocks) + self.addresses.len() + self.maps.len()
    }

    /// The map for a return address.
    pub fn get(&self, return_address: usize) -> Option<StackMapRef<'_>> {
        let block = self.blocks.partition_point(|block| block.0 <= return_address).checked_sub(1)?;
        let (mut address, start) = self.blocks[block];
        let mut bytes = &self.addresses[start as usize..];
        for _ in 0..BLOCK.min(self.len - block * BLOCK) {
            address += next(&mut bytes)? as usize;
            let place = next(&mut bytes)?;
            if address >= return_address {
                return (address == return_address).then(|| StackMapRef { bytes: &self.maps[place as usize..] });
            }
        }
        None
    }
}

/// One map of a [`StackMaps`].
#[derive(Clone, Copy, Debug)]
pub struct StackMapRef<'m> {
    bytes: &'m [u8],
}

impl<'m> StackMapRef<'m> {
    /// The frame's CFA minus its stack pointer, in bytes, if the compiler has said it.
    pub fn cfa_offset(&self) -> Option<u32> {
        let mut bytes = self.bytes;
        (next(&mut bytes)? as u32).checked_sub(1).map(|words| words * WORD as u32)
    }

    /// What is live.
    pub fn roots(&self) -> impl Iterator<Item = Root> + use<'m> {
        let mut bytes = self.bytes;
        let _ = next(&mut bytes);
        let mut left = next(&mut bytes).unwrap_or(0);
        let mut last = 0;
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let (base, has_derived) = location(&mut bytes, &mut last)?;
            let derived = if has_derived { location(&mut bytes, &mut last)?.0 } else { base };
            Some(Root { base, derived })
        })
    }
}

const KIND_BITS: u32 = 3;
const DERIVED: u64 = 1;

/// CFA offset in words plus one, the number of roots, then each root's base and, if it has one, its derived pointer:
/// the difference in words to the last location or a register's number, its kind, and whether a derived one follows.
fn encode(map: &StackMap) -> Result<Vec<u8>, StackMapError> {
    let unaligned = StackMapError::Unaligned { return_address: map.return_address };
    let mut bytes = Vec::new();
    let cfa_offset = map.cfa_offset.unwrap_or(0);
    if !cfa_offset.is_multiple_of(WORD as u32) {
        return Err(unaligned);
    }
    push(&mut bytes, map.cfa_offset.map_or(0, |offset| u64::from(offset / WORD as u32) + 1));
    push(&mut bytes, map.roots.len() as u64);
    let mut last = 0_i32;
    for root in &map.roots {
        let has_derived = root.derived != root.base;
        for (location, flag) in [(Some(root.base), u64::from(has_derived)), (has_derived.then_some(root.derived), 0)]
        {
            let Some(location) = location else { continue };
            let (kind, value) = match location {
                Location::Register(register) => (2, u64::from(register.0)),
                Location::Stack(offset) | Location::Frame(offset) => {
                    if offset % WORD != 0 {
                        return Err(unaligned);
                    }
                    let words = offset / WORD;
                    let delta = i64::from(words) - i64::from(last);
                    last = words;
                    (u64::from(matches!(location, Location::Frame(_))), (delta << 1 ^ delta >> 63) as u64)
                }
            };
            push(&mut bytes, value << KIND_BITS | kind << 1 | flag);
        }
    }
    Ok(bytes)
}

fn location(bytes: &mut &[u8], last: &mut i32) -> Option<(Location, bool)> {
    let word = next(bytes)?;
    let value = word >> KIND_BITS;
    let kind = word >> 1 & 3;
    let location = if kind == 2 {
        Location::Register(Register(value as u16))
    } else {
        *last = last.wrapping_add((value >> 1) as i32 ^ -((value & 1) as i32));
        let offset = last.wrapping_mul(WORD);
        if kind == 0 { Location::Stack(offset) } else { Location::Frame(offset) }
    };
    Some((location, word & DERIVED != 0))
}

/// Appends a number, seven bits a byte, the last byte below 128.
fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn next(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
