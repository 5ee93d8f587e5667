//! Loads again only what may have changed.
//!
//! Cranelift's frontend loads a reference that lives across a call at each use. Between two calls
//! the slot has the same reference all the time: whatever the function knows to be there is used
//! instead. With other memory it is the same until the next store. The optimiser finds some of
//! these loads, but none behind a block with two ways in, and there is one behind each poll. Nor
//! does it drop a load whose result is not used.

use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::{
    Block, Function, Inst, InstructionData, Opcode, StackSlot, Type, Value,
};
use std::collections::HashMap;

use crate::regions::is_spilled;

/// A piece of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    /// What the frontend has spilled.
    Slot(StackSlot, Type),
    /// So many bytes from an address, loaded in this way.
    At(Value, i32, Opcode, Type),
}

/// What each place is known to hold. Others may hold anything.
type Known = HashMap<Place, Value>;

/// How often all blocks are looked through, with what has changed before taken into account. Each
/// level of nested loops takes one more. What has not settled by then counts as not known.
const ROUNDS: usize = 8;

/// How often loads are merged: what was loaded from two addresses that are one is so only then.
const DEPTH: usize = 4;

/// Replaces loads of what is known, and leaves out stores of what is there. Called before the
/// optimiser runs, of a function that is finished.
pub(crate) fn merge(func: &mut Function) {
    let cfg = ControlFlowGraph::with_function(func);
    let dominators = DominatorTree::with_function(func, &cfg);
    let order: Vec<Block> = dominators.cfg_rpo().copied().collect();
    for _ in 0..DEPTH {
        if !merge_once(func, &cfg, &order) {
            break;
        }
    }
}

/// Returns whether there was anything to replace or to leave out.
fn merge_once(func: &mut Function, cfg: &ControlFlowGraph, order: &[Block]) -> bool {
    let mut merged = false;
    let at_start = settle(func, cfg, order);
    for &block in order {
        let mut known = at_start[&block].clone();
        for inst in func.layout.block_insts(block).collect::<Vec<_>>() {
            let access = access(func, inst);
            let held = access.as_ref().and_then(|access| known.get(&access.place).copied());
            match (&access, held) {
                (Some(Access { what: What::Load(loaded), .. }), Some(held)) => {
                    let held = func.dfg.resolve_aliases(held);
                    func.dfg.clear_results(inst);
                    func.dfg.change_to_alias(*loaded, held);
                    func.layout.remove_inst(inst);
                    merged = true;
                }
                (Some(Access { place: Place::Slot(..), what: What::Store(value) }), Some(held))
                    if *value == func.dfg.resolve_aliases(held) =>
                {
                    func.layout.remove_inst(inst);
                    merged = true;
                }
                _ => follow(func, inst, access, &mut known),
            }
        }
    }
    merged
}

/// Drops loads that cannot trap and whose results are not used. Called after the optimiser.
pub(crate) fn drop_unused(func: &mut Function) {
    let mut uses: HashMap<Value, usize> = HashMap::new();
    let insts: Vec<Inst> =
        func.layout.blocks().flat_map(|block| func.layout.block_insts(block)).collect();
    for inst in &insts {
        for value in func.dfg.inst_values(*inst) {
            *uses.entry(func.dfg.resolve_aliases(value)).or_default() += 1;
        }
    }
    // What an address is computed of comes before it.
    for inst in insts.into_iter().rev() {
        let InstructionData::Load { flags, .. } = func.dfg.insts[inst] else { continue };
        let traps = func.dfg.mem_flags[flags].trap_code().is_some();
        let [result] = func.dfg.inst_results(inst) else { continue };
        if traps || uses.get(result).is_some_and(|count| *count > 0) {
            continue;
        }
        for value in func.dfg.inst_values(inst) {
            uses.entry(func.dfg.resolve_aliases(value)).and_modify(|count| *count -= 1);
        }
        func.layout.remove_inst(inst);
    }
}

/// What is known at the start of each block.
fn settle(func: &Function, cfg: &ControlFlowGraph, order: &[Block]) -> HashMap<Block, Known> {
    let (mut starts, mut ends): (HashMap<Block, Known>, HashMap<Block, Known>) = Default::default();
    let mut changed = true;
    for round in 0.. {
        if !std::mem::take(&mut changed) {
            break;
        }
        for block in order {
            // A block that was not looked at yet takes nothing away.
            let mut before = cfg.pred_iter(*block).filter_map(|from| ends.get(&from.block));
            let mut known = before.next().cloned().unwrap_or_default();
            for other in before {
                known.retain(|place, held| other.get(place) == Some(held));
            }
            if round >= ROUNDS {
                let last = &starts[block];
                known.retain(|place, held| last.get(place) == Some(held));
            }
            if starts.get(block) == Some(&known) {
                continue;
            }
            changed = true;
            starts.insert(*block, known.clone());
            for inst in func.layout.block_insts(*block) {
                follow(func, inst, access(func, inst), &mut known);
            }
            ends.insert(*block, known);
        }
    }
    starts
}
/// What is known behind an instruction that makes this access.
fn follow(func: &Function, inst: Inst, access: Option<Access>, known: &mut Known) {
    let opcode = func.dfg.insts[inst].opcode();
    // A collector may have moved what the slots refer to, and the stack itself.
    if opcode.is_call() {
        known.clear();
        return;
    }
    let is_slot = matches!(access, Some(Access { place: Place::Slot(..), .. }));
    if !is_slot && (opcode.can_store() || opcode.other_side_effects()) {
        known.retain(|place, _| matches!(place, Place::Slot(..)));
    }
    match access {
        Some(Access { place, what: What::Load(value) }) => {
            known.entry(place).or_insert(value);
        }
        Some(Access { place, what: What::Store(value) }) => {
            known.insert(place, value);
        }
        None => {}
    }
}

struct Access {
    place: Place,
    what: What,
}

/// The value that is loaded or stored.
enum What {
    Load(Value),
    Store(Value),
}

/// The access of an instruction that is a plain load, or a plain store of a whole value.
fn access(func: &Function, inst: Inst) -> Option<Access> {
    let resolve = |value| func.dfg.resolve_aliases(value);
    let (address, offset, flags, opcode, what) = match func.dfg.insts[inst] {
        InstructionData::Load { opcode, arg, flags, offset } => {
            (arg, offset, flags, opcode, What::Load(func.dfg.first_result(inst)))
        }
        InstructionData::Store { opcode: Opcode::Store, args: [value, to], flags, offset } => {
            (to, offset, flags, Opcode::Load, What::Store(resolve(value)))
        }
        _ => return None,
    };
    let (What::Load(value) | What::Store(value)) = what;
    let (address, ty) = (resolve(address), func.dfg.value_type(value));
    let made = func.dfg.value_def(address).inst().map(|inst| func.dfg.insts[inst]);
    let place = match made {
        Some(InstructionData::StackAddr { stack_slot, .. }) if is_spilled(func, flags) => {
            Place::Slot(stack_slot, ty)
        }
        _ => Place::At(address, offset.into(), opcode, ty),
    };
    Some(Access { place, what })
}

#[cfg(test)]
mod tests {
    use super::{drop_unused, merge};
    use crate::regions;
    use cranelift_codegen::ir::{
        AbiParam, Function, InstBuilder, MemFlagsData, Opcode, Signature, Value,
        condcodes::IntCC,
        types::{I8, I64},
    };
    use cranelift_codegen::isa::CallConv;
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

    /// A function of a reference and a number that returns a number; and how many loads are left.
    fn loads(body: impl FnOnce(&mut FunctionBuilder<'_>, [Value; 2]) -> Value) -> usize {
        let mut func = Function::new();
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend([AbiParam::new(I64); 2]);
        signature.returns.push(AbiParam::new(I64));
        func.signature = signature;
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut func, &mut context);
        regions::tell_apart(&mut b);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let [object, number] = *b.block_params(entry) else { unreachable!() };
        b.declare_value_needs_stack_map(object);
        let result = body(&mut b, [object, number]);
        b.ins().return_(&[result]);
        b.seal_all_blocks();
        b.finalize(frontend_config());
        merge(&mut func);
        drop_unused(&mut func);
        let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
        insts.filter(|inst| func.dfg.insts[*inst].opcode() == Opcode::Load).count()
    }

    fn frontend_config() -> cranelift_codegen::isa::TargetFrontendConfig {
        crate::flags::isa("none").expect("this machine").frontend_config()
    }

    fn call(b: &mut FunctionBuilder<'_>) {
        let signature = b.import_signature(Signature::new(CallConv::SystemV));
        let callee = b.ins().iconst(I64, 64);
        b.ins().call_indirect(signature, callee, &[]);
    }

    fn load(b: &mut FunctionBuilder<'_>, object: Value, offset: i32) -> Value {
        b.ins().load(I64, MemFlagsData::trusted(), object, offset)
    }

    fn store(b: &mut FunctionBuilder<'_>, value: Value, object: Value) {
        b.ins().store(MemFlagsData::trusted(), value, object, 8);
    }

    /// Goes one of two ways, of which one does `cold`.
    fn perhaps(
        b: &mut FunctionBuilder<'_>,
        condition: Value,
        cold: impl FnOnce(&mut FunctionBuilder<'_>),
    ) {
        let [one, other] = [b.create_block(), b.create_block()];
        b.ins().brif(condition, one, &[], other, &[]);
        b.switch_to_block(one);
        cold(b);
        b.ins().jump(other, &[]);
        b.switch_to_block(other);
    }

    #[test]
    fn a_reference_is_loaded_once_behind_each_call() {
        let uses = |b: &mut FunctionBuilder<'_>, [object, _]: [Value; 2]| {
            call(b);
            let sums = [16, 24, 32].map(|offset| load(b, object, offset));
            call(b);
            let sum = b.ins().iadd(sums[0], sums[1]);
            let sum = b.ins().iadd(sum, sums[2]);
            let last = load(b, object, 40);
            b.ins().iadd(sum, last)
        };
        assert_eq!(loads(uses), 4 + 2);
    }

    #[test]
    fn a_call_on_one_of_two_ways_is_one_on_both() {
        let uses = |b: &mut FunctionBuilder<'_>, [object, number]: [Value; 2]| {
            let first = load(b, object, 16);
            perhaps(b, number, call);
            let second = load(b, object, 16);
            let third = load(b, object, 16);
            let sum = b.ins().iadd(first, second);
            b.ins().iadd(sum, third)
        };
        // The reference comes in a register, and is loaded behind the call, as is the field.
        assert_eq!(loads(uses), 3);
    }

    #[test]
    fn a_store_changes_all_memory_but_what_is_spilled() {
        let uses = |b: &mut FunctionBuilder<'_>, [object, number]: [Value; 2]| {
            call(b);
            let first = load(b, object, 16);
            store(b, number, object);
            let stored = load(b, object, 8);
            let second = load(b, object, 16);
            call(b);
            let kept = load(b, object, 24);
            let sum = b.ins().iadd(first, stored);
            let sum = b.ins().iadd(sum, second);
            b.ins().iadd(sum, kept)
        };
        // Of the reference two, and of the fields three: what was stored is known.
        assert_eq!(loads(uses), 2 + 3);
    }

    #[test]
    fn a_loop_that_stores_loads_again_in_each_turn() {
        let uses = |b: &mut FunctionBuilder<'_>, [object, number]: [Value; 2]| {
            let before = load(b, object, 8);
            let [head, body, end] = [(); 3].map(|()| b.create_block());
            b.ins().jump(head, &[]);
            b.switch_to_block(head);
            let now = load(b, object, 8);
            let more = b.ins().icmp(IntCC::NotEqual, now, before);
            b.ins().brif(more, body, &[], end, &[]);
            b.switch_to_block(body);
            store(b, number, object);
            b.ins().jump(head, &[]);
            b.switch_to_block(end);
            load(b, object, 8)
        };
        assert_eq!(loads(uses), 2);
    }

    #[test]
    fn loads_of_other_widths_are_others_and_unused_ones_are_dropped() {
        let uses = |b: &mut FunctionBuilder<'_>, [object, _]: [Value; 2]| {
            let whole = load(b, object, 16);
            let byte = b.ins().load(I8, MemFlagsData::trusted(), object, 16);
            let byte = b.ins().uextend(I64, byte);
            let through = load(b, object, 24);
            load(b, through, 32);
            b.ins().iadd(whole, byte)
        };
        assert_eq!(loads(uses), 2);
    }

    #[test]
    fn what_is_loaded_through_two_loads_of_one_field_is_loaded_once() {
        let uses = |b: &mut FunctionBuilder<'_>, [object, _]: [Value; 2]| {
            let deep = |b: &mut FunctionBuilder<'_>| {
                let first = load(b, object, 16);
                let second = load(b, first, 16);
                load(b, second, 16)
            };
            let (one, other) = (deep(b), deep(b));
            b.ins().iadd(one, other)
        };
        assert_eq!(loads(uses), 3);
    }
}
