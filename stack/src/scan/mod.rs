//! One stack: walking it, visiting its roots, protecting its unvisited frames, moving it.

mod chunk;
mod dirty;
mod frames;
mod live;
mod moving;
mod pictures;
mod returning;
mod visit;
mod young;

pub(crate) use chunk::YOUNG;
pub(crate) use dirty::{
    MayMove, begin_scan, catch_up_at_poll, is_dirty, keep_scan, mark_dirty, scan_own_stack,
};
pub use frames::FrameAt;
pub(crate) use frames::{frame_with, frames};
pub use live::ScanError;
pub(crate) use live::Stubs;
pub use moving::POISON;
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub(crate) use moving::shrink;
pub(crate) use moving::{GrowError, grow, memory_to_shrink, move_elsewhere, release};
pub(crate) use pictures::picture;
pub(crate) use returning::{come_back, hit, leapfrog, leave_callback, leave_frames};
pub use visit::Visited;
pub(crate) use visit::{Extent, check, thaw, visit, visit_frozen};
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub(crate) use visit::{begin, keep};
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub(crate) use young::bound;
pub(crate) use young::is_at_bound;
