//! Stack slots, and the words of them that are references.

use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::{
    self, Block, Inst, InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind,
    UserStackMapEntry, Value, types::I64,
};
use std::collections::{HashMap, HashSet};

use super::{Function, Mapped};
use crate::error::CompileError;

/// Words that are zeroed one by one; more are zeroed in a loop.
const UNROLLED: u32 = 32;

/// The largest slot, in bytes: offsets within it have 32 bits, with a sign.
const LARGEST: u32 = i32::MAX as u32 - 7;

impl<M> Function<'_, M> {
    /// A stack slot of so many bytes, rounded up to whole words, and its address. Some of its words
    /// are references: these are roots at every call from here on, and then all of it is zeroed.
    ///
    /// The address is declared. All addresses within the slot derive from it, or are made anew for
    /// each access.
    ///
    /// A slot with references is made on every path to a call that lies behind it:
    /// [`Function::finish`] refuses others.
    ///
    /// # Errors
    /// [`CompileError::Slot`].
    pub fn slot(
        &mut self,
        bytes: u32,
        references: &[bool],
    ) -> Result<(StackSlot, Value), CompileError> {
        let words: Vec<usize> =
            references.iter().enumerate().filter(|(_, is)| **is).map(|(word, _)| word).collect();
        let room = bytes.div_ceil(8).max(1);
        if bytes > LARGEST || words.last().is_some_and(|last| *last >= room as usize) {
            let (function, words) = (self.name.clone(), references.len());
            return Err(CompileError::Slot { function, bytes, words });
        }
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 8 * room, 3);
        let slot = self.create_sized_stack_slot(slot);
        let address = self.ins().stack_addr(I64, slot, 0);
        let zeroed = !words.is_empty();
        if zeroed {
            let made = self.func.dfg.value_def(address).unwrap_inst();
            let words = words.into_iter().map(|word| 8 * word as u32).collect();
            self.mapped.push(Mapped { made, slot, words });
        }
        let address = self.reference(address);
        if zeroed {
            self.zero_words(address, 8 * room);
        }
        Ok((slot, address))
    }

    /// Zeroes whole words, without a call.
    pub fn zero_words(&mut self, at: Value, bytes: u32) {
        let zero = self.int(0);
        if bytes <= 8 * UNROLLED {
            for offset in (0..bytes).step_by(8) {
                self.ins().store(MemFlagsData::trusted(), zero, at, offset as i32);
            }
            return;
        }
        let left = self.declare_var(I64);
        let all = self.int(i64::from(bytes));
        self.def_var(left, all);
        let (head, done) = (self.create_block(), self.create_block());
        self.ins().jump(head, &[]);
        self.switch_to_block(head);
        let n = self.use_var(left);
        let n = self.ins().iadd_imm_s(n, -8);
        self.def_var(left, n);
        let to = self.ins().iadd(at, n);
        self.ins().store(MemFlagsData::trusted(), zero, to, 0);
        self.ins().brif(n, head, &[], done, &[]);
        self.switch_to_block(done);
    }

    /// Makes the reference words of slots roots at the calls behind their zeroing.
    ///
    /// # Errors
    /// [`CompileError::Uninitialised`]: a path leads to a call behind it that goes around it.
    pub(super) fn map_slots(&mut self) -> Result<(), CompileError> {
        if self.mapped.is_empty() {
            return Ok(());
        }
        let func = &mut *self.builder.func;
        let cfg = ControlFlowGraph::with_function(func);
        let dominators = DominatorTree::with_function(func, &cfg);
        let calls = calls(func, &dominators);
        let mut behind: HashMap<Block, HashSet<Block>> = HashMap::new();
        for Mapped { made, slot, words } in &self.mapped {
            let block = func.layout.inst_block(*made).expect("in the function");
            if !dominators.is_reachable(block) {
                continue;
            }
            let behind = behind.entry(block).or_insert_with(|| reached_from(&cfg, block));
            for call in &calls {
                if dominators.dominates(*made, *call, &func.layout) {
                    for offset in words {
                        let entry = UserStackMapEntry { ty: I64, slot: *slot, offset: *offset };
                        func.dfg.append_user_stack_map_entry(*call, entry);
                    }
                } else if func.layout.inst_block(*call).is_some_and(|at| behind.contains(&at)) {
                    return Err(CompileError::Uninitialised {
                        function: self.name.clone(),
                        slot: slot.to_string(),
                        call: func.dfg.display_inst(*call).to_string(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The calls that may run.
fn calls(func: &ir::Function, dominators: &DominatorTree) -> Vec<Inst> {
    let blocks = func.layout.blocks().filter(|block| dominators.is_reachable(*block));
    let insts = blocks.flat_map(|block| func.layout.block_insts(block));
    insts.filter(|inst| func.dfg.insts[*inst].opcode().is_call()).collect()
}

/// The blocks that run after this one, itself if it is in a loop.
fn reached_from(cfg: &ControlFlowGraph, block: Block) -> HashSet<Block> {
    let mut reached = HashSet::new();
    let mut list: Vec<Block> = cfg.succ_iter(block).collect();
    while let Some(block) = list.pop() {
        if reached.insert(block) {
            list.extend(cfg.succ_iter(block));
        }
    }
    reached
}
