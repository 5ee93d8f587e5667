//! The form in which all stack maps are kept: a few bytes a safepoint, found in a few loads.
//!
//! A safepoint has a row: the number of its map, and the frame's size, so that a walk need not wait
//! for the map. Equal maps are stored once, and so are equal lists of roots.

use std::collections::HashMap;

use super::map::{StackMap, StackMapError};
use super::roots::{FIRST_WORDS, RootIter, encode, words};
use crate::arch::{self, FRAME_RECORD};

/// Bytes of a word, as offsets are counted.
const WORD: i32 = arch::WORD as i32;

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
    /// Where the roots lie, or which words are roots, one bit each.
    roots: u32,
    /// The number of plain roots, or another form.
    plain: u16,
    saved_fp: u8,
    cfa_from_fp: u8,
}

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
        let (plain, roots) = match (encode(map)?, words(&map.roots)) {
            (_, Some(words)) => (FIRST_WORDS, words),
            ((plain, encoded), None) => (plain, self.place(encoded, return_address)?),
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

    /// Where a list of roots lies.
    fn place(&mut self, encoded: Vec<u8>, return_address: usize) -> Result<u32, StackMapError> {
        if let Some(place) = self.places.get(&encoded) {
            return Ok(*place);
        }
        let place = u32::try_from(self.roots.len())
            .map_err(|_| StackMapError::TooMany { return_address })?;
        self.roots.extend(&encoded);
        self.places.insert(encoded, place);
        Ok(place)
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
        // One comparison.
        [head.saved_fp, head.cfa_from_fp] == [WORDS; 2]
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
        match head.plain {
            FIRST_WORDS => RootIter::of_words(head.roots),
            plain => RootIter::of_bytes(plain, &self.maps.roots[head.roots as usize..]),
        }
    }
}
