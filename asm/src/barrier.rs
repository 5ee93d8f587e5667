//! The pool of barrier stubs, and its table of saved return addresses.

use crate::{arch, pcs};
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub use crate::arch::{
    BARRIER_PAGES, BarrierRecord, STUBS_PER_PAGE, describe_barrier, limit_vectors,
};

/// Words of the table. Not every index names a stub: see [`is_stub`].
pub const TABLE_WORDS: usize = BARRIER_PAGES * PAGE_WORDS;

/// Words of the table for each page of the pool.
const PAGE_WORDS: usize = arch::HEADER_STUBS + STUBS_PER_PAGE;

/// A word of the table, as far from the next one as stubs are from each other.
#[repr(C, align(8))]
struct Saved(AtomicUsize);
const _: () = assert!(size_of::<Saved>() == arch::STUB_BYTES);

/// The saved return addresses. Unwinders of other threads read the words at any time, by plain
/// loads. The holder of a goroutine writes the word before it writes the slot: see the placing
/// protocol of the crate that owns barriers.
#[unsafe(no_mangle)]
static stackmark_barrier_table: [Saved; TABLE_WORDS] =
    [const { Saved(AtomicUsize::new(0)) }; TABLE_WORDS];

/// The addresses of all stubs.
#[inline]
pub fn pool() -> Range<usize> {
    pcs::pool()
}

/// The addresses of the table of saved return addresses, which the CFI of stubs reads.
pub fn table() -> Range<usize> {
    let words = stackmark_barrier_table.as_ptr_range();
    words.start as usize..words.end as usize
}

/// Whether `index` names a stub: the words for the header of each page do not.
pub const fn is_stub(index: usize) -> bool {
    index < TABLE_WORDS && index % PAGE_WORDS >= arch::HEADER_STUBS
}

/// The word that a hijacked slot holds: an address in the stub, behind its first instruction.
///
/// # Panics
/// If `index` does not name a stub.
#[inline]
pub fn hijacked_word(index: usize) -> usize {
    stub(index) + arch::HIJACKED_AT
}

/// The address of a stub.
#[inline]
pub(crate) fn stub(index: usize) -> usize {
    assert!(is_stub(index), "{index} is not the index of a stub");
    pool().start + index * arch::STUB_BYTES
}

/// The index of the stub into which `found`, a return address, points; `None` if it is an ordinary
/// return address.
#[inline]
pub fn index_of(found: usize) -> Option<usize> {
    let pool = pool();
    let offset = found.wrapping_sub(pool.start);
    (offset < pool.end - pool.start).then_some(offset / arch::STUB_BYTES)
}

/// The table's word for a stub: the saved return address. Managed code that returns through the
/// stub goes on there, and so do all unwinders.
///
/// # Panics
/// If `index` is not below [`TABLE_WORDS`].
///
/// # Safety
/// Every thread may load the word. Only the stub's owner stores to it: a stub has one owner at a
/// time, the goroutine that took its index from the pool of free ones. The owner stores the return
/// address of a slot before the slot holds the stub, and does not store again until it has given
/// the index back.
#[inline]
pub unsafe fn saved(index: usize) -> &'static AtomicUsize {
    &stackmark_barrier_table[index].0
}

/// The return address that `found` stands for: the saved one if it points into a stub, else `None`.
#[inline]
pub fn original(found: usize) -> Option<usize> {
    // Relaxed: the thread that walks holds the goroutine or runs it, and so has seen the placing.
    // Or it walks its own stack, InForeign, while a holder places: the holder stores the table's
    // word first, and the address of this load is made of the stub, which processors respect.
    index_of(found).map(|index| stackmark_barrier_table[index].0.load(Relaxed))
}
