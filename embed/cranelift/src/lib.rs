//! Managed code by Cranelift, on goroutine stacks.
//!
//! A [`Module`] compiles functions so that the library finds every reference in their frames, may
//! move their stacks, and may hijack their returns: its [`Function`] keeps the contracts that a
//! front end would have to keep by hand. An [`Engine`] is a runtime with a heap and a concurrent
//! collector for them. An embedder with a runtime, a heap or a front end of its own takes the parts
//! that it wants: [`Module::builder`] keeps the contracts and does not borrow the module,
//! [`Module::define_function`] takes Cranelift's IR as it is, [`machine`] holds what each thread
//! has, [`flags::isa`] makes the settings, [`rematerialise::rematerialise`] and
//! [`isolation::isolate`] are the passes.
//!
//! `examples/cons.rs` is a whole program.

mod addresses;
mod barrier;
mod check;
mod compile;
mod convention;
mod declarations;
mod engine;
mod entry;
mod error;
pub mod flags;
mod function;
mod host;
mod identity;
pub mod isolation;
mod kind;
mod known;
pub mod linked;
pub mod machine;
mod module;
mod natives;
pub mod object;
mod phis;
mod place;
mod program;
mod regions;
mod reloads;
pub mod rematerialise;
mod trace;

pub use barrier::Barrier;
pub use cranelift_codegen;
pub use cranelift_codegen::gimli;
pub use cranelift_codegen::ir::condcodes::IntCC;
pub use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
pub use cranelift_frontend;
pub use engine::{Engine, EngineError, Settings};
pub use error::{CompileError, EntryError, ModuleError};
pub use function::{Apart, Function, Start, Within};
pub use host::DefaultHost;
pub use identity::FuncId;
pub use kind::{FLOAT, INT, Kind, REF, Signature};
pub use module::{Module, Options, RunsOn};
pub use program::{Placed, Program};

/// The code in the crate's README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
