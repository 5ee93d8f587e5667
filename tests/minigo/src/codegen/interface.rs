//! Interfaces with methods: method tables of the types that are converted to interfaces, calls,
//! type assertions, type switches.
//!
//! The type word of an interface value is the address of the type's descriptor, whatever the
//! interface. A call asks the descriptor for the method by name. Each call site remembers the type
//! and the code of its last call.

use super::Compiler;
use super::abi;
use super::call::{Callee, Prepared};
use super::function::{FuncGen, Target as Jump, Val};
use super::statement::clauses_of;
use crate::code::Role;
use crate::error::Compiled;
use crate::image::Address;
use crate::runtime::interface::{CACHED_CODE, Method, NO_METHOD};
use crate::runtime::natives;
use crate::types::{Kind, Sig, Ty};
use crate::walk::{Node as Walk, children};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, TrapCode, Value, types as clif};
use go_parser::Pos;
use go_parser::ast::{CallExpr, Expr, Node, SelectorExpr, Stmt, TypeSwitchStmt};
use go_types::{ObjKey, Selection};
use stackmark_cranelift::{FuncId, Start};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::OnceLock;

/// A method of a type: a declared one, or one of an embedded field.
#[derive(Clone)]
pub(super) struct Found {
    name: String,
    /// The fields that lead to the operand.
    path: Vec<usize>,
    /// The type of the operand that has the method.
    receiver: Ty,
    target: Target,
}

#[derive(Clone, Copy)]
enum Target {
    Declared(ObjKey, FuncId),
    /// A method of an interface, and its type.
    Interface(Ty),
}

impl Compiler<'_> {
    /// The methods of the values of a type. A name that is nearer hides what is deeper, and two of
    /// the same depth hide each other.
    fn method_set(&mut self, t: Ty) -> Vec<Found> {
        let (base, pointer) = match self.types.kind(t).clone() {
            Kind::Pointer(inner) if !self.types.is_named(t) => (inner, true),
            _ => (t, false),
        };
        let mut found: Vec<Found> = vec![];
        let mut hidden: HashSet<String> = HashSet::new();
        let mut level = vec![(base, vec![], pointer)];
        let mut seen = vec![];
        while !level.is_empty() {
            let mut next = vec![];
            let mut here: Vec<Found> = vec![];
            let mut names: HashMap<String, usize> = HashMap::new();
            for (t, path, addressable) in &level {
                if seen.contains(t) {
                    continue;
                }
                let times = level.iter().filter(|(other, ..)| other == t).count();
                let mut method = |name: String, receiver, reachable, target| {
                    *names.entry(name.clone()).or_default() += times;
                    if reachable {
                        here.push(Found { name, path: path.clone(), receiver, target });
                    }
                };
                let to_t = self.types.pointer_to(*t);
                for (receiver, reachable) in [(*t, true), (to_t, *addressable)] {
                    for (name, func, id) in self.methods.get(&receiver).cloned().unwrap_or_default()
                    {
                        method(name, receiver, reachable, Target::Declared(func, id));
                    }
                }
                if let Kind::Interface(methods) = self.types.kind(*t).clone()
                    && !path.is_empty()
                {
                    for (name, ty) in methods.iter() {
                        method(name.clone(), *t, true, Target::Interface(*ty));
                    }
                }
                let Kind::Struct(fields) = self.types.kind(*t).clone() else { continue };
                for f in fields.iter() {
                    *names.entry(f.name.clone()).or_default() += times;
                }
                for (i, f) in fields.iter().enumerate().filter(|(_, f)| f.embedded) {
                    let mut path = path.clone();
                    path.push(i);
                    match self.types.kind(f.ty).clone() {
                        Kind::Pointer(inner) => next.push((inner, path, true)),
                        _ => next.push((f.ty, path, *addressable)),
                    }
                }
            }
            here.retain(|h| !hidden.contains(&h.name) && names[&h.name] == 1);
            found.extend(here);
            hidden.extend(names.into_keys());
            seen.extend(level.iter().map(|(t, ..)| *t));
            level = next;
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Makes the method tables of a type with values that are converted to an interface, and of
    /// those of its parts: to print the value, package fmt calls their methods.
    pub(crate) fn make_method_table(&mut self, t: Ty) -> Compiled<()> {
        let mut rest = vec![t];
        while let Some(t) = rest.pop() {
            if !self.tables.insert(t) {
                continue;
            }
            self.make_own_table(t)?;
            match self.types.kind(t).clone() {
                Kind::Pointer(e) | Kind::Slice(e) | Kind::Array(_, e) => rest.push(e),
                Kind::Map(k, v) => rest.extend([k, v]),
                Kind::Struct(fields) => {
                    // Not of what is in fields that are not exported.
                    let exported = |name: &str| name.starts_with(char::is_uppercase);
                    rest.extend(fields.iter().filter(|f| exported(&f.name)).map(|f| f.ty));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn make_own_table(&mut self, t: Ty) -> Compiled<()> {
        if self.types.unsupported(t).is_some() || self.types.is_interface(t) {
            return Ok(());
        }
        let info = self.types.info(t);
        let found = self.method_set(t);
        let mut table = vec![];
        for f in &found {
            let signature = match f.target {
                Target::Declared(func, _) => {
                    let pos = self.program.tc.lobjs[func].pos();
                    self.object_type(func, pos)?
                }
                Target::Interface(ty) => ty,
            };
            let name = format!("{}.{}.method", self.types.name(t), f.name);
            let Kind::Func(sig) = self.types.kind(signature).clone() else { continue };
            let id = self.forwarding_function(&name, &sig);
            let code = self.emitter.static_closure(id);
            let remembered = OnceLock::new();
            table.push(Method {
                name: f.name.clone(),
                signature: signature.number(),
                code,
                remembered,
            });
            self.method_thunk(t, f, id, &sig);
        }
        info.set_methods(table);
        Ok(())
    }

    /// Takes the data word of an interface value that holds a `t` in the place of a function
    /// object.
    fn method_thunk(&mut self, t: Ty, f: &Found, id: FuncId, sig: &Rc<Sig>) {
        let direct = self.types.info(t).direct;
        self.forwarding(id, sig, sig, |g, data, args| g.call_found(t, data, direct, f, sig, &args));
    }

    /// Declares a wrapper of this signature that takes a function object.
    pub(super) fn forwarding_function(&mut self, name: &str, sig: &Sig) -> FuncId {
        let signature = abi::signature(&mut self.types, sig, true);
        self.emitter.declare(name, signature, Role::Wrapper)
    }

    /// Defines a function that takes a function object, or what stands in its place, and the
    /// parameters of `own`. It returns what `body` makes of them, values of the results of `sig`.
    pub(super) fn forwarding(
        &mut self,
        id: FuncId,
        own: &Rc<Sig>,
        sig: &Rc<Sig>,
        body: impl FnOnce(&mut FuncGen<'_, '_>, Value, Vec<Val>) -> Vec<Val>,
    ) {
        self.define(id, sig, |g| {
            g.b.enter(Start::Managed);
            let mut rest = g.b.all_params().to_vec().into_iter();
            let object = rest.next().expect("the function object");
            let mut args = vec![];
            for ty in &own.params {
                let parts = abi::parts(&mut g.c.types, *ty).len();
                args.push(Val { ty: *ty, v: rest.by_ref().take(parts).collect() });
            }
            let results = body(g, object, args);
            g.emit_return(results);
        });
    }

    /// The methods `Error` and `RuntimeError` of the runtime's own errors, with the numbers of
    /// their types.
    pub(crate) fn error_methods(&mut self) -> [(FuncId, u32); 2] {
        let string = self.types.basic.string;
        [("runtime.Error.Error", vec![string]), ("runtime.Error.RuntimeError", vec![])].map(
            |(name, results)| {
                let sig = Rc::new(Sig { params: vec![], results, variadic: false });
                let number = self.types.intern(Kind::Func(Rc::clone(&sig))).number();
                (self.error_method(name, &sig), number)
            },
        )
    }

    /// A method that returns the text of the error in its data word, if it returns anything.
    fn error_method(&mut self, name: &str, sig: &Rc<Sig>) -> FuncId {
        let id = self.forwarding_function(name, sig);
        self.define(id, sig, |g| {
            g.b.enter(Start::Managed);
            let data = g.b.param(0);
            let text = sig.results.iter().map(|t| g.load_at(*t, data, 0)).collect();
            g.emit_return(text);
        });
        id
    }
}

impl FuncGen<'_, '_> {
    /// Calls a method of the `t` in an interface value with this data word.
    fn call_found(
        &mut self,
        t: Ty,
        data: Value,
        direct: bool,
        f: &Found,
        sig: &Sig,
        args: &[Val],
    ) -> Vec<Val> {
        let v = self.receiver_in(t, data, direct, f);
        let receiver = Val { ty: f.receiver, v };
        match f.target {
            Target::Interface(_) => self.call_interface(&receiver, &f.name, sig, args),
            Target::Declared(_, id) => {
                let mut all = vec![receiver];
                all.extend(args.iter().cloned());
                self.emit_call(&Callee::Direct(id), sig, &all)
            }
        }
    }

    /// Calls the method that a selection denotes, with the receiver as its operand.
    pub(super) fn call_selected(
        &mut self,
        sel: &Selection,
        receiver: &Val,
        sig: &Sig,
        args: &[Val],
    ) -> Compiled<Vec<Val>> {
        let func = sel.obj();
        let name = self.c.program.tc.lobjs[func].name().clone();
        let path = sel.indices()[..sel.indices().len() - 1].to_vec();
        let pos = self.c.program.tc.lobjs[func].pos();
        let (receiver_type, target) = match self.c.functions.get(&func).copied() {
            Some(id) => {
                let with_receiver = self.c.function_sig(func, pos)?;
                (with_receiver.params[0], Target::Declared(func, id))
            }
            None => (receiver.ty, Target::Interface(receiver.ty)),
        };
        if let Target::Interface(_) = target {
            let value = self.field_of_value(receiver.clone(), receiver.ty, &path, pos)?;
            return Ok(self.call_interface(&value, &name, sig, args));
        }
        let found = Found { name, path, receiver: receiver_type, target };
        let is_pointer = matches!(self.kind(receiver.ty), Kind::Pointer(_));
        let data = match is_pointer {
            true => receiver.v[0],
            false => {
                let at = self.allocate(receiver.ty);
                self.store_at(receiver.ty, at, 0, receiver, true);
                at
            }
        };
        Ok(self.call_found(receiver.ty, data, is_pointer, &found, sig, args))
    }

    /// The receiver's words, from the data word of an interface value that holds a `t`.
    fn receiver_in(&mut self, t: Ty, data: Value, direct: bool, f: &Found) -> Vec<Value> {
        if direct && f.receiver == t && f.path.is_empty() {
            return vec![data];
        }
        // The address of the operand.
        let (mut at, mut own) = (data, t);
        if let Kind::Pointer(inner) = self.kind(t)
            && direct
        {
            self.check_nil(data);
            own = inner;
        }
        for index in &f.path {
            if let Kind::Pointer(inner) = self.kind(own) {
                at = self.b.load_reference(at, 0);
                self.check_nil(at);
                own = inner;
            }
            let Kind::Struct(fields) = self.kind(own) else {
                unreachable!("a path leads through structs")
            };
            let offset = self.c.types.field_offset(&fields, *index) as i64;
            at = self.iadd_ref(at, offset);
            own = fields[*index].ty;
        }
        if own == f.receiver {
            return self.load_at(own, at, 0).v;
        }
        if let Kind::Pointer(inner) = self.kind(own)
            && inner == f.receiver
        {
            let p = self.b.load_reference(at, 0);
            self.check_nil(p);
            return self.load_at(inner, p, 0).v;
        }
        vec![at]
    }

    /// The callee and arguments of `x.m(…)` where `x.m` is an interface's method.
    pub(crate) fn prepare_interface_call(
        &mut self,
        s: &SelectorExpr,
        sel: &Selection,
        c: &CallExpr,
    ) -> Compiled<Prepared> {
        let pos = s.expr.pos(&self.c.program.ast);
        let t = self.c.object_type(sel.obj(), pos)?;
        let Kind::Func(sig) = self.kind(t) else {
            return Err(self.error(pos, "a method that is no function"));
        };
        let base = self.type_of(&s.expr)?;
        let path = &sel.indices()[..sel.indices().len() - 1];
        let v = self.expr(&s.expr)?;
        let v = self.field_of_value(v, base, path, pos)?;
        let args = self.arguments(&sig.params, sig.variadic, c)?;
        let name = self.c.program.tc.lobjs[sel.obj()].name().clone();
        Ok(Prepared { callee: Callee::Method { value: v, name }, sig, args })
    }

    /// Calls a method of an interface value.
    pub(crate) fn call_interface(
        &mut self,
        value: &Val,
        name: &str,
        sig: &Sig,
        args: &[Val],
    ) -> Vec<Val> {
        let (ty, data) = (value.v[0], value.v[1]);
        self.check_nil(ty);
        // The call site's own word: the address of a pair, a type and its method's code. A visible
        // pair never changes.
        let place = Box::leak(Box::new(NO_METHOD.as_ptr() as usize)) as *mut usize as usize;
        self.c.emitter.remember(place, Address::CallSite);
        let place = self.address(place);
        let leaked = Box::leak(Box::new(name.to_owned())) as *mut String as usize;
        self.c.emitter.remember(leaked, Address::Name(name.to_owned()));
        let code = self.b.declare_var(clif::I64);
        let cached = self.b.load_plain(clif::I64, place, 0);
        let known = self.b.load_plain(clif::I64, cached, 0);
        let same = self.b.ins().icmp(IntCC::Equal, known, ty);
        let [hit, miss, call] = [(); 3].map(|()| self.b.create_block());
        self.b.ins().brif(same, hit, &[], miss, &[]);
        self.b.switch_to_block(hit);
        let at = self.b.load_plain(clif::I64, cached, CACHED_CODE);
        self.b.def_var(code, at);
        self.b.ins().jump(call, &[]);
        self.b.switch_to_block(miss);
        let name = self.address(leaked);
        let found = self.b.native(natives::find_method, &[ty, name, place]);
        self.b.def_var(code, found);
        self.b.ins().jump(call, &[]);
        self.b.switch_to_block(call);
        let code = self.b.use_var(code);
        self.call_method_code(code, data, sig, args)
    }

    pub(super) fn call_method_code(
        &mut self,
        code: Value,
        data: Value,
        sig: &Sig,
        args: &[Val],
    ) -> Vec<Val> {
        let args: Vec<Value> = args.iter().flat_map(|a| a.v.iter().copied()).collect();
        let results = self.call_code(code, data, sig, &args);
        self.collect_results(results, &sig.results)
    }

    /// Whether the dynamic type in `ty` is `t`, or implements it.
    fn has_type(&mut self, ty: Value, t: Ty) -> Value {
        if matches!(self.kind(t), Kind::Nil) {
            return self.b.ins().icmp_imm_s(IntCC::Equal, ty, 0);
        }
        let info = self.type_info(t);
        if !self.c.types.is_interface(t) {
            return self.b.ins().icmp(IntCC::Equal, ty, info);
        }
        let r = self.b.native(natives::implements, &[ty, info]);
        self.as_bool(r)
    }

    /// The value in an interface value that holds a `t`.
    fn unboxed(&mut self, value: &Val, t: Ty) -> Val {
        if self.c.types.is_interface(t) {
            return Val { ty: t, v: value.v.clone() };
        }
        match self.c.types.info(t).direct {
            true => Val { ty: t, v: vec![value.v[1]] },
            false => self.load_at(t, value.v[1], 0),
        }
    }

    /// `x.(T)`.
    pub(crate) fn type_assertion(&mut self, x: &Expr, t: Ty) -> Compiled<Val> {
        let value = self.expr(x)?;
        let source = self.type_info(value.ty);
        let ok = self.has_type(value.v[0], t);
        let (bad, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(bad);
        self.b.ins().brif(ok, go_on, &[], bad, &[]);
        self.b.switch_to_block(bad);
        let info = self.type_info(t);
        self.b.native(natives::assertion_error, &[value.v[0], info, source]);
        self.panic_with_results();
        self.b.ins().trap(TrapCode::unwrap_user(1));
        self.b.switch_to_block(go_on);
        Ok(self.unboxed(&value, t))
    }

    /// `v, ok := x.(T)`.
    pub(crate) fn type_test(&mut self, x: &Expr, t: Ty) -> Compiled<(Val, Value)> {
        let value = self.expr(x)?;
        let ok = self.has_type(value.v[0], t);
        let vars = self.component_vars(t);
        let zero = self.zero(t);
        self.define_vars(&vars, &zero);
        let (yes, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(ok, yes, &[], done, &[]);
        self.b.switch_to_block(yes);
        let v = self.unboxed(&value, t);
        self.define_vars(&vars, &v);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
        let v = vars.iter().map(|v| self.b.use_var(*v)).collect();
        Ok((Val { ty: t, v }, ok))
    }

    pub(crate) fn type_switch(
        &mut self,
        s: &TypeSwitchStmt,
        label: Option<String>,
    ) -> Compiled<()> {
        if let Some(init) = &s.init {
            self.stmt(init)?;
        }
        let program = self.c.program;
        let (guard, subject) = match &s.assign {
            Stmt::Expr(e) => (None, (**e).clone()),
            Stmt::Assign(a) => {
                let a = &program.ast.a_stmts[*a];
                (Some(a.lhs[0].pos(&program.ast)), a.rhs[0].clone())
            }
            _ => return Err(self.error(s.switch, "this type switch is not supported")),
        };
        let Expr::TypeAssert(assert) = &subject else {
            return Err(self.error(s.switch, "this type switch is not supported"));
        };
        self.hoist(&assert.expr)?;
        let value = self.expr(&assert.expr)?;
        let done = self.b.create_block();
        let clauses = clauses_of(&s.body);
        let mut default = None;
        let mut bodies = vec![];
        for clause in &clauses {
            let body = self.b.create_block();
            let Some(list) = &clause.list else {
                default = Some(body);
                bodies.push((body, None));
                continue;
            };
            let mut only: Option<Ty> = None;
            for e in list {
                let t = self.type_of(e)?;
                let next = self.b.create_block();
                let is = self.has_type(value.v[0], t);
                self.b.ins().brif(is, body, &[], next, &[]);
                self.b.switch_to_block(next);
                only = (list.len() == 1 && !matches!(self.kind(t), Kind::Nil)).then_some(t);
            }
            bodies.push((body, only));
        }
        self.b.ins().jump(default.unwrap_or(done), &[]);
        self.targets.push(Jump { label, break_to: done, continue_to: None, plain: false });
        for (clause, (body, only)) in clauses.iter().zip(bodies) {
            self.b.switch_to_block(body);
            if let Some(obj) = guard.and_then(|g| self.clause_variable(&clause.body, g)) {
                let v = match only {
                    Some(t) => self.unboxed(&value, t),
                    None => value.clone(),
                };
                self.declare_variable(obj, Some(v))?;
            }
            self.block(&clause.body)?;
            self.b.ins().jump(done, &[]);
        }
        self.targets.pop();
        self.b.switch_to_block(done);
        Ok(())
    }

    /// The variable that a clause of a type switch declares, if the clause uses it: it is declared
    /// where the guard names it.
    fn clause_variable(&self, body: &[Stmt], guard: Pos) -> Option<ObjKey> {
        fn go(g: &FuncGen<'_, '_>, n: Walk<'_>, guard: Pos, found: &mut Option<ObjKey>) {
            if let Walk::Expr(Expr::Ident(i)) = n
                && let Some(obj) = g.c.program.info().uses.get(i)
                && g.c.program.tc.lobjs[*obj].pos() == guard
            {
                *found = Some(*obj);
            }
            children(n, &g.c.program.ast, &mut |c| go(g, c, guard, found));
        }
        let mut found = None;
        body.iter().for_each(|s| go(self, Walk::Stmt(s), guard, &mut found));
        found
    }

    /// Checks that values of a type can be converted to an interface type.
    pub(crate) fn check_implements(&mut self, t: Ty, interface: Ty, pos: Pos) -> Compiled<()> {
        let Kind::Interface(wanted) = self.kind(interface) else { return Ok(()) };
        self.c.make_method_table(t)?;
        let info = self.c.types.info(t);
        match wanted.iter().find(|(name, sig)| !info.has_method(name, sig.number())) {
            None => Ok(()),
            Some((name, _)) => {
                let message = format!(
                    "method {name} of {} is not supported in an interface",
                    self.c.types.name(t)
                );
                Err(self.error(pos, message))
            }
        }
    }
}
