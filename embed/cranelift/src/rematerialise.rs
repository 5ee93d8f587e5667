//! Keeps addresses of stack slots out of registers across calls.
//!
//! A goroutine's stack may move at any call; only slots in stack maps are adjusted. Cranelift's
//! frontend spills references around calls to slots, and makes a `stack_addr` for each access. The
//! optimiser merges those of one slot. Where the back end does not fold the address into its access
//! (`add reg, [slot]` is such a case in 0.135), the merged address stays in a callee-saved register
//! across the call, and the access goes to where the stack was. So after optimisation every use
//! gets an address of its own again, right before it.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    Function, Inst, InstBuilder, InstructionData, StackSlot, Value, ValueDef, types::I64,
};

/// Gives each use of a stack slot's address an instruction of its own. Called between
/// `Context::optimize` and a compilation that optimises no more.
pub fn rematerialise(func: &mut Function) {
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
