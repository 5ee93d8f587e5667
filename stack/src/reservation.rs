//! Reserved address space, of which parts are accessible. For heaps: what is reserved here lies
//! anywhere, and has no room for what systems are told of stacks.

use crate::os;
use std::io;
use std::ops::Range;

/// A range of address space. Accessible parts hold zeros until they are written. Any thread may
/// call the methods.
#[derive(Debug)]
pub struct Reservation {
    start: usize,
    len: usize,
}

impl Reservation {
    /// Reserves `len` bytes, rounded up to whole pages, none of them accessible.
    ///
    /// # Errors
    /// When the system has no such range.
    pub fn new(len: usize) -> io::Result<Reservation> {
        let refused = || io::Error::from(io::ErrorKind::OutOfMemory);
        let len = len.checked_next_multiple_of(os::page_size()).ok_or_else(refused)?;
        Ok(Reservation { start: os::reserve(len)?, len })
    }

    /// The address at which the range begins, a multiple of the page size.
    #[inline]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Asks for huge pages. A system that has none, or does not take the advice, has small ones.
    pub fn ask_for_huge_pages(&self) {
        os::ask_for_huge_pages(self.start..self.start + self.len);
    }

    /// The addresses of the whole pages that these bytes, counted from the start, lie on.
    ///
    /// # Panics
    /// When they are not all of the range.
    fn pages(&self, bytes: Range<usize>) -> Range<usize> {
        let page = os::page_size();
        let pages = bytes.start / page * page..bytes.end.next_multiple_of(page);
        assert!(pages.start <= pages.end && pages.end <= self.len, "{bytes:x?} of {self:x?}");
        self.start + pages.start..self.start + pages.end
    }

    /// Makes the pages accessible that these bytes, counted from the start, lie on. What is
    /// accessible already stays as it is.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When the bytes are not all of the range.
    pub fn make_accessible(&self, bytes: Range<usize>) -> io::Result<()> {
        let pages = self.pages(bytes);
        if pages.is_empty() {
            return Ok(());
        }
        // SAFETY: whole pages of our own mapping.
        unsafe { os::make_accessible(pages) }
    }

    /// Gives these bytes, counted from the start, back to the system. They may not be accessible
    /// any more, and read as zero after [`Reservation::take_again`]. Returns false if the system
    /// refuses, or they are not whole pages: then they are as before.
    ///
    /// # Panics
    /// When the bytes are not all of the range.
    ///
    /// # Safety
    /// The bytes are accessible and dead, and nothing touches them before they are taken again.
    pub unsafe fn give_back(&self, bytes: Range<usize>) -> bool {
        let pages = self.pages(bytes.clone());
        // Where pages are larger than what a heap frees, its neighbours lie on them.
        if pages.len() != bytes.len() {
            return false;
        }
        // SAFETY: whole pages of our own mapping; the rest is our contract.
        unsafe { os::discard(pages) }
    }

    /// Makes pages that may have been given back accessible again. Others stay as they are.
    ///
    /// # Errors
    /// When the system has no memory for them: it may have given it to others.
    ///
    /// # Panics
    /// When the bytes are not all of the range.
    pub fn take_again(&self, bytes: Range<usize>) -> io::Result<()> {
        // SAFETY: whole pages of our own mapping, which have been accessible.
        unsafe { os::take_again(self.pages(bytes)) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        // The system keeps what it does not take back.
        // SAFETY: our own mapping, and nothing refers into it: its owner is gone.
        let _ = unsafe { os::release(self.start, self.len) };
    }
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    #[test]
    fn pages_that_are_taken_again_read_as_zero() {
        let page = os::page_size();
        let reserved = Reservation::new(64 * page).expect("addresses");
        reserved.make_accessible(page..5 * page).expect("memory");
        let word = |number: usize| (reserved.start() + number * page) as *mut usize;
        // SAFETY: pages that are accessible, this thread's alone.
        unsafe {
            (1..5).for_each(|number| word(number).write(number));
            assert!(!reserved.give_back(2 * page - 1..4 * page));
            assert!(reserved.give_back(2 * page..4 * page));
            reserved.take_again(page..4 * page).expect("memory");
            assert_eq!((1..5).map(|number| word(number).read()).collect::<Vec<_>>(), [1, 0, 0, 4]);
        }
    }

    #[test]
    fn what_is_accessible_stays_as_it_is() {
        let page = os::page_size();
        let reserved = Reservation::new(8 * page + 1).expect("addresses");
        reserved.make_accessible(1..2).expect("memory");
        // SAFETY: an accessible word.
        unsafe { (reserved.start() as *mut usize).write(7) };
        reserved.make_accessible(0..8 * page + 1).expect("memory");
        reserved.take_again(0..9 * page).expect("memory");
        // SAFETY: the first word is accessible, and so is the last page.
        unsafe {
            assert_eq!((reserved.start() as *mut usize).read(), 7);
            assert_eq!(((reserved.start() + 8 * page) as *mut usize).read(), 0);
        }
    }

    #[test]
    fn more_than_there_are_addresses_for_is_refused() {
        assert!(Reservation::new(usize::MAX).is_err());
        assert!(Reservation::new(usize::MAX - (1 << 20)).is_err());
    }
}
