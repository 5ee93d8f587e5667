//! Expressions.

use super::function::{FuncGen, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::runtime::natives::{self, Failure};
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use go_parser::Token;
use go_parser::ast::{Expr, Node, SelectorExpr, SliceExpr, UnaryExpr};
use go_types::{ObjKey, SelectionKind};

impl FuncGen<'_, '_> {
    pub(crate) fn type_of(&mut self, e: &Expr) -> Compiled<Ty> {
        self.c.type_of_expr(e)
    }

    /// The value of an expression, of its own type.
    pub(crate) fn expr(&mut self, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        if let Some(tv) = self.c.program.info().types.get(&e.id())
            && let Some(c) = tv.get_const_val()
        {
            let (c, typ) = (c.clone(), tv.typ);
            let t = self.c.supported(typ, pos)?;
            return match self.exact_constant(e, t) {
                Some(v) => Ok(v),
                None => self.constant(&c, t, pos),
            };
        }
        if let Some(v) = self.hoisted.remove(&e.id()) {
            return Ok(v);
        }
        match e {
            Expr::Paren(p) => self.expr(&p.expr),
            Expr::Ident(i) => {
                let info = self.c.program.info();
                let obj = info.uses.get(i).copied().or_else(|| info.defs.get(i).copied().flatten());
                let Some(obj) = obj else { return Err(self.error(pos, "an unknown name")) };
                let kind = self.c.program.tc.lobjs[obj].entity_type();
                if kind.is_nil() {
                    let t = self.type_of(e)?;
                    return Ok(self.zero(t));
                }
                if kind.is_func() {
                    return self.function_value(obj, e);
                }
                if let go_types::EntityType::Const(c) = kind {
                    let c = c.clone();
                    let t = self.c.object_type(obj, pos)?;
                    return self.constant(&c, t, pos);
                }
                let t = self.c.object_type(obj, pos)?;
                let place = self.object_place(obj, pos)?;
                Ok(self.load(&place, t))
            }
            Expr::FuncLit(l) => self.literal(l, e),
            Expr::CompositeLit(_) => self.composite(e),
            Expr::Selector(s) => self.selector(s, e),
            Expr::Index(_) => self.index(e),
            Expr::Slice(s) => self.slice(s),
            Expr::Star(_) => {
                let t = self.type_of(e)?;
                let place = self.place(e)?;
                Ok(self.load(&place, t))
            }
            Expr::Unary(u) => self.unary(u, e),
            Expr::Binary(b) => self.binary(b, e),
            Expr::Call(c) => {
                let mut results = self.call(c, e)?;
                match results.len() {
                    1 => Ok(results.remove(0)),
                    _ => Err(self.error(pos, "a call with one result is needed here")),
                }
            }
            Expr::TypeAssert(a) => {
                let Some(typ) = &a.typ else {
                    return Err(self.error(pos, "a type switch is a statement"));
                };
                let t = self.type_of(typ)?;
                self.type_assertion(&a.expr, t)
            }
            _ => Err(self.error(pos, "this expression is not supported")),
        }
    }

    /// The value of an expression, converted as an assignment to a variable of type `t` converts
    /// it.
    pub(crate) fn expr_as(&mut self, e: &Expr, t: Ty) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        if let Some(tv) = self.c.program.info().types.get(&e.id())
            && let Some(c) = tv.get_const_val()
            && !self.c.types.is_interface(t)
        {
            let c = c.clone();
            return match self.exact_constant(e, t) {
                Some(v) => Ok(v),
                None => self.constant(&c, t, pos),
            };
        }
        let v = self.expr(e)?;
        self.assignable(v, t, pos)
    }

    /// Converts a value as an assignment does: to an interface type, or from nil.
    pub(crate) fn assignable(&mut self, v: Val, t: Ty, pos: go_parser::Pos) -> Compiled<Val> {
        if v.ty == t {
            return Ok(v);
        }
        if matches!(self.kind(v.ty), Kind::Nil) {
            return Ok(self.zero(t));
        }
        if self.c.types.is_interface(t) && !self.c.types.is_interface(v.ty) {
            return self.box_value(v, t, pos);
        }
        Ok(Val { ty: t, v: v.v })
    }

    fn selector(&mut self, s: &SelectorExpr, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let Some(sel) = self.c.program.info().selections.get(&s.id()).cloned() else {
            let name = self.c.program.ast.idents[s.sel].name.clone();
            return Err(self.error(pos, format!("{name} of this package can only be called")));
        };
        match sel.kind() {
            SelectionKind::FieldVal => {
                let t = self.type_of(e)?;
                if let Some(p) = self.try_place(e)? {
                    return Ok(self.load(&p, t));
                }
                let base = self.type_of(&s.expr)?;
                let value = self.expr(&s.expr)?;
                self.field_of_value(value, base, sel.indices(), pos)
            }
            SelectionKind::MethodVal => self.method_value(s, &sel, e),
            SelectionKind::MethodExpr => self.method_expression(&sel, e),
        }
    }

    /// Follows a path of fields from a value that is no variable.
    pub(crate) fn field_of_value(
        &mut self,
        mut value: Val,
        base: Ty,
        path: &[usize],
        pos: go_parser::Pos,
    ) -> Compiled<Val> {
        let mut t = base;
        for index in path {
            if let Kind::Pointer(inner) = self.kind(t) {
                self.check_nil(value.v[0]);
                value = self.load_at(inner, value.v[0], 0);
                t = inner;
            }
            let Kind::Struct(fields) = self.kind(t) else {
                return Err(self.error(pos, "this selector is not supported"));
            };
            let field = fields[*index].ty;
            value = if self.c.types.layout(t).components.is_some() {
                let (from, to) = self.field_components(&fields, *index);
                Val { ty: field, v: value.v[from..to].to_vec() }
            } else {
                let at = self.c.types.field_offset(&fields, *index) as i64;
                self.load_at(field, value.v[0], at)
            };
            t = field;
        }
        Ok(value)
    }

    /// An index, as a 64-bit word; a negative one is very large.
    pub(crate) fn index_value(&mut self, e: &Expr) -> Compiled<Value> {
        let v = self.expr(e)?;
        Ok(self.widen(&v))
    }

    /// An integer value as a 64-bit word.
    pub(crate) fn widen(&mut self, v: &Val) -> Value {
        match self.kind(v.ty) {
            Kind::Int { bits: 64, .. } => v.v[0],
            Kind::Int { signed: true, .. } => self.b.ins().sextend(clif::I64, v.v[0]),
            Kind::Float { .. } => self.b.ins().fcvt_to_sint_sat(clif::I64, v.v[0]),
            _ => self.b.ins().uextend(clif::I64, v.v[0]),
        }
    }

    fn index(&mut self, e: &Expr) -> Compiled<Val> {
        let Expr::Index(i) = e else { unreachable!("called for index expressions") };
        let pos = e.pos(&self.c.program.ast);
        let base = self.type_of(&i.expr)?;
        match self.kind(base) {
            Kind::String => {
                let s = self.expr(&i.expr)?;
                let index = self.index_value(&i.index)?;
                let ok = self.b.ins().icmp(IntCC::UnsignedLessThan, index, s.v[1]);
                self.check(ok, Failure::Index, &[index, s.v[1]]);
                let byte = self.c.types.basic.uint8;
                let p = self.unchecked_element(s.v[0], 0, index, byte, true);
                Ok(self.load(&p, byte))
            }
            Kind::Map(..) => Ok(self.map_index(i)?.0),
            _ => {
                let t = self.type_of(e)?;
                if let Some(p) = self.try_place(e)? {
                    return Ok(self.load(&p, t));
                }
                let Kind::Array(n, elem) = self.kind(base) else {
                    return Err(self.error(pos, "an index of this operand is not supported"));
                };
                let array = self.expr(&i.expr)?;
                let index = self.index_value(&i.index)?;
                let n = self.b.int(n as i64);
                let p = self.element_place(array.v[0], 0, n, index, elem, true);
                Ok(self.load(&p, elem))
            }
        }
    }

    fn slice(&mut self, s: &SliceExpr) -> Compiled<Val> {
        let pos = s.expr.pos(&self.c.program.ast);
        let base = self.type_of(&s.expr)?;
        let (pointer, len, cap, elem, out) = match self.kind(base) {
            Kind::String => {
                let v = self.expr(&s.expr)?;
                (v.v[0], v.v[1], v.v[1], None, base)
            }
            Kind::Slice(elem) => {
                let v = self.expr(&s.expr)?;
                (v.v[0], v.v[1], v.v[2], Some(elem), base)
            }
            Kind::Array(n, elem) => {
                let Some(p) = self.try_place(&s.expr)? else {
                    return Err(self.error(pos, "a slice of an array that is not a variable"));
                };
                let at = self.place_address(&p).expect("arrays live in memory");
                let n = self.b.int(n as i64);
                (at, n, n, Some(elem), self.c.types.intern(Kind::Slice(elem)))
            }
            Kind::Pointer(array) => {
                let Kind::Array(n, elem) = self.kind(array) else {
                    return Err(self.error(pos, "this operand cannot be sliced"));
                };
                let p = self.expr(&s.expr)?.v[0];
                self.check_nil(p);
                let n = self.b.int(n as i64);
                (p, n, n, Some(elem), self.c.types.intern(Kind::Slice(elem)))
            }
            _ => return Err(self.error(pos, "this operand cannot be sliced")),
        };
        let bound =
            |g: &mut Self, e: &Option<Expr>| e.as_ref().map(|e| g.index_value(e)).transpose();
        let low = bound(self, &s.low)?;
        let high = bound(self, &s.high)?;
        let max = bound(self, &s.max)?;
        let low = low.unwrap_or_else(|| self.b.int(0));
        let in_order =
            |g: &mut Self, a: Value, b: Value| g.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, a, b);
        let is_string = elem.is_none();
        let new_cap = match max {
            Some(max) => {
                let ok = in_order(self, max, cap);
                self.check(ok, Failure::Slice3Cap, &[max, cap]);
                max
            }
            None => cap,
        };
        let new_len = match high {
            Some(high) => {
                let ok = in_order(self, high, new_cap);
                let failure = match (max.is_some(), is_string, self.kind(base)) {
                    (true, ..) => Failure::Slice3High,
                    (_, true, _) | (_, _, Kind::Array(..) | Kind::Pointer(_)) => Failure::SliceLen,
                    _ => Failure::SliceCap,
                };
                self.check(ok, failure, &[high, new_cap]);
                high
            }
            None => len,
        };
        let ok = in_order(self, low, new_len);
        self.check(
            ok,
            if max.is_some() { Failure::Slice3Low } else { Failure::SliceLow },
            &[low, new_len],
        );
        let length = self.b.ins().isub(new_len, low);
        let size = elem.map_or(1, |e| self.c.types.layout(e).size) as i64;
        let delta = self.b.ins().imul_imm_s(low, size);
        match elem {
            None => {
                let at = self.b.ins().iadd(pointer, delta);
                let at = self.b.reference(at);
                Ok(Val { ty: out, v: vec![at, length] })
            }
            Some(_) => {
                let capacity = self.b.ins().isub(new_cap, low);
                // An empty rest keeps the base: a pointer past the end would refer to another
                // object.
                let some = self.b.ins().icmp_imm_s(IntCC::NotEqual, capacity, 0);
                let zero = self.b.int(0);
                let delta = self.b.ins().select(some, delta, zero);
                let at = self.b.ins().iadd(pointer, delta);
                let at = self.b.reference(at);
                Ok(Val { ty: out, v: vec![at, length, capacity] })
            }
        }
    }

    fn unary(&mut self, u: &UnaryExpr, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        match u.op {
            Token::AND => self.address_of(&u.expr, e),
            Token::ARROW => {
                let (value, _) = self.receive(&u.expr)?;
                Ok(value)
            }
            _ => {
                let t = self.type_of(e)?;
                let v = self.expr_as(&u.expr, t)?;
                let x = v.v.first().copied();
                let r = match (&u.op, self.kind(t), x) {
                    (Token::ADD, _, Some(x)) => x,
                    (Token::SUB, Kind::Float { .. }, Some(x)) => self.b.ins().fneg(x),
                    (Token::SUB, _, Some(x)) => self.b.ins().ineg(x),
                    (Token::XOR, _, Some(x)) => self.b.ins().bnot(x),
                    (Token::NOT, _, Some(x)) => self.b.ins().bxor_imm_s(x, 1),
                    _ => return Err(self.error(pos, "this operator is not supported")),
                };
                Ok(Val { ty: t, v: vec![r] })
            }
        }
    }

    fn address_of(&mut self, operand: &Expr, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let mut inner = operand;
        while let Expr::Paren(p) = inner {
            inner = &p.expr;
        }
        let t = self.type_of(inner)?;
        let out = self.c.types.pointer_to(t);
        if let Expr::CompositeLit(_) = inner {
            let at = self.allocate(t);
            self.composite_at(inner, &Place::Memory { base: at, offset: 0, barrier: true })?;
            return Ok(Val { ty: out, v: vec![at] });
        }
        let p = self.place(inner)?;
        match self.place_address(&p) {
            Some(at) => Ok(Val { ty: out, v: vec![at] }),
            None => Err(self.error(pos, "the address of this operand is not supported")),
        }
    }

    /// A declared function as a value.
    fn function_value(&mut self, obj: ObjKey, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        let Some(id) = self.c.functions.get(&obj).copied() else {
            return Err(self.error(pos, "this function can only be called"));
        };
        let sig = self.c.function_sig(obj, pos)?;
        let thunk = self.c.plain_thunk(id, &sig);
        let at = self.c.emitter.static_closure(thunk);
        Ok(Val { ty: t, v: vec![self.address(at)] })
    }

    /// Bytes or a comparison from a native: 0 or not.
    pub(crate) fn as_bool(&mut self, word: Value) -> Value {
        self.b.ins().icmp_imm_s(IntCC::NotEqual, word, 0)
    }

    /// A value as the two words of an interface.
    pub(crate) fn box_value(&mut self, v: Val, t: Ty, pos: go_parser::Pos) -> Compiled<Val> {
        if matches!(self.kind(v.ty), Kind::Nil) {
            return Ok(self.zero(t));
        }
        self.check_implements(v.ty, t, pos)?;
        let info = self.c.types.info(v.ty);
        let data = if info.direct {
            v.v[0]
        } else if info.size == 0 {
            self.address(natives::zero_size_address())
        } else {
            let at = self.allocate(v.ty);
            self.store_at(v.ty, at, 0, &v, true);
            at
        };
        let word = self.address(std::ptr::from_ref(info) as usize);
        Ok(Val { ty: t, v: vec![word, data] })
    }
}
