//! Return addresses that barriers have replaced.

/// Finds the original return address where a return-address barrier has replaced it.
pub trait ReturnAddresses {
    /// The return address that a barrier saved, if `found` is the address in one of its stubs;
    /// `None` if `found` is an ordinary return address.
    fn original(&self, found: usize) -> Option<usize>;
}

/// No slot is hijacked.
impl ReturnAddresses for () {
    #[inline]
    fn original(&self, _found: usize) -> Option<usize> {
        None
    }
}

impl<R: ReturnAddresses + ?Sized> ReturnAddresses for &R {
    #[inline]
    fn original(&self, found: usize) -> Option<usize> {
        (**self).original(found)
    }
}
