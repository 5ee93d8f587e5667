//! Objects: inline allocation, loads and stores, and when stores are reported.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types, types::I64};
use stackmark::mark_sweep::{AllocationSlot, Allocator, DescriptorId};
use stackmark::stack::asm::layout::G_MACHINE_WORD;

use super::Function;
use crate::barrier::Barrier;
use crate::kind::Kind;
use crate::trace::plain;

impl<M> Function<'_, M> {
    /// A new object of `bytes` bytes, all 0: the next cell of the machine's allocator, whose
    /// [slots](Allocator::slots_address) are what the runtime's host gave for the machine. `call`
    /// makes the object where the allocator has no cell at hand, and objects that are too large for
    /// one. What it returns is declared here.
    pub fn allocate_inline(
        &mut self,
        descriptor: DescriptorId,
        bytes: usize,
        call: impl FnOnce(&mut Self) -> Value,
    ) -> Value {
        let Some((offset, cell)) = Allocator::slot_offset(descriptor, bytes) else {
            let object = call(self);
            return self.reference(object);
        };
        let goroutine = self.goroutine();
        // The machine's allocator, anew each time: the goroutine may have changed threads.
        let slots = self.ins().load(I64, plain(), goroutine, G_MACHINE_WORD as i32);
        let cursor = (offset + AllocationSlot::CURSOR) as i32;
        let first = self.ins().load(I64, plain(), slots, cursor);
        let next = self.ins().iadd_imm_s(first, cell as i64);
        let end = self.ins().load(I64, plain(), slots, (offset + AllocationSlot::END) as i32);
        let (bump, cold, done) = (self.create_block(), self.create_block(), self.create_block());
        self.set_cold_block(cold);
        let object = self.variable(Kind::Reference);
        let fits = self.ins().icmp(IntCC::UnsignedLessThanOrEqual, next, end);
        self.ins().brif(fits, bump, &[], cold, &[]);
        self.switch_to_block(bump);
        self.ins().store(MemFlagsData::trusted(), next, slots, cursor);
        self.def_var(object, first);
        self.ins().jump(done, &[]);
        self.switch_to_block(cold);
        let called = call(self);
        self.def_var(object, called);
        self.ins().jump(done, &[]);
        self.switch_to_block(done);
        self.use_var(object)
    }

    /// Loads a value of this kind.
    pub fn load(&mut self, kind: Kind, object: Value, offset: i32) -> Value {
        match kind {
            Kind::Reference => self.load_reference(object, offset),
            Kind::Plain(of) => self.load_plain(of, object, offset),
        }
    }

    /// Loads a reference from an object.
    pub fn load_reference(&mut self, object: Value, offset: i32) -> Value {
        let value = self.ins().load(I64, MemFlagsData::trusted(), object, offset);
        self.reference(value)
    }

    /// Loads a value that is no reference from an object.
    pub fn load_plain(&mut self, of: Type, object: Value, offset: i32) -> Value {
        self.ins().load(of, plain(), object, offset)
    }

    /// Stores a value that is no reference, also into an object that holds references elsewhere.
    pub fn store_plain(&mut self, value: Value, object: Value, offset: i32) {
        // As it is loaded: the two may become one instruction.
        self.ins().store(plain(), value, object, offset);
    }

    /// Stores a value of this kind where references need no report: in the own frame, or where they
    /// have been [reported](Function::if_reported).
    pub fn store_unreported(&mut self, kind: Kind, value: Value, object: Value, offset: i32) {
        match kind {
            Kind::Reference => {
                self.ins().store(MemFlagsData::trusted(), value, object, offset);
            }
            Kind::Plain(_) => self.store_plain(value, object, offset),
        }
    }

    /// Runs `report` where stores of references must be reported. It calls native functions, which
    /// get what is about to be stored, where, and what is overwritten if the
    /// [barrier](Function::barrier) asks for that.
    ///
    /// # Panics
    /// If the module was made without a barrier.
    pub fn if_reported(&mut self, report: impl FnOnce(&mut Self)) {
        let barrier = self.barrier();
        let flag = self.address(barrier.flag());
        let on = self.ins().load(types::I8, MemFlagsData::trusted(), flag, 0);
        let (cold, go_on) = (self.create_block(), self.create_block());
        self.set_cold_block(cold);
        self.ins().brif(on, cold, &[], go_on, &[]);
        self.switch_to_block(cold);
        report(self);
        self.ins().jump(go_on, &[]);
        self.switch_to_block(go_on);
    }

    /// The write barrier that references are stored by.
    ///
    /// # Panics
    /// If the module was made without a barrier.
    pub fn barrier(&self) -> Barrier {
        self.outside.barrier.expect("a module with a write barrier")
    }
}
