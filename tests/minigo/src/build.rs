//! The command `minigo build`: an executable of a program, by Cranelift and the system's linker.

use crate::codegen;
use crate::front;
use crate::image::Image;
use crate::object_file::{FUNCTIONS, IMAGE};
use crate::options::Options;
use crate::os::{self, Missing};
use crate::runtime::host;
use crate::{NotRun, error::CompileError};
use stackmark_cranelift::linked::TABLE;
use std::convert::Infallible;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The archive of the package `minigo-runtime`, which lies beside the command.
const RUNTIME: &str = "libminigo_runtime.a";

/// What is built, and of what.
#[derive(Clone, Debug)]
pub struct Build {
    /// The program.
    pub file: PathBuf,
    /// The executable.
    pub output: PathBuf,
    /// The runtime's archive; `None`: the one beside the command.
    pub runtime: Option<PathBuf>,
}

/// Builds an executable, by the C compiler of `CC`, or `cc`.
///
/// # Errors
/// The program is wrong or has C code; the system or the linker refuses.
pub fn build(build: &Build) -> Result<(), NotRun> {
    os::has(Missing::Executables).map_err(|error| NotRun::system(&error))?;
    let program = front::check(&build.file).map_err(|error| NotRun::program(&error))?;
    if program.c.is_some() {
        let place = build.file.display().to_string();
        let message = "programs with C code are not built ahead of time".into();
        return Err(NotRun::program(&CompileError { place, message }));
    }
    // What is compiled refers to a heap of this process, which is not used.
    host::init(&Options::default(), None).map_err(|error| NotRun::system(&*error))?;
    let object = codegen::build(&program).map_err(|error| NotRun::program(&error))?;
    link(build, &object).map_err(|error| NotRun::system(&*error))
}

fn link(build: &Build, object: &[u8]) -> Result<(), Box<dyn Error>> {
    let runtime = match &build.runtime {
        Some(runtime) => runtime.clone(),
        None => std::env::current_exe()?.with_file_name(RUNTIME),
    };
    if !runtime.is_file() {
        let runtime = runtime.display();
        return Err(format!("{runtime} is missing: cargo build -p minigo-runtime makes it").into());
    }
    let beside = |extension: &str| build.output.with_extension(extension);
    let (object_file, main) = (beside("minigo.o"), beside("minigo.c"));
    std::fs::write(&object_file, object)?;
    std::fs::write(
        &main,
        format!(
            "extern char {TABLE}[], {FUNCTIONS}[], {IMAGE}[];\n\
             int minigo_main(void *, void *, void *);\n\
             int main(void) {{ return minigo_main({TABLE}, {FUNCTIONS}, {IMAGE}); }}\n"
        ),
    )?;
    let linked = linked(build, &runtime, &[&main, &object_file]);
    std::fs::remove_file(&object_file)?;
    std::fs::remove_file(&main)?;
    linked
}

fn linked(build: &Build, runtime: &Path, files: &[&Path]) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()));
    command.args(files).arg(runtime).arg("-o").arg(&build.output);
    // Cranelift's CFI has absolute addresses. What tracebacks name lies in the image: symbols would
    // only be read.
    command.args(["-no-pie", "-s", "-Wl,--gc-sections", "-lpthread", "-ldl", "-lm"]);
    let out = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if out.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&out.stderr);
    Err(format!("{command:?}: {}\n{text}", out.status).into())
}

/// Runs a program that was built, in the process that is it, with the options of its command line.
/// Returns only if it cannot be run.
///
/// # Safety
/// Called once in the process. These are the symbols of the program, which was linked with this
/// library.
pub unsafe fn run_built(
    addresses: *mut usize,
    functions: *const usize,
    image: *const u8,
) -> NotRun {
    let options = crate::command::of_built();
    // SAFETY: our contract.
    match unsafe { begin(&options, addresses, functions, image) } {
        Err(error) => NotRun::system(&*error),
    }
}

/// # Safety
/// As for [`run_built`].
unsafe fn begin(
    options: &Options,
    addresses: *mut usize,
    functions: *const usize,
    image: *const u8,
) -> Result<Infallible, Box<dyn Error>> {
    host::init(options, None)?;
    // SAFETY: our contract.
    let image = unsafe { Image::read(image)? };
    let (words, count) = image.counts();
    // SAFETY: our contract: the tables have a word for each. No managed code runs yet.
    let (table, functions) = unsafe {
        (
            std::slice::from_raw_parts_mut(addresses, words),
            std::slice::from_raw_parts(functions, count),
        )
    };
    let code = image.begin(table, functions)?;
    host::register_image(code.entry)?;
    host::run(code)
}
