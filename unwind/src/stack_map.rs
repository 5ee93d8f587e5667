//! Stack maps: where the live references of a frame are, by its return address.
//!
//! Compilers have forms of their own: [`cranelift`], [`llvm`]. [`object`] is one for object files.
//! [`from_source`] asks a host that keeps its own maps. All become [`StackMap`]s and are kept in
//! one compact form, about five bytes each. A [`Region`](crate::Region) keeps those of code that a
//! [`Walker`](crate::Walker) walks. A [`StackMaps`] keeps those of code that is walked by its CFI;
//! only there may roots be in registers.

pub(crate) mod compact;
pub mod cranelift;
pub(crate) mod index;
pub mod llvm;
pub(crate) mod map;
mod maps;
pub mod object;
pub(crate) mod roots;
mod source;

pub use map::{Location, Root, StackMap, StackMapError};
pub use maps::{StackMapRef, StackMaps};
pub use roots::RootIter;
pub use source::{StackMapSource, from_source};
