//! Declarations and assignments.

use super::function::{FuncGen, Storage, Val};
use crate::error::Compiled;
use crate::types::Ty;
use crate::walk::{Node, children};
use go_parser::ast::{AssignStmt, Decl, Expr, Node as _, Spec};
use go_parser::{IdentKey, Pos, Token};
use go_types::ObjKey;
use std::collections::HashSet;

/// What the stores of an assignment have changed so far.
#[derive(Default)]
struct Written {
    /// Local variables that nothing else can reach.
    names: HashSet<ObjKey>,
    /// Anything else.
    memory: bool,
}

impl FuncGen<'_, '_> {
    pub(crate) fn declaration(&mut self, d: &Decl) -> Compiled<()> {
        let program = self.c.program;
        let Decl::Gen(g) = d else { return Ok(()) };
        for s in &g.specs {
            let Spec::Value(v) = &program.ast.specs[*s] else { continue };
            if g.token != Token::VAR {
                continue;
            }
            let values = match &v.values[..] {
                [] => vec![],
                list => {
                    let types: Vec<Option<Ty>> =
                        v.names.iter().map(|i| self.ident_type(*i)).collect::<Compiled<_>>()?;
                    // One literal for one variable is built in place.
                    if let ([name], [Expr::CompositeLit(_)], Some(obj)) =
                        (&v.names[..], list, v.names.first().and_then(|i| self.c.definition(*i)))
                        && types[0].is_some()
                        && self.define_literal(*name, obj, &list[0])?
                    {
                        continue;
                    }
                    self.values(list, &types)?
                }
            };
            let mut values = values.into_iter();
            for i in &v.names {
                let value = values.next();
                if program.ast.idents[*i].name == "_" {
                    continue;
                }
                if let Some(obj) = self.c.definition(*i) {
                    self.declare_variable(obj, value)?;
                }
            }
        }
        Ok(())
    }

    /// `x := T{…}` of a memory type: the literal is built in the new variable. False: it was not
    /// done.
    fn define_literal(
        &mut self,
        name: IdentKey,
        obj: go_types::ObjKey,
        e: &Expr,
    ) -> Compiled<bool> {
        let pos = self.c.program.ast.idents[name].pos;
        let t = self.c.object_type(obj, pos)?;
        if self.c.program.ast.idents[name].name == "_"
            || self.type_of(e)? != t
            || self.c.types.layout(t).components.is_some()
            || self.mentions(e, obj)
        {
            return Ok(false);
        }
        self.hoist(e)?;
        let storage = self.declare_variable(obj, None)?;
        let place = self.storage_place(&storage);
        self.composite_at(e, &place)?;
        Ok(true)
    }

    /// Whether an expression names a variable. (In a loop it may mean the variable of the last
    /// round.)
    fn mentions(&self, e: &Expr, obj: ObjKey) -> bool {
        fn go(g: &FuncGen<'_, '_>, n: Node<'_>, obj: ObjKey) -> bool {
            let mut found = match n {
                Node::Expr(Expr::Ident(i)) => g.c.program.info().uses.get(i) == Some(&obj),
                _ => false,
            };
            children(n, &g.c.program.ast, &mut |c| found |= go(g, c, obj));
            found
        }
        go(self, Node::Expr(e), obj)
    }

    /// The type of the variable that an identifier on the left denotes; None for `_`.
    fn ident_type(&mut self, i: IdentKey) -> Compiled<Option<Ty>> {
        let ident = &self.c.program.ast.idents[i];
        if ident.name == "_" {
            return Ok(None);
        }
        let info = self.c.program.info();
        match info.defs.get(&i).copied().flatten().or_else(|| info.uses.get(&i).copied()) {
            Some(obj) => self.c.object_type(obj, ident.pos).map(Some),
            None => Ok(None),
        }
    }

    /// Evaluates the right side of an assignment or definition; copies are made where later stores
    /// could interfere.
    pub(crate) fn values(&mut self, list: &[Expr], types: &[Option<Ty>]) -> Compiled<Vec<Val>> {
        if list.len() == 1 && types.len() > 1 {
            let results = self.multiple(&list[0])?;
            let pos = list[0].pos(&self.c.program.ast);
            let mut out = vec![];
            for (v, t) in results.into_iter().zip(types) {
                out.push(match t {
                    Some(t) => self.assignable(v, *t, pos)?,
                    None => v,
                });
            }
            return Ok(out);
        }
        list.iter().try_for_each(|e| self.hoist(e))?;
        let mut out = vec![];
        for (e, t) in list.iter().zip(types) {
            let v = match t {
                Some(t) => self.expr_as(e, *t)?,
                None => self.expr(e)?,
            };
            out.push(if list.len() > 1 { self.snapshot(v) } else { v });
        }
        Ok(out)
    }

    /// The values of a call with several results or of a comma-ok form.
    fn multiple(&mut self, e: &Expr) -> Compiled<Vec<Val>> {
        let pos = e.pos(&self.c.program.ast);
        match e {
            Expr::Paren(p) => self.multiple(&p.expr),
            Expr::Call(c) => self.call(c, e),
            Expr::Unary(u) if u.op == Token::ARROW => {
                let (v, ok) = self.receive(&u.expr)?;
                Ok(vec![v, Val { ty: self.c.types.basic.bool, v: vec![ok] }])
            }
            Expr::Index(i) => {
                let (v, ok) = self.map_index(i)?;
                Ok(vec![v, Val { ty: self.c.types.basic.bool, v: vec![ok] }])
            }
            Expr::TypeAssert(a) => {
                let Some(typ) = &a.typ else {
                    return Err(self.error(pos, "a type switch is a statement"));
                };
                let t = self.type_of(typ)?;
                let (v, ok) = self.type_test(&a.expr, t)?;
                Ok(vec![v, Val { ty: self.c.types.basic.bool, v: vec![ok] }])
            }
            _ => Err(self.error(pos, "this comma-ok form is not supported")),
        }
    }

    pub(crate) fn assignment(&mut self, a: &AssignStmt, pos: Pos) -> Compiled<()> {
        match &a.token {
            Token::DEFINE => self.define(a),
            Token::ASSIGN => self.assign(a),
            op => {
                let op = match op {
                    Token::ADD_ASSIGN => Token::ADD,
                    Token::SUB_ASSIGN => Token::SUB,
                    Token::MUL_ASSIGN => Token::MUL,
                    Token::QUO_ASSIGN => Token::QUO,
                    Token::REM_ASSIGN => Token::REM,
                    Token::AND_ASSIGN => Token::AND,
                    Token::OR_ASSIGN => Token::OR,
                    Token::XOR_ASSIGN => Token::XOR,
                    Token::SHL_ASSIGN => Token::SHL,
                    Token::SHR_ASSIGN => Token::SHR,
                    Token::AND_NOT_ASSIGN => Token::AND_NOT,
                    _ => return Err(self.error(pos, "this assignment is not supported")),
                };
                let t = self.type_of(&a.lhs[0])?;
                self.hoist(&a.lhs[0])?;
                self.hoist(&a.rhs[0])?;
                let place = self.place(&a.lhs[0])?;
                let r = if matches!(op, Token::SHL | Token::SHR) {
                    let x = self.load(&place, t);
                    self.shift(&op, x, &a.rhs[0])?
                } else {
                    let y = self.expr_as(&a.rhs[0], t)?;
                    let x = self.load(&place, t);
                    self.arithmetic(&op, x, y, self.constant_divisor(&a.rhs[0]), pos)?
                };
                self.store(&place, &r);
                Ok(())
            }
        }
    }

    fn define(&mut self, a: &AssignStmt) -> Compiled<()> {
        let mut types = vec![];
        for l in &a.lhs {
            types.push(match l {
                Expr::Ident(i) => self.ident_type(*i)?,
                _ => None,
            });
        }
        if let ([Expr::Ident(i)], [Expr::CompositeLit(_)]) = (&a.lhs[..], &a.rhs[..])
            && let Some(obj) = self.c.definition(*i)
            && self.define_literal(*i, obj, &a.rhs[0])?
        {
            return Ok(());
        }
        let values = self.values(&a.rhs, &types)?;
        for (l, v) in a.lhs.iter().zip(values) {
            let Expr::Ident(i) = l else { continue };
            if self.c.program.ast.idents[*i].name == "_" {
                continue;
            }
            match self.c.definition(*i) {
                Some(obj) => {
                    self.declare_variable(obj, Some(v))?;
                }
                None => {
                    let place = self.place(l)?;
                    self.store(&place, &v);
                }
            }
        }
        Ok(())
    }

    fn assign(&mut self, a: &AssignStmt) -> Compiled<()> {
        a.lhs.iter().try_for_each(|e| self.hoist(e))?;
        if let ([l], [r]) = (&a.lhs[..], &a.rhs[..]) {
            // One value: the right side first, as Go's compiler has it.
            self.hoist(r)?;
            let t = self.assigned_type(l)?;
            let values = self.values(&a.rhs, &[t])?;
            let target = self.target(l)?;
            self.store_all(vec![target], values);
            return Ok(());
        }
        let types = a.lhs.iter().map(|l| self.assigned_type(l)).collect::<Compiled<Vec<_>>>()?;
        let mut targets = vec![];
        if a.lhs.len() != a.rhs.len() {
            let values = self.values(&a.rhs, &types)?;
            for l in &a.lhs {
                targets.push(self.target(l)?);
            }
            self.store_all(targets, values);
            return Ok(());
        }
        a.rhs.iter().try_for_each(|e| self.hoist(e))?;
        let mut written = Written::default();
        let mut values = vec![];
        for ((l, r), t) in a.lhs.iter().zip(&a.rhs).zip(types) {
            targets.push(self.target(l)?);
            // As in Go's compiler: what no store before can change is evaluated where it is stored.
            values.push(match self.is_affected(r, &written) {
                true => {
                    let v = self.assigned_value(r, t)?;
                    Ok(self.snapshot(v))
                }
                false => Err((r, t)),
            });
            self.note_write(l, &mut written);
        }
        for (target, value) in targets.into_iter().zip(values) {
            let value = match value {
                Ok(value) => value,
                Err((r, t)) => self.assigned_value(r, t)?,
            };
            self.store_all(vec![target], vec![value]);
        }
        Ok(())
    }

    fn assigned_value(&mut self, r: &Expr, t: Option<Ty>) -> Compiled<Val> {
        match t {
            Some(t) => self.expr_as(r, t),
            None => self.expr(r),
        }
    }

    /// The type of an operand on the left; None for `_`.
    fn assigned_type(&mut self, l: &Expr) -> Compiled<Option<Ty>> {
        match l {
            Expr::Paren(p) => self.assigned_type(&p.expr),
            Expr::Ident(i) if self.c.program.ast.idents[*i].name == "_" => Ok(None),
            l => self.type_of(l).map(Some),
        }
    }

    /// Notes the store of an assignment to `l`.
    fn note_write(&self, l: &Expr, written: &mut Written) {
        match l {
            Expr::Paren(p) => self.note_write(&p.expr, written),
            Expr::Ident(i) if self.c.program.ast.idents[*i].name == "_" => {}
            Expr::Ident(i) => match self.variable(*i) {
                // Deferred functions see results.
                Some((obj, Storage::Vars(_))) if self.defers.is_none() => {
                    written.names.insert(obj);
                }
                _ => written.memory = true,
            },
            _ => written.memory = true,
        }
    }

    fn variable(&self, i: IdentKey) -> Option<(ObjKey, &Storage)> {
        let info = self.c.program.info();
        let obj = info.uses.get(&i).copied().or_else(|| info.defs.get(&i).copied().flatten())?;
        Some((obj, self.vars.get(&obj)?))
    }

    /// Whether stores may change the value of an expression, or whether it panics. Calls are made
    /// already.
    fn is_affected(&self, e: &Expr, written: &Written) -> bool {
        let info = self.c.program.info();
        let known = info.types.get(&e.id());
        if self.hoisted.contains_key(&e.id()) || known.is_some_and(|t| t.get_const_val().is_some())
        {
            return false;
        }
        let reads_memory = match e {
            // What is no call: a conversion, a length.
            Expr::Call(c) if !self.is_call(c) => {
                return c.args.iter().any(|a| self.is_affected(a, written));
            }
            Expr::Ident(i) => match self.variable(*i) {
                Some((obj, Storage::Vars(_))) => return written.names.contains(&obj),
                _ => true,
            },
            Expr::Paren(_) => false,
            Expr::Unary(u) => !matches!(u.op, Token::ADD | Token::SUB | Token::XOR),
            Expr::Binary(b) => {
                let comparison =
                    [Token::EQL, Token::NEQ, Token::LSS, Token::LEQ, Token::GTR, Token::GEQ];
                comparison.contains(&b.op)
            }
            _ => true,
        };
        let mut affected = reads_memory && written.memory;
        children(Node::Expr(e), &self.c.program.ast, &mut |n| {
            if let Node::Expr(e) = n {
                affected |= self.is_affected(e, written);
            }
        });
        affected
    }

    /// One initialiser of package-level variables.
    pub(crate) fn initialise_globals(&mut self, lhs: &[ObjKey], rhs: &Expr) -> Compiled<()> {
        let mut types = vec![];
        for obj in lhs {
            let o = &self.c.program.tc.lobjs[*obj];
            types.push(if o.name() == "_" {
                None
            } else {
                Some(self.c.object_type(*obj, o.pos())?)
            });
        }
        let values = self.values(std::slice::from_ref(rhs), &types)?;
        for (obj, v) in lhs.iter().zip(values) {
            if let Some(at) = self.c.globals.get(obj).copied() {
                let base = self.address(at);
                self.store_at(v.ty, base, 0, &v, true);
            }
        }
        Ok(())
    }
}
