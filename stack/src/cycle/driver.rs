//! The handle by which a collector drives a runtime's cycles.

use crate::runtime::{RootSink, Runtime};
use std::sync::Arc;

/// Drives the cycles of one runtime: the collector's handle to all stacks. A runtime has at most
/// one in its life, and its methods take it exclusively, so cycles do not overlap.
#[derive(Debug)]
pub struct CycleDriver {
    runtime: Arc<Runtime>,
}

/// The runtime has a collector, or has had one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a runtime has one collector, also after that is gone")]
pub struct AlreadyDriven;

impl CycleDriver {
    /// The driver of the runtime's cycles. Roots go to `sink`.
    ///
    /// # Errors
    /// [`AlreadyDriven`] from the second call for a runtime on.
    pub fn new(
        runtime: &Arc<Runtime>,
        sink: Arc<dyn RootSink>,
    ) -> Result<CycleDriver, AlreadyDriven> {
        runtime.set_root_sink(sink).map_err(|_| AlreadyDriven)?;
        Ok(CycleDriver { runtime: runtime.clone() })
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }
}
