//! The managed functions under a panic: they run deferred functions on top of the stack that
//! panics.
//!
//! `panic` and a failed check call `minigo.panic` and `minigo.fail`; `runtime.Goexit` calls
//! `minigo.goexit`. Each asks the runtime for one deferred function after the other and calls it.
//! The runtime ends the process when there is none left, or leaves the frames when one has
//! recovered.

use super::function::FuncGen;
use super::{Compiler, abi};
use crate::code::Role;
use crate::module::Emitter;
use crate::runtime::natives::{self, NativeFn};
use crate::types::Part;
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use stackmark_cranelift::{FuncId, INT, REF, Start};

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

pub(crate) fn declare(emitter: &mut Emitter) -> Panicking {
    let mut declare =
        |name: &str, params: &[Part], role| emitter.declare(name, abi::of_parts(params, &[]), role);
    Panicking {
        panic: declare("panic", &[INT, REF], Role::Panic),
        fail: declare("minigo.fail", &[INT; 3], Role::Runtime),
        goexit: declare("runtime.Goexit", &[], Role::Goexit),
        raise: declare("minigo.raise", &[INT], Role::Runtime),
    }
}

impl Compiler<'_> {
    pub(crate) fn define_panicking(&mut self) {
        let p = self.panicking;
        self.define_own(p.panic, |g| {
            g.b.enter(Start::Managed);
            let value = g.b.params::<2>();
            g.run_deferred(natives::panic_begin, &value);
        });
        self.define_own(p.goexit, |g| {
            g.b.enter(Start::Managed);
            g.run_deferred(natives::goexit_begin, &[]);
        });
        self.define_own(p.fail, |g| {
            g.b.enter(Start::Managed);
            let failure = g.b.params::<3>();
            g.b.native(natives::fail_value, &failure);
            g.panic_with_results();
            g.b.ins().return_(&[]);
        });
        self.define_own(p.raise, |g| {
            g.b.enter(Start::Callback);
            let raised = g.b.param(0);
            g.b.native(natives::raised_value, &[raised]);
            g.panic_with_results();
            g.b.ins().return_(&[]);
        });
    }
}

impl FuncGen<'_, '_> {
    /// Makes the panic's record and runs deferred functions until the runtime takes over.
    fn run_deferred(&mut self, begin: NativeFn, args: &[Value]) {
        let record = self.b.native(begin, args);
        let record = self.b.reference(record);
        let head = self.b.create_block();
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        let function = self.b.native(natives::panic_next, &[record]);
        let function = self.b.reference(function);
        self.call_object(function);
        self.b.native(natives::panic_after, &[record]);
        self.b.ins().jump(head, &[]);
        self.start_dead_block();
    }

    /// Panics with the value that a native has left in the result words.
    pub(crate) fn panic_with_results(&mut self) {
        let ty = self.b.result_word(0, clif::I64);
        let data = self.result_ref(1);
        self.emit_panic(ty, data);
    }

    /// Calls `minigo.panic`, which does not return.
    pub(crate) fn emit_panic(&mut self, ty: Value, data: Value) {
        self.call_function(self.c.panicking.panic, &[ty, data]);
    }

    pub(crate) fn emit_goexit(&mut self) {
        self.call_function(self.c.panicking.goexit, &[]);
    }
}
