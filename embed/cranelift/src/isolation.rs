//! Code that is entered at a moment of which nothing is known but the frame's slots.
//!
//! After a recovered panic a function's way out runs with all registers unknown. It must not use
//! values that were computed elsewhere, also where only the optimiser has found them.

use cranelift_codegen::ir::{Block, Function, Opcode, Value, ValueDef};
use std::collections::HashSet;

use crate::error::CompileError;

/// The values that the code reached from `start` uses but does not compute. Constants don't count:
/// they are made anew at each use.
fn values_from_outside(func: &Function, start: Block) -> Vec<Value> {
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

/// Checks that the code reached from `start` uses no value from elsewhere.
///
/// # Errors
/// [`CompileError::NotIsolated`].
pub(crate) fn check(name: &str, func: &Function, start: Block) -> Result<(), CompileError> {
    let outside = values_from_outside(func, start);
    if outside.is_empty() {
        return Ok(());
    }
    Err(CompileError::NotIsolated {
        function: name.to_owned(),
        block: start.to_string(),
        values: format!("{outside:?}"),
    })
}
