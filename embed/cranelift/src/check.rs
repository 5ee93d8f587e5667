//! The check of optimised code: no reference and no address of the stack lives across a call
//! outside of a mapped slot.
//!
//! It runs behind the frontend's spilling and the optimiser, so it sees the [traced](crate::trace)
//! values that the back end will keep in registers.

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{Block, Function, Inst, Value, ValueDef};
use std::collections::HashSet;

use crate::error::CompileError;
use crate::trace::{Traced, What, tests_for_null, trace};

/// Checks optimised code.
///
/// # Errors
/// [`CompileError::Held`].
pub(crate) fn check(name: &str, func: &Function) -> Result<(), CompileError> {
    let traced = trace(func);
    let live = live_at_ends(func, &traced);
    for block in func.layout.blocks() {
        let mut live = live[block].clone();
        for inst in func.layout.block_insts(block).collect::<Vec<_>>().into_iter().rev() {
            for result in func.dfg.inst_results(inst) {
                live.remove(result);
            }
            let data = &func.dfg.insts[inst];
            if data.opcode().is_call() {
                // What a call with a landing pad hands to the blocks behind it.
                let behind = data
                    .branch_destination(&func.dfg.jump_tables, &func.dfg.exception_tables)
                    .iter()
                    .flat_map(|call| call.args(&func.dfg.value_lists))
                    .filter_map(|arg| arg.as_value())
                    .map(|value| func.dfg.resolve_aliases(value));
                live.extend(behind.filter(|value| traced[*value] != What::Other));
                if let Some(&value) = live.iter().min() {
                    return Err(CompileError::Held {
                        function: name.to_owned(),
                        value: shown(func, value),
                        what: match traced[value] {
                            What::Stack => "an address in the stack",
                            _ => "a reference",
                        },
                        call: func.dfg.display_inst(inst).to_string(),
                    });
                }
            }
            use_values(func, inst, &traced, &mut live);
        }
    }
    Ok(())
}

/// The value with the instruction that makes it.
fn shown(func: &Function, value: Value) -> String {
    match func.dfg.value_def(value) {
        ValueDef::Result(inst, _) => format!("{value}, made by `{}`,", func.dfg.display_inst(inst)),
        ValueDef::Param(block, _) => format!("{value}, a parameter of {block},"),
        ValueDef::Union(..) => value.to_string(),
    }
}

/// The traced values that are used behind the end of each block.
fn live_at_ends(func: &Function, traced: &Traced) -> SecondaryMap<Block, HashSet<Value>> {
    let mut at_start: SecondaryMap<Block, HashSet<Value>> = SecondaryMap::new();
    let mut at_end: SecondaryMap<Block, HashSet<Value>> = SecondaryMap::new();
    let blocks: Vec<Block> = func.layout.blocks().collect();
    let mut dirty: HashSet<Block> = blocks.iter().copied().collect();
    while !dirty.is_empty() {
        for &block in blocks.iter().rev() {
            if !dirty.remove(&block) {
                continue;
            }
            let mut live: HashSet<Value> = func
                .block_successors(block)
                .flat_map(|next| at_start[next].iter().copied().collect::<Vec<_>>())
                .collect();
            at_end[block] = live.clone();
            for inst in func.layout.block_insts(block).collect::<Vec<_>>().into_iter().rev() {
                for result in func.dfg.inst_results(inst) {
                    live.remove(result);
                }
                use_values(func, inst, traced, &mut live);
            }
            for param in func.dfg.block_params(block) {
                live.remove(param);
            }
            if live != at_start[block] {
                at_start[block] = live;
                for &other in &blocks {
                    if func.block_successors(other).any(|next| next == block) {
                        dirty.insert(other);
                    }
                }
            }
        }
    }
    at_end
}

/// Adds the traced values that the instruction uses.
fn use_values(func: &Function, inst: Inst, traced: &Traced, live: &mut HashSet<Value>) {
    let tested = tests_for_null(func, inst);
    let used = func.dfg.inst_values(inst).enumerate();
    let used = used.filter(|(index, _)| Some(*index) != tested);
    let used = used.map(|(_, value)| func.dfg.resolve_aliases(value));
    live.extend(used.filter(|value| traced[*value] != What::Other));
}
