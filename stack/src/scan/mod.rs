//! One stack: walking it, visiting its roots, protecting its unvisited frames, moving it.

mod chunk;
mod dirty;
mod frames;
mod live;
mod moving;
mod pictures;
mod returning;
mod roots;
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
pub(crate) use moving::{GrowError, grow, move_elsewhere, release, shrink, with_memory_to_shrink};
pub(crate) use pictures::picture;
pub(crate) use returning::{
    come_back, hit, leapfrog, leave_all, leave_callback, leave_entry, leave_frames, watched,
};
pub use roots::RootSlot;
pub(crate) use roots::{Root, To};
pub use visit::Visited;
pub(crate) use visit::{Extent, check, thaw, visit, visit_frozen};
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub(crate) use visit::{begin, keep};
#[cfg(any(fuzzing, all(test, not(stackmark_loom))))]
pub(crate) use young::bound;
pub(crate) use young::is_at_bound;
