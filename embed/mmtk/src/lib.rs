//! MMTk's heaps on Stackmark's stacks.
//!
//! A binding of MMTk answers what MMTk asks: stop the threads, find the roots, start the threads.
//! This crate has the answers for a runtime whose managed code runs on goroutine stacks: the
//! binding's `Collection`, `ActivePlan` and `ReferenceGlue` in [`collection`], [`active_plan`] and
//! [`reference_glue`], and bodies of one line for its `Scanning` in [`scanning`]. The binding keeps
//! what is its own: the layout of its objects, its globals, its weak references.
//!
//! - Mutators are machines, the threads that run goroutines: see [`machine`].
//! - One thread of this crate owns the stopped world. MMTk's workers use it until MMTk resumes.
//! - Stacks are roots of the runtime as a whole, not of a mutator: a goroutine has no thread of its
//!   own. Roots go to MMTk as [slots](FromStack), so plans that move objects can write them.
//! - A nursery collection of a generational plan visits the frames that have run since the last
//!   collection, and no others.
//! - While ConcurrentImmix marks, workers visit the stacks, and goroutines the frames that they
//!   return to: no pause depends on the depth of a stack.
//!
//! [`StackHost`] says what the binding adds; [`connect`] makes the [`Stacks`] that it keeps.

pub mod active_plan;
pub mod collection;
mod fault;
mod host;
pub mod machine;
mod marking;
mod mutators;
mod packets;
mod pause;
pub mod reference_glue;
pub mod scanning;
mod slot;
mod stacks;
mod verify;
mod world;

#[doc(hidden)]
pub use fault::Fault;
pub use host::{StackHost, connect};
pub use mmtk;
pub use pause::{Pause, PauseKind};
pub use slot::{FromStack, StackSlot};
pub use stackmark_stack as stack;
pub use stacks::{Options, Stacks};
