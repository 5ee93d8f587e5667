//! Managed code in its final place.

use cranelift_module::FuncId;
use stackmark::stack::{CallInError, Caller, Goroutine, Runtime, StackError, asm};
use std::collections::HashMap;
use std::sync::Arc;

use crate::kind::Signature;

/// A function in its final place.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The declared function.
    pub id: FuncId,
    /// Whether this is not its code but the entry that makes room for its large frame, and calls
    /// it.
    pub makes_room: bool,
    /// Its name.
    pub name: String,
    /// Its address.
    pub start: usize,
    /// Its length in bytes.
    pub len: usize,
    /// Where the source location changes: offsets and locations, ascending; 0 for none.
    pub lines: Vec<(u32, u32)>,
}

/// What enters a function from outside of managed code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entries<A> {
    /// `start(goroutine, argument)`: what a goroutine begins with, if the function has at most one
    /// parameter.
    start: Option<A>,
    /// `back(block)`: what native code calls back. The block holds the goroutine, the arguments and
    /// room for the results.
    back: A,
    /// Arguments and results, in words.
    words: usize,
    /// Whether the function takes and returns no reference.
    plain: bool,
}

impl<A: Copy> Entries<A> {
    /// Those of a function with this signature.
    pub(crate) fn new(signature: &Signature, start: Option<A>, back: A) -> Entries<A> {
        let (params, results) = (signature.params(), signature.results());
        let plain = !params.iter().chain(results).any(|kind| kind.is_reference());
        Entries { start, back, words: params.len() + results.len(), plain }
    }

    pub(crate) fn map<B>(&self, f: impl Fn(A) -> B) -> Entries<B> {
        Entries {
            start: self.start.map(&f),
            back: f(self.back),
            words: self.words,
            plain: self.plain,
        }
    }
}

/// Managed code in its final place. It stays there until the process ends, also after this value is
/// dropped. Any thread may use it.
#[derive(Debug, Default)]
pub struct Program {
    pub(crate) functions: Vec<Placed>,
    pub(crate) addresses: HashMap<FuncId, usize>,
    pub(crate) entries: HashMap<FuncId, Entries<usize>>,
    pub(crate) landing_pads: HashMap<usize, usize>,
}

impl Program {
    /// Its functions, by ascending addresses.
    pub fn functions(&self) -> &[Placed] {
        &self.functions
    }

    /// The address of a function, as managed code calls it.
    ///
    /// # Panics
    /// If the module did not declare it.
    pub fn address(&self, id: FuncId) -> usize {
        *self.addresses.get(&id).expect("a function of this module")
    }

    /// The index of the function with an instruction at `pc`.
    pub fn function_index(&self, pc: usize) -> Option<usize> {
        let behind = self.functions.partition_point(|function| function.start <= pc);
        let index = behind.checked_sub(1)?;
        let function = &self.functions[index];
        (pc < function.start + function.len).then_some(index)
    }

    /// The function's name and the source location at `pc`, which lies within an instruction.
    pub fn source(&self, pc: usize) -> Option<(&str, u32)> {
        let function = &self.functions[self.function_index(pc)?];
        let offset = (pc - function.start) as u32;
        let line = function.lines.partition_point(|(from, _)| *from <= offset);
        let line = line.checked_sub(1).map_or(0, |at| function.lines[at].1);
        Some((&function.name, line))
    }

    /// The landing pad of the call that returns to `return_address`, if it has one.
    pub fn landing_pad(&self, return_address: usize) -> Option<usize> {
        self.landing_pads.get(&return_address).copied()
    }

    pub(crate) fn is_plain(&self, id: FuncId) -> bool {
        self.exported(id).plain
    }

    fn exported(&self, id: FuncId) -> &Entries<usize> {
        self.entries.get(&id).expect("a function that its module has exported")
    }

    /// A goroutine that calls an [exported](crate::Module::export) function of at most one
    /// parameter with `argument`. Its result goes to
    /// [`Host::goroutine_exited`](stackmark::stack::Host::goroutine_exited).
    ///
    /// # Errors
    /// [`StackError::OutOfMemory`].
    ///
    /// # Panics
    /// If the function is not exported, or has more parameters.
    ///
    /// # Safety
    /// `argument` is of the parameter's kind. If it is a reference, its object is alive: the
    /// goroutine roots it from now on.
    pub unsafe fn spawn(
        &self,
        runtime: &Runtime,
        id: FuncId,
        argument: usize,
    ) -> Result<Arc<Goroutine>, StackError> {
        let start = self.exported(id).start.expect("a function of at most one parameter");
        // SAFETY: the module's code keeps the contracts; the entry takes such an argument.
        unsafe { runtime.spawn(start, argument) }
    }

    /// Calls an [exported](crate::Module::export) function from within a foreign call, on the
    /// goroutine of `caller`. `words` holds the arguments, then room for the results.
    ///
    /// # Errors
    /// [`CallInError`].
    ///
    /// # Panics
    /// If the function is not exported, or `words` are not as many as its parameters and results.
    ///
    /// # Safety
    /// The arguments are of the parameters' kinds; the objects of references are alive. Results
    /// that are references stay valid only while the collector cannot run: the caller makes handles
    /// of them first. Native code keeps no address in the goroutine's stack across the call.
    pub unsafe fn call_back(
        &self,
        caller: Caller<'_>,
        id: FuncId,
        words: &mut [usize],
    ) -> Result<(), CallInError> {
        let entries = self.exported(id);
        assert_eq!(words.len(), entries.words, "arguments and results of the function");
        let mut block = Vec::with_capacity(1 + words.len());
        block.push(caller.goroutine().address());
        block.extend_from_slice(words);
        // SAFETY: the address of managed code that takes the address of such a block.
        let back = unsafe { std::mem::transmute::<usize, asm::ManagedFn>(entries.back) };
        // SAFETY: our contract.
        unsafe { caller.callback(back, block.as_mut_ptr() as usize)? };
        words.copy_from_slice(&block[1..]);
        Ok(())
    }
}
