//! Statements.

use super::function::{FuncGen, Target, Val};
use crate::error::Compiled;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::{Block, InstBuilder, TrapCode};
use go_parser::ast::{
    BlockStmt, BranchStmt, CaseClause, Expr, ForStmt, IfStmt, Node, ReturnStmt, Stmt, SwitchStmt,
};
use go_parser::{Pos, Token};
use std::rc::Rc;

/// The clauses of a switch.
pub(crate) fn clauses_of(body: &BlockStmt) -> Vec<Rc<CaseClause>> {
    let clause = |s: &Stmt| match s {
        Stmt::Case(c) => Some(c.clone()),
        _ => None,
    };
    body.list.iter().filter_map(clause).collect()
}

impl FuncGen<'_, '_> {
    pub(crate) fn block(&mut self, list: &[Stmt]) -> Compiled<()> {
        list.iter().try_for_each(|s| self.stmt(s))
    }

    /// The end of the body: a return, unless there are results (then control cannot get here).
    pub(crate) fn leave(&mut self, _end: Pos) -> Compiled<()> {
        if self.sig.results.is_empty() {
            self.emit_return(vec![]);
        } else {
            self.b.ins().trap(TrapCode::unwrap_user(2));
        }
        Ok(())
    }

    pub(crate) fn stmt(&mut self, s: &Stmt) -> Compiled<()> {
        let pos = s.pos(&self.c.program.ast);
        self.at(pos);
        let program = self.c.program;
        let label = match s {
            Stmt::For(_)
            | Stmt::Range(_)
            | Stmt::Switch(_)
            | Stmt::TypeSwitch(_)
            | Stmt::Select(_) => self.pending_label.take(),
            _ => {
                self.pending_label = None;
                None
            }
        };
        match s {
            Stmt::Empty(_) => Ok(()),
            Stmt::Block(b) => self.block(&b.list),
            Stmt::Expr(e) => self.expression_statement(e),
            Stmt::Decl(d) => self.declaration(d),
            Stmt::Assign(a) => self.assignment(&program.ast.a_stmts[*a], pos),
            Stmt::IncDec(i) => {
                let t = self.type_of(&i.expr)?;
                self.hoist(&i.expr)?;
                let place = self.place(&i.expr)?;
                let x = self.load(&place, t);
                let one = match self.kind(t) {
                    Kind::Float { bits: 32 } => self.b.ins().f32const(1.0),
                    Kind::Float { .. } => self.b.ins().f64const(1.0),
                    Kind::Int { bits, .. } => {
                        self.b.ins().iconst(super::constant::int_type(bits), 1)
                    }
                    _ => return Err(self.error(pos, "this operand cannot be counted")),
                };
                let op = if i.token == Token::INC { Token::ADD } else { Token::SUB };
                let r = self.arithmetic(&op, x, Val { ty: t, v: vec![one] }, None, pos)?;
                self.store(&place, &r);
                Ok(())
            }
            Stmt::Send(s) => self.send(&s.chan, &s.val),
            Stmt::Go(g) => match &g.call {
                Expr::Call(c) => self.go_statement(c),
                _ => Err(self.error(pos, "go needs a call")),
            },
            Stmt::Return(r) => self.return_statement(r),
            Stmt::If(i) => self.if_statement(i),
            Stmt::For(f) => self.for_statement(f, label),
            Stmt::Range(r) => self.range_statement(r, label),
            Stmt::Switch(s) => self.switch_statement(s, label),
            Stmt::Branch(b) => self.branch(b),
            Stmt::Labeled(l) => {
                let l = &program.ast.l_stmts[*l];
                let name = program.ast.idents[l.label].name.clone();
                if name == "_" {
                    // Nothing can name it.
                    return self.stmt(&l.stmt);
                }
                let block = self.label_block(&name);
                self.b.ins().jump(block, &[]);
                self.b.switch_to_block(block);
                self.b.poll();
                self.pending_label = Some(name.clone());
                if matches!(
                    l.stmt,
                    Stmt::For(_)
                        | Stmt::Range(_)
                        | Stmt::Switch(_)
                        | Stmt::TypeSwitch(_)
                        | Stmt::Select(_)
                ) {
                    return self.stmt(&l.stmt);
                }
                // `break` out of a labelled block.
                self.pending_label = None;
                let done = self.b.create_block();
                self.targets.push(Target {
                    label: Some(name),
                    break_to: done,
                    continue_to: None,
                    plain: true,
                });
                self.stmt(&l.stmt)?;
                self.targets.pop();
                self.b.ins().jump(done, &[]);
                self.b.switch_to_block(done);
                Ok(())
            }
            Stmt::Defer(d) => match &d.call {
                Expr::Call(c) => self.defer_statement(c),
                _ => Err(self.error(pos, "defer needs a call")),
            },
            Stmt::Select(s) => self.select_statement(s, label),
            Stmt::TypeSwitch(s) => self.type_switch(s, label),
            _ => Err(self.error(pos, "this statement is not supported")),
        }
    }

    fn label_block(&mut self, name: &str) -> Block {
        if let Some(b) = self.labels.get(name) {
            return *b;
        }
        let b = self.b.create_block();
        self.labels.insert(name.to_string(), b);
        b
    }

    fn expression_statement(&mut self, e: &Expr) -> Compiled<()> {
        let mut inner = e;
        while let Expr::Paren(p) = inner {
            inner = &p.expr;
        }
        match inner {
            Expr::Call(c) => self.call(c, inner).map(|_| ()),
            e => self.expr(e).map(|_| ()),
        }
    }

    fn return_statement(&mut self, r: &ReturnStmt) -> Compiled<()> {
        let sig = self.sig.clone();
        if r.results.is_empty()
            && let Some(d) = &self.defers
        {
            // The results are where the way out finds them.
            let exit = d.exit;
            self.b.ins().jump(exit, &[]);
            self.start_dead_block();
            return Ok(());
        }
        let values = if r.results.is_empty() {
            match self.result_vars.clone() {
                Some(vars) => {
                    let mut out = vec![];
                    for (s, t) in vars.iter().zip(&sig.results) {
                        let p = self.storage_place(s);
                        out.push(self.load(&p, *t));
                    }
                    out
                }
                None => vec![],
            }
        } else {
            let types: Vec<Option<Ty>> = sig.results.iter().map(|t| Some(*t)).collect();
            self.values(&r.results, &types)?
        };
        self.emit_return(values);
        self.start_dead_block();
        Ok(())
    }

    fn if_statement(&mut self, i: &IfStmt) -> Compiled<()> {
        if let Some(init) = &i.init {
            self.stmt(init)?;
        }
        let (then, done) = (self.b.create_block(), self.b.create_block());
        let otherwise = if i.els.is_some() { self.b.create_block() } else { done };
        self.condition(&i.cond, then, otherwise)?;
        self.b.switch_to_block(then);
        self.block(&i.body.list)?;
        self.b.ins().jump(done, &[]);
        if let Some(e) = &i.els {
            self.b.switch_to_block(otherwise);
            self.stmt(e)?;
            self.b.ins().jump(done, &[]);
        }
        self.b.switch_to_block(done);
        Ok(())
    }

    /// Jumps to `yes` or `no`; `&&` and `||` branch directly.
    pub(crate) fn condition(&mut self, e: &Expr, yes: Block, no: Block) -> Compiled<()> {
        let is_const =
            self.c.program.info().types.get(&e.id()).is_some_and(|t| t.get_const_val().is_some());
        match e {
            Expr::Paren(p) => return self.condition(&p.expr, yes, no),
            Expr::Binary(b) if !is_const && matches!(b.op, Token::LAND | Token::LOR) => {
                let next = self.b.create_block();
                match b.op {
                    Token::LAND => self.condition(&b.expr_a, next, no)?,
                    _ => self.condition(&b.expr_a, yes, next)?,
                }
                self.b.switch_to_block(next);
                return self.condition(&b.expr_b, yes, no);
            }
            Expr::Unary(u) if !is_const && u.op == Token::NOT => {
                return self.condition(&u.expr, no, yes);
            }
            _ => {}
        }
        self.hoist(e)?;
        let c = self.expr(e)?.v[0];
        self.b.ins().brif(c, yes, &[], no, &[]);
        Ok(())
    }

    fn for_statement(&mut self, f: &ForStmt, label: Option<String>) -> Compiled<()> {
        if let Some(init) = &f.init {
            self.stmt(init)?;
        }
        let [head, body, post, done] = [(); 4].map(|()| self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        self.b.poll();
        match &f.cond {
            Some(c) => self.condition(c, body, done)?,
            None => {
                self.b.ins().jump(body, &[]);
            }
        }
        self.b.switch_to_block(body);
        self.targets.push(Target { label, break_to: done, continue_to: Some(post), plain: false });
        self.block(&f.body.list)?;
        self.targets.pop();
        self.b.ins().jump(post, &[]);
        self.b.switch_to_block(post);
        if let Some(p) = &f.post {
            self.stmt(p)?;
        }
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(done);
        Ok(())
    }

    fn switch_statement(&mut self, s: &SwitchStmt, label: Option<String>) -> Compiled<()> {
        if let Some(init) = &s.init {
            self.stmt(init)?;
        }
        let tag = match &s.tag {
            Some(e) => {
                let t = self.type_of(e)?;
                self.hoist(e)?;
                let v = self.expr(e)?;
                Some((t, self.snapshot(v)))
            }
            None => None,
        };
        let done = self.b.create_block();
        let clauses = clauses_of(&s.body);
        let bodies: Vec<Block> = clauses.iter().map(|_| self.b.create_block()).collect();
        let mut default = done;
        for (clause, body) in clauses.iter().zip(&bodies) {
            let Some(list) = &clause.list else {
                default = *body;
                continue;
            };
            for e in list {
                let next = self.b.create_block();
                match &tag {
                    None => self.condition(e, *body, next)?,
                    Some((t, tag)) => {
                        let own = self.type_of(e)?;
                        // A case may be an interface where the tag is none, or the other way round.
                        let t = if self.c.types.is_interface(own) { own } else { *t };
                        let pos = e.pos(&self.c.program.ast);
                        let x = self.assignable(tag.clone(), t, pos)?;
                        let y = self.expr_as(e, t)?;
                        let same = self.equal(t, &x, &y);
                        self.b.ins().brif(same, *body, &[], next, &[]);
                    }
                }
                self.b.switch_to_block(next);
            }
        }
        self.b.ins().jump(default, &[]);
        self.targets.push(Target { label, break_to: done, continue_to: None, plain: false });
        for (i, clause) in clauses.iter().enumerate() {
            self.b.switch_to_block(bodies[i]);
            let falls = match clause.body.last() {
                Some(Stmt::Branch(b)) => b.token == Token::FALLTHROUGH,
                _ => false,
            };
            let list = if falls { &clause.body[..clause.body.len() - 1] } else { &clause.body[..] };
            self.block(list)?;
            let to = if falls { bodies.get(i + 1).copied().unwrap_or(done) } else { done };
            self.b.ins().jump(to, &[]);
        }
        self.targets.pop();
        self.b.switch_to_block(done);
        Ok(())
    }

    fn branch(&mut self, b: &BranchStmt) -> Compiled<()> {
        let label = b.label.map(|i| self.c.program.ast.idents[i].name.clone());
        let to = match (&b.token, &label) {
            (Token::GOTO, Some(l)) => Some(self.label_block(l)),
            (Token::BREAK, None) => {
                self.targets.iter().rev().find(|t| !t.plain).map(|t| t.break_to)
            }
            (Token::BREAK, Some(l)) => {
                self.targets.iter().rev().find(|t| t.label.as_ref() == Some(l)).map(|t| t.break_to)
            }
            (Token::CONTINUE, None) => self.targets.iter().rev().find_map(|t| t.continue_to),
            (Token::CONTINUE, Some(l)) => self
                .targets
                .iter()
                .rev()
                .find(|t| t.label.as_ref() == Some(l))
                .and_then(|t| t.continue_to),
            _ => None,
        };
        match to {
            Some(block) => {
                self.b.ins().jump(block, &[]);
                self.start_dead_block();
                Ok(())
            }
            None => Err(self.error(b.token_pos, "this jump is not supported")),
        }
    }
}
