//! The default heap: non-moving, size-segregated mark-sweep with thread-local allocation.
//!
//! One range of address space is cut into blocks of 16 KiB. A block holds cells of one size class
//! for one [`Descriptor`], or belongs to one large object. Objects have no header: the record of
//! their block, which lies aside, says what they are and holds their marks. Memory is handed out
//! zeroed.
//!
//! Marks may be *sticky* ([`Heap::keep_marks`](crate::heap::Heap::keep_marks); Demers, Weiser,
//! Hayes, Boehm, Bobrow and Shenker, "Combining generational and conservative garbage collection:
//! framework and implementations", POPL 1990): sweeping leaves them. So what a cycle has marked is
//! old. What was allocated since is unmarked and young. The next cycle traces from young objects
//! only and sweeps only blocks that have some. What is handed out black is old from the start: its
//! references are marked too, since the thread that stored them did so with the write barrier on. A
//! free cell has no mark, since sweeping frees unmarked ones.
//!
//! Sweeping is lazy. A thread that needs cells first sweeps a block of the kind it needs; the
//! collector's thread sweeps the rest meanwhile.
//!
//! # Marking, allocation and sweeping at the same time
//!
//! - *Sweeping never meets marking.* A cycle begins only when the last sweep is complete, also of
//!   threads in the middle of a block
//!   ([`Heap::finish_sweep`](crate::heap::Heap::finish_sweep) waits for them).
//! - *Sweeping meets allocation* only by blocks, each of which has one owner; see `ownership`.
//! - *Marking meets allocation* in one block all the time. Cells are handed out by runs. A run is
//!   zeroed, then blackened, then published. A thread that resolves a word into the run sees zeros
//!   or newer contents, and its marks are not lost. See `block`.
//! - *A word that points to a free cell* (an old value in a conservatively scanned stack) resolves
//!   to nothing, since the cell is not handed out. One that points to a cell of a run that is not
//!   an object yet marks a cell that is marked already.
//! - *A word that points into a block that changes hands* sees the block's kind last; see `block`.

pub use self::allocator::Allocator;
pub use self::descriptor::{Descriptor, DescriptorError, DescriptorId};
pub use self::error::{AllocationError, HeapError};
pub use self::heap::{MarkSweep, Options};
pub use self::slot::AllocationSlot;

mod allocator;
mod arena;
mod block;
mod blocks;
mod class;
mod counters;
mod cycle;
mod descriptor;
mod error;
mod heap;
mod mapped_slots;
mod ownership;
mod pages;
mod places;
mod registry;
mod runs;
mod slot;
#[cfg(all(test, not(stackmark_loom)))]
mod sticky_tests;
mod sweep;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
