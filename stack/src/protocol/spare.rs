//! A lock-free list of values made in advance, for threads that must not wait until one is made.
//!
//! Invariants:
//!
//! 1. A node is either in the list or taken by one thread. Only that thread uses its value. Nodes
//!    are never freed before the list.
//! 2. The head packs the first node's address and a tag. Every node that is put in counts the tag
//!    up. So the compare-and-swap that takes a node fails if a node was put in since the head was
//!    read, the same one for example. When it succeeds, the node has been in the list all the time,
//!    and the `next` that was read is the one that it has there.

use crate::protocol::sync::{AtomicU64, AtomicUsize, Mutex, Ordering};
use std::ptr::NonNull;

/// A value in a [`SpareList`], or taken from it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Node<T> {
    /// The next node's address, 0 at the end. Meaningful while the node is in the list.
    next: AtomicUsize,
    pub(crate) value: T,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SpareList<T> {
    head: AtomicU64,
    /// Every node, to be freed. Locked when one is added.
    all: Mutex<Vec<NonNull<Node<T>>>>,
}

/// A packed address has 48 bits, or 32 where no address has more. The alignment of a node makes 6
/// of them 0, so 42 or 26 are stored. The tag has the other bits of the word: at least 22.
const ADDRESS_BITS: u32 = if usize::BITS > 32 { 48 } else { 32 };
const ALIGN_BITS: u32 = 6;
const TAG_BITS: u32 = u64::BITS - (ADDRESS_BITS - ALIGN_BITS);

/// Whether a node's address can be packed.
fn is_packable(node: usize) -> bool {
    (node as u64) >> ADDRESS_BITS == 0 && node.is_multiple_of(1 << ALIGN_BITS)
}

fn pack(node: usize, tag: u64) -> u64 {
    debug_assert!(is_packable(node));
    (node as u64 >> ALIGN_BITS) << TAG_BITS | tag & ((1 << TAG_BITS) - 1)
}

fn address(head: u64) -> usize {
    (head >> TAG_BITS << ALIGN_BITS) as usize
}

// SAFETY: several threads reach a node, but only the thread that has taken it reaches its value.
unsafe impl<T: Send> Send for SpareList<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for SpareList<T> {}

impl<T> SpareList<T> {
    /// An empty list.
    pub(crate) fn new() -> SpareList<T> {
        SpareList { head: AtomicU64::new(0), all: Mutex::new(Vec::new()) }
    }

    /// A new node, taken. `None` if its address has more bits than can be packed: a system may
    /// hand out such addresses, though none does so unasked.
    pub(crate) fn make(&self, value: T) -> Option<NonNull<Node<T>>> {
        let node = Box::new(Node { next: AtomicUsize::new(0), value });
        if !is_packable(&raw const *node as usize) {
            return None;
        }
        let node = NonNull::from(Box::leak(node));
        self.all.lock().push(node);
        Some(node)
    }

    /// Takes a node.
    pub(crate) fn take(&self) -> Option<NonNull<Node<T>>> {
        // Acquire: pairs with the Release of `give`. What the node's last user did is visible.
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let node = NonNull::new(address(head) as *mut Node<T>)?;
            // SAFETY: nodes live as long as the list. Relaxed: if the word is stale, so is the tag.
            let next = unsafe { &(*node.as_ptr()).next }.load(Ordering::Relaxed);
            let swapped = self.head.compare_exchange_weak(
                head,
                pack(next, head),
                // Relaxed: the head is the one that was read, by an Acquire.
                Ordering::Relaxed,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return Some(node),
                Err(now) => head = now,
            }
        }
    }

    /// Puts a node back, or in for the first time.
    ///
    /// # Safety
    /// The node is this list's and taken; the caller does not use it any more.
    pub(crate) unsafe fn give(&self, node: NonNull<Node<T>>) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: nodes live as long as the list.
            unsafe { &(*node.as_ptr()).next }.store(address(head), Ordering::Relaxed);
            let new = pack(node.as_ptr() as usize, head + 1);
            // Release: what this thread did to the node, its `next` included, is visible to `take`.
            match self.head.compare_exchange_weak(head, new, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// The number of nodes in the list or taken, and the number in the list. Exact while no thread
    /// takes or gives a node.
    pub(crate) fn count(&self) -> (usize, usize) {
        let made = self.all.lock().len();
        // Acquire: pairs with the Release of `give`. The node's `next` is visible.
        let mut at = address(self.head.load(Ordering::Acquire));
        let mut spare = 0;
        while let Some(node) = NonNull::new(at as *mut Node<T>).filter(|_| spare < made) {
            spare += 1;
            // SAFETY: nodes live as long as the list. Where other threads change the list
            // meanwhile, the bound ends the walk.
            at = unsafe { &(*node.as_ptr()).next }.load(Ordering::Relaxed);
        }
        (made, spare)
    }

    /// Whether the list is empty at this moment.
    pub(crate) fn is_empty(&self) -> bool {
        address(self.head.load(Ordering::Relaxed)) == 0
    }
}

impl<T> Drop for SpareList<T> {
    fn drop(&mut self) {
        for node in self.all.lock().drain(..) {
            // SAFETY: made by `make`, and no other thread has the list any more.
            drop(unsafe { Box::from_raw(node.as_ptr()) });
        }
    }
}

#[cfg(all(test, stackmark_loom))]
mod models;
#[cfg(all(test, not(stackmark_loom)))]
mod tests;
