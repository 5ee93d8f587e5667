//! Signed return addresses: this architecture has none.

/// The return address that a function with this CFA keeps in its frame: `address` itself.
#[inline]
pub fn sign_return(address: usize, cfa: usize) -> usize {
    let _ = cfa;
    address
}

/// The address of which [`sign_return`] has made `word`.
#[inline]
pub fn authenticate_return(word: usize, cfa: usize) -> usize {
    let _ = cfa;
    word
}
