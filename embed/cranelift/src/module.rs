//! Functions that are compiled, placed and registered together.

use cranelift_codegen::Context;
use cranelift_codegen::ir::{self, Block, FuncRef, Opcode, Value};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_module::Module as _;
use stackmark::stack::{MAX_FRAME, asm};
use std::collections::{HashMap, HashSet};

use crate::barrier::Barrier;
use crate::compile::{Backends, Compiled, compile};
use crate::declarations::{Declarations, Declared, Target};
use crate::entry::{self, Entry};
use crate::error::{CompileError, ModuleError};
use crate::flags;
use crate::function::{self, Apart, Function, Start};
use crate::identity::{FuncId, Identity};
use crate::kind::{Kind, Signature};
use crate::program::Entries;

/// How a module is compiled.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of its region, for tracebacks and debuggers.
    pub name: String,
    /// The path of the file whose lines the code's source locations are, for debuggers; empty if
    /// they are something else.
    pub file: String,
    /// Cranelift's: `none`, `speed` or `speed_and_size`.
    pub opt_level: String,
    /// Address space for the module's code, in bytes, at most 2 GiB. What is used takes memory; on
    /// Windows all of it counts as used.
    pub code_bytes: usize,
    /// Whether optimised code is checked for references and stack addresses that live across a call
    /// outside of a mapped slot. By default in debug builds.
    pub checked: bool,
    /// The largest frame, in bytes, that a function makes without asking for room: the runtime's
    /// [`max_frame`](stackmark::stack::Config::max_frame). A function with a larger one gets an
    /// entry that asks. Modules of an [`Engine`](crate::Engine) have that of its runtime, whatever
    /// this says.
    pub max_frame: usize,
    /// The kind of stack that the module's functions run on.
    pub runs_on: RunsOn,
    /// Whether the functions sign their return addresses, and check them before they return, where
    /// the machine can (arm64 PAC, key A). By default not. A profiler's trace from the very
    /// instruction that returns from such a function finds a wrong caller: Cranelift's CFI does not
    /// tell that the frame is gone there, and only the plain form of that instruction is known.
    pub signs_returns: bool,
}

/// The kind of stack that the functions of a module run on. By default they run on goroutines'
/// stacks, and call native code on the system stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunsOn {
    native: bool,
}

impl RunsOn {
    /// The stacks of threads: functions call native code on the stack that they run on.
    ///
    /// # Safety
    /// The module's functions run only on threads that
    /// [`attach_native_stack`](stackmark::stack::Runtime::attach_native_stack) has attached.
    pub const unsafe fn native_stacks() -> RunsOn {
        RunsOn { native: true }
    }

    /// The function by which functions call native code.
    fn call(self) -> usize {
        if self.native { asm::call_native_address() } else { asm::call_system_address() }
    }
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "managed".into(),
            file: String::new(),
            opt_level: "speed".into(),
            code_bytes: 64 << 20,
            max_frame: MAX_FRAME,
            checked: cfg!(debug_assertions),
            runs_on: RunsOn::default(),
            signs_returns: false,
        }
    }
}

/// Functions that are compiled, placed and registered together.
pub struct Module {
    /// The engine that it was made by.
    engine: Option<Identity>,
    pub(crate) options: Options,
    pub(crate) backends: Backends,
    pub(crate) declarations: Declarations,
    pub(crate) compiled: Vec<Made>,
    /// Functions with large frames, which have entries.
    pub(crate) large: HashSet<FuncId>,
    /// What a goroutine begins with, and what native code calls back, by the function called.
    pub(crate) entries: HashMap<FuncId, Entries<FuncId>>,
}

/// How far a call reaches, in bytes: its offset has 32 bits, with a sign.
const CALLS_REACH: usize = 1 << 31;

/// A function's machine code.
pub(crate) struct Made {
    /// Its identity in the module.
    pub(crate) id: FuncId,
    /// The declared function that it belongs to. A function with a large frame has another identity
    /// than the entry that goes in its place.
    pub(crate) of: FuncId,
    pub(crate) compiled: Compiled,
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
    /// An empty module, of no engine. `barrier` is that of the heap's collector; without one,
    /// functions store no references.
    ///
    /// # Errors
    /// [`ModuleError::Machine`], [`ModuleError::Setting`], [`ModuleError::TooLarge`],
    /// [`ModuleError::Reserve`].
    pub fn new(options: Options, barrier: Option<Barrier>) -> Result<Module, ModuleError> {
        Module::of(None, options, barrier)
    }

    /// As [`Module::new`], of an engine.
    pub(crate) fn of(
        engine: Option<Identity>,
        options: Options,
        barrier: Option<Barrier>,
    ) -> Result<Module, ModuleError> {
        let bytes = options.code_bytes;
        if bytes > CALLS_REACH {
            return Err(ModuleError::TooLarge { bytes, limit: CALLS_REACH });
        }
        let (signs, native) = (options.signs_returns, options.runs_on.native);
        let isa = |level: &str| flags::for_module(level, signs, native);
        let (optimising, plain) = (isa(&options.opt_level)?, isa("none")?);
        let backends = Backends { optimising, plain, keeps_functions: false };
        let (bytes, on) = (options.code_bytes, options.runs_on);
        let isa = &backends.optimising;
        let declarations = Declarations::new(isa, bytes, on.call(), !on.native, barrier)?;
        Ok(Module::with(engine, options, backends, declarations))
    }

    pub(crate) fn with(
        engine: Option<Identity>,
        options: Options,
        backends: Backends,
        declarations: Declarations,
    ) -> Module {
        Module {
            engine,
            options,
            backends,
            declarations,
            compiled: Vec::new(),
            large: HashSet::new(),
            entries: HashMap::new(),
        }
    }

    /// Declares a function, to be called and defined. Names are for tracebacks and need not differ.
    ///
    /// # Errors
    /// [`CompileError::TooManyResults`], [`CompileError::Wide`].
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
        self.declarations.find(id)?;
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
    /// As [`Module::signature`], and if `func` is not an empty one of the function.
    pub fn builder<'f>(
        &mut self,
        id: FuncId,
        func: &'f mut ir::Function,
        context: &'f mut FunctionBuilderContext,
    ) -> Function<'f, Apart> {
        self.declarations.check_built(id, func).expect("an empty function for a declared one");
        Function::new(&mut self.declarations, id, func, context)
    }

    /// Whether `f` is a function of this module.
    fn check_own(&self, f: &Function<'_, Apart>) -> Result<(), CompileError> {
        if f.belongs_to() == self.declarations.module {
            return Ok(());
        }
        Err(CompileError::OtherModule { what: format!("the caller, {},", f.name()) })
    }

    /// Calls a declared function in `f`. Returns its results.
    ///
    /// # Errors
    /// [`CompileError::Arity`], [`CompileError::OtherModule`].
    pub fn call(
        &mut self,
        f: &mut Function<'_, Apart>,
        callee: FuncId,
        args: &[Value],
    ) -> Result<Vec<Value>, CompileError> {
        self.check_own(f)?;
        let callee = self.declarations.callee(callee, f.func)?;
        f.call_declared(&callee, args)
    }

    /// As [`Module::call`]; an exception that leaves the callee goes on in `landing`: see
    /// [`Function::try_call`].
    ///
    /// # Errors
    /// [`CompileError::Arity`], [`CompileError::OtherModule`].
    pub fn try_call(
        &mut self,
        f: &mut Function<'_, Apart>,
        callee: FuncId,
        args: &[Value],
        landing: Block,
    ) -> Result<Vec<Value>, CompileError> {
        self.check_own(f)?;
        let callee = self.declarations.callee(callee, f.func)?;
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
        self.declarations.check_built(id, &func)?;
        // The entry that makes room finds the goroutine in the pinned register.
        let sets_goroutine = opcodes(&func).any(|opcode| opcode == Opcode::SetPinnedReg);
        let limit = self.options.max_frame;
        let compiled = self.compile(id, func, isolated)?;
        if compiled.frame as usize <= limit {
            return self.place(Made { id, of: id, compiled });
        }
        let too_large = |Compiled { name, frame, .. }| CompileError::Frame {
            function: name,
            bytes: frame,
            limit,
        };
        if sets_goroutine {
            return Err(too_large(compiled));
        }
        // The function proper gets another identity. Under its own one goes an entry that makes
        // room first.
        let (name, signature) = (self.name(id).to_owned(), self.signature(id).clone());
        let body = self.declare_signature(&name, signature);
        let entry = entry::large_frame(&mut self.declarations, id, body, compiled.frame);
        let entry = self.compile(id, entry, None).and_then(|entry| match entry.frame as usize {
            // Its own frame is made before it asks for room.
            bytes if bytes > limit => Err(too_large(entry)),
            _ => Ok(entry),
        });
        let entry = entry.inspect_err(|_| self.declarations.forget(body))?;
        self.place(Made { id: body, of: id, compiled: compiled.under(id.id, body.id) })?;
        self.large.insert(id);
        self.place(Made { id, of: id, compiled: entry })
    }

    /// Makes what a goroutine begins with, and what native code calls back, for a function:
    /// [`Program::spawn`](crate::Program::spawn) and
    /// [`Program::call_back`](crate::Program::call_back) take it then.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn export(&mut self, id: FuncId) -> Result<(), CompileError> {
        self.declarations.find(id)?;
        if self.entries.contains_key(&id) {
            return Ok(());
        }
        let start = self.entry(id, entry::start)?;
        let back = self.entry(id, |declarations, id| entry::back(declarations, id).map(Some))?;
        let back = back.expect("made for every function");
        self.entries.insert(id, Entries::new(self.signature(id), start, back));
        Ok(())
    }

    /// Makes one entry of a function. If it is refused, none of it stays.
    fn entry(
        &mut self,
        id: FuncId,
        make: impl FnOnce(&mut Declarations, FuncId) -> Result<Option<Entry>, CompileError>,
    ) -> Result<Option<FuncId>, CompileError> {
        let Some(Entry { id, func }) = make(&mut self.declarations, id)? else { return Ok(None) };
        self.define_function(id, func, None).inspect_err(|_| self.declarations.forget(id))?;
        Ok(Some(id))
    }

    fn compile(
        &self,
        id: FuncId,
        func: ir::Function,
        isolated: Option<Block>,
    ) -> Result<Compiled, CompileError> {
        let Declared { name, .. } = self.declarations.get(id);
        compile(&self.backends, id.id, name, func, isolated, self.options.checked)
    }

    /// Puts code into the module.
    fn place(&mut self, mut made: Made) -> Result<(), CompileError> {
        let Compiled { name, bytes, alignment, relocations, func, .. } = &mut made.compiled;
        let placed = match &mut self.declarations.target {
            Target::Memory(jit) => {
                jit.define_function_bytes(made.id.id, *alignment, bytes, relocations)
            }
            // It also writes the CFI.
            Target::Object(module, _) => {
                let func = func.take().expect("kept for this");
                module.define_function(made.id.id, &mut Context::for_function(func))
            }
        };
        placed.map_err(|error| CompileError::Place {
            function: name.clone(),
            error: error.to_string(),
        })?;
        self.compiled.push(made);
        Ok(())
    }

    /// For calls of a declared function, or its address, within `func`, a function of this module.
    ///
    /// # Panics
    /// As [`Module::signature`].
    pub fn reference(&mut self, id: FuncId, func: &mut ir::Function) -> FuncRef {
        self.declarations.reference(id, func)
    }

    pub(crate) fn engine(&self) -> Option<Identity> {
        self.engine
    }
}

fn opcodes(func: &ir::Function) -> impl Iterator<Item = Opcode> + '_ {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    insts.map(|inst| func.dfg.insts[inst].opcode())
}
