//! Binary operators, with Go's exact semantics.

use super::constant::{int_type, integer};
use super::function::{FuncGen, Val};
use crate::error::Compiled;
use crate::runtime::natives::{self, Failure};
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use go_parser::ast::{BinaryExpr, Expr, Node};
use go_parser::{Pos, Token};

impl FuncGen<'_, '_> {
    pub(crate) fn binary(&mut self, b: &BinaryExpr, e: &Expr) -> Compiled<Val> {
        match b.op {
            Token::LAND | Token::LOR => return self.short_circuit(b, e),
            Token::EQL | Token::NEQ | Token::LSS | Token::LEQ | Token::GTR | Token::GEQ => {
                return self.comparison(b, e);
            }
            _ => {}
        }
        let t = self.type_of(e)?;
        let x = self.expr_as(&b.expr_a, t)?;
        if matches!(b.op, Token::SHL | Token::SHR) {
            return self.shift(&b.op, x, &b.expr_b);
        }
        let y = self.expr_as(&b.expr_b, t)?;
        self.arithmetic(&b.op, x, y, self.constant_divisor(&b.expr_b), b.op_pos)
    }

    /// The value of an integer constant operand.
    pub(crate) fn constant_divisor(&self, e: &Expr) -> Option<i64> {
        let tv = self.c.program.info().types.get(&e.id())?;
        integer(tv.get_const_val()?)
    }

    pub(crate) fn arithmetic(
        &mut self,
        op: &Token,
        x: Val,
        y: Val,
        divisor: Option<i64>,
        pos: Pos,
    ) -> Compiled<Val> {
        let t = x.ty;
        let kind = self.kind(t);
        if let Kind::String = kind {
            return Ok(self.concatenate(t, &x, &y));
        }
        let (a, b) = (x.v[0], y.v[0]);
        let r = match (op, &kind) {
            (Token::ADD, Kind::Float { .. }) => self.b.ins().fadd(a, b),
            (Token::SUB, Kind::Float { .. }) => self.b.ins().fsub(a, b),
            (Token::MUL, Kind::Float { .. }) => self.b.ins().fmul(a, b),
            (Token::QUO, Kind::Float { .. }) => self.b.ins().fdiv(a, b),
            (Token::ADD, Kind::Int { .. }) => self.b.ins().iadd(a, b),
            (Token::SUB, Kind::Int { .. }) => self.b.ins().isub(a, b),
            (Token::MUL, Kind::Int { .. }) => self.b.ins().imul(a, b),
            (Token::AND, Kind::Int { .. }) => self.b.ins().band(a, b),
            (Token::OR, Kind::Int { .. }) => self.b.ins().bor(a, b),
            (Token::XOR, Kind::Int { .. }) => self.b.ins().bxor(a, b),
            (Token::AND_NOT, Kind::Int { .. }) => self.b.ins().band_not(a, b),
            (Token::QUO | Token::REM, Kind::Int { bits, signed, .. }) => {
                self.divide(a, b, *bits, *signed, *op == Token::REM, divisor)
            }
            _ => return Err(self.error(pos, "this operator is not supported for these operands")),
        };
        Ok(Val { ty: t, v: vec![r] })
    }

    fn divide(
        &mut self,
        a: Value,
        b: Value,
        bits: u8,
        signed: bool,
        rem: bool,
        divisor: Option<i64>,
    ) -> Value {
        if divisor.is_none_or(|d| d == 0) {
            let ok = self.b.ins().icmp_imm_s(IntCC::NotEqual, b, 0);
            self.check(ok, Failure::Divide, &[]);
        }
        if !signed {
            return if rem { self.b.ins().urem(a, b) } else { self.b.ins().udiv(a, b) };
        }
        if divisor.is_some_and(|d| d != -1 && d != 0) {
            return if rem { self.b.ins().srem(a, b) } else { self.b.ins().sdiv(a, b) };
        }
        // The machine traps on MIN / -1; Go wraps. Dividing by 1 instead is harmless there.
        let ty = int_type(bits);
        let minus_one = self.b.ins().icmp_imm_s(IntCC::Equal, b, -1);
        let one = self.b.ins().iconst(ty, 1);
        let by = self.b.ins().select(minus_one, one, b);
        if rem {
            let r = self.b.ins().srem(a, by);
            let zero = self.b.ins().iconst(ty, 0);
            self.b.ins().select(minus_one, zero, r)
        } else {
            let r = self.b.ins().sdiv(a, by);
            let negated = self.b.ins().ineg(a);
            self.b.ins().select(minus_one, negated, r)
        }
    }

    pub(crate) fn shift(&mut self, op: &Token, x: Val, count: &Expr) -> Compiled<Val> {
        let t = x.ty;
        let pos = count.pos(&self.c.program.ast);
        let Kind::Int { bits, signed, .. } = self.kind(t) else {
            return Err(self.error(pos, "a shift of this operand is not supported"));
        };
        let ty = int_type(bits);
        let a = x.v[0];
        if let Some(n) = self.constant_divisor(count) {
            let r = match (op, n >= i64::from(bits) || n < 0) {
                (Token::SHL, false) => self.b.ins().ishl_imm_s(a, n),
                (Token::SHL, true) => self.b.ins().iconst(ty, 0),
                (_, false) if signed => self.b.ins().sshr_imm_s(a, n),
                (_, false) => self.b.ins().ushr_imm_s(a, n),
                (_, true) if signed => self.b.ins().sshr_imm_s(a, i64::from(bits) - 1),
                (_, true) => self.b.ins().iconst(ty, 0),
            };
            return Ok(Val { ty: t, v: vec![r] });
        }
        let n = self.shift_count(count)?;
        let in_range = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, n, i64::from(bits));
        let r = match op {
            Token::SHR if signed => {
                let most = self.b.int(i64::from(bits) - 1);
                let n = self.b.ins().select(in_range, n, most);
                self.b.ins().sshr(a, n)
            }
            _ => {
                let r = match op {
                    Token::SHL => self.b.ins().ishl(a, n),
                    _ => self.b.ins().ushr(a, n),
                };
                let zero = self.b.ins().iconst(ty, 0);
                self.b.ins().select(in_range, r, zero)
            }
        };
        Ok(Val { ty: t, v: vec![r] })
    }

    /// A shift count as a 64-bit word; signed ones are checked for being negative.
    fn shift_count(&mut self, count: &Expr) -> Compiled<Value> {
        let mut count = count;
        let pos = count.pos(&self.c.program.ast);
        if let Expr::Call(c) = count
            && self.c.program.is_wrapped_count(pos)
        {
            count = &c.args[0];
        }
        let v = self.expr(count)?;
        let n = self.widen(&v);
        if matches!(self.kind(v.ty), Kind::Int { signed: true, .. }) {
            let ok = self.b.ins().icmp_imm_s(IntCC::SignedGreaterThanOrEqual, n, 0);
            self.check(ok, Failure::NegativeShift, &[]);
        }
        Ok(n)
    }

    fn concatenate(&mut self, t: Ty, x: &Val, y: &Val) -> Val {
        self.b.native(natives::concatenate, &[x.v[0], x.v[1], y.v[0], y.v[1]]);
        let at = self.result_ref(0);
        let len = self.b.result_word(1, clif::I64);
        Val { ty: t, v: vec![at, len] }
    }

    fn short_circuit(&mut self, b: &BinaryExpr, e: &Expr) -> Compiled<Val> {
        let t = self.type_of(e)?;
        let out = self.b.declare_var(clif::I8);
        self.hoist(&b.expr_a)?;
        let x = self.expr(&b.expr_a)?.v[0];
        self.b.def_var(out, x);
        let (rest, done) = (self.b.create_block(), self.b.create_block());
        match b.op {
            Token::LAND => self.b.ins().brif(x, rest, &[], done, &[]),
            _ => self.b.ins().brif(x, done, &[], rest, &[]),
        };
        self.b.switch_to_block(rest);
        self.hoist(&b.expr_b)?;
        let y = self.expr(&b.expr_b)?.v[0];
        self.b.def_var(out, y);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
        Ok(Val { ty: t, v: vec![self.b.use_var(out)] })
    }

    fn comparison(&mut self, b: &BinaryExpr, e: &Expr) -> Compiled<Val> {
        let out = self.type_of(e)?;
        let (tx, ty) = (self.type_of(&b.expr_a)?, self.type_of(&b.expr_b)?);
        // One side may have to be converted: an untyped constant, nil, or a value compared with an
        // interface.
        let is_const = |g: &Self, e: &Expr| {
            g.c.program.info().types.get(&e.id()).is_some_and(|t| t.get_const_val().is_some())
        };
        let t = match (self.kind(tx), self.kind(ty)) {
            (Kind::Nil, _) => ty,
            (_, Kind::Nil) => tx,
            (Kind::Interface(_), _) => tx,
            (_, Kind::Interface(_)) => ty,
            _ if is_const(self, &b.expr_a) => ty,
            _ => tx,
        };
        let x = self.expr_as(&b.expr_a, t)?;
        let y = self.expr_as(&b.expr_b, t)?;
        let r = match b.op {
            Token::EQL => self.equal(t, &x, &y),
            Token::NEQ => {
                let r = self.equal(t, &x, &y);
                self.b.ins().bxor_imm_s(r, 1)
            }
            _ => self.ordered(&b.op, t, &x, &y, b.op_pos)?,
        };
        Ok(Val { ty: out, v: vec![r] })
    }

    fn ordered(&mut self, op: &Token, t: Ty, x: &Val, y: &Val, pos: Pos) -> Compiled<Value> {
        let (signed_cc, unsigned_cc, float_cc) = match op {
            Token::LSS => (IntCC::SignedLessThan, IntCC::UnsignedLessThan, FloatCC::LessThan),
            Token::LEQ => (
                IntCC::SignedLessThanOrEqual,
                IntCC::UnsignedLessThanOrEqual,
                FloatCC::LessThanOrEqual,
            ),
            Token::GTR => {
                (IntCC::SignedGreaterThan, IntCC::UnsignedGreaterThan, FloatCC::GreaterThan)
            }
            _ => (
                IntCC::SignedGreaterThanOrEqual,
                IntCC::UnsignedGreaterThanOrEqual,
                FloatCC::GreaterThanOrEqual,
            ),
        };
        Ok(match self.kind(t) {
            Kind::Int { signed: true, .. } => self.b.ins().icmp(signed_cc, x.v[0], y.v[0]),
            Kind::Int { .. } => self.b.ins().icmp(unsigned_cc, x.v[0], y.v[0]),
            Kind::Float { .. } => self.b.ins().fcmp(float_cc, x.v[0], y.v[0]),
            Kind::String => {
                let order =
                    self.b.native(natives::compare_strings, &[x.v[0], x.v[1], y.v[0], y.v[1]]);
                self.b.ins().icmp_imm_s(signed_cc, order, 0)
            }
            _ => return Err(self.error(pos, "this comparison is not supported")),
        })
    }

    /// Whether two values of type `t` are equal: 0 or 1.
    pub(crate) fn equal(&mut self, t: Ty, x: &Val, y: &Val) -> Value {
        if self.c.types.layout(t).components.is_none() {
            let info = self.type_info(t);
            let r = self.b.native(natives::equal_memory, &[info, x.v[0], y.v[0]]);
            return self.as_bool(r);
        }
        match self.kind(t) {
            Kind::Float { .. } => self.b.ins().fcmp(FloatCC::Equal, x.v[0], y.v[0]),
            Kind::String => self.equal_strings(x, y),
            Kind::Interface(_) => {
                let r = self.b.native(natives::equal_interfaces, &[x.v[0], x.v[1], y.v[0], y.v[1]]);
                self.as_bool(r)
            }
            Kind::Struct(fields) => {
                let mut all = self.b.ins().iconst(clif::I8, 1);
                for (i, f) in fields.iter().enumerate() {
                    if f.name == "_" {
                        continue;
                    }
                    let (from, to) = self.field_components(&fields, i);
                    let part = |v: &Val| Val { ty: f.ty, v: v.v[from..to].to_vec() };
                    let r = self.equal(f.ty, &part(x), &part(y));
                    all = self.b.ins().band(all, r);
                }
                all
            }
            _ => self.b.ins().icmp(IntCC::Equal, x.v[0], y.v[0]),
        }
    }

    fn equal_strings(&mut self, x: &Val, y: &Val) -> Value {
        let out = self.b.declare_var(clif::I8);
        let same_length = self.b.ins().icmp(IntCC::Equal, x.v[1], y.v[1]);
        self.b.def_var(out, same_length);
        let (compare, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(same_length, compare, &[], done, &[]);
        self.b.switch_to_block(compare);
        let order = self.b.native(natives::compare_strings, &[x.v[0], x.v[1], y.v[0], y.v[1]]);
        let r = self.b.ins().icmp_imm_s(IntCC::Equal, order, 0);
        self.b.def_var(out, r);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
        self.b.use_var(out)
    }
}
