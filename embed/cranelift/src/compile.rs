//! One function: from Cranelift's IR to machine code, safepoints, CFI, landing pads and lines.
//!
//! In two steps. The first optimises; then stack addresses are rematerialised, and checked; the
//! second compiles with a back end that optimises no more and so merges no address again.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Block, Function};
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::{Context, Final, FinalizedMachExceptionHandler, MachSrcLoc};
use cranelift_module::{FuncId, ModuleReloc};
use stackmark::unwind::Safepoint;
use stackmark::unwind::stack_map::cranelift::{self, FRAME_RECORD};

use crate::check;
use crate::error::CompileError;
use crate::isolation;
use crate::kind::Signature;
use crate::rematerialise::rematerialise;

/// The machine, for both steps.
pub(crate) struct Backends {
    pub(crate) optimising: OwnedTargetIsa,
    pub(crate) plain: OwnedTargetIsa,
}

/// The machine code of one function, and what belongs to it. All offsets are from its start.
pub(crate) struct Compiled {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    pub(crate) alignment: u64,
    pub(crate) relocations: Vec<ModuleReloc>,
    /// Bytes that the function takes of the stack, its frame record and the pushed return address
    /// of its calls included.
    pub(crate) frame: u32,
    /// With offsets as return addresses.
    pub(crate) safepoints: Vec<Safepoint>,
    /// Return addresses of calls that have a landing pad, and the pads.
    pub(crate) landing_pads: Vec<(u32, u32)>,
    pub(crate) unwind: Option<UnwindInfo>,
    pub(crate) lines: Vec<(u32, u32)>,
}

/// What the check of optimised code knows.
pub(crate) struct Known<'k> {
    /// The function's own signature.
    pub(crate) own: &'k Signature,
    /// The signatures of the module's functions, by their numbers.
    pub(crate) signature: &'k dyn Fn(u32) -> Option<Signature>,
}

/// Compiles `func`. What is reached from `isolated` is entered with unknown registers.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn compile(
    backends: &Backends,
    id: FuncId,
    name: &str,
    func: Function,
    isolated: Option<Block>,
    checked: Option<Known<'_>>,
) -> Result<Compiled, CompileError> {
    let refused = |error: String| CompileError::Cranelift { function: name.to_owned(), error };
    let mut context = Context::for_function(func);
    let mut plane = ControlPlane::default();
    context
        .optimize(&*backends.optimising, &mut plane)
        .map_err(|error| refused(error.to_string()))?;
    rematerialise(&mut context.func);
    if let Some(start) = isolated {
        isolation::isolate(name, &mut context.func, start)?;
    }
    if let Some(Known { own, signature }) = checked {
        check::check(name, &context.func, own, signature)?;
    }
    if let Err(error) = context.compile(&*backends.plain, &mut plane) {
        return Err(refused(error.inner.to_string()));
    }
    let code = context.compiled_code().expect("compiled just now");
    let buffer = &code.buffer;
    let span = buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset);
    let maps: Vec<(u32, u32, Vec<u32>)> = buffer
        .user_stack_maps()
        .iter()
        .map(|(at, span, map)| (*at, *span, map.entries().map(|(_, slot)| slot).collect()))
        .collect();
    let largest = maps.iter().map(|(_, span, _)| *span).max().unwrap_or(0).max(span);
    let mut landing_pads = Vec::new();
    for site in buffer.call_sites() {
        for handler in site.exception_handlers {
            if let FinalizedMachExceptionHandler::Default(pad) = handler {
                landing_pads.push((site.ret_addr, *pad));
            }
        }
    }
    // Calls over which nothing is live have no map, but are safepoints.
    let calls = buffer.call_sites().map(|site| site.ret_addr);
    let safepoints = cranelift::safepoints(0, span, calls, maps);
    let unwind = code
        .create_unwind_info(&*backends.plain)
        .map_err(|error| refused(format!("no unwind information: {error}")))?;
    Ok(Compiled {
        name: name.to_owned(),
        bytes: buffer.data().to_vec(),
        alignment: u64::from(buffer.alignment).max(16),
        relocations: buffer
            .relocs()
            .iter()
            .map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id))
            .collect(),
        frame: largest + FRAME_RECORD,
        safepoints,
        landing_pads,
        unwind,
        lines: lines(buffer.get_srclocs_sorted()),
    })
}

/// Where the source location changes: offsets and locations, 0 for none.
fn lines(locations: &[MachSrcLoc<Final>]) -> Vec<(u32, u32)> {
    let mut lines: Vec<(u32, u32)> = Vec::new();
    let mut end = 0;
    let mut add = |at, line| {
        if lines.last().is_none_or(|last| last.1 != line) {
            lines.push((at, line));
        }
    };
    for location in locations {
        if location.start > end {
            add(end, 0);
        }
        end = location.end;
        add(location.start, if location.loc.is_default() { 0 } else { location.loc.bits() });
    }
    lines
}
