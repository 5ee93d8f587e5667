//! The managed functions under a panic: they run deferred functions on top of the stack that
//! panics.
//!
//! `panic` and a failed check call `minigo.panic` and `minigo.fail`; `runtime.Goexit` calls
//! `minigo.goexit`. Each asks the runtime for one deferred function after the other and calls it.
//! The runtime ends the process when there is none left, or leaves the frames when one has
//! recovered.

use super::Compiler;
use super::function::FuncGen;
use crate::code::Role;
use crate::module::Emitter;
use crate::runtime::natives::{self, NativeFn};
use crate::types::Sig;
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, Signature, Value, types as clif};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::FuncId;
use std::rc::Rc;

/// The functions of this file.
#[derive(Clone, Copy)]
pub(crate) struct Panicking {
    /// (type word, data word) of the value.
    pub(crate) panic: FuncId,
    /// (which check, two words for its message).
    pub(crate) fail: FuncId,
    pub(crate) goexit: FuncId,
    /// What native code calls back with the address of a [`Raised`](crate::runtime::panic::Raised).
    pub(crate) raise: FuncId,
}

fn words(n: usize) -> Signature {
    let mut s = Signature::new(CallConv::SystemV);
    s.params.extend(vec![AbiParam::new(clif::I64); n]);
    s
}

pub(crate) fn declare(emitter: &mut Emitter) -> Panicking {
    let mut declare = |name: &str, params, role| {
        let id = emitter.declare(name, &words(params));
        emitter.set_role(id, role);
        id
    };
    Panicking {
        panic: declare("panic", 2, Role::Panic),
        fail: declare("minigo.fail", 3, Role::Runtime),
        goexit: declare("runtime.Goexit", 0, Role::Goexit),
        raise: declare("minigo.raise", 1, Role::Runtime),
    }
}

impl Compiler<'_> {
    pub(crate) fn define_panicking(&mut self) {
        let p = self.panicking;
        self.runtime_function(p.panic, "panic", words(2), &[false, true], |g, params| {
            let data = g.refv(params[1]);
            g.run_deferred(natives::panic_begin, &[params[0], data]);
        });
        self.runtime_function(p.goexit, "runtime.Goexit", words(0), &[], |g, _| {
            g.run_deferred(natives::goexit_begin, &[]);
        });
        self.runtime_function(p.fail, "minigo.fail", words(3), &[false; 3], |g, params| {
            g.native(natives::fail_value, params);
            g.panic_with_results();
        });
        let mut func = ir::Function::with_name_signature(
            ir::UserFuncName::user(0, p.raise.as_u32()),
            words(1),
        );
        let mut fbc = FunctionBuilderContext::new();
        {
            let none = Rc::new(Sig { params: vec![], results: vec![], variadic: false });
            let b = FunctionBuilder::new(&mut func, &mut fbc);
            let mut g = FuncGen::new(&mut *self, b, &none, "minigo.raise", Rc::default(), 0);
            let raised = g.enter_from_native();
            g.native(natives::raised_value, &[raised]);
            g.panic_with_results();
            g.b.ins().return_(&[]);
            g.finish_thunk();
        }
        self.emitter.define(p.raise, "minigo.raise", func, &[false]);
    }

    fn runtime_function(
        &mut self,
        id: FuncId,
        name: &str,
        signature: Signature,
        refs: &[bool],
        body: impl FnOnce(&mut FuncGen<'_, '_>, &[Value]),
    ) {
        let none = Rc::new(Sig { params: vec![], results: vec![], variadic: false });
        let mut func =
            ir::Function::with_name_signature(ir::UserFuncName::user(0, id.as_u32()), signature);
        let mut fbc = FunctionBuilderContext::new();
        {
            let b = FunctionBuilder::new(&mut func, &mut fbc);
            let mut g = FuncGen::new(&mut *self, b, &none, name, Rc::default(), 0);
            g.enter();
            let entry = g.b.func.layout.entry_block().expect("entered");
            let params = g.b.block_params(entry).to_vec();
            body(&mut g, &params);
            if !g.b.is_unreachable() {
                g.b.ins().return_(&[]);
            }
            g.finish_thunk();
        }
        self.emitter.define(id, name, func, refs);
    }
}

impl FuncGen<'_, '_> {
    /// Makes the panic's record and runs deferred functions until the runtime takes over.
    fn run_deferred(&mut self, begin: NativeFn, args: &[Value]) {
        let record = self.native(begin, args);
        let record = self.refv(record);
        let head = self.b.create_block();
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        let function = self.native(natives::panic_next, &[record]);
        let function = self.refv(function);
        self.call_object(function);
        self.native(natives::panic_after, &[record]);
        self.b.ins().jump(head, &[]);
        self.start_dead_block();
    }

    /// Panics with the value that a native has left in the result words.
    pub(crate) fn panic_with_results(&mut self) {
        let ty = self.result_word(0, clif::I64);
        let data = self.result_ref(1);
        self.emit_panic(ty, data);
    }

    /// Calls `minigo.panic`, which does not return.
    pub(crate) fn emit_panic(&mut self, ty: Value, data: Value) {
        let f = self.c.emitter.reference(self.c.panicking.panic, self.b.func);
        self.b.ins().call(f, &[ty, data]);
    }

    pub(crate) fn emit_goexit(&mut self) {
        let f = self.c.emitter.reference(self.c.panicking.goexit, self.b.func);
        self.b.ins().call(f, &[]);
    }
}
