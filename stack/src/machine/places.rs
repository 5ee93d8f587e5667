//! Places on a native stack at which native code has done something that younger frames rely on.

use std::cell::RefCell;

/// Addresses of a thread's own stack, oldest first. A jump that leaves frames without unwinding
/// them leaves their places behind, which are forgotten by address.
#[derive(Debug, Default)]
pub(crate) struct Places(RefCell<Vec<usize>>);

impl Places {
    /// Adds a place, the youngest.
    pub(crate) fn add(&self, place: usize) {
        self.leave_to(place);
        self.0.borrow_mut().push(place);
    }

    /// Adds a place, unless it is the youngest already.
    pub(crate) fn add_once(&self, place: usize) {
        self.leave_to(place);
        if self.youngest() != Some(place) {
            self.0.borrow_mut().push(place);
        }
    }

    /// Removes the youngest place.
    pub(crate) fn remove(&self) {
        self.0.borrow_mut().pop();
    }

    /// Forgets the places younger than `sp`, which are left.
    pub(crate) fn leave_to(&self, sp: usize) {
        let mut places = self.0.borrow_mut();
        while places.last().is_some_and(|place| *place < sp) {
            places.pop();
        }
    }

    /// The youngest place.
    pub(crate) fn youngest(&self) -> Option<usize> {
        self.0.borrow().last().copied()
    }
}
