//! The functions that assembly and managed code call. The modules below get their
//! addresses from the runtime.

mod hit;
mod life;
mod poll;
mod thrown;

pub use poll::poll;

use crate::runtime::{Config, EntryPoints, Host, Runtime, RuntimeError};
use stackmark_unwind::Code;
use std::sync::Arc;

impl Runtime {
    /// A runtime over the code registered in `code` now or later.
    ///
    /// # Errors
    /// [`RuntimeError`].
    pub fn new(
        config: Config,
        code: Arc<Code>,
        host: Box<dyn Host>,
    ) -> Result<Arc<Runtime>, RuntimeError> {
        let entry_points = EntryPoints {
            on_hit: hit::on_hit as *const () as usize,
            on_leapfrog: hit::on_leapfrog as *const () as usize,
            on_watched: hit::on_watched as *const () as usize,
            on_thrown: thrown::on_thrown as *const () as usize,
            goroutine_exit: life::goroutine_exit as *const () as usize,
            goroutine_uncaught: life::goroutine_uncaught as *const () as usize,
        };
        Runtime::with_entry_points(config, code, host, entry_points)
    }
}
