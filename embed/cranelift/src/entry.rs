//! How managed code is entered: by a goroutine's start, by a callback, and with a large frame.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, MemFlagsData, types::I64};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use stackmark::stack::{asm::layout, poll};

use crate::declarations::{Declarations, Declared};
use crate::error::CompileError;
use crate::function::{self, Function, Start};
use crate::identity::FuncId;
use crate::kind::{INT, REF, Signature};

/// An entry of a function: itself a function of the module, and its code.
pub(crate) struct Entry {
    pub(crate) id: FuncId,
    pub(crate) func: ir::Function,
}

/// Declares an entry and builds it.
///
/// # Errors
/// Those of `body`. Nothing is declared then.
fn entry(
    declarations: &mut Declarations,
    name: &str,
    signature: Signature,
    start: Start,
    body: impl FnOnce(&mut Function<'_>) -> Result<(), CompileError>,
) -> Result<Entry, CompileError> {
    let id = declarations.declare(name, signature);
    match function::build(declarations, id, start, body) {
        Ok(func) => Ok(Entry { id, func }),
        Err(error) => {
            declarations.forget(id);
            Err(error)
        }
    }
}

/// What a goroutine begins with, `start(goroutine, argument)`, for a function of at most one
/// parameter.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn start(
    declarations: &mut Declarations,
    id: FuncId,
) -> Result<Option<Entry>, CompileError> {
    let Declared { name, signature } = declarations.get(id);
    let (name, params) = (format!("{name}.start"), signature.params().to_vec());
    // The argument comes as a word, whatever register the function takes it in.
    let takes = match params[..] {
        [] => INT,
        [param] if param.is_reference() => REF,
        [_] => INT,
        _ => return Ok(None),
    };
    let own = Signature::new(&[INT, takes], &[INT])?;
    let entry = entry(declarations, &name, own, Start::Goroutine, |f| {
        let word = f.param(1);
        let arguments: Vec<_> = params.iter().map(|param| f.of_word(*param, word)).collect();
        let result = match f.call(id, &arguments)?.first() {
            Some(result) => f.to_word(*result),
            None => f.int(0),
        };
        f.return_(&[result])
    })?;
    Ok(Some(entry))
}

/// What native code calls back, `back(block)`. The block holds the goroutine, the arguments and
/// room for the results, each in a word.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn back(declarations: &mut Declarations, id: FuncId) -> Result<Entry, CompileError> {
    let Declared { name, signature } = declarations.get(id);
    let (name, params) = (format!("{name}.back"), signature.params().to_vec());
    let own = Signature::new(&[INT], &[INT])?;
    entry(declarations, &name, own, Start::Callback, |f| {
        let block = f.param(0);
        let mut offset = 8;
        let mut arguments = Vec::new();
        for param in params {
            arguments.push(f.load(param, block, offset));
            offset += 8;
        }
        for result in f.call(id, &arguments)? {
            let word = f.to_word(result);
            f.store_plain(word, block, offset);
            offset += 8;
        }
        let zero = f.int(0);
        f.return_(&[zero])
    })
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
    let constants = declarations.constants(&mut func);
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
    // The stack pointer lies below this function's own frame.
    let needed = i64::from(frame) + CALLS;
    let goroutine = b.ins().get_pinned_reg(I64);
    let sp = b.ins().get_stack_pointer(I64);
    let low = b.ins().iadd_imm_s(sp, -needed);
    let at = layout::G_STACK_LIMIT as i32;
    let limit = b.ins().load(I64, MemFlagsData::trusted(), goroutine, at);
    let short = b.ins().icmp(IntCC::UnsignedLessThan, low, limit);
    b.set_cold_block(cold);
    b.ins().brif(short, cold, &[], go_on, &[]);
    b.switch_to_block(cold);
    let function = constants.value(&mut b, poll as *const () as usize);
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

/// Room for the calls that the entry makes, in bytes.
const CALLS: i64 = 64;
