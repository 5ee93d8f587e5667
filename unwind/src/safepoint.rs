//! The safepoint table of one region: from a return address to its frame's layout and live slots, in one probe.

use std::collections::HashMap;

use crate::rule::WORD;

/// A return address of managed code, the layout of its frame there, and the slots that are live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safepoint {
    /// The address of the instruction behind the call.
    pub return_address: usize,
    /// The frame's CFA minus its stack pointer once the call has returned, in bytes: the saved registers and the
    /// return address count. [`stack_map::cranelift`](crate::stack_map::cranelift) computes it from Cranelift's span.
    pub cfa_offset: u32,
    /// Offsets from that stack pointer, in bytes, of the words that may hold references or pointers into the
    /// goroutine's own stack.
    pub slots: Vec<u32>,
}

/// What a safepoint's function and its CFI add to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// The frame pointer was saved this many bytes below the CFA; 0: it was not.
    pub(crate) saved_fp: usize,
    /// The CFI computes the CFA as frame pointer plus this many bytes; `None`: from the stack pointer.
    pub(crate) cfa_from_fp: Option<usize>,
    pub(crate) moves_return_address: bool,
}

/// One safepoint in the table: 16 bytes, so that four share a cache line and none lies across two.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(16))]
struct Entry {
    /// Return address minus the region's start. 0 marks a free entry: no call ends at a region's first byte.
    key: u32,
    /// CFA offset / 8 in the low 25 bits, flags above.
    frame: u32,
    /// Where its slots begin in the arena.
    slots: u32,
    count: u16,
    /// Saved frame pointer at CFA - 8 * this; 0: not saved.
    saved_fp: u8,
    /// The CFI has CFA = fp + 8 * this; 0: from the stack pointer.
    cfa_from_fp: u8,
}

const FRAME_BITS: u32 = 25;
const FRAME_MASK: u32 = (1 << FRAME_BITS) - 1;
const MOVES: u32 = 1 << FRAME_BITS;

const _: () = assert!(size_of::<Entry>() == 16);

/// The safepoints of one region.
#[derive(Debug)]
pub(crate) struct SafepointTable {
    start: usize,
    len: usize,
    /// Open addressing, at most half full, a power of two in length.
    entries: Box<[Entry]>,
    shift: u32,
    /// All slot lists, equal ones stored once; byte offsets from the stack pointer.
    arena: Box<[u32]>,
}

impl SafepointTable {
    /// Builds the table of a region. The caller has checked that each return address lies behind `start`, within
    /// `len < 4 GiB`, at most once, and that offsets and layouts fit the entry.
    pub(crate) fn build(start: usize, len: usize, safepoints: &[(Safepoint, Layout)]) -> SafepointTable {
        let size = (safepoints.len() * 2).next_power_of_two().max(2);
        let mut table = SafepointTable {
            start,
            len,
            entries: vec![Entry::default(); size].into_boxed_slice(),
            shift: u32::BITS - size.trailing_zeros(),
            arena: Box::default(),
        };
        let mut arena: Vec<u32> = Vec::new();
        let mut lists: HashMap<&[u32], u32> = HashMap::new();
        for (safepoint, layout) in safepoints {
            let slots = *lists.entry(&safepoint.slots).or_insert_with(|| {
                let at = arena.len() as u32;
                arena.extend(&safepoint.slots);
                at
            });
            let key = (safepoint.return_address - start) as u32;
            let mut i = table.home(key);
            while table.entries[i].key != 0 {
                i = (i + 1) & (size - 1);
            }
            table.entries[i] = Entry {
                key,
                frame: (safepoint.cfa_offset / WORD as u32) | if layout.moves_return_address { MOVES } else { 0 },
                slots,
                count: safepoint.slots.len() as u16,
                saved_fp: (layout.saved_fp / WORD) as u8,
                cfa_from_fp: (layout.cfa_from_fp.unwrap_or(0) / WORD) as u8,
            };
        }
        table.arena = arena.into_boxed_slice();
        table
    }

    #[inline]
    fn home(&self, key: u32) -> usize {
        (key.wrapping_mul(0x9e37_79b1) >> self.shift) as usize
    }

    /// Whether `return_address` lies in the region, its first byte excepted and its end included.
    #[inline]
    pub(crate) fn covers(&self, return_address: usize) -> bool {
        return_address.wrapping_sub(self.start).wrapping_sub(1) < self.len
    }

    /// The safepoint at `return_address`.
    #[inline]
    pub(crate) fn get(&self, return_address: usize) -> Option<SafepointRef<'_>> {
        if !self.covers(return_address) {
            return None;
        }
        let key = (return_address - self.start) as u32;
        let mut i = self.home(key);
        loop {
            // At most half of the entries are taken, so that the probe meets the key or a free one.
            let entry = &self.entries[i & (self.entries.len() - 1)];
            if entry.key == key {
                return Some(SafepointRef { entry, arena: &self.arena });
            }
            if entry.key == 0 {
                return None;
            }
            i += 1;
        }
    }
}

/// A registered safepoint.
#[derive(Clone, Copy)]
pub struct SafepointRef<'s> {
    entry: &'s Entry,
    arena: &'s [u32],
}

impl<'s> SafepointRef<'s> {
    /// The frame's CFA minus its stack pointer, in bytes.
    #[inline]
    pub fn cfa_offset(&self) -> usize {
        (self.entry.frame & FRAME_MASK) as usize * WORD
    }

    /// Offsets of the live slots from the frame's stack pointer, in bytes.
    #[inline]
    pub fn slots(&self) -> &'s [u32] {
        let first = self.entry.slots as usize;
        &self.arena[first..first + self.entry.count as usize]
    }

    /// Whether the function is registered as one that moves its return address.
    #[inline]
    pub fn moves_return_address(&self) -> bool {
        self.entry.frame & MOVES != 0
    }

    /// How far below the CFA the frame pointer was saved, in bytes; 0 if it was not.
    #[inline]
    pub(crate) fn saved_fp(&self) -> usize {
        self.entry.saved_fp as usize * WORD
    }

    /// The distance from the frame pointer to the CFA, in bytes, if that is how the CFI computes the CFA.
    #[inline]
    pub(crate) fn cfa_from_fp(&self) -> Option<usize> {
        (self.entry.cfa_from_fp != 0).then(|| self.entry.cfa_from_fp as usize * WORD)
    }
}

impl core::fmt::Debug for SafepointRef<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SafepointRef")
            .field("cfa_offset", &self.cfa_offset())
            .field("slots", &self.slots())
            .field("moves_return_address", &self.moves_return_address())
            .finish()
    }
}
