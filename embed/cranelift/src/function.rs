//! A function under construction: Cranelift's builder, and what the contracts ask for.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, Inst, InstBuilder, MemFlagsData, StackSlotData, StackSlotKind, UserStackMapEntry, Value,
    types::I64,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_module::FuncId;
use stackmark::stack::asm::layout::{G_STACK_LIMIT, NativeFn};
use stackmark::stack::{YIELD, poll};
use std::ops::{Deref, DerefMut};

use crate::declarations::{Declarations, Declared};
use crate::error::CompileError;
use crate::kind::{Kind, Signature};

mod calls;
mod objects;

/// How a function is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// By managed code.
    Managed,
    /// By a goroutine's start: the first parameter is the goroutine.
    Goroutine,
    /// By native code that calls back: the first parameter is the address of a word that holds the
    /// goroutine.
    Callback,
}

/// A function under construction. It derefs to Cranelift's builder, with which embedders make all
/// code that has nothing to do with stacks and references. Blocks are sealed at the end.
///
/// Its methods keep the contracts: what they return as a reference, and what they load as one, is
/// in the stack map of every call that it lives across.
pub struct Function<'f> {
    builder: FunctionBuilder<'f>,
    declarations: &'f mut Declarations,
    name: String,
    signature: Signature,
    params: Vec<Value>,
    /// The poll of the prologue: slots with references are not zeroed yet.
    prologue_poll: Option<Inst>,
    /// Words of stack slots that hold references.
    mapped: Vec<UserStackMapEntry>,
}

impl std::fmt::Debug for Function<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'f> Deref for Function<'f> {
    type Target = FunctionBuilder<'f>;

    fn deref(&self) -> &FunctionBuilder<'f> {
        &self.builder
    }
}

impl DerefMut for Function<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.builder
    }
}

/// Makes a declared function: its entry, its prologue's check, its body.
///
/// # Errors
/// Those of `body`.
pub(crate) fn build(
    declarations: &mut Declarations,
    id: FuncId,
    start: Start,
    body: impl FnOnce(&mut Function<'_>) -> Result<(), CompileError>,
) -> Result<ir::Function, CompileError> {
    let Declared { name, signature } = declarations.get(id);
    let (name, signature) = (name.clone(), signature.clone());
    let mut func = declarations.empty(id);
    let mut context = FunctionBuilderContext::new();
    let mut builder = FunctionBuilder::new(&mut func, &mut context);
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    let params = builder.block_params(entry).to_vec();
    let mut f = Function {
        builder,
        declarations,
        name,
        signature: signature.clone(),
        params,
        prologue_poll: None,
        mapped: Vec::new(),
    };
    let goroutine = match start {
        Start::Managed => None,
        Start::Goroutine => Some(f.params[0]),
        Start::Callback => {
            let block = f.params[0];
            Some(f.ins().load(I64, MemFlagsData::trusted(), block, 0))
        }
    };
    if let Some(goroutine) = goroutine {
        f.ins().set_pinned_reg(goroutine);
    }
    for (param, kind) in f.params.clone().into_iter().zip(signature.params()) {
        if kind.is_reference() {
            f.reference(param);
        }
    }
    f.check_stack();
    body(&mut f)?;
    f.finish();
    Ok(func)
}

impl<'f> Function<'f> {
    /// The `index`th parameter.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn param(&self, index: usize) -> Value {
        self.params[index]
    }

    /// The parameters.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn params<const N: usize>(&self) -> [Value; N] {
        self.params[..].try_into().expect("as many parameters as the function has")
    }

    /// Declares that a value is a reference, an address within an object, or an address in the
    /// stack: it is in the stack map of every call that it lives across, and a move of the stack
    /// adjusts it.
    pub fn reference(&mut self, value: Value) -> Value {
        self.builder.declare_value_needs_stack_map(value);
        value
    }

    /// A variable of this kind.
    pub fn variable(&mut self, kind: Kind) -> Variable {
        let variable = self.builder.declare_var(kind.clif());
        if kind.is_reference() {
            self.builder.declare_var_needs_stack_map(variable);
        }
        variable
    }

    /// A constant.
    pub fn int(&mut self, value: i64) -> Value {
        self.ins().iconst(I64, value)
    }

    /// The goroutine's header.
    pub fn goroutine(&mut self) -> Value {
        self.ins().get_pinned_reg(I64)
    }

    /// The address of a stack slot of so many words, all 0, of which some are references. The
    /// slot's references are roots at every call from here on.
    ///
    /// # Panics
    /// Behind a call: its stack map would name the slot before it is zeroed.
    pub fn slot(&mut self, references: &[bool]) -> Value {
        let calls = self.calls().len();
        assert!(calls <= 1, "{}: slots are made before the first call", self.name);
        let bytes = (references.len() * 8) as u32;
        let slot = self.builder.create_sized_stack_slot(StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            bytes,
            3,
        ));
        let zero = self.int(0);
        for at in (0..bytes).step_by(8) {
            let address = self.ins().stack_addr(I64, slot, 0);
            self.ins().store(MemFlagsData::trusted(), zero, address, at as i32);
        }
        let words = references.iter().enumerate().filter(|(_, is_reference)| **is_reference);
        self.mapped.extend(words.map(|(i, _)| UserStackMapEntry {
            ty: I64,
            slot,
            offset: 8 * i as u32,
        }));
        let address = self.ins().stack_addr(I64, slot, 0);
        self.reference(address)
    }

    /// The check of the prologue: makes room for frames, and answers requests.
    fn check_stack(&mut self) {
        let goroutine = self.goroutine();
        // The one read of the stack pointer; it is dead after the comparison.
        let sp = self.ins().get_stack_pointer(I64);
        let at = G_STACK_LIMIT as i32;
        let limit = self.ins().load(I64, MemFlagsData::trusted(), goroutine, at);
        let low = self.ins().icmp(IntCC::UnsignedLessThan, sp, limit);
        let call = self.poll_if(low);
        self.prologue_poll = Some(call);
    }

    /// Polls, for loops: collections and other goroutines wait for a loop without calls.
    pub fn poll(&mut self) {
        let goroutine = self.goroutine();
        let at = self.ins().iadd_imm_s(goroutine, G_STACK_LIMIT as i64);
        // Atomic: the compiler must not take an earlier load for this one.
        let limit = self.ins().atomic_load(I64, MemFlagsData::trusted(), at);
        let asked = self.ins().icmp_imm_s(IntCC::Equal, limit, -1);
        self.poll_if(asked);
    }

    fn poll_if(&mut self, condition: Value) -> Inst {
        let (cold, go_on) = (self.create_block(), self.create_block());
        self.set_cold_block(cold);
        self.ins().brif(condition, cold, &[], go_on, &[]);
        self.switch_to_block(cold);
        let zero = self.int(0);
        let call = self.call_system(poll, zero, zero);
        self.ins().jump(go_on, &[]);
        self.switch_to_block(go_on);
        call
    }

    fn call_system(&mut self, native: NativeFn, a: Value, b: Value) -> Inst {
        let callee = self.declarations.call_system(self.builder.func);
        let native = self.int(native as *const () as i64);
        self.ins().call(callee, &[native, a, b])
    }

    /// Lets other goroutines run, if there is a scheduler.
    pub fn yield_now(&mut self) {
        let callee = self.declarations.switch_out(self.builder.func);
        let value = self.int(YIELD as i64);
        self.ins().call(callee, &[value]);
    }

    fn calls(&self) -> Vec<Inst> {
        let func = &self.builder.func;
        let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
        insts.filter(|inst| func.dfg.insts[*inst].opcode().is_call()).collect()
    }

    fn finish(mut self) {
        // Every reference word of a slot is a root at every call behind its zeroing.
        let prologue_poll = self.prologue_poll;
        for call in self.calls().into_iter().filter(|call| Some(*call) != prologue_poll) {
            for entry in &self.mapped {
                self.builder.func.dfg.append_user_stack_map_entry(call, entry.clone());
            }
        }
        self.builder.seal_all_blocks();
        self.builder.finalize(self.declarations.frontend_config());
    }
}
