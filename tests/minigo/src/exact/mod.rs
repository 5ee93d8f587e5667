//! Floating-point constants, exactly.
//!
//! The front end computes untyped constants with floats as `f64`, Go with arbitrary precision. So
//! each constant expression in which a float occurs is computed again here with rational numbers. A
//! float is rounded once and replaces the front end's; so does the outcome of a comparison. An
//! integer that differs from the front end's is refused.

mod number;

use crate::error::{CompileError, Compiled};
use crate::front::Program;
use crate::walk::{Node, children};
use go_parser::Token;
use go_parser::ast::{Decl, Expr, Node as _, NodeId, Spec, Stmt};
use go_types::typ::{BasicInfo, BasicType, Type};
use go_types::{ConstValue, ObjKey, OperandMode, TypeKey};
use num_rational::BigRational;
use number::{Value, decimal, from_front, nearest};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

/// A constant that has been computed exactly.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Computed {
    /// Rounded to each of the two float types.
    Float {
        double: f64,
        single: f32,
    },
    Bool(bool),
}

/// The constants of a program in which floats occur, by expression.
pub(crate) type Exact = BTreeMap<NodeId, Computed>;

/// A declared constant: its expression and the value of iota.
struct Declared {
    value: Expr,
    iota: usize,
    has_float: Cell<Option<bool>>,
    /// Its value, once computed; `Some(None)` while that goes on.
    computed: RefCell<Option<Option<Value>>>,
}

/// Constant expressions nested deeper than this are refused.
const MAX_DEPTH: usize = 200;

struct Checker<'p> {
    program: &'p Program,
    declared: BTreeMap<ObjKey, Declared>,
    out: Exact,
    error: Option<CompileError>,
}

/// Computes the float constants of the main package.
pub(crate) fn constants(program: &Program) -> Compiled<Exact> {
    let mut c = Checker { program, declared: BTreeMap::new(), out: BTreeMap::new(), error: None };
    for f in &program.info().ast_files {
        for d in &f.decls {
            c.collect_decl(d);
            if let Decl::Func(f) = d {
                let body = &program.ast.fdecls[*f].body;
                body.iter().flat_map(|b| &b.list).for_each(|s| c.collect(Node::Stmt(s)));
            }
        }
        for d in &f.decls {
            match d {
                Decl::Gen(g) if g.token == Token::VAR => {
                    for s in &g.specs {
                        if let Spec::Value(v) = &program.ast.specs[*s] {
                            v.values.iter().for_each(|e| c.visit(Node::Expr(e)));
                        }
                    }
                }
                Decl::Func(f) => {
                    let body = &program.ast.fdecls[*f].body;
                    body.iter().flat_map(|b| &b.list).for_each(|s| c.visit(Node::Stmt(s)));
                }
                _ => {}
            }
        }
    }
    match c.error {
        Some(e) => Err(e),
        None => Ok(c.out),
    }
}

impl<'p> Checker<'p> {
    fn collect_decl(&mut self, d: &Decl) {
        let program = self.program;
        let Decl::Gen(g) = d else { return };
        if g.token != Token::CONST {
            return;
        }
        let mut last: Vec<Expr> = vec![];
        for (iota, s) in g.specs.iter().enumerate() {
            let Spec::Value(v) = &program.ast.specs[*s] else { continue };
            if !v.values.is_empty() {
                last = v.values.clone();
                v.values.iter().for_each(|e| self.refuse_bytes(e));
            }
            for (i, e) in v.names.iter().zip(&last) {
                if let Some(Some(obj)) = program.info().defs.get(i) {
                    self.declared.insert(
                        *obj,
                        Declared {
                            value: e.clone(),
                            iota,
                            has_float: Cell::new(None),
                            computed: RefCell::new(None),
                        },
                    );
                }
            }
        }
    }

    fn collect(&mut self, n: Node<'_>) {
        if let Node::Stmt(Stmt::Decl(d)) = n {
            self.collect_decl(d);
        }
        let program = self.program;
        children(n, &program.ast, &mut |c| self.collect(c));
    }

    fn visit(&mut self, n: Node<'_>) {
        let program = self.program;
        match n {
            // The expressions of constants are computed where the constants are used.
            Node::Stmt(Stmt::Decl(d)) if is_constants(d) => return,
            Node::Expr(e) => {
                self.refuse_bytes(e);
                if let Some(value) =
                    program.info().types.get(&e.id()).and_then(|tv| tv.get_const_val())
                {
                    let value = value.clone();
                    if self.has_float(e, 0) {
                        self.check(e, &value);
                    }
                    return;
                }
            }
            _ => {}
        }
        children(n, &program.ast, &mut |c| self.visit(c));
    }

    /// The front end takes the escapes of single bytes above \x7f for code points.
    fn refuse_bytes(&mut self, e: &Expr) {
        if let Expr::BasicLit(l) = e
            && let Token::STRING(t) = &l.token
            && has_byte_escape(t.as_str_str().0)
            && self.error.is_none()
        {
            let message = "a string literal with an escape above \\x7f (a byte that is no UTF-8 by \
                           itself) is not supported";
            self.error = Some(self.program.error(l.pos, message));
        }
        if let Expr::Ident(_) | Expr::BasicLit(_) = e {
            return;
        }
        // Constant operands are not visited otherwise.
        if self.program.info().types.get(&e.id()).is_some_and(|tv| tv.get_const_val().is_some()) {
            let program = self.program;
            children(Node::Expr(e), &program.ast, &mut |c| {
                if let Node::Expr(c) = c {
                    self.refuse_bytes(c);
                }
            });
        }
    }

    fn check(&mut self, e: &Expr, theirs: &ConstValue) {
        let ours = self.compute(e, 0, 0);
        let float = self.basic(e).is_some_and(|b| b.0 == BasicInfo::IsFloat);
        let agrees = match (&ours, theirs) {
            (Some(Value::Number(n, _)), _) if float => {
                let (double, single) = (nearest(n, 53, -1074), nearest(n, 24, -149) as f32);
                if double.is_finite() {
                    self.out.insert(e.id(), Computed::Float { double, single });
                    return;
                }
                false
            }
            (Some(Value::Number(n, _)), v) => {
                matches!(*v.to_int(), ConstValue::Int(_))
                    && n.is_integer()
                    && n.to_string() == v.to_int().to_string()
            }
            (Some(Value::Bool(b)), ConstValue::Bool(_)) => {
                self.out.insert(e.id(), Computed::Bool(*b));
                return;
            }
            _ => false,
        };
        if !agrees && self.error.is_none() {
            let pos = e.pos(&self.program.ast);
            self.error = Some(
                self.program.error(pos, "this floating-point constant expression is not supported"),
            );
        }
    }

    fn basic(&self, e: &Expr) -> Option<(BasicInfo, BasicType)> {
        self.basic_type(self.program.info().types.get(&e.id())?.typ)
    }

    fn basic_type(&self, t: TypeKey) -> Option<(BasicInfo, BasicType)> {
        let tc = &self.program.tc;
        match &tc.types[go_types::typ::underlying_type(t, tc)] {
            Type::Basic(b) => Some((b.info(), b.typ())),
            _ => None,
        }
    }

    fn constant(&self, e: &Expr) -> Option<ObjKey> {
        let Expr::Ident(i) = e else { return None };
        let obj = *self.program.info().uses.get(i)?;
        matches!(self.program.tc.lobjs[obj].entity_type(), go_types::EntityType::Const(_))
            .then_some(obj)
    }

    /// Whether a float occurs in a constant expression.
    fn has_float(&self, e: &Expr, depth: usize) -> bool {
        if depth > MAX_DEPTH {
            return true;
        }
        match e {
            Expr::BasicLit(l) => matches!(l.token, Token::FLOAT(_)),
            Expr::Ident(_) => match self.constant(e).and_then(|o| self.declared.get(&o)) {
                Some(d) => {
                    // Set first: a repeated expression may name the constant itself, of an outer
                    // scope.
                    if let Some(known) = d.has_float.get() {
                        return known;
                    }
                    d.has_float.set(Some(false));
                    let found = self.has_float(&d.value, depth + 1);
                    d.has_float.set(Some(found));
                    found
                }
                None => false,
            },
            Expr::Call(c) => {
                self.basic(e).is_some_and(|b| b.0 == BasicInfo::IsFloat)
                    || c.args.iter().any(|a| self.has_float(a, depth + 1))
            }
            Expr::FuncLit(_) => false,
            _ => {
                let mut found = false;
                children(Node::Expr(e), &self.program.ast, &mut |c| {
                    if let Node::Expr(c) = c {
                        found |= self.has_float(c, depth + 1);
                    }
                });
                found
            }
        }
    }

    fn compute(&self, e: &Expr, iota: usize, depth: usize) -> Option<Value> {
        if depth > MAX_DEPTH {
            return None;
        }
        let number = |v: Option<Value>| match v {
            Some(Value::Number(n, _)) => Some(n),
            _ => None,
        };
        let value = match e {
            Expr::Paren(p) => return self.compute(&p.expr, iota, depth + 1),
            Expr::BasicLit(l) => match &l.token {
                Token::FLOAT(t) => Value::Number(decimal(t)?, false),
                t => Value::Number(from_front(&ConstValue::with_literal(t))?, true),
            },
            Expr::Ident(i) => {
                if self.program.ast.idents[*i].name == "iota"
                    && self.constant(e).is_some_and(|o| !self.declared.contains_key(&o))
                {
                    return Some(Value::Number(BigRational::from_integer(iota.into()), true));
                }
                let obj = self.constant(e)?;
                let o = &self.program.tc.lobjs[obj];
                match self.declared.get(&obj) {
                    Some(d) => {
                        if let Some(known) = &*d.computed.borrow() {
                            return known.clone();
                        }
                        *d.computed.borrow_mut() = Some(None);
                        let v = self.compute(&d.value, d.iota, depth + 1);
                        // A type that is written rounds.
                        let v = v.and_then(|v| self.rounded(v, o.typ()?));
                        *d.computed.borrow_mut() = Some(v.clone());
                        return v;
                    }
                    None => match o.const_val() {
                        ConstValue::Bool(b) => Value::Bool(*b),
                        v => Value::Number(from_front(v)?, true),
                    },
                }
            }
            Expr::Unary(u) => self.compute(&u.expr, iota, depth + 1)?.unary(&u.op)?,
            Expr::Binary(b) => {
                let (x, y) = (
                    self.compute(&b.expr_a, iota, depth + 1)?,
                    self.compute(&b.expr_b, iota, depth + 1)?,
                );
                // An untyped operand takes the type of the other one first.
                let t = match b.op {
                    Token::SHL | Token::SHR => None,
                    _ => self.own_type(&b.expr_a, 0).or_else(|| self.own_type(&b.expr_b, 0)),
                };
                let (x, y) = match t {
                    Some(t) if self.basic_type(t).is_some() => {
                        (self.rounded(x, t)?, self.rounded(y, t)?)
                    }
                    _ => (x, y),
                };
                x.binary(&b.op, y)?
            }
            Expr::Call(c) => {
                let tv = self.program.info().types.get(&c.func.id())?;
                if !matches!(tv.mode, OperandMode::TypeExpr) {
                    // len and its like are integers without floats.
                    let v = self.program.info().types.get(&e.id())?.get_const_val()?;
                    return Some(Value::Number(from_front(v)?, true));
                }
                let v = number(self.compute(c.args.first()?, iota, depth + 1))?;
                return self.rounded(Value::Number(v, false), tv.typ);
            }
            _ => return None,
        };
        self.typed(e, value)
    }

    /// The result of an operation: rounded, if an operand has a type of its own, as the operands'
    /// types say.
    fn typed(&self, e: &Expr, v: Value) -> Option<Value> {
        match self.own_type(e, 0) {
            Some(t) => self.rounded(v, t),
            None => Some(v),
        }
    }

    /// The type of a constant expression if it does not come from where the expression is used.
    fn own_type(&self, e: &Expr, depth: usize) -> Option<TypeKey> {
        if depth > MAX_DEPTH {
            return None;
        }
        match e {
            Expr::Paren(p) => self.own_type(&p.expr, depth + 1),
            Expr::Unary(u) => self.own_type(&u.expr, depth + 1),
            Expr::Binary(b) if matches!(b.op, Token::SHL | Token::SHR) => {
                self.own_type(&b.expr_a, depth + 1)
            }
            Expr::Binary(b) => {
                self.own_type(&b.expr_a, depth + 1).or_else(|| self.own_type(&b.expr_b, depth + 1))
            }
            Expr::Call(c) => self.program.info().types.get(&c.func.id()).map(|tv| tv.typ),
            Expr::Ident(_) => {
                let t = self.program.tc.lobjs[self.constant(e)?].typ()?;
                (!self.basic_type(t)?.1.is_untyped()).then_some(t)
            }
            _ => None,
        }
    }

    /// A constant of a float type is rounded to it.
    fn rounded(&self, v: Value, t: TypeKey) -> Option<Value> {
        let Value::Number(n, int) = v else { return Some(v) };
        let (info, basic) = self.basic_type(t)?;
        let rounded = match basic {
            BasicType::Float64 => nearest(&n, 53, -1074),
            BasicType::Float32 => nearest(&n, 24, -149),
            _ if basic.is_untyped() => return Some(Value::Number(n, int)),
            _ => return Some(Value::Number(n, info == BasicInfo::IsInteger)),
        };
        BigRational::from_float(rounded).map(|n| Value::Number(n, false))
    }
}

fn is_constants(d: &Decl) -> bool {
    matches!(d, Decl::Gen(g) if g.token == Token::CONST)
}

/// Whether a quoted literal, as it is written, has an octal or hexadecimal escape of a byte above
/// 0x7f.
fn has_byte_escape(literal: &str) -> bool {
    if !literal.starts_with('"') {
        return false;
    }
    let bytes = literal.as_bytes();
    let mut i = 0;
    while i + 1 < bytes.len() {
        if bytes[i] == b'\\' {
            match (bytes[i + 1], bytes.get(i + 2)) {
                (b'x', Some(b'8' | b'9' | b'a'..=b'f' | b'A'..=b'F'))
                | (b'2' | b'3', Some(b'0'..=b'7')) => {
                    return true;
                }
                _ => i += 1,
            }
        }
        i += 1;
    }
    false
}
