//! How native code asks a value for its text: `minigo.text` calls a method `Error`, `String` or
//! `GoString`, and a panic of that method ends here.

use super::function::FuncGen;
use super::{Compiler, abi};
use crate::code::Role;
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::{Part, Sig};
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use stackmark_cranelift::{FuncId, INT, REF, Start};
use std::rc::Rc;

const NAME: &str = "minigo.text";

// Offsets in what is asked, `runtime::interface::Text`.
const CODE: i32 = 8;
const DATA: i32 = 16;

impl Compiler<'_> {
    /// What native code calls back: takes the address of a
    /// [`Text`](crate::runtime::interface::Text).
    pub(crate) fn text_caller(&mut self) -> Compiled<FuncId> {
        let catcher = self.text_catcher();
        let guarded = self.guarded_text(catcher)?;
        let id = self.text_function(&[INT], &[INT]);
        self.define_own(id, |g| {
            g.b.enter(Start::Callback);
            let asked = g.b.param(0);
            g.call_function(guarded, &[asked]);
            let zero = g.b.int(0);
            g.b.ins().return_(&[zero]);
        });
        Ok(id)
    }

    /// Calls the method, with the catcher as a deferred function.
    fn guarded_text(&mut self, catcher: FuncId) -> Compiled<FuncId> {
        let id = self.text_function(&[INT], &[]);
        self.try_define(id, &Rc::default(), |g| {
            g.b.enter(Start::Managed);
            g.prepare_defers(&[]);
            let asked = g.b.param(0);
            g.asks(asked, catcher)
        })?;
        Ok(id)
    }

    /// The deferred function: its function object holds what is asked.
    fn text_catcher(&mut self) -> FuncId {
        let id = self.text_function(&[REF], &[]);
        self.define_own(id, |g| {
            g.b.enter(Start::Managed);
            let object = g.b.param(0);
            let asked = g.b.load_plain(clif::I64, object, 8);
            let value = g.recover();
            g.b.native(natives::take_panic, &[asked, value.v[0], value.v[1]]);
            g.b.ins().return_(&[]);
        });
        id
    }

    fn text_function(&mut self, params: &[Part], results: &[Part]) -> FuncId {
        self.emitter.declare(NAME, abi::of_parts(params, results), Role::Runtime)
    }
}

impl FuncGen<'_, '_> {
    /// The body of the guarded function, behind its prologue.
    fn asks(&mut self, asked: Value, catcher: FuncId) -> Compiled<()> {
        self.begin_defers(&[])?;
        let object = self.function_object(catcher, &[INT], &[asked]);
        self.hang_in(object);
        let code = self.b.load_plain(clif::I64, asked, CODE);
        let data = self.b.load_reference(asked, DATA);
        let string = self.c.types.basic.string;
        let sig = Sig { results: vec![string], ..Sig::default() };
        let text = self.call_method_code(code, data, &sig, &[]).remove(0);
        self.b.native(natives::take_text, &[asked, text.v[0], text.v[1]]);
        self.emit_return(vec![]);
        self.end_defers()
    }
}
