//! Stack maps of a host that keeps its own.

use super::map::{Root, StackMap};

/// A source of live references: tables, or a closure of the host.
pub trait StackMapSource {
    /// Calls `each` for every root of the safepoint at `return_address`. Yields false if that is no
    /// safepoint.
    fn roots(&self, return_address: usize, each: &mut dyn FnMut(Root)) -> bool;
}

impl<F: Fn(usize, &mut dyn FnMut(Root)) -> bool> StackMapSource for F {
    fn roots(&self, return_address: usize, each: &mut dyn FnMut(Root)) -> bool {
        self(return_address, each)
    }
}

/// The maps of a host that keeps its own. Each return address comes with its frame's CFA minus the
/// stack pointer, in bytes, where the host knows it. Return addresses that are no safepoints to
/// `source` are left out.
///
/// `source` is called here, not during walks: a walk takes no locks and may run in a signal
/// handler.
///
/// ```
/// use stackmark_unwind::stack_map::{self, Location, Root};
///
/// let live = |return_address: usize, each: &mut dyn FnMut(Root)| {
///     each(Root::plain(Location::Stack(8)));
///     return_address != 0x1030
/// };
/// let maps = stack_map::from_source(&live, [(0x1018, Some(32)), (0x1030, None)]);
/// assert_eq!(maps.len(), 1);
/// assert_eq!(maps[0].roots, [Root::plain(Location::Stack(8))]);
/// ```
pub fn from_source(
    source: &(impl StackMapSource + ?Sized),
    return_addresses: impl IntoIterator<Item = (usize, Option<u32>)>,
) -> Vec<StackMap> {
    let map = |(return_address, cfa_offset)| {
        let mut roots = Vec::new();
        let known = source.roots(return_address, &mut |root| roots.push(root));
        known.then_some(StackMap { return_address, cfa_offset, roots })
    };
    return_addresses.into_iter().filter_map(map).collect()
}
