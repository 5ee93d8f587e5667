//! Which calls may come back to a function that is already on the stack.
//!
//! A recursion that has ended returns through all its frames. Between two returns there is no loop
//! and no prologue, so nothing polls: collections and other goroutines would wait for all of them.
//! So the caller polls behind a call that may be a part of a recursion. The calls that are no part
//! of one form no circle: a chain of returns without a poll is no longer than the program.

use crate::front::Program;
use crate::walk::{Node, children};
use go_parser::ast::{Decl, Expr, Node as _, Spec, Stmt};
use go_types::{ObjKey, OperandMode, SelectionKind};
use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};
use stackmark_cranelift::FuncId;
use std::collections::HashMap;

/// A function of the program with the literals in it, the initialisers of all variables together,
/// or all calls of which the callee is not known.
type Place = NodeIndex;

/// The calls between the functions of a program.
#[derive(Default)]
pub(crate) struct Recursion {
    functions: HashMap<FuncId, Place>,
    initialisers: Place,
    unknown: Place,
    /// The number of each place's component: places that reach each other have the same.
    component: Vec<usize>,
}

struct Graph<'p> {
    program: &'p Program,
    functions: HashMap<ObjKey, Place>,
    unknown: Place,
    calls: DiGraph<(), ()>,
}

impl Recursion {
    /// `declared`: the functions that the program declares.
    pub(crate) fn new(program: &Program, declared: &HashMap<ObjKey, FuncId>) -> Recursion {
        let info = program.info();
        let mut calls = DiGraph::new();
        let (initialisers, unknown) = (calls.add_node(()), calls.add_node(()));
        let mut graph = Graph { program, functions: HashMap::new(), unknown, calls };
        let declarations = || info.ast_files.iter().flat_map(|file| &file.decls);
        for decl in declarations() {
            let Decl::Func(key) = decl else { continue };
            let decl = &program.ast.fdecls[*key];
            let Some(Some(function)) = info.defs.get(&decl.name) else { continue };
            if !declared.contains_key(function) {
                continue;
            }
            let place = graph.calls.add_node(());
            graph.functions.insert(*function, place);
            if decl.recv.is_some() {
                // An interface may have the method.
                graph.calls.update_edge(unknown, place, ());
            }
        }
        for decl in declarations() {
            match decl {
                Decl::Func(key) => {
                    let decl = &program.ast.fdecls[*key];
                    let function = info.defs.get(&decl.name).copied().flatten();
                    let place = function.and_then(|function| graph.functions.get(&function));
                    let Some(place) = place.copied() else { continue };
                    for statement in decl.body.iter().flat_map(|body| &body.list) {
                        graph.node(place, Node::Stmt(statement));
                    }
                }
                Decl::Gen(decl) => {
                    for spec in &decl.specs {
                        let Spec::Value(value) = &program.ast.specs[*spec] else { continue };
                        for value in &value.values {
                            graph.node(initialisers, Node::Expr(value));
                        }
                    }
                }
                Decl::Bad(_) => {}
            }
        }
        let mut component = vec![0; graph.calls.node_count()];
        for (number, places) in tarjan_scc(&graph.calls).into_iter().enumerate() {
            places.into_iter().for_each(|place| component[place.index()] = number);
        }
        let functions =
            graph.functions.iter().map(|(function, place)| (declared[function], *place));
        Recursion { functions: functions.collect(), initialisers, unknown, component }
    }

    /// Whether a call in `caller`, or in a literal in it, may be a part of a recursion. No caller
    /// is the initialisers; no callee is one that is not known.
    pub(crate) fn may_recur(&self, caller: Option<FuncId>, callee: Option<FuncId>) -> bool {
        let component = |function: Option<FuncId>, or| {
            self.component[function.map_or(or, |function| self.functions[&function]).index()]
        };
        component(caller, self.initialisers) == component(callee, self.unknown)
    }
}

impl Graph<'_> {
    fn calls(&mut self, caller: Place, callee: Place) {
        self.calls.update_edge(caller, callee, ());
    }

    fn node(&mut self, at: Place, node: Node<'_>) {
        let program = self.program;
        match node {
            // The way out of the function calls it as one that is not known.
            Node::Stmt(Stmt::Defer(deferred)) => {
                self.calls(at, self.unknown);
                return self.node(self.unknown, Node::Expr(&deferred.call));
            }
            Node::Expr(Expr::Call(call)) => {
                self.callee(at, &call.func);
                call.args.iter().for_each(|argument| self.node(at, Node::Expr(argument)));
                return;
            }
            // Called from the place that has it as a value.
            Node::Expr(Expr::FuncLit(_)) => self.calls(self.unknown, at),
            Node::Expr(Expr::Ident(ident)) => {
                let object = program.info().uses.get(ident);
                if let Some(place) = object.and_then(|object| self.functions.get(object)) {
                    self.calls(self.unknown, *place);
                }
            }
            _ => {}
        }
        children(node, &program.ast, &mut |child| self.node(at, child));
    }

    /// What a call at `at` calls.
    fn callee(&mut self, at: Place, callee: &Expr) {
        let info = self.program.info();
        let mode = info.types.get(&callee.id()).map(|typed| &typed.mode);
        if matches!(mode, Some(OperandMode::TypeExpr | OperandMode::Builtin(_))) {
            return;
        }
        let known = match callee {
            Expr::Paren(inner) => return self.callee(at, &inner.expr),
            Expr::Ident(ident) => info.uses.get(ident).copied(),
            Expr::Selector(selector) => {
                // The operand may call something, too.
                self.node(at, Node::Expr(&selector.expr));
                let selection = info.selections.get(&selector.id());
                selection
                    .filter(|selection| matches!(selection.kind(), SelectionKind::MethodVal))
                    .map(|selection| selection.obj())
            }
            _ => {
                self.node(at, Node::Expr(callee));
                None
            }
        };
        let known = known.and_then(|object| self.functions.get(&object).copied());
        self.calls(at, known.unwrap_or(self.unknown));
    }
}
