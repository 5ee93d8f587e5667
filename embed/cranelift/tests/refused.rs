//! What is mixed up, unfinished or too large is refused with an error, and what fits runs.

use stackmark::mark_sweep;
use stackmark::stack::asm::layout::G_RESULTS;
use stackmark::stack::{self, CallInError, Machine};
use stackmark::unwind::Code;
use stackmark_cranelift::cranelift_codegen::ir::{
    Block, BlockArg, BlockCall, ExceptionTableData, ExceptionTableItem, StackSlotData,
    StackSlotKind, Type,
};
use stackmark_cranelift::cranelift_frontend::FunctionBuilderContext;
use stackmark_cranelift::types::{F16, F32, F64, F128, I8, I8X16, I16, I32, I64, I128};
use stackmark_cranelift::{
    CompileError, Engine, EngineError, EntryError, FuncId, Function, INT, InstBuilder, IntCC, Kind,
    MemFlagsData, Module, ModuleError, Options, Program, REF, Settings, Signature, Start, Value,
};
use std::sync::Arc;

type Body<'b> = &'b dyn Fn(&mut Function<'_>) -> Result<(), CompileError>;

/// Stacks move at every poll, every call polls, and optimised code is checked.
fn moving() -> Settings {
    Settings {
        stack: stack::Config { move_every_poll: true, poison: true, ..stack::Config::default() },
        heap: mark_sweep::Options { poison: true, ..mark_sweep::Options::default() },
        code: Options { checked: true, ..Options::default() },
        ..Settings::default()
    }
}

fn engine() -> Engine {
    Engine::new(moving()).expect("an engine")
}

fn finish(engine: &Engine, module: Module) -> Result<Arc<Program>, ModuleError> {
    // SAFETY: the functions of these tests keep the contracts.
    unsafe { engine.finish(module) }
}

/// A module with an exported function.
fn with_main(engine: &Engine, params: &[Kind], results: &[Kind], body: Body<'_>) -> Main {
    let mut module = engine.module().expect("a module");
    let main = module.declare("main", params, results).expect("declared");
    module.define(main, body).expect("compiles");
    module.export(main).expect("exported");
    Main { module, main }
}

struct Main {
    module: Module,
    main: FuncId,
}

/// `main(n) = n + number`.
fn adds(engine: &Engine, number: i64) -> Main {
    with_main(engine, &[INT], &[INT], &|f| {
        let p0 = f.param(0);
        let sum = f.ins().iadd_imm_s(p0, number);
        f.return_(&[sum])
    })
}

// Other systems' programs hold managed code.
#[cfg(windows)]
#[test]
fn code_for_a_linker_is_refused() {
    use cranelift_object::{ObjectBuilder, ObjectModule};
    use stackmark_cranelift::cranelift_codegen::Context;
    use stackmark_cranelift::{flags, object::ObjectMaps};
    let isa = flags::object_isa("none").unwrap();
    let module = || {
        let names = cranelift_module::default_libcall_names();
        ObjectModule::new(ObjectBuilder::new(isa.clone(), "code", names).unwrap())
    };
    let error = Module::linked(Options::default(), None, module()).unwrap_err();
    assert!(matches!(error, ModuleError::NoImages), "{error}");
    let mut module = module();
    let signature = Signature::new(&[INT], &[INT]).unwrap().clif();
    let id = cranelift_module::Module::declare_anonymous_function(&mut module, &signature);
    let (mut maps, mut context) = (ObjectMaps::new(), Context::new());
    let error = maps.define_function(&mut module, &*isa, id.unwrap(), &mut context).unwrap_err();
    assert!(matches!(error, CompileError::NoImages { .. }), "{error}");
}

#[test]
fn a_module_of_another_engine_is_refused() {
    let (a, b) = (engine(), engine());
    let error = finish(&a, adds(&b, 1).module).unwrap_err();
    assert!(matches!(error, ModuleError::OtherEngine), "{error}");
    let error = finish(&a, Module::new(Options::default(), None).unwrap()).unwrap_err();
    assert!(matches!(error, ModuleError::OtherEngine), "{error}");
}

#[test]
fn a_program_of_another_engine_does_not_run() {
    let (a, b) = (engine(), engine());
    let Main { module, main } = adds(&b, 1);
    let program = finish(&b, module).unwrap();
    let error = a.run(&program, main, 1).unwrap_err();
    assert!(matches!(error, EngineError::OtherEngine), "{error}");
    assert_eq!(b.run(&program, main, 1).unwrap(), 2);
    // Of this engine, and registered elsewhere or nowhere.
    let Main { module, main } = adds(&a, 1);
    let program = module.finish(&Code::new()).unwrap();
    assert!(matches!(a.run(&program, main, 1), Err(EngineError::OtherEngine)));
    let Main { module, main } = adds(&a, 1);
    let (program, _) = module.place_all().unwrap();
    assert!(matches!(a.run(&program, main, 1), Err(EngineError::OtherEngine)));
}

#[test]
fn a_function_of_another_module_is_refused_wherever_it_is_named() {
    let engine = engine();
    let Main { mut module, main } = adds(&engine, 1);
    let other = adds(&engine, 2).main;
    assert_ne!(main, other);
    let is_refused = |result: Result<(), CompileError>| {
        let error = result.unwrap_err();
        assert!(matches!(error, CompileError::OtherModule { .. }), "{error}");
    };
    is_refused(module.define(other, |f| f.return_(&[])));
    is_refused(module.export(other));
    for part in 0..3 {
        let caller = module.declare("caller", &[INT], &[INT]).unwrap();
        is_refused(module.define(caller, |f| {
            let n = f.param(0);
            let landing = f.create_block();
            let result = match part {
                0 => f.call(other, &[n])?[0],
                1 => f.try_call(other, &[n], landing)?[0],
                _ => f.address_of(other)?,
            };
            f.return_(&[result])
        }));
        module.define(caller, |f| f.return_(&[f.param(0)])).unwrap();
    }
    // Code that was built for another function or for another module's.
    let own = module.declare("own", &[INT], &[INT]).unwrap();
    let func = module.empty(main);
    is_refused(module.define_function(own, func, None));
    let mut second = adds(&engine, 3);
    let func = second.module.empty(second.main);
    is_refused(module.define_function(own, func, None));
    // A function of one module that calls by another.
    let (mut func, mut context) = (module.empty(own), FunctionBuilderContext::new());
    let mut f = module.builder(own, &mut func, &mut context);
    f.enter(Start::Managed);
    let n = f.param(0);
    is_refused(second.module.call(&mut f, second.main, &[n]).map(drop));
    let landing = f.create_block();
    is_refused(second.module.try_call(&mut f, second.main, &[n], landing).map(drop));
    drop(f);
    module.define(own, |f| f.return_(&[f.param(0)])).unwrap();

    let program = finish(&engine, module).unwrap();
    assert_eq!(engine.run(&program, main, 4).unwrap(), 5);
    let error = engine.run(&program, other, 4).unwrap_err();
    assert!(matches!(error, EngineError::Entry(EntryError::NotExported)), "{error}");
}

#[test]
fn what_is_no_function_to_run_is_an_error() {
    let engine = engine();
    let Main { mut module, main } = adds(&engine, 1);
    let mut of = |params: &[Kind], results: &[Kind], export: bool| {
        let id = module.declare("f", params, results).unwrap();
        let body = |f: &mut Function<'_>| {
            let params = f.all_params().to_vec();
            f.return_(&params)
        };
        module.define(id, body).unwrap();
        if export {
            module.export(id).unwrap();
        }
        id
    };
    let hidden = of(&[INT], &[INT], false);
    let two = of(&[INT, INT], &[INT, INT], true);
    let reference = of(&[REF], &[REF], true);
    let program = finish(&engine, module).unwrap();
    let entry = |id| match engine.run(&program, id, 0) {
        Err(EngineError::Entry(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(entry(hidden), EntryError::NotExported));
    assert!(matches!(entry(two), EntryError::Parameters { params: 2 }));
    assert!(matches!(entry(reference), EntryError::References));
    let machine = Machine::attach(engine.runtime()).unwrap();
    drop(machine);
    assert_eq!(engine.run(&program, main, 1).unwrap(), 2);
}

#[test]
fn what_native_code_cannot_call_is_an_error() {
    let (engine, other) = (engine(), engine());
    let Main { mut module, main } = adds(&engine, 1);
    let identity = module.declare("identity", &[REF], &[REF]).unwrap();
    module.define(identity, |f| f.return_(&[f.param(0)])).unwrap();
    module.export(identity).unwrap();
    let program = finish(&engine, module).unwrap();
    let error = |function, arguments: &[usize]| match engine.call_in(&program, function, arguments)
    {
        Err(EngineError::Entry(error)) => error,
        result => panic!("{result:?}"),
    };
    // On a thread of its own, which is attached until it ends.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let result = other.call_in(&program, main, &[1]);
            assert!(matches!(result, Err(EngineError::OtherEngine)));
            assert!(matches!(error(identity, &[0]), EntryError::References));
            for arguments in [&[] as &[usize], &[1, 2]] {
                let EntryError::Words { expected: 2, found } = error(main, arguments) else {
                    panic!("not as many as there are parameters")
                };
                assert_eq!(found, arguments.len() + 1);
            }
            assert_eq!(engine.call_in(&program, main, &[1]).unwrap(), 2);
        });
    });
    let machine = Machine::attach(engine.runtime()).unwrap();
    assert!(matches!(error(main, &[1]), EntryError::CallIn(CallInError::Attached)));
    drop(machine);
}

#[test]
fn kinds_that_fit_no_word_are_neither_parameters_nor_results() {
    for of in [I128, F128, F16, I8X16, I64.by(2).unwrap(), F32.by(2).unwrap()] {
        let wide = [Kind::Plain(of)];
        for (params, results) in [(&wide[..], &[][..]), (&[], &wide)] {
            let error = Signature::new(params, results).unwrap_err();
            assert!(matches!(error, CompileError::Wide { of: refused } if refused == of));
        }
    }
    for of in [I8, I16, I32, I64, F32, F64] {
        Signature::new(&[Kind::Plain(of)], &[Kind::Plain(of)]).expect("it fits");
    }
}

#[test]
fn every_kind_is_run_and_returned_as_a_word() {
    let run = |of: Type, argument: usize| {
        let kind = [Kind::Plain(of)];
        let engine = engine();
        let Main { module, main } = with_main(&engine, &kind, &kind, &|f| {
            let n = f.param(0);
            let sum = if of.is_int() { f.ins().iadd(n, n) } else { f.ins().fadd(n, n) };
            f.return_(&[sum])
        });
        let program = finish(&engine, module).unwrap();
        engine.run(&program, main, argument).unwrap()
    };
    let high = 0xdead_beef_0000_0000;
    assert_eq!(run(F64, 2.25f64.to_bits() as usize), 4.5f64.to_bits() as usize);
    assert_eq!(run(F32, high + 2.25f32.to_bits() as usize), 4.5f32.to_bits() as usize);
    assert_eq!(run(I8, high + 200), 144);
    assert_eq!(run(I16, high + 40_000), 14_464);
    assert_eq!(run(I32, high + 3_000_000_000), 1_705_032_704);
    assert_eq!(run(I64, high), high.wrapping_add(high));
}

#[test]
fn a_result_of_another_type_is_refused() {
    let engine = engine();
    let mut module = engine.module().unwrap();
    let many = module.declare("many", &[INT], &[INT; 4]).unwrap();
    let error = module.define(many, |f| {
        let n = f.param(0);
        let narrow = f.ins().ireduce(I32, n);
        f.return_(&[n, n, n, narrow])
    });
    let error = error.unwrap_err();
    assert!(matches!(error, CompileError::ResultType { index: 3, .. }), "{error}");
}

#[test]
fn a_declared_function_that_is_not_defined_is_named() {
    let engine = engine();
    let Main { mut module, .. } = adds(&engine, 1);
    module.declare("missing", &[], &[]).unwrap();
    let error = finish(&engine, module).unwrap_err();
    assert!(matches!(&error, ModuleError::Undefined { function } if function == "missing"));
}

#[test]
fn more_code_than_calls_reach_is_refused() {
    for bytes in [(1 << 31) + 1, usize::MAX] {
        let options = Options { code_bytes: bytes, ..Options::default() };
        let error = Module::new(options, None).unwrap_err();
        assert!(matches!(error, ModuleError::TooLarge { .. }), "{error}");
    }
    let options = Options { code_bytes: 1 << 31, ..Options::default() };
    Module::new(options, None).expect("as much as calls reach");
}

#[test]
fn a_level_that_cranelift_does_not_have_is_named() {
    let options = Options { opt_level: "fast".into(), ..Options::default() };
    let error = Module::new(options, None).unwrap_err().to_string();
    assert!(error.contains("opt_level") && error.contains("fast"), "{error}");
}

#[test]
fn a_function_can_be_exported_after_the_code_was_full() {
    let engine = Engine::new(Settings {
        code: Options { code_bytes: 1 << 16, ..Options::default() },
        ..Settings::default()
    });
    let engine = engine.unwrap();
    let mut module = engine.module().unwrap();
    let main = module.declare("main", &[INT], &[INT]).unwrap();
    module.define(main, |f| f.return_(&[f.param(0)])).unwrap();
    let large = module.declare("large", &[INT], &[INT]).unwrap();
    let body = |instructions: usize| {
        move |f: &mut Function<'_>| {
            let mut n = f.param(0);
            for k in 0..instructions {
                n = f.ins().imul_imm_s(n, 0x1234_5678_9abc + k as i64);
            }
            f.return_(&[n])
        }
    };
    let mut instructions = 10_000;
    while let Err(error) = module.define(large, body(instructions)) {
        assert!(matches!(error, CompileError::Place { .. }), "{error}");
        instructions = instructions * 9 / 10;
    }
    // What is left is filled up.
    loop {
        let small = module.declare("small", &[INT], &[INT]).unwrap();
        if module.define(small, body(1)).is_err() {
            break;
        }
    }
    for _ in 0..2 {
        let error = module.export(main).unwrap_err();
        assert!(matches!(error, CompileError::Place { .. }), "{error}");
    }
    let error = finish(&engine, module).unwrap_err();
    assert!(
        matches!(&error, ModuleError::Undefined { function } if function == "small"),
        "{error}"
    );
}

/// A function with a frame of `bytes` bytes.
fn framed(f: &mut Function<'_, stackmark_cranelift::Apart>, bytes: u32) -> Value {
    let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, bytes, 3);
    let slot = f.create_sized_stack_slot(slot);
    let n = f.int(5);
    f.ins().stack_store(I64, n, slot, 0);
    f.ins().stack_load(I64, I64, slot, 0)
}

#[test]
fn a_large_frame_is_refused_where_the_goroutine_is_not_known_yet() {
    let engine = engine();
    for (start, params) in [(Start::Goroutine, &[INT, INT][..]), (Start::Callback, &[INT])] {
        for bytes in [64, 100_000] {
            let mut module = engine.module().unwrap();
            let id = module.declare("entered", params, &[INT]).unwrap();
            let (mut func, mut context) = (module.empty(id), FunctionBuilderContext::new());
            let mut f = module.builder(id, &mut func, &mut context);
            f.enter(start);
            let result = framed(&mut f, bytes);
            f.return_(&[result]).unwrap();
            f.finish().unwrap();
            match module.define_function(id, func, None) {
                Ok(()) => assert_eq!(bytes, 64),
                Err(error) => {
                    assert!(matches!(error, CompileError::Frame { .. }), "{error}");
                    assert_eq!(bytes, 100_000);
                }
            }
        }
    }
}

/// `main(n)` calls a function with a large frame and so many parameters more, which returns the sum
/// of all.
fn many_parameters(params: usize) -> Result<usize, CompileError> {
    let engine = engine();
    let mut module = engine.module().unwrap();
    let large = module.declare("large", &vec![INT; params], &[INT])?;
    module.define(large, |f| {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 50_000, 3);
        let slot = f.create_sized_stack_slot(slot);
        let mut sum = f.int(0);
        for param in f.all_params().to_vec() {
            sum = f.ins().iadd(sum, param);
        }
        f.ins().stack_store(I64, sum, slot, 40_000);
        f.poll();
        let sum = f.ins().stack_load(I64, I64, slot, 40_000);
        f.return_(&[sum])
    })?;
    let main = module.declare("main", &[INT], &[INT])?;
    module.define(main, |f| {
        let args: Vec<Value> = (0..params as i64).map(|k| f.int(k)).collect();
        let sum = f.call(large, &args)?;
        f.return_(&sum)
    })?;
    module.export(main)?;
    let program = finish(&engine, module).unwrap();
    Ok(engine.run(&program, main, 0).unwrap())
}

#[test]
fn an_entry_that_makes_room_has_itself_a_frame_that_fits() {
    for params in [1, 6, 7, 20, 40] {
        assert_eq!(many_parameters(params).unwrap(), params * (params - 1) / 2);
    }
    let error = many_parameters(200).unwrap_err();
    assert!(matches!(error, CompileError::Frame { .. }), "{error}");
}

#[test]
fn a_slot_is_mapped_where_it_is_initialised_on_every_path() {
    let engine = engine();
    let defined = |body: Body<'_>| {
        let mut module = engine.module().unwrap();
        let id = module.declare("f", &[INT], &[INT]).unwrap();
        module.define(id, body)
    };
    let branch = |f: &mut Function<'_>| {
        let n = f.param(0);
        let [yes, no] = [(); 2].map(|()| f.create_block());
        f.ins().brif(n, yes, &[], no, &[]);
        f.switch_to_block(yes);
        [yes, no]
    };
    // On one of two ways to a call.
    let error = defined(&|f| {
        let [_, no] = branch(f);
        f.slot(16, &[true, false])?;
        f.ins().jump(no, &[]);
        f.switch_to_block(no);
        f.poll();
        f.return_(&[f.param(0)])
    });
    let error = error.unwrap_err();
    assert!(matches!(error, CompileError::Uninitialised { .. }), "{error}");
    // In a loop, behind a call that runs again.
    let error = defined(&|f| {
        let [again, done] = branch(f);
        f.poll();
        f.slot(8, &[true])?;
        let n = f.param(0);
        f.ins().brif(n, again, &[], done, &[]);
        f.switch_to_block(done);
        f.return_(&[n])
    });
    assert!(matches!(error, Err(CompileError::Uninitialised { .. })), "{error:?}");
    // Behind a call, on one of two ways that do not meet, and in a loop before its call.
    defined(&|f| {
        f.poll();
        f.slot(8, &[true])?;
        f.poll();
        f.return_(&[f.param(0)])
    })
    .unwrap();
    defined(&|f| {
        let [_, no] = branch(f);
        f.slot(2048, &[true])?;
        f.poll();
        f.return_(&[f.param(0)])?;
        f.switch_to_block(no);
        f.poll();
        f.return_(&[f.param(0)])
    })
    .unwrap();
    defined(&|f| {
        let [again, done] = branch(f);
        f.slot(8, &[true])?;
        f.poll();
        let n = f.param(0);
        f.ins().brif(n, again, &[], done, &[]);
        f.switch_to_block(done);
        f.return_(&[n])
    })
    .unwrap();
}

#[test]
fn a_slot_has_its_references_within_it() {
    let engine = engine();
    let slot = |bytes: u32, references: &[bool]| {
        let mut module = engine.module().unwrap();
        let id = module.declare("f", &[], &[]).unwrap();
        module.define(id, |f| {
            f.slot(bytes, references)?;
            f.return_(&[])
        })
    };
    let refused: [(u32, &[bool]); 5] = [
        (8, &[false, true]),
        (0, &[false, true]),
        (16, &[false, false, true]),
        (u32::MAX, &[]),
        (1 << 31, &[true]),
    ];
    for (bytes, references) in refused {
        let error = slot(bytes, references).unwrap_err();
        assert!(matches!(error, CompileError::Slot { .. }), "{bytes}: {error}");
    }
    for (bytes, references) in [(8, &[true][..]), (9, &[false, true]), (0, &[true, false])] {
        slot(bytes, references).unwrap();
    }
}

#[test]
fn a_block_that_nothing_leaves_is_an_error() {
    let engine = engine();
    let mut module = engine.module().unwrap();
    let id = module.declare("f", &[], &[]).unwrap();
    let error = module.define(id, |_| Ok(())).unwrap_err();
    assert!(matches!(error, CompileError::Unfilled { .. }), "{error}");
}

/// Adds to a word of a slot in a loop whose calls move the stack. The address of the word is a sum,
/// which the optimiser moves out of the loop.
fn summed(engine: &Engine, at: &dyn Fn(&mut Function<'_>, Value, Value) -> Value) -> usize {
    let Main { module, main } = with_main(engine, &[INT], &[INT], &|f| {
        let slot = StackSlotData::new(StackSlotKind::ExplicitSlot, 128, 3);
        let slot = f.create_sized_stack_slot(slot);
        let zero = f.int(0);
        for word in 0..16 {
            f.ins().stack_store(I64, zero, slot, 8 * word);
        }
        let (left, first) = (f.variable(INT), f.param(0));
        f.def_var(left, first);
        let eight = f.ins().band_imm_s(first, 8);
        let [again, done] = [(); 2].map(|()| f.create_block());
        f.ins().jump(again, &[]);
        f.switch_to_block(again);
        let base = f.ins().stack_addr(I64, slot, 16);
        let to = at(f, base, eight);
        let word = f.ins().load(I64, MemFlagsData::trusted(), to, 0);
        let n = f.use_var(left);
        let word = f.ins().iadd(word, n);
        f.ins().store(MemFlagsData::trusted(), word, to, 0);
        f.poll();
        let base = f.ins().stack_addr(I64, slot, 16);
        let to = at(f, base, eight);
        let word = f.ins().load(I64, MemFlagsData::trusted(), to, 0);
        let word = f.ins().iadd_imm_s(word, 1);
        f.ins().store(MemFlagsData::trusted(), word, to, 0);
        let n = f.ins().iadd_imm_s(n, -1);
        f.def_var(left, n);
        f.ins().brif(n, again, &[], done, &[]);
        f.switch_to_block(done);
        let base = f.ins().stack_addr(I64, slot, 16);
        let to = at(f, base, eight);
        let sum = f.ins().load(I64, MemFlagsData::trusted(), to, 0);
        f.return_(&[sum])
    });
    let program = finish(engine, module).unwrap();
    engine.run(&program, main, 12).unwrap()
}

#[test]
fn addresses_that_are_computed_of_slots_move_with_the_stack() {
    let mut settings = moving();
    settings.stack.poll_always = true;
    let engine = Engine::new(settings).unwrap();
    let expected = 12 * 13 / 2 + 12;
    assert_eq!(summed(&engine, &|f, base, _| f.ins().iadd_imm_s(base, 24)), expected);
    assert_eq!(summed(&engine, &|f, base, _| f.ins().iadd_imm_s(base, -8)), expected);
    assert_eq!(summed(&engine, &|f, base, eight| f.ins().iadd(base, eight)), expected);
    let chain = |f: &mut Function<'_>, base: Value, eight: Value| {
        let at = f.ins().iadd(eight, base);
        let at = f.ins().iadd_imm_s(at, 32);
        let at = f.ins().isub(at, eight);
        let twice = f.ins().iadd(eight, eight);
        f.ins().iadd(at, twice)
    };
    assert_eq!(summed(&engine, &chain), expected);
    let selected = |f: &mut Function<'_>, base: Value, eight: Value| {
        let other = f.ins().iadd_imm_s(base, 40);
        f.ins().select(eight, other, base)
    };
    assert_eq!(summed(&engine, &selected), expected);
}

#[test]
fn a_comparison_with_an_address_of_a_slot_is_made_before_the_stack_moves() {
    let mut settings = moving();
    settings.stack.poll_always = true;
    let engine = Engine::new(settings).unwrap();
    let mut module = engine.module().unwrap();
    let same = module.declare("same", &[REF], &[REF]).unwrap();
    module.define(same, |f| f.return_(&[f.param(0)])).unwrap();
    let main = module.declare("main", &[INT], &[INT]).unwrap();
    let body: Body<'_> = &|f| {
        let (slot, address) = f.slot(64, &[])?;
        let (other, _) = f.slot(64, &[])?;
        let mut total = f.int(0);
        for (k, condition) in
            [IntCC::Equal, IntCC::NotEqual, IntCC::UnsignedLessThan].into_iter().enumerate()
        {
            let returned = f.call(same, &[address])?[0];
            let own = f.ins().stack_addr(I64, slot, 0);
            let beside = f.ins().stack_addr(I64, other, 8);
            let plus = f.ins().iadd_imm_s(own, 8);
            let bits = [
                f.ins().icmp(condition, returned, own),
                f.ins().icmp(condition, returned, beside),
                f.ins().icmp(condition, returned, plus),
            ];
            f.call(same, &[address])?;
            f.poll();
            for (bit, is) in bits.into_iter().enumerate() {
                // Below or above does not matter: what counts is that it differs.
                if condition == IntCC::UnsignedLessThan && bit == 1 {
                    continue;
                }
                let is = f.ins().uextend(I64, is);
                let is = f.ins().ishl_imm_u(is, (8 * k + bit) as i64);
                total = f.ins().bor(total, is);
            }
        }
        f.return_(&[total])
    };
    module.define(main, body).unwrap();
    module.export(main).unwrap();
    let program = finish(&engine, module).unwrap();
    let (equal, not_equal, less) = (0b001, 0b110, 0b100);
    assert_eq!(engine.run(&program, main, 0).unwrap(), equal | not_equal << 8 | less << 16);
}

/// Why a function is refused that may call `callee(INT) -> (REF, INT, REF, REF)`.
fn held(body: &dyn Fn(&mut Function<'_>, FuncId, &Signature) -> Result<(), CompileError>) {
    let engine = engine();
    let mut module = engine.module().unwrap();
    let signature = Signature::new(&[INT], &[REF, INT, REF, REF]).unwrap();
    let callee = module.declare_signature("callee", signature.clone());
    let id = module.declare("mistaken", &[INT], &[INT]).unwrap();
    let error = module.define(id, |f| body(f, callee, &signature)).unwrap_err();
    let is_held = matches!(&error, CompileError::Held { what: "a reference", .. });
    assert!(is_held, "{error}");
}

/// Reads through `reference` behind a call.
fn use_behind_a_call(f: &mut Function<'_>, reference: Value) -> Result<(), CompileError> {
    f.poll();
    let word = f.ins().load(I64, MemFlagsData::trusted(), reference, 0);
    f.return_(&[word])
}

#[test]
fn a_result_of_an_indirect_call_that_is_held_undeclared_is_found() {
    held(&|f, callee, signature| {
        let address = f.address_of(callee)?;
        let clif = f.import_signature(signature.clif());
        let n = f.param(0);
        let call = f.ins().call_indirect(clif, address, &[n]);
        let result = f.inst_results(call)[0];
        use_behind_a_call(f, result)
    });
}

#[test]
fn a_result_word_that_is_held_undeclared_is_found() {
    held(&|f, callee, _| {
        let n = f.param(0);
        f.call(callee, &[n])?;
        let goroutine = f.goroutine();
        let result = f.ins().load(I64, MemFlagsData::trusted(), goroutine, G_RESULTS as i32);
        use_behind_a_call(f, result)
    });
}

/// A call with a landing pad, made by Cranelift's builder: nothing is declared.
struct TryCall {
    /// Where it returns to, with the first result and `more`.
    normal: Block,
    /// Where an exception lands, with the reference that was raised and `more`.
    landing: Block,
}

fn try_call(
    f: &mut Function<'_>,
    callee: FuncId,
    signature: &Signature,
    more: Value,
) -> Result<TryCall, CompileError> {
    let address = f.address_of(callee)?;
    let clif = f.import_signature(signature.clif());
    let [normal, landing] = [BlockArg::TryCallRet(0), BlockArg::TryCallExn(1)].map(|arg| {
        let block = f.create_block();
        f.append_block_param(block, I64);
        f.append_block_param(block, I64);
        (block, BlockCall::new(block, [arg, more.into()], &mut f.func.dfg.value_lists))
    });
    let handlers = [ExceptionTableItem::Default(landing.1)];
    let table = ExceptionTableData::new(clif, normal.1, handlers);
    let table = f.func.dfg.exception_tables.push(table);
    let n = f.param(0);
    f.ins().try_call_indirect(address, &[n], table);
    Ok(TryCall { normal: normal.0, landing: landing.0 })
}

#[test]
fn what_a_call_with_a_landing_pad_hands_on_undeclared_is_found() {
    for (in_landing, param) in [(false, 0), (true, 0), (false, 1), (true, 1)] {
        held(&|f, callee, signature| {
            let n = f.param(0);
            let more = match param {
                0 => n,
                _ => {
                    let address = f.address_of(callee)?;
                    let clif = f.import_signature(signature.clif());
                    let call = f.ins().call_indirect(clif, address, &[n]);
                    f.inst_results(call)[0]
                }
            };
            let TryCall { normal, landing } = try_call(f, callee, signature, more)?;
            for (block, uses) in [(normal, !in_landing), (landing, in_landing)] {
                f.switch_to_block(block);
                let reference = f.block_params(block)[param];
                match uses {
                    true => use_behind_a_call(f, reference)?,
                    false => f.return_(&[n])?,
                }
            }
            Ok(())
        });
    }
}
