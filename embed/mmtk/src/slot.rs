//! Words of stacks, as MMTk's slots.

use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::Slot;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A binding's type of slots. A binding whose objects have slots of another kind, tagged or of 32
/// bits, implements it for its own type; else [`StackSlot`] does.
pub trait FromStack: Slot {
    /// The slot of a word that is a reference to an object.
    ///
    /// # Safety
    /// The word at `address` is aligned, and readable and writable as long as the slot is used.
    unsafe fn plain(address: usize) -> Self;

    /// The slot of a word that points `offset` bytes beyond its object, modulo 2 to the 64.
    ///
    /// # Safety
    /// As for [`FromStack::plain`].
    unsafe fn derived(address: usize, offset: usize) -> Self;

    /// Makes the slot refer to no object.
    fn clear(&self);
}

/// A word of a stack, a global or an object that refers to an object, or points so many bytes
/// beyond one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StackSlot {
    address: usize,
    offset: usize,
}

impl StackSlot {
    fn word(&self) -> &AtomicUsize {
        // SAFETY: the address is that of a word that is valid as long as the slot is used: the
        // contract of `plain` and `derived`, by which alone slots are made.
        unsafe { AtomicUsize::from_ptr(self.address as *mut usize) }
    }
}

impl FromStack for StackSlot {
    unsafe fn plain(address: usize) -> StackSlot {
        StackSlot { address, offset: 0 }
    }

    unsafe fn derived(address: usize, offset: usize) -> StackSlot {
        StackSlot { address, offset }
    }

    fn clear(&self) {
        self.word().store(0, Relaxed);
    }
}

impl Slot for StackSlot {
    fn load(&self) -> Option<ObjectReference> {
        // Relaxed, as the store: MMTk orders its workers by its packets, and the stop and the start
        // of the world order them with managed code.
        match self.word().load(Relaxed) {
            0 => None,
            // SAFETY: an address is only looked at.
            word => ObjectReference::from_raw_address(unsafe {
                Address::from_usize(word.wrapping_sub(self.offset))
            }),
        }
    }

    fn store(&self, object: ObjectReference) {
        let word = object.to_raw_address().as_usize().wrapping_add(self.offset);
        self.word().store(word, Relaxed);
    }
}
