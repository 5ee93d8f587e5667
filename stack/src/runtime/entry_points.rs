//! The addresses of the native functions that the assembly calls. The functions are in `entry`,
//! above all other modules; the modules below get their addresses from here.

/// Addresses of native functions that the assembly calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EntryPoints {
    /// A return through a barrier.
    pub(crate) on_hit: usize,
    /// An exception that has passed a barrier.
    pub(crate) on_leapfrog: usize,
    /// A native call comes back to managed code, and something that is watched is younger.
    pub(crate) on_watched: usize,
    /// An exception has left native code, where exceptions do not cross stacks.
    pub(crate) on_thrown: usize,
    /// A goroutine's entry function has returned.
    pub(crate) goroutine_exit: usize,
    /// An exception has left a goroutine's entry function.
    pub(crate) goroutine_uncaught: usize,
}
