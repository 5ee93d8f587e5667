//! minigo: a subset of Go 1.19, compiled with Cranelift, that embeds Stackmark. It is the language
//! runtime through which the library is tested.
//!
//! `front` reads and checks a program, `codegen` compiles it, `module` makes the machine code with
//! its CFI and stack maps (`code`), `runtime` is what compiled code calls.

mod cgo;
mod code;
mod codegen;
mod error;
mod escape;
mod exact;
mod front;
mod init_order;
mod module;
mod options;
mod report;
mod runtime;
mod stack_addresses;
mod types;
mod walk;

pub use options::{
    BarrierKind, BarrierMode, Detection, Generational, Options, ReturnProtection, Stress,
};

/// Compiles and runs a program, which ends the process. Returns, with a message, only if it cannot
/// be run.
pub fn run(options: &Options) -> String {
    let program = match front::check(&options.file) {
        Ok(p) => p,
        Err(e) => return e.to_string(),
    };
    if let Err(e) = runtime::host::init(options) {
        return format!("minigo: {e}");
    }
    let symbols =
        program.c.as_ref().map(|unit| cgo::library::load(&program, unit, &runtime::host::hooks()));
    let symbols = match symbols.transpose() {
        Ok(s) => s,
        Err(e) => return e.to_string(),
    };
    let code = match codegen::compile(&program, symbols.as_ref()) {
        Ok(c) => c,
        Err(e) => return e.to_string(),
    };
    match runtime::host::run(code) {
        Ok(()) => String::new(),
        Err(e) => format!("minigo: {e}"),
    }
}
