//! The address ranges of a heap: one for the blocks, two for what is known of them. They are made
//! accessible from the bottom up as the heap grows.

use std::io;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

use stackmark_stack::reservation::Reservation;

use super::block::{Block, Header, Record};
use super::class::{BLOCK, BLOCK_SHIFT};

/// Bytes that are made accessible at a time.
const STEP: usize = 64 << 20;

/// Bytes of a huge page.
const HUGE: usize = 2 << 20;

/// What freed cells are filled with under [`Options::poison`](super::Options::poison).
const POISON: u8 = 0xdb;

/// Reserved memory. A part that is accessible stays so until the arena is dropped, but for blocks
/// that are [discarded](Arena::discard), until they are [taken again](Arena::take_again).
pub(super) struct Arena {
    heap: Reservation,
    headers: Reservation,
    records: Reservation,
    base: usize,
    /// Bytes from `base` that have been made accessible, and with them what is known of their
    /// blocks.
    accessible: AtomicUsize,
    /// Bytes of address space from `base`.
    capacity: usize,
}

impl Arena {
    /// Reserves `capacity` bytes. If the system refuses that much, reserves a good part of what it
    /// gives, but at least `least` bytes, and leaves some address space to stacks and others.
    /// Blocks may lie on huge pages if `huge_pages` says so.
    ///
    /// # Errors
    /// When the system refuses `least` bytes.
    pub(super) fn reserve(capacity: usize, least: usize, huge_pages: bool) -> io::Result<Arena> {
        let alignment = if huge_pages { HUGE } else { BLOCK };
        let mut capacity = capacity.max(BLOCK).next_multiple_of(BLOCK);
        let mut refused = false;
        loop {
            let made = Reservation::new(capacity + alignment).and_then(|heap| {
                let headers = Reservation::new(capacity / BLOCK * size_of::<Header>())?;
                let records = Reservation::new(capacity / BLOCK * size_of::<Record>())?;
                Ok((heap, headers, records))
            });
            match made {
                // This may be nearly all address space that is left. Leave half of it to others.
                Ok(_) if refused && capacity / 2 >= least.max(BLOCK) => refused = false,
                Ok((heap, headers, records)) => {
                    let base = heap.start().next_multiple_of(alignment);
                    if huge_pages {
                        heap.ask_for_huge_pages();
                    }
                    return Ok(Arena {
                        heap,
                        headers,
                        records,
                        base,
                        accessible: AtomicUsize::new(0),
                        capacity,
                    });
                }
                Err(error) if capacity / 2 < least.max(BLOCK) => return Err(error),
                Err(_) => refused = true,
            }
            capacity = (capacity / 2).next_multiple_of(BLOCK);
        }
    }

    /// How many blocks there is address space for.
    pub(super) fn capacity(&self) -> usize {
        self.capacity / BLOCK
    }

    /// Makes the first `blocks` blocks accessible. Called under a lock of the callers'.
    ///
    /// # Errors
    /// When the system refuses memory.
    pub(super) fn make_accessible(&self, blocks: usize) -> io::Result<()> {
        let old = self.accessible.load(Acquire);
        if blocks << BLOCK_SHIFT <= old {
            return Ok(());
        }
        let new = (blocks << BLOCK_SHIFT).next_multiple_of(STEP).min(self.capacity);
        // Not from the bottom on: discarded blocks stay so.
        let (first, end) = (old / BLOCK, new / BLOCK);
        self.heap.make_accessible(self.bytes(first..end))?;
        self.headers.make_accessible(first * size_of::<Header>()..end * size_of::<Header>())?;
        self.records.make_accessible(first * size_of::<Record>()..end * size_of::<Record>())?;
        // Release: a thread that sees the new length may touch the memory.
        self.accessible.store(new, Release);
        Ok(())
    }

    /// What blocks are of the range of the heap, in bytes.
    fn bytes(&self, blocks: Range<usize>) -> Range<usize> {
        let offset = self.base - self.heap.start();
        offset + (blocks.start << BLOCK_SHIFT)..offset + (blocks.end << BLOCK_SHIFT)
    }

    /// The number of the accessible block that `address` lies in.
    #[inline]
    pub(super) fn index_of(&self, address: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.accessible.load(Acquire)).then_some(offset >> BLOCK_SHIFT)
    }

    /// Where a block begins.
    #[inline]
    pub(super) fn address_of(&self, index: usize) -> usize {
        self.base + (index << BLOCK_SHIFT)
    }

    /// What is known of a block.
    #[inline]
    pub(super) fn block(&self, index: usize) -> Block<'_> {
        debug_assert!(index << BLOCK_SHIFT < self.accessible.load(Acquire));
        // SAFETY: indices come from `index_of` or from the free list, which has accessible blocks
        // only. Their headers are accessible too. They are aligned, since the reservation begins at
        // a page, and all zeros is a valid header.
        let header = unsafe { &*(self.headers.start() as *const Header).add(index) };
        // SAFETY: as above, of records.
        let record = unsafe { &*(self.records.start() as *const Record).add(index) };
        Block::new(header, record)
    }

    /// Whether `address` lies in an accessible block. If so, prefetches its mark.
    #[inline]
    pub(super) fn prefetch(&self, address: usize) -> bool {
        let Some(index) = self.index_of(address) else { return false };
        self.block(index).prefetch_bits(address - self.address_of(index));
        true
    }

    /// Zeroes memory in blocks or cells that the caller owns and that hold no object.
    pub(super) fn zero(&self, address: usize, len: usize) {
        debug_assert!(
            address >= self.base && address + len <= self.base + self.accessible.load(Acquire)
        );
        // SAFETY: accessible memory of this heap, in blocks or cells that the caller owns and that
        // hold no object.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, len) }
    }

    /// Fills memory of freed cells, so that use of dead objects shows.
    pub(super) fn poison(&self, address: usize, len: usize) {
        debug_assert!(
            address >= self.base && address + len <= self.base + self.accessible.load(Acquire)
        );
        // SAFETY: as in `zero`.
        unsafe { std::ptr::write_bytes(address as *mut u8, POISON, len) }
    }

    /// Gives the memory of free blocks back to the system. Nothing touches them before they are
    /// [taken again](Arena::take_again); then they read as zero. Returns false if the system
    /// refuses.
    pub(super) fn discard(&self, first: usize, blocks: usize) -> bool {
        // SAFETY: accessible memory of blocks that hold no object and that the caller owns. The
        // free list takes them again before it hands them out.
        unsafe { self.heap.give_back(self.bytes(first..first + blocks)) }
    }

    /// Makes free blocks accessible, of which any may be discarded.
    ///
    /// # Errors
    /// When the system refuses memory. Then some may be discarded still.
    pub(super) fn take_again(&self, first: usize, blocks: usize) -> io::Result<()> {
        self.heap.take_again(self.bytes(first..first + blocks))
    }
}
