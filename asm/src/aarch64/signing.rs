//! Signed return addresses (PAC). The instructions are hints: a processor without keys, or with the
//! keys disabled, runs them as `nop`, and so the words stay as they are. The compiled functions'
//! own instructions do the same there.

use core::arch::asm;

/// The return address that a function with this CFA keeps in its frame, if it signs it with key A:
/// most compilers sign it first of all, when the stack pointer is the CFA. `address` itself where
/// the processor does not sign. The threads of a process share the key.
#[inline]
pub fn sign_return(address: usize, cfa: usize) -> usize {
    let mut word = address;
    // SAFETY: `pacia1716` reads and writes these two registers.
    unsafe {
        asm!("hint #8", inout("x17") word, in("x16") cfa, options(nomem, nostack, preserves_flags));
    }
    word
}

/// The address of which [`sign_return`] has made `word`. If the signature is wrong, it is an
/// address at which no code can be, or the processor raises a fault here.
#[inline]
pub fn authenticate_return(word: usize, cfa: usize) -> usize {
    let mut address = word;
    // SAFETY: `autia1716` reads and writes these two registers.
    unsafe {
        asm!(
            "hint #12",
            inout("x17") address,
            in("x16") cfa,
            options(nomem, nostack, preserves_flags)
        );
    }
    address
}
