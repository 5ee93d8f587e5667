//! The managed code: one function for each layout of a frame, which does what a native function
//! tells it to.
//!
//! A function asks `fresh` for the references that it holds, then asks `step` for its next action,
//! again and again, and after each action shows everything that it holds to `check`. All values are
//! live at every call.

use cranelift_codegen::ir::{
    AbiParam, FuncRef, InstBuilder, MemFlagsData, Signature, StackSlotData, StackSlotKind, Value,
    condcodes::IntCC, types::I64,
};
use cranelift_codegen::isa::{CallConv, unwind::UnwindInfo};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module};
use stackmark_stack::asm::layout::{G_STACK_LIMIT, NativeFn};
use stackmark_stack::unwind::{Function, Region, stack_map};
use stackmark_stack::{MAX_FRAME, asm, poll};

/// A layout of a frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// References held.
    pub(crate) references: usize,
    /// Bytes of an array in the frame, to which the frame has a pointer.
    pub(crate) array: u32,
}

/// The layouts. The index is the function's number.
pub(crate) const LAYOUTS: [Layout; 8] = [
    Layout { references: 0, array: 8 },
    Layout { references: 1, array: 8 },
    Layout { references: 2, array: 32 },
    Layout { references: 3, array: 104 },
    Layout { references: 5, array: 8 },
    Layout { references: 8, array: 200 },
    Layout { references: 13, array: 16 },
    Layout { references: 4, array: 640 },
];

/// What `step` answers.
pub(crate) mod action {
    /// Return.
    pub(crate) const RETURN: usize = 0;
    /// Poll.
    pub(crate) const POLL: usize = 1;
    /// Ask for the first reference anew.
    pub(crate) const REPLACE: usize = 2;
    /// Do nothing.
    pub(crate) const NOTHING: usize = 3;
    /// Call the function of the layout `action - CALL`.
    pub(crate) const CALL: usize = 4;
}

/// The native functions behind the managed ones.
#[derive(Clone, Copy)]
pub(crate) struct Natives {
    /// `(_, layout)`: a frame begins.
    pub(crate) begin: NativeFn,
    /// `(layout, index)`: the reference to hold.
    pub(crate) fresh: NativeFn,
    /// `(_, layout)`: the next action.
    pub(crate) step: NativeFn,
    /// `(word, index)`: what the frame holds there. The index after the last reference is the word
    /// in the array, the one after that is what a callee has returned.
    pub(crate) check: NativeFn,
    /// `(_, layout)`: what to return.
    pub(crate) leave: NativeFn,
}

/// The compiled functions.
pub(crate) struct Compiled {
    module: JITModule,
    made: Vec<Made>,
    /// `entry(goroutine, layout)`, for a goroutine to begin with.
    pub(crate) entry: usize,
    /// `callback(goroutine)`, for native code to call: runs a function of the second layout.
    pub(crate) callback: usize,
}

struct Made {
    id: FuncId,
    name: String,
    len: usize,
    /// Return offset, span, slots.
    maps: Vec<(u32, u32, Vec<u32>)>,
    unwind: UnwindInfo,
}

struct Compiler {
    module: JITModule,
    made: Vec<Made>,
}

/// The call out to native code.
#[derive(Clone, Copy)]
struct CallSystem(FuncRef);

impl CallSystem {
    fn call(self, b: &mut FunctionBuilder<'_>, native: usize, x: Value, y: Value) -> Value {
        let native = b.ins().iconst(I64, native as i64);
        let call = b.ins().call(self.0, &[native, x, y]);
        b.inst_results(call)[0]
    }

    /// The check of the stack in a prologue.
    fn prologue(self, b: &mut FunctionBuilder<'_>) {
        let goroutine = b.ins().get_pinned_reg(I64);
        let sp = b.ins().get_stack_pointer(I64);
        let limit = b.ins().load(I64, MemFlagsData::trusted(), goroutine, G_STACK_LIMIT as i32);
        let low = b.ins().icmp(IntCC::UnsignedLessThan, sp, limit);
        let (cold, body) = (b.create_block(), b.create_block());
        b.set_cold_block(cold);
        b.ins().brif(low, cold, &[], body, &[]);
        b.switch_to_block(cold);
        let zero = b.ins().iconst(I64, 0);
        self.call(b, poll as *const () as usize, zero, zero);
        b.ins().jump(body, &[]);
        b.switch_to_block(body);
    }
}

fn signature(params: usize) -> Signature {
    let mut signature = Signature::new(CallConv::SystemV);
    signature.params.extend(vec![AbiParam::new(I64); params]);
    signature.returns.push(AbiParam::new(I64));
    signature
}

impl Compiler {
    fn new() -> Self {
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
        Compiler { module: JITModule::new(jit), made: Vec::new() }
    }

    fn declare(&mut self, name: &str, params: usize) -> FuncId {
        self.module.declare_function(name, Linkage::Local, &signature(params)).expect("a function")
    }

    fn define(
        &mut self,
        id: FuncId,
        name: &str,
        params: usize,
        callees: &[FuncId],
        build: impl FnOnce(&mut FunctionBuilder<'_>, &[Value], CallSystem, &[FuncRef]),
    ) {
        let call_system = self
            .module
            .declare_function("call_system", Linkage::Import, &signature(3))
            .expect("an import");
        let mut context = self.module.make_context();
        context.func.signature = signature(params);
        let mut storage = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut context.func, &mut storage);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let values = b.block_params(entry).to_vec();
        let call_system = CallSystem(self.module.declare_func_in_func(call_system, b.func));
        let callees: Vec<FuncRef> = callees
            .iter()
            .map(|&callee| self.module.declare_func_in_func(callee, b.func))
            .collect();
        build(&mut b, &values, call_system, &callees);
        b.seal_all_blocks();
        let target = self.module.isa().frontend_config();
        b.finalize(target);
        self.module.define_function(id, &mut context).expect("correct code");
        let code = context.compiled_code().expect("just compiled");
        let maps = code.buffer.user_stack_maps().iter();
        let mut maps: Vec<(u32, u32, Vec<u32>)> = maps
            .map(|(at, span, map)| (*at, *span, map.entries().map(|(_, slot)| slot).collect()))
            .collect();
        // Calls over which nothing is live have no map, but are safepoints.
        let span = code.buffer.frame_layout().expect("a frame").frame_to_fp_offset;
        for site in code.buffer.call_sites() {
            if !maps.iter().any(|(at, ..)| *at == site.ret_addr) {
                maps.push((site.ret_addr, span, Vec::new()));
            }
        }
        let unwind = code
            .create_unwind_info(self.module.isa())
            .expect("unwind information")
            .expect("on this target");
        self.made.push(Made {
            id,
            name: name.to_owned(),
            len: code.code_buffer().len(),
            maps,
            unwind,
        });
        self.module.clear_context(&mut context);
    }
}

/// The function of one layout.
fn body(
    b: &mut FunctionBuilder<'_>,
    number: usize,
    call_system: CallSystem,
    functions: &[FuncRef],
    natives: Natives,
) {
    let Layout { references, array } = LAYOUTS[number];
    call_system.prologue(b);
    // The address of the array is taken once, and every access goes through the one declared value.
    let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, array, 3));
    let array_address = b.ins().stack_addr(I64, slot, 0);
    b.declare_value_needs_stack_map(array_address);
    let last = array as i32 - 8;
    let layout = b.ins().iconst(I64, number as i64);
    call_system.call(b, natives.begin as *const () as usize, layout, layout);
    let held: Vec<Variable> = (0..references)
        .map(|index| {
            let variable = b.declare_var(I64);
            b.declare_var_needs_stack_map(variable);
            let index = b.ins().iconst(I64, index as i64);
            let word = call_system.call(b, natives.fresh as *const () as usize, layout, index);
            b.def_var(variable, word);
            variable
        })
        .collect();
    let index = b.ins().iconst(I64, references as i64);
    let word = call_system.call(b, natives.fresh as *const () as usize, layout, index);
    b.ins().store(MemFlagsData::trusted(), word, array_address, last);

    let (again, done) = (b.create_block(), b.create_block());
    b.ins().jump(again, &[]);
    b.switch_to_block(again);
    let check = |b: &mut FunctionBuilder<'_>, word: Value, index: usize| {
        let index = b.ins().iconst(I64, index as i64);
        call_system.call(b, natives.check as *const () as usize, word, index);
    };
    for (index, &variable) in held.iter().enumerate() {
        let word = b.use_var(variable);
        check(b, word, index);
    }
    let word = b.ins().load(I64, MemFlagsData::trusted(), array_address, last);
    check(b, word, references);
    let next = call_system.call(b, natives.step as *const () as usize, layout, layout);

    let case = |b: &mut FunctionBuilder<'_>, answer: usize| {
        let (yes, no) = (b.create_block(), b.create_block());
        let is = b.ins().icmp_imm_s(IntCC::Equal, next, answer as i64);
        b.ins().brif(is, yes, &[], no, &[]);
        b.switch_to_block(yes);
        no
    };
    let no = case(b, action::RETURN);
    b.ins().jump(done, &[]);
    b.switch_to_block(no);
    let no = case(b, action::POLL);
    let zero = b.ins().iconst(I64, 0);
    call_system.call(b, poll as *const () as usize, zero, zero);
    b.ins().jump(again, &[]);
    b.switch_to_block(no);
    let no = case(b, action::REPLACE);
    if let Some(&variable) = held.first() {
        let zero = b.ins().iconst(I64, 0);
        let word = call_system.call(b, natives.fresh as *const () as usize, layout, zero);
        b.def_var(variable, word);
    }
    b.ins().jump(again, &[]);
    b.switch_to_block(no);
    for (callee, &function) in functions.iter().enumerate() {
        let no = case(b, action::CALL + callee);
        let call = b.ins().call(function, &[]);
        let result = b.inst_results(call)[0];
        check(b, result, references + 1);
        b.ins().jump(again, &[]);
        b.switch_to_block(no);
    }
    b.ins().jump(again, &[]);
    b.switch_to_block(done);
    let result = call_system.call(b, natives.leave as *const () as usize, layout, layout);
    b.ins().return_(&[result]);
}

impl Compiled {
    /// Compiles the functions of all layouts.
    pub(crate) fn new(natives: Natives) -> Compiled {
        let mut compiler = Compiler::new();
        let names: Vec<String> =
            (0..LAYOUTS.len()).map(|number| format!("layout_{number}")).collect();
        let functions: Vec<FuncId> = names.iter().map(|name| compiler.declare(name, 0)).collect();
        for (number, name) in names.iter().enumerate() {
            compiler.define(
                functions[number],
                name,
                0,
                &functions,
                |b, _, call_system, callees| {
                    body(b, number, call_system, callees, natives);
                },
            );
        }
        let entry = compiler.declare("entry", 2);
        compiler.define(entry, "entry", 2, &functions[..1], |b, params, call_system, callees| {
            b.ins().set_pinned_reg(params[0]);
            call_system.prologue(b);
            let call = b.ins().call(callees[0], &[]);
            let result = b.inst_results(call)[0];
            b.ins().return_(&[result]);
        });
        let callback = compiler.declare("callback", 1);
        compiler.define(
            callback,
            "callback",
            1,
            &functions[1..2],
            |b, params, call_system, callees| {
                b.ins().set_pinned_reg(params[0]);
                call_system.prologue(b);
                let call = b.ins().call(callees[0], &[]);
                let result = b.inst_results(call)[0];
                b.ins().return_(&[result]);
            },
        );
        let Compiler { mut module, made } = compiler;
        module.finalize_definitions().expect("memory for code");
        let address = |id| module.get_finalized_function(id) as usize;
        Compiled { entry: address(entry), callback: address(callback), module, made }
    }

    /// The region to register.
    pub(crate) fn region(&self) -> Region {
        let mut table = gimli::write::FrameTable::default();
        let cie = table.add_cie(self.module.isa().create_systemv_cie().expect("System V"));
        let (mut functions, mut safepoints) = (Vec::new(), Vec::new());
        for made in &self.made {
            let start = self.module.get_finalized_function(made.id) as usize;
            let UnwindInfo::SystemV(info) = &made.unwind else { panic!("not System V") };
            table.add_fde(cie, info.to_fde(gimli::write::Address::Constant(start as u64)));
            let name = made.name.as_str().into();
            functions.push(Function { name, start, len: made.len, moves_return_address: false });
            for (at, span, slots) in &made.maps {
                safepoints.push(stack_map::cranelift::safepoint(
                    start,
                    *at,
                    *span,
                    slots.iter().copied(),
                ));
            }
        }
        let mut eh_frame = gimli::write::EhFrame(gimli::write::EndianVec::new(gimli::LittleEndian));
        table.write_eh_frame(&mut eh_frame).expect("absolute addresses");
        let start = functions.iter().map(|f| f.start).min().expect("functions");
        let end = functions.iter().map(|f| f.start + f.len).max().expect("functions");
        Region {
            name: "layouts".into(),
            start,
            len: end - start,
            eh_frame: eh_frame.0.into_vec(),
            functions,
            safepoints,
            max_frame: Some(MAX_FRAME as u32),
            ..Region::default()
        }
    }
}
