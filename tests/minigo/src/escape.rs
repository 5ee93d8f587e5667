//! Where each local variable lives: in SSA values, in a stack slot of its frame, or in the heap.
//!
//! A variable lives in the heap if a function literal captures it or its address is taken. The
//! exception are variables of memory types (arrays, large structs). These may stay in the frame
//! while only local variables hold pointers to them or slices of them, and those are only indexed,
//! dereferenced, measured and ranged over.

use crate::front::Program;
use crate::types::{Kind, Types};
use crate::walk::{Node, children};
use go_parser::IdentKey;
use go_parser::Token;
use go_parser::ast::{Expr, Stmt};
use go_types::{ObjKey, SelectionKind};
use std::collections::{HashMap, HashSet};

/// What is known of the local variables of one top-level function, with the literals in it.
#[derive(Default)]
pub(crate) struct Escapes {
    heap: HashSet<ObjKey>,
    depth: HashMap<ObjKey, u32>,
}

impl Escapes {
    /// The variable lives in an object of its own in the heap.
    pub(crate) fn in_heap(&self, obj: ObjKey) -> bool {
        self.heap.contains(&obj)
    }
}

struct Analysis<'p> {
    program: &'p Program,
    types: &'p mut Types,
    out: Escapes,
    depth: u32,
    addressed: HashSet<ObjKey>,
    /// pointer or slice variable -> the variable it refers to.
    views: HashMap<ObjKey, ObjKey>,
    /// Variables that are used as plain values.
    leaked: HashSet<ObjKey>,
    captured: HashSet<ObjKey>,
    /// How often each variable is given a value.
    assigned: HashMap<ObjKey, u32>,
    /// Variables that their declaration gives a value.
    defined: HashSet<ObjKey>,
}

/// Analyses a top-level function's body.
pub(crate) fn analyse(
    program: &Program,
    types: &mut Types,
    params: &[ObjKey],
    body: &[Stmt],
) -> Escapes {
    let mut a = Analysis {
        program,
        types,
        out: Escapes::default(),
        depth: 0,
        addressed: HashSet::new(),
        views: HashMap::new(),
        leaked: HashSet::new(),
        captured: HashSet::new(),
        assigned: params.iter().map(|p| (*p, 1)).collect(),
        defined: params.iter().copied().collect(),
    };
    for s in body {
        a.node(Node::Stmt(s));
    }
    let counts = a.assigned.clone();
    let assigned = |v: &ObjKey| counts.get(v).copied().unwrap_or(0);
    a.out.heap.extend(a.addressed.iter().copied());
    for v in a.captured.clone() {
        // A variable that never changes after its definition is captured by value.
        if !a.defined.contains(&v) || assigned(&v) != 1 || a.is_memory(v) {
            a.out.heap.insert(v);
        }
    }
    for (view, target) in &a.views {
        if a.leaked.contains(view)
            || a.captured.contains(view)
            || a.assigned.get(view).copied().unwrap_or(0) > 1
        {
            a.out.heap.insert(*target);
        }
    }
    a.out
}

impl<'p> Analysis<'p> {
    fn object(&self, i: IdentKey) -> Option<ObjKey> {
        let info = self.program.info();
        info.uses.get(&i).copied().or_else(|| info.defs.get(&i).copied().flatten())
    }

    fn local(&self, i: IdentKey) -> Option<ObjKey> {
        let obj = self.object(i)?;
        let o = &self.program.tc.lobjs[obj];
        let package_scope = *self.program.tc.pkgs[self.program.main].scope();
        (o.entity_type().is_var() && !o.var_is_field() && o.parent() != Some(package_scope))
            .then_some(obj)
    }

    fn kind_of(&mut self, e: &Expr) -> Option<Kind> {
        let t = self.program.info().types.get(&go_parser::ast::Node::id(e))?.typ;
        let t = self.types.of(t, &self.program.tc);
        Some(self.types.kind(t).clone())
    }

    /// The variable that `e` denotes a part of, without a pointer or slice in between.
    fn root(&mut self, e: &Expr) -> Option<ObjKey> {
        match e {
            Expr::Ident(i) => self.local(*i),
            Expr::Paren(p) => self.root(&p.expr),
            Expr::Index(i) => match self.kind_of(&i.expr)? {
                Kind::Array(..) => self.root(&i.expr),
                _ => None,
            },
            Expr::Selector(s) => {
                let sel = self.program.info().selections.get(&s.id())?;
                if *sel.indirect() || !matches!(sel.kind(), SelectionKind::FieldVal) {
                    return None;
                }
                match self.kind_of(&s.expr)? {
                    Kind::Struct(_) => self.root(&s.expr),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    /// `&x`, `x[:]`, or a call of a pointer method on `x`: where the address goes is not followed.
    fn take_address(&mut self, e: &Expr) {
        if let Some(v) = self.root(e) {
            self.addressed.insert(v);
        }
        self.value_parts(e);
    }

    /// Visits what is evaluated inside an operand, but not its root variable: that is not used as a
    /// value.
    fn value_parts(&mut self, e: &Expr) {
        match e {
            Expr::Ident(i) => self.mention(*i),
            Expr::Paren(p) => self.value_parts(&p.expr),
            Expr::Index(i) => {
                self.value_parts(&i.expr);
                self.node(Node::Expr(&i.index));
            }
            Expr::Selector(s) if self.program.info().selections.contains_key(&s.id()) => {
                self.value_parts(&s.expr)
            }
            Expr::Star(s) => self.value_parts(&s.expr),
            _ => self.node(Node::Expr(e)),
        }
    }

    /// A variable is named in a place that does not make its value escape.
    fn mention(&mut self, i: IdentKey) {
        if let Some(v) = self.local(i) {
            match self.out.depth.get(&v) {
                Some(d) if *d < self.depth => {
                    self.captured.insert(v);
                }
                Some(_) => {}
                // Parameters and results have no defining statement. They belong to the outermost
                // function that names them first. (A literal's own parameters are declared.)
                None => {
                    self.out.depth.insert(v, 0);
                    if self.depth > 0 {
                        self.captured.insert(v);
                    }
                }
            }
        }
    }

    fn declare(&mut self, i: IdentKey) {
        if let Some(Some(v)) = self.program.info().defs.get(&i) {
            self.out.depth.insert(*v, self.depth);
        }
    }

    /// The declaration of the variable gives it a value.
    fn define(&mut self, i: IdentKey) {
        if let Some(Some(v)) = self.program.info().defs.get(&i) {
            self.defined.insert(*v);
            self.assign(&Expr::Ident(i));
        }
    }

    /// The local array variable that `e` makes a view of: `&arr`, `arr[:]`, `arr[i:j]`.
    fn view_target(&mut self, e: &Expr) -> Option<ObjKey> {
        match e {
            Expr::Paren(p) => self.view_target(&p.expr),
            Expr::Unary(u) if u.op == Token::AND => {
                let v = self.root(&u.expr)?;
                self.is_memory(v).then_some(v)
            }
            Expr::Slice(s) => match self.kind_of(&s.expr)? {
                Kind::Array(..) => {
                    let v = self.root(&s.expr)?;
                    self.is_memory(v).then_some(v)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn is_memory(&mut self, v: ObjKey) -> bool {
        let Some(t) = self.program.tc.lobjs[v].typ() else { return false };
        let t = self.types.of(t, &self.program.tc);
        self.types.layout(t).components.is_none()
    }

    fn assign(&mut self, lhs: &Expr) {
        // A part of a variable counts too.
        if let Some(v) = self.root(lhs) {
            *self.assigned.entry(v).or_default() += 1;
        }
    }

    fn node(&mut self, n: Node<'_>) {
        match n {
            Node::Expr(e) => self.expr(e),
            Node::Stmt(s) => self.stmt(s),
        }
    }

    fn each_child(&mut self, n: Node<'_>) {
        let program = self.program;
        children(n, &program.ast, &mut |c| self.node(c));
    }

    fn expr(&mut self, e: &Expr) {
        match e {
            Expr::Ident(i) => {
                self.mention(*i);
                if let Some(v) = self.local(*i) {
                    self.leaked.insert(v);
                }
            }
            Expr::FuncLit(l) => {
                self.depth += 1;
                let typ = &self.program.ast.ftypes[l.typ];
                for f in &typ.params.list {
                    for i in &self.program.ast.fields[*f].names {
                        self.declare(*i);
                        self.define(*i);
                    }
                }
                for f in typ.results.iter().flat_map(|r| &r.list) {
                    for i in &self.program.ast.fields[*f].names {
                        self.declare(*i);
                    }
                }
                for s in &l.body.list {
                    self.stmt(s);
                }
                self.depth -= 1;
            }
            Expr::Unary(u) if u.op == Token::AND => self.take_address(&u.expr),
            Expr::Slice(s) => {
                match self.kind_of(&s.expr) {
                    Some(Kind::Array(..)) => self.take_address(&s.expr),
                    // A slice of a slice variable is a new view that is not followed.
                    _ => self.node(Node::Expr(&s.expr)),
                }
                for x in [&s.low, &s.high, &s.max].into_iter().flatten() {
                    self.node(Node::Expr(x));
                }
            }
            Expr::Index(i) => {
                self.value_parts(&i.expr);
                self.node(Node::Expr(&i.index));
            }
            Expr::Star(s) => self.value_parts(&s.expr),
            Expr::Selector(s) => match self.program.info().selections.get(&s.id()) {
                Some(sel) if matches!(sel.kind(), SelectionKind::MethodVal) => {
                    let sel = sel.clone();
                    self.receiver(s, sel.obj());
                }
                Some(_) => self.value_parts(&s.expr),
                None => self.each_child(Node::Expr(e)),
            },
            Expr::Call(c) => {
                let builtin = match &c.func {
                    Expr::Ident(i) => self.program.ast.idents[*i].name.clone(),
                    _ => String::new(),
                };
                let is_builtin = match &c.func {
                    Expr::Ident(i) => self
                        .object(*i)
                        .is_some_and(|o| self.program.tc.lobjs[o].entity_type().is_builtin()),
                    _ => false,
                };
                if is_builtin && (builtin == "len" || builtin == "cap") {
                    c.args.iter().for_each(|a| self.value_parts(a));
                } else {
                    self.each_child(Node::Expr(e));
                }
            }
            Expr::KeyValue(k) => {
                // A key may be a field's name.
                if !matches!(k.key, Expr::Ident(i) if self.local(i).is_none()) {
                    self.node(Node::Expr(&k.key));
                }
                self.node(Node::Expr(&k.val));
            }
            _ => self.each_child(Node::Expr(e)),
        }
    }

    /// `x.m`: a pointer method called on a variable takes its address.
    fn receiver(&mut self, s: &go_parser::ast::SelectorExpr, method: ObjKey) {
        let tc = &self.program.tc;
        let pointer_method = tc.lobjs[method]
            .typ()
            .and_then(|t| tc.types[t].try_as_signature())
            .and_then(|sig| *sig.recv())
            .and_then(|r| tc.lobjs[r].typ())
            .is_some_and(|t| tc.types[t].try_as_pointer().is_some());
        match self.kind_of(&s.expr) {
            Some(Kind::Pointer(_)) => self.node(Node::Expr(&s.expr)),
            _ if pointer_method => self.take_address(&s.expr),
            _ => self.value_parts(&s.expr),
        }
    }

    fn stmt(&mut self, s: &Stmt) {
        let program = self.program;
        match s {
            Stmt::Assign(a) => {
                let a = &program.ast.a_stmts[*a];
                for l in &a.lhs {
                    match l {
                        Expr::Ident(i) => {
                            if a.token == Token::DEFINE {
                                self.declare(*i);
                            }
                            self.mention(*i);
                            match program.info().defs.get(i) {
                                Some(Some(_)) if a.token == Token::DEFINE => self.define(*i),
                                _ => self.assign(l),
                            }
                        }
                        _ => {
                            self.value_parts(l);
                            self.assign(l);
                        }
                    }
                }
                for (i, r) in a.rhs.iter().enumerate() {
                    let view = match (
                        a.token == Token::DEFINE && a.lhs.len() == a.rhs.len(),
                        a.lhs.get(i),
                    ) {
                        (true, Some(Expr::Ident(id))) => {
                            program.info().defs.get(id).copied().flatten().zip(self.view_target(r))
                        }
                        _ => None,
                    };
                    match view {
                        Some((v, target)) => {
                            self.views.insert(v, target);
                            self.view_parts(r);
                        }
                        None => self.node(Node::Expr(r)),
                    }
                }
            }
            Stmt::Decl(d) => {
                if let go_parser::ast::Decl::Gen(g) = &**d {
                    for spec in &g.specs {
                        if let go_parser::ast::Spec::Value(v) = &program.ast.specs[*spec] {
                            for i in &v.names {
                                self.declare(*i);
                            }
                            if !v.values.is_empty() {
                                for i in &v.names {
                                    self.define(*i);
                                }
                            }
                        }
                    }
                }
                self.each_child(Node::Stmt(s));
            }
            Stmt::IncDec(i) => {
                self.value_parts(&i.expr);
                self.assign(&i.expr);
            }
            Stmt::Range(r) => {
                for e in [&r.key, &r.val].into_iter().flatten() {
                    match e {
                        Expr::Ident(i) => {
                            if r.token == Token::DEFINE {
                                self.declare(*i);
                            }
                            self.mention(*i);
                            self.assign(e);
                        }
                        _ => self.value_parts(e),
                    }
                }
                self.value_parts(&r.expr);
                for s in &r.body.list {
                    self.stmt(s);
                }
            }
            _ => self.each_child(Node::Stmt(s)),
        }
    }

    /// The index expressions of a view, without counting the view itself as an escape.
    fn view_parts(&mut self, e: &Expr) {
        match e {
            Expr::Paren(p) => self.view_parts(&p.expr),
            Expr::Unary(u) => self.value_parts(&u.expr),
            Expr::Slice(s) => {
                self.value_parts(&s.expr);
                for x in [&s.low, &s.high, &s.max].into_iter().flatten() {
                    self.node(Node::Expr(x));
                }
            }
            _ => self.node(Node::Expr(e)),
        }
    }
}
