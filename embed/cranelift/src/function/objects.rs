//! Objects: allocation, loads, and stores by the write barrier.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types, types::I64};
use stackmark::mark_sweep::{AllocationSlot, Allocator, DescriptorId};
use stackmark::stack::asm::layout::{G_MACHINE_WORD, RESULT_WORDS};

use super::Function;
use crate::check::plain;
use crate::kind::Kind;
use crate::natives;

impl Function<'_> {
    /// A new object of `bytes` bytes, all 0, from the machine's allocator; inline where it has a
    /// cell at hand. If the heap is full, the goroutine waits for a collection; if that makes no
    /// room, the process ends by [`Host::fatal`](stackmark::stack::Host::fatal).
    pub fn allocate(&mut self, descriptor: DescriptorId, bytes: usize) -> Value {
        let size = self.int(bytes as i64);
        let number = self.int(i64::from(descriptor.index()));
        let Some((offset, cell)) = Allocator::slot_offset(descriptor, bytes) else {
            let object = self.native(natives::allocate, &[number, size]);
            return self.reference(object);
        };
        let goroutine = self.goroutine();
        // The machine's allocator, anew each time: the goroutine may have changed threads.
        let flags = MemFlagsData::trusted();
        let slots = self.ins().load(I64, plain(), goroutine, G_MACHINE_WORD as i32);
        let cursor = (offset + AllocationSlot::CURSOR) as i32;
        let first = self.ins().load(I64, plain(), slots, cursor);
        let next = self.ins().iadd_imm_s(first, cell as i64);
        let end = self.ins().load(I64, plain(), slots, (offset + AllocationSlot::END) as i32);
        let (bump, call, done) = (self.create_block(), self.create_block(), self.create_block());
        self.set_cold_block(call);
        let object = self.variable(Kind::Reference);
        let fits = self.ins().icmp(IntCC::UnsignedLessThanOrEqual, next, end);
        self.ins().brif(fits, bump, &[], call, &[]);
        self.switch_to_block(bump);
        self.ins().store(flags, next, slots, cursor);
        self.def_var(object, first);
        self.ins().jump(done, &[]);
        self.switch_to_block(call);
        let called = self.native(natives::allocate, &[number, size]);
        self.def_var(object, called);
        self.ins().jump(done, &[]);
        self.switch_to_block(done);
        self.use_var(object)
    }

    /// As [`Function::allocate`], of a size that the program computes.
    pub fn allocate_bytes(&mut self, descriptor: DescriptorId, bytes: Value) -> Value {
        let number = self.int(i64::from(descriptor.index()));
        let object = self.native(natives::allocate, &[number, bytes]);
        self.reference(object)
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
        self.ins().store(MemFlagsData::trusted(), value, object, offset);
    }

    /// Stores a reference into an object, by the write barrier.
    ///
    /// # Panics
    /// If the module was made without a barrier.
    pub fn store_reference(&mut self, value: Value, object: Value, offset: i32) {
        let barrier = self.declarations.barrier.expect("a module with a write barrier");
        let flag = self.int(barrier.flag as i64);
        let on = self.ins().load(types::I8, MemFlagsData::trusted(), flag, 0);
        let (cold, go_on) = (self.create_block(), self.create_block());
        self.set_cold_block(cold);
        self.ins().brif(on, cold, &[], go_on, &[]);
        self.switch_to_block(cold);
        let to = self.ins().iadd_imm_s(object, i64::from(offset));
        let to = self.reference(to);
        let native = if barrier.overwritten { natives::store_hybrid } else { natives::store };
        self.native(native, &[value, to]);
        self.ins().jump(go_on, &[]);
        self.switch_to_block(go_on);
        self.ins().store(MemFlagsData::trusted(), value, object, offset);
    }

    /// Keeps references alive up to here: for native code that was given them and may still read
    /// their objects.
    pub fn keep_alive(&mut self, references: &[Value]) {
        for reference in references {
            self.set_result_word(RESULT_WORDS - 1, *reference);
        }
    }
}
