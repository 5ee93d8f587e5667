//! The functions that a module has declared, and where their code goes.

use cranelift_codegen::ir::{
    self, FuncRef, InstBuilder, MemFlagsData, UserFuncName, Value, types::I64,
};
use cranelift_codegen::isa::{OwnedTargetIsa, TargetFrontendConfig};
use cranelift_frontend::FunctionBuilder;
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{Linkage, Module as _};
use stackmark::stack::asm;
use std::collections::HashMap;

use crate::addresses::{Addresses, Linkable};
use crate::barrier::Barrier;
use crate::convention;
use crate::error::{CompileError, ModuleError};
use crate::identity::{FuncId, Identity};
use crate::kind::Signature;

const CALL_SYSTEM: &str = "stackmark_call_system";
const SWITCH_OUT: &str = "stackmark_switch_out";

/// Addresses of the process, for one function: constants, or words of the table that is filled when
/// the linked program begins.
pub(crate) struct Constants(Option<(ir::GlobalValue, Addresses)>);

impl Constants {
    /// The address, as a value.
    pub(crate) fn value(&self, builder: &mut FunctionBuilder<'_>, address: usize) -> Value {
        let Some((table, addresses)) = &self.0 else {
            return builder.ins().iconst(I64, address as i64);
        };
        let at = addresses.offset(address);
        let table = builder.ins().symbol_value(I64, *table);
        // The table is filled before managed code runs.
        let flags = MemFlagsData::trusted().with_readonly().with_can_move();
        builder.ins().load(I64, flags, table, at)
    }
}

/// A declared function.
pub(crate) struct Declared {
    pub(crate) name: String,
    pub(crate) signature: Signature,
}

/// A declared function, for calls within one function.
pub(crate) struct Callee {
    pub(crate) name: String,
    pub(crate) signature: Signature,
    pub(crate) reference: FuncRef,
}

/// Where code goes.
pub(crate) enum Target {
    /// Into memory.
    Memory(Box<JITModule>),
    /// Into an object file.
    Object(Box<dyn Linkable>, Addresses),
}

impl Target {
    pub(crate) fn module(&mut self) -> &mut dyn cranelift_module::Module {
        match self {
            Target::Memory(jit) => &mut **jit,
            Target::Object(module, _) => &mut **module,
        }
    }
}

/// See the module.
pub(crate) struct Declarations {
    pub(crate) target: Target,
    pub(crate) module: Identity,
    declared: HashMap<FuncId, Declared>,
    call_system: cranelift_module::FuncId,
    /// `None` on threads' own stacks, which nothing switches.
    switch_out: Option<cranelift_module::FuncId>,
    /// The write barrier that functions store references by.
    pub(crate) barrier: Option<Barrier>,
}

impl Declarations {
    /// No functions, in `code_bytes` bytes of address space. They call native code by the function
    /// at `call`. `switches` tells whether their goroutines leave threads.
    ///
    /// # Errors
    /// [`ModuleError::Reserve`].
    pub(crate) fn new(
        isa: &OwnedTargetIsa,
        code_bytes: usize,
        call: usize,
        switches: bool,
        barrier: Option<Barrier>,
    ) -> Result<Declarations, ModuleError> {
        let mut builder =
            JITBuilder::with_isa(isa.clone(), cranelift_module::default_libcall_names());
        builder.symbol(CALL_SYSTEM, call as *const u8);
        builder.symbol(SWITCH_OUT, asm::switch_out_address() as *const u8);
        // One range for all code: calls between functions are relative.
        let memory = ArenaMemoryProvider::new_with_size(code_bytes).map_err(|error| {
            ModuleError::Reserve { bytes: code_bytes, error: error.to_string() }
        })?;
        builder.memory_provider(Box::new(memory));
        let jit = JITModule::new(builder);
        Ok(Declarations::of(Target::Memory(Box::new(jit)), switches, barrier))
    }

    /// As [`Declarations::new`], for code that is linked with the library, whose functions it finds
    /// by their names.
    pub(crate) fn linked(module: Box<dyn Linkable>, barrier: Option<Barrier>) -> Declarations {
        let mut module = module;
        let addresses = Addresses::new(&mut *module);
        Declarations::of(Target::Object(module, addresses), true, barrier)
    }

    fn of(mut target: Target, switches: bool, barrier: Option<Barrier>) -> Declarations {
        let native = target.module().isa().default_call_conv();
        let mut import = |name, signature| {
            let module = target.module();
            module
                .declare_function(name, Linkage::Import, &signature)
                .expect("the first declaration of this name")
        };
        let call_system = import(CALL_SYSTEM, convention::call_system(native));
        let switch_out = switches.then(|| import(SWITCH_OUT, convention::switch_out(native)));
        let (module, declared) = (Identity::new(), HashMap::new());
        Declarations { target, module, declared, call_system, switch_out, barrier }
    }

    /// Declares a function.
    pub(crate) fn declare(&mut self, name: &str, signature: Signature) -> FuncId {
        let id = self
            .target
            .module()
            .declare_anonymous_function(&signature.clif())
            .expect("a function without a name is new");
        let id = FuncId { module: self.module, id };
        self.declared.insert(id, Declared { name: name.to_owned(), signature });
        id
    }

    /// Takes a declaration back that nothing refers to.
    pub(crate) fn forget(&mut self, id: FuncId) {
        self.declared.remove(&id);
    }

    /// # Panics
    /// If the module has not declared the function.
    pub(crate) fn get(&self, id: FuncId) -> &Declared {
        self.find(id).expect("a function that this module has declared")
    }

    /// # Errors
    /// [`CompileError::OtherModule`].
    pub(crate) fn find(&self, id: FuncId) -> Result<&Declared, CompileError> {
        self.declared.get(&id).ok_or_else(|| {
            let what = format!("function {} of module {}", id.id.as_u32(), id.module.number());
            CompileError::OtherModule { what }
        })
    }

    /// All declared functions.
    pub(crate) fn functions(&self) -> impl Iterator<Item = FuncId> + '_ {
        self.declared.keys().copied()
    }

    /// An empty function, for a declared one.
    pub(crate) fn empty(&self, id: FuncId) -> ir::Function {
        let signature = self.get(id).signature.clif();
        ir::Function::with_name_signature(Self::built_as(id), signature)
    }

    /// The name of Cranelift's code for a function, by which it is known whose it is.
    fn built_as(id: FuncId) -> UserFuncName {
        UserFuncName::user(id.module.number(), id.id.as_u32())
    }

    /// Whether this code was built for this function of this module.
    ///
    /// # Errors
    /// [`CompileError::OtherModule`].
    pub(crate) fn check_built(&self, id: FuncId, func: &ir::Function) -> Result<(), CompileError> {
        let name = &self.find(id)?.name;
        if func.name == Self::built_as(id) {
            return Ok(());
        }
        Err(CompileError::OtherModule { what: format!("the code for {name}, {},", func.name) })
    }

    /// For calls of a declared function within `func`.
    ///
    /// # Panics
    /// If the module has not declared it.
    pub(crate) fn reference(&mut self, id: FuncId, func: &mut ir::Function) -> FuncRef {
        self.get(id);
        self.target.module().declare_func_in_func(id.id, func)
    }

    /// For calls of a declared function within `func`, with what is known of it.
    ///
    /// # Errors
    /// [`CompileError::OtherModule`].
    pub(crate) fn callee(
        &mut self,
        id: FuncId,
        func: &mut ir::Function,
    ) -> Result<Callee, CompileError> {
        let Declared { name, signature } = self.find(id)?;
        let (name, signature) = (name.clone(), signature.clone());
        Ok(Callee { name, signature, reference: self.reference(id, func) })
    }

    pub(crate) fn call_system(&mut self, func: &mut ir::Function) -> FuncRef {
        self.target.module().declare_func_in_func(self.call_system, func)
    }

    pub(crate) fn switch_out(&mut self, func: &mut ir::Function) -> Option<FuncRef> {
        let switch_out = self.switch_out?;
        Some(self.target.module().declare_func_in_func(switch_out, func))
    }

    pub(crate) fn frontend_config(&mut self) -> TargetFrontendConfig {
        self.target.module().isa().frontend_config()
    }

    /// How code of `func` refers to addresses of the process.
    pub(crate) fn constants(&mut self, func: &mut ir::Function) -> Constants {
        match &mut self.target {
            Target::Memory(_) => Constants(None),
            Target::Object(module, addresses) => {
                let table = module.declare_data_in_func(addresses.table(), func);
                Constants(Some((table, addresses.clone())))
            }
        }
    }
}
