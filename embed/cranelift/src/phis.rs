//! Removes parameters of blocks that always get the same value.
//!
//! A front end that seals its blocks at the end gets one for each variable that is used in a loop,
//! changed or not: where loops and joins refer to each other, the frontend does not see that all of
//! them are one value. The optimiser does, but by then the frontend has spilled each of them to a
//! slot of its own.

use cranelift_codegen::ir::Function;
use cranelift_codegen::settings::{self, Flags};
use cranelift_codegen::{CodegenError, Context};

/// Removes them. Called when all blocks are sealed, before the frontend spills.
///
/// # Errors
/// None: nothing is verified.
pub(crate) fn remove(func: &mut Function) -> Result<(), CodegenError> {
    let mut context = Context::for_function(std::mem::replace(func, Function::new()));
    context.compute_cfg();
    context.compute_domtree();
    let flags = unverified();
    // Code that nothing reaches passes the parameters, too.
    let removed = context
        .eliminate_unreachable_code(&flags)
        .and_then(|()| context.remove_constant_phis(&flags));
    *func = context.func;
    // The frontend expects none where it spills.
    func.dfg.resolve_all_aliases();
    removed
}

fn unverified() -> Flags {
    use settings::Configurable;
    let mut flags = settings::builder();
    flags.set("enable_verifier", "false").expect("a setting of Cranelift's");
    Flags::new(flags)
}

#[cfg(test)]
mod tests {
    use super::remove;
    use cranelift_codegen::ir::{AbiParam, BlockArg, Function, InstBuilder, Signature, types::I64};
    use cranelift_codegen::isa::CallConv;
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

    #[test]
    fn parameters_of_loops_that_refer_to_each_other_are_one_value() {
        let mut func = Function::new();
        func.signature = Signature::new(CallConv::SystemV);
        func.signature.params.push(AbiParam::new(I64));
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut func, &mut context);
        let [entry, head, body, end, dead] = [(); 5].map(|()| b.create_block());
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let object = b.block_params(entry)[0];
        let [outer, inner] = [head, body].map(|block| b.append_block_param(block, I64));
        b.ins().jump(head, &[BlockArg::Value(object)]);
        b.switch_to_block(head);
        b.ins().brif(outer, body, &[BlockArg::Value(outer)], end, &[]);
        b.switch_to_block(body);
        b.ins().jump(head, &[BlockArg::Value(inner)]);
        // What nothing reaches takes part in nothing.
        b.switch_to_block(dead);
        let other = b.ins().iconst(I64, 1);
        b.ins().jump(head, &[BlockArg::Value(other)]);
        b.switch_to_block(end);
        b.ins().return_(&[]);
        b.seal_all_blocks();
        remove(b.func).expect("nothing is verified");
        let isa = crate::flags::isa("none").expect("this machine");
        b.finalize(isa.frontend_config());
        cranelift_codegen::verify_function(&func, &*isa).expect("correct");
        assert!([head, body].iter().all(|block| func.dfg.block_params(*block).is_empty()));
        assert!(func.layout.blocks().all(|block| block != dead));
    }
}
