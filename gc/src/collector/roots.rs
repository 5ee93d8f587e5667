//! Where scans of stacks deliver roots.

use std::sync::Arc;

use crate::heap::Heap;
use crate::mark::MarkState;

/// Receives the roots that a runtime finds in stacks.
pub(super) struct RootReceiver<H: Heap>(pub(super) Arc<MarkState<H>>);

impl<H: Heap> stackmark_stack::RootSink for RootReceiver<H> {
    fn roots(&self, words: &[usize]) {
        self.0.shade(words);
    }

    fn stack_waits(&self) {
        self.0.stack_waits();
    }
}
