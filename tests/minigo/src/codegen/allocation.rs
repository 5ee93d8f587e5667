//! Allocation in line: the next cell of the thread's allocator, or a call when it has none left.

use super::function::FuncGen;
use crate::runtime::typeinfo::TypeInfo;
use crate::runtime::{host, natives};
use crate::types::Ty;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    InstBuilder, InstructionData, MemFlagsData, Opcode, Value, types as clif,
};
use stackmark::mark_sweep::AllocationSlot;
use stackmark_asm::layout::G_MACHINE_WORD;

impl FuncGen<'_, '_> {
    /// A new, zeroed object for one value of type `t`.
    pub(crate) fn allocate(&mut self, t: Ty) -> Value {
        let info = self.c.types.info(t);
        self.allocate_values(info, 1)
    }

    /// A new, zeroed object for so many values of the type that `info` describes.
    pub(crate) fn allocate_values(&mut self, info: &'static TypeInfo, count: usize) -> Value {
        if info.size == 0 || count == 0 {
            return self.address(natives::zero_size_address());
        }
        let bytes = info.size.checked_mul(count);
        let Some((offset, cell)) =
            bytes.and_then(|bytes| host::allocation_slot(info.descriptor, bytes))
        else {
            let count = self.iconst(count as i64);
            return self.allocate_out_of_line(info, count);
        };
        let g = self.goroutine();
        // The machine's allocator, anew each time: the goroutine may have come to another thread.
        let slots = self.b.ins().load(clif::I64, MemFlagsData::trusted(), g, G_MACHINE_WORD as i32);
        let (cursor, end) =
            ((offset + AllocationSlot::CURSOR) as i32, (offset + AllocationSlot::END) as i32);
        let first = self.b.ins().load(clif::I64, MemFlagsData::trusted(), slots, cursor);
        let next = self.b.ins().iadd_imm_s(first, cell as i64);
        let end = self.b.ins().load(clif::I64, MemFlagsData::trusted(), slots, end);
        let (bump, call, done) =
            (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(call);
        let object = self.ref_var();
        let fits = self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, next, end);
        self.b.ins().brif(fits, bump, &[], call, &[]);
        self.b.switch_to_block(bump);
        self.b.ins().store(MemFlagsData::trusted(), next, slots, cursor);
        self.b.def_var(object, first);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(call);
        let count = self.iconst(count as i64);
        let called = self.allocate_out_of_line(info, count);
        self.b.def_var(object, called);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
        self.b.use_var(object)
    }

    /// As [`FuncGen::allocate_values`], for a number that the program computes.
    pub(crate) fn allocate_counted(&mut self, info: &'static TypeInfo, count: Value) -> Value {
        let constant = self.b.func.dfg.value_def(count).inst().and_then(|inst| {
            match self.b.func.dfg.insts[inst] {
                InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => {
                    usize::try_from(imm.bits()).ok()
                }
                _ => None,
            }
        });
        match constant {
            Some(count) => self.allocate_values(info, count),
            None => self.allocate_out_of_line(info, count),
        }
    }

    fn allocate_out_of_line(&mut self, info: &'static TypeInfo, count: Value) -> Value {
        let info = self.address(std::ptr::from_ref(info) as usize);
        let object = self.native(natives::allocate, &[info, count]);
        self.refv(object)
    }
}
