//! Tells the optimiser which memory accesses cannot meet.
//!
//! Cranelift's frontend spills a reference that lives across a call to a slot, and loads it again
//! at each use. A store between two uses may go anywhere, as far as the optimiser knows, so the
//! second use loads again. But the address of such a slot is known to nothing else in the function:
//! only a call, where a collector may write it, changes what is there. So each slot is a region of
//! its own, and all other memory is one more. One load behind each call is then enough, and none
//! before the first.

use cranelift_codegen::ir::{
    AliasRegion, AliasRegionData, AliasRegionSet, Function, Inst, InstructionData, MemFlags,
    StackSlot,
};
use cranelift_frontend::FunctionBuilder;

/// The number of the first region of these; behind it come those of the slots. An embedder that
/// names regions itself numbers them from 0 on.
const FIRST: u32 = 1 << 31;

/// How many regions there are for slots. Each kind of access takes one of Cranelift's 65,535 sets
/// of flags, so functions with more slots share regions.
const SLOTS: u32 = 1 << 12;

/// Gives each slot that references are spilled to a region, when the function is finished.
pub(crate) fn tell_apart(builder: &mut FunctionBuilder<'_>) {
    builder.make_stack_map_alias_region(Box::new(|regions, _, slot, _| Some(of(regions, slot))));
}

fn of(regions: &mut AliasRegionSet, slot: StackSlot) -> AliasRegion {
    let user_id = FIRST + 1 + slot.as_u32() % SLOTS;
    regions.insert(AliasRegionData { user_id, description: "spilled references".into() })
}

/// Whether these are the flags of an access to a slot of [`tell_apart`].
pub(crate) fn is_spilled(func: &Function, flags: MemFlags) -> bool {
    let region = func.dfg.mem_flags[flags].alias_region();
    region.is_some_and(|region| func.dfg.alias_regions[region].user_id > FIRST)
}

/// Puts all memory that is in no region into one. Called before the optimiser runs, of a function
/// that is finished. Without slots of [`tell_apart`] nothing changes, and neither does it if the
/// embedder names regions: what it leaves out may be the memory of any of them.
pub(crate) fn gather(func: &mut Function) {
    let (mut loose, mut spills) = (Vec::new(), false);
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            let opcode = func.dfg.insts[inst].opcode();
            // Some have flags that only say how bytes are ordered.
            let accesses = opcode.can_load() || opcode.can_store();
            let flags = func.dfg.insts[inst].memflags().filter(|_| accesses);
            let Some(flags) = flags else { continue };
            match func.dfg.mem_flags[flags] {
                data if data.alias_region().is_none() => loose.push((inst, data)),
                _ if is_spilled(func, flags) => spills = true,
                _ => return,
            }
        }
    }
    if !spills {
        return;
    }
    let data = AliasRegionData { user_id: FIRST, description: "memory".into() };
    let memory = func.dfg.alias_regions.insert(data);
    let flags = &mut func.dfg.mem_flags;
    // All or none: what is left out would count as memory that no store of the others changes.
    let gathered: Option<Vec<(Inst, MemFlags)>> = loose
        .into_iter()
        .map(|(inst, old)| Some((inst, flags.insert(old.with_alias_region(Some(memory))).ok()?)))
        .collect();
    for (inst, flags) in gathered.unwrap_or_default() {
        put(&mut func.dfg.insts[inst], flags);
    }
}

/// `InstructionData::memflags_mut` of Cranelift 0.135.
fn put(inst: &mut InstructionData, new: MemFlags) {
    if let InstructionData::Load { flags, .. }
    | InstructionData::LoadNoOffset { flags, .. }
    | InstructionData::Store { flags, .. }
    | InstructionData::StoreNoOffset { flags, .. }
    | InstructionData::AtomicCas { flags, .. }
    | InstructionData::AtomicRmw { flags, .. } = inst
    {
        *flags = new;
    }
}

#[cfg(test)]
mod tests {
    use super::{gather, tell_apart};
    use cranelift_codegen::ir::{
        AbiParam, AliasRegionData, Function, InstBuilder, MemFlagsData, Signature,
        types::{F64, I64},
    };
    use cranelift_codegen::isa::CallConv;
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
    use std::collections::BTreeSet;

    /// The regions of a function that spills a reference, and loads from it by these flags.
    fn regions(flags: impl Fn(&mut Function) -> MemFlagsData) -> BTreeSet<Option<u32>> {
        let mut func = Function::new();
        func.signature = Signature::new(CallConv::SystemV);
        func.signature.params.push(AbiParam::new(I64));
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut func, &mut context);
        tell_apart(&mut b);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let object = b.block_params(entry)[0];
        b.declare_value_needs_stack_map(object);
        let signature = b.import_signature(Signature::new(CallConv::SystemV));
        let callee = b.ins().iconst(I64, 64);
        b.ins().call_indirect(signature, callee, &[]);
        let flags = flags(b.func);
        let word = b.ins().load(I64, flags, object, 8);
        b.ins().bitcast(F64, MemFlagsData::new(), word);
        b.ins().store(MemFlagsData::trusted(), word, object, 16);
        b.ins().return_(&[]);
        b.seal_all_blocks();
        let isa = crate::flags::isa("none").expect("this machine");
        b.finalize(isa.frontend_config());
        gather(&mut func);
        cranelift_codegen::verify_function(&func, &*isa).expect("correct");
        let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
        let flags = insts.filter_map(|inst| func.dfg.insts[inst].memflags());
        flags
            .map(|flags| func.dfg.mem_flags[flags].alias_region())
            .map(|region| region.map(|region| func.dfg.alias_regions[region].user_id))
            .collect()
    }

    #[test]
    fn what_is_not_spilled_is_one_region() {
        let found = regions(|_| MemFlagsData::trusted());
        // The cast accesses no memory.
        assert_eq!(found, [None, Some(super::FIRST), Some(super::FIRST + 1)].into());
    }

    #[test]
    fn an_embedder_that_names_regions_keeps_what_has_none() {
        let found = regions(|func| {
            let data = AliasRegionData { user_id: 7, description: "a field".into() };
            let region = func.dfg.alias_regions.insert(data);
            MemFlagsData::trusted().with_alias_region(Some(region))
        });
        assert_eq!(found, [None, Some(7), Some(super::FIRST + 1)].into());
    }
}
