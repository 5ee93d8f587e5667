//! The functions of [`compiler`] by Cranelift, for what is about Cranelift's code or its speed.
//! What both crates have has the same names.

pub use compiler::{
    DEEP, Embedder, Ignoring, KEPT, MANY_THREADS, guarded_result, landed_result, rec_result,
};
pub use stackmark_cranelift;
use stackmark_cranelift::cranelift_frontend::FunctionBuilderContext;
use stackmark_cranelift::types::I64;
use stackmark_cranelift::{
    Apart, FuncId, Function, INT, InstBuilder, Kind, Module, Options, Program, REF, RunsOn, Start,
};
use stackmark_stack::asm::layout::NativeFn;
use stackmark_stack::unwind::{Code, Region};
use std::collections::HashMap;

/// Where this variable is set, all functions sign their return addresses.
const SIGNED: &str = "STACKMARK_TEST_SIGNED";
/// Of each module. They stay until the process ends, and a program of tests makes hundreds.
const CODE_BYTES: usize = 4 << 20;

/// A function under construction.
pub type Builder<'f> = Function<'f, Apart>;

/// The compiled functions, registered. Their code stays until the process ends.
#[derive(Debug)]
pub struct Compiled {
    program: Program,
    /// `entry(goroutine, argument)`, where the argument points to `[n, object, result]`.
    pub entry: usize,
    functions: HashMap<&'static str, usize>,
}

impl Compiled {
    /// The address of a function.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn address(&self, name: &str) -> usize {
        self.functions[name]
    }

    /// The landing pad of the call that returns to `return_address`, if it has one.
    pub fn landing_pad(&self, return_address: usize) -> Option<usize> {
        self.program.landing_pad(return_address)
    }
}

/// A module of functions that return one word.
#[derive(Debug)]
pub struct Compiler {
    module: Module,
    functions: Vec<(&'static str, FuncId)>,
}

impl Default for Compiler {
    fn default() -> Compiler {
        Compiler::for_stacks(RunsOn::default())
    }
}

impl Compiler {
    /// A compiler of functions for stacks of this kind.
    ///
    /// # Panics
    /// On a machine that Cranelift does not know.
    pub fn for_stacks(runs_on: RunsOn) -> Compiler {
        Compiler::new(Options { runs_on, ..Options::default() })
    }

    /// A compiler of functions that sign their return addresses, where the machine can.
    ///
    /// # Panics
    /// On a machine that Cranelift does not know.
    pub fn signing() -> Compiler {
        Compiler::new(Options { signs_returns: true, ..Options::default() })
    }

    fn new(options: Options) -> Compiler {
        let signs_returns = options.signs_returns || std::env::var_os(SIGNED).is_some();
        let options =
            Options { name: "test".into(), signs_returns, code_bytes: CODE_BYTES, ..options };
        Compiler { module: Module::new(options, None).expect("this machine"), functions: vec![] }
    }

    /// Declares a function that returns a plain word.
    pub fn declare(&mut self, name: &'static str, params: &[Kind]) -> FuncId {
        let id = self.module.declare(name, params, &[INT]).expect("one result");
        self.functions.push((name, id));
        id
    }

    /// Defines a declared function. `build` enters it and fills it.
    ///
    /// # Panics
    /// If the code is wrong.
    pub fn define(&mut self, id: FuncId, build: impl FnOnce(&mut Builder<'_>, &mut Module)) {
        let (mut func, mut context) = (self.module.empty(id), FunctionBuilderContext::new());
        let mut f = self.module.builder(id, &mut func, &mut context);
        build(&mut f, &mut self.module);
        f.finish().expect("correct code");
        self.module.define_function(id, func, None).expect("correct code");
    }

    /// Declares and defines a function.
    ///
    /// # Panics
    /// If the code is wrong.
    pub fn function(
        &mut self,
        name: &'static str,
        params: &[Kind],
        build: impl FnOnce(&mut Builder<'_>, &mut Module),
    ) -> FuncId {
        let id = self.declare(name, params);
        self.define(id, build);
        id
    }

    /// Defines `entry(goroutine, [n, object, result])`, which calls `callee(n, object)`.
    ///
    /// # Panics
    /// If the callee has other parameters.
    pub fn entry(&mut self, callee: FuncId) -> FuncId {
        self.function("entry", &[INT, REF], |f, module| {
            f.enter(Start::Goroutine);
            f.poll();
            let argument = f.param(1);
            let n = f.load_plain(I64, argument, 0);
            let object = f.load_reference(argument, 8);
            let result = call(f, module, callee, &[n, object]);
            f.store_plain(result, argument, 16);
            f.return_(&[result]).expect("one result");
        })
    }

    /// Defines a function for callbacks, which calls `callee(n, object)`. Its argument, outside of
    /// the goroutine's stack, points to `[goroutine, n, object, result]`.
    ///
    /// # Panics
    /// If the callee has other parameters.
    pub fn back(&mut self, name: &'static str, callee: FuncId) -> FuncId {
        self.function(name, &[INT], |f, module| {
            f.enter(Start::Callback);
            let argument = f.param(0);
            let n = f.load_plain(I64, argument, 8);
            let object = f.load_reference(argument, 16);
            let result = call(f, module, callee, &[n, object]);
            f.store_plain(result, argument, 24);
            f.return_(&[result]).expect("one result");
        })
    }

    /// Defines `rec`. With `pad`, each frame has so many bytes more. With `yields`, the goroutine
    /// yields before it calls out at the bottom, and after that.
    pub fn recursion(&mut self, bottom: NativeFn, pad: u32, yields: bool) -> FuncId {
        let rec = self.declare("rec", &[INT, REF]);
        self.define(rec, |f, module| {
            f.enter(Start::Managed);
            let [n, object] = f.params();
            // An address in the own frame, live across the call: a move rewrites it.
            let (_, own) = f.slot(8 + pad, &[]).expect("a slot");
            f.store_plain(n, own, 0);
            let (last, more) = (f.create_block(), f.create_block());
            f.ins().brif(n, more, &[], last, &[]);
            f.switch_to_block(last);
            if yields {
                f.yield_now();
            }
            let result = f.leaf(bottom, object, n);
            if yields {
                f.yield_now();
            }
            f.return_(&[result]).expect("one result");
            f.switch_to_block(more);
            let less = f.ins().iadd_imm_s(n, -1);
            let sum = call(f, module, rec, &[less, object]);
            let read = f.load_plain(I64, object, 0);
            let sum = f.ins().iadd(sum, read);
            let kept = f.load_plain(I64, own, 0);
            let sum = f.ins().iadd(sum, kept);
            f.return_(&[sum]).expect("one result");
        });
        rec
    }

    /// Defines `guarded(n, object)`: calls `callee(n, object)` with the four words of the object
    /// behind the first in callee-saved registers, and has a landing pad. Returns the callee's
    /// result and the four words; the landing pad, instead of that result, 1000 times the first of
    /// its values and the second.
    ///
    /// # Panics
    /// If the callee has other parameters.
    pub fn guarded(&mut self, callee: FuncId) -> FuncId {
        self.function("guarded", &[INT, REF], |f, module| {
            f.enter(Start::Managed);
            let [n, object] = f.params();
            let kept: Vec<_> = (1..5).map(|i| f.load_plain(I64, object, i * 8)).collect();
            let sum = |f: &mut Builder<'_>, first| {
                kept.iter().fold(first, |sum, &kept| f.ins().iadd(sum, kept))
            };
            let landing = f.create_block();
            let called = module.try_call(f, callee, &[n, object], landing);
            let result = called.expect("the arguments of the signature")[0];
            let result = sum(f, result);
            f.return_(&[result]).expect("one result");
            f.switch_to_block(landing);
            let values = f.block_params(landing).to_vec();
            let first = f.ins().imul_imm_s(values[0], 1000);
            let result = f.ins().iadd(first, values[1]);
            let result = sum(f, result);
            f.return_(&[result]).expect("one result");
        })
    }

    /// Places the functions. The region is not registered.
    ///
    /// # Panics
    /// If one is declared but not defined.
    pub fn place(self) -> (Program, Region) {
        self.module.place_all().expect("defined functions")
    }

    /// Places and registers the functions.
    ///
    /// # Panics
    /// If one is declared but not defined.
    pub fn finish(self, entry: FuncId, code: &Code) -> Compiled {
        let (program, region) = self.module.place_all().expect("defined functions");
        code.register(region).expect("correct maps");
        let functions =
            self.functions.into_iter().map(|(name, id)| (name, program.address(id))).collect();
        Compiled { entry: program.address(entry), functions, program }
    }
}

/// Calls a function of one result.
///
/// # Panics
/// If it has other parameters.
pub fn call(
    f: &mut Builder<'_>,
    module: &mut Module,
    callee: FuncId,
    args: &[stackmark_cranelift::Value],
) -> stackmark_cranelift::Value {
    module.call(f, callee, args).expect("the arguments of the signature")[0]
}

/// Compiles and registers `rec`, its [entry](Compiler::entry) and a [function](Compiler::back)
/// `back`. With `pad`, each frame has so many bytes more.
pub fn compile(code: &Code, bottom: NativeFn, pad: u32) -> Compiled {
    compile_recursion(code, bottom, pad, false)
}

/// As [`compile`]; the goroutine yields before it calls out at the bottom, and after that.
pub fn compile_yielding(code: &Code, bottom: NativeFn) -> Compiled {
    compile_recursion(code, bottom, 0, true)
}

fn compile_recursion(code: &Code, bottom: NativeFn, pad: u32, yields: bool) -> Compiled {
    compile_recursion_by(Compiler::default(), code, bottom, pad, yields)
}

/// As [`compile`], by this compiler.
pub fn compile_by(compiler: Compiler, code: &Code, bottom: NativeFn, pad: u32) -> Compiled {
    compile_recursion_by(compiler, code, bottom, pad, false)
}

fn compile_recursion_by(
    mut compiler: Compiler,
    code: &Code,
    bottom: NativeFn,
    pad: u32,
    yields: bool,
) -> Compiled {
    let rec = compiler.recursion(bottom, pad, yields);
    let entry = compiler.entry(rec);
    compiler.back("back", rec);
    compiler.finish(entry, code)
}
