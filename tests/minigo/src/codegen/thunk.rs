//! Small functions between two conventions: function values of declared functions, bound methods,
//! `go` statements, and the managed function with which every goroutine starts.

use super::Compiler;
use super::abi::{self, Part, Results};
use super::function::FuncGen;
use crate::code::Role;
use crate::runtime::typeinfo::TypeInfo;
use crate::types::Sig;
use cranelift_codegen::ir::{
    self, AbiParam, InstBuilder, MemFlagsData, Signature, Value, types as clif,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::FuncId;
use std::rc::Rc;

impl Compiler<'_> {
    /// The type of a heap object of whole words; `refs` tells which of them are references.
    pub(crate) fn words_info(&mut self, refs: Vec<bool>) -> &'static TypeInfo {
        self.emitter.words_info(refs)
    }

    /// Takes a function object, which it does not need, and calls `target`.
    pub(crate) fn plain_thunk(&mut self, target: FuncId, sig: &Rc<Sig>) -> FuncId {
        if let Some(id) = self.emitter.thunk(target) {
            return id;
        }
        let name = format!("{}.value", self.emitter.name(target));
        let id = self.thunk(&name, &[], Some(target), sig, true);
        self.emitter.remember_thunk(target, id);
        id
    }

    /// A function that takes a function object with bound words. It calls `target`, or the function
    /// object in the first bound word, with the bound words as the first arguments. With `forward`
    /// its own parameters follow. It returns the results of that call.
    pub(crate) fn thunk(
        &mut self,
        name: &str,
        bound: &[Part],
        target: Option<FuncId>,
        sig: &Rc<Sig>,
        forward: bool,
    ) -> FuncId {
        let none = Rc::new(Sig { params: vec![], results: vec![], variadic: false });
        let own = if forward {
            let mut s = (**sig).clone();
            // The bound words replace the receiver.
            if !bound.is_empty() {
                s.params.remove(0);
            }
            Rc::new(s)
        } else {
            none
        };
        let signature = abi::signature(&mut self.types, &own, true);
        let id = self.emitter.declare(name, &signature);
        self.emitter.set_role(id, Role::Wrapper);
        let target_signature = abi::signature(&mut self.types, sig, target.is_none());
        let result_parts = abi::parts_of(&mut self.types, &own.results);
        let param_parts = abi::parts_of(&mut self.types, &own.params);
        let mut func =
            ir::Function::with_name_signature(ir::UserFuncName::user(0, id.as_u32()), signature);
        let mut fbc = FunctionBuilderContext::new();
        {
            let mut g = FuncGen::new(
                &mut *self,
                FunctionBuilder::new(&mut func, &mut fbc),
                &own,
                name,
                Rc::default(),
                0,
            );
            g.enter();
            let entry = g.b.func.layout.entry_block().expect("entered");
            let params = g.b.block_params(entry).to_vec();
            let context = g.refv(params[0]);
            let mut args: Vec<Value> = vec![];
            for (i, p) in bound.iter().enumerate() {
                let v = g.b.ins().load(p.clif, MemFlagsData::trusted(), context, 8 + 8 * i as i32);
                args.push(if p.is_ref { g.refv(v) } else { v });
            }
            for (v, part) in params[1..].iter().zip(&param_parts) {
                args.push(if part.is_ref { g.refv(*v) } else { *v });
            }
            let call = match target {
                Some(t) => {
                    let f = g.c.emitter.reference(t, g.b.func);
                    g.b.ins().call(f, &args)
                }
                None => {
                    let object = args[0];
                    let code = g.b.ins().load(clif::I64, MemFlagsData::trusted(), object, 0);
                    let s = g.b.import_signature(target_signature);
                    g.b.ins().call_indirect(s, code, &args)
                }
            };
            // Results beyond the registers stay where the callee has put them.
            let registers = if forward { g.b.inst_results(call).to_vec() } else { vec![] };
            debug_assert!(
                !matches!(abi::results(&result_parts), Results::Object) || registers.len() <= 1
            );
            g.b.ins().return_(&registers);
            g.finish_thunk();
        }
        let mut refs = vec![true];
        refs.extend(param_parts.iter().map(|p| p.is_ref));
        self.emitter.define(id, name, func, &refs);
        id
    }

    /// Lets other goroutines run. A function of its own: `switch_out` keeps next to no registers,
    /// and every function that called it would have to save them all.
    pub(crate) fn gosched(&mut self) -> FuncId {
        if let Some(id) = self.gosched {
            return id;
        }
        let signature = Signature::new(CallConv::SystemV);
        let name = "minigo.gosched";
        let id = self.emitter.declare(name, &signature);
        self.emitter.set_role(id, Role::Wrapper);
        let mut func =
            ir::Function::with_name_signature(ir::UserFuncName::user(0, id.as_u32()), signature);
        let mut fbc = FunctionBuilderContext::new();
        {
            let mut b = FunctionBuilder::new(&mut func, &mut fbc);
            let entry = b.create_block();
            b.switch_to_block(entry);
            let callee = self.emitter.switch_out(b.func);
            let value = b.ins().iconst(clif::I64, stackmark::stack::YIELD as i64);
            b.ins().call(callee, &[value]);
            b.ins().return_(&[]);
            b.seal_all_blocks();
            b.finalize(self.emitter.frontend_config());
        }
        self.emitter.define(id, name, func, &[]);
        self.gosched = Some(id);
        id
    }

    /// What `goroutine_entry` calls: sets the pinned register and calls the function object.
    pub(crate) fn goroutine_start(&mut self) -> FuncId {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.extend([AbiParam::new(clif::I64), AbiParam::new(clif::I64)]);
        let name = "minigo.goroutine";
        let id = self.emitter.declare(name, &signature);
        self.emitter.set_role(id, Role::Start);
        let mut func =
            ir::Function::with_name_signature(ir::UserFuncName::user(0, id.as_u32()), signature);
        let mut fbc = FunctionBuilderContext::new();
        {
            let mut b = FunctionBuilder::new(&mut func, &mut fbc);
            let entry = b.create_block();
            b.append_block_params_for_function_params(entry);
            b.switch_to_block(entry);
            let (header, object) = (b.block_params(entry)[0], b.block_params(entry)[1]);
            b.ins().set_pinned_reg(header);
            let mut called = Signature::new(CallConv::SystemV);
            called.params.push(AbiParam::new(clif::I64));
            let called = b.import_signature(called);
            let code = b.ins().load(clif::I64, MemFlagsData::trusted(), object, 0);
            b.ins().call_indirect(called, code, &[object]);
            b.ins().return_(&[]);
            b.seal_all_blocks();
            b.finalize(self.emitter.frontend_config());
        }
        self.emitter.define(id, name, func, &[false, true]);
        id
    }
}

impl FuncGen<'_, '_> {
    /// A new function object: the code and the bound words.
    pub(crate) fn function_object(
        &mut self,
        code: FuncId,
        parts: &[Part],
        values: &[Value],
    ) -> Value {
        let mut refs = vec![false];
        refs.extend(parts.iter().map(|p| p.is_ref));
        let info = self.c.words_info(refs);
        let object = self.allocate_values(info, 1);
        let f = self.c.emitter.reference(code, self.b.func);
        let code = self.b.ins().func_addr(clif::I64, f);
        self.b.ins().store(MemFlagsData::trusted(), code, object, 0);
        let bound: Vec<Value> =
            parts.iter().zip(values).filter(|(p, _)| p.is_ref).map(|(_, v)| *v).collect();
        self.write_barrier_into(object, &bound);
        for (i, v) in values.iter().enumerate() {
            self.b.ins().store(MemFlagsData::trusted(), *v, object, 8 + 8 * i as i32);
        }
        object
    }

    /// `go f(x)`: a function object with everything that the call needs, handed to a new goroutine.
    pub(crate) fn go_statement(
        &mut self,
        c: &go_parser::ast::CallExpr,
    ) -> crate::error::Compiled<()> {
        let object = self.later(c, super::defer::GO)?;
        self.native(crate::runtime::natives::go, &[object]);
        Ok(())
    }

    pub(crate) fn check_go_nil(&mut self, f: Value) {
        let ok = self.b.ins().icmp_imm_s(ir::condcodes::IntCC::NotEqual, f, 0);
        self.check(ok, crate::runtime::natives::Failure::GoNil, &[]);
    }
}
