//! Small functions between two conventions: function values of declared functions, bound methods,
//! `go` statements, and the managed function with which every goroutine starts.

use super::Compiler;
use super::abi;
use super::function::FuncGen;
use crate::code::Role;
use crate::runtime::host;
use crate::runtime::typeinfo::TypeInfo;
use crate::types::{Part, Sig};
use cranelift_codegen::ir::{self, InstBuilder, Value, types as clif};
use stackmark_cranelift::{FuncId, INT, REF, Start};
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
        let own = if forward {
            let mut s = (**sig).clone();
            // The bound words replace the receiver.
            if !bound.is_empty() {
                s.params.remove(0);
            }
            Rc::new(s)
        } else {
            Rc::default()
        };
        let signature = abi::signature(&mut self.types, &own, true);
        let id = self.emitter.declare(name, signature, Role::Wrapper);
        self.define(id, &own, |g| {
            g.b.enter(Start::Managed);
            let context = g.b.param(0);
            let at = (8..).step_by(8);
            let mut args: Vec<Value> =
                bound.iter().zip(at).map(|(part, at)| g.b.load(*part, context, at)).collect();
            args.extend_from_slice(&g.b.all_params()[1..]);
            let call = match target {
                Some(target) => {
                    let target = g.c.emitter.reference(target, g.b.func);
                    g.b.ins().call(target, &args)
                }
                None => {
                    let code = g.b.load_plain(clif::I64, args[0], 0);
                    let signature = abi::signature(&mut g.c.types, sig, true);
                    let signature = g.b.import_signature(signature.clif());
                    g.b.ins().call_indirect(signature, code, &args)
                }
            };
            // Results beyond the registers stay where the callee has put them.
            let registers = if forward { g.b.inst_results(call).to_vec() } else { vec![] };
            g.b.ins().return_(&registers);
        });
        id
    }

    /// Lets other goroutines run. A function of its own: `switch_out` keeps next to no registers,
    /// and every function that called it would have to save them all.
    pub(crate) fn gosched(&mut self) -> FuncId {
        if let Some(id) = self.gosched {
            return id;
        }
        let signature = abi::of_parts(&[], &[]);
        let id = self.emitter.declare("minigo.gosched", signature, Role::Wrapper);
        self.define_own(id, |g| {
            let entry = g.b.create_block();
            g.b.switch_to_block(entry);
            g.b.yield_now();
            g.b.ins().return_(&[]);
        });
        self.gosched = Some(id);
        id
    }

    /// What a goroutine starts with: calls the function object. A goroutine on its thread's own
    /// stack is given the address of two words, its header and the object.
    pub(crate) fn goroutine_start(&mut self) -> FuncId {
        let on_thread = host::on_threads();
        let params: &[Part] = if on_thread { &[INT] } else { &[INT, REF] };
        let signature = abi::of_parts(params, &[]);
        let id = self.emitter.declare("minigo.goroutine", signature, Role::Start);
        self.define_own(id, |g| {
            let object = if on_thread {
                g.b.enter(Start::Callback);
                let incoming = g.b.param(0);
                g.b.load(REF, incoming, 8)
            } else {
                g.b.enter(Start::Goroutine);
                g.b.param(1)
            };
            let code = g.b.load_plain(clif::I64, object, 0);
            g.call_code(code, object, &Sig::default(), &[]);
            g.b.ins().return_(&[]);
        });
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
        refs.extend(parts.iter().map(|p| p.is_reference()));
        let info = self.c.words_info(refs);
        let object = self.allocate_values(info, 1);
        let f = self.c.emitter.reference(code, self.b.func);
        let code = self.b.ins().func_addr(clif::I64, f);
        self.b.store_plain(code, object, 0);
        let bound: Vec<Value> =
            parts.iter().zip(values).filter(|(p, _)| p.is_reference()).map(|(_, v)| *v).collect();
        self.write_barrier_into(object, &bound);
        for (i, (v, part)) in values.iter().zip(parts).enumerate() {
            self.b.store_unreported(*part, *v, object, 8 + 8 * i as i32);
        }
        object
    }

    /// `go f(x)`: a function object with everything that the call needs, handed to a new goroutine.
    pub(crate) fn go_statement(
        &mut self,
        c: &go_parser::ast::CallExpr,
    ) -> crate::error::Compiled<()> {
        let object = self.later(c, super::defer::GO)?;
        self.b.native(crate::runtime::natives::go, &[object]);
        Ok(())
    }

    pub(crate) fn check_go_nil(&mut self, f: Value) {
        let ok = self.b.ins().icmp_imm_s(ir::condcodes::IntCC::NotEqual, f, 0);
        self.check(ok, crate::runtime::natives::Failure::GoNil, &[]);
    }
}
