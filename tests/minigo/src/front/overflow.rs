//! Integer constants that are too large.
//!
//! Go refuses an untyped integer constant of more than 512 bits. The front end computes on: each
//! square of a square takes four times as long. So the untyped integers of a file are computed here
//! first, and the first that is too large is an error.

use crate::walk::{Node, everything};
use go_parser::ast::{self, BasicLit, BinaryExpr, Decl, Expr, IdentEntity, Node as _, Spec, Stmt};
use go_parser::{AstObjects, EntityKey, Pos, Token};
use num_bigint::{BigInt, Sign};
use num_traits::{Num, Signed, ToPrimitive, Zero};
use std::collections::HashMap;

/// Bits that an integer constant may have.
const MAX_BITS: u64 = 512;
/// The largest shift count: more than any float constant needs.
const MAX_SHIFT: u32 = 1023 - 1 + 52;
/// Constants nested deeper than this are left to the front end.
const MAX_DEPTH: usize = 200;

/// A constant that is too large.
pub(super) struct TooLarge {
    pub(super) pos: Pos,
    pub(super) message: String,
}

struct Declared<'a> {
    value: &'a Expr,
    iota: usize,
    /// Once computed, or while that goes on.
    known: Option<Option<BigInt>>,
}

struct Checker<'a> {
    ast: &'a AstObjects,
    declared: HashMap<EntityKey, Declared<'a>>,
    error: Option<TooLarge>,
}

/// The first constant of a file that is too large.
pub(super) fn check(file: &ast::File, ast: &AstObjects) -> Option<TooLarge> {
    let mut c = Checker { ast, declared: HashMap::new(), error: None };
    let mut groups = vec![];
    everything(file, ast, &mut |n| {
        if let Node::Stmt(Stmt::Decl(d)) = n {
            groups.push(&**d);
        }
    });
    for d in file.decls.iter().chain(groups) {
        c.collect(d);
    }
    let mut declared: Vec<EntityKey> = c.declared.keys().copied().collect();
    declared.sort_by_key(|e| c.declared[e].value.pos(ast));
    for e in declared {
        c.constant(e, 0);
    }
    let mut operations = vec![];
    everything(file, ast, &mut |n| {
        if let Node::Expr(e @ Expr::Binary(_)) = n {
            operations.push(e);
        }
    });
    for e in operations {
        if c.error.is_some() {
            break;
        }
        c.compute(e, None, 0);
    }
    c.error
}

impl<'a> Checker<'a> {
    fn collect(&mut self, d: &'a Decl) {
        let Decl::Gen(g) = d else { return };
        if g.token != Token::CONST {
            return;
        }
        let mut last: &[Expr] = &[];
        let mut typed = false;
        for (iota, s) in g.specs.iter().enumerate() {
            let Spec::Value(v) = &self.ast.specs[*s] else { continue };
            if !v.values.is_empty() {
                last = &v.values;
                typed = v.typ.is_some();
            }
            if typed {
                continue;
            }
            for (i, value) in v.names.iter().zip(last) {
                if let IdentEntity::Entity(e) = self.ast.idents[*i].entity {
                    self.declared.insert(e, Declared { value, iota, known: None });
                }
            }
        }
    }

    fn constant(&mut self, e: EntityKey, depth: usize) -> Option<BigInt> {
        let d = self.declared.get_mut(&e)?;
        if let Some(known) = &d.known {
            return known.clone();
        }
        d.known = Some(None);
        let (value, iota) = (d.value, d.iota);
        let computed = self.compute(value, Some(iota), depth);
        self.declared.get_mut(&e)?.known = Some(computed.clone());
        computed
    }

    /// The value of an untyped integer constant; none if it is not known to be one.
    fn compute(&mut self, e: &'a Expr, iota: Option<usize>, depth: usize) -> Option<BigInt> {
        if depth > MAX_DEPTH || self.error.is_some() {
            return None;
        }
        match e {
            Expr::Paren(p) => self.compute(&p.expr, iota, depth + 1),
            Expr::BasicLit(l) => literal(l),
            Expr::Ident(i) => {
                let ident = &self.ast.idents[*i];
                match ident.entity {
                    IdentEntity::Entity(e) => self.constant(e, depth + 1),
                    _ => iota.filter(|_| ident.name == "iota").map(BigInt::from),
                }
            }
            Expr::Unary(u) => {
                let x = self.compute(&u.expr, iota, depth + 1)?;
                match u.op {
                    Token::ADD => Some(x),
                    Token::SUB => Some(-x),
                    Token::XOR => Some(!x),
                    _ => None,
                }
            }
            Expr::Binary(b) => {
                let x = self.compute(&b.expr_a, iota, depth + 1)?;
                let y = self.compute(&b.expr_b, iota, depth + 1)?;
                self.binary(b, x, y)
            }
            _ => None,
        }
    }

    fn binary(&mut self, b: &BinaryExpr, x: BigInt, y: BigInt) -> Option<BigInt> {
        let (value, what) = match b.op {
            Token::ADD => (x + y, "addition "),
            Token::SUB => (x - y, "subtraction "),
            Token::MUL => (x * y, "multiplication "),
            Token::AND => (x & y, ""),
            Token::OR => (x | y, ""),
            Token::XOR => (x ^ y, "bitwise XOR "),
            Token::QUO if !y.is_zero() => (x / y, ""),
            Token::REM if !y.is_zero() => (x % y, ""),
            Token::SHL | Token::SHR if y.sign() == Sign::Minus => return None,
            Token::SHL | Token::SHR => {
                let Some(count) = y.to_u32().filter(|n| *n <= MAX_SHIFT) else {
                    let pos = b.expr_b.pos(self.ast);
                    self.error =
                        Some(TooLarge { pos, message: format!("invalid shift count {y}") });
                    return None;
                };
                if b.op == Token::SHL { (x << count, "shift ") } else { (x >> count, "") }
            }
            _ => return None,
        };
        if value.abs().bits() > MAX_BITS {
            let message = format!("constant {what}overflow");
            self.error = Some(TooLarge { pos: b.op_pos, message });
            return None;
        }
        Some(value)
    }
}

fn literal(l: &BasicLit) -> Option<BigInt> {
    let Token::INT(t) = &l.token else { return None };
    let text = t.as_str().replace('_', "").to_lowercase();
    let (digits, base) = match text.as_bytes() {
        [b'0', b'x', ..] => (&text[2..], 16),
        [b'0', b'b', ..] => (&text[2..], 2),
        [b'0', b'o', ..] => (&text[2..], 8),
        [b'0', _, ..] => (&text[1..], 8),
        _ => (&text[..], 10),
    };
    // A literal that is too large by itself is left to the front end.
    BigInt::from_str_radix(digits, base).ok().filter(|n| n.bits() <= MAX_BITS)
}
