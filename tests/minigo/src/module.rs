//! The machine code of a program and its constant data.

use crate::code::{Code, OwnMethods, Role};
use crate::error::{CompileError, Compiled};
use crate::image::{self, Address, Global, Image};
use crate::object_file::module as object_module;
use crate::runtime::host;
use crate::runtime::typeinfo::TypeInfo;
use crate::types::Layout;
use cranelift_codegen::ir::{self, Block};
use stackmark_cranelift::linked::ObjectFunction;
use stackmark_cranelift::{FuncId, Module, ModuleError, Options, Signature};
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

/// Address space for the machine code of a program.
const CODE_BYTES: usize = 256 << 20;

/// The functions of a program that are known by their parts.
pub(crate) struct Entries {
    /// What the first goroutine runs.
    pub(crate) start: FuncId,
    /// What every goroutine starts with.
    pub(crate) goroutine: FuncId,
    /// What native code calls back to panic.
    pub(crate) raise: FuncId,
    /// What C may call; None: there is no C code.
    pub(crate) exports: Option<Vec<FuncId>>,
    /// The methods of the runtime's errors, with the numbers of their types, and what calls one.
    pub(crate) error: (FuncId, u32),
    pub(crate) runtime_error: (FuncId, u32),
    pub(crate) text: FuncId,
}

/// Where the machine code goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Into memory, to be run at once.
    Memory,
    /// Into an object file.
    Object,
}

/// Collects the functions of a program, in a module, to which it derefs.
pub(crate) struct Emitter {
    module: Module,
    roles: HashMap<FuncId, Role>,
    strings: HashMap<String, usize>,
    closures: HashMap<FuncId, usize>,
    thunks: HashMap<FuncId, FuncId>,
    words: HashMap<Vec<bool>, &'static TypeInfo>,
    globals: Vec<Global>,
    /// What code may refer to besides.
    known: HashMap<usize, Address>,
    file: String,
    /// The first function that was refused, and why.
    refused: Option<CompileError>,
}

impl Deref for Emitter {
    type Target = Module;

    fn deref(&self) -> &Module {
        &self.module
    }
}

impl DerefMut for Emitter {
    fn deref_mut(&mut self) -> &mut Module {
        &mut self.module
    }
}

fn refused(error: &ModuleError) -> CompileError {
    CompileError { place: "minigo".into(), message: error.to_string() }
}

impl Emitter {
    /// `file` is the source, for tracebacks and debuggers.
    pub(crate) fn new(file: String, target: Target) -> Compiled<Emitter> {
        let file = std::path::absolute(&file).map_or(file, |f| f.display().to_string());
        let options = Options {
            name: "minigo".into(),
            file: file.clone(),
            code_bytes: CODE_BYTES,
            max_frame: host::MAX_FRAME,
            runs_on: host::runs_on(),
            ..Options::default()
        };
        let barrier = Some(host::barrier());
        let module = match target {
            Target::Memory => Module::new(options, barrier),
            Target::Object => object_module().and_then(|m| Module::linked(options, barrier, m)),
        };
        Ok(Emitter {
            module: module.map_err(|e| refused(&e))?,
            roles: HashMap::new(),
            strings: HashMap::new(),
            closures: HashMap::new(),
            thunks: HashMap::new(),
            words: HashMap::new(),
            globals: vec![],
            known: HashMap::new(),
            file,
            refused: None,
        })
    }

    pub(crate) fn declare(&mut self, name: &str, signature: Signature, role: Role) -> FuncId {
        let id = self.module.declare_signature(name, signature);
        self.roles.insert(id, role);
        id
    }

    pub(crate) fn thunk(&self, target: FuncId) -> Option<FuncId> {
        self.thunks.get(&target).copied()
    }

    pub(crate) fn remember_thunk(&mut self, target: FuncId, thunk: FuncId) {
        self.thunks.insert(target, thunk);
    }

    /// Memory for a package-level variable.
    pub(crate) fn global(&mut self, layout: &Layout) -> usize {
        let bytes = (layout.size as usize).next_multiple_of(8).max(8);
        let at = Vec::leak(vec![0u64; bytes / 8]).as_ptr() as usize;
        self.globals.push(Global { bytes, has_references: layout.has_refs(), at });
        at
    }

    /// A constant string.
    pub(crate) fn string(&mut self, s: &str) -> (usize, usize) {
        let at = *self.strings.entry(s.to_string()).or_insert_with(|| {
            let bytes: &'static [u8] = Vec::leak(s.as_bytes().to_vec());
            bytes.as_ptr() as usize
        });
        self.known.entry(at).or_insert_with(|| Address::Text(s.to_owned()));
        (at, s.len())
    }

    /// The function object of code that captures nothing. It is outside of the heap; its code
    /// address is filled in last.
    pub(crate) fn static_closure(&mut self, code: FuncId) -> usize {
        *self
            .closures
            .entry(code)
            .or_insert_with(|| Box::leak(Box::new(0usize)) as *mut usize as usize)
    }

    /// The type of objects of whole words.
    pub(crate) fn words_info(&mut self, refs: Vec<bool>) -> &'static TypeInfo {
        self.words.entry(refs.clone()).or_insert_with(|| {
            Box::leak(Box::new(TypeInfo::new("words".into(), 8 * refs.len(), refs, false)))
        })
    }

    /// Code may refer to this address. It stands for what is said here.
    pub(crate) fn remember(&mut self, address: usize, what: Address) {
        self.known.insert(address, what);
    }

    /// Compiles a function. What is reached from `isolated` is entered at a moment of which nothing
    /// is known but the frame's slots: it must use no value that was computed outside of it.
    pub(crate) fn define(&mut self, id: FuncId, func: ir::Function, isolated: Option<Block>) {
        if let Err(error) = self.module.define_function(id, func, isolated) {
            let message = error.to_string();
            self.refused.get_or_insert(CompileError { place: self.file.clone(), message });
        }
    }

    /// The function objects of what runs first, and of the methods of the runtime's errors with the
    /// numbers of their types. No others are made after these.
    ///
    /// # Errors
    /// That of the first function that was refused.
    fn last_closures(&mut self, entries: &Entries) -> Compiled<(usize, [(usize, u32); 2])> {
        if let Some(error) = self.refused.take() {
            return Err(error);
        }
        let start = self.static_closure(entries.start);
        let method = |(id, signature)| (self.static_closure(id), signature);
        Ok((start, [entries.error, entries.runtime_error].map(method)))
    }

    /// Puts everything in its final place.
    pub(crate) fn finish(mut self, entries: &Entries) -> Compiled<Code> {
        let (start, [error, runtime_error]) = self.last_closures(entries)?;
        let program = host::place(self.module).map_err(|e| refused(&e))?;
        let address = |id: FuncId| program.address(id);
        for (code, object) in &self.closures {
            // SAFETY: the word was leaked in static_closure and no managed code runs yet.
            unsafe { *(*object as *mut usize) = address(*code) };
        }
        let (entry, raise) = (address(entries.goroutine), address(entries.raise));
        let exports = entries.exports.iter().flatten().map(|id| address(*id)).collect();
        Ok(Code {
            start,
            entry,
            raise,
            file: self.file,
            exports,
            calls_c: entries.exports.is_some(),
            own_methods: OwnMethods { error, runtime_error, text: address(entries.text) },
            program,
            roles: self.roles,
            globals: self
                .globals
                .iter()
                .filter(|global| global.has_references)
                .map(|global| (global.at, global.bytes))
                .collect(),
        })
    }

    /// The object file of the program, which has these types.
    pub(crate) fn finish_object(
        mut self,
        entries: &Entries,
        types: impl Iterator<Item = &'static TypeInfo>,
    ) -> Compiled<Vec<u8>> {
        let (start, [error, runtime_error]) = self.last_closures(entries)?;
        let (module, code) = self.module.finish_linked().map_err(|e| refused(&e))?;
        let place = |id: FuncId| code.place(id);
        let role = |f: &ObjectFunction| match f.placed.makes_room {
            true => Role::Wrapper,
            false => self.roles.get(&f.placed.id).copied().unwrap_or_default(),
        };
        let mut closures: Vec<(usize, usize)> =
            self.closures.iter().map(|(id, at)| (*at, place(*id))).collect();
        closures.sort_by_key(|(_, function)| *function);
        let image = Image::of(image::Compiled {
            file: self.file,
            types: types.chain(self.words.values().copied()).collect(),
            globals: self.globals,
            closures,
            known: self.known,
            addresses: code.addresses.clone(),
            functions: code.functions.iter().map(|f| (f.clone(), role(f))).collect(),
            start,
            entry: place(entries.goroutine),
            raise: place(entries.raise),
            own_methods: OwnMethods { error, runtime_error, text: place(entries.text) },
        });
        let failed = |message: String| CompileError { place: "minigo".into(), message };
        let image = image.map_err(|e| failed(e.to_string()))?;
        crate::object_file::write(module, code, &image.to_bytes()).map_err(failed)
    }
}
