//! A very small compiler of managed code, for tests that drive the library with it on every
//! architecture.
//!
//! A [`Compiler`] is a module. Its functions are made by a [`Function`], which knows nothing of the
//! architecture: blocks, words, slots, calls. An encoder for each architecture makes the bytes.
//! What comes out is in memory, with a [`Region`](stackmark_stack::unwind::Region) that has its
//! CFI, its safepoints and its stack maps.
//!
//! All values live in the frame, in words that only values share which are never alive together;
//! but for those that a test wants in [registers that callees keep](Function::kept).
//!
//! `rec(n, object)` recurses `n` deep with `object` in a stack-map slot of every frame, calls out
//! at the bottom, and returns the sum of what it reads through `object` on the way back.

mod emit;
mod encoder;
mod function;
mod ir;
mod live;
mod memory;
mod module;
mod recursion;
mod scale;

use stackmark_stack::{Goroutine, Host, RootSink};

pub use encoder::Test;
pub use function::{Function, RunsOn, Start};
pub use ir::{Block, FuncId, INT, Kind, REF, Value};
pub use module::{Compiled, Compiler, Program};
pub use recursion::{
    KEPT, compile, compile_by, compile_yielding, guarded_result, landed_result, rec_result,
};
pub use scale::{DEEP, MANY_THREADS, THREAD_STACK};

/// A host that has nothing to add.
#[derive(Debug)]
pub struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }
}

/// A collector that needs no roots.
#[derive(Debug)]
pub struct Ignoring;

impl RootSink for Ignoring {
    fn roots(&self, _words: &[usize]) {}
}
