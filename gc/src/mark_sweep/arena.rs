//! The address range of a heap: one reservation for the blocks, one for their records, made
//! accessible from the bottom up as the heap grows.

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};

use super::block::Block;
use super::class::{BLOCK, BLOCK_SHIFT};

/// What is made accessible at a time.
const STEP: usize = 64 << 20;

/// Reserved memory. Whatever part of it is accessible stays so until the arena is dropped.
pub(super) struct Arena {
    heap: Reservation,
    records: Reservation,
    base: usize,
    /// Bytes from `base` that are accessible, and with them the records of their blocks.
    accessible: AtomicUsize,
    capacity: usize,
}

impl Arena {
    /// Reserves `capacity` bytes; where the system does not let it have that much, a good part of
    /// what there is, but at least `least`. Stacks and other reservations want some address space
    /// too.
    pub(super) fn reserve(capacity: usize, least: usize) -> io::Result<Arena> {
        let mut capacity = capacity.max(BLOCK).next_multiple_of(BLOCK);
        let mut refused = false;
        loop {
            let made = Reservation::new(capacity + BLOCK).and_then(|heap| {
                Ok((heap, Reservation::new(capacity / BLOCK * size_of::<Block>())?))
            });
            match made {
                // It may be nearly everything that is left.
                Ok(_) if refused && capacity / 2 >= least.max(BLOCK) => refused = false,
                Ok((heap, records)) => {
                    let base = heap.start.next_multiple_of(BLOCK);
                    return Ok(Arena {
                        heap,
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

    /// Blocks that there is address space for.
    pub(super) fn capacity(&self) -> usize {
        self.capacity / BLOCK
    }

    /// Makes the first `blocks` blocks accessible. Callers take turns (a lock of theirs).
    pub(super) fn make_accessible(&self, blocks: usize) -> io::Result<()> {
        let old = self.accessible.load(Acquire);
        if blocks << BLOCK_SHIFT <= old {
            return Ok(());
        }
        let new = (blocks << BLOCK_SHIFT).next_multiple_of(STEP).min(self.capacity);
        self.heap.make_accessible(self.base - self.heap.start + new)?;
        self.records.make_accessible(new / BLOCK * size_of::<Block>())?;
        // Release: who sees the new length may touch the memory.
        self.accessible.store(new, Release);
        Ok(())
    }

    /// The number of the block that `address` lies in, if that is accessible.
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

    /// The record of a block.
    #[inline]
    pub(super) fn block(&self, index: usize) -> &Block {
        debug_assert!(index << BLOCK_SHIFT < self.accessible.load(Acquire));
        // SAFETY: indices come from `index_of` or from the free list, which deals in accessible
        // blocks only; their records are accessible too, aligned (the reservation begins at a page)
        // and, all zeros, valid from the start.
        unsafe { &*(self.records.start as *const Block).add(index) }
    }

    /// Whether `address` lies in a block. If so, the block's record and the memory there are asked
    /// into the cache.
    #[inline]
    pub(super) fn prefetch(&self, address: usize) -> bool {
        let Some(index) = self.index_of(address) else { return false };
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let record = std::ptr::from_ref(self.block(index)).cast::<i8>();
        // The bits of the smaller cells lie further on; most are in these two lines.
        // SAFETY: a hint, which reads nothing.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(record);
            _mm_prefetch::<_MM_HINT_T0>(record.wrapping_add(64));
            _mm_prefetch::<_MM_HINT_T0>(address as *const i8);
        }
        true
    }

    /// Zeroes memory of blocks that the caller owns.
    pub(super) fn zero(&self, address: usize, len: usize) {
        debug_assert!(
            address >= self.base && address + len <= self.base + self.accessible.load(Acquire)
        );
        // SAFETY: accessible memory of this heap, in blocks or cells that the caller owns and that
        // hold no object.
        unsafe { std::ptr::write_bytes(address as *mut u8, 0, len) }
    }

    /// Fills memory of freed cells, to make use of dead objects show.
    pub(super) fn poison(&self, address: usize, len: usize) {
        debug_assert!(
            address >= self.base && address + len <= self.base + self.accessible.load(Acquire)
        );
        // SAFETY: as in `zero`.
        unsafe { std::ptr::write_bytes(address as *mut u8, super::POISON, len) }
    }

    /// Gives the memory of free blocks back to the system; they read as zero then. False if the
    /// system would not.
    pub(super) fn discard(&self, first: usize, blocks: usize) -> bool {
        // SAFETY: accessible memory of blocks that hold no object and that the caller owns.
        unsafe {
            libc::madvise(
                self.address_of(first) as *mut _,
                blocks << BLOCK_SHIFT,
                libc::MADV_DONTNEED,
            ) == 0
        }
    }
}

/// A range of address space.
pub(super) struct Reservation {
    pub(super) start: usize,
    len: usize,
}

impl Reservation {
    pub(super) fn new(len: usize) -> io::Result<Reservation> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at an address of the system's choice touches no memory of ours.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Reservation { start: start as usize, len })
    }

    pub(super) fn make_accessible(&self, len: usize) -> io::Result<()> {
        let len = len.next_multiple_of(4096).min(self.len.next_multiple_of(4096));
        // SAFETY: the range is our own mapping.
        match unsafe {
            libc::mprotect(self.start as *mut _, len, libc::PROT_READ | libc::PROT_WRITE)
        } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing refers into it: the heap that owned it is gone.
        unsafe { libc::munmap(self.start as *mut _, self.len) };
    }
}
