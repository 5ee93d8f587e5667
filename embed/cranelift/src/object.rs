//! Stack maps in object files, for code that Cranelift compiles ahead of time.
//!
//! `cranelift-object` writes the code, and its CFI if it is told to (`unwind_info`). [`ObjectMaps`]
//! compiles functions as a [`Module`](crate::Module) does, and makes the section
//! `.stackmark_maps`. A linker makes a program or a shared object of it, whose code
//! [`Runtime::register_image`](stackmark::stack::Runtime::register_image) then registers.
//!
//! The front end builds its functions itself and keeps the contracts. [`flags::object_isa`] makes
//! the settings. Addresses of the library are not constants then: the embedder hands them over.
//!
//! [`flags::object_isa`]: crate::flags::object_isa

use cranelift_codegen::Context;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::settings::OptLevel;
use cranelift_module::{FuncId, Module};
use stackmark::stack::MAX_FRAME;
use stackmark::unwind::stack_map::object::{self, FunctionMaps};

use crate::compile::{optimise, safepoints};
use crate::convention::is_of_windows;
use crate::error::CompileError;

/// The maps of the functions of one object file.
#[derive(Clone, Debug, Default)]
pub struct ObjectMaps {
    functions: Vec<(FuncId, FunctionMaps)>,
}

impl ObjectMaps {
    /// Those of no function.
    pub fn new() -> ObjectMaps {
        ObjectMaps::default()
    }

    /// Compiles the function in `context` as `id`, in two steps: `optimising` optimises, the
    /// module's own machine, whose level is `none`, makes the code. In debug builds the optimised
    /// code is checked, as by [`Options::checked`](crate::Options::checked). The module keeps the
    /// code; the context can be cleared.
    ///
    /// # Errors
    /// [`CompileError::Cranelift`], [`CompileError::Held`]; [`CompileError::Place`] if the module
    /// refuses the code; [`CompileError::Frame`] for a frame of more than [`MAX_FRAME`] bytes: the
    /// object file is of no use then; [`CompileError::NoImages`] for Windows.
    pub fn define_function(
        &mut self,
        module: &mut impl Module,
        optimising: &dyn TargetIsa,
        id: FuncId,
        context: &mut Context,
    ) -> Result<(), CompileError> {
        let name = module.declarations().get_function_decl(id).linkage_name(id).into_owned();
        if is_of_windows(module.isa().default_call_conv()) {
            return Err(CompileError::NoImages { function: name });
        }
        if module.isa().flags().opt_level() != OptLevel::None {
            let error = "the module's own machine optimises again".into();
            return Err(CompileError::Cranelift { function: name, error });
        }
        optimise(optimising, &name, context, None, cfg!(debug_assertions))?;
        if let Err(error) = module.define_function(id, context) {
            return Err(CompileError::Place { function: name, error: error.to_string() });
        }
        let code = context.compiled_code().expect("compiled just now");
        let (safepoints, bytes) = safepoints(&code.buffer);
        if bytes as usize > MAX_FRAME {
            return Err(CompileError::Frame { function: name, bytes, limit: MAX_FRAME });
        }
        self.functions.push((id, FunctionMaps { safepoints, ..FunctionMaps::default() }));
        Ok(())
    }

    /// The section's contents. It goes into each object file once, as data that is writable, since
    /// the loader relocates it, and aligned to 8 bytes. No code refers to it: `--gc-sections` drops
    /// it unless the data is `used` and the ELF file's OS ABI, its byte 7, is GNU's, 3.
    pub fn section(self) -> MapsSection {
        section(self.functions)
    }
}

/// The section with the maps of these functions.
pub(crate) fn section(functions: Vec<(FuncId, FunctionMaps)>) -> MapsSection {
    let (ids, maps): (Vec<FuncId>, Vec<FunctionMaps>) = functions.into_iter().unzip();
    let (bytes, offsets) = object::write(&maps);
    MapsSection { bytes, functions: ids.into_iter().zip(offsets).collect() }
}

/// The contents of the section of stack maps, for the version of `cranelift-module` that the
/// embedder has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapsSection {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Functions, and the offsets at which the section holds their addresses.
    pub functions: Vec<(FuncId, u32)>,
}

/// The section's name.
pub const SECTION: &str = object::SECTION;
