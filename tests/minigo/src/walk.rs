//! One step down the syntax tree: the children of a node, in source order.

use go_parser::AstObjects;
use go_parser::ast::{Decl, Expr, Spec, Stmt};

/// An expression or a statement.
#[derive(Clone, Copy)]
pub(crate) enum Node<'a> {
    Expr(&'a Expr),
    Stmt(&'a Stmt),
}

/// Calls `f` for each child of `node`. Types are not visited, function literals' bodies are.
pub(crate) fn children<'a>(node: Node<'a>, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    match node {
        Node::Expr(e) => expr_children(e, f),
        Node::Stmt(s) => stmt_children(s, ast, f),
    }
}

fn expr_children<'a>(e: &'a Expr, f: &mut dyn FnMut(Node<'a>)) {
    let mut x = |e: &'a Expr| f(Node::Expr(e));
    match e {
        Expr::FuncLit(l) => l.body.list.iter().for_each(|s| f(Node::Stmt(s))),
        Expr::CompositeLit(c) => c.elts.iter().for_each(x),
        Expr::Paren(p) => x(&p.expr),
        Expr::Selector(s) => x(&s.expr),
        Expr::Index(i) => {
            x(&i.expr);
            x(&i.index);
        }
        Expr::Slice(s) => {
            x(&s.expr);
            [&s.low, &s.high, &s.max].into_iter().flatten().for_each(x);
        }
        Expr::TypeAssert(t) => x(&t.expr),
        Expr::Call(c) => {
            x(&c.func);
            c.args.iter().for_each(x);
        }
        Expr::Star(s) => x(&s.expr),
        Expr::Unary(u) => x(&u.expr),
        Expr::Binary(b) => {
            x(&b.expr_a);
            x(&b.expr_b);
        }
        Expr::KeyValue(k) => {
            x(&k.key);
            x(&k.val);
        }
        _ => {}
    }
}

fn stmt_children<'a>(s: &'a Stmt, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    match s {
        Stmt::Decl(d) => {
            if let Decl::Gen(g) = &**d {
                for spec in &g.specs {
                    if let Spec::Value(v) = &ast.specs[*spec] {
                        v.values.iter().for_each(|e| f(Node::Expr(e)));
                    }
                }
            }
        }
        Stmt::Labeled(l) => f(Node::Stmt(&ast.l_stmts[*l].stmt)),
        Stmt::Expr(e) => f(Node::Expr(e)),
        Stmt::Send(s) => {
            f(Node::Expr(&s.chan));
            f(Node::Expr(&s.val));
        }
        Stmt::IncDec(s) => f(Node::Expr(&s.expr)),
        Stmt::Assign(a) => {
            let a = &ast.a_stmts[*a];
            a.lhs.iter().chain(&a.rhs).for_each(|e| f(Node::Expr(e)));
        }
        Stmt::Go(g) => f(Node::Expr(&g.call)),
        Stmt::Defer(d) => f(Node::Expr(&d.call)),
        Stmt::Return(r) => r.results.iter().for_each(|e| f(Node::Expr(e))),
        Stmt::Block(b) => b.list.iter().for_each(|s| f(Node::Stmt(s))),
        Stmt::If(i) => {
            i.init.iter().for_each(|s| f(Node::Stmt(s)));
            f(Node::Expr(&i.cond));
            i.body.list.iter().for_each(|s| f(Node::Stmt(s)));
            i.els.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::Case(c) => {
            c.list.iter().flatten().for_each(|e| f(Node::Expr(e)));
            c.body.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::Switch(s) => {
            s.init.iter().for_each(|s| f(Node::Stmt(s)));
            s.tag.iter().for_each(|e| f(Node::Expr(e)));
            s.body.list.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::TypeSwitch(s) => {
            s.init.iter().for_each(|s| f(Node::Stmt(s)));
            f(Node::Stmt(&s.assign));
            s.body.list.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::Comm(c) => {
            c.comm.iter().for_each(|s| f(Node::Stmt(s)));
            c.body.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::Select(s) => s.body.list.iter().for_each(|s| f(Node::Stmt(s))),
        Stmt::For(s) => {
            s.init.iter().for_each(|s| f(Node::Stmt(s)));
            s.cond.iter().for_each(|e| f(Node::Expr(e)));
            s.post.iter().for_each(|s| f(Node::Stmt(s)));
            s.body.list.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::Range(r) => {
            [&r.key, &r.val].into_iter().flatten().for_each(|e| f(Node::Expr(e)));
            f(Node::Expr(&r.expr));
            r.body.list.iter().for_each(|s| f(Node::Stmt(s)));
        }
        Stmt::Bad(_) | Stmt::Empty(_) | Stmt::Branch(_) => {}
    }
}
