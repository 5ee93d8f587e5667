//! Allocation in line: the next cell of the thread's allocator, or a call when it has none left.

use super::function::FuncGen;
use crate::runtime::typeinfo::TypeInfo;
use crate::runtime::{host, natives};
use crate::types::Ty;
use cranelift_codegen::ir::{InstructionData, Opcode, Value};
use stackmark::mark_sweep::DescriptorId;

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
        let bytes = info.size.checked_mul(count).filter(|_| host::allocates_inline());
        let Some(bytes) = bytes else {
            let count = self.b.int(count as i64);
            return self.allocate_out_of_line(info, count);
        };
        let descriptor = DescriptorId::from_index(info.descriptor as u32);
        self.b.allocate_inline(descriptor, bytes, |b| {
            let info = b.address(std::ptr::from_ref(info) as usize);
            let count = b.int(count as i64);
            b.native(natives::allocate, &[info, count])
        })
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
        let object = self.b.native(natives::allocate, &[info, count]);
        self.b.reference(object)
    }
}
