//! Machine code and everything that is registered with it: addresses, names, CFI, safepoints, constant data.

use crate::runtime::host;
use crate::runtime::typeinfo::TypeInfo;
use crate::types::Layout;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, AbiParam, FuncRef, InstBuilder, MemFlagsData, Signature, types as clif};
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc};
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use std::collections::HashMap;
use std::ops::Range;

/// Address space for the machine code of a program.
const CODE_BYTES: usize = 256 << 20;

/// A compiled function.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) start: usize,
    pub(crate) len: usize,
}

/// A return address with the frame's size and its slots, as Cranelift gives them.
pub(crate) struct Safepoint {
    pub(crate) return_address: usize,
    pub(crate) frame_size: u32,
    pub(crate) slots: Vec<u32>,
}

/// A compiled program.
pub(crate) struct Code {
    /// The function object that the first goroutine runs.
    pub(crate) start: usize,
    /// The managed function with which a goroutine starts.
    pub(crate) entry: usize,
    pub(crate) range: Range<usize>,
    pub(crate) functions: Vec<Function>,
    pub(crate) safepoints: Vec<Safepoint>,
    pub(crate) eh_frame: Vec<u8>,
    /// Package-level variables that may hold references: addresses and lengths in bytes.
    pub(crate) globals: Vec<(usize, usize)>,
}

struct Compiled {
    id: FuncId,
    name: String,
    len: usize,
    maps: Vec<(u32, u32, Vec<u32>)>,
    unwind: Option<UnwindInfo>,
}

/// Collects the functions of a program.
pub(crate) struct Emitter {
    module: JITModule,
    isa: OwnedTargetIsa,
    call_system: FuncId,
    names: HashMap<FuncId, String>,
    compiled: Vec<Compiled>,
    strings: HashMap<String, usize>,
    closures: HashMap<FuncId, usize>,
    thunks: HashMap<FuncId, FuncId>,
    words: HashMap<Vec<bool>, &'static TypeInfo>,
    globals: Vec<(usize, usize)>,
}

impl Emitter {
    pub(crate) fn new() -> Emitter {
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "speed"),
            ("enable_pinned_reg", "true"),
            ("preserve_frame_pointers", "true"),
            ("unwind_info", "true"),
            ("is_pic", "false"),
            ("enable_probestack", "false"),
        ] {
            flags.set(name, value).expect("a known setting");
        }
        let isa = cranelift_native::builder()
            .expect("the machine is supported, as the library's target check says")
            .finish(settings::Flags::new(flags))
            .expect("the settings fit together");
        let mut builder = JITBuilder::with_isa(isa.clone(), cranelift_module::default_libcall_names());
        builder.symbol("stackmark_call_system", stackmark_asm::call_system_address() as *const u8);
        // One range for all code: calls between functions are relative.
        let memory = ArenaMemoryProvider::new_with_size(CODE_BYTES).expect("address space for code");
        builder.memory_provider(Box::new(memory));
        let mut module = JITModule::new(builder);
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend([AbiParam::new(clif::I64); 3]);
        signature.returns.push(AbiParam::new(clif::I64));
        let call_system = module
            .declare_function("stackmark_call_system", Linkage::Import, &signature)
            .expect("the first declaration of this name");
        Emitter {
            module,
            isa,
            call_system,
            names: HashMap::new(),
            compiled: vec![],
            strings: HashMap::new(),
            closures: HashMap::new(),
            thunks: HashMap::new(),
            words: HashMap::new(),
            globals: vec![],
        }
    }

    pub(crate) fn declare(&mut self, name: &str, signature: &Signature) -> FuncId {
        let id = self.module.declare_anonymous_function(signature).expect("a function without a name");
        self.names.insert(id, name.to_string());
        id
    }

    pub(crate) fn name(&self, id: FuncId) -> &str {
        self.names.get(&id).map_or("?", |n| n)
    }

    pub(crate) fn reference(&mut self, id: FuncId, func: &mut ir::Function) -> FuncRef {
        self.module.declare_func_in_func(id, func)
    }

    pub(crate) fn call_system(&mut self, func: &mut ir::Function) -> FuncRef {
        self.module.declare_func_in_func(self.call_system, func)
    }

    pub(crate) fn frontend_config(&self) -> cranelift_codegen::isa::TargetFrontendConfig {
        self.isa.frontend_config()
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
        if layout.has_refs() {
            self.globals.push((at, bytes));
        }
        at
    }

    /// A constant string.
    pub(crate) fn string(&mut self, s: &str) -> (usize, usize) {
        let at = *self.strings.entry(s.to_string()).or_insert_with(|| {
            let bytes: &'static [u8] = Vec::leak(s.as_bytes().to_vec());
            bytes.as_ptr() as usize
        });
        (at, s.len())
    }

    /// The function object of code that captures nothing. It is outside of the heap; its code address is filled in last.
    pub(crate) fn static_closure(&mut self, code: FuncId) -> usize {
        *self.closures.entry(code).or_insert_with(|| Box::leak(Box::new(0usize)) as *mut usize as usize)
    }

    /// The type of objects of whole words.
    pub(crate) fn words_info(&mut self, refs: Vec<bool>) -> &'static TypeInfo {
        self.words.entry(refs.clone()).or_insert_with(|| {
            Box::leak(Box::new(TypeInfo::new("words".into(), 8 * refs.len(), refs, false)))
        })
    }

    /// Compiles a function. `refs` says which of its parameters are references.
    pub(crate) fn define(&mut self, id: FuncId, name: &str, func: ir::Function, refs: &[bool]) {
        let signature = func.signature.clone();
        let frame = self.emit(id, name, func, true);
        if frame > host::MAX_FRAME {
            // The function proper gets another identity; under its own one goes an entry that makes room first.
            let last = self.compiled.pop().expect("just compiled");
            let body = self.declare(name, &signature);
            self.compiled.push(Compiled { id: body, ..last });
            let (bytes, align, relocs) = self.pending.take().expect("just compiled");
            self.module.define_function_bytes(body, align, &bytes, &relocs).expect("a definition of a new function");
            let entry = self.entry(id, body, &signature, refs, frame);
            self.emit(id, name, entry, false);
        }
        let (bytes, align, relocs) = self.pending.take().unwrap_or_default();
        if !bytes.is_empty() {
            self.module.define_function_bytes(id, align, &bytes, &relocs).expect("a definition of a declared function");
        }
    }
}
