//! A very small compiler: one recursive function, on Cranelift, as an embedder's would be.
//!
//! `rec(n, object)` recurses `n` deep with `object` in a stack-map slot of every frame, calls out
//! at the bottom, and returns the sum of what it reads through `object` on the way back.

use cranelift_codegen::FinalizedMachExceptionHandler;
use cranelift_codegen::ir::{
    AbiParam, FuncRef, InstBuilder, MemFlagsData, Signature, StackSlotData, StackSlotKind, Value,
    condcodes::IntCC, types::I64,
};
use cranelift_codegen::isa::CallConv;
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module};
use stackmark_stack::asm::{self, layout};
use stackmark_stack::unwind::{Code, Function, Region, stack_map};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

/// The native function at the bottom: `(object, n)`.
pub(crate) type Bottom = unsafe extern "C-unwind" fn(*mut c_void, usize) -> usize;

/// `switch_out`, for a function of managed code. The convention of the name keeps no register but
/// rsp and rbp, and does not know the pinned one.
#[allow(dead_code, reason = "not every test switches")]
pub(crate) fn switch_out(b: &mut FunctionBuilder<'_>, module: &mut JITModule) -> FuncRef {
    let mut signature = Signature::new(CallConv::Winch);
    signature.params.push(AbiParam::new(I64));
    signature.returns.push(AbiParam::new(I64));
    let id = module.declare_function("switch_out", Linkage::Import, &signature).expect("an import");
    module.declare_func_in_func(id, b.func)
}

/// The compiled function, registered.
pub(crate) struct Compiled {
    /// Keeps the code. The lock, never taken, makes it `Sync`.
    _module: Mutex<JITModule>,
    /// `entry(goroutine, argument)`, where the argument points to `[n, object, result]`.
    pub(crate) entry: usize,
    /// Landing pads by the return addresses of their calls.
    #[allow(dead_code, reason = "not every test leaves frames")]
    pub(crate) landing_pads: HashMap<usize, usize>,
    /// The addresses of all functions.
    #[allow(dead_code, reason = "not every test calls more than the entry")]
    pub(crate) functions: HashMap<&'static str, usize>,
}

pub(crate) struct Made {
    id: FuncId,
    name: &'static str,
    len: usize,
    maps: Vec<(u32, u32, Vec<u32>)>,
    /// Return addresses of `try_call`s, and their landing pads.
    pads: Vec<(u32, u32)>,
    unwind: cranelift_codegen::isa::unwind::UnwindInfo,
}

pub(crate) struct Compiler {
    pub(crate) module: JITModule,
    signature: Signature,
    made: Vec<Made>,
}

impl Compiler {
    pub(crate) fn new() -> Self {
        let mut flags = settings::builder();
        for (name, value) in [
            ("opt_level", "speed"),
            ("enable_pinned_reg", "true"),
            ("preserve_frame_pointers", "true"),
            ("is_pic", "false"),
        ] {
            flags.set(name, value).expect("a flag of Cranelift");
        }
        let isa = cranelift_native::builder()
            .expect("this machine")
            .finish(settings::Flags::new(flags))
            .expect("flags");
        let mut jit = JITBuilder::with_isa(isa, cranelift_module::default_libcall_names());
        jit.symbol("call_system", asm::call_system_address() as *const u8);
        jit.symbol("switch_out", asm::switch_out_address() as *const u8);
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend([AbiParam::new(I64); 3]);
        signature.returns.push(AbiParam::new(I64));
        Compiler { module: JITModule::new(jit), signature, made: Vec::new() }
    }

    pub(crate) fn function(
        &mut self,
        name: &'static str,
        params: usize,
        build: impl FnOnce(&mut FunctionBuilder<'_>, &mut JITModule, &[Value], Calls),
    ) -> FuncId {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend(vec![AbiParam::new(I64); params]);
        signature.returns.push(AbiParam::new(I64));
        let id =
            self.module.declare_function(name, Linkage::Local, &signature).expect("a new function");
        let out = self
            .module
            .declare_function("call_system", Linkage::Import, &self.signature)
            .expect("an import");
        let mut context = self.module.make_context();
        context.func.signature = signature;
        let mut storage = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut context.func, &mut storage);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let values = b.block_params(entry).to_vec();
        let out = self.module.declare_func_in_func(out, b.func);
        build(&mut b, &mut self.module, &values, Calls { out });
        b.seal_all_blocks();
        let target = self.module.isa().frontend_config();
        b.finalize(target);
        self.module.define_function(id, &mut context).expect("correct code");
        let code = context.compiled_code().expect("just compiled");
        let maps = code.buffer.user_stack_maps().iter();
        let mut maps: Vec<(u32, u32, Vec<u32>)> = maps
            .map(|(at, size, map)| (*at, *size, map.entries().map(|(_, slot)| slot).collect()))
            .collect();
        // Calls over which nothing is live have no map, but are safepoints.
        let span = code.buffer.frame_layout().expect("a frame").frame_to_fp_offset;
        let mut pads = Vec::new();
        for site in code.buffer.call_sites() {
            for handler in site.exception_handlers {
                if let FinalizedMachExceptionHandler::Default(pad) = handler {
                    pads.push((site.ret_addr, *pad));
                }
            }
            if !maps.iter().any(|(at, ..)| *at == site.ret_addr) {
                maps.push((site.ret_addr, span, Vec::new()));
            }
        }
        let unwind = code
            .create_unwind_info(self.module.isa())
            .expect("unwind information")
            .expect("on this target");
        self.made.push(Made { id, name, len: code.code_buffer().len(), maps, pads, unwind });
        self.module.clear_context(&mut context);
        id
    }

    pub(crate) fn finish(mut self, entry: FuncId, code: &Code) -> Compiled {
        self.module.finalize_definitions().expect("memory for code");
        let mut table = gimli::write::FrameTable::default();
        let cie = table.add_cie(self.module.isa().create_systemv_cie().expect("System V"));
        let (mut functions, mut safepoints) = (Vec::new(), Vec::new());
        let mut landing_pads = HashMap::new();
        for made in &self.made {
            let start = self.module.get_finalized_function(made.id) as usize;
            let cranelift_codegen::isa::unwind::UnwindInfo::SystemV(info) = &made.unwind else {
                panic!("System V")
            };
            let mut entry = info.to_fde(gimli::write::Address::Constant(start as u64));
            // SAFETY: the function's code, in its final place, where it is readable as long as the
            // module lives.
            let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, made.len) };
            stack_map::cranelift::describe_epilogues(&mut entry, bytes);
            table.add_fde(cie, entry);
            functions.push(Function {
                name: made.name.into(),
                start,
                len: made.len,
                moves_return_address: false,
            });
            landing_pads.extend(
                made.pads.iter().map(|(at, pad)| (start + *at as usize, start + *pad as usize)),
            );
            for (at, size, slots) in &made.maps {
                safepoints.push(stack_map::cranelift::safepoint(
                    start,
                    *at,
                    *size,
                    slots.iter().copied(),
                ));
            }
        }
        let mut eh_frame = gimli::write::EhFrame(gimli::write::EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut eh_frame).expect("absolute addresses");
        let start = functions.iter().map(|f| f.start).min().expect("functions");
        let end = functions.iter().map(|f| f.start + f.len).max().expect("functions");
        code.register(Region {
            name: "test".into(),
            start,
            len: end - start,
            eh_frame: eh_frame.0.into_vec(),
            functions,
            safepoints,
            max_frame: Some(stackmark_stack::MAX_FRAME as u32),
            ..Region::default()
        })
        .expect("a correct region");
        Compiled {
            entry: self.module.get_finalized_function(entry) as usize,
            landing_pads,
            functions: self
                .made
                .iter()
                .map(|m| (m.name, self.module.get_finalized_function(m.id) as usize))
                .collect(),
            _module: Mutex::new(self.module),
        }
    }
}

/// The routines that managed code calls.
#[derive(Clone, Copy)]
pub(crate) struct Calls {
    out: cranelift_codegen::ir::FuncRef,
}

impl Calls {
    pub(crate) fn native(self, b: &mut FunctionBuilder<'_>, f: usize, x: Value, y: Value) -> Value {
        let f = b.ins().iconst(I64, f as i64);
        let call = b.ins().call(self.out, &[f, x, y]);
        b.inst_results(call)[0]
    }

    /// The stack check and poll of a prologue.
    pub(crate) fn poll(self, b: &mut FunctionBuilder<'_>) {
        let goroutine = b.ins().get_pinned_reg(I64);
        let sp = b.ins().get_stack_pointer(I64);
        let limit =
            b.ins().load(I64, MemFlagsData::trusted(), goroutine, layout::G_STACK_LIMIT as i32);
        let low = b.ins().icmp(IntCC::UnsignedLessThan, sp, limit);
        let (cold, body) = (b.create_block(), b.create_block());
        b.set_cold_block(cold);
        b.ins().brif(low, cold, &[], body, &[]);
        b.switch_to_block(cold);
        let zero = b.ins().iconst(I64, 0);
        self.native(b, stackmark_stack::poll as *const () as usize, zero, zero);
        b.ins().jump(body, &[]);
        b.switch_to_block(body);
    }
}

#[allow(dead_code, reason = "not every test is about recursion alone")]
/// Compiles and registers `rec`. With `pad`, each frame has so many bytes more.
pub(crate) fn compile(code: &Code, bottom: Bottom, pad: u32) -> Compiled {
    compile_entries(code, |compiler| recursion(compiler, bottom, pad, false))
}

/// The same; the goroutine yields before it calls out at the bottom, and after that.
#[allow(dead_code, reason = "not every test switches")]
pub(crate) fn compile_yielding(code: &Code, bottom: Bottom) -> Compiled {
    compile_entries(code, |compiler| recursion(compiler, bottom, 0, true))
}

fn compile_entries(code: &Code, recursion: impl FnOnce(&mut Compiler) -> FuncId) -> Compiled {
    let mut compiler = Compiler::new();
    let rec = recursion(&mut compiler);
    let entry = compiler.function("entry", 2, |b, module, params, calls| {
        let [goroutine, argument] = params[..] else { unreachable!("two parameters") };
        b.ins().set_pinned_reg(goroutine);
        b.declare_value_needs_stack_map(argument);
        calls.poll(b);
        let rec = module.declare_func_in_func(rec, b.func);
        let n = b.ins().load(I64, MemFlagsData::trusted(), argument, 0);
        let object = b.ins().load(I64, MemFlagsData::trusted(), argument, 8);
        let call = b.ins().call(rec, &[n, object]);
        let result = b.inst_results(call)[0];
        b.ins().store(MemFlagsData::trusted(), result, argument, 16);
        b.ins().return_(&[result]);
    });
    // For callbacks. The argument, outside of the goroutine's stack, points to `[n, object, result,
    // goroutine]`.
    compiler.function("back", 1, |b, module, params, calls| {
        let goroutine = b.ins().load(I64, MemFlagsData::trusted(), params[0], 24);
        b.ins().set_pinned_reg(goroutine);
        calls.poll(b);
        let rec = module.declare_func_in_func(rec, b.func);
        let n = b.ins().load(I64, MemFlagsData::trusted(), params[0], 0);
        let object = b.ins().load(I64, MemFlagsData::trusted(), params[0], 8);
        let call = b.ins().call(rec, &[n, object]);
        let result = b.inst_results(call)[0];
        b.ins().store(MemFlagsData::trusted(), result, params[0], 16);
        b.ins().return_(&[result]);
    });
    compiler.finish(entry, code)
}

/// The function `rec`.
pub(crate) fn recursion(compiler: &mut Compiler, bottom: Bottom, pad: u32, yields: bool) -> FuncId {
    compiler.function("rec", 2, |b, module, params, calls| {
        let [n, object] = params[..] else { unreachable!("two parameters") };
        b.declare_value_needs_stack_map(object);
        calls.poll(b);
        // An address in the own frame, live across the call: a move rewrites it.
        let slot =
            b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, 8 + pad, 3));
        let own = b.ins().stack_addr(I64, slot, 0);
        b.declare_value_needs_stack_map(own);
        b.ins().store(MemFlagsData::trusted(), n, own, 0);
        let (last, more) = (b.create_block(), b.create_block());
        b.ins().brif(n, more, &[], last, &[]);
        b.switch_to_block(last);
        let switch = yields.then(|| switch_out(b, module));
        let give_way = |b: &mut FunctionBuilder<'_>| {
            if let Some(switch) = switch {
                let value = b.ins().iconst(I64, stackmark_stack::YIELD as i64);
                b.ins().call(switch, &[value]);
            }
        };
        give_way(b);
        let result = calls.native(b, bottom as *const () as usize, object, n);
        give_way(b);
        b.ins().return_(&[result]);
        b.switch_to_block(more);
        let id =
            module.declare_function("rec", Linkage::Local, &b.func.signature).expect("declared");
        let this = module.declare_func_in_func(id, b.func);
        let less = b.ins().iadd_imm_s(n, -1);
        let call = b.ins().call(this, &[less, object]);
        let sum = b.inst_results(call)[0];
        let read = b.ins().load(I64, MemFlagsData::new(), object, 0);
        let sum = b.ins().iadd(sum, read);
        let kept = b.ins().load(I64, MemFlagsData::new(), own, 0);
        let sum = b.ins().iadd(sum, kept);
        b.ins().return_(&[sum]);
    })
}
