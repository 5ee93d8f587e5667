//! Function literals and bound methods.

use super::abi;
use super::function::{FuncGen, Storage, Val};
use super::{Compiler, Literal};
use crate::error::Compiled;
use crate::types::{Kind, Ty};
use crate::walk::{Node as Walk, children};
use cranelift_codegen::ir::Value;
use go_parser::ast::{Expr, FuncLit, Node, SelectorExpr};
use go_types::{ObjKey, Selection};
use stackmark_cranelift::REF;
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
        let id = self.c.emitter.declare_signature(&name, signature);
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
                    parts.push(REF);
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
                    let v = self.b.load_reference(context, at);
                    at += 8;
                    let var = self.b.variable(REF);
                    self.b.def_var(var, v);
                    Storage::Boxed(var)
                } else {
                    let vars = self.component_vars(t);
                    let parts = abi::parts(&mut self.c.types, t);
                    for (var, p) in vars.iter().zip(parts) {
                        let v = self.b.load(p, context, at);
                        at += 8;
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
        let t = self.type_of(e)?;
        if !self.c.functions.contains_key(&sel.obj()) {
            return self.interface_method_value(s, sel, t);
        }
        let (id, sig) = self.method(sel, pos)?;
        let receiver = self.receiver(s, sel, sig.params[0])?;
        let receiver = self.snapshot(receiver);
        let parts = abi::parts(&mut self.c.types, sig.params[0]);
        if parts.is_empty() {
            let thunk = self.c.plain_thunk(id, &sig);
            let at = self.c.emitter.static_closure(thunk);
            return Ok(Val { ty: t, v: vec![self.address(at)] });
        }
        let name = self.bound_name();
        let thunk = self.c.thunk(&name, &parts, Some(id), &sig, true);
        let object = self.function_object(thunk, &parts, &receiver.v);
        Ok(Val { ty: t, v: vec![object] })
    }

    fn bound_name(&mut self) -> String {
        self.literals += 1;
        format!("{}.bound{}", self.name, self.literals)
    }

    /// `x.m` as a value where the method is an interface's: the interface value is bound.
    fn interface_method_value(
        &mut self,
        s: &SelectorExpr,
        sel: &Selection,
        t: Ty,
    ) -> Compiled<Val> {
        let pos = s.expr.pos(&self.c.program.ast);
        let Kind::Func(sig) = self.kind(t) else {
            return Err(self.error(pos, "a method that is no function"));
        };
        let base = self.type_of(&s.expr)?;
        let path = &sel.indices()[..sel.indices().len() - 1];
        let v = self.expr(&s.expr)?;
        let v = self.field_of_value(v, base, path, pos)?;
        self.check_nil(v.v[0]);
        let method = self.c.program.tc.lobjs[sel.obj()].name().clone();
        let name = self.bound_name();
        let id = self.c.forwarding_function(&name, &sig);
        let interface = v.ty;
        self.c.forwarding(id, &sig, &sig, |g, object, args| {
            let value = g.load_at(interface, object, 8);
            g.call_interface(&value, &method, &sig, &args)
        });
        let parts = abi::parts(&mut self.c.types, interface);
        let object = self.function_object(id, &parts, &v.v);
        Ok(Val { ty: t, v: vec![object] })
    }

    /// `T.m` as a value.
    pub(crate) fn method_expression(&mut self, sel: &Selection, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        let Kind::Func(own) = self.kind(t) else {
            return Err(self.error(pos, "a method expression that is no function"));
        };
        if let Some(id) = self.c.functions.get(&sel.obj()).copied() {
            let sig = self.c.function_sig(sel.obj(), pos)?;
            if own.params == sig.params {
                let thunk = self.c.plain_thunk(id, &sig);
                let at = self.c.emitter.static_closure(thunk);
                return Ok(Val { ty: t, v: vec![self.address(at)] });
            }
        }
        let mut sig = (*own).clone();
        sig.params.remove(0);
        let sig = Rc::new(sig);
        let name = self.bound_name();
        let id = self.c.forwarding_function(&name, &own);
        let mut failed = None;
        self.c.forwarding(id, &own, &sig, |g, _, mut args| {
            let receiver = args.remove(0);
            match g.call_selected(sel, &receiver, &sig, &args) {
                Ok(results) => results,
                Err(e) => {
                    failed = Some(e);
                    sig.results.iter().map(|t| g.zero(*t)).collect()
                }
            }
        });
        if let Some(e) = failed {
            return Err(e);
        }
        let at = self.c.emitter.static_closure(id);
        Ok(Val { ty: t, v: vec![self.address(at)] })
    }
}
