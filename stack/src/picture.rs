//! A live stack as a picture: frames, barriers, and how far scans have come.

mod stack;
mod svg;

pub use stack::{BarrierRole, FrameScan, Picture, PictureFrame};
