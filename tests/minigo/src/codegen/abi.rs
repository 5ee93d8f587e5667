//! How values travel between managed functions.
//!
//! A value's components are parameters of their own, a value that lives in memory is the address of
//! memory that the callee does not write to (it copies what it changes). Results are returned as a
//! [`Signature`] says: in registers, and in the goroutine's result words. Where those do not
//! suffice, a heap object holds all results.

use crate::types::{Part, Sig, Ty, Types};
use stackmark_cranelift::{REF, Signature};

/// The components of a value of type `t`.
pub(crate) fn parts(types: &mut Types, t: Ty) -> Vec<Part> {
    match &types.layout(t).components {
        Some(c) => c.iter().map(|c| c.part).collect(),
        None => vec![REF],
    }
}

pub(crate) fn parts_of(types: &mut Types, list: &[Ty]) -> Vec<Part> {
    list.iter().flat_map(|t| parts(types, *t)).collect()
}

/// Whether these results are in a heap object with a word for each, whose address is returned.
pub(crate) fn in_object(results: &[Part]) -> bool {
    Signature::new(&[], results).is_err()
}

/// A signature of which it is known that the results fit.
pub(crate) fn of_parts(params: &[Part], results: &[Part]) -> Signature {
    Signature::new(params, results).expect("as many results as fit")
}

/// The signature in managed code; `context`: the first parameter is the function object.
pub(crate) fn signature(types: &mut Types, sig: &Sig, context: bool) -> Signature {
    let mut params = vec![REF; usize::from(context)];
    params.extend(parts_of(types, &sig.params));
    let results = parts_of(types, &sig.results);
    Signature::new(&params, &results).unwrap_or_else(|_| of_parts(&params, &[REF]))
}
