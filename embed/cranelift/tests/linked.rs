//! Functions whose code goes into an object file: what code refers to, and what is told of it.
// Stack maps of images are read from ELF files.
#![cfg(not(windows))]

use cranelift_module::default_libcall_names;
use cranelift_object::{ObjectBuilder, ObjectModule};
use stackmark_cranelift::linked::{Linkable, ObjectCode};
use stackmark_cranelift::{FuncId, INT, InstBuilder, Module, ModuleError, Options, REF, flags};
use std::ffi::c_void;

// In line, it could have an address for each place where it is named.
#[inline(never)]
unsafe extern "C-unwind" fn native(_: *mut c_void, word: usize) -> usize {
    word
}

static WORD: usize = 7;

fn object() -> ObjectModule {
    let machine = flags::object_isa("none").unwrap();
    let mut builder = ObjectBuilder::new(machine, "linked", default_libcall_names()).unwrap();
    builder.unwind_info(true);
    ObjectModule::new(builder)
}

/// A module with two functions: one that refers to addresses, and one with a large frame, which
/// calls it.
fn filled() -> (Module, [FuncId; 2]) {
    let mut module = Module::linked(Options::default(), None, object()).unwrap();
    let small = module.declare("small", &[REF], &[INT]).unwrap();
    let large = module.declare("large", &[REF], &[INT]).unwrap();
    module
        .define(small, |f| {
            let zero = f.int(0);
            let [once, twice] = [(); 2].map(|()| f.native(native, &[zero]));
            let word = f.address(&raw const WORD as usize);
            let word = f.load_plain(stackmark_cranelift::types::I64, word, 0);
            let sum = f.ins().iadd(once, twice);
            let sum = f.ins().iadd(sum, word);
            f.return_(&[sum])
        })
        .unwrap();
    module
        .define(large, |f| {
            let (slot, at) = f.slot(4096, &[])?;
            let _ = (slot, at);
            let result = f.call(small, &[f.param(0)])?;
            f.return_(&result)
        })
        .unwrap();
    (module, [small, large])
}

#[test]
fn code_for_a_linker_names_each_address_once_and_all_its_functions() {
    let (module, [small, large]) = filled();
    let (object, code): (ObjectModule, ObjectCode) = module.finish_linked().unwrap();
    for address in [native as *const () as usize, &raw const WORD as usize] {
        assert_eq!(code.addresses.iter().filter(|at| **at == address).count(), 1, "{address:#x}");
    }
    let placed = |id| &code.functions[code.place(id)].placed;
    assert_eq!((&*placed(small).name, placed(small).makes_room), ("small", false));
    assert_eq!((&*placed(large).name, placed(large).makes_room), ("large", true));
    // The large one and the entry that makes room for it.
    assert_eq!(code.functions.iter().filter(|f| f.placed.name == "large").count(), 2);
    assert_eq!(code.maps.functions.len(), code.functions.len());
    drop(object);
}

#[test]
fn what_goes_elsewhere_is_not_finished() {
    let refused = |result: Result<(), ModuleError>| {
        assert!(matches!(result, Err(ModuleError::Linked)), "{result:?}");
    };
    refused(filled().0.place_all().map(drop));
    fn linked<T: Linkable>(module: Module) -> Result<(), ModuleError> {
        module.finish_linked::<T>().map(drop)
    }
    refused(linked::<cranelift_module_of_another_kind::Jit>(filled().0));
    refused(linked::<ObjectModule>(Module::new(Options::default(), None).unwrap()));
    let mut module = Module::linked(Options::default(), None, object()).unwrap();
    module.declare("missing", &[], &[]).unwrap();
    let result = module.finish_linked::<ObjectModule>().map(drop);
    assert!(matches!(result, Err(ModuleError::Undefined { .. })), "{result:?}");
}

mod cranelift_module_of_another_kind {
    pub(super) type Jit = Box<super::ObjectModule>;
}
