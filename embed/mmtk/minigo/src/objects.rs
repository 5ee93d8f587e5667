//! How objects of minigo's lie in a heap of MMTk's: two words in front of them, and words that
//! refer into them.

use mmtk::memory_manager as mm;
use mmtk::util::{Address, ObjectReference};
use mmtk::vm::slot::Slot;
use stackmark_mmtk::FromStack;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Bytes of a header: the address of the descriptor, and the bytes of the object behind it.
pub(crate) const HEADER: usize = 16;
/// Objects are aligned so. A multiple of it is what each takes.
pub(crate) const ALIGNMENT: usize = 16;

/// The pattern of words that an object repeats.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Descriptor {
    words: usize,
    /// Those that may be references.
    references: Vec<usize>,
}

impl Descriptor {
    /// The one of this pattern. It lives as long as the process.
    pub(crate) fn of(references: &[bool]) -> &'static Descriptor {
        static ALL: OnceLock<Mutex<HashMap<Vec<bool>, &'static Descriptor>>> = OnceLock::new();
        let mut all =
            ALL.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(references.to_vec()).or_insert_with(|| {
            let indices = references.iter().enumerate().filter(|(_, is)| **is);
            Box::leak(Box::new(Descriptor {
                words: references.len().max(1),
                references: indices.map(|(index, _)| index).collect(),
            }))
        })
    }
}

/// The object at an address.
pub(crate) fn object_at(address: usize) -> ObjectReference {
    // SAFETY: an address is only looked at.
    let object = ObjectReference::from_raw_address(unsafe { Address::from_usize(address) });
    object.expect("the address of an object, which is aligned and not 0")
}

/// What so many bytes of an object take with their header.
pub(crate) fn with_header(bytes: usize) -> Option<usize> {
    bytes.checked_add(HEADER)?.checked_next_multiple_of(ALIGNMENT)
}

/// Writes the header of a new object, and zeroes.
///
/// # Safety
/// There is memory at `at` for the object and its header.
pub(crate) unsafe fn initialize(at: Address, descriptor: &'static Descriptor, bytes: usize) {
    let taken = with_header(bytes).expect("as much as was allocated");
    // SAFETY: our contract.
    unsafe {
        std::ptr::write_bytes(at.to_mut_ptr::<u8>(), 0, taken);
        at.store([std::ptr::from_ref(descriptor) as usize, bytes]);
    }
}

/// What an object takes with its header.
pub(crate) fn size(object: ObjectReference) -> usize {
    // SAFETY: the second word of an object's header.
    let bytes: usize = unsafe { (object.to_raw_address() - 8usize).load() };
    with_header(bytes).expect("as much as was allocated")
}

/// Visits the words of an object that may be references.
pub(crate) fn references(object: ObjectReference, mut visit: impl FnMut(InteriorSlot)) {
    let header = object.to_raw_address() - HEADER;
    // SAFETY: the header of an object.
    let [descriptor, bytes]: [usize; 2] = unsafe { header.load() };
    // SAFETY: the first word is the address of a descriptor that lives as long as the process.
    let descriptor = unsafe { &*(descriptor as *const Descriptor) };
    let words = bytes / size_of::<usize>();
    if descriptor.references.is_empty() {
        return;
    }
    for begin in (0..words).step_by(descriptor.words) {
        for index in descriptor.references.iter().map(|index| begin + index) {
            if index < words {
                // SAFETY: a word of the object.
                visit(unsafe {
                    InteriorSlot::plain(object.to_raw_address().as_usize() + 8 * index)
                });
            }
        }
    }
}

/// The object that a word refers to: to its beginning, or into it. Other words refer to none: 0,
/// constants of the program, numbers in words that may be references.
pub(crate) fn resolve(word: usize) -> Option<ObjectReference> {
    /// More than any object has. A space looks no further than its own objects are long.
    const FURTHEST: usize = 1 << 40;
    if word < HEADER {
        return None;
    }
    // SAFETY: an address is only looked at.
    let address = unsafe { Address::from_usize(word) };
    let begins = word.is_multiple_of(ALIGNMENT).then(|| mm::is_mmtk_object(address)).flatten();
    begins.or_else(|| mm::find_object_from_internal_pointer(address, FURTHEST))
}

/// Whether a word is an address in the heap.
pub(crate) fn is_in_heap(word: usize) -> bool {
    word >= ALIGNMENT && object_at(word - word % ALIGNMENT).is_in_any_space()
}

/// A word that may refer into an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InteriorSlot {
    address: usize,
}

impl InteriorSlot {
    fn word(&self) -> &AtomicUsize {
        // SAFETY: the address is that of a word that is valid as long as the slot is used: the
        // contract of `plain`, by which alone slots are made.
        unsafe { AtomicUsize::from_ptr(self.address as *mut usize) }
    }
}

impl FromStack for InteriorSlot {
    unsafe fn plain(address: usize) -> InteriorSlot {
        InteriorSlot { address }
    }

    unsafe fn derived(address: usize, _offset: usize) -> InteriorSlot {
        InteriorSlot { address }
    }

    fn clear(&self) {
        self.word().store(0, Relaxed);
    }
}

impl Slot for InteriorSlot {
    fn load(&self) -> Option<ObjectReference> {
        // Relaxed: MMTk orders its workers by its packets.
        resolve(self.word().load(Relaxed))
    }

    /// No object moves, so the word stays as it is.
    fn store(&self, object: ObjectReference) {
        assert_eq!(self.load(), Some(object), "an object has moved");
    }
}
