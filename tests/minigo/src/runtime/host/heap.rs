//! A heap that a program runs on in the place of the library's own.

use stackmark::stack::{Caller, Runtime};
use std::any::Any;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

/// A heap with its collector. No object moves: native code, C and maps know objects by their
/// addresses, and a reference may point into an object.
pub trait Heap: Send + Sync {
    /// Takes the runtime, whose goroutines have roots. Called once, before all other methods.
    ///
    /// # Errors
    /// The heap cannot be set up.
    fn start(&self, runtime: &Arc<Runtime>) -> Result<(), Box<dyn Error>>;

    /// The calling thread becomes a machine. Returns the machine's word.
    fn machine_attached(&self) -> usize;

    /// The machine of the calling thread, whose word this is, ends.
    fn machine_detached(&self, word: usize);

    /// A name for objects that repeat a pattern of words; these are references, or may be.
    fn descriptor(&self, references: &[bool]) -> usize;

    /// Zeroed memory. If `collects`, the caller's native holds no reference in its own words, and
    /// the heap may collect first. If not, the heap may grow beyond its limit meanwhile.
    ///
    /// # Errors
    /// There is no memory.
    fn allocate(
        &self,
        caller: &Caller<'_>,
        descriptor: usize,
        bytes: usize,
        collects: bool,
    ) -> Result<usize, Box<dyn Error>>;

    /// Keeps the object that the word refers to, if it does, as long as the value lives.
    fn hold(&self, caller: &Caller<'_>, word: usize) -> Box<dyn Any + Send>;

    /// Words outside of the heap that may refer to objects.
    ///
    /// # Safety
    /// They live as long as the process, and are accessed one at a time.
    unsafe fn add_globals(&self, words: Range<usize>);

    /// Collects everything. The caller's native holds no reference.
    fn collect(&self, caller: &Caller<'_>);

    /// Whether [`Heap::shade`] is to be called.
    fn reports_stores(&self) -> bool;

    /// A word that may be a reference is stored or overwritten.
    fn shade(&self, caller: &Caller<'_>, word: usize);

    /// A line for `--report`.
    fn report(&self) -> String;
}
