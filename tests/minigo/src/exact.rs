//! Floating-point constants, exactly.
//!
//! The front end computes untyped constants with floats as `f64`, Go with arbitrary precision. Each
//! constant expression in which a float occurs is computed again here with rational numbers. Where
//! its value is a float, the exact one is rounded once and used; so is the exact outcome of a
//! comparison. Where the front end has come to another integer, it is refused.

use crate::error::{CompileError, Compiled};
use crate::front::Program;
use crate::walk::{Node, children};
use go_parser::ast::{Decl, Expr, Node as _, NodeId, Spec};
use go_parser::{Token, TokenData};
use go_types::typ::{BasicInfo, BasicType, Type};
use go_types::{ConstValue, ObjKey, OperandMode, TypeKey};
use num_bigint::{BigInt, BigUint, Sign};
use num_rational::BigRational;
use num_traits::{Signed, ToPrimitive, Zero};
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

#[derive(Clone, Debug, PartialEq)]
enum Value {
    /// True: an integer, whose division drops the remainder.
    Number(BigRational, bool),
    Bool(bool),
}

/// A declared constant: its expression, its type if that is written, and the value of iota.
struct Declared {
    value: Expr,
    iota: usize,
    has_float: Cell<Option<bool>>,
    /// Its value, once computed; None inside while that goes on.
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
        if let Node::Stmt(go_parser::ast::Stmt::Decl(d)) = n {
            self.collect_decl(d);
        }
        let program = self.program;
        children(n, &program.ast, &mut |c| self.collect(c));
    }

    fn visit(&mut self, n: Node<'_>) {
        let program = self.program;
        match n {
            // The expressions of constants are computed where the constants are used.
            Node::Stmt(go_parser::ast::Stmt::Decl(d)) if matches!(&**d, Decl::Gen(g) if g.token == Token::CONST) =>
            {
                return;
            }
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
            let message = "a string literal with an escape above \\x7f (a byte that is no UTF-8 by itself) is not supported";
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
            Expr::Unary(u) => match (&u.op, self.compute(&u.expr, iota, depth + 1)?) {
                (Token::ADD, v) => v,
                (Token::SUB, Value::Number(n, int)) => Value::Number(-n, int),
                (Token::NOT, Value::Bool(b)) => Value::Bool(!b),
                _ => return None,
            },
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
                match (x, y) {
                    (Value::Bool(x), Value::Bool(y)) => Value::Bool(match b.op {
                        Token::LAND => x && y,
                        Token::LOR => x || y,
                        Token::EQL => x == y,
                        Token::NEQ => x != y,
                        _ => return None,
                    }),
                    (Value::Number(x, i), Value::Number(y, j)) => match b.op {
                        Token::ADD => Value::Number(x + y, i && j),
                        Token::SUB => Value::Number(x - y, i && j),
                        Token::MUL => Value::Number(x * y, i && j),
                        Token::QUO if y.is_zero() => return None,
                        Token::QUO if i && j => Value::Number((x / y).trunc(), true),
                        Token::QUO => Value::Number(x / y, false),
                        Token::SHL if x.is_integer() => {
                            let factor = BigInt::from(2).pow(y.to_u32().filter(|n| *n < 2000)?);
                            Value::Number(x * factor, true)
                        }
                        Token::EQL => Value::Bool(x == y),
                        Token::NEQ => Value::Bool(x != y),
                        Token::LSS => Value::Bool(x < y),
                        Token::LEQ => Value::Bool(x <= y),
                        Token::GTR => Value::Bool(x > y),
                        Token::GEQ => Value::Bool(x >= y),
                        _ => return None,
                    },
                    _ => return None,
                }
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

fn from_front(v: &ConstValue) -> Option<BigRational> {
    match v {
        ConstValue::Int(i) => i.to_string().parse::<BigInt>().ok().map(BigRational::from_integer),
        ConstValue::Rat(r) => r.to_string().parse().ok(),
        _ => None,
    }
}

/// A decimal literal.
fn decimal(t: &TokenData) -> Option<BigRational> {
    let text = t.as_str().replace('_', "");
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.trim_start_matches('+').parse::<i64>().ok()?),
        None => (&text[..], 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: BigInt = format!("0{whole}{fraction}").parse().ok()?;
    let exponent = exponent - fraction.len() as i64;
    let power =
        BigInt::from(10).pow(u32::try_from(exponent.unsigned_abs()).ok().filter(|e| *e <= 5000)?);
    Some(if exponent < 0 {
        BigRational::new(digits, power)
    } else {
        BigRational::from_integer(digits * power)
    })
}

/// The nearest binary float with `bits` bits of mantissa whose last bit is worth at least
/// 2^`lowest`; ties to even.
fn nearest(n: &BigRational, bits: i64, lowest: i64) -> f64 {
    if n.is_zero() {
        return 0.0;
    }
    let (top, bottom): (BigUint, BigUint) =
        (n.numer().magnitude().clone(), n.denom().magnitude().clone());
    // The value of the last bit, so that the quotient has `bits` bits.
    let size = top.bits() as i64 - bottom.bits() as i64;
    let mut last = (size - bits).max(lowest);
    let quotient = |last: i64| match last {
        0.. => (top.clone(), &bottom << last as usize),
        _ => (&top << last.unsigned_abs() as usize, bottom.clone()),
    };
    loop {
        let (a, b) = quotient(last);
        let whole = &a / &b;
        if whole.bits() as i64 > bits {
            last += 1;
            continue;
        }
        let twice = (&a - &whole * &b) * 2u32;
        let odd = whole.bit(0);
        let up = twice > b || (twice == b && odd);
        let mantissa = whole.to_u64().unwrap_or(0) + u64::from(up);
        let magnitude =
            mantissa as f64 * 2f64.powi((last / 2) as i32) * 2f64.powi((last - last / 2) as i32);
        let magnitude =
            if bits == 24 && magnitude > f64::from(f32::MAX) { f64::INFINITY } else { magnitude };
        return if n.numer().sign() == Sign::Minus || n.is_negative() {
            -magnitude
        } else {
            magnitude
        };
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;
    use num_bigint::BigInt;
    use num_rational::BigRational;

    fn ratio(a: i64, b: i64) -> BigRational {
        BigRational::new(BigInt::from(a), BigInt::from(b))
    }

    #[test]
    fn ratios_are_rounded_to_the_nearest_float() {
        for (a, b) in
            [(1, 3), (1, 10), (3, 10), (-7, 9), (i64::MAX, 1), (1, i64::MAX), (123_456_789, 1000)]
        {
            let exact = nearest(&ratio(a, b), 53, -1074);
            if a.unsigned_abs() < 1 << 53 && b < 1 << 53 {
                assert_eq!(exact, a as f64 / b as f64);
            }
        }
        assert_eq!(nearest(&ratio(16_777_217, 1), 24, -149), 16_777_216.0);
        assert_eq!(nearest(&ratio(1, 10), 24, -149), f64::from(0.1f32));
    }

    #[test]
    fn small_numbers_lose_bits() {
        let tiny = BigRational::new(BigInt::from(1), BigInt::from(2).pow(1074));
        assert_eq!(nearest(&tiny, 53, -1074), f64::from_bits(1));
        assert_eq!(nearest(&(tiny / BigInt::from(4)), 53, -1074), 0.0);
    }
}
