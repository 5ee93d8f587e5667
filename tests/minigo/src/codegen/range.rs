//! `for … range`.

use super::function::{FuncGen, Target, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use go_parser::Token;
use go_parser::ast::{Expr, Node, RangeStmt};

/// Where the key or the value of a round goes.
enum Sink<'s> {
    None,
    /// A variable that the statement declares.
    Declared(Place, Ty),
    Assigned(&'s Expr),
}

impl FuncGen<'_, '_> {
    pub(crate) fn range_statement(&mut self, r: &RangeStmt, label: Option<String>) -> Compiled<()> {
        let pos = r.expr.pos(&self.c.program.ast);
        let t = self.type_of(&r.expr)?;
        let wants_value = matches!(&r.val, Some(e) if !self.is_blank(e));
        let int = self.c.types.basic.int;
        match self.kind(t) {
            Kind::Slice(elem) => {
                self.hoist(&r.expr)?;
                let s = self.expr(&r.expr)?;
                self.range_elements(r, label, s.v[0], s.v[1], elem)
            }
            Kind::Array(n, elem) => {
                // Without a value only the length counts: the operand is evaluated for its calls.
                let evaluated = wants_value || self.has_call(&r.expr);
                let base = if evaluated {
                    self.hoist(&r.expr)?;
                    let v = self.expr(&r.expr)?;
                    self.snapshot(v).v[0]
                } else {
                    self.b.int(0)
                };
                let n = self.b.int(n as i64);
                self.range_elements(r, label, base, n, elem)
            }
            Kind::Pointer(array) => {
                let Kind::Array(n, elem) = self.kind(array) else {
                    return Err(self.error(pos, "range over this operand is not supported"));
                };
                let p = if wants_value || self.has_call(&r.expr) {
                    self.hoist(&r.expr)?;
                    self.expr(&r.expr)?.v[0]
                } else {
                    self.b.int(0)
                };
                if wants_value && n > 0 {
                    self.check_nil(p);
                }
                let n = self.b.int(n as i64);
                self.range_elements(r, label, p, n, elem)
            }
            Kind::String => self.range_string(r, label),
            Kind::Chan(_, elem) => self.range_channel(r, label, elem),
            Kind::Map(..) => {
                let define = r.token == Token::DEFINE;
                let (key, val) = (self.sink(&r.key, define)?, self.sink(&r.val, define)?);
                let [head, inside, done] = [(); 3].map(|()| self.b.create_block());
                let body = |g: &mut Self, k, v| {
                    g.put([(&key, k), (&val, v)])?;
                    g.targets.push(Target {
                        label,
                        break_to: done,
                        continue_to: Some(head),
                        plain: false,
                    });
                    g.block(&r.body.list)?;
                    g.targets.pop();
                    Ok(())
                };
                self.range_map(r, t, body, [head, inside, done])
            }
            Kind::Int { .. } => Err(self.error(
                pos,
                format!("range over an integer ({}) is not Go 1.19", self.c.types.name(int)),
            )),
            _ => Err(self.error(pos, "range over this operand is not supported")),
        }
    }

    fn is_blank(&self, e: &Expr) -> bool {
        matches!(e, Expr::Ident(i) if self.c.program.ast.idents[*i].name == "_")
    }

    fn sink<'s>(&mut self, e: &'s Option<Expr>, define: bool) -> Compiled<Sink<'s>> {
        let Some(e) = e else { return Ok(Sink::None) };
        if self.is_blank(e) {
            return Ok(Sink::None);
        }
        match e {
            Expr::Ident(i) if define => match self.c.definition(*i) {
                // One variable for all rounds, as Go 1.19 has it.
                Some(obj) => {
                    let t = self.c.object_type(obj, e.pos(&self.c.program.ast))?;
                    let storage = self.declare_variable(obj, None)?;
                    Ok(Sink::Declared(self.storage_place(&storage), t))
                }
                None => Ok(Sink::Assigned(e)),
            },
            e => Ok(Sink::Assigned(e)),
        }
    }

    /// Stores the key and the value of a round, as an assignment of both does.
    fn put<const N: usize>(&mut self, all: [(&Sink<'_>, Val); N]) -> Compiled<()> {
        for (sink, _) in &all {
            if let Sink::Assigned(e) = sink {
                self.hoist(e)?;
            }
        }
        let (mut targets, mut values) = (vec![], vec![]);
        for (sink, value) in all {
            let (target, t, pos) = match sink {
                Sink::None => continue,
                Sink::Declared(place, t) => (place.clone().into(), *t, 0),
                Sink::Assigned(e) => {
                    (self.target(e)?, self.type_of(e)?, e.pos(&self.c.program.ast))
                }
            };
            values.push(self.assignable(value, t, pos)?);
            targets.push(target);
        }
        self.store_all(targets, values);
        Ok(())
    }

    fn range_elements(
        &mut self,
        r: &RangeStmt,
        label: Option<String>,
        base: Value,
        len: Value,
        elem: Ty,
    ) -> Compiled<()> {
        let define = r.token == Token::DEFINE;
        let int = self.c.types.basic.int;
        let (key, val) = (self.sink(&r.key, define)?, self.sink(&r.val, define)?);
        let at = self.b.declare_var(clif::I64);
        let zero = self.b.int(0);
        self.b.def_var(at, zero);
        let [head, body, post, done] = [(); 4].map(|()| self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        self.b.poll();
        let i = self.b.use_var(at);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, i, len);
        self.b.ins().brif(more, body, &[], done, &[]);
        self.b.switch_to_block(body);
        let index = Val { ty: int, v: vec![i] };
        match val {
            Sink::None => self.put([(&key, index)])?,
            _ => {
                let p = self.unchecked_element(base, 0, i, elem, true);
                let v = self.load(&p, elem);
                let v = if matches!(key, Sink::Assigned(_)) { self.snapshot(v) } else { v };
                self.put([(&key, index), (&val, v)])?;
            }
        }
        self.targets.push(Target { label, break_to: done, continue_to: Some(post), plain: false });
        self.block(&r.body.list)?;
        self.targets.pop();
        self.b.ins().jump(post, &[]);
        self.b.switch_to_block(post);
        let i = self.b.use_var(at);
        let next = self.b.ins().iadd_imm_s(i, 1);
        self.b.def_var(at, next);
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(done);
        Ok(())
    }

    fn range_string(&mut self, r: &RangeStmt, label: Option<String>) -> Compiled<()> {
        let define = r.token == Token::DEFINE;
        let (int, rune) = (self.c.types.basic.int, self.c.types.basic.int32);
        self.hoist(&r.expr)?;
        let s = self.expr(&r.expr)?;
        let (key, val) = (self.sink(&r.key, define)?, self.sink(&r.val, define)?);
        let (at, next) = (self.b.declare_var(clif::I64), self.b.declare_var(clif::I64));
        let zero = self.b.int(0);
        self.b.def_var(at, zero);
        self.b.def_var(next, zero);
        let [head, body, wide, narrow, ready, post, done] = [(); 7].map(|()| self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        self.b.poll();
        let i = self.b.use_var(at);
        let more = self.b.ins().icmp(IntCC::SignedLessThan, i, s.v[1]);
        self.b.ins().brif(more, body, &[], done, &[]);
        self.b.switch_to_block(body);
        let decoded = self.b.declare_var(clif::I32);
        let p = self.b.ins().iadd(s.v[0], i);
        let byte = self.b.load_plain(clif::I8, p, 0);
        let code = self.b.ins().uextend(clif::I32, byte);
        let ascii = self.b.ins().icmp_imm_s(IntCC::UnsignedLessThan, code, 0x80);
        self.b.ins().brif(ascii, narrow, &[], wide, &[]);
        self.b.switch_to_block(narrow);
        self.b.def_var(decoded, code);
        let one = self.b.ins().iadd_imm_s(i, 1);
        self.b.def_var(next, one);
        self.b.ins().jump(ready, &[]);
        self.b.switch_to_block(wide);
        let after = self.b.native(natives::decode_rune, &[s.v[0], s.v[1], i]);
        let code = self.b.result_word(0, clif::I32);
        self.b.def_var(decoded, code);
        self.b.def_var(next, after);
        self.b.ins().jump(ready, &[]);
        self.b.switch_to_block(ready);
        let code = self.b.use_var(decoded);
        let (index, code) = (Val { ty: int, v: vec![i] }, Val { ty: rune, v: vec![code] });
        self.put([(&key, index), (&val, code)])?;
        self.targets.push(Target { label, break_to: done, continue_to: Some(post), plain: false });
        self.block(&r.body.list)?;
        self.targets.pop();
        self.b.ins().jump(post, &[]);
        self.b.switch_to_block(post);
        let n = self.b.use_var(next);
        self.b.def_var(at, n);
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(done);
        Ok(())
    }

    fn range_channel(&mut self, r: &RangeStmt, label: Option<String>, elem: Ty) -> Compiled<()> {
        self.hoist(&r.expr)?;
        let ch = self.expr(&r.expr)?.v[0];
        let key = self.sink(&r.key, r.token == Token::DEFINE)?;
        let [head, body, done] = [(); 3].map(|()| self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        self.b.poll();
        let (v, open) = self.receive_value(ch, elem)?;
        self.b.ins().brif(open, body, &[], done, &[]);
        self.b.switch_to_block(body);
        self.put([(&key, v)])?;
        self.targets.push(Target { label, break_to: done, continue_to: Some(head), plain: false });
        self.block(&r.body.list)?;
        self.targets.pop();
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(done);
        Ok(())
    }
}
