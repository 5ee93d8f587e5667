//! Calls first: the order in which Go's compiler evaluates the operands of a statement.
//!
//! The language leaves open whether a variable is read before or after a call in the same
//! statement. Go's compiler makes the calls (and receives, and conditions that contain some) in
//! their order first and reads variables afterwards; so do we.

use super::function::FuncGen;
use crate::error::Compiled;
use crate::types::Kind;
use crate::walk::{Node as Walk, children};
use go_parser::Token;
use go_parser::ast::{CallExpr, Expr, Node};
use go_types::{Builtin, OperandMode};

impl FuncGen<'_, '_> {
    /// Evaluates the calls in `e`; their results wait until the expression itself is evaluated.
    pub(crate) fn hoist(&mut self, e: &Expr) -> Compiled<()> {
        let id = e.id();
        let mode = match self.c.program.info().types.get(&id) {
            Some(tv) if tv.get_const_val().is_some() => return Ok(()),
            Some(tv) => Some(tv.mode.clone()),
            None => None,
        };
        if self.hoisted.contains_key(&id)
            || matches!(mode, Some(OperandMode::TypeExpr))
            || !self.has_call(e)
        {
            return Ok(());
        }
        match e {
            Expr::Call(c) => {
                match self.c.program.info().types.get(&c.func.id()).map(|tv| tv.mode.clone()) {
                    Some(OperandMode::TypeExpr) => return self.hoist(&c.args[0]),
                    Some(OperandMode::Builtin(Builtin::Len | Builtin::Cap)) => {
                        return self.hoist(&c.args[0]);
                    }
                    _ => {}
                }
                if self.is_tuple(e) {
                    return Ok(());
                }
                let v = self.expr(e)?;
                self.hoisted.insert(id, v);
                Ok(())
            }
            Expr::Unary(u) if u.op == Token::ARROW => {
                // The comma-ok form is evaluated as a whole.
                if self.is_tuple(e) {
                    return self.hoist(&u.expr);
                }
                let v = self.expr(e)?;
                self.hoisted.insert(id, v);
                Ok(())
            }
            Expr::Binary(b) if matches!(b.op, Token::LAND | Token::LOR) => {
                let v = self.expr(e)?;
                self.hoisted.insert(id, v);
                Ok(())
            }
            // Its entries are stored one by one.
            Expr::CompositeLit(_) if self.is_map(e)? => {
                let v = self.expr(e)?;
                self.hoisted.insert(id, v);
                Ok(())
            }
            Expr::FuncLit(_) | Expr::Ident(_) | Expr::BasicLit(_) => Ok(()),
            Expr::KeyValue(kv) => self.hoist(&kv.val),
            _ => {
                let program = self.c.program;
                let mut list = vec![];
                children(Walk::Expr(e), &program.ast, &mut |c| {
                    if let Walk::Expr(c) = c {
                        list.push(c.clone());
                    }
                });
                list.iter().try_for_each(|c| self.hoist(c))
            }
        }
    }

    /// Whether a call expression calls something: it is no conversion and no length.
    pub(super) fn is_call(&self, c: &CallExpr) -> bool {
        let mode = self.c.program.info().types.get(&c.func.id()).map(|tv| &tv.mode);
        !matches!(
            mode,
            Some(OperandMode::TypeExpr | OperandMode::Builtin(Builtin::Len | Builtin::Cap))
        )
    }

    fn is_map(&mut self, e: &Expr) -> Compiled<bool> {
        let t = self.type_of(e)?;
        Ok(matches!(self.kind(t), Kind::Map(..)))
    }

    /// Whether evaluating `e` calls something or receives.
    pub(crate) fn has_call(&self, e: &Expr) -> bool {
        match e {
            Expr::FuncLit(_) => false,
            Expr::Call(c) => self.is_call(c) || c.args.iter().any(|a| self.has_call(a)),
            Expr::Unary(u) if u.op == Token::ARROW => true,
            _ => {
                let mut found = false;
                children(Walk::Expr(e), &self.c.program.ast, &mut |c| {
                    if let Walk::Expr(c) = c {
                        found |= self.has_call(c);
                    }
                });
                found
            }
        }
    }

    /// The calls in the operand that a call names: the receiver of a method.
    pub(crate) fn hoist_callee(&mut self, f: &Expr) -> Compiled<()> {
        match f {
            Expr::Paren(p) => self.hoist_callee(&p.expr),
            Expr::Selector(s) if self.c.program.info().selections.contains_key(&s.id()) => {
                self.hoist(&s.expr)
            }
            Expr::Ident(_) | Expr::Selector(_) => Ok(()),
            f => self.hoist(f),
        }
    }
}
