//! Where the references of a block's objects lie.

use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::block::Block;
use super::descriptor::Descriptor;

/// Bytes of a word.
const WORD: usize = size_of::<usize>();

impl Block<'_> {
    /// `descriptor` belongs to the heap's registry, which lives as long as the records do.
    pub(super) fn set_places(&self, descriptor: &Descriptor) {
        let (mut period, mut places) = (descriptor.period(), descriptor.bits().unwrap_or(0));
        // Short patterns are repeated, for fewer turns around `places`.
        while places != 0 && period <= 32 {
            places |= places << period;
            period *= 2;
        }
        self.header.period.store(period as u32, Relaxed);
        self.header.places.store(places, Relaxed);
        let wide = if descriptor.bits().is_some() {
            std::ptr::null_mut()
        } else {
            std::ptr::from_ref(descriptor).cast_mut()
        };
        self.header.wide.store(wide, Relaxed);
    }

    /// Whether objects of this block may hold references.
    #[inline]
    pub(super) fn holds_references(&self) -> bool {
        self.header.period.load(Relaxed) != 0
    }

    /// Calls `visit` with the offsets in `from..to`, below `size`, where references may lie in an
    /// object of this block. All in bytes.
    #[inline]
    pub(super) fn places(&self, size: usize, from: usize, to: usize, mut visit: impl FnMut(usize)) {
        let period = self.header.period.load(Relaxed) as usize * WORD;
        // Only whole words: a large object may end with a part of one.
        let to = to.min(size) & !(WORD - 1);
        if period == 0 || from >= to {
            return;
        }
        let wide = self.header.wide.load(Relaxed);
        // Most objects are traced from their start. Division is slow.
        let mut element = if from == 0 { 0 } else { from / period * period };
        if !wide.is_null() {
            // SAFETY: `set_places` stored a descriptor of the heap's registry, which lives as
            // long as the records.
            let places = unsafe { &*wide }.places();
            return wide_places(places, period, element, from..to, &mut visit);
        }
        let places = self.header.places.load(Relaxed);
        while element < to {
            let mut rest = places;
            while rest != 0 {
                let offset = element + rest.trailing_zeros() as usize * WORD;
                rest &= rest - 1;
                if offset >= to {
                    return;
                }
                if offset >= from {
                    visit(offset);
                }
            }
            element += period;
        }
    }
}

/// Calls `visit` with the offsets in `range` of the places, in words, of each period from `element`
/// on.
#[cold]
fn wide_places(
    places: &[u32],
    period: usize,
    mut element: usize,
    range: Range<usize>,
    visit: &mut dyn FnMut(usize),
) {
    while element < range.end {
        let offsets = places.iter().map(|place| element + *place as usize * WORD);
        offsets.filter(|offset| range.contains(offset)).for_each(&mut *visit);
        element += period;
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;
    use crate::mark_sweep::block::tests::block;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn places_in_pieces_are_the_places_of_the_whole(
            period in 1usize..150,
            seeds in prop::collection::vec(0usize..150, 1..6),
            size in 0usize..4000,
            cut in 0usize..4000,
        ) {
            let references: Vec<usize> = seeds.iter().map(|seed| seed % period).collect();
            let descriptor =
                Descriptor::pattern(period, references.iter().copied()).expect("valid");
            let block = block(0);
            block.set_places(Box::leak(Box::new(descriptor)));
            let expected: Vec<usize> = (0..size / WORD)
                .filter(|word| references.contains(&(word % period)))
                .map(|word| word * WORD)
                .collect();
            let mut seen = Vec::new();
            let cut = cut & !(WORD - 1);
            block.places(size, 0, cut, |offset| seen.push(offset));
            block.places(size, cut, usize::MAX, |offset| seen.push(offset));
            prop_assert_eq!(seen, expected);
        }
    }
}
