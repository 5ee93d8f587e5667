//! Constants.

use super::function::{FuncGen, Val};
use crate::error::Compiled;
use crate::exact::Computed;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::{InstBuilder, types as clif};
use go_parser::Pos;
use go_parser::ast::{Expr, Node};
use go_types::ConstValue;

impl FuncGen<'_, '_> {
    /// A constant that has been computed exactly, as a value of type `t`.
    pub(crate) fn exact_constant(&mut self, e: &Expr, t: Ty) -> Option<Val> {
        let v = match (*self.c.exact.get(&e.id())?, self.kind(t)) {
            (Computed::Float { single, .. }, Kind::Float { bits: 32 }) => {
                self.b.ins().f32const(single)
            }
            (Computed::Float { double, .. }, Kind::Float { .. }) => self.b.ins().f64const(double),
            (Computed::Bool(b), Kind::Bool) => self.b.ins().iconst(clif::I8, i64::from(b)),
            _ => return None,
        };
        Some(Val { ty: t, v: vec![v] })
    }

    /// A constant as a value of type `t`.
    pub(crate) fn constant(&mut self, value: &ConstValue, t: Ty, pos: Pos) -> Compiled<Val> {
        let basic = self.c.types.basic;
        let v = match (self.kind(t), value) {
            (Kind::Bool, ConstValue::Bool(b)) => vec![self.b.ins().iconst(clif::I8, i64::from(*b))],
            (Kind::String, ConstValue::Str(s)) => {
                let (at, len) = self.c.emitter.string(s);
                let at = self.address(at);
                vec![at, self.b.int(len as i64)]
            }
            (Kind::Int { bits, .. }, v) => {
                let Some(v) = integer(v) else {
                    return Err(
                        self.error(pos, "this constant is not an integer that can be represented")
                    );
                };
                let ty = int_type(bits);
                let v = if bits == 64 { v } else { v & ((1 << bits) - 1) };
                vec![self.b.ins().iconst(ty, v)]
            }
            (Kind::Float { bits }, v) => {
                let f = match v {
                    ConstValue::Int(_) | ConstValue::Rat(_) | ConstValue::Float(_) => {
                        v.num_as_f64().0.into_inner()
                    }
                    _ => f64::NAN,
                };
                if !f.is_finite() {
                    return Err(self.error(
                        pos,
                        "this floating-point constant is not supported: it has no finite value",
                    ));
                }
                vec![if bits == 32 {
                    self.b.ins().f32const(f as f32)
                } else {
                    self.b.ins().f64const(f)
                }]
            }
            (Kind::Interface(_), v) => {
                let own = match v {
                    ConstValue::Bool(_) => basic.bool,
                    ConstValue::Str(_) => basic.string,
                    ConstValue::Int(_) => basic.int,
                    _ => basic.float64,
                };
                let val = self.constant(value, own, pos)?;
                return self.box_value(val, t, pos);
            }
            _ => return Err(self.error(pos, "this constant is not supported")),
        };
        Ok(Val { ty: t, v })
    }
}

/// The low 64 bits of an integer constant.
pub(crate) fn integer(v: &ConstValue) -> Option<i64> {
    let v = v.to_int();
    if !matches!(*v, ConstValue::Int(_)) {
        return None;
    }
    match v.int_as_i64() {
        (i, true) => Some(i),
        _ => match v.int_as_u64() {
            (u, true) => Some(u as i64),
            _ => None,
        },
    }
}

pub(crate) fn int_type(bits: u8) -> cranelift_codegen::ir::Type {
    match bits {
        8 => clif::I8,
        16 => clif::I16,
        32 => clif::I32,
        _ => clif::I64,
    }
}
