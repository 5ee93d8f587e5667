//! Code of cranelift-object, linked into a shared object, registered by one call, and run on a
//! goroutine that is collected and moved in it.
// Stack maps of images are read from ELF files.
#![cfg(not(windows))]

use std::ffi::{CString, c_void};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use cranelift_module::{DataDescription, Linkage, Module};
use cranelift_object::{ObjectBuilder, ObjectModule};
use stackmark::mark_sweep::{self, Descriptor, DescriptorId};
use stackmark::stack::{self, Caller, Goroutine, Host, Left, Machine, asm, asm::layout::NativeFn};
use stackmark_cranelift::cranelift_codegen::ir::{
    self, AbiParam, MemFlagsData, UserFuncName, types::I64,
};
use stackmark_cranelift::cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use stackmark_cranelift::cranelift_codegen::{Context, ir::StackSlotData, ir::StackSlotKind};
use stackmark_cranelift::cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use stackmark_cranelift::object::{MapsSection, ObjectMaps, SECTION};
use stackmark_cranelift::{CompileError, Engine, InstBuilder, Settings, flags, machine};

/// What the entry's argument points to: `call_system`, and native functions that allocate and
/// collect.
type Argument = [usize; 3];

/// The objects that the function keeps across collections.
const KEPT: usize = 4;

fn signature(params: usize) -> ir::Signature {
    let mut signature = ir::Signature::new(CallConv::SystemV);
    signature.params.extend(vec![AbiParam::new(I64); params]);
    signature.returns.push(AbiParam::new(I64));
    signature
}

/// `entry(goroutine, argument)`: allocates objects, collects, and sums their first words.
fn build(func: &mut ir::Function, isa: &OwnedTargetIsa, bytes: u32) {
    let mut frontend = FunctionBuilderContext::new();
    let mut f = FunctionBuilder::new(func, &mut frontend);
    let call = f.import_signature(signature(3));
    let block = f.create_block();
    f.append_block_params_for_function_params(block);
    f.switch_to_block(block);
    f.seal_all_blocks();
    let [goroutine, argument] = f.block_params(block)[..] else { panic!("two parameters") };
    f.ins().set_pinned_reg(goroutine);
    let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
    let slot = f.create_sized_stack_slot(slot);
    f.ins().stack_store(I64, argument, slot, 0);
    let flags = MemFlagsData::trusted();
    let [call_system, allocate, collect] =
        [0, 8, 16].map(|at| f.ins().load(I64, flags, argument, at));
    let zero = f.ins().iconst(I64, 0);
    let objects: Vec<_> = (0..KEPT)
        .map(|index| {
            let index = f.ins().iconst(I64, index as i64);
            let made = f.ins().call_indirect(call, call_system, &[allocate, zero, index]);
            let object = f.inst_results(made)[0];
            f.declare_value_needs_stack_map(object);
            object
        })
        .collect();
    f.ins().call_indirect(call, call_system, &[collect, zero, zero]);
    let mut sum = f.ins().iconst(I64, 0);
    for object in objects {
        let word = f.ins().load(I64, flags, object, 0);
        sum = f.ins().iadd(sum, word);
    }
    f.ins().return_(&[sum]);
    f.finalize(isa.frontend_config());
}

/// Where an ELF file says whose it is. In GNU's, `used` data survives `--gc-sections`; in those of
/// no system, the linker does not look.
const EI_OSABI: usize = 7;
const ELFOSABI_GNU: u8 = 3;

/// An object file with the function, twice, with frames of at least so many bytes.
fn object(bytes: u32) -> Result<Vec<u8>, CompileError> {
    let (optimising, plain) = (flags::object_isa("speed"), flags::object_isa("none"));
    let (optimising, plain) = (optimising.unwrap(), plain.unwrap());
    let names = cranelift_module::default_libcall_names();
    let mut builder = ObjectBuilder::new(plain.clone(), "image", names).unwrap();
    builder.unwind_info(true);
    let mut module = ObjectModule::new(builder);
    let mut maps = ObjectMaps::new();
    for name in ["entry", "again"] {
        let id = module.declare_function(name, Linkage::Export, &signature(2)).unwrap();
        let user = UserFuncName::user(0, id.as_u32());
        let func = ir::Function::with_name_signature(user, signature(2));
        let mut context = Context::for_function(func);
        build(&mut context.func, &plain, bytes);
        maps.define_function(&mut module, &*optimising, id, &mut context)?;
    }
    let MapsSection { bytes, functions } = maps.section();
    let mut data = DataDescription::new();
    data.define(bytes.into());
    data.set_align(8);
    data.set_custom_section(SECTION);
    data.set_used(true);
    for (id, at) in functions {
        let function = module.declare_func_in_data(id, &mut data);
        data.write_function_addr(at, function);
    }
    let id = module.declare_data("stackmark_maps", Linkage::Local, true, false).unwrap();
    module.define_data(id, &data).unwrap();
    let mut file = module.finish().emit().unwrap();
    file[EI_OSABI] = ELFOSABI_GNU;
    Ok(file)
}

struct Embedder;

impl Host for Embedder {
    fn stack_overflow(&self, _goroutine: &Goroutine, limit: usize) -> ! {
        panic!("stack exceeds {limit} bytes")
    }

    fn goroutine_exited(&self, _goroutine: &Goroutine, result: usize) {
        RESULT.store(result, Relaxed);
    }
}

static RESULT: AtomicUsize = AtomicUsize::new(0);
static ENGINE: OnceLock<(Engine, DescriptorId)> = OnceLock::new();

/// A new object, whose first word is a number.
unsafe extern "C-unwind" fn allocate(_: *mut c_void, number: usize) -> usize {
    let (engine, descriptor) = ENGINE.get().unwrap();
    // SAFETY: used within this native function.
    let caller = unsafe { Caller::current() };
    let object = machine::with(|own| {
        engine.collector().allocate(caller, &own.allocator, *descriptor, 16).unwrap().address()
    });
    // SAFETY: the new object, of two words; the goroutine has it alone.
    unsafe { *(object as *mut usize) = 1 << (8 * number) };
    object
}

/// Collects while the goroutine is in a foreign call, then lets it move.
unsafe extern "C-unwind" fn collect(_: *mut c_void, _: usize) -> usize {
    let (engine, _) = ENGINE.get().unwrap();
    // SAFETY: used within this native function, which owns nothing.
    let caller = unsafe { Caller::current() };
    caller.foreign(|| (0..3).for_each(|_| engine.collector().collect()));
    0
}

#[test]
fn an_object_of_cranelift_is_registered_collected_in_and_forgotten() {
    let directory = std::env::temp_dir().join(format!("stackmark-object-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("a.o"), object(64).unwrap()).unwrap();
    // `--gc-sections` must not drop the maps.
    let arguments = ["-shared", "-Wl,--gc-sections", "-o", "a.so", "a.o"];
    let compiler = match std::env::var("STACKMARK_TEST_TOOLS") {
        Ok(prefix) => format!("{prefix}gcc"),
        Err(_) => "cc".to_owned(),
    };
    let Ok(status) = Command::new(&compiler).args(arguments).current_dir(&directory).status()
    else {
        eprintln!("skipped: {compiler} is missing");
        return;
    };
    assert!(status.success());
    let path = CString::new(directory.join("a.so").to_str().unwrap()).unwrap();
    // SAFETY: a library without initialisers; it stays loaded.
    let entry = unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null());
        libc::dlsym(handle, c"entry".as_ptr())
    } as usize;

    let mut settings = Settings::default();
    settings.stack.move_every_poll = true;
    settings.heap = mark_sweep::Options { poison: true, ..mark_sweep::Options::default() };
    settings.collector.verify = true;
    let engine = Engine::with_host(settings, Box::new(Embedder)).unwrap();
    let descriptor = engine.heap().register(Descriptor::pattern(2, []).unwrap()).unwrap();
    assert!(ENGINE.set((engine, descriptor)).is_ok());
    let (engine, _) = ENGINE.get().unwrap();
    let runtime = engine.runtime();
    let image = runtime.register_image(entry).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    let snapshot = runtime.code().snapshot();
    let function = snapshot.function(entry).unwrap();
    assert_eq!(function.name, "entry");
    let end = function.range.end;
    assert!((end..end + 16).any(|at| snapshot.function(at).is_some_and(|f| f.name == "again")));
    drop(snapshot);

    let [allocate, collect] = [allocate as NativeFn, collect as NativeFn].map(|f| f as usize);
    let argument: Argument = [asm::call_system_address(), allocate, collect];
    let machine = Machine::attach(runtime).unwrap();
    // SAFETY: managed code that keeps the contracts; the argument outlives the goroutine.
    let goroutine = unsafe { runtime.spawn(entry, argument.as_ptr() as usize) }.unwrap();
    assert!(matches!(machine.run(goroutine), Left::Exited));
    assert_eq!(RESULT.load(Relaxed), 0x0101_0101);
    assert!(engine.collector().statistics().cycles >= 3);
    runtime.unregister_image(&image).unwrap();
    assert!(runtime.code().snapshot().function(entry).is_none());
}

#[test]
fn an_object_with_a_frame_that_is_too_large_is_refused() {
    let error = object(stack::MAX_FRAME as u32).unwrap_err();
    assert!(matches!(error, CompileError::Frame { .. }), "{error}");
}
