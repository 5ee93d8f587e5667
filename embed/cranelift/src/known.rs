//! Removes branches whose outcome is known from an earlier one.
//!
//! A front end checks for null at each use of a reference, and an index at each access. Cranelift's
//! optimiser finds that two checks compare the same, but leaves both. Where one dominates the
//! other, and only one way out of it leads there, the other is a jump.

use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::{Block, Function, InstructionData, Opcode, Value};
use std::collections::HashMap;

/// Makes a jump of each branch that depends on a value on which a branch that dominates it has
/// depended. Called after `Context::optimize`. Returns whether there was one: then blocks may be
/// out of reach.
pub(crate) fn follow_known(func: &mut Function) -> bool {
    let cfg = ControlFlowGraph::with_function(func);
    let dominators = DominatorTree::with_function(func, &cfg);
    let Some(entry) = func.layout.entry_block() else { return false };
    let (mut known, mut changed) = (HashMap::new(), false);
    // Down the dominator tree. On the way up again what a block has told is forgotten.
    let mut way = vec![Step::Into(entry)];
    while let Some(step) = way.pop() {
        match step {
            Step::Forget(value) => {
                known.remove(&value);
            }
            Step::Into(block) => {
                if let Some((value, outcome)) = told(func, &cfg, block)
                    && !known.contains_key(&value)
                {
                    known.insert(value, outcome);
                    way.push(Step::Forget(value));
                }
                changed |= decide(func, block, &known);
                way.extend(dominators.children(block).map(Step::Into));
            }
        }
    }
    changed
}

enum Step {
    Into(Block),
    Forget(Value),
}

/// The value that the branch to a block has depended on, and whether it was not 0, if the block is
/// reached by one way out of one branch alone.
fn told(func: &Function, cfg: &ControlFlowGraph, block: Block) -> Option<(Value, bool)> {
    let mut before = cfg.pred_iter(block);
    let (branch, None) = (before.next()?.inst, before.next()) else { return None };
    let InstructionData::Brif { arg, blocks, .. } = func.dfg.insts[branch] else { return None };
    let [then, otherwise] = blocks.map(|call| call.block(&func.dfg.value_lists));
    (then != otherwise).then(|| (func.dfg.resolve_aliases(arg), then == block))
}

/// Whether the branch at the end of a block is now a jump.
fn decide(func: &mut Function, block: Block, known: &HashMap<Value, bool>) -> bool {
    let Some(branch) = func.layout.last_inst(block) else { return false };
    let InstructionData::Brif { arg, blocks, .. } = func.dfg.insts[branch] else { return false };
    let Some(outcome) = known.get(&func.dfg.resolve_aliases(arg)) else { return false };
    let destination = if *outcome { blocks[0] } else { blocks[1] };
    func.dfg.insts[branch] = InstructionData::Jump { opcode: Opcode::Jump, destination };
    true
}

#[cfg(test)]
mod tests {
    use super::follow_known;
    use cranelift_codegen::ir::{
        AbiParam, Block, Function, InstBuilder, Opcode, Signature, Value, types::I64,
    };
    use cranelift_codegen::isa::CallConv;
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

    /// How many branches are left of a function of one number.
    fn branches(body: impl FnOnce(&mut FunctionBuilder<'_>, Value)) -> usize {
        let mut func = Function::new();
        func.signature = Signature::new(CallConv::SystemV);
        func.signature.params.push(AbiParam::new(I64));
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut func, &mut context);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let number = b.block_params(entry)[0];
        body(&mut b, number);
        b.ins().return_(&[]);
        b.seal_all_blocks();
        let config = crate::flags::isa("none").expect("this machine").frontend_config();
        b.finalize(config);
        follow_known(&mut func);
        let insts = func.layout.blocks().flat_map(|block| func.layout.block_insts(block));
        insts.filter(|inst| func.dfg.insts[*inst].opcode() == Opcode::Brif).count()
    }

    /// Leaves the function if the number is 0.
    fn check(b: &mut FunctionBuilder<'_>, number: Value) -> Block {
        let [fails, goes_on] = [b.create_block(), b.create_block()];
        b.ins().brif(number, goes_on, &[], fails, &[]);
        b.switch_to_block(fails);
        b.ins().return_(&[]);
        b.switch_to_block(goes_on);
        fails
    }

    #[test]
    fn a_check_that_an_earlier_one_dominates_is_a_jump() {
        let checks = |b: &mut FunctionBuilder<'_>, number| {
            check(b, number);
            check(b, number);
            check(b, number);
        };
        assert_eq!(branches(checks), 1);
    }

    #[test]
    fn a_check_where_both_ways_meet_stays() {
        let checks = |b: &mut FunctionBuilder<'_>, number| {
            let [one, both] = [b.create_block(), b.create_block()];
            b.ins().brif(number, one, &[], both, &[]);
            b.switch_to_block(one);
            b.ins().jump(both, &[]);
            b.switch_to_block(both);
            check(b, number);
        };
        assert_eq!(branches(checks), 2);
    }

    #[test]
    fn a_branch_whose_ways_are_one_says_nothing() {
        let checks = |b: &mut FunctionBuilder<'_>, number| {
            let both = b.create_block();
            b.ins().brif(number, both, &[], both, &[]);
            b.switch_to_block(both);
            check(b, number);
        };
        assert_eq!(branches(checks), 2);
    }

    #[test]
    fn what_one_way_tells_is_forgotten_on_the_other() {
        let checks = |b: &mut FunctionBuilder<'_>, number| {
            let [one, other] = [b.create_block(), b.create_block()];
            b.ins().brif(number, one, &[], other, &[]);
            b.switch_to_block(one);
            check(b, number);
            b.ins().return_(&[]);
            b.switch_to_block(other);
            check(b, number);
        };
        assert_eq!(branches(checks), 1);
    }
}
