//! UNWIND_INFO: what images in Microsoft's format, PE32+ for 64-bit machines, say of their frames
//! instead of CFI. It becomes the same rules.
//!
//! An image has a table of its functions, `.pdata`. A function's UNWIND_INFO lists what its
//! prologue does. The instructions of epilogues say themselves what is left of a frame (version 1),
//! or marks say where epilogues lie (version 2). A function without an entry has no frame. All of
//! it is Microsoft's documentation, "x64 exception handling"; what that leaves open is as
//! `RtlVirtualUnwind` does it, whose source .NET publishes (coreclr/unwinder/amd64).
//!
//! Vector registers are left out: a register set does not hold them.

mod codes;
mod epilogue;
mod error;
mod function_table;
mod instructions;
mod of_cfi;
mod registers;

pub(crate) use codes::FunctionEntry;
pub use error::UnwindInfoError;
pub(crate) use function_table::{CodeSource, FunctionTable, Piece};
pub(crate) use of_cfi::of_cfi;
