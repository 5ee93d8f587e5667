//! Function literals and bound methods.

use super::abi::{self, Part};
use super::function::{FuncGen, Storage, Val};
use super::{Compiler, Literal};
use crate::error::Compiled;
use crate::types::{Kind, Sig};
use crate::walk::{Node as Walk, children};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types as clif};
use go_parser::ast::{Expr, FuncLit, Node, SelectorExpr};
use go_types::{ObjKey, Selection};
use std::collections::HashSet;
use std::rc::Rc;

impl FuncGen<'_, '_> {
    /// A function literal: an object with its code and what it captures.
    pub(crate) fn literal(&mut self, lit: &Rc<FuncLit>, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        let Kind::Func(sig) = self.kind(t) else {
            return Err(self.error(pos, "a function literal of another type"));
        };
        self.literals += 1;
        let name = if self.depth == 0 {
            format!("{}.func{}", self.name, self.literals)
        } else {
            format!("{}.{}", self.name, self.literals)
        };
        let signature = abi::signature(&mut self.c.types, &sig, true);
        let id = self.c.emitter.declare(&name, &signature);
        let captures = self.captures_of(lit);
        let (mut parts, mut values) = (vec![], vec![]);
        for obj in &captures {
            let storage = self.vars[obj].clone();
            match storage {
                Storage::Vars(vars) => {
                    let ty = self.c.object_type(*obj, pos)?;
                    parts.extend(abi::parts(&mut self.c.types, ty));
                    values.extend(vars.iter().map(|v| self.b.use_var(*v)).collect::<Vec<Value>>());
                }
                Storage::Boxed(var) => {
                    parts.push(Part { clif: clif::I64, is_ref: true });
                    values.push(self.b.use_var(var));
                }
                Storage::Slot(_) => {
                    return Err(self.error(pos, "a captured variable in a stack slot"));
                }
            }
        }
        let object = if captures.is_empty() {
            let at = self.c.emitter.static_closure(id);
            self.address(at)
        } else {
            self.function_object(id, &parts, &values)
        };
        self.c.literals.push_back(Literal {
            lit: lit.clone(),
            id,
            name,
            sig,
            captures,
            escapes: self.escapes.clone(),
            depth: self.depth + 1,
        });
        Ok(Val { ty: t, v: vec![object] })
    }

    /// The variables of this function that a literal, or a literal in it, names.
    fn captures_of(&self, lit: &FuncLit) -> Vec<ObjKey> {
        fn go(c: &Compiler<'_>, n: Walk<'_>, seen: &mut HashSet<ObjKey>, out: &mut Vec<ObjKey>) {
            if let Walk::Expr(Expr::Ident(i)) = n
                && let Some(obj) = c.program.info().uses.get(i)
                && seen.insert(*obj)
            {
                out.push(*obj);
            }
            children(n, &c.program.ast, &mut |n| go(c, n, seen, out));
        }
        let (mut seen, mut out) = (HashSet::new(), vec![]);
        for s in &lit.body.list {
            go(self.c, Walk::Stmt(s), &mut seen, &mut out);
        }
        out.retain(|o| self.vars.contains_key(o));
        out
    }

    /// In a literal: loads what it has captured from its function object.
    pub(crate) fn captured_variables(
        &mut self,
        context: Value,
        captures: &[ObjKey],
    ) -> Compiled<()> {
        let mut at = 8;
        for obj in captures {
            let pos = self.c.program.tc.lobjs[*obj].pos();
            let t = self.c.object_type(*obj, pos)?;
            let storage =
                if self.escapes.in_heap(*obj) || self.c.types.layout(t).components.is_none() {
                    let v = self.b.ins().load(clif::I64, MemFlagsData::trusted(), context, at);
                    at += 8;
                    let v = self.refv(v);
                    let var = self.ref_var();
                    self.b.def_var(var, v);
                    Storage::Boxed(var)
                } else {
                    let vars = self.component_vars(t);
                    let parts = abi::parts(&mut self.c.types, t);
                    for (var, p) in vars.iter().zip(parts) {
                        let v = self.b.ins().load(p.clif, MemFlagsData::trusted(), context, at);
                        at += 8;
                        let v = if p.is_ref { self.refv(v) } else { v };
                        self.b.def_var(*var, v);
                    }
                    Storage::Vars(vars)
                };
            self.vars.insert(*obj, storage);
        }
        Ok(())
    }

    /// `x.m` as a value: the receiver is evaluated now.
    pub(crate) fn method_value(
        &mut self,
        s: &SelectorExpr,
        sel: &Selection,
        e: &Expr,
    ) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let (id, sig) = self.c_method(sel, pos)?;
        let receiver = self.receiver(s, sel, sig.params[0])?;
        let receiver = self.snapshot(receiver);
        let t = self.type_of(e)?;
        let parts = abi::parts(&mut self.c.types, sig.params[0]);
        if parts.is_empty() {
            return Err(
                self.error(pos, "a method value of a receiver without fields is not supported")
            );
        }
        self.literals += 1;
        let name = format!("{}.bound{}", self.name, self.literals);
        let thunk = self.c.thunk(&name, &parts, Some(id), &sig, true);
        let object = self.function_object(thunk, &parts, &receiver.v);
        Ok(Val { ty: t, v: vec![object] })
    }

    /// `T.m` as a value.
    pub(crate) fn method_expression(&mut self, sel: &Selection, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let (id, sig) = self.c_method(sel, pos)?;
        let t = self.type_of(e)?;
        match self.kind(t) {
            Kind::Func(own) if own.params == sig.params => {}
            _ => {
                return Err(self.error(
                    pos,
                    "a method expression through embedding or a pointer is not supported",
                ));
            }
        }
        let thunk = self.c.plain_thunk(id, &sig);
        let at = self.c.emitter.static_closure(thunk);
        Ok(Val { ty: t, v: vec![self.address(at)] })
    }

    fn c_method(
        &mut self,
        sel: &Selection,
        pos: go_parser::Pos,
    ) -> Compiled<(cranelift_module::FuncId, Rc<Sig>)> {
        self.method(sel, pos)
    }
}
