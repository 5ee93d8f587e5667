//! The order in which package-level variables are initialised.
//!
//! Go repeatedly takes the earliest variable, in declaration order, that depends on no
//! uninitialised one. References through functions count. (The front end's own order counts
//! dependencies differently.)

use crate::front::Program;
use crate::walk::{Node, children};
use go_parser::ast::{Decl, Expr, Spec};
use go_types::ObjKey;
use std::collections::{HashMap, HashSet};

/// One initialiser: the variables that it sets, and its expression.
pub(crate) struct Initialiser {
    pub(crate) lhs: Vec<ObjKey>,
    /// None: the variable stays zero; but those that refer to it wait for its turn.
    pub(crate) rhs: Option<Expr>,
}

/// The initialisers of the main package, in order.
pub(crate) fn initialisers(program: &Program) -> Vec<Initialiser> {
    let info = program.info();
    let mut waiting: Vec<Initialiser> = vec![];
    let mut bodies: HashMap<ObjKey, HashSet<ObjKey>> = HashMap::new();
    for d in info.ast_files.iter().flat_map(|f| &f.decls) {
        match d {
            Decl::Gen(g) if g.token == go_parser::Token::VAR => {
                for s in &g.specs {
                    let Spec::Value(v) = &program.ast.specs[*s] else { continue };
                    let lhs: Vec<ObjKey> = v
                        .names
                        .iter()
                        .filter_map(|i| info.defs.get(i).copied().flatten())
                        .collect();
                    if v.values.len() == lhs.len() {
                        for (obj, e) in lhs.iter().zip(&v.values) {
                            waiting.push(Initialiser { lhs: vec![*obj], rhs: Some(e.clone()) });
                        }
                    } else if let [e] = &v.values[..] {
                        waiting.push(Initialiser { lhs, rhs: Some(e.clone()) });
                    } else {
                        waiting.extend(
                            lhs.iter().map(|obj| Initialiser { lhs: vec![*obj], rhs: None }),
                        );
                    }
                }
            }
            Decl::Func(f) => {
                let f = &program.ast.fdecls[*f];
                if let (Some(Some(obj)), Some(body)) = (info.defs.get(&f.name), &f.body) {
                    let mut named = HashSet::new();
                    for s in &body.list {
                        mentions(program, Node::Stmt(s), &mut named);
                    }
                    bodies.insert(*obj, named);
                }
            }
            _ => {}
        }
    }
    let needs: Vec<HashSet<ObjKey>> = waiting
        .iter()
        .map(|i| {
            let mut named = HashSet::new();
            if let Some(e) = &i.rhs {
                mentions(program, Node::Expr(e), &mut named);
            }
            let mut seen = HashSet::new();
            let mut list: Vec<ObjKey> = named.into_iter().collect();
            while let Some(obj) = list.pop() {
                if seen.insert(obj) {
                    list.extend(bodies.get(&obj).into_iter().flatten());
                }
            }
            seen
        })
        .collect();
    let mut out = vec![];
    let mut waiting: Vec<(Initialiser, HashSet<ObjKey>)> = waiting.into_iter().zip(needs).collect();
    while !waiting.is_empty() {
        let pending: HashSet<ObjKey> =
            waiting.iter().flat_map(|(i, _)| i.lhs.iter().copied()).collect();
        // The checker has refused cycles; should one be left, the first goes first.
        let next = waiting
            .iter()
            .position(|(i, needs)| needs.iter().all(|n| !pending.contains(n) || i.lhs.contains(n)))
            .unwrap_or(0);
        out.push(waiting.remove(next).0);
    }
    out.retain(|i| i.rhs.is_some());
    out
}

/// The objects that a node names.
fn mentions(program: &Program, n: Node<'_>, out: &mut HashSet<ObjKey>) {
    match n {
        Node::Expr(Expr::Ident(i)) => out.extend(program.info().uses.get(i)),
        Node::Expr(Expr::Selector(s)) => out.extend(program.info().uses.get(&s.sel)),
        _ => {}
    }
    children(n, &program.ast, &mut |c| mentions(program, c, out));
}
