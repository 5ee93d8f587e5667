//! The safepoint table of one region: from a return address to its frame's layout and live slots.

use crate::arch::{SIGN_STATE, return_offset};
use crate::stack_map::Location;
use crate::stack_map::compact::{Layout, MapRef, Maps, MapsBuilder};
use crate::stack_map::index::Index;
use crate::stack_map::map::{StackMap, StackMapError};
use crate::stack_map::roots::{RootIter, SlotIter, address};

/// The safepoints of one region.
#[derive(Debug)]
pub(crate) struct SafepointTable {
    index: Index,
    maps: Maps,
}

impl SafepointTable {
    /// Builds the table of a region. The caller has checked the safepoints: return addresses ascend
    /// and lie behind `start`, within `len < 4 GiB`; layouts fit; all roots are
    /// [`Location::Stack`](crate::stack_map::Location::Stack).
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
    #[inline(always)]
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
    /// The frame's CFA minus its stack pointer, in bytes. Where only the frame pointer tells the
    /// CFA, the least that it can be: see [`cfa_is_fixed`](SafepointRef::cfa_is_fixed).
    #[inline]
    pub fn cfa_offset(&self) -> usize {
        self.map.cfa_offset()
    }

    /// Whether the CFA is always that far from the stack pointer. If not, a walk takes the CFA from
    /// the frame pointer: the frame's size varies, or its map does not say it.
    #[inline]
    pub fn cfa_is_fixed(&self) -> bool {
        self.map.cfa_is_known()
    }

    /// What is live. Every location is a [`Location::Stack`], or, where the CFA is not fixed, a
    /// [`Location::Frame`].
    #[inline]
    pub fn roots(&self) -> RootIter<'s> {
        self.map.roots()
    }

    /// The addresses of the live words in a frame that stands here with these pointers. As
    /// [`Frame::slots`](crate::Frame::slots).
    #[inline]
    pub fn slots_at(&self, sp: usize, fp: usize) -> impl Iterator<Item = usize> + use<'s> {
        SlotIter::of(self.roots(), sp, fp)
    }

    /// Pairs of addresses in a frame that stands here with these pointers. As
    /// [`Frame::roots`](crate::Frame::roots).
    #[inline]
    pub fn roots_at(&self, sp: usize, fp: usize) -> impl Iterator<Item = (usize, usize)> + use<'s> {
        let at = move |location| address(location, sp, fp);
        self.roots().map(move |root| (at(root.base), at(root.derived)))
    }

    /// Offsets of the live words from the frame's stack pointer, in bytes. The pointers derived
    /// from a reference follow it. Words that are relative to the frame pointer have no such offset
    /// and are left out: see [`roots`](SafepointRef::roots).
    pub fn slots(&self) -> impl Iterator<Item = u32> + use<'s> {
        let offset = |location| match location {
            Location::Stack(offset) => Some(offset as u32),
            Location::Frame(_) | Location::Register(_) => None,
        };
        let mut last = None;
        let words = self.roots().flat_map(move |root| {
            let base = (last.replace(root.base) != Some(root.base)).then_some(root.base);
            [base, (root.derived != root.base).then_some(root.derived)]
        });
        words.flatten().filter_map(offset)
    }

    /// Whether the function is registered as one that moves its return address.
    #[inline]
    pub fn moves_return_address(&self) -> bool {
        self.map.layout().moves_return_address
    }

    /// Whether the frame's return address is signed for its CFA (arm64 PAC, key A): the function
    /// checks the signature before it returns.
    #[inline]
    pub fn return_is_signed(&self) -> bool {
        SIGN_STATE.is_some() && self.map.layout().signed
    }

    /// Where the return address of such a frame stands, given its CFA.
    #[inline]
    pub(crate) fn return_slot(&self, cfa: usize) -> usize {
        cfa.wrapping_add_signed(return_offset(self.saved_fp()))
    }

    /// How far below the CFA the frame pointer was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved_fp(&self) -> usize {
        self.map.layout().saved_fp
    }

    /// Whether the frame keeps a frame record: the frame pointer points to the caller's, which lies
    /// below the return address.
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
