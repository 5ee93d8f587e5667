//! The slots of an allocator in mapped memory.

use stackmark_stack::reservation::Reservation;

use super::class::CLASSES;
use super::registry::MAX_DESCRIPTORS;
use super::slot::{AllocationSlot, Slots};

/// How many slots an allocator has.
pub(super) const SLOTS: usize = MAX_DESCRIPTORS * CLASSES;

/// The slots of an allocator, in address space of their own. Memory is used only where a descriptor
/// is.
pub(super) struct MappedSlots(Reservation);

impl MappedSlots {
    /// # Errors
    /// When the system refuses address space.
    pub(super) fn new() -> std::io::Result<MappedSlots> {
        let slots = Reservation::new(SLOTS * AllocationSlot::STRIDE)?;
        slots.make_accessible(0..SLOTS * AllocationSlot::STRIDE)?;
        Ok(MappedSlots(slots))
    }

    /// The address of the first slot.
    pub(super) fn address(&self) -> usize {
        self.0.start()
    }
}

impl Slots for MappedSlots {
    #[inline]
    fn slot(&self, space: usize) -> &AllocationSlot {
        debug_assert!(space < SLOTS);
        // SAFETY: the reservation has `SLOTS` slots; all zeros is a valid one, and slots consist of
        // atomics. (Models have atomics of another kind, and slots of their own.)
        unsafe { &*((self.address() + space * AllocationSlot::STRIDE) as *const AllocationSlot) }
    }
}
