//! Native calls that a scan rests at, or that managed frames are older than.

use crate::protocol::frontier::StackScan;

impl StackScan {
    /// The goroutine calls back into managed code from a foreign call at `depth`. Frames there
    /// count as run.
    pub(crate) fn calls_back(&mut self, depth: usize) {
        self.reached = self.reached.min(depth);
    }

    /// What native calls compare on their way back, on a native stack. A call whose managed caller
    /// has its stack pointer at less depth is followed by [`StackScan::protect`]. `entered` is the
    /// depth of the youngest native call that has called managed code without going outside: a scan
    /// may rest there. The owner asks after each change of the scan.
    pub(crate) fn watched(&self, entered: Option<usize>) -> Option<usize> {
        // Of a barrier that is younger than the caller, the frames were left untold.
        self.barriers.lowest().map(|barrier| barrier.depth).max(entered)
    }
}
