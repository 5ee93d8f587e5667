//! The settings of Cranelift under which its code keeps the contracts.

use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};

use crate::convention::is_of_windows;
use crate::error::ModuleError;

/// What managed code needs of Cranelift, whatever else an embedder sets.
pub const REQUIRED: &[(&str, &str)] = &[
    // The pinned register holds the goroutine.
    ("enable_pinned_reg", "true"),
    // Frames are walked, and moved, by their frame pointers.
    ("preserve_frame_pointers", "true"),
    ("unwind_info", "true"),
    // Addresses of the library are constants.
    ("is_pic", "false"),
    // The prologue's check makes sure of the room. Modules for threads' own stacks have probes on
    // Windows nevertheless.
    ("enable_probestack", "false"),
];

/// What only some machines have settings for: signed return addresses, and landing pads for jumps.
const PROTECTS: [&str; 2] = ["sign_return_address", "use_bti"];

/// This machine, with the [required](REQUIRED) settings, for `opt_level`: `none`, `speed` or
/// `speed_and_size`.
///
/// # Errors
/// [`ModuleError::Machine`], [`ModuleError::Setting`].
pub fn isa(opt_level: &str) -> Result<OwnedTargetIsa, ModuleError> {
    with(&[("opt_level", opt_level)], false, false)
}

/// As [`isa`]; the code signs its return addresses, and checks them before it returns, where the
/// machine can (arm64 PAC, key A). It also has landing pads for jumps (BTI), and lies on pages that
/// are guarded.
///
/// # Errors
/// As [`isa`].
pub fn isa_that_signs_returns(opt_level: &str) -> Result<OwnedTargetIsa, ModuleError> {
    with(&[("opt_level", opt_level)], true, false)
}

/// As [`isa`], for object files, whose addresses the linker fills in.
///
/// # Errors
/// As [`isa`].
pub fn object_isa(opt_level: &str) -> Result<OwnedTargetIsa, ModuleError> {
    with(&[("opt_level", opt_level), ("is_pic", "true")], false, false)
}

/// For a module whose code signs its return addresses, or runs on the stacks of threads.
///
/// # Errors
/// As [`isa`].
pub(crate) fn for_module(
    opt_level: &str,
    signs_returns: bool,
    on_threads: bool,
) -> Result<OwnedTargetIsa, ModuleError> {
    with(&[("opt_level", opt_level)], signs_returns, on_threads)
}

/// What lets Windows commit a thread's stack below a large frame, page by page. Goroutines' stacks
/// are committed before they are used. A walk that begins at a probe, as a debugger's may, does not
/// find the caller.
const PROBES: [(&str, &str); 2] =
    [("enable_probestack", "true"), ("probestack_strategy", "inline")];

/// This machine, with the required settings and then these, for goroutines' stacks or threads'.
fn with(
    more: &[(&str, &str)],
    signs_returns: bool,
    on_threads: bool,
) -> Result<OwnedTargetIsa, ModuleError> {
    let unsupported = |error: &dyn std::fmt::Display| ModuleError::Machine(error.to_string());
    let mut machine = cranelift_native::builder().map_err(|error| unsupported(&error))?;
    let probes = on_threads && is_of_windows(CallConv::triple_default(machine.triple()));
    let probes: &[_] = if probes { &PROBES } else { &[] };
    let mut flags = settings::builder();
    for (name, value) in REQUIRED.iter().chain(more).chain(probes) {
        flags.set(name, value).map_err(|error| ModuleError::Setting {
            name: (*name).into(),
            value: (*value).into(),
            error: error.to_string(),
        })?;
    }
    if signs_returns {
        // Machines without signatures do not know the settings.
        for setting in PROTECTS {
            let _ = machine.enable(setting);
        }
    }
    machine.finish(settings::Flags::new(flags)).map_err(|error| unsupported(&error))
}
