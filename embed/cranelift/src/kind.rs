//! What values are to the collector, and how functions pass them.

use cranelift_codegen::ir::{AbiParam, ArgumentExtension, Signature as ClifSignature, Type, types};
use stackmark::stack::asm::layout::RESULT_WORDS;

use crate::convention::MANAGED;
use crate::error::CompileError;

/// What a value is to the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The address of an object, an address within one, or 0.
    Reference,
    /// Anything else, of this type. Functions pass integers of at most 64 bits, and floating-point
    /// numbers of 32 and 64.
    Plain(Type),
}

/// A reference.
pub const REF: Kind = Kind::Reference;
/// An integer of 64 bits.
pub const INT: Kind = Kind::Plain(types::I64);
/// A floating-point number of 64 bits.
pub const FLOAT: Kind = Kind::Plain(types::F64);

impl Kind {
    /// The type in Cranelift's code.
    pub fn clif(self) -> Type {
        match self {
            Kind::Reference => types::I64,
            Kind::Plain(of) => of,
        }
    }

    /// Whether functions pass it: the words of a goroutine's header, and of a callback's block,
    /// hold one value each.
    fn is_passed(self) -> bool {
        let of = self.clif();
        of.is_int() && of.bits() <= 64 || of == types::F32 || of == types::F64
    }

    /// As a parameter or a result of Cranelift's. A reference asks for an extension to 64 bits,
    /// which it has: the check of optimised code knows it by that.
    fn abi(self) -> AbiParam {
        let param = AbiParam::new(self.clif());
        if self.is_reference() { param.uext() } else { param }
    }

    /// Whether it is a reference.
    pub fn is_reference(self) -> bool {
        self == Kind::Reference
    }
}

/// Integers, or floating-point numbers, that are returned in registers.
const RESULT_REGISTERS: usize = 2;

/// Where a function leaves one of its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ResultPlace {
    /// The next result register of Cranelift's signature.
    Register,
    /// This word of the goroutine's header, which the caller loads right behind the call.
    Word(usize),
}

/// The parameters and results of a managed function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    params: Vec<Kind>,
    results: Vec<Kind>,
    places: Vec<ResultPlace>,
}

impl Signature {
    /// The first two integers and references, and the first two floating-point numbers, are
    /// returned in registers; the other results in words of the goroutine's header.
    ///
    /// # Errors
    /// [`CompileError::TooManyResults`], [`CompileError::Wide`].
    pub fn new(params: &[Kind], results: &[Kind]) -> Result<Signature, CompileError> {
        if let Some(kind) = params.iter().chain(results).find(|kind| !kind.is_passed()) {
            return Err(CompileError::Wide { of: kind.clif() });
        }
        let (mut ints, mut floats, mut words) = (0, 0, 0);
        let mut places = Vec::with_capacity(results.len());
        for result in results {
            let used = if result.clif().is_float() { &mut floats } else { &mut ints };
            if *used < RESULT_REGISTERS {
                *used += 1;
                places.push(ResultPlace::Register);
            } else {
                places.push(ResultPlace::Word(words));
                words += 1;
            }
        }
        if words > RESULT_WORDS {
            return Err(CompileError::TooManyResults { results: results.len() });
        }
        Ok(Signature { params: params.to_vec(), results: results.to_vec(), places })
    }

    /// The parameters.
    pub fn params(&self) -> &[Kind] {
        &self.params
    }

    /// The results.
    pub fn results(&self) -> &[Kind] {
        &self.results
    }

    /// Each result with its place.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Kind, ResultPlace)> + '_ {
        self.results.iter().copied().zip(self.places.iter().copied())
    }

    /// The results in registers.
    pub(crate) fn in_registers(&self) -> impl Iterator<Item = Kind> + '_ {
        let registers = self.places().filter(|(_, place)| *place == ResultPlace::Register);
        registers.map(|(result, _)| result)
    }

    /// As Cranelift sees it.
    pub fn clif(&self) -> ClifSignature {
        let mut clif = ClifSignature::new(MANAGED);
        clif.params.extend(self.params.iter().copied().map(Kind::abi));
        clif.returns.extend(self.in_registers().map(Kind::abi));
        clif
    }
}

/// Whether this parameter or result of Cranelift's is a reference of a [`Signature`].
pub(crate) fn is_reference(param: &AbiParam) -> bool {
    param.value_type == types::I64 && param.extension == ArgumentExtension::Uext
}
