//! Conversions `T(x)`.

use super::constant::int_type;
use super::function::{FuncGen, Val};
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use go_parser::ast::{Expr, Node};

impl FuncGen<'_, '_> {
    pub(crate) fn conversion(&mut self, operand: &Expr, to: Ty) -> Compiled<Val> {
        let pos = operand.pos(&self.c.program.ast);
        let from = self.type_of(operand)?;
        let is_const =
            self.c.program.info().types.get(&operand.id()).and_then(|t| t.get_const_val().cloned());
        if let Some(c) = is_const
            && !(matches!(self.kind(to), Kind::String)
                && matches!(self.kind(from), Kind::Int { .. }))
            && matches!(
                self.kind(to),
                Kind::Bool | Kind::Int { .. } | Kind::Float { .. } | Kind::String
            )
        {
            return match self.exact_constant(operand, to) {
                Some(v) => Ok(v),
                None => self.constant(&c, to, pos),
            };
        }
        let v = self.expr(operand)?;
        let one = |v: Value| Val { ty: to, v: vec![v] };
        let basic = self.c.types.basic;
        Ok(match (self.kind(from), self.kind(to)) {
            (Kind::Int { bits: a, signed, .. }, Kind::Int { bits: b, .. }) => {
                let ty = int_type(b);
                one(match (a.cmp(&b), signed) {
                    (std::cmp::Ordering::Equal, _) => v.v[0],
                    (std::cmp::Ordering::Greater, _) => self.b.ins().ireduce(ty, v.v[0]),
                    (_, true) => self.b.ins().sextend(ty, v.v[0]),
                    (_, false) => self.b.ins().uextend(ty, v.v[0]),
                })
            }
            (Kind::Int { signed, .. }, Kind::Float { bits }) => {
                let wide = self.widen(&v);
                let ty = if bits == 32 { clif::F32 } else { clif::F64 };
                one(if signed {
                    self.b.ins().fcvt_from_sint(ty, wide)
                } else {
                    self.b.ins().fcvt_from_uint(ty, wide)
                })
            }
            (Kind::Float { .. }, Kind::Int { bits, signed, .. }) => {
                let f = self.double_of(&v);
                let wide =
                    if !signed && bits == 64 { self.float_to_u64(f) } else { self.float_to_i64(f) };
                one(match bits {
                    64 => wide,
                    _ => self.b.ins().ireduce(int_type(bits), wide),
                })
            }
            (Kind::Float { bits: 32 }, Kind::Float { bits: 64 }) => {
                one(self.b.ins().fpromote(clif::F64, v.v[0]))
            }
            (Kind::Float { bits: 64 }, Kind::Float { bits: 32 }) => {
                one(self.b.ins().fdemote(clif::F32, v.v[0]))
            }
            (Kind::Int { signed, .. }, Kind::String) => {
                let wide = self.widen(&v);
                let wide = if signed {
                    wide
                } else {
                    // What does not fit is no rune either.
                    let most = self.b.int(i64::from(u32::MAX));
                    self.b.ins().umin(wide, most)
                };
                self.b.native(natives::string_of_rune, &[wide]);
                self.string_result(to)
            }
            (Kind::Slice(e), Kind::String) => {
                let bytes = matches!(self.kind(e), Kind::Int { bits: 8, .. });
                let f: stackmark_asm::layout::NativeFn =
                    if bytes { natives::string_of_bytes } else { natives::string_of_runes };
                self.b.native(f, &[v.v[0], v.v[1]]);
                self.string_result(to)
            }
            (Kind::String, Kind::Slice(e)) => {
                let bytes = matches!(self.kind(e), Kind::Int { bits: 8, .. });
                let f: stackmark_asm::layout::NativeFn =
                    if bytes { natives::bytes_of_string } else { natives::runes_of_string };
                let info = self.type_info(if bytes { basic.uint8 } else { basic.int32 });
                self.b.native(f, &[v.v[0], v.v[1], info]);
                self.slice_result(to)
            }
            (Kind::Slice(_), Kind::Pointer(_)) => {
                return Err(self
                    .error(pos, "a conversion from a slice to an array pointer is not supported"));
            }
            _ => return self.assignable(v, to, pos),
        })
    }

    /// The string that a native has left in the result words.
    pub(crate) fn string_result(&mut self, t: Ty) -> Val {
        let at = self.result_ref(0);
        let len = self.b.result_word(1, clif::I64);
        Val { ty: t, v: vec![at, len] }
    }

    /// The slice that a native has left in the result words.
    pub(crate) fn slice_result(&mut self, t: Ty) -> Val {
        let at = self.result_ref(0);
        let len = self.b.result_word(1, clif::I64);
        let cap = self.b.result_word(2, clif::I64);
        Val { ty: t, v: vec![at, len, cap] }
    }

    fn double_of(&mut self, v: &Val) -> Value {
        match self.kind(v.ty) {
            Kind::Float { bits: 32 } => self.b.ins().fpromote(clif::F64, v.v[0]),
            _ => v.v[0],
        }
    }

    /// As the machine's own conversion, which Go uses: out of range gives the smallest integer.
    fn float_to_i64(&mut self, f: Value) -> Value {
        let limit = self.b.ins().f64const(9_223_372_036_854_775_808.0);
        let in_range = self.b.ins().fcmp(FloatCC::LessThan, f, limit);
        let r = self.b.ins().fcvt_to_sint_sat(clif::I64, f);
        let lowest = self.b.int(i64::MIN);
        self.b.ins().select(in_range, r, lowest)
    }

    /// As Go's compiler does it on this machine.
    fn float_to_u64(&mut self, f: Value) -> Value {
        let limit = self.b.ins().f64const(9_223_372_036_854_775_808.0);
        let small = self.b.ins().fcmp(FloatCC::LessThan, f, limit);
        let low = self.float_to_i64(f);
        let rest = self.b.ins().fsub(f, limit);
        let high = self.float_to_i64(rest);
        let sign = self.b.int(i64::MIN);
        let high = self.b.ins().bxor(high, sign);
        self.b.ins().select(small, low, high)
    }
}
