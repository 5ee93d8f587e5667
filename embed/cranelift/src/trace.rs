//! Which values of a function are references and addresses of the stack.
//!
//! A value is *traced* if it is one of these:
//!
//! - the address of a stack slot, or the stack pointer;
//! - what is loaded from a slot that some call's stack map names;
//! - a parameter of the function, or a result of a call, that is a reference of a
//!   [`Signature`](crate::Signature), whose references ask for an extension;
//! - the reference that a landing pad gets;
//! - a word that is loaded through a reference, or from the goroutine's result words, unless it was
//!   loaded as a [plain](crate::Function::load_plain) one;
//! - a sum, a difference or a selection with a traced operand;
//! - a parameter of a block that gets a traced value.
//!
//! A plain load says so by an explicit byte order, the target's own: it changes no code.

use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    BlockArg, Endianness, Function, Inst, InstructionData, MemFlags, MemFlagsData, Opcode,
    Signature, StackSlot, Value, types::I64,
};
use stackmark::stack::asm::layout::{G_RESULTS, RESULT_WORDS};
use std::collections::HashSet;

use crate::kind::is_reference;

/// What a traced value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum What {
    #[default]
    Other,
    /// A reference, or derived from one.
    Reference,
    /// An address in the stack.
    Stack,
}

/// What each value is.
pub(crate) type Traced = SecondaryMap<Value, What>;

/// What each value is. Grows until nothing changes: loops pass values around.
pub(crate) fn trace(func: &Function) -> Traced {
    let mapped = mapped_words(func);
    let mut traced = Traced::new();
    if let Some(entry) = func.layout.entry_block() {
        for (param, abi) in func.dfg.block_params(entry).iter().zip(&func.signature.params) {
            if is_reference(abi) {
                traced[*param] = What::Reference;
            }
        }
    }
    let insts: Vec<Inst> =
        func.layout.blocks().flat_map(|block| func.layout.block_insts(block)).collect();
    for &inst in &insts {
        let Some(signature) = called(func, inst) else { continue };
        for (result, abi) in func.dfg.inst_results(inst).iter().zip(&signature.returns) {
            if is_reference(abi) {
                traced[*result] = What::Reference;
            }
        }
    }
    loop {
        let mut changed = false;
        let mut note = |traced: &mut Traced, value: Value, what: What| {
            if what != What::Other && traced[value] == What::Other {
                traced[value] = what;
                changed = true;
            }
        };
        for &inst in &insts {
            if let Some(&result) = func.dfg.inst_results(inst).first() {
                let what = made_by(func, inst, &mapped, &traced);
                note(&mut traced, result, what);
            }
            let returns = called(func, inst).map(|signature| &signature.returns);
            for call in func.dfg.insts[inst]
                .branch_destination(&func.dfg.jump_tables, &func.dfg.exception_tables)
            {
                let params = func.dfg.block_params(call.block(&func.dfg.value_lists));
                for (arg, param) in call.args(&func.dfg.value_lists).zip(params) {
                    let what = match arg {
                        BlockArg::Value(arg) => traced[func.dfg.resolve_aliases(arg)],
                        BlockArg::TryCallRet(at) => {
                            let abi = returns.and_then(|returns| returns.get(at as usize));
                            reference_if(abi.is_some_and(is_reference))
                        }
                        // What is raised is a plain word and a reference.
                        BlockArg::TryCallExn(at) => reference_if(at == 1),
                    };
                    note(&mut traced, *param, what);
                }
            }
        }
        if !changed {
            return traced;
        }
    }
}

fn reference_if(is: bool) -> What {
    if is { What::Reference } else { What::Other }
}

/// The signature of what a call calls.
fn called(func: &Function, inst: Inst) -> Option<&Signature> {
    let signature = match func.dfg.insts[inst] {
        InstructionData::Call { func_ref, .. } => func.dfg.ext_funcs[func_ref].signature,
        InstructionData::CallIndirect { sig_ref, .. } => sig_ref,
        InstructionData::TryCall { exception, .. }
        | InstructionData::TryCallIndirect { exception, .. } => {
            func.dfg.exception_tables[exception].signature()
        }
        _ => return None,
    };
    Some(&func.dfg.signatures[signature])
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
    traced: &Traced,
) -> What {
    let of = |value: Value| traced[func.dfg.resolve_aliases(value)];
    let data = &func.dfg.insts[inst];
    match (data.opcode(), data) {
        (Opcode::StackAddr | Opcode::GetStackPointer | Opcode::GetFramePointer, _) => What::Stack,
        (Opcode::Load, InstructionData::Load { arg, flags, offset, .. }) => {
            let address = func.dfg.resolve_aliases(*arg);
            let made = func.dfg.value_def(address).inst().map(|inst| func.dfg.insts[inst]);
            let is_reference = match made {
                Some(InstructionData::StackAddr { stack_slot, offset: from, .. }) => {
                    mapped.contains(&(stack_slot, i32::from(from) + i32::from(*offset)))
                }
                Some(made) if made.opcode() == Opcode::GetPinnedReg => {
                    let results = G_RESULTS as i32..(G_RESULTS + 8 * RESULT_WORDS) as i32;
                    results.contains(&i32::from(*offset)) && !is_plain(func, *flags)
                }
                _ => of(address) == What::Reference && !is_plain(func, *flags),
            };
            let is_word = func.dfg.value_type(func.dfg.first_result(inst)) == I64;
            reference_if(is_word && is_reference)
        }
        (opcode, _) if derives(opcode) => {
            let args = func.dfg.inst_args(inst);
            // The condition of a selection is not what comes out.
            let condition = matches!(opcode, Opcode::Select | Opcode::SelectSpectreGuard);
            let whats = || args.iter().skip(usize::from(condition)).map(|arg| of(*arg));
            // A difference of two addresses is none.
            if opcode == Opcode::Isub && whats().all(|what| what != What::Other) {
                return What::Other;
            }
            // Also of both: what is not moved with the stack is what counts.
            match whats().find(|what| *what == What::Reference) {
                Some(reference) => reference,
                None => whats().find(|what| *what == What::Stack).unwrap_or_default(),
            }
        }
        _ => What::Other,
    }
}

/// Whether what comes out is an address if an operand is. A bit mask of an address may be a test of
/// it.
pub(crate) fn derives(opcode: Opcode) -> bool {
    matches!(
        opcode,
        Opcode::Iadd
            | Opcode::Isub
            | Opcode::Select
            | Opcode::SelectSpectreGuard
            | Opcode::Bitcast
            | Opcode::Bor
    )
}

/// The flags of a load of a word that is no reference.
pub(crate) fn plain() -> MemFlagsData {
    MemFlagsData::trusted().with_endianness(Endianness::Little)
}

fn is_plain(func: &Function, flags: MemFlags) -> bool {
    func.dfg.mem_flags[flags].explicit_endianness().is_some()
}

/// The index of the operand that the instruction compares with 0 and does nothing else with. The
/// optimiser, and the back end, make such tests where their results are used, which may be behind a
/// call. An address is not 0 wherever its object or its frame has gone meanwhile.
pub(crate) fn tests_for_null(func: &Function, inst: Inst) -> Option<usize> {
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
