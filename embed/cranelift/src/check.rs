//! The check of optimised code: no reference and no address of the stack lives across a call
//! outside of a mapped slot.
//!
//! It runs behind the frontend's spilling and the optimiser, so it sees the values that the back
//! end will keep in registers. A value is *traced* if it is a reference or an address of the stack:
//!
//! - the address of a stack slot, or the stack pointer;
//! - what is loaded from a slot that some call's stack map names;
//! - a parameter of the function, or a result of a function of the module, that is a reference;
//! - a word that is loaded through a reference, unless it was loaded as a
//!   [plain](crate::Function::load_plain) one;
//! - a sum, a difference or a selection with a traced operand;
//! - a parameter of a block that gets a traced value.
//!
//! A plain load says so by an explicit byte order, the target's own: it changes no code.

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block, BlockArg, Endianness, ExternalName, Function, Inst, InstructionData, MemFlags,
    MemFlagsData, Opcode, StackSlot, Value, ValueDef, types::I64,
};
use std::collections::HashSet;

use crate::error::CompileError;
use crate::kind::{Kind, Signature};

/// What a traced value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum What {
    #[default]
    Other,
    /// A reference, or derived from one.
    Reference,
    /// An address in the stack.
    Stack,
}

/// Checks optimised code. `own` is the function's signature. `signature` knows those of the
/// module's functions by their numbers.
///
/// # Errors
/// [`CompileError::Held`].
pub(crate) fn check(
    name: &str,
    func: &Function,
    own: &Signature,
    signature: &dyn Fn(u32) -> Option<Signature>,
) -> Result<(), CompileError> {
    let traced = trace(func, own, signature);
    let live = live_at_ends(func, &traced);
    for block in func.layout.blocks() {
        let mut live = live[block].clone();
        for inst in func.layout.block_insts(block).collect::<Vec<_>>().into_iter().rev() {
            for result in func.dfg.inst_results(inst) {
                live.remove(result);
            }
            if func.dfg.insts[inst].opcode().is_call()
                && let Some(&value) = live.iter().min()
            {
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

/// What each value is. Grows until nothing changes: loops pass values around.
fn trace(
    func: &Function,
    own: &Signature,
    signature: &dyn Fn(u32) -> Option<Signature>,
) -> SecondaryMap<Value, What> {
    let mapped = mapped_words(func);
    let mut traced: SecondaryMap<Value, What> = SecondaryMap::new();
    if let Some(entry) = func.layout.entry_block() {
        for (param, kind) in func.dfg.block_params(entry).iter().zip(own.params()) {
            if kind.is_reference() {
                traced[*param] = What::Reference;
            }
        }
    }
    for inst in func.layout.blocks().flat_map(|block| func.layout.block_insts(block)) {
        let InstructionData::Call { func_ref, .. } = func.dfg.insts[inst] else { continue };
        let ExternalName::User(name) = func.dfg.ext_funcs[func_ref].name else { continue };
        let number = func.params.user_named_funcs()[name].index;
        let results = signature(number).map(|signature| signature.in_registers().collect());
        let results: Vec<Kind> = results.unwrap_or_default();
        for (result, kind) in func.dfg.inst_results(inst).iter().zip(results) {
            if kind.is_reference() {
                traced[*result] = What::Reference;
            }
        }
    }
    loop {
        let mut changed = false;
        let mut note = |traced: &mut SecondaryMap<Value, What>, value: Value, what: What| {
            if what != What::Other && traced[value] == What::Other {
                traced[value] = what;
                changed = true;
            }
        };
        for block in func.layout.blocks() {
            for inst in func.layout.block_insts(block) {
                if let Some(&result) = func.dfg.inst_results(inst).first() {
                    let what = made_by(func, inst, &mapped, &traced);
                    note(&mut traced, result, what);
                }
                for call in func.dfg.insts[inst]
                    .branch_destination(&func.dfg.jump_tables, &func.dfg.exception_tables)
                {
                    let params = func.dfg.block_params(call.block(&func.dfg.value_lists));
                    for (arg, param) in call.args(&func.dfg.value_lists).zip(params) {
                        if let BlockArg::Value(arg) = arg {
                            let what = traced[func.dfg.resolve_aliases(arg)];
                            note(&mut traced, *param, what);
                        }
                    }
                }
            }
        }
        if !changed {
            return traced;
        }
    }
}

/// The words of slots that some stack map names.
fn mapped_words(func: &Function) -> HashSet<(StackSlot, i32)> {
    let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
    insts
        .filter_map(|inst| func.dfg.user_stack_map_entries(inst))
        .flatten()
        .map(|entry| (entry.slot, entry.offset as i32))
        .collect()
}

fn made_by(
    func: &Function,
    inst: Inst,
    mapped: &HashSet<(StackSlot, i32)>,
    traced: &SecondaryMap<Value, What>,
) -> What {
    let of = |value: Value| traced[func.dfg.resolve_aliases(value)];
    let data = &func.dfg.insts[inst];
    match (data.opcode(), data) {
        (Opcode::StackAddr | Opcode::GetStackPointer | Opcode::GetFramePointer, _) => What::Stack,
        (Opcode::Load, InstructionData::Load { arg, flags, offset, .. }) => {
            let address = func.dfg.resolve_aliases(*arg);
            let word = match func.dfg.value_def(address).inst().map(|inst| func.dfg.insts[inst]) {
                Some(InstructionData::StackAddr { stack_slot, offset: from, .. }) => {
                    Some((stack_slot, i32::from(from) + i32::from(*offset)))
                }
                _ => None,
            };
            let is_word = func.dfg.value_type(func.dfg.first_result(inst)) == I64;
            let is_reference = match word {
                Some(word) => mapped.contains(&word),
                None => of(address) == What::Reference && !is_plain(func, *flags),
            };
            if is_word && is_reference { What::Reference } else { What::Other }
        }
        (
            Opcode::Iadd
            | Opcode::Isub
            | Opcode::Select
            | Opcode::SelectSpectreGuard
            | Opcode::Bitcast
            | Opcode::Band
            | Opcode::Bor,
            _,
        ) => {
            let args = func.dfg.inst_args(inst);
            let whats: Vec<What> = args.iter().map(|arg| of(*arg)).collect();
            // A difference of two addresses is none.
            if data.opcode() == Opcode::Isub && whats.iter().all(|what| *what != What::Other) {
                return What::Other;
            }
            // A bit mask of an address may be a test of it.
            if data.opcode() == Opcode::Band {
                return What::Other;
            }
            whats.into_iter().find(|what| *what != What::Other).unwrap_or_default()
        }
        _ => What::Other,
    }
}

/// The flags of a load of a word that is no reference.
pub(crate) fn plain() -> MemFlagsData {
    MemFlagsData::trusted().with_endianness(Endianness::Little)
}

fn is_plain(func: &Function, flags: MemFlags) -> bool {
    func.dfg.mem_flags[flags].explicit_endianness().is_some()
}

/// The traced values that are used behind the end of each block.
fn live_at_ends(
    func: &Function,
    traced: &SecondaryMap<Value, What>,
) -> SecondaryMap<Block, HashSet<Value>> {
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
fn use_values(
    func: &Function,
    inst: Inst,
    traced: &SecondaryMap<Value, What>,
    live: &mut HashSet<Value>,
) {
    let tested = tests_for_null(func, inst);
    let used = func.dfg.inst_values(inst).enumerate();
    let used = used.filter(|(index, _)| Some(*index) != tested);
    let used = used.map(|(_, value)| func.dfg.resolve_aliases(value));
    live.extend(used.filter(|value| traced[*value] != What::Other));
}

/// The index of the operand that the instruction compares with 0 and does nothing else with. The
/// optimiser, and the back end, make such tests where their results are used, which may be behind a
/// call. An address is not 0 wherever its object or its frame has gone meanwhile.
fn tests_for_null(func: &Function, inst: Inst) -> Option<usize> {
    let is_zero = |value: Value| {
        let made = func.dfg.value_def(func.dfg.resolve_aliases(value)).inst();
        made.is_some_and(|inst| match func.dfg.insts[inst] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => imm.bits() == 0,
            _ => false,
        })
    };
    match func.dfg.insts[inst] {
        InstructionData::IntCompare { cond: IntCC::Equal | IntCC::NotEqual, args, .. } => {
            match args.map(is_zero) {
                [_, true] => Some(0),
                [true, _] => Some(1),
                _ => None,
            }
        }
        // What is chosen by a reference is chosen by whether it is 0.
        InstructionData::Brif { .. } | InstructionData::Ternary { opcode: Opcode::Select, .. } => {
            Some(0)
        }
        _ => None,
    }
}
