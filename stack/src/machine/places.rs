//! Places on a native stack at which native code has done something that younger frames rely on.

use std::cell::{Cell, RefCell};

/// Addresses of a thread's own stack, oldest first. A jump that leaves frames without unwinding
/// them leaves their places behind, which are forgotten by address.
///
/// Mostly there is one at most, which needs no list.
#[derive(Debug)]
pub(crate) struct Places {
    /// [`NONE`] if there is none.
    youngest: Cell<usize>,
    /// Those before it. None is younger than the youngest.
    older: RefCell<Vec<usize>>,
    has_older: Cell<bool>,
}

/// Older than all places.
const NONE: usize = usize::MAX;

impl Default for Places {
    fn default() -> Self {
        Places { youngest: Cell::new(NONE), older: RefCell::default(), has_older: Cell::new(false) }
    }
}

impl Places {
    /// Adds a place, the youngest.
    #[inline]
    pub(crate) fn add(&self, place: usize) {
        if self.youngest.get() != NONE {
            self.keep_older(place);
        }
        self.youngest.set(place);
    }

    /// Adds a place, unless it is the youngest already.
    pub(crate) fn add_once(&self, place: usize) {
        self.leave_to(place);
        if self.youngest() != Some(place) {
            self.add(place);
        }
    }

    /// Removes the youngest place.
    #[inline]
    pub(crate) fn remove(&self) {
        self.youngest.set(NONE);
        if self.has_older.get() {
            self.take_older();
        }
    }

    /// Forgets the places younger than `sp`, which are left.
    #[inline]
    pub(crate) fn leave_to(&self, sp: usize) {
        while self.youngest.get() < sp {
            self.remove();
        }
    }

    /// The youngest place.
    pub(crate) fn youngest(&self) -> Option<usize> {
        Some(self.youngest.get()).filter(|place| *place != NONE)
    }

    /// Makes way for a younger place.
    #[cold]
    fn keep_older(&self, place: usize) {
        self.leave_to(place);
        if let Some(youngest) = self.youngest() {
            self.older.borrow_mut().push(youngest);
            self.has_older.set(true);
        }
    }

    #[cold]
    fn take_older(&self) {
        let mut older = self.older.borrow_mut();
        self.youngest.set(older.pop().unwrap_or(NONE));
        self.has_older.set(!older.is_empty());
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn places_are_forgotten_youngest_first() {
        let places = Places::default();
        assert_eq!(places.youngest(), None);
        [900, 800, 700].iter().for_each(|place| places.add(*place));
        for expected in [Some(700), Some(800), Some(900), None, None] {
            assert_eq!(places.youngest(), expected);
            places.remove();
        }
    }

    #[test]
    fn a_place_is_added_over_those_that_a_jump_has_left_behind() {
        let places = Places::default();
        [900, 800, 700].iter().for_each(|place| places.add(*place));
        places.add(850);
        assert_eq!(places.youngest(), Some(850));
        places.add_once(850);
        places.remove();
        assert_eq!(places.youngest(), Some(900));
        places.leave_to(900);
        assert_eq!(places.youngest(), Some(900));
        places.leave_to(901);
        assert_eq!(places.youngest(), None);
    }
}
