//! One function: from Cranelift's IR to machine code, safepoints, CFI, landing pads and lines.
//!
//! In two steps. The first optimises; then stack addresses are rematerialised, and checked; the
//! second compiles with a back end that optimises no more and so merges no address again.

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Block, Function};
use cranelift_codegen::isa::unwind::{UnwindInfo, UnwindInfoKind};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa, TargetIsa};
use cranelift_codegen::{
    CodegenError, Context, Final, FinalizedMachExceptionHandler, MachBufferFinalized, MachSrcLoc,
};
use cranelift_module::{FuncId, ModuleReloc, ModuleRelocTarget};
use gimli::write::Address;
use stackmark::unwind::stack_map::cranelift::{self, FRAME_RECORD, unwind_info};
use stackmark::unwind::{Safepoint, Vectors};

use crate::check;
use crate::convention::is_of_windows;
use crate::error::CompileError;
use crate::isolation;
use crate::known;
use crate::regions;
use crate::reloads;
use crate::rematerialise::rematerialise;

/// The machine, for both steps.
pub(crate) struct Backends {
    pub(crate) optimising: OwnedTargetIsa,
    pub(crate) plain: OwnedTargetIsa,
    /// Object files are written by a module that makes the code itself.
    pub(crate) keeps_functions: bool,
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
    /// What Windows has instead, if the machine's system is that.
    pub(crate) unwind_info: Option<Vec<u8>>,
    pub(crate) vectors: Vectors,
    pub(crate) lines: Vec<(u32, u32)>,
    /// The optimised function, if [`Backends::keeps_functions`] says so.
    pub(crate) func: Option<Function>,
}

impl Compiled {
    /// The code that was compiled as one function, as another's.
    pub(crate) fn under(mut self, was: FuncId, id: FuncId) -> Compiled {
        for relocation in &mut self.relocations {
            if let ModuleRelocTarget::FunctionOffset(of, _) = &mut relocation.name
                && *of == was
            {
                *of = id;
            }
        }
        self
    }
}

/// The first step: optimises, makes addresses of the stack anew, and cuts what is reached from
/// `isolated` off, which is entered with unknown registers. With `checked`, checks what comes out.
///
/// # Errors
/// [`CompileError`].
pub(crate) fn optimise(
    optimising: &dyn TargetIsa,
    name: &str,
    context: &mut Context,
    isolated: Option<Block>,
    checked: bool,
) -> Result<(), CompileError> {
    let refused = |error| CompileError::Cranelift { function: name.to_owned(), error };
    let failed = |error: CodegenError| refused(error.to_string());
    // What is entered from elsewhere uses no value that was loaded or known before.
    if isolated.is_none() {
        reloads::merge(&mut context.func);
        regions::gather(&mut context.func);
    }
    context.optimize(optimising, &mut ControlPlane::default()).map_err(failed)?;
    if isolated.is_none() && known::follow_known(&mut context.func) {
        context.compute_cfg();
        context.compute_domtree();
        context.eliminate_unreachable_code(optimising).map_err(failed)?;
    }
    reloads::drop_unused(&mut context.func);
    rematerialise(&mut context.func);
    if let Some(start) = isolated {
        isolation::isolate(name, &mut context.func, start)?;
    }
    if checked {
        check::check(name, &context.func)?;
    }
    Ok(())
}

/// The safepoints of compiled code, with offsets as return addresses, and the bytes that it takes
/// of the stack, its frame record and the pushed return address of its calls included.
pub(crate) fn safepoints(buffer: &MachBufferFinalized<Final>) -> (Vec<Safepoint>, u32) {
    let span = buffer.frame_layout().map_or(0, |layout| layout.frame_to_fp_offset);
    let maps: Vec<(u32, u32, Vec<u32>)> = buffer
        .user_stack_maps()
        .iter()
        .map(|(at, span, map)| (*at, *span, map.entries().map(|(_, slot)| slot).collect()))
        .collect();
    let largest = maps.iter().map(|(_, span, _)| *span).max().unwrap_or(0).max(span);
    // Calls over which nothing is live have no map, but are safepoints.
    let calls = buffer.call_sites().map(|site| site.ret_addr);
    (cranelift::safepoints(0, span, calls, maps), largest + FRAME_RECORD)
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
    checked: bool,
) -> Result<Compiled, CompileError> {
    let refused = |error: String| CompileError::Cranelift { function: name.to_owned(), error };
    let mut context = Context::for_function(func);
    optimise(&*backends.optimising, name, &mut context, isolated, checked)?;
    let optimised = backends.keeps_functions.then(|| context.func.clone());
    if let Err(error) = context.compile(&*backends.plain, &mut ControlPlane::default()) {
        return Err(refused(error.inner.to_string()));
    }
    let code = context.compiled_code().expect("compiled just now");
    let buffer = &code.buffer;
    let (safepoints, frame) = safepoints(buffer);
    let mut landing_pads = Vec::new();
    for site in buffer.call_sites() {
        for handler in site.exception_handlers {
            if let FinalizedMachExceptionHandler::Default(pad) = handler {
                landing_pads.push((site.ret_addr, *pad));
            }
        }
    }
    let plain = &*backends.plain;
    let unwind = code.create_unwind_info_of_kind(plain, UnwindInfoKind::SystemV);
    let unwind = unwind.map_err(|error| refused(format!("no unwind information: {error}")))?;
    let unwind_info = match &unwind {
        Some(UnwindInfo::SystemV(cfi)) if is_of_windows(plain.default_call_conv()) => {
            let entry = cfi.to_fde(Address::Constant(0));
            let info = plain.create_systemv_cie().and_then(|cie| unwind_info(cie, entry));
            Some(info.ok_or_else(|| refused("no unwind information for Windows".to_owned()))?)
        }
        _ => None,
    };
    Ok(Compiled {
        name: name.to_owned(),
        bytes: buffer.data().to_vec(),
        alignment: u64::from(buffer.alignment).max(16),
        relocations: buffer
            .relocs()
            .iter()
            .map(|reloc| ModuleReloc::from_mach_reloc(reloc, &context.func, id))
            .collect(),
        frame,
        safepoints,
        landing_pads,
        unwind,
        unwind_info,
        // Cranelift has no types of more than 128 bits.
        vectors: match context.func.signature.call_conv {
            CallConv::SystemV => Vectors::Results,
            _ => Vectors::Narrow,
        },
        lines: lines(buffer.get_srclocs_sorted()),
        func: optimised,
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
