//! Managed code in its final place.

use stackmark::stack::{Caller, Goroutine, Runtime, asm};
use std::collections::HashMap;
use std::sync::Arc;

use crate::error::EntryError;
use crate::identity::{FuncId, Identity};
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
    /// Arguments, and arguments and results, in words.
    params: usize,
    words: usize,
    /// Whether the function takes and returns no reference.
    plain: bool,
}

impl<A: Copy> Entries<A> {
    /// Those of a function with this signature.
    pub(crate) fn new(signature: &Signature, start: Option<A>, back: A) -> Entries<A> {
        let (params, results) = (signature.params(), signature.results());
        let plain = !params.iter().chain(results).any(|kind| kind.is_reference());
        let words = params.len() + results.len();
        Entries { start, back, params: params.len(), words, plain }
    }

    pub(crate) fn map<B>(&self, f: impl Fn(A) -> B) -> Entries<B> {
        Entries {
            start: self.start.map(&f),
            back: f(self.back),
            params: self.params,
            words: self.words,
            plain: self.plain,
        }
    }
}

/// Managed code in its final place. It stays there until the process ends, also after this value is
/// dropped. Any thread may use it.
#[derive(Debug)]
pub struct Program {
    /// The engine that its code is registered with.
    pub(crate) engine: Option<Identity>,
    pub(crate) functions: Vec<Placed>,
    pub(crate) addresses: HashMap<FuncId, usize>,
    pub(crate) entries: HashMap<FuncId, Entries<usize>>,
    pub(crate) landing_pads: HashMap<usize, usize>,
}

impl Program {
    /// One without functions.
    pub(crate) fn empty() -> Program {
        Program {
            engine: None,
            functions: Vec::new(),
            addresses: HashMap::new(),
            entries: HashMap::new(),
            landing_pads: HashMap::new(),
        }
    }

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

    /// What a goroutine begins with that calls an exported function.
    ///
    /// # Errors
    /// [`EntryError::NotExported`], [`EntryError::Parameters`].
    pub(crate) fn start(&self, id: FuncId) -> Result<usize, EntryError> {
        let Entries { start, params, .. } = *self.exported(id)?;
        start.ok_or(EntryError::Parameters { params })
    }

    /// As [`Program::start`], for a function that takes and returns plain words.
    ///
    /// # Errors
    /// Those, and [`EntryError::References`].
    pub(crate) fn plain_start(&self, id: FuncId) -> Result<usize, EntryError> {
        let start = self.start(id)?;
        if self.exported(id)?.plain { Ok(start) } else { Err(EntryError::References) }
    }

    /// The arguments and room for the results of a function that takes and returns plain words, as
    /// [`Program::call_back`] takes them.
    ///
    /// # Errors
    /// [`EntryError::NotExported`], [`EntryError::References`].
    pub(crate) fn plain_words(
        &self,
        id: FuncId,
        arguments: &[usize],
    ) -> Result<Vec<usize>, EntryError> {
        let entries = self.exported(id)?;
        if !entries.plain {
            return Err(EntryError::References);
        }
        let mut words = arguments.to_vec();
        words.resize(arguments.len() + entries.words - entries.params, 0);
        Ok(words)
    }

    fn exported(&self, id: FuncId) -> Result<&Entries<usize>, EntryError> {
        self.entries.get(&id).ok_or(EntryError::NotExported)
    }

    /// A goroutine that calls an [exported](crate::Module::export) function of at most one
    /// parameter with `argument`. Its first result goes to
    /// [`Host::goroutine_exited`](stackmark::stack::Host::goroutine_exited). An integer is the low
    /// bits of a word, extended by zeros in the result; a floating-point number is its bits.
    ///
    /// # Errors
    /// [`EntryError::NotExported`], [`EntryError::Parameters`], [`EntryError::Stack`].
    ///
    /// # Safety
    /// - The code of the module keeps the contracts: see [`Engine::finish`](crate::Engine::finish).
    ///   It is registered with the code of `runtime`, and what it stores and allocates belongs to
    ///   the heap of this runtime's collector.
    /// - `argument` is of the parameter's kind. If it is a reference, its object is alive: the
    ///   goroutine roots it from now on.
    pub unsafe fn spawn(
        &self,
        runtime: &Runtime,
        id: FuncId,
        argument: usize,
    ) -> Result<Arc<Goroutine>, EntryError> {
        // SAFETY: the module's code keeps the contracts; the entry takes such an argument.
        Ok(unsafe { runtime.spawn(self.start(id)?, argument)? })
    }

    /// Calls an [exported](crate::Module::export) function from within a foreign call, on the
    /// goroutine of `caller`. `words` holds the arguments, then room for the results, as for
    /// [`Program::spawn`].
    ///
    /// # Errors
    /// [`EntryError::NotExported`], [`EntryError::Words`], [`EntryError::CallIn`].
    ///
    /// # Safety
    /// - As for [`Program::spawn`], with the runtime of `caller`.
    /// - The arguments are of the parameters' kinds; the objects of references are alive. Results
    ///   that are references stay valid only while the collector cannot run: the caller makes
    ///   handles of them first.
    /// - Native code keeps no address in the goroutine's stack across the call.
    pub unsafe fn call_back(
        &self,
        caller: Caller<'_>,
        id: FuncId,
        words: &mut [usize],
    ) -> Result<(), EntryError> {
        let entries = self.exported(id)?;
        if words.len() != entries.words {
            return Err(EntryError::Words { expected: entries.words, found: words.len() });
        }
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
