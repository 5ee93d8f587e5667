//! The form in which all stack maps are kept: a few bytes a safepoint, found in a few loads.
//!
//! Code is divided into buckets. A return address is one byte, its distance from its bucket's
//! start. The return addresses of a bucket lie side by side, and eight of them are compared at
//! once. Each has a row: the number of its map, and the frame's size, so that a walk need not wait
//! for the map. Equal maps are stored once, and so are equal lists of roots. In a list each
//! location is the difference to the last.

use std::collections::HashMap;
use std::slice;

use gimli::Register;

use super::map::{Location, Root, StackMap, StackMapError};
use crate::arch::{self, FRAME_RECORD};

/// Bytes of a word, as offsets are counted.
const WORD: i32 = arch::WORD as i32;

const BUCKET_SHIFT: u32 = 7;
const BUCKET_MASK: usize = (1 << BUCKET_SHIFT) - 1;
/// The number of keys that are compared at once, and of bytes behind the last key.
const LANES: usize = 8;

/// What the frame's function and its CFI add to a map.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The frame pointer was saved this many bytes below the CFA, at most 255 words; 0: it was not.
    pub(crate) saved_fp: usize,
    /// The CFI computes the CFA as frame pointer plus this many bytes, at most 255 words; `None`:
    /// from the stack pointer.
    pub(crate) cfa_from_fp: Option<usize>,
    /// Where the map has no CFA: the CFA lies at least this many bytes above the stack pointer.
    pub(crate) least: usize,
    pub(crate) moves_return_address: bool,
    /// The return address in the frame is signed.
    pub(crate) signed: bool,
}

/// One distinct map: the frame, and the place of its roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Head {
    /// CFA offset in words in the low 29 bits, or the least one if it is not known; flags above.
    frame: u32,
    roots: u32,
    /// The number of plain roots, or [`ANY`] for roots of any kind.
    plain: u16,
    saved_fp: u8,
    cfa_from_fp: u8,
}

/// The roots are not all plain.
const ANY: u16 = u16::MAX;

const SIGNED: u32 = 1 << 29;
const CFA_KNOWN: u32 = 1 << 30;
const MOVES: u32 = 1 << 31;
const WORDS_MASK: u32 = SIGNED - 1;

/// A safepoint in the index: the frame's size in words in the low byte, the number of its map
/// above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Row(u32);

const NUMBER_SHIFT: u32 = 8;
/// The size does not fit a byte.
const LARGE: u32 = (1 << NUMBER_SHIFT) - 1;

/// The distinct maps of any number of safepoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Maps {
    heads: Box<[Head]>,
    roots: Box<[u8]>,
}

/// Collects distinct maps.
#[derive(Default)]
pub(crate) struct MapsBuilder {
    heads: Vec<Head>,
    numbers: HashMap<Head, u32>,
    roots: Vec<u8>,
    places: HashMap<Vec<u8>, u32>,
}

impl MapsBuilder {
    /// The row of a safepoint with this map.
    pub(crate) fn row(&mut self, map: &StackMap, layout: Layout) -> Result<Row, StackMapError> {
        let return_address = map.return_address;
        let (plain, encoded) = encode(map)?;
        let roots = match self.places.get(&encoded) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(self.roots.len())
                    .map_err(|_| StackMapError::TooMany { return_address })?;
                self.roots.extend(&encoded);
                self.places.insert(encoded, place);
                place
            }
        };
        let known = if map.cfa_offset.is_some() { CFA_KNOWN } else { 0 };
        let moves = if layout.moves_return_address { MOVES } else { 0 };
        let flags = known | moves | if layout.signed { SIGNED } else { 0 };
        let words = |bytes: usize| (bytes / WORD as usize) as u8;
        let head = Head {
            frame: (map.cfa_offset.unwrap_or(layout.least as u32) / WORD as u32) | flags,
            roots,
            plain,
            saved_fp: words(layout.saved_fp),
            cfa_from_fp: words(layout.cfa_from_fp.unwrap_or(0)),
        };
        let number = *self.numbers.entry(head).or_insert_with(|| {
            self.heads.push(head);
            self.heads.len() as u32 - 1
        });
        if number >= 1 << (u32::BITS - NUMBER_SHIFT) {
            return Err(StackMapError::TooMany { return_address });
        }
        Ok(Row(number << NUMBER_SHIFT | (head.frame & WORDS_MASK).min(LARGE)))
    }

    pub(crate) fn finish(self) -> Maps {
        Maps { heads: self.heads.into_boxed_slice(), roots: self.roots.into_boxed_slice() }
    }
}

impl Maps {
    /// Bytes of memory that the maps take.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.heads) + self.roots.len()
    }

    #[inline]
    pub(crate) fn get(&self, row: Row) -> MapRef<'_> {
        MapRef { row, maps: self }
    }
}

/// One map. Small, since walks take it from frame to frame.
#[derive(Clone, Copy)]
pub(crate) struct MapRef<'m> {
    row: Row,
    maps: &'m Maps,
}

impl<'m> MapRef<'m> {
    #[inline]
    fn head(&self) -> &'m Head {
        &self.maps.heads[(self.row.0 >> NUMBER_SHIFT) as usize]
    }

    /// The frame's CFA minus its stack pointer, in bytes, if it is known; if not, the least that it
    /// can be.
    #[inline]
    pub(crate) fn cfa_offset(&self) -> usize {
        let words = match self.row.0 & LARGE {
            LARGE => self.head().frame & WORDS_MASK,
            words => words,
        };
        words as usize * WORD as usize
    }

    pub(crate) fn cfa_is_known(&self) -> bool {
        self.head().frame & CFA_KNOWN != 0
    }

    /// Whether the frame keeps a frame record: the frame pointer points to it, and the CFA lies
    /// behind it.
    #[inline]
    pub(crate) fn has_frame_record(&self) -> bool {
        let head = self.head();
        const WORDS: u8 = (FRAME_RECORD / arch::WORD) as u8;
        head.saved_fp == WORDS && head.cfa_from_fp == WORDS
    }

    #[inline]
    pub(crate) fn layout(&self) -> Layout {
        let head = self.head();
        let from_fp = head.cfa_from_fp;
        Layout {
            saved_fp: head.saved_fp as usize * WORD as usize,
            cfa_from_fp: (from_fp != 0).then(|| from_fp as usize * WORD as usize),
            least: if self.cfa_is_known() { 0 } else { self.cfa_offset() },
            moves_return_address: head.frame & MOVES != 0,
            signed: head.frame & SIGNED != 0,
        }
    }

    /// What is live.
    #[inline]
    pub(crate) fn roots(&self) -> RootIter<'m> {
        let head = self.head();
        let mut bytes = &self.maps.roots[head.roots as usize..];
        if head.plain != ANY {
            return RootIter(Form::Plain { deltas: bytes[..head.plain as usize].iter(), last: 0 });
        }
        let left = next(&mut bytes).unwrap_or(0) as usize;
        RootIter(Form::Any { bytes, left, last: 0 })
    }
}

/// The roots of one map, in the order in which they were given.
#[derive(Clone, Debug)]
pub struct RootIter<'m>(Form<'m>);

#[derive(Clone, Debug)]
enum Form<'m> {
    Plain { deltas: slice::Iter<'m, u8>, last: u32 },
    Any { bytes: &'m [u8], left: usize, last: i32 },
}

impl RootIter<'_> {
    /// None.
    #[inline]
    pub(crate) fn empty() -> Self {
        RootIter(Form::Plain { deltas: [].iter(), last: 0 })
    }
}

impl Iterator for RootIter<'_> {
    type Item = Root;

    #[inline]
    fn next(&mut self) -> Option<Root> {
        match &mut self.0 {
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

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
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
            Form::Plain { deltas, last } => {
                *last += u32::from(*deltas.next()?) * WORD as u32;
                Some(self.sp.wrapping_add(*last as usize))
            }
            Form::Any { .. } => self.next_of_any(),
        }
    }
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

/// Where the maps of the safepoints of one piece of code are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    start: usize,
    len: usize,
    /// The first key of each bucket, and one more for the end.
    buckets: Box<[u32]>,
    keys: Box<[u8]>,
    rows: Box<[Row]>,
}

impl Index {
    /// The index of `safepoints`, ascending return addresses with their rows. Each lies behind
    /// `start`, within `len`.
    pub(crate) fn build(start: usize, len: usize, safepoints: &[(usize, Row)]) -> Index {
        let mut buckets = Vec::with_capacity((len >> BUCKET_SHIFT) + 2);
        let mut keys = Vec::with_capacity(safepoints.len() + LANES);
        for (return_address, _) in safepoints {
            let at = return_address.wrapping_sub(start);
            buckets.resize((at >> BUCKET_SHIFT) + 1, keys.len() as u32);
            keys.push((at & BUCKET_MASK) as u8);
        }
        buckets.resize((len >> BUCKET_SHIFT) + 2, keys.len() as u32);
        keys.extend([0; LANES]);
        Index {
            start,
            len,
            buckets: buckets.into_boxed_slice(),
            keys: keys.into_boxed_slice(),
            rows: safepoints.iter().map(|safepoint| safepoint.1).collect(),
        }
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Bytes of memory that the index takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + self.keys.len() + size_of_val(&*self.rows)
    }

    /// How many safepoints it has.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether `return_address` lies in the code, its first byte excepted and its end included.
    #[inline]
    pub(crate) fn covers(&self, return_address: usize) -> bool {
        return_address.wrapping_sub(self.start).wrapping_sub(1) < self.len
    }

    /// The row of `return_address`.
    #[inline]
    pub(crate) fn get(&self, return_address: usize) -> Option<Row> {
        if !self.covers(return_address) {
            return None;
        }
        const LOW_BITS: u64 = u64::from_le_bytes([1; LANES]);
        const HIGH_BITS: u64 = LOW_BITS << 7;
        let at = return_address.wrapping_sub(self.start);
        let bucket = at >> BUCKET_SHIFT;
        let behind = self.buckets[bucket + 1] as usize;
        let mut i = self.buckets[bucket] as usize;
        while i < behind {
            let keys = self.keys[i..].first_chunk().map_or(0, |keys| u64::from_le_bytes(*keys));
            let differ = keys ^ ((at & BUCKET_MASK) as u64).wrapping_mul(LOW_BITS);
            // The lowest bit that this sets belongs to the first byte that is zero.
            let equal = differ.wrapping_sub(LOW_BITS) & !differ & HIGH_BITS;
            if equal != 0 {
                i += equal.trailing_zeros() as usize / 8;
                // An equal key behind the bucket belongs to the next one.
                return (i < behind).then(|| self.rows[i]);
            }
            i += LANES;
        }
        None
    }
}

const KIND_BITS: u32 = 3;
const DERIVED: u64 = 1;

/// The roots in bytes, and the number of plain ones.
///
/// Plain roots are ascending offsets from the stack pointer without derived pointers. Each is one
/// byte, the difference in words to the last. If any root is not plain, the number is [`ANY`] and
/// the bytes begin with the number of roots. Then come each root's base and, if there is one, its
/// derived pointer. Each is one number: the difference in words to the last location or a
/// register's number, its kind, and whether a derived pointer follows.
fn encode(map: &StackMap) -> Result<(u16, Vec<u8>), StackMapError> {
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
    if let Some(bytes) = plain.filter(|bytes| bytes.len() < ANY as usize) {
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
