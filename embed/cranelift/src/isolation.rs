//! Code that is entered at a moment of which nothing is known but the frame's slots.
//!
//! After a recovered panic a function's way out runs with all registers unknown. It must not use
//! values that were computed elsewhere, also where only the optimiser has found them. Constants are
//! such values, too: where the optimiser shares one between blocks, it stays in a callee-saved
//! register over the call that returns a second time. So constants are made anew in each block.

use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{Block, Function, Inst, Opcode, Value, ValueDef};
use std::collections::{HashMap, HashSet};

use crate::error::CompileError;

/// The blocks that are reached from `start`, in the order of the code: what is made of them is the
/// same in each run.
fn region(func: &Function, start: Block) -> Vec<Block> {
    let mut region = HashSet::new();
    let mut list = vec![start];
    while let Some(block) = list.pop() {
        if region.insert(block) {
            list.extend(func.block_successors(block));
        }
    }
    func.layout.blocks().filter(|block| region.contains(block)).collect()
}

/// The instruction that makes `value`, if it makes it of nothing.
fn constant(func: &Function, value: Value) -> Option<Inst> {
    let inst = func.dfg.value_def(func.dfg.resolve_aliases(value)).inst()?;
    let opcode = func.dfg.insts[inst].opcode();
    let made_of_nothing = matches!(
        opcode,
        Opcode::Iconst
            | Opcode::F16const
            | Opcode::F32const
            | Opcode::F64const
            | Opcode::F128const
            | Opcode::Vconst
            | Opcode::FuncAddr
            | Opcode::SymbolValue
    );
    made_of_nothing.then_some(inst)
}

/// Makes a constant that comes from another block anew in each block of the region that uses it.
fn copy_constants(func: &mut Function, region: &[Block]) {
    for &block in region {
        let mut copies = HashMap::new();
        let insts: Vec<Inst> = func.layout.block_insts(block).collect();
        for inst in insts {
            let old: Vec<Value> = func.dfg.inst_values(inst).collect();
            let mut new = old.clone();
            for value in &mut new {
                let Some(made) = constant(func, *value) else { continue };
                if func.layout.inst_block(made) == Some(block) {
                    continue;
                }
                *value = *copies.entry(made).or_insert_with(|| {
                    let copy = func.dfg.clone_inst(made);
                    FuncCursor::new(func).at_inst(inst).insert_inst(copy);
                    func.dfg.first_result(copy)
                });
            }
            if new != old {
                func.dfg.overwrite_inst_values(inst, new.into_iter());
            }
        }
    }
}

/// The values that the code of the region uses but does not compute.
fn values_from_outside(func: &Function, start: Block, region: &[Block]) -> Vec<Value> {
    let inside = |v: Value| match func.dfg.value_def(func.dfg.resolve_aliases(v)) {
        ValueDef::Result(inst, _) => {
            func.layout.inst_block(inst).is_some_and(|b| region.contains(&b))
        }
        // The first block's come from where the region is entered.
        ValueDef::Param(block, _) => block != start && region.contains(&block),
        ValueDef::Union(..) => false,
    };
    let insts = region.iter().flat_map(|b| func.layout.block_insts(*b));
    insts.flat_map(|i| func.dfg.inst_values(i)).filter(|v| !inside(*v)).collect()
}

/// Cuts the code reached from `start` off from values that are computed elsewhere. Called between
/// `Context::optimize` and a compilation that optimises no more. `name` is for the error.
///
/// # Errors
/// [`CompileError::NotIsolated`]: it uses one that is not a constant.
pub fn isolate(name: &str, func: &mut Function, start: Block) -> Result<(), CompileError> {
    let region = region(func, start);
    copy_constants(func, &region);
    let outside = values_from_outside(func, start, &region);
    if outside.is_empty() {
        return Ok(());
    }
    Err(CompileError::NotIsolated {
        function: name.to_owned(),
        block: start.to_string(),
        values: format!("{outside:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::isolate;
    use cranelift_codegen::ir::{
        AbiParam, Block, Function, InstBuilder, Signature, Value, types::I64,
    };
    use cranelift_codegen::isa::CallConv;
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

    /// A function whose second block uses what `shared` makes in the first.
    fn with_shared(
        shared: impl FnOnce(&mut FunctionBuilder<'_>, Value) -> Value,
    ) -> (Function, Block) {
        let mut func = Function::new();
        func.signature = Signature::new(CallConv::SystemV);
        func.signature.params.push(AbiParam::new(I64));
        func.signature.returns.push(AbiParam::new(I64));
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut func, &mut context);
        let (entry, exit) = (b.create_block(), b.create_block());
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let param = b.block_params(entry)[0];
        let value = shared(&mut b, param);
        b.ins().jump(exit, &[]);
        b.switch_to_block(exit);
        let sum = b.ins().iadd(value, value);
        b.ins().return_(&[sum]);
        b.seal_all_blocks();
        let isa = crate::flags::isa("speed").expect("this machine");
        b.finalize(isa.frontend_config());
        (func, exit)
    }

    #[test]
    fn a_shared_constant_is_made_anew() {
        let (mut func, exit) = with_shared(|b, _| b.ins().iconst(I64, 0x1234_5678_9abc));
        isolate("f", &mut func, exit).expect("isolated");
        let inside: Vec<String> =
            func.layout.block_insts(exit).map(|i| func.dfg.display_inst(i).to_string()).collect();
        assert!(inside[0].contains("iconst.i64 0x1234_5678_9abc"), "{inside:?}");
        assert_eq!(inside.len(), 3, "{inside:?}");
    }

    /// The parameters of the first block are given where it is entered.
    #[test]
    fn a_parameter_of_the_first_block_is_an_error() {
        let (mut func, exit) = with_shared(|b, _| b.ins().iconst(I64, 1));
        let value = func.dfg.append_block_param(exit, I64);
        let inst = func.layout.first_inst(exit).expect("an addition");
        func.dfg.overwrite_inst_values(inst, [value, value].into_iter());
        isolate("f", &mut func, exit).expect_err("refused");
    }

    #[test]
    fn another_shared_value_is_an_error() {
        let (mut func, exit) = with_shared(|b, param| b.ins().iadd(param, param));
        let error = isolate("f", &mut func, exit).expect_err("refused").to_string();
        assert!(error.contains("block1"), "{error}");
        let (mut func, exit) = with_shared(|_, param| param);
        isolate("f", &mut func, exit).expect_err("refused");
    }
}
