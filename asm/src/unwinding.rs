//! What native code asks the system's unwinder, which does not have the same interface everywhere:
//! libgcc follows the Itanium C++ ABI, and on 32-bit Arm that processor's own.
//!
//! A context is what `_Unwind_Backtrace` and `_Unwind_ForcedUnwind` hand to the functions that they
//! call for each frame.

/// The type in which a function that stops a forced unwinding gets the class of the exception.
pub use crate::arch::unwinding::ClassArgument;
/// Whether a forced unwinding comes to each frame, also behind one that it has cleaned up.
pub use crate::arch::unwinding::FORCES_ALL;
/// The registers that functions keep, in the frame to which a forced unwinding has come. The stop
/// function of the unwinding has one from the first frame on.
pub use crate::arch::unwinding::Kept;
/// The words at the end of an `_Unwind_Exception` that belong to the unwinder. They begin as 0.
pub use crate::arch::unwinding::PRIVATE_WORDS;
/// The class of an exception that begins with these bytes, as languages write it: the first
/// character is in the highest byte.
pub use crate::arch::unwinding::class;
/// The bytes with which an exception of a class begins.
pub use crate::arch::unwinding::class_bytes;
/// The pc by which to look up the function of a context's frame: for a return address, an address
/// in the call.
pub use crate::arch::unwinding::context_lookup_pc;
/// The pc of a context's frame: a return address, unless a signal has interrupted the frame. 0
/// behind the oldest frame.
pub use crate::arch::unwinding::context_pc;
/// In the frame of a context, the stack pointer behind its call.
pub use crate::arch::unwinding::context_sp;
/// Whether a walk by `_Unwind_Backtrace` has come to the end of the stack. Where unwinders do not
/// say so it is never true.
pub use crate::arch::unwinding::is_end;
