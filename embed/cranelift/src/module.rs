//! Functions that are compiled, placed and registered together.

use cranelift_codegen::ir::{self, Block, FuncRef, Value};
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::{FuncId, Module as _};
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use stackmark::stack::MAX_FRAME;
use stackmark::unwind::stack_map::cranelift;
use stackmark::unwind::{self, Code, Region};
use std::collections::{HashMap, HashSet};

use crate::barrier::Barrier;
use crate::compile::{Backends, Compiled, Known, compile};
use crate::declarations::{Declarations, Declared};
use crate::entry;
use crate::error::{CompileError, ModuleError};
use crate::flags::isa;
use crate::function::{self, Apart, Function, Start};
use crate::kind::{Kind, Signature};
use crate::program::{Entries, Placed, Program};

/// How a module is compiled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of its region, for tracebacks and debuggers.
    pub name: String,
    /// Cranelift's: `none`, `speed` or `speed_and_size`.
    pub opt_level: String,
    /// Address space for the module's code, in bytes. Only what is used takes memory.
    pub code_bytes: usize,
    /// Whether optimised code is checked for references and stack addresses that live across a call
    /// outside of a mapped slot. By default in debug builds.
    pub checked: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "managed".into(),
            opt_level: "speed".into(),
            code_bytes: 64 << 20,
            checked: cfg!(debug_assertions),
        }
    }
}

/// Functions that are compiled, placed and registered together.
pub struct Module {
    options: Options,
    backends: Backends,
    declarations: Declarations,
    compiled: Vec<Made>,
    /// Functions with large frames, which have entries.
    large: HashSet<FuncId>,
    /// What a goroutine begins with, and what native code calls back, by the function called.
    entries: HashMap<FuncId, Entries<FuncId>>,
}

/// A function's machine code.
struct Made {
    /// Its identity in the module.
    id: FuncId,
    /// The declared function that it belongs to. A function with a large frame has another identity
    /// than the entry that goes in its place.
    of: FuncId,
    compiled: Compiled,
}

impl std::fmt::Debug for Module {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Module")
            .field("name", &self.options.name)
            .field("functions", &self.compiled.len())
            .finish_non_exhaustive()
    }
}

impl Module {
    /// An empty module. `barrier` is that of the heap's collector; without one, functions store no
    /// references.
    ///
    /// # Errors
    /// [`ModuleError::Machine`], [`ModuleError::Reserve`].
    pub fn new(options: Options, barrier: Option<Barrier>) -> Result<Module, ModuleError> {
        let backends = Backends { optimising: isa(&options.opt_level)?, plain: isa("none")? };
        let declarations = Declarations::new(&backends.optimising, options.code_bytes, barrier)?;
        Ok(Module {
            options,
            backends,
            declarations,
            compiled: Vec::new(),
            large: HashSet::new(),
            entries: HashMap::new(),
        })
    }

    /// Declares a function, to be called and defined. Names are for tracebacks and need not differ.
    ///
    /// # Errors
    /// [`CompileError::TooManyResults`].
    pub fn declare(
        &mut self,
        name: &str,
        params: &[Kind],
        results: &[Kind],
    ) -> Result<FuncId, CompileError> {
        Ok(self.declare_signature(name, Signature::new(params, results)?))
    }

    /// As [`Module::declare`].
    pub fn declare_signature(&mut self, name: &str, signature: Signature) -> FuncId {
        self.declarations.declare(name, signature)
    }

    /// The signature of a declared function.
    ///
    /// # Panics
    /// If the module has not declared it.
    pub fn signature(&self, id: FuncId) -> &Signature {
        &self.declarations.get(id).signature
    }

    /// The name of a declared function.
    ///
    /// # Panics
    /// As [`Module::signature`].
    pub fn name(&self, id: FuncId) -> &str {
        &self.declarations.get(id).name
    }

    /// Compiles a declared function. `body` fills the function from its entry block on, behind the
    /// prologue's check of the stack.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn define(
        &mut self,
        id: FuncId,
        body: impl FnOnce(&mut Function<'_>) -> Result<(), CompileError>,
    ) -> Result<(), CompileError> {
        let func = function::build(&mut self.declarations, id, Start::Managed, body)?;
        self.define_function(id, func, None)
    }

    /// An empty function for a declared one, to be filled by a [builder](Module::builder) and
    /// [defined](Module::define_function).
    ///
    /// # Panics
    /// As [`Module::signature`].
    pub fn empty(&self, id: FuncId) -> ir::Function {
        self.declarations.empty(id)
    }

    /// For the code of a declared function, in an [empty](Module::empty) one. Meanwhile others may
    /// be declared and defined. The embedder [enters](Function::enter) and
    /// [finishes](Function::finish) the function itself.
    ///
    /// # Panics
    /// As [`Module::signature`].
    pub fn builder<'f>(
        &mut self,
        id: FuncId,
        func: &'f mut ir::Function,
        context: &'f mut FunctionBuilderContext,
    ) -> Function<'f, Apart> {
        Function::new(&mut self.declarations, id, func, context)
    }

    /// Calls a declared function in `f`. Returns its results.
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    ///
    /// # Panics
    /// As [`Module::signature`].
    pub fn call(
        &mut self,
        f: &mut Function<'_, Apart>,
        callee: FuncId,
        args: &[Value],
    ) -> Result<Vec<Value>, CompileError> {
        let callee = self.declarations.callee(callee, f.func);
        f.call_declared(&callee, args)
    }

    /// As [`Module::call`]; an exception that leaves the callee goes on in `landing`: see
    /// [`Function::try_call`].
    ///
    /// # Errors
    /// [`CompileError::Arity`].
    ///
    /// # Panics
    /// As [`Module::signature`].
    pub fn try_call(
        &mut self,
        f: &mut Function<'_, Apart>,
        callee: FuncId,
        args: &[Value],
        landing: Block,
    ) -> Result<Vec<Value>, CompileError> {
        let callee = self.declarations.callee(callee, f.func);
        f.try_call_declared(&callee, args, landing)
    }

    /// As [`Module::define`], for a function that the embedder has built itself. What is reached
    /// from `isolated` is entered with unknown registers, and uses no value from elsewhere.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn define_function(
        &mut self,
        id: FuncId,
        func: ir::Function,
        isolated: Option<Block>,
    ) -> Result<(), CompileError> {
        let compiled = self.compile(id, func, isolated)?;
        if compiled.frame as usize <= MAX_FRAME {
            return self.place(Made { id, of: id, compiled });
        }
        // The function proper gets another identity. Under its own one goes an entry that makes
        // room first.
        let (name, signature) = (self.name(id).to_owned(), self.signature(id).clone());
        let frame = compiled.frame;
        let body = self.declare_signature(&name, signature);
        self.place(Made { id: body, of: id, compiled })?;
        let entry = entry::large_frame(&mut self.declarations, id, body, frame);
        let compiled = self.compile(id, entry, None)?;
        self.large.insert(id);
        self.place(Made { id, of: id, compiled })
    }

    /// Makes what a goroutine begins with, and what native code calls back, for a function:
    /// [`Program::spawn`](crate::Program::spawn) and
    /// [`Program::call_back`](crate::Program::call_back) take it then.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn export(&mut self, id: FuncId) -> Result<(), CompileError> {
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        let declarations = &mut self.declarations;
        let start = entry::start(declarations, id)?;
        let back = entry::back(declarations, id)?;
        let entries = Entries::new(self.signature(id), start.as_ref().map(|s| s.0), back.0);
        self.entries.insert(id, entries);
        for (entry, func) in start.into_iter().chain([back]) {
            self.define_function(entry, func, None)?;
        }
        Ok(())
    }

    fn compile(
        &self,
        id: FuncId,
        func: ir::Function,
        isolated: Option<Block>,
    ) -> Result<Compiled, CompileError> {
        let Declared { name, signature: own } = self.declarations.get(id);
        let signature = |number| self.declarations.signature(FuncId::from_u32(number));
        let known = self.options.checked.then_some(Known { own, signature: &signature });
        compile(&self.backends, id, name, func, isolated, known)
    }

    /// Puts code into the module.
    fn place(&mut self, made: Made) -> Result<(), CompileError> {
        let Compiled { name, bytes, alignment, relocations, .. } = &made.compiled;
        self.declarations
            .jit
            .define_function_bytes(made.id, *alignment, bytes, relocations)
            .map_err(|error| CompileError::Place {
                function: name.clone(),
                error: error.to_string(),
            })?;
        self.compiled.push(made);
        Ok(())
    }

    /// For calls of a declared function, or its address, within `func`.
    pub fn reference(&mut self, id: FuncId, func: &mut ir::Function) -> FuncRef {
        self.declarations.reference(id, func)
    }

    /// Puts everything in its final place, and registers it with `code`. The code stays until the
    /// process ends.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn finish(self, code: &Code) -> Result<Program, ModuleError> {
        let (program, region) = self.place_all()?;
        code.register(region)?;
        Ok(program)
    }

    /// As [`Module::finish`], without registering it: that is the caller's.
    ///
    /// # Errors
    /// [`ModuleError`].
    pub fn place_all(mut self) -> Result<(Program, Region), ModuleError> {
        self.declarations
            .jit
            .finalize_definitions()
            .map_err(|error| ModuleError::Finish(error.to_string()))?;
        let jit = &self.declarations.jit;
        let address = |id: FuncId| jit.get_finalized_function(id) as usize;
        let mut table = FrameTable::default();
        let cie =
            self.backends.plain.create_systemv_cie().ok_or_else(|| {
                ModuleError::Machine("it has no System V unwind information".into())
            })?;
        let cie = table.add_cie(cie);
        let mut region = Region {
            name: std::mem::take(&mut self.options.name),
            max_frame: Some(MAX_FRAME as u32),
            ..Region::default()
        };
        let mut program = Program::default();
        for Made { id, of, compiled } in self.compiled {
            let (start, len) = (address(id), compiled.bytes.len());
            region.functions.push(unwind::Function {
                name: compiled.name.clone(),
                start,
                len,
                ..unwind::Function::default()
            });
            region.safepoints.extend(compiled.safepoints.into_iter().map(|mut safepoint| {
                safepoint.return_address += start;
                safepoint
            }));
            if let Some(UnwindInfo::SystemV(info)) = &compiled.unwind {
                let mut entry = info.to_fde(Address::Constant(start as u64));
                // SAFETY: the function's code, in its final place, where it stays and is readable.
                let code = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
                cranelift::describe_epilogues(&mut entry, code);
                table.add_fde(cie, entry);
            }
            program.landing_pads.extend(
                compiled
                    .landing_pads
                    .iter()
                    .map(|(at, pad)| (start + *at as usize, start + *pad as usize)),
            );
            let (name, lines) = (compiled.name, compiled.lines);
            let makes_room = id == of && self.large.contains(&id);
            let placed = Placed { id: of, makes_room, name, start, len, lines };
            program.functions.push(placed);
        }
        let mut eh_frame = EhFrame::from(EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut eh_frame).map_err(|e| ModuleError::Finish(e.to_string()))?;
        region.eh_frame = eh_frame.0.into_vec();
        region.start = region.functions.iter().map(|f| f.start).min().unwrap_or(0);
        let end = region.functions.iter().map(|f| f.start + f.len).max().unwrap_or(0);
        region.len = end - region.start;
        // Large frames have entries that make room: only the bodies exceed the limit.
        if !self.large.is_empty() {
            region.max_frame = None;
        }
        program.functions.sort_unstable_by_key(|function| function.start);
        for id in self.declarations.functions() {
            program.addresses.insert(id, address(id));
        }
        for (id, entries) in &self.entries {
            program.entries.insert(*id, entries.map(address));
        }
        // The code lives as long as the process.
        self.declarations.keep_code();
        Ok((program, region))
    }
}
