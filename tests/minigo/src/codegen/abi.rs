//! How values travel between managed functions.
//!
//! A value's components are parameters of their own, a value that lives in memory is the address of
//! memory that the callee does not write to (it copies what it changes). The first two
//! integer-class and the first two float results come back in registers, the others in the
//! goroutine's result words, which the callee stores right before it returns and the caller loads
//! right after. Where those words do not suffice, a heap object holds all results.

use crate::types::{Sig, Ty, Types};
use cranelift_codegen::ir::{AbiParam, Signature, Type, types as clif};
use cranelift_codegen::isa::CallConv;
use stackmark_asm::layout::RESULT_WORDS;

/// One component of a parameter or result list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) clif: Type,
    pub(crate) is_ref: bool,
}

/// Where a component of the results is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ResultPlace {
    Register,
    /// Index of the goroutine's result word.
    Word(usize),
}

/// Where the results of a signature are.
#[derive(Clone, Debug)]
pub(crate) enum Results {
    Parts(Vec<ResultPlace>),
    /// The address of a heap object with a word for each component.
    Object,
}

/// The components of a value of type `t`.
pub(crate) fn parts(types: &mut Types, t: Ty) -> Vec<Part> {
    match &types.layout(t).components {
        Some(c) => c.iter().map(|c| Part { clif: c.clif, is_ref: c.is_ref }).collect(),
        None => vec![Part { clif: clif::I64, is_ref: true }],
    }
}

pub(crate) fn parts_of(types: &mut Types, list: &[Ty]) -> Vec<Part> {
    list.iter().flat_map(|t| parts(types, *t)).collect()
}

pub(crate) fn results(parts: &[Part]) -> Results {
    let (mut ints, mut floats, mut words) = (0, 0, 0);
    let mut places = vec![];
    for p in parts {
        let used = if p.clif.is_float() { &mut floats } else { &mut ints };
        if *used < 2 {
            *used += 1;
            places.push(ResultPlace::Register);
        } else {
            places.push(ResultPlace::Word(words));
            words += 1;
        }
    }
    if words <= RESULT_WORDS { Results::Parts(places) } else { Results::Object }
}

/// The Cranelift signature; `context`: the first parameter is the function object.
pub(crate) fn signature(types: &mut Types, sig: &Sig, context: bool) -> Signature {
    let mut out = Signature::new(CallConv::SystemV);
    if context {
        out.params.push(AbiParam::new(clif::I64));
    }
    out.params.extend(parts_of(types, &sig.params).iter().map(|p| AbiParam::new(p.clif)));
    let parts = parts_of(types, &sig.results);
    match results(&parts) {
        Results::Parts(places) => {
            for (part, place) in parts.iter().zip(places) {
                if place == ResultPlace::Register {
                    out.returns.push(AbiParam::new(part.clif));
                }
            }
        }
        Results::Object => out.returns.push(AbiParam::new(clif::I64)),
    }
    out
}
