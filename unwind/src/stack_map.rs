//! Stack maps: where the live references of a frame are, by its return address.
//!
//! Compilers write them in forms of their own: [`cranelift`], [`llvm`]; [`from_source`] asks a host
//! that keeps its own. All become [`StackMap`]s, and are kept in one compact form, about five bytes
//! each: in a [`Region`](crate::Region), whose frames a [`Walker`](crate::Walker) finds by them, or
//! in a [`StackMaps`], for code that is walked by its CFI. Only there may roots be in registers.

pub(crate) mod compact;
pub mod cranelift;
pub mod llvm;

use gimli::Register;

pub use compact::Roots;
use compact::{Index, Layout, MapRef, Maps, MapsBuilder};

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
    /// The address of the word, for a frame with this stack and frame pointer. `register_slot` says
    /// where a register has been saved, as [`Unwinder::register_slot`](crate::Unwinder::register_slot)
    /// does; `None` if it is still in the register.
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

/// A live reference, and a pointer derived from it if there is one: when the object moves, the
/// derived pointer keeps its distance from the base.
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
    /// The frame's CFA minus its stack pointer there, in bytes; `None` if the compiler does not
    /// say.
    pub cfa_offset: Option<u32>,
    /// What is live.
    pub roots: Vec<Root>,
}

/// Whatever knows the live references of frames: tables, or a closure of the host.
pub trait StackMapSource {
    /// Calls `each` for every root of the safepoint at `return_address`. False if that is no
    /// safepoint.
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

/// The maps of a host that keeps its own: `source` is asked for each of these return addresses,
/// which come with their frame's CFA minus its stack pointer, in bytes, where the host knows it.
/// What is no safepoint to it is left out.
///
/// It is asked now, not while stacks are walked: a walk takes no locks and runs in signal handlers.
///
/// ```
/// use stackmark_unwind::stack_map::{self, Location, Root};
///
/// let live = |return_address: usize, each: &mut dyn FnMut(Root)| {
///     each(Root::plain(Location::Stack(8)));
///     return_address != 0x1030
/// };
/// let maps = stack_map::from_source(&live, [(0x1018, Some(32)), (0x1030, None)]);
/// assert_eq!(maps.len(), 1);
/// assert_eq!(maps[0].roots, [Root::plain(Location::Stack(8))]);
/// ```
pub fn from_source(
    source: &(impl StackMapSource + ?Sized),
    return_addresses: impl IntoIterator<Item = (usize, Option<u32>)>,
) -> Vec<StackMap> {
    let map = |(return_address, cfa_offset)| {
        let mut roots = Vec::new();
        let known = source.roots(return_address, &mut |root| roots.push(root));
        known.then_some(StackMap { return_address, cfa_offset, roots })
    };
    return_addresses.into_iter().filter_map(map).collect()
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
    /// The distinct lists of roots take 4 GiB and more.
    #[error("no room for the stack map for {return_address:#x}: there are too many")]
    TooMany {
        /// The return address.
        return_address: usize,
    },
}

/// Bytes of a word.
const WORD: i32 = 8;
/// Code without a safepoint for so many bytes gets no index.
const GAP: usize = 4096;

/// Stack maps by return address, of code anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackMaps {
    /// One for each dense piece of code, by address.
    indexes: Vec<Index>,
    maps: Maps,
}

impl StackMaps {
    /// Writes maps down, in any order.
    pub fn new(maps: impl IntoIterator<Item = StackMap>) -> Result<StackMaps, StackMapError> {
        let mut maps: Vec<StackMap> = maps.into_iter().collect();
        maps.sort_by_key(|map| map.return_address);
        if let Some(pair) =
            maps.windows(2).find(|pair| pair[0].return_address == pair[1].return_address)
        {
            return Err(StackMapError::Twice { return_address: pair[0].return_address });
        }
        let mut builder = MapsBuilder::default();
        let mut indexes = Vec::new();
        for piece in maps.chunk_by(|one, next| next.return_address - one.return_address < GAP) {
            let rows: Result<Vec<_>, _> = piece
                .iter()
                .map(|map| Ok((map.return_address, builder.row(map, Layout::default())?)))
                .collect();
            let [Some(first), Some(last)] = [piece.first(), piece.last()] else { continue };
            let start = first.return_address.wrapping_sub(1);
            indexes.push(Index::build(start, last.return_address.wrapping_sub(start), &rows?));
        }
        Ok(StackMaps { indexes, maps: builder.finish() })
    }

    /// How many safepoints it has.
    pub fn len(&self) -> usize {
        self.indexes.iter().map(Index::len).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.indexes.is_empty()
    }

    /// Bytes of memory that the tables take.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.indexes)
            + self.indexes.iter().map(Index::bytes).sum::<usize>()
            + self.maps.bytes()
    }

    /// The map for a return address.
    pub fn get(&self, return_address: usize) -> Option<StackMapRef<'_>> {
        let i =
            self.indexes.partition_point(|index| index.start().wrapping_add(1) <= return_address);
        let row = self.indexes.get(i.checked_sub(1)?)?.get(return_address)?;
        Some(StackMapRef { map: self.maps.get(row) })
    }
}

/// One map of a [`StackMaps`].
#[derive(Clone, Copy)]
pub struct StackMapRef<'m> {
    map: MapRef<'m>,
}

impl<'m> StackMapRef<'m> {
    /// The frame's CFA minus its stack pointer, in bytes, if the compiler has said it.
    pub fn cfa_offset(&self) -> Option<u32> {
        self.map.cfa_is_known().then(|| self.map.cfa_offset() as u32)
    }

    /// What is live.
    pub fn roots(&self) -> Roots<'m> {
        self.map.roots()
    }
}

impl core::fmt::Debug for StackMapRef<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("StackMapRef")
            .field("cfa_offset", &self.cfa_offset())
            .field("roots", &self.roots().collect::<Vec<_>>())
            .finish()
    }
}
