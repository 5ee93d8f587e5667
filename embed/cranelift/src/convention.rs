//! The conventions of calls: among managed functions, and between these and the library.
//!
//! Managed functions call each other by `SystemV`, on Windows too. Cranelift has landing pads for
//! it, and none for the convention of Windows. By that one a function would also keep ten vector
//! registers, and save them between its frame record and the other registers: farther away than a
//! rule says where those are.
//!
//! Whatever else managed code calls follows the convention of the platform. What native code
//! enters is entered by that, and keeps for it no more than `SystemV` asks for: the library's
//! primitives, which enter it, keep all registers of their callers by themselves.

use cranelift_codegen::ir::{AbiParam, Signature, types::I64};
use cranelift_codegen::isa::CallConv;

/// Between managed functions.
pub(crate) const MANAGED: CallConv = CallConv::SystemV;

/// Whether the platform, whose convention is `native`, is Windows.
pub(crate) fn is_of_windows(native: CallConv) -> bool {
    native == CallConv::WindowsFastcall
}

/// Of the library's `call_system` and `call_native`.
pub(crate) fn call_system(native: CallConv) -> Signature {
    words(native, 3, 1)
}

/// Of the library's `switch_out`.
pub(crate) fn switch_out(native: CallConv) -> Signature {
    let convention = match native {
        // It keeps what a function keeps.
        CallConv::WindowsFastcall => native,
        // The convention that keeps no register but the stack and the frame pointer, and does not
        // know the pinned one.
        _ => CallConv::Winch,
    };
    words(convention, 1, 1)
}

/// Where a function that native code enters finds its parameters, words all: the places of its own
/// in what Cranelift takes for them. `signature` becomes that.
///
/// # Panics
/// If it has more than two.
pub(crate) fn enter(native: CallConv, signature: &mut Signature) -> Vec<usize> {
    let own: Vec<AbiParam> = signature.params.clone();
    assert!(own.len() <= 2, "{} parameters of what native code enters", own.len());
    if !is_of_windows(native) {
        return (0..own.len()).collect();
    }
    // What are the first two words there, rcx and rdx, are the fourth and the third by `SystemV`.
    let places = [3, 2];
    signature.params = vec![AbiParam::new(I64); 4];
    for (place, param) in places.into_iter().zip(&own) {
        signature.params[place] = *param;
    }
    places[..own.len()].to_vec()
}

/// A signature of Cranelift's with so many words.
fn words(convention: CallConv, params: usize, results: usize) -> Signature {
    let mut clif = Signature::new(convention);
    clif.params.extend(vec![AbiParam::new(I64); params]);
    clif.returns.extend(vec![AbiParam::new(I64); results]);
    clif
}
