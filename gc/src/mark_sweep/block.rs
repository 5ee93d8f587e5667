//! The record of a block: what it holds, how it is cut, and two bits for each cell.
//!
//! # The bits
//!
//! *handed out*: the cell belongs to an object, or to the run of cells that an allocator is handing
//! out. Only the owner of the block writes this bit: the allocator that has the block, or the
//! thread that sweeps it. *marked*: set by markers, and by the allocator for a whole run while
//! marking is on. Sweeping copies the marks to the other bits. Then it clears them, or leaves them
//! if marks are kept (sticky marks, see the parent module).
//!
//! An allocator zeroes a run, marks it if marking is on, and then publishes *handed out* with
//! release ordering; [`Block::cell`] loads that bit with acquire. So a thread that resolves a word
//! to a cell sees zeros there or what was stored later, never the contents of a dead object. Cells
//! of the run that are not yet objects are zero and refer to nothing.
//!
//! Managed code stores a reference without any order, and another thread may load it before they
//! synchronise. So a fence follows what makes a cell or a large object known ([`publish`]): no
//! later store is seen before it. The other thread finds record and bits at addresses made of the
//! reference, and processors keep such loads in order. It takes the word for an object, then. Else
//! its write barrier would take it for none, and not shade or remember it.
//!
//! # Header fields
//!
//! They change only while the block is free (`kind` is `FREE`), and `kind` is stored last, with
//! release ordering. During marking blocks only go from free to used. So a marker that has seen
//! another kind than `FREE` sees the fields that belong to it. Outside of marking a word may be
//! resolved while its block changes hands. The answer is meaningless then, but it is an address
//! within the block.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, fence,
};

use super::class::{self, BLOCK, MAX_CELLS};
use super::descriptor::Descriptor;

/// No objects.
pub(super) const FREE: u8 = 0;
/// Cells of one class.
pub(super) const SMALL: u8 = 1;
/// The first block of a large object.
pub(super) const LARGE: u8 = 2;
/// Another block of a large object.
pub(super) const TAIL: u8 = 3;

/// One block: what is known of it lies aside.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) header: &'a Header,
    record: &'a Record,
}

/// How a block is cut. All zeros is a free block that was never used.
///
/// Marking looks at one header for each reference. They lie side by side, so that those of a large
/// heap come into the nearest cache together, and say which line of bits to prefetch.
#[repr(C, align(32))]
pub(super) struct Header {
    kind: AtomicU8,
    dirty: AtomicBool,
    cells: AtomicU16,
    cell_size: AtomicU32,
    reciprocal: AtomicU32,
    /// Words after which the places of references repeat; 0 when there are none.
    pub(super) period: AtomicU32,
    /// The places within a period of at most 64 words, as bits.
    pub(super) places: AtomicU64,
    /// The descriptor, if its period is longer. Descriptors live as long as the heap.
    pub(super) wide: AtomicPtr<Descriptor>,
}

/// The rest of what is known of a block. All zeros is a free block that was never used.
#[repr(C, align(64))]
pub(super) struct Record {
    bits: [Bits; WORDS],
    /// In a tail: the number of the object's first block.
    head: AtomicU32,
    /// Bytes of a large object.
    large_size: AtomicUsize,
}

const WORDS: usize = MAX_CELLS / 64;

/// The bits of 64 cells, side by side because marking looks at both kinds.
#[repr(C)]
struct Bits {
    marked: AtomicU64,
    handed_out: AtomicU64,
}

/// Orders what was said of cells and objects before all that this thread stores afterwards: see the
/// module. Where processors keep the order of stores, it is the compiler's alone.
#[inline]
pub(super) fn publish() {
    fence(Release);
}

/// What a sweep found in a block.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Swept {
    /// Cells that live on.
    pub(super) live: u32,
    /// Cells that were taken back.
    pub(super) freed: u32,
}

impl<'a> Block<'a> {
    pub(super) fn new(header: &'a Header, record: &'a Record) -> Block<'a> {
        Block { header, record }
    }

    /// Whether the block's memory may be other than zero.
    pub(super) fn dirty(&self) -> &'a AtomicBool {
        &self.header.dirty
    }

    /// In a tail: the number of the object's first block.
    pub(super) fn head(&self) -> &'a AtomicU32 {
        &self.record.head
    }

    /// Prefetches the bits of the cell that `offset` lies in, if the block is cut into cells.
    #[inline]
    pub(super) fn prefetch_bits(&self, offset: usize) {
        let bits = &self.record.bits[self.cell_number(offset) / 64];
        stackmark_unwind::prefetch(std::ptr::from_ref(bits) as usize);
    }

    /// What the block holds.
    #[inline]
    pub(super) fn kind(&self) -> u8 {
        // Pairs with the release store of `set_kind`.
        self.header.kind.load(Acquire)
    }

    /// Sets what the block holds, after everything else about it has been set.
    pub(super) fn set_kind(&self, kind: u8) {
        // Publishes the header fields to `kind`.
        self.header.kind.store(kind, Release);
    }

    /// The number of cells in the block.
    #[inline]
    pub(super) fn cells(&self) -> usize {
        usize::from(self.header.cells.load(Relaxed))
    }

    /// Bytes of a cell.
    #[inline]
    pub(super) fn cell_size(&self) -> usize {
        self.header.cell_size.load(Relaxed) as usize
    }

    /// Bytes of an object of the block.
    #[inline]
    pub(super) fn object_size(&self) -> usize {
        if self.kind() == LARGE { self.large_size() } else { self.cell_size() }
    }

    /// Cuts a free block into cells of `class`. `set_kind` publishes it.
    pub(super) fn set_up_small(&self, class: usize, descriptor: &Descriptor) {
        // Relaxed: `set_kind` publishes.
        self.header.cells.store(class::cells(class) as u16, Relaxed);
        self.header.cell_size.store(class::SIZES[class], Relaxed);
        self.header.reciprocal.store(class::reciprocal(class::SIZES[class]), Relaxed);
        self.set_places(descriptor);
        self.clear_bits();
    }

    /// Makes a free block the first of a large object of `bytes` bytes. `set_kind` publishes it.
    pub(super) fn set_up_large(&self, bytes: usize, marked: bool, descriptor: &Descriptor) {
        // Relaxed: `set_kind` publishes.
        self.header.cells.store(1, Relaxed);
        self.record.large_size.store(bytes, Relaxed);
        self.set_places(descriptor);
        self.record.bits[0].marked.store(u64::from(marked), Relaxed);
        self.record.bits[0].handed_out.store(1, Relaxed);
    }

    fn clear_bits(&self) {
        for bits in &self.record.bits {
            bits.marked.store(0, Relaxed);
            bits.handed_out.store(0, Relaxed);
        }
    }

    /// The number of the cell that `offset` lies in, if there is one and it is handed out.
    #[inline]
    pub(super) fn cell(&self, offset: usize) -> Option<usize> {
        let cell = self.cell_at(offset)?;
        // Acquire: pairs with `hand_out`; see the module.
        let bits = self.record.bits[cell / 64].handed_out.load(Acquire);
        (bits >> (cell % 64) & 1 != 0).then_some(cell)
    }

    /// Whether a large object is there.
    #[inline]
    pub(super) fn large_is_handed_out(&self) -> bool {
        self.record.bits[0].handed_out.load(Acquire) & 1 != 0
    }

    /// Bytes of the large object.
    #[inline]
    pub(super) fn large_size(&self) -> usize {
        self.record.large_size.load(Relaxed)
    }

    /// The number of the cell that `offset` lies in, whether it is handed out or not.
    #[inline]
    pub(super) fn cell_number(&self, offset: usize) -> usize {
        self.quotient(offset).min(MAX_CELLS - 1)
    }

    /// The number of the cell that `offset` lies in, if there is one.
    #[inline]
    fn cell_at(&self, offset: usize) -> Option<usize> {
        Some(self.quotient(offset)).filter(|cell| *cell < self.cells().min(MAX_CELLS))
    }

    /// `offset` by the size of a cell. Of a block that is not cut into cells it may be any number.
    #[inline]
    fn quotient(&self, offset: usize) -> usize {
        ((offset as u64 * u64::from(self.header.reciprocal.load(Relaxed))) >> 32) as usize
    }

    /// Marks a cell. Returns whether it was unmarked.
    #[inline]
    pub(super) fn mark(&self, cell: usize) -> bool {
        let word = &self.record.bits[cell / 64].marked;
        let bit = 1 << (cell % 64);
        // Most words lead to objects that are marked already: look before paying for the exchange.
        // Relaxed suffices for both. The bit only decides which thread traces the object. The loads
        // of `trace` and the write barrier order the object's contents, and the stopped world
        // orders the end of the cycle.
        word.load(Relaxed) & bit == 0 && word.fetch_or(bit, Relaxed) & bit == 0
    }

    /// Marks the cell that `offset` lies in, if there is one and it is handed out. Returns its
    /// number if it was unmarked.
    #[inline]
    pub(super) fn mark_at(&self, offset: usize) -> Option<usize> {
        let cell = self.cell_at(offset)?;
        let (bits, bit) = (&self.record.bits[cell / 64], 1 << (cell % 64));
        // As in `mark`, and what is marked is of no interest, handed out or not. Else Acquire, as
        // in `cell`.
        let is_white =
            bits.marked.load(Relaxed) & bit == 0 && bits.handed_out.load(Acquire) & bit != 0;
        (is_white && bits.marked.fetch_or(bit, Relaxed) & bit == 0).then_some(cell)
    }

    /// Whether a cell is marked.
    #[inline]
    pub(super) fn is_marked(&self, cell: usize) -> bool {
        self.record.bits[cell / 64].marked.load(Relaxed) >> (cell % 64) & 1 != 0
    }

    /// Marks the cells `from..to`. They need no tracing: they are black.
    pub(super) fn blacken(&self, from: usize, to: usize) {
        for_words(from, to, |word, mask| {
            // Relaxed: see `mark`.
            self.record.bits[word].marked.fetch_or(mask, Relaxed);
        });
    }

    /// The next run of cells at or after `from` that are not handed out. For the owner.
    pub(super) fn next_free_run(&self, from: usize) -> Option<(usize, usize)> {
        let cells = self.cells();
        let first = self.next_with(from, cells, |bits| !bits)?;
        let end = self.next_with(first, cells, |bits| bits).unwrap_or(cells);
        Some((first, end))
    }

    /// The first cell in `from..cells` whose bit, after `pick`, is one.
    fn next_with(&self, from: usize, cells: usize, pick: impl Fn(u64) -> u64) -> Option<usize> {
        if from >= cells {
            return None;
        }
        let mut word = from / 64;
        let mut bits = pick(self.record.bits[word].handed_out.load(Relaxed)) & (!0 << (from % 64));
        loop {
            if bits != 0 {
                let cell = word * 64 + bits.trailing_zeros() as usize;
                return (cell < cells).then_some(cell);
            }
            word += 1;
            if word * 64 >= cells {
                return None;
            }
            bits = pick(self.record.bits[word].handed_out.load(Relaxed));
        }
    }

    /// Publishes the cells `from..to`, which hold zeros. For the owner.
    pub(super) fn hand_out(&self, from: usize, to: usize) {
        for_words(from, to, |word, mask| {
            let bits = &self.record.bits[word].handed_out;
            // Only the owner writes, so a load and a store suffice. Release: publishes the zeros to
            // `cell`.
            bits.store(bits.load(Relaxed) | mask, Release);
        });
        publish();
    }

    /// Takes back the cells `from..to`, which were handed out but became no objects. The world is
    /// stopped.
    pub(super) fn take_back(&self, from: usize, to: usize) {
        for_words(from, to, |word, mask| {
            self.record.bits[word].handed_out.fetch_and(!mask, Relaxed);
            self.record.bits[word].marked.fetch_and(!mask, Relaxed);
        });
    }

    /// Keeps what is marked, frees the rest, and clears the marks unless they are kept. Calls
    /// `freed` with the number of each cell that is freed. For the owner.
    pub(super) fn sweep(&self, keep_marks: bool, mut freed: impl FnMut(usize)) -> Swept {
        let mut swept = Swept::default();
        for (word, bits) in self.record.bits[..self.cells().div_ceil(64)].iter().enumerate() {
            // Relaxed, all of it: no thread marks now, and the sweeper owns the block. It goes to
            // another thread, or to markers of the next cycle, through a lock.
            let marked = bits.marked.load(Relaxed);
            let mut dead = bits.handed_out.load(Relaxed) & !marked;
            bits.handed_out.store(marked, Relaxed);
            if !keep_marks {
                bits.marked.store(0, Relaxed);
            }
            swept.live += marked.count_ones();
            swept.freed += dead.count_ones();
            while dead != 0 {
                freed(word * 64 + dead.trailing_zeros() as usize);
                dead &= dead - 1;
            }
        }
        swept
    }

    /// Clears the marks of all cells, or of a large object. No thread marks or sweeps meanwhile;
    /// allocators may hand cells out.
    pub(super) fn clear_marks(&self) {
        // Relaxed: markers of the next cycle have synchronised with this thread. A block that is
        // being set up has no marks.
        self.record.bits.iter().for_each(|bits| bits.marked.store(0, Relaxed));
    }

    /// Sweeps a large object. Returns whether it lives on. Clears its mark unless marks are kept.
    /// For the owner.
    pub(super) fn sweep_large(&self, keep_marks: bool) -> bool {
        // Relaxed: as in `sweep`.
        let live = self.record.bits[0].marked.load(Relaxed) & 1 != 0;
        if !keep_marks {
            self.record.bits[0].marked.store(0, Relaxed);
        }
        if !live {
            self.record.bits[0].handed_out.store(0, Relaxed);
        }
        live
    }
}

/// Calls `visit` with the numbers of the words that hold the bits `from..to`, and masks of the
/// bits.
fn for_words(from: usize, to: usize, mut visit: impl FnMut(usize, u64)) {
    let mut at = from;
    while at < to {
        let end = to.min((at / 64 + 1) * 64);
        visit(at / 64, (!0 >> (64 - (end - at))) << (at % 64));
        at = end;
    }
}

const _: () = assert!(BLOCK <= 1 << 16 && size_of::<Header>() == 32);

#[cfg(all(test, not(stackmark_loom)))]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(in super::super) fn block(class: usize) -> Block<'static> {
        // SAFETY: all zeros is a valid header: it consists of atomics and a null pointer.
        let header: Box<Header> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: as above.
        let record: Box<Record> = Box::new(unsafe { std::mem::zeroed() });
        let block = Block::new(Box::leak(header), Box::leak(record));
        block.set_up_small(class, Box::leak(Box::new(Descriptor::no_pointers())));
        block
    }

    proptest! {
        #[test]
        fn runs_and_bits_agree_with_a_vector_of_flags(
            class in 0..class::CLASSES,
            ranges in prop::collection::vec((0.0..1.0f64, 0.0..0.2f64), 0..8),
            start in 0.0..1.0f64,
        ) {
            let block = block(class);
            let cells = block.cells();
            let mut model = vec![false; cells];
            for (from, len) in ranges {
                let from = (from * cells as f64) as usize;
                let to = (from + (len * cells as f64) as usize).min(cells);
                block.hand_out(from, to);
                model[from..to].fill(true);
            }
            for (cell, handed_out) in model.iter().enumerate() {
                prop_assert_eq!(block.cell(cell * block.cell_size()).is_some(), *handed_out);
                let last = (cell + 1) * block.cell_size() - 1;
                prop_assert_eq!(block.cell(last), handed_out.then_some(cell));
                prop_assert_eq!(block.mark_at(last), handed_out.then_some(cell));
                prop_assert_eq!((block.mark_at(last), block.is_marked(cell)), (None, *handed_out));
            }
            let from = (start * cells as f64) as usize;
            let next = |from: usize, handed_out: bool| {
                (from..cells).find(|cell| model[*cell] == handed_out)
            };
            let expected =
                next(from, false).map(|first| (first, next(first, true).unwrap_or(cells)));
            prop_assert_eq!(block.next_free_run(from), expected);
        }
    }
}
