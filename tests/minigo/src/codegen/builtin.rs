//! The predeclared functions.

use super::function::{FuncGen, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::runtime::natives::{self, Failure};
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types as clif};
use go_parser::ast::{CallExpr, Expr, Node};
use go_types::Builtin;
use stackmark_cranelift::REF;

impl FuncGen<'_, '_> {
    pub(crate) fn builtin(&mut self, b: Builtin, c: &CallExpr, e: &Expr) -> Compiled<Vec<Val>> {
        let pos = e.pos(&self.c.program.ast);
        let int = self.c.types.basic.int;
        Ok(match b {
            Builtin::Len | Builtin::Cap => {
                let n = self.length(&c.args[0], b == Builtin::Cap)?;
                vec![Val { ty: int, v: vec![n] }]
            }
            Builtin::Append => vec![self.append(c, e)?],
            Builtin::Copy => {
                let (to, from) = self.copy_operands(c)?;
                vec![self.copy(&to, &from)]
            }
            Builtin::Make => vec![self.make(c, e)?],
            Builtin::New => {
                let t = self.type_of(e)?;
                let Kind::Pointer(inner) = self.kind(t) else {
                    return Err(self.error(pos, "new of this type"));
                };
                let at = self.allocate(inner);
                vec![Val { ty: t, v: vec![at] }]
            }
            Builtin::Close => {
                let ch = self.expr(&c.args[0])?;
                self.b.native(natives::channel_close, &[ch.v[0]]);
                vec![]
            }
            Builtin::Panic => {
                let any = self.c.types.basic.any;
                let v = self.expr_as(&c.args[0], any)?;
                self.emit_panic(v.v[0], v.v[1]);
                vec![]
            }
            Builtin::Print | Builtin::Println => {
                let values = self.print_operands(c)?;
                self.emit_print(values, b == Builtin::Println, c.l_paren)?;
                vec![]
            }
            Builtin::Delete => {
                let (map, key) = self.delete_operands(c)?;
                self.map_delete(&map, &key);
                vec![]
            }
            Builtin::Recover => vec![self.recover()],
            Builtin::Complex | Builtin::Real | Builtin::Imag => {
                return Err(self.error(pos, "complex numbers are not supported"));
            }
            _ => return Err(self.error(pos, "this builtin is not supported")),
        })
    }

    fn length(&mut self, e: &Expr, cap: bool) -> Compiled<Value> {
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        Ok(match self.kind(t) {
            Kind::String => self.expr(e)?.v[1],
            Kind::Slice(_) => self.expr(e)?.v[if cap { 2 } else { 1 }],
            Kind::Array(n, _) => {
                if self.try_place(e)?.is_none() {
                    self.expr(e)?;
                }
                self.b.int(n as i64)
            }
            Kind::Pointer(inner) => {
                let Kind::Array(n, _) = self.kind(inner) else {
                    return Err(self.error(pos, "the length of this operand is not supported"));
                };
                self.expr(e)?;
                self.b.int(n as i64)
            }
            Kind::Map(..) => {
                let m = self.expr(e)?.v[0];
                self.map_length(m)
            }
            Kind::Chan(..) => {
                let ch = self.expr(e)?.v[0];
                let which = self.b.int(i64::from(cap));
                self.b.native(natives::channel_length, &[ch, which])
            }
            _ => return Err(self.error(pos, "the length of this operand is not supported")),
        })
    }

    fn append(&mut self, c: &CallExpr, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        let Kind::Slice(elem) = self.kind(t) else {
            return Err(self.error(pos, "append to this type"));
        };
        let operands = self.builtin_operands(c)?;
        let s = self.builtin_operand(&operands[0], t)?;
        let info = self.type_info(elem);
        if c.ellipsis.is_some() {
            let from = self.type_of(&c.args[1])?;
            let more = if matches!(self.kind(from), Kind::Nil) {
                self.zero(t)
            } else {
                self.expr(&c.args[1])?
            };
            let args = [info, s.v[0], s.v[1], s.v[2], more.v[0], more.v[1]];
            self.b.native(natives::append_slice, &args);
            return Ok(self.slice_result(t));
        }
        let mut values = vec![];
        for a in &operands[1..] {
            let v = self.builtin_operand(a, elem)?;
            values.push(if operands.len() > 2 { self.snapshot(v) } else { v });
        }
        if values.is_empty() {
            return Ok(s);
        }
        // Room for all of them first, then one store after the other.
        let (pointer, cap) = (self.b.variable(REF), self.b.declare_var(clif::I64));
        self.b.def_var(pointer, s.v[0]);
        self.b.def_var(cap, s.v[2]);
        let needed = self.b.ins().iadd_imm_s(s.v[1], values.len() as i64);
        let fits = self.b.ins().icmp(IntCC::SignedLessThanOrEqual, needed, s.v[2]);
        let (grow, store) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(fits, store, &[], grow, &[]);
        self.b.switch_to_block(grow);
        self.b.native(natives::grow_slice, &[info, s.v[0], s.v[1], s.v[2], needed]);
        let new = self.result_ref(0);
        let new_cap = self.b.result_word(2, clif::I64);
        self.b.def_var(pointer, new);
        self.b.def_var(cap, new_cap);
        self.b.ins().jump(store, &[]);
        self.b.switch_to_block(store);
        let at = self.b.use_var(pointer);
        let first = self.unchecked_element(at, 0, s.v[1], elem, true);
        let size = self.c.types.layout(elem).size as i64;
        for (i, v) in values.iter().enumerate() {
            let Place::Memory { base, offset, barrier } = first.clone() else {
                unreachable!("an element is in memory")
            };
            self.store(&Place::Memory { base, offset: offset + size * i as i64, barrier }, v);
        }
        let cap = self.b.use_var(cap);
        let at = self.b.use_var(pointer);
        Ok(Val { ty: t, v: vec![at, needed, cap] })
    }

    /// The operands of a predeclared function: expressions, with their calls made, or the results
    /// of the one call that gives them all.
    fn builtin_operands<'e>(&mut self, c: &'e CallExpr) -> Compiled<Vec<Result<Val, &'e Expr>>> {
        match &c.args[..] {
            [Expr::Call(inner)] if self.is_tuple(&c.args[0]) => {
                Ok(self.call(inner, &c.args[0])?.into_iter().map(Ok).collect())
            }
            args => {
                args.iter().try_for_each(|a| self.hoist(a))?;
                Ok(args.iter().map(Err).collect())
            }
        }
    }

    fn builtin_operand(&mut self, operand: &Result<Val, &Expr>, t: Ty) -> Compiled<Val> {
        match operand {
            Ok(v) => self.assignable(v.clone(), t, 0),
            Err(e) => self.expr_as(e, t),
        }
    }

    fn operand_type(&mut self, operand: &Result<Val, &Expr>) -> Compiled<Ty> {
        match operand {
            Ok(v) => Ok(v.ty),
            Err(e) => self.type_of(e),
        }
    }

    pub(super) fn copy_operands(&mut self, c: &CallExpr) -> Compiled<(Val, Val)> {
        let operands = self.builtin_operands(c)?;
        let [to, from] = &operands[..] else {
            return Err(self.error(c.l_paren, "copy needs two operands"));
        };
        let (to_type, from_type) = (self.operand_type(to)?, self.operand_type(from)?);
        Ok((self.builtin_operand(to, to_type)?, self.builtin_operand(from, from_type)?))
    }

    pub(super) fn copy(&mut self, to: &Val, from: &Val) -> Val {
        let Kind::Slice(elem) = self.kind(to.ty) else { unreachable!("copies go to slices") };
        let info = self.type_info(elem);
        let n = self.b.native(natives::copy_slice, &[info, to.v[0], to.v[1], from.v[0], from.v[1]]);
        Val { ty: self.c.types.basic.int, v: vec![n] }
    }

    pub(super) fn delete_operands(&mut self, c: &CallExpr) -> Compiled<(Val, Val)> {
        let operands = self.builtin_operands(c)?;
        let [map, key] = &operands[..] else {
            return Err(self.error(c.l_paren, "delete needs two operands"));
        };
        let t = self.operand_type(map)?;
        let Kind::Map(key_type, _) = self.kind(t) else {
            return Err(self.error(c.l_paren, "delete from this operand is not supported"));
        };
        Ok((self.builtin_operand(map, t)?, self.builtin_operand(key, key_type)?))
    }

    fn make(&mut self, c: &CallExpr, e: &Expr) -> Compiled<Val> {
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        match self.kind(t) {
            Kind::Slice(elem) => {
                let len = self.index_value(&c.args[1])?;
                let cap = match c.args.get(2) {
                    Some(e) => self.index_value(e)?,
                    None => len,
                };
                let size = self.c.types.layout(elem).size.max(1) as i64;
                let limit = (1i64 << 47) / size;
                self.check_size(len, limit, Failure::MakeLen);
                if c.args.len() > 2 {
                    self.check_size(cap, limit, Failure::MakeCap);
                    let ok = self.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, len, cap);
                    self.check(ok, Failure::MakeCap, &[]);
                }
                let info = self.c.types.info(elem);
                let at = self.allocate_counted(info, cap);
                Ok(Val { ty: t, v: vec![at, len, cap] })
            }
            Kind::Chan(_, elem) => {
                let cap = match c.args.get(1) {
                    Some(e) => self.index_value(e)?,
                    None => self.b.int(0),
                };
                self.check_size(cap, 1 << 40, Failure::MakeChan);
                let elem = self.channel_element(elem);
                let info = self.type_info(elem);
                let at = self.b.native(natives::channel_make, &[info, cap]);
                let at = self.b.reference(at);
                Ok(Val { ty: t, v: vec![at] })
            }
            Kind::Map(..) => {
                let hint = match c.args.get(1) {
                    Some(e) => self.index_value(e)?,
                    None => self.b.int(0),
                };
                Ok(self.map_make(t, hint))
            }
            _ => Err(self.error(pos, "make of this type is not supported")),
        }
    }

    /// What a channel's buffer holds: the element, or a pointer to a copy of it if it is large.
    pub(crate) fn channel_element(&mut self, elem: Ty) -> Ty {
        match self.c.types.layout(elem).components.is_some() {
            true => elem,
            false => self.c.types.pointer_to(elem),
        }
    }

    /// `ch <- v`: the element travels in the result words, in its memory layout.
    pub(crate) fn send(&mut self, channel: &Expr, value: &Expr) -> Compiled<()> {
        let t = self.type_of(channel)?;
        let Kind::Chan(_, elem) = self.kind(t) else {
            return Err(self.error(channel.pos(&self.c.program.ast), "a send to this operand"));
        };
        self.hoist(channel)?;
        self.hoist(value)?;
        let ch = self.expr(channel)?.v[0];
        let v = self.expr_as(value, elem)?;
        let v = self.snapshot(v);
        let element = self.channel_element(elem);
        let v = Val { ty: element, v: v.v };
        let g = self.b.goroutine();
        // Word 0 is the channel's; the elements follow.
        let at = self.b.ins().iadd_imm_s(g, natives::ELEMENT_OFFSET as i64);
        self.store_at(element, at, 0, &v, false);
        let closed = self.b.native(natives::channel_send, &[ch]);
        let ok = self.b.ins().icmp_imm_s(IntCC::Equal, closed, 0);
        self.check(ok, Failure::SendClosed, &[]);
        Ok(())
    }

    /// `<-ch`: the value, and whether the channel was open.
    pub(crate) fn receive(&mut self, channel: &Expr) -> Compiled<(Val, Value)> {
        let t = self.type_of(channel)?;
        let Kind::Chan(_, elem) = self.kind(t) else {
            return Err(self.error(channel.pos(&self.c.program.ast), "a receive from this operand"));
        };
        let ch = self.expr(channel)?.v[0];
        self.receive_value(ch, elem)
    }

    pub(crate) fn receive_value(&mut self, ch: Value, elem: Ty) -> Compiled<(Val, Value)> {
        let element = self.channel_element(elem);
        let status = self.b.declare_var(clif::I64);
        let s = self.b.native(natives::channel_receive, &[ch]);
        self.b.def_var(status, s);
        // A goroutine that was parked finds the element in its own words, which the collector
        // scans.
        let parked =
            self.b.ins().icmp_imm_s(IntCC::UnsignedGreaterThanOrEqual, s, natives::PARKED as i64);
        let (fetch, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(parked, fetch, &[], done, &[]);
        self.b.switch_to_block(fetch);
        let s = self.b.native(natives::channel_fetch, &[s]);
        self.b.def_var(status, s);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
        let open = self.b.use_var(status);
        let g = self.b.goroutine();
        let v = self.load_at(element, g, natives::ELEMENT_OFFSET as i64);
        let ok = self.as_bool(open);
        Ok((self.received_value(v, elem, element), ok))
    }

    /// The value of type `elem` that came as `element`.
    pub(crate) fn received_value(&mut self, v: Val, elem: Ty, element: Ty) -> Val {
        if element == elem {
            return v;
        }
        // A closed channel gives no copy: the zero value stands in for it.
        let zero = self.zero(elem);
        let is_nil = self.b.ins().icmp_imm_s(IntCC::Equal, v.v[0], 0);
        let at = self.b.ins().select(is_nil, zero.v[0], v.v[0]);
        let at = self.b.reference(at);
        Val { ty: elem, v: vec![at] }
    }

    pub(crate) fn print_operands(&mut self, c: &CallExpr) -> Compiled<Vec<Val>> {
        match &c.args[..] {
            [Expr::Call(inner)] if self.is_tuple(&c.args[0]) => self.call(inner, &c.args[0]),
            args => {
                args.iter().try_for_each(|a| self.hoist(a))?;
                args.iter().map(|a| self.expr(a)).collect()
            }
        }
    }

    pub(crate) fn emit_print(
        &mut self,
        values: Vec<Val>,
        line: bool,
        at: go_parser::Pos,
    ) -> Compiled<()> {
        for (i, v) in values.into_iter().enumerate() {
            if line && i > 0 {
                self.print_one(natives::Print::Space, &[]);
            }
            use natives::Print;
            match self.kind(v.ty) {
                Kind::Bool => {
                    let w = self.widen(&v);
                    self.print_one(Print::Bool, &[w]);
                }
                Kind::Int { signed, .. } => {
                    let w = self.widen(&v);
                    self.print_one(if signed { Print::Int } else { Print::Uint }, &[w]);
                }
                Kind::Float { bits } => {
                    let f =
                        if bits == 32 { self.b.ins().fpromote(clif::F64, v.v[0]) } else { v.v[0] };
                    let w = self.b.ins().bitcast(clif::I64, MemFlagsData::new(), f);
                    self.print_one(Print::Float, &[w]);
                }
                Kind::String => self.print_one(Print::String, &v.v),
                Kind::Slice(_) => self.print_one(Print::Slice, &v.v),
                Kind::Interface(_) => self.print_one(Print::Interface, &v.v),
                _ if v.v.len() == 1 => self.print_one(Print::Pointer, &v.v),
                _ => {
                    return Err(self.error(at, "print of this type is not supported"));
                }
            }
        }
        if line {
            self.print_one(natives::Print::Newline, &[]);
        }
        Ok(())
    }

    fn print_one(&mut self, what: natives::Print, words: &[Value]) {
        let which = self.b.int(what as i64);
        let mut args = vec![which];
        args.extend_from_slice(words);
        self.b.native(natives::print, &args);
    }
}
