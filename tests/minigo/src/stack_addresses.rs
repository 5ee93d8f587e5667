//! Keeps addresses of stack slots out of registers across calls.
//!
//! A goroutine's stack may move at any call; only slots in stack maps are adjusted. Cranelift's
//! frontend spills references around calls to slots, and makes a `stack_addr` for each access. The
//! optimiser merges those of one slot. Where the back end does not fold the address into its access
//! (`add reg, [slot]` is such a case in 0.135), the merged address stays in a callee-saved register
//! across the call, and the access goes to where the stack was. So after optimisation every use
//! gets an address of its own again, right before it.
//!
//! After a recovered panic a function's way out runs with all registers unknown. It must not use
//! values that the optimiser has found elsewhere: that is checked here.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    Block, Function, Inst, InstBuilder, InstructionData, Opcode, StackSlot, Value, ValueDef,
    types::I64,
};
use std::collections::HashSet;

/// Gives each use of a stack slot's address an instruction of its own.
pub(crate) fn rematerialise(func: &mut Function) {
    let insts: Vec<Inst> = func.layout.blocks().flat_map(|b| func.layout.block_insts(b)).collect();
    for inst in insts {
        let slots: Vec<Option<(StackSlot, i32)>> =
            func.dfg.inst_values(inst).map(|v| slot_address(func, v)).collect();
        if slots.iter().all(Option::is_none) {
            continue;
        }
        let old: Vec<Value> = func.dfg.inst_values(inst).collect();
        let mut cursor = FuncCursor::new(func).at_inst(inst);
        let new: Vec<Value> = slots
            .iter()
            .zip(old)
            .map(|(slot, old)| match slot {
                Some((slot, offset)) => cursor.ins().stack_addr(I64, *slot, *offset),
                None => old,
            })
            .collect();
        func.dfg.overwrite_inst_values(inst, new.into_iter());
    }
}

/// The slot and the offset, if `v` is a stack slot's address.
fn slot_address(func: &Function, v: Value) -> Option<(StackSlot, i32)> {
    let ValueDef::Result(inst, _) = func.dfg.value_def(func.dfg.resolve_aliases(v)) else {
        return None;
    };
    match func.dfg.insts[inst] {
        InstructionData::StackAddr { stack_slot, offset, .. } => Some((stack_slot, offset.into())),
        _ => None,
    }
}

/// The values that the code reached from `start` uses but does not compute. Constants don't count:
/// they are made anew at each use.
pub(crate) fn values_from_outside(func: &Function, start: Block) -> Vec<Value> {
    let mut region = HashSet::new();
    let mut list = vec![start];
    while let Some(block) = list.pop() {
        if region.insert(block) {
            list.extend(func.block_successors(block));
        }
    }
    let inside = |v: Value| match func.dfg.value_def(func.dfg.resolve_aliases(v)) {
        ValueDef::Result(inst, _) => {
            matches!(
                func.dfg.insts[inst].opcode(),
                Opcode::Iconst | Opcode::F32const | Opcode::F64const
            ) || func.layout.inst_block(inst).is_some_and(|b| region.contains(&b))
        }
        ValueDef::Param(block, _) => region.contains(&block),
        ValueDef::Union(..) => false,
    };
    let insts = region.iter().flat_map(|b| func.layout.block_insts(*b));
    insts.flat_map(|i| func.dfg.inst_values(i)).filter(|v| !inside(*v)).collect()
}
