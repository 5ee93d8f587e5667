//! Stack maps by return address, of code anywhere.

use super::compact::{Layout, MapRef, Maps, MapsBuilder};
use super::index::Index;
use super::map::{Root, StackMap, StackMapError};
use super::roots::RootIter;
use super::source::StackMapSource;

/// A gap of this many bytes between safepoints ends an index.
const GAP: usize = 4096;

/// Stack maps by return address, of code anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackMaps {
    /// One for each dense piece of code, by address.
    indexes: Vec<Index>,
    maps: Maps,
}

impl StackMaps {
    /// A table of maps, given in any order.
    ///
    /// # Errors
    ///
    /// Two maps have one return address, a location is unaligned, or there are too many maps.
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
    /// The frame's CFA minus its stack pointer, in bytes, if the map has it.
    pub fn cfa_offset(&self) -> Option<u32> {
        self.map.cfa_is_known().then(|| self.map.cfa_offset() as u32)
    }

    /// What is live.
    pub fn roots(&self) -> RootIter<'m> {
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

impl StackMapSource for StackMaps {
    fn roots(&self, return_address: usize, each: &mut dyn FnMut(Root)) -> bool {
        let map = self.get(return_address);
        map.iter().flat_map(StackMapRef::roots).for_each(each);
        map.is_some()
    }
}
