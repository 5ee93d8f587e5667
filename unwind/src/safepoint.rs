//! The safepoint table of one region: from a return address to its frame's layout and live slots.

use crate::stack_map::compact::{Index, Layout, MapRef, Maps, MapsBuilder, Slots};
use crate::stack_map::{Roots, StackMap, StackMapError};

/// A return address of managed code, the layout of its frame there, and the slots that are live: a
/// [`StackMap`] of the simplest kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safepoint {
    /// The address of the instruction behind the call.
    pub return_address: usize,
    /// The frame's CFA minus its stack pointer once the call has returned, in bytes: the saved
    /// registers and the return address count.
    /// [`stack_map::cranelift`](crate::stack_map::cranelift) computes it from Cranelift's span.
    pub cfa_offset: u32,
    /// Offsets from that stack pointer, in bytes, of the words that may hold references or pointers
    /// into the goroutine's own stack.
    pub slots: Vec<u32>,
}

/// The safepoints of one region.
#[derive(Debug)]
pub(crate) struct SafepointTable {
    index: Index,
    maps: Maps,
}

impl SafepointTable {
    /// Builds the table of a region. The caller has checked that the return addresses ascend and
    /// lie behind `start`, within `len < 4 GiB`, that layouts fit, and that all roots are of the
    /// form [`Location::Stack`](crate::stack_map::Location::Stack).
    pub(crate) fn build(
        start: usize,
        len: usize,
        safepoints: &[(StackMap, Layout)],
    ) -> Result<SafepointTable, StackMapError> {
        let mut maps = MapsBuilder::default();
        let row =
            |(map, layout): &(StackMap, Layout)| Ok((map.return_address, maps.row(map, *layout)?));
        let rows: Vec<_> = safepoints.iter().map(row).collect::<Result<_, _>>()?;
        Ok(SafepointTable { index: Index::build(start, len, &rows), maps: maps.finish() })
    }

    /// How many there are, and the bytes of memory that they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.index.len(), self.index.bytes() + self.maps.bytes())
    }

    /// Whether `return_address` lies in the region, its first byte excepted and its end included.
    #[inline]
    pub(crate) fn covers(&self, return_address: usize) -> bool {
        self.index.covers(return_address)
    }

    /// The safepoint at `return_address`.
    #[inline]
    pub(crate) fn get(&self, return_address: usize) -> Option<SafepointRef<'_>> {
        self.index.get(return_address).map(|row| SafepointRef { map: self.maps.get(row) })
    }
}

/// A registered safepoint.
#[derive(Clone, Copy)]
pub struct SafepointRef<'s> {
    map: MapRef<'s>,
}

impl<'s> SafepointRef<'s> {
    /// The frame's CFA minus its stack pointer, in bytes.
    #[inline]
    pub fn cfa_offset(&self) -> usize {
        self.map.cfa_offset()
    }

    /// What is live. Every location is a [`Location::Stack`](crate::stack_map::Location::Stack).
    #[inline]
    pub fn roots(&self) -> Roots<'s> {
        self.map.roots()
    }

    /// Offsets of the live words from the frame's stack pointer, in bytes: those of references, and
    /// behind each those of the pointers derived from it.
    #[inline]
    pub fn slots(&self) -> impl Iterator<Item = u32> + use<'s> {
        Slots::of(self.roots())
    }

    /// Whether the function is registered as one that moves its return address.
    #[inline]
    pub fn moves_return_address(&self) -> bool {
        self.map.layout().moves_return_address
    }

    /// How far below the CFA the frame pointer was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved_fp(&self) -> usize {
        self.map.layout().saved_fp
    }

    /// Whether the frame pointer points at the caller's, which lies below the return address: the
    /// frame of most compilers.
    #[inline]
    pub(crate) fn has_frame_record(&self) -> bool {
        self.map.has_frame_record()
    }

    /// The distance from the frame pointer to the CFA, in bytes, if that is how the CFI computes
    /// the CFA.
    #[inline]
    pub(crate) fn cfa_from_fp(&self) -> Option<usize> {
        self.map.layout().cfa_from_fp
    }
}

impl core::fmt::Debug for SafepointRef<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SafepointRef")
            .field("cfa_offset", &self.cfa_offset())
            .field("roots", &self.roots().collect::<Vec<_>>())
            .field("moves_return_address", &self.moves_return_address())
            .finish()
    }
}
