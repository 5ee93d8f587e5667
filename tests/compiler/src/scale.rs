//! How much tests ask for, where that depends on the size of the address space.

/// Whether there is more address space than tests can use up.
const WIDE: bool = size_of::<usize>() >= 8;

/// Frames of a deep recursion.
pub const DEEP: usize = 1_000_000;

/// Bytes of the stack of a thread that goes deep.
pub const THREAD_STACK: usize = if WIDE { 256 << 20 } else { 32 << 20 };

/// Threads at once, with stacks of the system's choice.
pub const MANY_THREADS: usize = if WIDE { 1000 } else { 100 };
