//! How native code asks a value for its text: `minigo.text` calls a method `Error`, `String` or
//! `GoString`, and a panic of that method ends here.

use super::Compiler;
use super::abi::Part;
use super::function::FuncGen;
use crate::code::Role;
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::Sig;
use cranelift_codegen::ir::{
    self, AbiParam, InstBuilder, MemFlagsData, Signature, Value, types as clif,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::FuncId;
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
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(clif::I64));
        signature.returns.push(AbiParam::new(clif::I64));
        Ok(self.text_function(&signature, false, |g| {
            let asked = g.enter_from_native();
            let f = g.c.emitter.reference(guarded, g.b.func);
            g.b.ins().call(f, &[asked]);
            let zero = g.iconst(0);
            g.b.ins().return_(&[zero]);
        }))
    }

    /// Calls the method, with the catcher as a deferred function.
    fn guarded_text(&mut self, catcher: FuncId) -> Compiled<FuncId> {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(clif::I64));
        let mut failed = None;
        let id = self.text_function(&signature, false, |g| {
            let asked = g.enter_with_word();
            g.prepare_defers(&[]);
            failed = g.asks(asked, catcher).err();
        });
        failed.map_or(Ok(id), Err)
    }

    /// The deferred function: its function object holds what is asked.
    fn text_catcher(&mut self) -> FuncId {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(clif::I64));
        self.text_function(&signature, true, |g| {
            let object = g.enter_with_word();
            let object = g.refv(object);
            let asked = g.b.ins().load(clif::I64, MemFlagsData::trusted(), object, 8);
            let value = g.recover();
            g.native(natives::take_panic, &[asked, value.v[0], value.v[1]]);
            g.b.ins().return_(&[]);
        })
    }

    /// A function with one word as its parameter.
    fn text_function(
        &mut self,
        signature: &Signature,
        is_ref: bool,
        body: impl FnOnce(&mut FuncGen<'_, '_>),
    ) -> FuncId {
        let id = self.emitter.declare(NAME, signature);
        self.emitter.set_role(id, Role::Runtime);
        let none = Rc::new(Sig { params: vec![], results: vec![], variadic: false });
        let name = ir::UserFuncName::user(0, id.as_u32());
        let mut func = ir::Function::with_name_signature(name, signature.clone());
        let mut fbc = FunctionBuilderContext::new();
        let isolated = {
            let b = FunctionBuilder::new(&mut func, &mut fbc);
            let mut g = FuncGen::new(&mut *self, b, &none, NAME, Rc::default(), 0);
            body(&mut g);
            let isolated = g.isolated;
            g.finish_thunk();
            isolated
        };
        self.emitter.define_isolated(id, NAME, func, &[is_ref], isolated);
        id
    }
}

impl FuncGen<'_, '_> {
    fn enter_with_word(&mut self) -> Value {
        self.enter();
        let entry = self.b.func.layout.entry_block().expect("entered");
        self.b.block_params(entry)[0]
    }

    /// The body of the guarded function, behind its prologue.
    fn asks(&mut self, asked: Value, catcher: FuncId) -> Compiled<()> {
        self.begin_defers(&[])?;
        let object =
            self.function_object(catcher, &[Part { clif: clif::I64, is_ref: false }], &[asked]);
        self.hang_in(object);
        let code = self.b.ins().load(clif::I64, MemFlagsData::trusted(), asked, CODE);
        let data = self.b.ins().load(clif::I64, MemFlagsData::trusted(), asked, DATA);
        let data = self.refv(data);
        let string = self.c.types.basic.string;
        let sig = Sig { params: vec![], results: vec![string], variadic: false };
        let text = self.call_method_code(code, data, &sig, &[]).remove(0);
        self.native(natives::take_text, &[asked, text.v[0], text.v[1]]);
        self.emit_return(vec![]);
        self.end_defers()
    }
}
