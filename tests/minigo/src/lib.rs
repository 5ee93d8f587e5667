//! minigo: a subset of Go 1.19, compiled with Cranelift, that embeds Stackmark. It is the language
//! runtime through which the library is tested.
//!
//! `front` reads and checks a program, `codegen` compiles it, `module` makes the machine code with
//! its CFI and stack maps (`code`), `runtime` is what compiled code calls, `os` is the system.

mod build;
mod cgo;
mod code;
mod codegen;
mod command;
mod error;
mod escape;
mod exact;
mod front;
mod image;
mod init_order;
mod module;
mod object_file;
mod options;
mod os;
mod recursion;
mod report;
mod runtime;
mod types;
mod walk;

pub use build::{Build, build, run_built};
pub use command::Runs;
pub use options::{
    BarrierKind, BarrierMode, Detection, Generational, Options, ReturnProtection, Stress, threads,
};

pub use runtime::host::Heap;
pub use stackmark::stack;

/// Why a program is not run.
#[derive(Debug)]
pub struct NotRun {
    /// For standard error.
    pub message: String,
    /// The exit status: 1 where the program is wrong, 2 where the system fails.
    pub status: u8,
}

impl NotRun {
    fn program(error: &error::CompileError) -> NotRun {
        NotRun { message: error.to_string(), status: 1 }
    }

    fn system(error: &dyn std::error::Error) -> NotRun {
        NotRun { message: format!("minigo: {error}"), status: 2 }
    }

    /// Writes the message to standard error.
    pub fn report(&self) {
        runtime::output::error(format!("{}\n", self.message).as_bytes());
    }
}

/// Calls `f`, which is to [`run`] or [`build`] a program, where the stack has room for deep
/// sources. The first thread of a process has that room on some systems only.
///
/// # Panics
/// As `f` does; and if the system gives no thread.
pub fn on_large_stack<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    os::on_large_stack(f)
}

/// Compiles and runs a program, which ends the process. Returns only if it cannot be run.
pub fn run(options: &Options) -> NotRun {
    compile_and_run(options, None)
}

/// As [`run`], on a heap in the place of the library's. Options that are for that have no effect;
/// goroutines are no threads.
pub fn run_on(options: &Options, heap: Box<dyn Heap>) -> NotRun {
    compile_and_run(&Options { native_stacks: false, ..options.clone() }, Some(heap))
}

fn compile_and_run(options: &Options, heap: Option<Box<dyn Heap>>) -> NotRun {
    let program = match front::check(&options.file) {
        Ok(p) => p,
        Err(e) => return NotRun::program(&e),
    };
    if let Err(e) = runtime::host::init(options, heap) {
        return NotRun::system(&*e);
    }
    let keep = options.c_library.as_deref();
    let symbols = program
        .c
        .as_ref()
        .map(|unit| cgo::library::load(&program, unit, &runtime::host::hooks(), keep));
    let symbols = match symbols.transpose() {
        Ok(s) => s,
        Err(e) => return NotRun::program(&e),
    };
    let code = match codegen::compile(&program, symbols.as_ref()) {
        Ok(c) => c,
        Err(e) => return NotRun::program(&e),
    };
    match runtime::host::run(code) {
        Err(e) => NotRun::system(&*e),
    }
}
