//! The object file of a program, by `cranelift-object`.

use cranelift_module::{DataDescription, FuncId, Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use stackmark_cranelift::linked::ObjectCode;
use stackmark_cranelift::object::SECTION;
use stackmark_cranelift::{ModuleError, flags};

/// The symbols of a program that its `main` hands to the runtime: the words with the addresses of
/// its functions, and its image. The third is the crate's table of addresses.
pub(crate) const FUNCTIONS: &str = "minigo_functions";
pub(crate) const IMAGE: &str = "minigo_image";

/// An empty one.
pub(crate) fn module() -> Result<ObjectModule, ModuleError> {
    let failed = |error: cranelift_module::ModuleError| ModuleError::Machine(error.to_string());
    let machine = flags::object_isa("none")?;
    let mut builder =
        ObjectBuilder::new(machine, "minigo", default_libcall_names()).map_err(failed)?;
    builder.unwind_info(true);
    Ok(ObjectModule::new(builder))
}

/// Where an ELF file says whose it is. In GNU's, `used` data survives `--gc-sections`.
const EI_OSABI: usize = 7;
const ELFOSABI_GNU: u8 = 3;

/// The file's contents, with what belongs to the code.
///
/// # Errors
/// What Cranelift says.
pub(crate) fn write(
    mut module: ObjectModule,
    code: ObjectCode,
    image: &[u8],
) -> Result<Vec<u8>, String> {
    let failed = |error: cranelift_module::ModuleError| error.to_string();
    let words = |count: usize| {
        let mut data = DataDescription::new();
        data.define_zeroinit(8 * count.max(1));
        data.set_align(8);
        data
    };
    module.define_data(code.table, &words(code.addresses.len())).map_err(failed)?;
    let addressed = |data: &mut DataDescription, functions: &[(FuncId, u32)]| {
        for (id, at) in functions {
            let function = module.declare_func_in_data(*id, data);
            data.write_function_addr(*at, function);
        }
    };
    let mut functions = DataDescription::new();
    functions.define(vec![0; 8 * code.functions.len().max(1)].into());
    functions.set_align(8);
    let places: Vec<_> =
        code.functions.iter().enumerate().map(|(i, f)| (f.symbol, 8 * i as u32)).collect();
    addressed(&mut functions, &places);
    let mut maps = DataDescription::new();
    maps.define(code.maps.bytes.into());
    maps.set_align(8);
    maps.set_custom_section(SECTION);
    maps.set_used(true);
    addressed(&mut maps, &code.maps.functions);
    let mut text = DataDescription::new();
    text.define(image.into());
    text.set_align(8);
    for (name, linkage, writable, data) in [
        (FUNCTIONS, Linkage::Export, true, functions),
        (IMAGE, Linkage::Export, false, text),
        ("stackmark_maps", Linkage::Local, true, maps),
    ] {
        let id = module.declare_data(name, linkage, writable, false).map_err(failed)?;
        module.define_data(id, &data).map_err(failed)?;
    }
    let mut file = module.finish().emit().map_err(|error| error.to_string())?;
    file[EI_OSABI] = ELFOSABI_GNU;
    Ok(file)
}
