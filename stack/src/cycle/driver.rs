//! The handle by which a collector drives a runtime's cycles.

use crate::runtime::{Listed, RootSink, Runtime};
use std::sync::Arc;

/// Drives the cycles of one runtime: the collector's handle to all stacks. A runtime has at most
/// one in its life, and its methods take it exclusively, so cycles do not overlap.
#[derive(Debug)]
pub struct CycleDriver {
    runtime: Arc<Runtime>,
    /// Goroutines that the last cycle had in its lists.
    pub(super) listed: Listed,
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
        Ok(CycleDriver { runtime: runtime.clone(), listed: Listed::default() })
    }

    /// The runtime.
    pub fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Lets go of the goroutines that the last cycle had in its lists. There may be very many, so a
    /// collector calls it when the world runs again. Otherwise the next cycle does.
    pub fn let_go(&mut self) {
        self.listed = Listed::default();
    }
}
