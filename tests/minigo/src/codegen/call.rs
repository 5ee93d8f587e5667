//! Calls: of declared functions, methods, function values and the functions of the standard
//! packages.

use super::abi;
use super::foreign::CFunction;
use super::function::{FuncGen, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::runtime::natives::Failure;
use crate::types::{Kind, Part, Sig, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use go_parser::Pos;
use go_parser::ast::{CallExpr, Expr, Node, SelectorExpr};
use go_types::{ObjKey, OperandMode, Selection, SelectionKind};
use stackmark_cranelift::FuncId;
use std::rc::Rc;

/// What is called.
#[derive(Clone, Debug)]
pub(crate) enum Callee {
    Direct(FuncId),
    /// A function object.
    Object(Value),
    C(CFunction),
    /// A method of an interface value.
    Method {
        value: Val,
        name: String,
    },
}

/// A call with evaluated operands.
pub(crate) struct Prepared {
    pub(crate) callee: Callee,
    pub(crate) sig: Rc<Sig>,
    pub(crate) args: Vec<Val>,
}

impl FuncGen<'_, '_> {
    pub(crate) fn call(&mut self, c: &CallExpr, e: &Expr) -> Compiled<Vec<Val>> {
        let pos = e.pos(&self.c.program.ast);
        let before = self.at(c.l_paren);
        let results = self.call_here(c, e, pos);
        self.set_line(before);
        results
    }

    fn call_here(&mut self, c: &CallExpr, e: &Expr, pos: Pos) -> Compiled<Vec<Val>> {
        if let Some(tv) = self.c.program.info().types.get(&c.func.id()) {
            match &tv.mode {
                OperandMode::TypeExpr => {
                    let t = self.c.supported(tv.typ, pos)?;
                    return Ok(vec![self.conversion(&c.args[0], t)?]);
                }
                OperandMode::Builtin(b) => return self.builtin(*b, c, e),
                _ => {}
            }
        }
        if let Some((package, name)) = self.package_function(&c.func) {
            let (call, operands) = self.standard_operands(&package, &name, c, pos)?;
            return Ok(self.emit_standard(&call, &operands));
        }
        let p = self.prepare(c)?;
        self.at(c.l_paren);
        let results = self.emit_call(&p.callee, &p.sig, &p.args);
        self.poll_behind(&p.callee);
        Ok(results)
    }

    /// Polls where a recursion returns: see [`Recursion`](crate::recursion::Recursion).
    pub(super) fn poll_behind(&mut self, callee: &Callee) {
        let callee = match callee {
            // The way back from C is a poll.
            Callee::C(_) => return,
            Callee::Direct(function) => Some(*function),
            Callee::Object(_) | Callee::Method { .. } => None,
        };
        if self.c.recursion.may_recur(self.c.outermost, callee) {
            self.b.poll();
        }
    }

    /// `fmt.Println`: the package and the name.
    pub(crate) fn package_function(&self, f: &Expr) -> Option<(String, String)> {
        match f {
            Expr::Paren(p) => self.package_function(&p.expr),
            Expr::Selector(s) => {
                let Expr::Ident(i) = &s.expr else { return None };
                let obj = *self.c.program.info().uses.get(i)?;
                let o = &self.c.program.tc.lobjs[obj];
                if !o.entity_type().is_pkg_name() {
                    return None;
                }
                let package = self.c.program.tc.pkgs[o.pkg_name_imported()].path().clone();
                Some((package, self.c.program.ast.idents[s.sel].name.clone()))
            }
            _ => None,
        }
    }

    /// Evaluates the callee and the arguments.
    pub(crate) fn prepare(&mut self, c: &CallExpr) -> Compiled<Prepared> {
        let pos = c.func.pos(&self.c.program.ast);
        let mut func = &c.func;
        while let Expr::Paren(p) = func {
            func = &p.expr;
        }
        self.hoist_callee(func)?;
        self.hoist_arguments(c)?;
        if let Expr::Ident(i) = func
            && let Some(obj) = self.c.program.info().uses.get(i).copied()
            && let Some(id) = self.c.functions.get(&obj).copied()
        {
            let sig = self.c.function_sig(obj, pos)?;
            let args = self.arguments(&sig.params, sig.variadic, c)?;
            return Ok(Prepared { callee: Callee::Direct(id), sig, args });
        }
        if let Expr::Ident(i) = func
            && let Some(obj) = self.c.program.info().uses.get(i).copied()
            && let Some(f) = self.c.c_functions.get(&obj).cloned()
        {
            let sig = self.c.function_sig(obj, pos)?;
            let args = self.arguments(&sig.params, sig.variadic, c)?;
            return Ok(Prepared { callee: Callee::C(f), sig, args });
        }
        if let Expr::Selector(s) = func
            && let Some(sel) = self.c.program.info().selections.get(&s.id()).cloned()
            && matches!(sel.kind(), SelectionKind::MethodVal)
        {
            if !self.c.functions.contains_key(&sel.obj()) {
                return self.prepare_interface_call(s, &sel, c);
            }
            let (id, sig) = self.method(&sel, pos)?;
            let receiver = self.receiver(s, &sel, sig.params[0])?;
            let mut args = vec![receiver];
            args.extend(self.arguments(&sig.params[1..], sig.variadic, c)?);
            return Ok(Prepared { callee: Callee::Direct(id), sig, args });
        }
        let t = self.type_of(func)?;
        let Kind::Func(sig) = self.kind(t) else {
            return Err(self.error(pos, "this operand cannot be called"));
        };
        let f = self.expr(func)?.v[0];
        let args = self.arguments(&sig.params, sig.variadic, c)?;
        Ok(Prepared { callee: Callee::Object(f), sig, args })
    }

    /// The declared method that a selection denotes.
    pub(crate) fn method(&mut self, sel: &Selection, pos: Pos) -> Compiled<(FuncId, Rc<Sig>)> {
        let obj: ObjKey = sel.obj();
        match self.c.functions.get(&obj).copied() {
            Some(id) => Ok((id, self.c.function_sig(obj, pos)?)),
            None => Err(self.error(pos, "this method is not supported here")),
        }
    }

    /// The receiver argument of the method call `s`.
    pub(crate) fn receiver(
        &mut self,
        s: &SelectorExpr,
        sel: &Selection,
        want: Ty,
    ) -> Compiled<Val> {
        let pos = s.expr.pos(&self.c.program.ast);
        let base = self.type_of(&s.expr)?;
        let path = &sel.indices()[..sel.indices().len() - 1];
        let mut t = base;
        for i in path {
            let inner = match self.kind(t) {
                Kind::Pointer(p) => p,
                _ => t,
            };
            let Kind::Struct(fields) = self.kind(inner) else {
                return Err(self.error(pos, "this selector is not supported"));
            };
            t = fields[*i].ty;
        }
        // `t` is the type of the operand that has the method; bring it to the receiver's.
        if t == want {
            let place = self.operand_place(&s.expr, base, path)?;
            return match place {
                Some(p) => Ok(self.load(&p, t)),
                None => {
                    let v = self.expr(&s.expr)?;
                    self.field_of_value(v, base, path, pos)
                }
            };
        }
        if let Kind::Pointer(inner) = self.kind(t)
            && inner == want
        {
            let place = self.operand_place(&s.expr, base, path)?;
            let p = match place {
                Some(p) => self.load(&p, t).v[0],
                None => {
                    let v = self.expr(&s.expr)?;
                    self.field_of_value(v, base, path, pos)?.v[0]
                }
            };
            self.check_nil(p);
            return Ok(self.load_at(want, p, 0));
        }
        let place = self.operand_place(&s.expr, base, path)?;
        match place.and_then(|p| self.place_address(&p)) {
            Some(at) => Ok(Val { ty: want, v: vec![at] }),
            None => Err(self.error(pos, "a pointer method cannot be called on this operand")),
        }
    }

    fn operand_place(&mut self, e: &Expr, t: Ty, path: &[usize]) -> Compiled<Option<Place>> {
        match path {
            [] => self.try_place(e),
            _ => self.path_place(e, t, path),
        }
    }

    fn hoist_arguments(&mut self, c: &CallExpr) -> Compiled<()> {
        match &c.args[..] {
            [a] if self.is_tuple(a) => Ok(()),
            args => args.iter().try_for_each(|a| self.hoist(a)),
        }
    }

    /// Evaluates the arguments of a call, as the parameters' types.
    pub(crate) fn arguments(
        &mut self,
        params: &[Ty],
        variadic: bool,
        c: &CallExpr,
    ) -> Compiled<Vec<Val>> {
        let pos = c.func.pos(&self.c.program.ast);
        self.hoist_arguments(c)?;
        // f(g()) with several results.
        let values: Vec<Result<Val, &Expr>> = match &c.args[..] {
            [Expr::Call(inner)] if self.is_tuple(&c.args[0]) => {
                self.call(inner, &c.args[0])?.into_iter().map(Ok).collect()
            }
            args => args.iter().map(Err).collect(),
        };
        let take = |g: &mut Self, v: &Result<Val, &Expr>, t: Ty| match v {
            Ok(v) => g.assignable(v.clone(), t, pos),
            Err(e) => g.expr_as(e, t),
        };
        let fixed = if variadic { params.len() - 1 } else { params.len() };
        let mut out = vec![];
        if !variadic || c.ellipsis.is_some() {
            for (v, t) in values.iter().zip(params) {
                out.push(take(self, v, *t)?);
            }
            return Ok(out);
        }
        for (v, t) in values[..fixed].iter().zip(params) {
            out.push(take(self, v, *t)?);
        }
        let slice = params[fixed];
        let Kind::Slice(elem) = self.kind(slice) else {
            return Err(self.error(pos, "a variadic parameter that is not a slice"));
        };
        let rest = &values[fixed..];
        if rest.is_empty() {
            out.push(self.zero(slice));
            return Ok(out);
        }
        let info = self.c.types.info(elem);
        let n = self.b.int(rest.len() as i64);
        let mut evaluated = vec![];
        for v in rest {
            evaluated.push(take(self, v, elem)?);
        }
        let at = self.allocate_values(info, rest.len());
        let size = self.c.types.layout(elem).size as i64;
        for (i, v) in evaluated.iter().enumerate() {
            self.store_at(elem, at, size * i as i64, v, true);
        }
        out.push(Val { ty: slice, v: vec![at, n, n] });
        Ok(out)
    }

    /// Whether an expression is a call with other than one result.
    pub(crate) fn is_tuple(&mut self, e: &Expr) -> bool {
        match self.c.program.info().types.get(&e.id()) {
            Some(tv) => {
                let typ = tv.typ;
                let t = self.c.types.of(typ, &self.c.program.tc);
                matches!(self.kind(t), Kind::Tuple(_))
            }
            None => false,
        }
    }

    pub(crate) fn emit_call(&mut self, callee: &Callee, sig: &Sig, args: &[Val]) -> Vec<Val> {
        let flat: Vec<Value> = args.iter().flat_map(|a| a.v.iter().copied()).collect();
        let results = match callee {
            Callee::C(f) => return self.c_call(f, sig, args),
            Callee::Method { value, name } => return self.call_interface(value, name, sig, args),
            Callee::Direct(id) => self.call_function(*id, &flat),
            Callee::Object(object) => {
                self.check_nil(*object);
                let code = self.b.load_plain(clif::I64, *object, 0);
                self.call_code(code, *object, sig, &flat)
            }
        };
        self.collect_results(results, &sig.results)
    }

    /// Calls the code of a function that takes a function object, or what stands in its place.
    pub(crate) fn call_code(
        &mut self,
        code: Value,
        object: Value,
        sig: &Sig,
        args: &[Value],
    ) -> Vec<Value> {
        let signature = abi::signature(&mut self.c.types, sig, true);
        let all: Vec<Value> = [object].iter().chain(args).copied().collect();
        let called = self.b.call_indirect(&signature, code, &all);
        called.expect("the arguments of the signature")
    }

    pub(crate) fn collect_results(&mut self, mut values: Vec<Value>, list: &[Ty]) -> Vec<Val> {
        let parts = abi::parts_of(&mut self.c.types, list);
        if abi::in_object(&parts) {
            let object = values[0];
            let loads = parts.iter().enumerate();
            values = loads.map(|(i, part)| self.b.load(*part, object, 8 * i as i32)).collect();
        }
        let mut rest = values.into_iter();
        list.iter()
            .map(|t| {
                let n = abi::parts(&mut self.c.types, *t).len();
                Val { ty: *t, v: rest.by_ref().take(n).collect() }
            })
            .collect()
    }

    /// Returns values: the first in registers, the others in the goroutine's result words.
    pub(crate) fn emit_return(&mut self, values: Vec<Val>) {
        // A value in memory is copied to the heap: this frame's slots end here.
        let mut flat = vec![];
        for v in values {
            flat.extend(self.snapshot(v).v);
        }
        let sig = self.sig.clone();
        if let Some(d) = &self.defers {
            let exit = d.exit;
            let mut flat = flat.into_iter();
            for (storage, t) in self.result_vars.clone().into_iter().flatten().zip(&sig.results) {
                let n = abi::parts(&mut self.c.types, *t).len();
                let place = self.storage_place(&storage);
                self.store(&place, &Val { ty: *t, v: flat.by_ref().take(n).collect() });
            }
            self.b.ins().jump(exit, &[]);
            return;
        }
        let parts = abi::parts_of(&mut self.c.types, &sig.results);
        if abi::in_object(&parts) {
            flat = vec![self.words_object(&parts, &flat)];
        }
        self.b.return_(&flat).expect("the results of the signature");
    }

    /// A heap object with one word for each value.
    fn words_object(&mut self, parts: &[Part], values: &[Value]) -> Value {
        let info = self.c.words_info(parts.iter().map(|p| p.is_reference()).collect());
        let object = self.allocate_values(info, 1);
        let refs: Vec<Value> =
            parts.iter().zip(values).filter(|(p, _)| p.is_reference()).map(|(_, v)| *v).collect();
        self.write_barrier_into(object, &refs);
        for (i, (v, part)) in values.iter().zip(parts).enumerate() {
            self.b.store_unreported(*part, *v, object, 8 * i as i32);
        }
        object
    }

    /// Checks that a length or capacity is neither negative nor absurd.
    pub(crate) fn check_size(&mut self, n: Value, limit: i64, failure: Failure) {
        let ok = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThanOrEqual, n, limit);
        self.check(ok, failure, &[]);
    }
}
