//! `select`.

use super::function::{FuncGen, Target, Val};
use crate::error::Compiled;
use crate::runtime::natives::{self, CASE_ELEMENT, CASE_WORDS, ELEMENT_OFFSET, Failure, SELECTED};
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value, types as clif};
use go_parser::Token;
use go_parser::ast::{CommClause, Expr, Node, SelectStmt, Stmt};
use stackmark_cranelift::REF;
use std::rc::Rc;

/// A case with evaluated operands.
struct Case {
    channel: Val,
    elem: Ty,
    /// What is sent; None: it receives.
    value: Option<Val>,
    clause: Rc<CommClause>,
}

impl FuncGen<'_, '_> {
    pub(crate) fn select_statement(
        &mut self,
        s: &SelectStmt,
        label: Option<String>,
    ) -> Compiled<()> {
        let (mut cases, mut default) = (vec![], None);
        for clause in &s.body.list {
            let Stmt::Comm(clause) = clause else { continue };
            match &clause.comm {
                None => default = Some(clause.clone()),
                Some(comm) => cases.push(self.case(comm, clause)?),
            }
        }
        let size = 8 * CASE_WORDS as u32;
        let bytes = size * cases.len().max(1) as u32;
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            bytes,
            3,
        ));
        for (i, case) in cases.iter().enumerate() {
            let at = self.b.ins().stack_addr(clif::I64, slot, (size * i as u32) as i32);
            let receives = self.b.int(i64::from(case.value.is_none()));
            self.b.store_unreported(REF, case.channel.v[0], at, 0);
            self.b.store_plain(receives, at, 8);
            if let Some(v) = &case.value {
                let element = self.channel_element(case.elem);
                let v = Val { ty: element, v: v.v.clone() };
                self.store_at(element, at, 8 * CASE_ELEMENT as i64, &v, false);
            }
        }
        let count = self.b.int(cases.len() as i64);
        let block = self.b.ins().stack_addr(clif::I64, slot, 0);
        let has_default = self.b.int(i64::from(default.is_some()));
        let result = self.b.declare_var(clif::I64);
        let r = self.b.native(natives::select, &[block, count, has_default]);
        self.b.def_var(result, r);
        let waited = self.b.ins().icmp_imm_s(IntCC::UnsignedGreaterThanOrEqual, r, SELECTED as i64);
        let [woken, chosen, done] = [(); 3].map(|()| self.b.create_block());
        self.b.ins().brif(waited, woken, &[], chosen, &[]);
        self.b.switch_to_block(woken);
        let block = self.b.ins().stack_addr(clif::I64, slot, 0);
        let r = self.b.native(natives::select_woken, &[block, count, r]);
        self.b.def_var(result, r);
        self.b.ins().jump(chosen, &[]);
        self.b.switch_to_block(chosen);
        // The channels are roots up to here; the element is in the result words until the next
        // call.
        let channels: Vec<Val> = cases.iter().map(|c| c.channel.clone()).collect();
        self.keep_alive(&channels);
        let r = self.b.use_var(result);
        let which = self.b.ins().ushr_imm_u(r, 1);
        let open = self.b.ins().band_imm_s(r, 1);
        self.targets.push(Target { label, break_to: done, continue_to: None, plain: false });
        for (i, case) in cases.iter().enumerate() {
            let (this, next) = (self.b.create_block(), self.b.create_block());
            let is = self.b.ins().icmp_imm_s(IntCC::Equal, which, i as i64);
            self.b.ins().brif(is, this, &[], next, &[]);
            self.b.switch_to_block(this);
            self.chosen(case, open)?;
            self.block(&case.clause.body)?;
            self.b.ins().jump(done, &[]);
            self.b.switch_to_block(next);
        }
        if let Some(clause) = default {
            self.block(&clause.body)?;
        }
        self.b.ins().jump(done, &[]);
        self.targets.pop();
        self.b.switch_to_block(done);
        Ok(())
    }

    fn case(&mut self, comm: &Stmt, clause: &Rc<CommClause>) -> Compiled<Case> {
        let pos = comm.pos(&self.c.program.ast);
        let (channel, value) = match comm {
            Stmt::Send(s) => (s.chan.clone(), Some(s.val.clone())),
            _ => match self.received(comm) {
                Some(channel) => (channel, None),
                None => {
                    return Err(self.error(pos, "this case of a select statement is not supported"));
                }
            },
        };
        let t = self.type_of(&channel)?;
        let Kind::Chan(_, elem) = self.kind(t) else {
            return Err(self.error(pos, "this operand is no channel"));
        };
        self.hoist(&channel)?;
        let channel = self.expr(&channel)?;
        let value = match value {
            Some(e) => {
                self.hoist(&e)?;
                let v = self.expr_as(&e, elem)?;
                Some(self.snapshot(v))
            }
            None => None,
        };
        Ok(Case { channel, elem, value, clause: clause.clone() })
    }

    /// The channel from which a case receives.
    fn received(&self, comm: &Stmt) -> Option<Expr> {
        let mut e = match comm {
            Stmt::Expr(e) => (**e).clone(),
            Stmt::Assign(a) => self.c.program.ast.a_stmts[*a].rhs.first()?.clone(),
            _ => return None,
        };
        while let Expr::Paren(p) = &e {
            e = p.expr.clone();
        }
        match &e {
            Expr::Unary(u) if u.op == Token::ARROW => Some(u.expr.clone()),
            _ => None,
        }
    }

    /// The start of the case that was done.
    fn chosen(&mut self, case: &Case, open: Value) -> Compiled<()> {
        if case.value.is_some() {
            self.check(open, Failure::SendClosed, &[]);
            return Ok(());
        }
        let element = self.channel_element(case.elem);
        let g = self.b.goroutine();
        let v = self.load_at(element, g, ELEMENT_OFFSET as i64);
        let v = self.received_value(v, case.elem, element);
        let ok = Val { ty: self.c.types.basic.bool, v: vec![self.as_bool(open)] };
        let Some(Stmt::Assign(a)) = &case.clause.comm else { return Ok(()) };
        let a = &self.c.program.ast.a_stmts[*a];
        let mut pairs = vec![];
        for (l, v) in a.lhs.iter().zip([v, ok]) {
            match l {
                Expr::Ident(i) if self.c.program.ast.idents[*i].name == "_" => {}
                Expr::Ident(i) if a.token == Token::DEFINE && self.c.definition(*i).is_some() => {
                    let obj = self.c.definition(*i).expect("just looked up");
                    self.declare_variable(obj, Some(v))?;
                }
                l => pairs.push((l, v)),
            }
        }
        pairs.iter().try_for_each(|(l, _)| self.hoist(l))?;
        let (mut targets, mut values) = (vec![], vec![]);
        for (l, v) in pairs {
            let t = self.type_of(l)?;
            values.push(self.assignable(v, t, l.pos(&self.c.program.ast))?);
            targets.push(self.target(l)?);
        }
        self.store_all(targets, values);
        Ok(())
    }
}
