//! One step down the syntax tree: the children of a node, in source order.

use go_parser::ast::{Decl, Expr, FieldList, File, Spec, Stmt};
use go_parser::{AstObjects, FuncTypeKey};

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

/// Calls `f` for each expression and statement of a file, types with all that is in them too, each
/// before its children.
pub(crate) fn everything<'a>(file: &'a File, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    file.decls.iter().for_each(|d| everything_in(d, ast, f));
}

fn everything_in<'a>(d: &'a Decl, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    match d {
        Decl::Gen(g) => {
            for s in &g.specs {
                match &ast.specs[*s] {
                    Spec::Value(v) => {
                        v.typ.iter().chain(&v.values).for_each(|e| below(Node::Expr(e), ast, f));
                    }
                    Spec::Type(t) => below(Node::Expr(&t.typ), ast, f),
                    Spec::Import(_) => {}
                }
            }
        }
        Decl::Func(key) => {
            let decl = &ast.fdecls[*key];
            decl.recv.iter().for_each(|fields| field_types(fields, ast, f));
            signature(decl.typ, ast, f);
            let body = decl.body.iter().flat_map(|b| &b.list);
            body.for_each(|s| below(Node::Stmt(s), ast, f));
        }
        Decl::Bad(_) => {}
    }
}

fn below<'a>(node: Node<'a>, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    f(node);
    let mut types: Vec<&'a Expr> = vec![];
    match node {
        Node::Stmt(Stmt::Decl(d)) => return everything_in(d, ast, f),
        Node::Expr(Expr::FuncLit(l)) => signature(l.typ, ast, f),
        Node::Expr(Expr::Func(t)) => signature(*t, ast, f),
        Node::Expr(Expr::Struct(t)) => field_types(&t.fields, ast, f),
        Node::Expr(Expr::Interface(t)) => field_types(&t.methods, ast, f),
        Node::Expr(Expr::CompositeLit(l)) => types.extend(&l.typ),
        Node::Expr(Expr::TypeAssert(a)) => types.extend(&a.typ),
        Node::Expr(Expr::Ellipsis(e)) => types.extend(&e.elt),
        Node::Expr(Expr::Array(t)) => {
            types.extend(&t.len);
            types.push(&t.elt);
        }
        Node::Expr(Expr::Map(t)) => types.extend([&t.key, &t.val]),
        Node::Expr(Expr::Chan(t)) => types.push(&t.val),
        _ => {}
    }
    types.into_iter().for_each(|t| below(Node::Expr(t), ast, f));
    children(node, ast, &mut |c| below(c, ast, f));
}

fn signature<'a>(t: FuncTypeKey, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    let t = &ast.ftypes[t];
    [&t.params].into_iter().chain(&t.results).for_each(|fields| field_types(fields, ast, f));
}

fn field_types<'a>(fields: &'a FieldList, ast: &'a AstObjects, f: &mut dyn FnMut(Node<'a>)) {
    for field in &fields.list {
        below(Node::Expr(&ast.fields[*field].typ), ast, f);
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
