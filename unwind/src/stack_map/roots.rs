//! The roots of one map: how they are kept, and how they are gone through.
//!
//! Most are few words of a small frame, one bit each. In a list each location is the difference to
//! the last.

use std::slice;

use gimli::Register;

use super::map::{Location, Root, StackMap, StackMapError};
use crate::arch;

/// Bytes of a word, as offsets are counted.
const WORD: i32 = arch::WORD as i32;
/// The roots are not all plain.
const ANY: u16 = u16::MAX;
/// The roots are plain, ascend, and lie in the first 32 words of the frame.
pub(super) const FIRST_WORDS: u16 = ANY - 1;
const KIND_BITS: u32 = 3;
const DERIVED: u64 = 1;

/// The roots of one map, in the order in which they were given.
#[derive(Clone, Debug)]
pub struct RootIter<'m>(Form<'m>);

#[derive(Clone, Debug)]
enum Form<'m> {
    /// Words from the stack pointer on, one bit each.
    Words {
        left: u32,
    },
    Plain {
        deltas: slice::Iter<'m, u8>,
        last: u32,
    },
    Any {
        bytes: &'m [u8],
        left: usize,
        last: i32,
    },
}

impl RootIter<'_> {
    /// None.
    #[inline]
    pub(crate) fn empty() -> Self {
        RootIter::of_words(0)
    }

    /// Words from the stack pointer on, one bit each.
    #[inline]
    pub(super) fn of_words(left: u32) -> Self {
        RootIter(Form::Words { left })
    }
}

impl<'m> RootIter<'m> {
    /// So many plain roots, or [`ANY`], from the bytes that begin with them.
    #[inline]
    pub(super) fn of_bytes(plain: u16, mut bytes: &'m [u8]) -> Self {
        if plain != ANY {
            return RootIter(Form::Plain { deltas: bytes[..plain as usize].iter(), last: 0 });
        }
        let left = next(&mut bytes).unwrap_or(0) as usize;
        RootIter(Form::Any { bytes, left, last: 0 })
    }
}

impl Iterator for RootIter<'_> {
    type Item = Root;

    #[inline]
    fn next(&mut self) -> Option<Root> {
        match &mut self.0 {
            Form::Words { left } => {
                let word = lowest(left)?;
                Some(Root::plain(Location::Stack(word as i32 * WORD)))
            }
            Form::Plain { deltas, last } => {
                *last += u32::from(*deltas.next()?) * WORD as u32;
                Some(Root::plain(Location::Stack(*last as i32)))
            }
            Form::Any { bytes, left, last } => {
                *left = left.checked_sub(1)?;
                let (base, has_derived) = location(bytes, last)?;
                let derived = if has_derived { location(bytes, last)?.0 } else { base };
                Some(Root { base, derived })
            }
        }
    }

    // The form is asked once, and what is left of plain roots stays in machine registers.
    #[inline]
    fn fold<B, F: FnMut(B, Root) -> B>(self, mut all: B, mut each: F) -> B {
        match self.0 {
            Form::Words { mut left } => {
                while let Some(word) = lowest(&mut left) {
                    all = each(all, Root::plain(Location::Stack(word as i32 * WORD)));
                }
            }
            Form::Plain { deltas, mut last } => {
                for delta in deltas {
                    last += u32::from(*delta) * WORD as u32;
                    all = each(all, Root::plain(Location::Stack(last as i32)));
                }
            }
            Form::Any { bytes, left, last } => {
                for root in RootIter(Form::Any { bytes, left, last }) {
                    all = each(all, root);
                }
            }
        }
        all
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Form::Words { left } => left.count_ones() as usize,
            Form::Plain { deltas, .. } => deltas.len(),
            Form::Any { left, .. } => *left,
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for RootIter<'_> {}

/// The addresses of the words of a frame's roots. The pointers derived from a base follow it.
#[derive(Clone, Debug)]
pub(crate) struct SlotIter<'m> {
    roots: RootIter<'m>,
    sp: usize,
    fp: usize,
    base: Option<Location>,
    derived: Option<Location>,
}

impl<'m> SlotIter<'m> {
    /// For a frame with these pointers.
    #[inline]
    pub(crate) fn of(roots: RootIter<'m>, sp: usize, fp: usize) -> SlotIter<'m> {
        SlotIter { roots, sp, fp, base: None, derived: None }
    }

    #[inline(never)]
    fn next_of_any(&mut self) -> Option<usize> {
        let (sp, fp) = (self.sp, self.fp);
        if self.derived.is_none() {
            let root = self.roots.next()?;
            self.derived = (root.derived != root.base).then_some(root.derived);
            // A reference with several derived pointers comes several times.
            if self.base.replace(root.base) != Some(root.base) {
                return Some(address(root.base, sp, fp));
            }
        }
        match self.derived.take() {
            Some(derived) => Some(address(derived, sp, fp)),
            None => self.next_of_any(),
        }
    }
}

impl Iterator for SlotIter<'_> {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        match &mut self.roots.0 {
            Form::Words { left } => {
                let word = lowest(left)?;
                Some(self.sp.wrapping_add(word as usize * WORD as usize))
            }
            Form::Plain { deltas, last } => {
                *last += u32::from(*deltas.next()?) * WORD as u32;
                Some(self.sp.wrapping_add(*last as usize))
            }
            Form::Any { .. } => self.next_of_any(),
        }
    }

    // As that of `RootIter`.
    #[inline]
    fn fold<B, F: FnMut(B, usize) -> B>(self, mut all: B, mut each: F) -> B {
        let SlotIter { roots, sp, fp, base, derived } = self;
        match roots.0 {
            Form::Words { mut left } => {
                while let Some(word) = lowest(&mut left) {
                    all = each(all, sp.wrapping_add(word as usize * WORD as usize));
                }
            }
            Form::Plain { deltas, last } => {
                let mut at = sp.wrapping_add(last as usize);
                for delta in deltas {
                    at = at.wrapping_add(usize::from(*delta) * WORD as usize);
                    all = each(all, at);
                }
            }
            Form::Any { bytes, left, last } => {
                let roots = RootIter(Form::Any { bytes, left, last });
                let mut rest = SlotIter { roots, sp, fp, base, derived };
                while let Some(slot) = rest.next_of_any() {
                    all = each(all, slot);
                }
            }
        }
        all
    }
}

/// The lowest of the numbers of the bits that are set, which is cleared.
#[inline(always)]
fn lowest(left: &mut u32) -> Option<u32> {
    let lowest = left.trailing_zeros();
    *left &= left.wrapping_sub(1);
    (lowest < u32::BITS).then_some(lowest)
}

/// The words that are roots, one bit each, if there are no others.
pub(super) fn words(roots: &[Root]) -> Option<u32> {
    let mut words = 0_u32;
    for root in roots {
        let Location::Stack(offset) = root.base else { return None };
        let word = u32::try_from(offset / WORD).ok().filter(|word| *word < u32::BITS)?;
        // In the order in which they were given, which so is that of the bits.
        if root.derived != root.base || words >> word != 0 {
            return None;
        }
        words |= 1 << word;
    }
    Some(words)
}

/// The address of a slot of a frame with these pointers.
#[inline]
pub(crate) fn address(location: Location, sp: usize, fp: usize) -> usize {
    match location {
        Location::Stack(offset) => sp.wrapping_add_signed(offset as isize),
        Location::Frame(offset) => fp.wrapping_add_signed(offset as isize),
        Location::Register(_) => unreachable!("a region takes no roots in registers"),
    }
}

/// The roots in bytes, and the number of plain ones.
///
/// Plain roots are ascending offsets from the stack pointer without derived pointers. Each is one
/// byte, the difference in words to the last. If any root is not plain, the number is [`ANY`] and
/// the bytes begin with the number of roots. Then come each root's base and, if there is one, its
/// derived pointer. Each is one number: the difference in words to the last location or a
/// register's number, its kind, and whether a derived pointer follows.
pub(super) fn encode(map: &StackMap) -> Result<(u16, Vec<u8>), StackMapError> {
    let unaligned = StackMapError::Unaligned { return_address: map.return_address };
    if !map.cfa_offset.unwrap_or(0).is_multiple_of(WORD as u32) {
        return Err(unaligned);
    }
    for location in map.roots.iter().flat_map(|root| [root.base, root.derived]) {
        if let Location::Stack(offset) | Location::Frame(offset) = location
            && offset % WORD != 0
        {
            return Err(unaligned);
        }
    }
    let mut last = 0_i32;
    let delta = |root: &Root| {
        let Location::Stack(offset) = root.base else { return None };
        let delta = u8::try_from((offset / WORD).checked_sub(last)?).ok()?;
        last = offset / WORD;
        (root.base == root.derived).then_some(delta)
    };
    let plain: Option<Vec<u8>> = map.roots.iter().map(delta).collect();
    if let Some(bytes) = plain.filter(|bytes| bytes.len() < FIRST_WORDS as usize) {
        return Ok((bytes.len() as u16, bytes));
    }
    let mut bytes = Vec::new();
    push(&mut bytes, map.roots.len() as u64);
    let mut last = 0_i32;
    for root in &map.roots {
        let has_derived = root.derived != root.base;
        for (location, flag) in
            [(Some(root.base), u64::from(has_derived)), (has_derived.then_some(root.derived), 0)]
        {
            let Some(location) = location else { continue };
            let (kind, value) = match location {
                Location::Register(register) => (2, u64::from(register.0)),
                Location::Stack(offset) | Location::Frame(offset) => {
                    let words = offset / WORD;
                    let delta = i64::from(words) - i64::from(last);
                    last = words;
                    (
                        u64::from(matches!(location, Location::Frame(_))),
                        (delta << 1 ^ delta >> 63) as u64,
                    )
                }
            };
            push(&mut bytes, value << KIND_BITS | kind << 1 | flag);
        }
    }
    Ok((ANY, bytes))
}

#[inline]
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

#[inline]
fn next(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    if *first < 0x80 { Some(u64::from(*first)) } else { next_long(bytes, u64::from(*first & 0x7f)) }
}

/// The rest of a number of more than one byte.
#[cold]
fn next_long(bytes: &mut &[u8], mut number: u64) -> Option<u64> {
    for shift in (7..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}
