//! A safepoint, as registered.

/// A return address of managed code, the layout of its frame there, and the slots that are live: a
/// [`StackMap`](crate::stack_map::StackMap) of the simplest kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safepoint {
    /// The address of the instruction behind the call.
    pub return_address: usize,
    /// The frame's CFA minus its stack pointer once the call has returned, in bytes. The saved
    /// registers and the return address count.
    /// [`stack_map::cranelift`](crate::stack_map::cranelift) computes it from Cranelift's span.
    pub cfa_offset: u32,
    /// Offsets from that stack pointer, in bytes, of the words that may hold references or pointers
    /// into the stack itself.
    pub slots: Vec<u32>,
}
