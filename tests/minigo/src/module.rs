//! Machine code and everything that is registered with it: addresses, names, CFI, safepoints,
//! constant data.

use crate::code::{Code, Function, OwnMethods, Role, Safepoint};
use crate::error::CompileError;
use crate::runtime::host;
use crate::runtime::typeinfo::TypeInfo;
use crate::types::Layout;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, AbiParam, Block, FuncRef, InstBuilder, MemFlagsData, Signature, types as clif,
};
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Final, MachSrcLoc};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, ModuleReloc};
use gimli::write::{Address, EhFrame, EndianVec, FrameTable};
use stackmark::unwind::stack_map::cranelift;
use stackmark_asm::layout;
use stackmark_cranelift::{isolation::isolate, rematerialise::rematerialise};
use std::collections::HashMap;

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

struct Compiled {
    id: FuncId,
    name: String,
    len: usize,
    maps: Vec<(u32, u32, Vec<u32>)>,
    unwind: Option<UnwindInfo>,
    lines: Vec<(u32, u32)>,
}

/// Where the source line changes.
fn lines_of(locations: &[MachSrcLoc<Final>]) -> Vec<(u32, u32)> {
    let mut lines: Vec<(u32, u32)> = vec![];
    let mut end = 0;
    let mut add = |at, line| {
        if lines.last().is_none_or(|l| l.1 != line) {
            lines.push((at, line));
        }
    };
    for l in locations {
        if l.start > end {
            add(end, 0);
        }
        end = l.end;
        add(l.start, if l.loc.is_default() { 0 } else { l.loc.bits() });
    }
    lines
}

/// The machine that this program runs on.
fn isa(opt_level: &str) -> OwnedTargetIsa {
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", opt_level),
        ("enable_pinned_reg", "true"),
        ("preserve_frame_pointers", "true"),
        ("unwind_info", "true"),
        ("is_pic", "false"),
        ("enable_probestack", "false"),
    ] {
        flags.set(name, value).expect("a known setting");
    }
    cranelift_native::builder()
        .expect("the machine is supported, as the library's target check says")
        .finish(settings::Flags::new(flags))
        .expect("the settings fit together")
}

/// Collects the functions of a program.
pub(crate) struct Emitter {
    module: JITModule,
    isa: OwnedTargetIsa,
    /// The same machine, for code that is optimised already.
    backend: OwnedTargetIsa,
    call_system: FuncId,
    switch_out: FuncId,
    names: HashMap<FuncId, String>,
    roles: HashMap<FuncId, Role>,
    compiled: Vec<Compiled>,
    strings: HashMap<String, usize>,
    closures: HashMap<FuncId, usize>,
    thunks: HashMap<FuncId, FuncId>,
    words: HashMap<Vec<bool>, &'static TypeInfo>,
    globals: Vec<(usize, usize)>,
    /// Code of the function compiled last, on its way into the module.
    pending: Option<(Vec<u8>, u64, Vec<ModuleReloc>)>,
}

impl Emitter {
    pub(crate) fn new() -> Result<Emitter, CompileError> {
        let (isa, backend) = (isa("speed"), isa("none"));
        let mut builder =
            JITBuilder::with_isa(isa.clone(), cranelift_module::default_libcall_names());
        builder.symbol("stackmark_call_system", stackmark_asm::call_system_address() as *const u8);
        builder.symbol("stackmark_switch_out", stackmark_asm::switch_out_address() as *const u8);
        // One range for all code: calls between functions are relative.
        let memory = ArenaMemoryProvider::new_with_size(CODE_BYTES).map_err(|e| CompileError {
            place: "minigo".into(),
            message: format!("cannot reserve address space for code: {e}"),
        })?;
        builder.memory_provider(Box::new(memory));
        let mut module = JITModule::new(builder);
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend([AbiParam::new(clif::I64); 3]);
        signature.returns.push(AbiParam::new(clif::I64));
        let call_system = module
            .declare_function("stackmark_call_system", Linkage::Import, &signature)
            .expect("the first declaration of this name");
        // The convention that keeps no register but rsp and rbp, and does not know the pinned one.
        let mut signature = Signature::new(CallConv::Winch);
        signature.params.push(AbiParam::new(clif::I64));
        signature.returns.push(AbiParam::new(clif::I64));
        let switch_out = module
            .declare_function("stackmark_switch_out", Linkage::Import, &signature)
            .expect("the first declaration of this name");
        Ok(Emitter {
            module,
            isa,
            backend,
            call_system,
            switch_out,
            names: HashMap::new(),
            roles: HashMap::new(),
            compiled: vec![],
            strings: HashMap::new(),
            closures: HashMap::new(),
            thunks: HashMap::new(),
            words: HashMap::new(),
            globals: vec![],
            pending: None,
        })
    }

    pub(crate) fn declare(&mut self, name: &str, signature: &Signature) -> FuncId {
        let id =
            self.module.declare_anonymous_function(signature).expect("a function without a name");
        self.names.insert(id, name.to_string());
        id
    }

    pub(crate) fn set_role(&mut self, id: FuncId, role: Role) {
        self.roles.insert(id, role);
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

    pub(crate) fn switch_out(&mut self, func: &mut ir::Function) -> FuncRef {
        self.module.declare_func_in_func(self.switch_out, func)
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

    /// Compiles a function. `refs`: which of its parameters are references.
    pub(crate) fn define(&mut self, id: FuncId, name: &str, func: ir::Function, refs: &[bool]) {
        self.define_isolated(id, name, func, refs, None);
    }

    /// As `define`. What is reached from `isolated` is entered at a moment of which nothing is
    /// known but the frame's slots: it must use no value that was computed outside of it.
    pub(crate) fn define_isolated(
        &mut self,
        id: FuncId,
        name: &str,
        func: ir::Function,
        refs: &[bool],
        isolated: Option<Block>,
    ) {
        let signature = func.signature.clone();
        let frame = self.emit(id, name, func, isolated);
        if frame <= host::MAX_FRAME as u32 {
            return self.place(id);
        }
        // The function proper gets another identity; under its own one goes an entry that makes
        // room first.
        let body = self.declare(name, &signature);
        self.compiled.last_mut().expect("just compiled").id = body;
        self.place(body);
        let entry = self.entry(id, body, &signature, refs, frame);
        self.emit(id, name, entry, None);
        self.place(id);
        if let Some(role) = self.roles.insert(id, Role::Wrapper) {
            self.roles.insert(body, role);
        }
    }

    /// Compiles `func` and returns the size of its frame.
    fn emit(&mut self, id: FuncId, name: &str, func: ir::Function, isolated: Option<Block>) -> u32 {
        let mut context = cranelift_codegen::Context::for_function(func);
        // In two steps, see `rematerialise`: the second one optimises no more.
        if let Err(e) = context.optimize(&*self.isa, &mut ControlPlane::default()) {
            unreachable!("{name} cannot be optimised: {e:?}");
        }
        rematerialise(&mut context.func);
        if let Some(start) = isolated {
            isolate(name, &mut context.func, start)
                .unwrap_or_else(|e| unreachable!("{e}\n{}", context.func));
        }
        if let Err(e) = context.compile(&*self.backend, &mut ControlPlane::default()) {
            unreachable!("{name} does not compile: {:?}", e.inner);
        }
        let code = context.compiled_code().expect("just compiled");
        let mut maps: Vec<(u32, u32, Vec<u32>)> = code
            .buffer
            .user_stack_maps()
            .iter()
            .map(|(at, span, map)| (*at, *span, map.entries().map(|(_, offset)| offset).collect()))
            .collect();
        // Calls over which nothing is live have no map, but are safepoints.
        let span = code.buffer.frame_layout().map_or(0, |l| l.frame_to_fp_offset);
        for site in code.buffer.call_sites() {
            if !maps.iter().any(|(at, ..)| *at == site.ret_addr) {
                maps.push((site.ret_addr, span, Vec::new()));
            }
        }
        let unwind = code
            .create_unwind_info(&*self.isa)
            .expect("unwind information for a supported machine");
        let frame = maps.iter().map(|m| m.1).max().unwrap_or(0);
        let frame = frame.max(code.buffer.frame_layout().map_or(0, |l| l.frame_to_fp_offset)) + 16;
        let lines = lines_of(code.buffer.get_srclocs_sorted());
        let bytes = code.buffer.data().to_vec();
        let alignment = u64::from(code.buffer.alignment).max(16);
        let len = bytes.len();
        let relocs: Vec<_> = code.buffer.relocs().to_vec();
        let relocs =
            relocs.iter().map(|r| ModuleReloc::from_mach_reloc(r, &context.func, id)).collect();
        self.pending = Some((bytes, alignment, relocs));
        self.compiled.push(Compiled { id, name: name.to_string(), len, maps, unwind, lines });
        frame
    }

    /// Puts the code compiled last into the module, as `id`.
    fn place(&mut self, id: FuncId) {
        let (bytes, alignment, relocs) = self.pending.take().expect("a function has been compiled");
        self.module
            .define_function_bytes(id, alignment, &bytes, &relocs)
            .expect("a function is defined once, in memory that is there");
    }

    /// The entry of a function with a large frame: makes room for the frame, then calls the
    /// function. The room is there also if the goroutine was parked in the poll: the library does
    /// not shrink a stack below what a poll asked for.
    fn entry(
        &mut self,
        id: FuncId,
        body: FuncId,
        signature: &Signature,
        refs: &[bool],
        frame: u32,
    ) -> ir::Function {
        let name = ir::UserFuncName::user(0, id.as_u32());
        let mut func = ir::Function::with_name_signature(name, signature.clone());
        let mut fbc = FunctionBuilderContext::new();
        let config = self.frontend_config();
        let call_system = self.call_system(&mut func);
        let body = self.reference(body, &mut func);
        let mut b = FunctionBuilder::new(&mut func, &mut fbc);
        let [start, poll, go_on] = [(); 3].map(|()| b.create_block());
        b.append_block_params_for_function_params(start);
        b.switch_to_block(start);
        let params = b.block_params(start).to_vec();
        for (p, is_ref) in params.iter().zip(refs) {
            if *is_ref {
                b.declare_value_needs_stack_map(*p);
            }
        }
        let needed = i64::from(frame) + 64;
        let g = b.ins().get_pinned_reg(clif::I64);
        let sp = b.ins().get_stack_pointer(clif::I64);
        let low = b.ins().iadd_imm_s(sp, -needed);
        let limit =
            b.ins().load(clif::I64, MemFlagsData::trusted(), g, layout::G_STACK_LIMIT as i32);
        let short = b.ins().icmp(IntCC::UnsignedLessThan, low, limit);
        b.set_cold_block(poll);
        b.ins().brif(short, poll, &[], go_on, &[]);
        b.switch_to_block(poll);
        let f = b.ins().iconst(clif::I64, host::poll_address() as i64);
        let bytes = b.ins().iconst(clif::I64, needed);
        let zero = b.ins().iconst(clif::I64, 0);
        b.ins().call(call_system, &[f, bytes, zero]);
        b.ins().jump(go_on, &[]);
        b.switch_to_block(go_on);
        let call = b.ins().call(body, &params);
        let results = b.inst_results(call).to_vec();
        b.ins().return_(&results);
        b.seal_all_blocks();
        b.finalize(config);
        func
    }

    /// Puts everything in its final place.
    pub(crate) fn finish(mut self, entries: &Entries, file: String) -> Code {
        let start = self.static_closure(entries.start);
        let mut method = |(id, signature)| (self.static_closure(id), signature);
        let (error, runtime_error) = (method(entries.error), method(entries.runtime_error));
        self.module
            .finalize_definitions()
            .expect("all functions are defined and in reach of each other");
        let module = &self.module;
        let address = |id: FuncId| module.get_finalized_function(id) as usize;
        for (code, object) in &self.closures {
            // SAFETY: the word was leaked in static_closure and no managed code runs yet.
            unsafe { *(*object as *mut usize) = address(*code) };
        }
        let mut table = FrameTable::default();
        let cie = self.isa.create_systemv_cie().expect("a System V machine");
        let cie = table.add_cie(cie);
        let (mut functions, mut safepoints) = (vec![], vec![]);
        for f in &self.compiled {
            let at = address(f.id);
            functions.push(Function {
                name: f.name.clone(),
                start: at,
                len: f.len,
                role: self.roles.get(&f.id).copied().unwrap_or_default(),
                lines: f.lines.clone(),
            });
            for (offset, span, slots) in &f.maps {
                let return_address = at + *offset as usize;
                safepoints.push(Safepoint { return_address, span: *span, slots: slots.clone() });
            }
            if let Some(UnwindInfo::SystemV(info)) = &f.unwind {
                let mut entry = info.to_fde(Address::Constant(at as u64));
                // SAFETY: the function's code, in its final place, where it stays and is readable.
                let code = unsafe { std::slice::from_raw_parts(at as *const u8, f.len) };
                cranelift::describe_epilogues(&mut entry, code);
                table.add_fde(cie, entry);
            }
        }
        let mut eh_frame = EhFrame::from(EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut eh_frame).expect("CFI with constant addresses");
        let lo = functions.iter().map(|f| f.start).min().unwrap_or(0);
        let hi = functions.iter().map(|f| f.start + f.len).max().unwrap_or(0);
        let (entry, raise) = (address(entries.goroutine), address(entries.raise));
        let exports = entries.exports.iter().flatten().map(|id| address(*id)).collect();
        let code = Code {
            start,
            entry,
            raise,
            file,
            exports,
            calls_c: entries.exports.is_some(),
            own_methods: OwnMethods { error, runtime_error, text: address(entries.text) },
            range: lo..hi,
            functions,
            safepoints,
            eh_frame: eh_frame.0.into_vec(),
            globals: self.globals,
        };
        // The code lives as long as the process.
        std::mem::forget(self.module);
        code
    }
}
