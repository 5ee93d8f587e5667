//! How managed code is entered: by a goroutine's start, by a callback, and with a large frame.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, MemFlagsData, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::FuncId;
use stackmark::stack::{asm::layout, poll};

use crate::declarations::{Declarations, Declared};
use crate::error::CompileError;
use crate::function::{self, Start};
use crate::kind::{INT, Signature};

/// What a goroutine begins with, `start(goroutine, argument)`, for a function of at most one
/// parameter.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn start(
    declarations: &mut Declarations,
    id: FuncId,
) -> Result<Option<(FuncId, ir::Function)>, CompileError> {
    let Declared { name, signature } = declarations.get(id);
    let (name, signature) = (format!("{name}.start"), signature.clone());
    let takes = match signature.params() {
        [] => INT,
        [param] => *param,
        _ => return Ok(None),
    };
    let start = declarations.declare(&name, Signature::new(&[INT, takes], &[INT])?);
    let func = function::build(declarations, start, Start::Goroutine, |f| {
        let arguments: Vec<_> = signature.params().iter().map(|_| f.param(1)).collect();
        let results = f.call(id, &arguments)?;
        let result = match results.first() {
            Some(result) if signature.results()[0].clif() == I64 => *result,
            _ => f.int(0),
        };
        f.return_(&[result])
    })?;
    Ok(Some((start, func)))
}

/// What native code calls back, `back(block)`. The block holds the goroutine, the arguments and
/// room for the results.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn back(
    declarations: &mut Declarations,
    id: FuncId,
) -> Result<(FuncId, ir::Function), CompileError> {
    let Declared { name, signature } = declarations.get(id);
    let (name, signature) = (format!("{name}.back"), signature.clone());
    let back = declarations.declare(&name, Signature::new(&[INT], &[INT])?);
    let func = function::build(declarations, back, Start::Callback, |f| {
        let block = f.param(0);
        let mut offset = 8;
        let mut arguments = Vec::new();
        for param in signature.params() {
            arguments.push(f.load(*param, block, offset));
            offset += 8;
        }
        for result in f.call(id, &arguments)? {
            f.store_plain(result, block, offset);
            offset += 8;
        }
        let zero = f.int(0);
        f.return_(&[zero])
    })?;
    Ok((back, func))
}

/// The entry of a function whose frame of `frame` bytes is too large for the room that a prologue's
/// check makes sure of. It asks for the room, then calls the function, which is `body`. The room is
/// there also if the goroutine was parked in the poll: the library does not shrink a stack below
/// what a poll asked for.
pub(crate) fn large_frame(
    declarations: &mut Declarations,
    id: FuncId,
    body: FuncId,
    frame: u32,
) -> ir::Function {
    let signature = declarations.get(id).signature.clone();
    let mut func = declarations.empty(id);
    let mut context = FunctionBuilderContext::new();
    let call_system = declarations.call_system(&mut func);
    let body = declarations.reference(body, &mut func);
    let mut b = FunctionBuilder::new(&mut func, &mut context);
    let [start, cold, go_on] = [(); 3].map(|()| b.create_block());
    b.append_block_params_for_function_params(start);
    b.switch_to_block(start);
    let params = b.block_params(start).to_vec();
    for (param, kind) in params.iter().zip(signature.params()) {
        if kind.is_reference() {
            b.declare_value_needs_stack_map(*param);
        }
    }
    // The frame of this function is small, and lies above the other.
    let needed = i64::from(frame) + OWN_FRAME;
    let goroutine = b.ins().get_pinned_reg(I64);
    let sp = b.ins().get_stack_pointer(I64);
    let low = b.ins().iadd_imm_s(sp, -needed);
    let at = layout::G_STACK_LIMIT as i32;
    let limit = b.ins().load(I64, MemFlagsData::trusted(), goroutine, at);
    let short = b.ins().icmp(IntCC::UnsignedLessThan, low, limit);
    b.set_cold_block(cold);
    b.ins().brif(short, cold, &[], go_on, &[]);
    b.switch_to_block(cold);
    let function = b.ins().iconst(I64, poll as *const () as i64);
    let bytes = b.ins().iconst(I64, needed);
    let zero = b.ins().iconst(I64, 0);
    b.ins().call(call_system, &[function, bytes, zero]);
    b.ins().jump(go_on, &[]);
    b.switch_to_block(go_on);
    let call = b.ins().call(body, &params);
    let results = b.inst_results(call).to_vec();
    b.ins().return_(&results);
    b.seal_all_blocks();
    b.finalize(declarations.frontend_config());
    func
}

/// Room for the entry's own frame, in bytes.
const OWN_FRAME: i64 = 64;
