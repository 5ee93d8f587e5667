//! A concurrent collector over moving goroutine stacks, with a replaceable heap.
//!
//! A [`Collector`] marks the objects of a [`heap::Heap`] while goroutines run. It finds their roots
//! in the stacks of a [`stack::Runtime`], and rescans of each stack only the frames that have run
//! since its scan. [`mark_sweep::MarkSweep`] is the heap that comes with it.
//!
//! ```
//! use stackmark::mark_sweep::{AllocationError, Descriptor, MarkSweep, Options};
//! use stackmark::stack::{self, Goroutine, Host, Left, Machine, Runtime};
//! use stackmark::{Collector, Config, unwind::Code};
//! use std::sync::Arc;
//!
//! struct Embedder;
//! impl Host for Embedder {
//!     fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
//!         panic!("stack exceeds {limit} bytes")
//!     }
//! }
//! // Managed code of the C convention that makes no calls. A real embedder generates and registers
//! // its managed code.
//! extern "C-unwind" fn managed(_goroutine: usize, list: *mut usize) {
//!     // SAFETY: the start argument is an object of two words.
//!     unsafe { *list.add(1) = 7 }
//! }
//!
//! let code = Arc::new(Code::new());
//! let runtime = Runtime::new(stack::Config::default(), code, Box::new(Embedder))?;
//! let heap = MarkSweep::new(&Options::default())?;
//! let collector = Collector::start(heap.clone(), runtime.clone(), &Config::default())?;
//! let pair = heap.register(Descriptor::references())?;
//! let allocator = heap.allocator()?;
//!
//! let machine = Machine::attach(&runtime)?;
//! // No object goes while the thread is inside.
//! let kept = machine.inside(|inside| {
//!     let _garbage = allocator.allocate(&inside, pair, size_of::<[usize; 2]>())?;
//!     let kept = allocator.allocate(&inside, pair, size_of::<[usize; 2]>())?;
//!     Ok::<_, AllocationError>(collector.handles().create_fresh(&kept))
//! })?;
//!
//! // SAFETY: `managed` keeps the contracts: it makes no calls and has a small frame.
//! let goroutine = unsafe { runtime.spawn(managed as *const () as usize, kept.get())? };
//! assert!(matches!(machine.run(goroutine), Left::Exited));
//! drop(machine);
//!
//! collector.collect();
//! collector.collect();
//! assert_eq!(collector.statistics().heap.objects_swept, 1);
//! // SAFETY: the handle keeps the object.
//! assert_eq!(unsafe { *(kept.get() as *const usize).add(1) }, 7);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

// The systems are those of stackmark-stack.
#[cfg(not(target_has_atomic = "64"))]
compile_error!("stackmark supports architectures with atomics of 64 bits");

mod assist;
mod bytes;
mod collector;
mod generation;
mod global;
pub mod handle;
pub mod heap;
mod heap_full;
mod heap_owner;
mod mark;
pub mod mark_sweep;
mod pace;
#[cfg(feature = "tracing")]
pub mod spans;
pub mod stats;
mod termination;
mod thread;
pub mod trace_file;
mod verify;
pub mod weak;
pub mod write_barrier;

pub use collector::{Collector, Config, StartError};
pub use generation::{Generation, Generational};
pub use stackmark_stack as stack;
pub use stackmark_unwind as unwind;

/// The code in the project's README runs.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ProjectReadme;

/// The code in the crate's README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct CrateReadme;
