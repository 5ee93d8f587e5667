//! What a function does with its module, and in an engine: calls of the module's functions, also
//! with landing pads; foreign calls; allocation, and stores by the write barrier.

use cranelift_codegen::ir::{Block, InstBuilder, TrapCode, Value, types::I64};
use stackmark::mark_sweep::DescriptorId;

use super::{Function, Within};
use crate::error::CompileError;
use crate::identity::FuncId;
use crate::kind::REF;
use crate::natives;

impl<'f> Function<'f, Within<'f>> {
    /// Calls a managed function of the module. Returns its results.
    ///
    /// # Errors
    /// [`CompileError::Arity`], [`CompileError::OtherModule`].
    pub fn call(&mut self, callee: FuncId, args: &[Value]) -> Result<Vec<Value>, CompileError> {
        let callee = self.module.declarations.callee(callee, self.builder.func)?;
        self.call_declared(&callee, args)
    }

    /// As [`Function::call`]; an exception that leaves the callee goes on in `landing`, whose two
    /// parameters, made here, are the words that were [raised](Function::raise). The first is
    /// plain, the second a reference.
    ///
    /// # Errors
    /// [`CompileError::Arity`], [`CompileError::OtherModule`].
    pub fn try_call(
        &mut self,
        callee: FuncId,
        args: &[Value],
        landing: Block,
    ) -> Result<Vec<Value>, CompileError> {
        let callee = self.module.declarations.callee(callee, self.builder.func)?;
        self.try_call_declared(&callee, args, landing)
    }

    /// The address of a managed function of the module, as
    /// [`call_indirect`](crate::Function::call_indirect) takes it.
    ///
    /// # Errors
    /// [`CompileError::OtherModule`].
    pub fn address_of(&mut self, function: FuncId) -> Result<Value, CompileError> {
        let callee = self.module.declarations.callee(function, self.builder.func)?;
        Ok(self.ins().func_addr(I64, callee.reference))
    }

    /// Calls the C function at `address`, which may wait, call back and take long, with up to six
    /// integers or addresses outside of the heap, as a foreign call. Returns its result and errno,
    /// on Windows the last error.
    ///
    /// # Panics
    /// With more than six arguments.
    pub fn foreign(&mut self, address: Value, args: &[Value]) -> (Value, Value) {
        assert!(args.len() <= natives::FOREIGN_ARGUMENTS, "{} arguments of C", args.len());
        let count = self.int(args.len() as i64);
        let words: Vec<Value> = [address, count].iter().chain(args).copied().collect();
        let result = self.native(natives::foreign, &words);
        (result, self.result_word(0, I64))
    }

    /// Leaves frames for the youngest [landing pad](Function::try_call), with a plain word and a
    /// reference. Without a landing pad the process ends by
    /// [`Host::fatal`](stackmark::stack::Host::fatal). The block is filled.
    pub fn raise(&mut self, word: Value, reference: Value) {
        self.native(natives::raise, &[word, reference]);
        self.ins().trap(TrapCode::unwrap_user(1));
    }

    /// A new object of `bytes` bytes, all 0, from the machine's allocator; inline where it has a
    /// cell at hand. If the heap is full, the goroutine waits for a collection; if that makes no
    /// room, the process ends by [`Host::fatal`](stackmark::stack::Host::fatal).
    pub fn allocate(&mut self, descriptor: DescriptorId, bytes: usize) -> Value {
        self.allocate_inline(descriptor, bytes, |f| {
            let number = f.int(i64::from(descriptor.index()));
            let size = f.int(bytes as i64);
            f.native(natives::allocate, &[number, size])
        })
    }

    /// As [`Function::allocate`], of a size that the program computes.
    pub fn allocate_bytes(&mut self, descriptor: DescriptorId, bytes: Value) -> Value {
        let number = self.int(i64::from(descriptor.index()));
        let object = self.native(natives::allocate, &[number, bytes]);
        self.reference(object)
    }

    /// Stores a reference into an object, by the write barrier.
    ///
    /// # Panics
    /// If the module was made without a barrier.
    pub fn store_reference(&mut self, value: Value, object: Value, offset: i32) {
        let overwritten = self.barrier().reports_overwritten();
        self.if_reported(|f| {
            let to = f.ins().iadd_imm_s(object, i64::from(offset));
            let to = f.reference(to);
            let native = if overwritten { natives::store_hybrid } else { natives::store };
            f.native(native, &[value, to]);
        });
        self.store_unreported(REF, value, object, offset);
    }
}
