//! Numbers of bytes that are counted, and those that lie in memory.

/// A count of bytes that lie in memory at one time, as a size. A count that adds up over time is
/// wider than the words of some machines: a difference is taken before it is passed. What is more
/// than there can be is an estimate, and counts as the most that there can be.
pub(crate) fn in_memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
