//! Keeps addresses of stack slots out of registers across calls.
//!
//! A goroutine's stack may move at any call; only slots in stack maps are adjusted. Cranelift's
//! frontend spills references around calls to slots, and makes a `stack_addr` for each access. The
//! optimiser merges those of one slot, and what is computed of them, and moves them out of loops.
//! Where the back end does not fold the address into its access (`add reg, [slot]` is such a case
//! in 0.135), the merged address stays in a callee-saved register across the call, and the access
//! goes to where the stack was. So after optimisation every use gets an address of its own again,
//! right before it. An address that is computed of one, as a sum with a number, is computed anew
//! where there is a call between the two.
//!
//! The optimiser also makes what depends on operands alone where its result is used, which may be
//! behind a call. A comparison of a reference with an address of a slot would then take the old
//! reference and the new address. So it goes up again, to its operands. Comparisons of two
//! references go up as well: no reference lives longer for them.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::immediates::Offset32;
use cranelift_codegen::ir::{
    Block, Function, Inst, InstBuilder, InstructionData, Opcode, StackSlot, Value, ValueDef,
    types::I64,
};
use std::collections::{HashMap, HashSet};

use crate::trace::{Traced, What, derives, tests_for_null, trace};

/// Gives each use of a stack slot's address an instruction of its own. Called between
/// `Context::optimize` and a compilation that optimises no more.
pub fn rematerialise(func: &mut Function) {
    let calls = Calls::of(func);
    if calls.blocks.is_empty() {
        return;
    }
    let cfg = ControlFlowGraph::with_function(func);
    let dominators = DominatorTree::with_function(func, &cfg);
    let traced = trace(func);
    let anew = anew(func, &dominators, &traced);
    let heights = heights(func, &dominators);
    let mut pass = Pass { calls, cfg, dominators, traced, anew, heights };
    let order: Vec<Block> = pass.dominators.cfg_rpo().copied().collect();
    for block in &order {
        for inst in func.layout.block_insts(*block).collect::<Vec<_>>() {
            pass.lift(func, inst);
        }
    }
    for block in &order {
        for inst in func.layout.block_insts(*block).collect::<Vec<_>>() {
            pass.renew(func, inst);
        }
    }
}

/// How a value is made anew in another place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Anew {
    /// Not at all.
    #[default]
    Not,
    /// A number.
    Number,
    /// The address so many bytes into a slot.
    Slot(StackSlot, i32),
    /// By its instruction, whose addresses are made anew by at most so many instructions each.
    Made(u8),
}

/// The longest chain of instructions that is made anew.
const LONGEST: u8 = 64;

/// How each value is made anew.
fn anew(func: &Function, dominators: &DominatorTree, traced: &Traced) -> SecondaryMap<Value, Anew> {
    let mut anew: SecondaryMap<Value, Anew> = SecondaryMap::new();
    // Operands come before what is made of them.
    for block in dominators.cfg_rpo() {
        for inst in func.layout.block_insts(*block) {
            if let &[result] = func.dfg.inst_results(inst) {
                anew[result] = made_anew(func, inst, traced, &anew);
            }
        }
    }
    anew
}

fn made_anew(
    func: &Function,
    inst: Inst,
    traced: &Traced,
    anew: &SecondaryMap<Value, Anew>,
) -> Anew {
    let resolve = |value: &Value| func.dfg.resolve_aliases(*value);
    match func.dfg.insts[inst] {
        InstructionData::UnaryImm { opcode: Opcode::Iconst, .. } => return Anew::Number,
        InstructionData::StackAddr { stack_slot, offset, .. } => {
            return Anew::Slot(stack_slot, offset.into());
        }
        _ => {}
    }
    let opcode = func.dfg.insts[inst].opcode();
    if !derives(opcode) || traced[func.dfg.first_result(inst)] != What::Stack {
        return Anew::Not;
    }
    let args: Vec<Value> = func.dfg.inst_args(inst).iter().map(resolve).collect();
    if let Some((slot, offset)) = constant_offset(func, opcode, &args, anew) {
        return Anew::Slot(slot, offset);
    }
    let mut longest = 0;
    for arg in args.into_iter().filter(|arg| traced[*arg] == What::Stack) {
        match anew[arg] {
            Anew::Slot(..) => {}
            Anew::Made(length) if length < LONGEST => longest = longest.max(length),
            _ => return Anew::Not,
        }
    }
    Anew::Made(longest + 1)
}

/// The slot and the offset, if a sum or difference of a slot's address and a number stays in what
/// `stack_addr` can express.
fn constant_offset(
    func: &Function,
    opcode: Opcode,
    args: &[Value],
    anew: &SecondaryMap<Value, Anew>,
) -> Option<(StackSlot, i32)> {
    let number = |value: Value| match func.dfg.insts[func.dfg.value_def(value).inst()?] {
        InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits()),
        _ => None,
    };
    let (slot, from, add) = match (opcode, args) {
        (Opcode::Iadd, [a, b]) => match (anew[*a], anew[*b]) {
            (Anew::Slot(slot, from), Anew::Number) => (slot, from, number(*b)?),
            (Anew::Number, Anew::Slot(slot, from)) => (slot, from, number(*a)?),
            _ => return None,
        },
        (Opcode::Isub, [a, b]) => match (anew[*a], anew[*b]) {
            (Anew::Slot(slot, from), Anew::Number) => (slot, from, number(*b)?.checked_neg()?),
            _ => return None,
        },
        _ => return None,
    };
    let offset = i32::try_from(i64::from(from).checked_add(add)?).ok()?;
    (offset >= 0).then_some((slot, offset))
}

/// For what depends on operands alone, of how many instructions one upon the other it is made; 0
/// for all else, and where there are too many.
fn heights(func: &Function, dominators: &DominatorTree) -> SecondaryMap<Value, u8> {
    let mut heights: SecondaryMap<Value, u8> = SecondaryMap::new();
    for block in dominators.cfg_rpo() {
        for inst in func.layout.block_insts(*block) {
            let &[result] = func.dfg.inst_results(inst) else { continue };
            if depends_on_operands_alone(func.dfg.insts[inst].opcode()) {
                let args = func.dfg.inst_args(inst).iter();
                let highest = args.map(|arg| heights[func.dfg.resolve_aliases(*arg)]).max();
                heights[result] = (highest.unwrap_or(0) + 1) % LONGEST;
            }
        }
    }
    heights
}

/// Where calls are.
struct Calls {
    blocks: HashSet<Block>,
}

impl Calls {
    fn of(func: &Function) -> Calls {
        let has_call = |block: &Block| {
            let mut insts = func.layout.block_insts(*block);
            insts.any(|inst| is_call(func, inst))
        };
        Calls { blocks: func.layout.blocks().filter(has_call).collect() }
    }
}

fn is_call(func: &Function, inst: Inst) -> bool {
    func.dfg.insts[inst].opcode().is_call()
}

/// Where a value is there: behind an instruction, or from a block's start on.
#[derive(Clone, Copy, Debug)]
struct Place {
    block: Block,
    behind: Option<Inst>,
}

impl Place {
    /// Where the value is made.
    fn of(func: &Function, value: Value) -> Option<Place> {
        match func.dfg.value_def(value) {
            ValueDef::Result(inst, _) => {
                Some(Place { block: func.layout.inst_block(inst)?, behind: Some(inst) })
            }
            ValueDef::Param(block, _) => Some(Place { block, behind: None }),
            ValueDef::Union(..) => None,
        }
    }
}

struct Pass {
    calls: Calls,
    cfg: ControlFlowGraph,
    dominators: DominatorTree,
    traced: Traced,
    anew: SecondaryMap<Value, Anew>,
    heights: SecondaryMap<Value, u8>,
}

impl Pass {
    /// Moves an instruction up to its operands, if it takes a reference and there is a call in
    /// between.
    fn lift(&mut self, func: &mut Function, inst: Inst) {
        let opcode = func.dfg.insts[inst].opcode();
        let &[result] = func.dfg.inst_results(inst) else { return };
        if !depends_on_operands_alone(opcode) || self.anew[result] != Anew::Not {
            return;
        }
        let null = tests_for_null(func, inst);
        let args: Vec<Value> =
            func.dfg.inst_args(inst).iter().map(|arg| func.dfg.resolve_aliases(*arg)).collect();
        let tested = |index: usize| Some(index) != null;
        let takes_address = args
            .iter()
            .enumerate()
            .any(|(index, arg)| tested(index) && self.traced[*arg] != What::Other);
        if !takes_address {
            return;
        }
        let leaves = self.leaves(func, args);
        let Some(latest) = self.latest(func, &leaves) else { return };
        if !self.call_between(func, latest, inst) {
            return;
        }
        func.layout.remove_inst(inst);
        match latest.behind {
            Some(behind) => {
                let next = func.layout.next_inst(behind).expect("a block ends with a branch");
                func.layout.insert_inst(inst, next);
            }
            None => {
                let first = func.layout.first_inst(latest.block).expect("a block has a branch");
                func.layout.insert_inst(inst, first);
            }
        }
        self.replace(func, inst, |_| true);
    }

    /// The values that those are made of in the end, without what can be made in any place.
    fn leaves(&self, func: &Function, values: Vec<Value>) -> Vec<Value> {
        let (mut leaves, mut seen, mut list) = (Vec::new(), HashSet::new(), values);
        while let Some(value) = list.pop() {
            if !seen.insert(value) {
                continue;
            }
            if self.heights[value] == 0 {
                leaves.push(value);
                continue;
            }
            let made = func.dfg.value_def(value).unwrap_inst();
            list.extend(func.dfg.inst_args(made).iter().map(|arg| func.dfg.resolve_aliases(*arg)));
        }
        leaves
    }

    /// Where the last of the values is made. All of them dominate one instruction, so each place
    /// dominates the next.
    fn latest(&self, func: &Function, values: &[Value]) -> Option<Place> {
        let mut latest: Option<Place> = None;
        for value in values {
            let place = Place::of(func, *value)?;
            let later = latest.is_none_or(|latest| match (latest.behind, place.behind) {
                _ if latest.block != place.block => {
                    self.dominators.block_dominates(latest.block, place.block)
                }
                (None, _) => true,
                (Some(_), None) => false,
                (Some(a), Some(b)) => func.layout.pp_cmp(a, b).is_lt(),
            });
            if later {
                latest = Some(place);
            }
        }
        latest
    }

    /// Whether a call lies on some way from where a value is made to where it is used.
    fn call_between(&self, func: &Function, from: Place, to: Inst) -> bool {
        let Some(block) = func.layout.inst_block(to) else { return false };
        let before = |stop: Option<Inst>| {
            let mut at = func.layout.prev_inst(to);
            while at.is_some() && at != stop {
                if at.is_some_and(|inst| is_call(func, inst)) {
                    return true;
                }
                at = at.and_then(|inst| func.layout.prev_inst(inst));
            }
            false
        };
        if block == from.block {
            return before(from.behind);
        }
        let mut behind = match from.behind {
            Some(inst) => func.layout.next_inst(inst),
            None => func.layout.first_inst(from.block),
        };
        while let Some(inst) = behind {
            if is_call(func, inst) {
                return true;
            }
            behind = func.layout.next_inst(inst);
        }
        if before(None) {
            return true;
        }
        let mut seen = HashSet::from([from.block]);
        let mut list: Vec<Block> = self.cfg.pred_iter(block).map(|pred| pred.block).collect();
        while let Some(block) = list.pop() {
            if !seen.insert(block) {
                continue;
            }
            if self.calls.blocks.contains(&block) {
                return true;
            }
            list.extend(self.cfg.pred_iter(block).map(|pred| pred.block));
        }
        false
    }

    /// Makes the addresses anew that an instruction uses.
    fn renew(&mut self, func: &mut Function, inst: Inst) {
        let far: HashSet<Value> = func
            .dfg
            .inst_values(inst)
            .map(|value| func.dfg.resolve_aliases(value))
            .filter(|value| match self.anew[*value] {
                Anew::Slot(..) => true,
                Anew::Made(_) => Place::of(func, *value)
                    .is_some_and(|place| self.call_between(func, place, inst)),
                Anew::Not | Anew::Number => false,
            })
            .collect();
        if !far.is_empty() {
            self.replace(func, inst, |value| far.contains(&value));
        }
    }

    /// Makes operands anew right before the instruction.
    fn replace(&mut self, func: &mut Function, inst: Inst, which: impl Fn(Value) -> bool) {
        let old: Vec<Value> = func.dfg.inst_values(inst).collect();
        let mut made = HashMap::new();
        let mut new = Vec::with_capacity(old.len());
        for value in &old {
            let resolved = func.dfg.resolve_aliases(*value);
            new.push(match which(resolved) {
                true => self.make(func, inst, resolved, &mut made),
                false => *value,
            });
        }
        if new != old {
            func.dfg.overwrite_inst_values(inst, new.into_iter());
        }
    }

    /// Makes a value anew before `at`, once for each `made`, if it is an address or is not there
    /// yet.
    fn make(
        &mut self,
        func: &mut Function,
        at: Inst,
        value: Value,
        made: &mut HashMap<Value, Value>,
    ) -> Value {
        if let Some(made) = made.get(&value) {
            return *made;
        }
        let new = match self.anew[value] {
            Anew::Slot(slot, offset) => {
                let offset = Offset32::new(offset);
                FuncCursor::new(func).at_inst(at).ins().stack_addr(I64, slot, offset)
            }
            Anew::Not | Anew::Number if self.is_there(func, value, at) => value,
            _ => {
                let from = func.dfg.value_def(value).unwrap_inst();
                let args: Vec<Value> = func.dfg.inst_args(from).to_vec();
                let args: Vec<Value> = args
                    .into_iter()
                    .map(|arg| self.make(func, at, func.dfg.resolve_aliases(arg), made))
                    .collect();
                let copy = func.dfg.clone_inst(from);
                func.dfg.overwrite_inst_values(copy, args.into_iter());
                FuncCursor::new(func).at_inst(at).insert_inst(copy);
                func.dfg.first_result(copy)
            }
        };
        // What is made of it is made anew as well.
        self.anew[new] = self.anew[value];
        self.heights[new] = self.heights[value];
        self.traced[new] = self.traced[value];
        made.insert(value, new);
        new
    }

    /// Whether a value is made before `at` on every path.
    fn is_there(&self, func: &Function, value: Value, at: Inst) -> bool {
        match func.dfg.value_def(value) {
            ValueDef::Result(inst, _) => self.dominators.dominates(inst, at, &func.layout),
            ValueDef::Param(block, _) => self.dominators.dominates(block, at, &func.layout),
            ValueDef::Union(..) => false,
        }
    }
}

/// Whether the instruction's result depends on nothing but its operands, and it does nothing else.
fn depends_on_operands_alone(opcode: Opcode) -> bool {
    !(opcode.is_call()
        || opcode.is_branch()
        || opcode.is_terminator()
        || opcode.can_load()
        || opcode.can_store()
        || opcode.can_trap()
        || opcode.other_side_effects()
        // Another one in another place.
        || matches!(
            opcode,
            Opcode::GetStackPointer
                | Opcode::GetFramePointer
                | Opcode::GetReturnAddress
                | Opcode::GetPinnedReg
        ))
}
