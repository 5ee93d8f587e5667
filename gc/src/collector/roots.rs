//! Where scans of stacks deliver roots.

use std::cell::RefCell;
use std::sync::Arc;

use crate::heap::Heap;
use crate::mark::MarkState;

/// Receives the roots that a runtime finds in stacks.
pub(super) struct RootReceiver<H: Heap>(pub(super) Arc<MarkState<H>>);

thread_local! {
    /// While this thread verifies, the roots that it finds go here and are not marked. Other
    /// threads go on marking: a thread in native code may start a goroutine meanwhile.
    static GATHERED: RefCell<Option<Vec<usize>>> = const { RefCell::new(None) };
}

/// Runs `visit`, and returns with its result the roots that this thread delivered meanwhile. They
/// are not marked.
pub(super) fn gather<R>(visit: impl FnOnce() -> R) -> (R, Vec<usize>) {
    GATHERED.set(Some(Vec::new()));
    let result = visit();
    (result, GATHERED.take().expect("set above"))
}

impl<H: Heap> stackmark_stack::Collector for RootReceiver<H> {
    fn roots(&self, words: &[usize]) {
        // A thread that ends has lost the variable, and does not verify.
        let gathered = GATHERED.try_with(|roots| {
            roots.borrow_mut().as_mut().map(|roots| roots.extend_from_slice(words))
        });
        if !matches!(gathered, Ok(Some(()))) {
            self.0.shade(words);
        }
    }

    fn stack_waits(&self) {
        self.0.stack_waits();
    }
}
