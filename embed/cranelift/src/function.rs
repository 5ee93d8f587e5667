//! A function under construction: Cranelift's builder, and what the contracts ask for.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, Block, FuncRef, Inst, InstBuilder, MemFlagsData, StackSlot, Value, types::I64,
};
use cranelift_codegen::isa::TargetFrontendConfig;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use stackmark::stack::asm::layout::G_STACK_LIMIT;
use stackmark::stack::poll;
use std::ops::{Deref, DerefMut};

use crate::barrier::Barrier;
use crate::convention;
use crate::declarations::{Constants, Declarations, Declared};
use crate::error::CompileError;
use crate::identity::{FuncId, Identity};
use crate::kind::{Kind, Signature};
use crate::phis;
use crate::regions;

mod calls;
mod loops;
mod objects;
mod slots;
mod within;

/// How a function is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
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
///
/// `M` is [`Within`] its module and for the heap of an [`Engine`](crate::Engine), which
/// [`Module::define`](crate::Module::define) makes, or [`Apart`] from it.
pub struct Function<'f, M = Within<'f>> {
    builder: FunctionBuilder<'f>,
    name: String,
    signature: Signature,
    params: Vec<Value>,
    outside: Outside,
    /// Stack slots with references.
    mapped: Vec<Mapped>,
    /// The module that it belongs to.
    belongs_to: Identity,
    module: M,
}

/// A stack slot with references.
struct Mapped {
    /// What makes its address first. Its zeroing follows, without a call in between.
    made: Inst,
    slot: StackSlot,
    /// Offsets of the words that are references.
    words: Vec<u32>,
}

/// A function that has its module at hand.
pub struct Within<'f> {
    declarations: &'f mut Declarations,
}

/// A function that does not borrow its module: others may be declared and defined meanwhile.
#[derive(Debug)]
pub struct Apart;

/// What a function refers to outside of itself.
struct Outside {
    call_system: FuncRef,
    switch_out: Option<FuncRef>,
    barrier: Option<Barrier>,
    constants: Constants,
    frontend_config: TargetFrontendConfig,
}

impl std::fmt::Debug for Within<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Within").finish_non_exhaustive()
    }
}

impl<M> std::fmt::Debug for Function<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'f, M> Deref for Function<'f, M> {
    type Target = FunctionBuilder<'f>;

    fn deref(&self) -> &FunctionBuilder<'f> {
        &self.builder
    }
}

impl<M> DerefMut for Function<'_, M> {
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
    let mut func = declarations.empty(id);
    let mut context = FunctionBuilderContext::new();
    let mut f = Function::new(declarations, id, &mut func, &mut context).within(declarations);
    f.enter(start);
    body(&mut f)?;
    f.finish()?;
    Ok(func)
}

impl<'f> Function<'f, Apart> {
    /// For code of a declared function in `func`, an [empty](Declarations::empty) one.
    pub(crate) fn new(
        declarations: &mut Declarations,
        id: FuncId,
        func: &'f mut ir::Function,
        context: &'f mut FunctionBuilderContext,
    ) -> Function<'f, Apart> {
        let outside = Outside {
            call_system: declarations.call_system(func),
            switch_out: declarations.switch_out(func),
            barrier: declarations.barrier,
            constants: declarations.constants(func),
            frontend_config: declarations.frontend_config(),
        };
        let Declared { name, signature } = declarations.get(id);
        let mut builder = FunctionBuilder::new(func, context);
        regions::tell_apart(&mut builder);
        Function {
            builder,
            name: name.clone(),
            signature: signature.clone(),
            params: Vec::new(),
            outside,
            mapped: Vec::new(),
            belongs_to: declarations.module,
            module: Apart,
        }
    }

    fn within(self, declarations: &'f mut Declarations) -> Function<'f> {
        let Function { builder, name, signature, params, outside, mapped, belongs_to, .. } = self;
        let module = Within { declarations };
        Function { builder, name, signature, params, outside, mapped, belongs_to, module }
    }
}

impl<M> Function<'_, M> {
    /// Makes the entry block, with the pinned register and the prologue's check of the stack. The
    /// parameters that are references are [declared](Function::reference).
    ///
    /// # Panics
    /// If the first parameter is not as `start` says.
    pub fn enter(&mut self, start: Start) {
        let places = match start {
            Start::Managed => (0..self.signature.params().len()).collect(),
            Start::Goroutine | Start::Callback => {
                let native = self.outside.frontend_config.default_call_conv;
                convention::enter(native, &mut self.builder.func.signature)
            }
        };
        let entry = self.create_block();
        self.append_block_params_for_function_params(entry);
        self.switch_to_block(entry);
        let params = self.block_params(entry);
        self.params = places.into_iter().map(|place: usize| params[place]).collect();
        match start {
            Start::Managed => {}
            Start::Goroutine => {
                let goroutine = self.params[0];
                self.ins().set_pinned_reg(goroutine);
            }
            Start::Callback => {
                let block = self.params[0];
                let goroutine = self.ins().load(I64, MemFlagsData::trusted(), block, 0);
                self.ins().set_pinned_reg(goroutine);
            }
        }
        for (index, kind) in self.signature.params().to_vec().into_iter().enumerate() {
            if kind.is_reference() {
                self.reference(self.params[index]);
            }
        }
        // What a goroutine starts with has room, and its callee makes the check.
        if start != Start::Goroutine {
            self.check_stack();
        }
    }

    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The function's signature.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

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

    /// The parameters, however many there are.
    pub fn all_params(&self) -> &[Value] {
        &self.params
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

    /// An address of the process that code is compiled for: of a native function, of a static, of
    /// memory that stays in its place. In a module that is [linked](crate::Module::linked) it is a
    /// word that the program finds at its begin.
    pub fn address(&mut self, address: usize) -> Value {
        self.outside.constants.value(&mut self.builder, address)
    }

    /// The goroutine's header.
    pub fn goroutine(&mut self) -> Value {
        self.ins().get_pinned_reg(I64)
    }

    /// The check of the prologue: makes room for frames, and answers requests.
    fn check_stack(&mut self) {
        let goroutine = self.goroutine();
        // The one read of the stack pointer; it is dead after the comparison.
        let sp = self.ins().get_stack_pointer(I64);
        let at = G_STACK_LIMIT as i32;
        let limit = self.ins().load(I64, MemFlagsData::trusted(), goroutine, at);
        let low = self.ins().icmp(IntCC::UnsignedLessThan, sp, limit);
        self.poll_if(low);
    }

    /// Polls, for loops and behind calls that may be a part of a recursion: collections and other
    /// goroutines wait for a loop without calls, and for all returns of a recursion.
    pub fn poll(&mut self) {
        let goroutine = self.goroutine();
        let at = self.ins().iadd_imm_s(goroutine, G_STACK_LIMIT as i64);
        // Atomic: the compiler must not take an earlier load for this one.
        let limit = self.ins().atomic_load(I64, MemFlagsData::trusted(), at);
        let asked = self.ins().icmp_imm_s(IntCC::Equal, limit, -1);
        self.poll_if(asked);
    }

    fn poll_if(&mut self, condition: Value) {
        let (cold, go_on) = (self.create_block(), self.create_block());
        self.set_cold_block(cold);
        self.ins().brif(condition, cold, &[], go_on, &[]);
        self.switch_to_block(cold);
        let zero = self.int(0);
        self.call_system(poll, zero, zero);
        self.ins().jump(go_on, &[]);
        self.switch_to_block(go_on);
    }

    pub(crate) fn belongs_to(&self) -> Identity {
        self.belongs_to
    }

    /// Ends the function: seals its blocks and completes its stack maps.
    ///
    /// # Errors
    /// [`CompileError::Uninitialised`], [`CompileError::Unfilled`].
    pub fn finish(mut self) -> Result<(), CompileError> {
        if let Some(block) = self.unfilled() {
            let (function, block) = (self.name.clone(), block.to_string());
            return Err(CompileError::Unfilled { function, block });
        }
        self.builder.seal_all_blocks();
        self.map_slots()?;
        phis::remove(self.builder.func).map_err(|error| CompileError::Cranelift {
            function: self.name.clone(),
            error: error.to_string(),
        })?;
        self.builder.finalize(self.outside.frontend_config);
        Ok(())
    }

    /// A block that code goes on to and that nothing leaves.
    fn unfilled(&self) -> Option<Block> {
        let func = &*self.builder.func;
        let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
        let next = insts.flat_map(|inst| {
            let (tables, exceptions) = (&func.dfg.jump_tables, &func.dfg.exception_tables);
            let calls = func.dfg.insts[inst].branch_destination(tables, exceptions);
            calls.iter().map(|call| call.block(&func.dfg.value_lists)).collect::<Vec<_>>()
        });
        let mut blocks = func.layout.blocks().chain(next);
        let is_left = |block| {
            let last = func.layout.last_inst(block);
            last.is_some_and(|inst| func.dfg.insts[inst].opcode().is_terminator())
        };
        blocks.find(|block| !is_left(*block))
    }
}
