//! The runtime, which all goroutines and machines share: the registry, the state of the cycle, the
//! configuration, the host and the counters.

mod census;
mod config;
mod cycle_state;
mod debug_info;
mod entry_points;
mod exception;
mod host;
mod machine_entry;
mod observe;
mod registry;
mod return_protection;
mod shared;
mod spawn;
mod stats;
mod stopping;
mod stubs;
mod under_lock;

pub use census::Census;
pub use config::{BarrierMode, Config, HijackCallbacks, ModeInForce, RuntimeError};
pub(crate) use cycle_state::Listed;
pub use debug_info::{DebugInfo, ListedRuntime, stackmark_debug_info};
pub(crate) use entry_points::EntryPoints;
pub(crate) use exception::throw;
pub use exception::{ForeignException, NativeException};
pub use host::{Host, RootSink, Schedule};
pub(crate) use machine_entry::MachineEntry;
pub use observe::{Activity, Observed, Observer, Span};
pub(crate) use registry::SpareMachine;
pub use return_protection::{Detection, ReturnProtection};
pub use shared::{Runtime, StackBytes};
pub use stats::{Counters, CycleFigures, Histogram, Summary};
pub(crate) use stats::{OwnScan, count, count_gone, raise};
pub(crate) use stopping::Stopping;
pub(crate) use stubs::{ImageTable, stubs};
pub(crate) use under_lock::{UnderLock, assert_no_lock, under_lock};
