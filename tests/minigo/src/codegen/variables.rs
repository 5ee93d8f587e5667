//! Local variables: in SSA values, in stack slots, or in boxes in the heap.

use super::abi;
use super::function::{FuncGen, Storage, Val};
use crate::error::Compiled;
use crate::front::Program;
use crate::types::Ty;
use crate::walk::{Node, children};
use cranelift_frontend::Variable;
use go_parser::ast::{BlockStmt, Decl, Expr, Spec, Stmt};
use go_parser::{Pos, Token};
use go_types::ObjKey;
use stackmark_cranelift::REF;
use std::rc::Rc;

/// Bytes of one variable, and of all variables with references of one function, that may live in
/// stack slots; what is beyond lives in the heap. As in Go a large local variable takes stack: a
/// recursion of such functions ends at the stack's limit. Each word that holds a reference is in
/// the stack map of each call, which bounds the second.
const MAX_SLOT_BYTES: u64 = 10 << 20;
const MAX_REFERENCE_BYTES: u64 = 128 << 10;

/// The variables that `list` declares, without those in function literals.
fn declared_variables(program: &Program, list: &[Stmt], out: &mut Vec<(ObjKey, Pos)>) {
    fn ident(program: &Program, e: &Expr, out: &mut Vec<(ObjKey, Pos)>) {
        if let Expr::Ident(i) = e
            && let Some(Some(obj)) = program.info().defs.get(i)
        {
            out.push((*obj, program.ast.idents[*i].pos));
        }
    }
    fn go(program: &Program, n: Node<'_>, out: &mut Vec<(ObjKey, Pos)>) {
        match n {
            Node::Expr(_) => return,
            Node::Stmt(Stmt::Assign(a)) => {
                let a = &program.ast.a_stmts[*a];
                if a.token == Token::DEFINE {
                    a.lhs.iter().for_each(|e| ident(program, e, out));
                }
            }
            Node::Stmt(Stmt::Range(r)) if r.token == Token::DEFINE => {
                [&r.key, &r.val].into_iter().flatten().for_each(|e| ident(program, e, out));
            }
            Node::Stmt(Stmt::Decl(d)) => {
                if let Decl::Gen(g) = &**d {
                    for s in &g.specs {
                        if let Spec::Value(v) = &program.ast.specs[*s] {
                            v.names.iter().for_each(|i| ident(program, &Expr::Ident(*i), out));
                        }
                    }
                }
            }
            _ => {}
        }
        children(n, &program.ast, &mut |c| go(program, c, out));
    }
    for s in list {
        go(program, Node::Stmt(s), out);
    }
}

impl FuncGen<'_, '_> {
    /// Makes the stack slots of the variables that stay in this frame and zeroes those that hold
    /// references.
    pub(super) fn slots_for<'o>(
        &mut self,
        own: impl Iterator<Item = &'o ObjKey>,
        body: &BlockStmt,
    ) -> Compiled<()> {
        let mut found: Vec<(ObjKey, Pos)> =
            own.map(|o| (*o, self.c.program.tc.lobjs[*o].pos())).collect();
        declared_variables(self.c.program, &body.list, &mut found);
        let mut used = 0;
        for (obj, pos) in found {
            if self.escapes.in_heap(obj) {
                continue;
            }
            let t = self.c.object_type(obj, pos)?;
            let layout = self.c.types.layout(t);
            let (limit, before) =
                if layout.has_refs() { (MAX_REFERENCE_BYTES, used) } else { (MAX_SLOT_BYTES, 0) };
            if layout.components.is_some() || before + layout.size > limit {
                continue;
            }
            if layout.has_refs() {
                used += layout.size.next_multiple_of(8);
            }
            self.make_slot(obj, layout.size as u32, &layout.words);
        }
        Ok(())
    }

    fn make_slot(&mut self, obj: ObjKey, size: u32, words: &Rc<[bool]>) {
        let slot = self.b.slot(size, words);
        let (_, address) = slot.expect("words within the variable's size");
        self.slots.insert(obj, address);
    }

    pub(super) fn parameters(
        &mut self,
        params: &[Option<ObjKey>],
        captures: Option<&[ObjKey]>,
    ) -> Compiled<()> {
        let mut values = self.b.all_params().to_vec().into_iter();
        if let Some(captures) = captures {
            let context = values.next().expect("a literal's first parameter");
            self.captured_variables(context, captures)?;
        }
        let sig = self.sig.clone();
        // All references first: allocating a box for one parameter must not lose another.
        let mut incoming = vec![];
        for t in &sig.params {
            let parts = abi::parts(&mut self.c.types, *t).len();
            incoming.push(Val { ty: *t, v: values.by_ref().take(parts).collect() });
        }
        for (obj, val) in params.iter().zip(incoming) {
            if let Some(obj) = obj {
                self.declare_variable(*obj, Some(val))?;
            }
        }
        Ok(())
    }

    pub(super) fn result_variables(&mut self, results: &[Option<ObjKey>]) -> Compiled<()> {
        if results.iter().all(|r| r.is_none()) {
            return Ok(());
        }
        let sig = self.sig.clone();
        let mut vars = vec![];
        for (obj, t) in results.iter().zip(&sig.results) {
            let storage = match obj {
                Some(obj) => self.declare_variable(*obj, None)?,
                None => self.anonymous(*t),
            };
            vars.push(storage);
        }
        self.result_vars = Some(vars);
        Ok(())
    }

    /// A hidden variable of type `t`, zero to begin with.
    pub(crate) fn anonymous(&mut self, t: Ty) -> Storage {
        let zero = self.zero(t);
        match self.c.types.layout(t).components.is_some() {
            true => {
                let vars = self.component_vars(t);
                self.define_vars(&vars, &zero);
                Storage::Vars(vars)
            }
            false => {
                let at = self.allocate(t);
                let var = self.b.variable(REF);
                self.b.def_var(var, at);
                Storage::Boxed(var)
            }
        }
    }

    /// Declares a local variable and gives it a value, or zero.
    pub(crate) fn declare_variable(
        &mut self,
        obj: ObjKey,
        value: Option<Val>,
    ) -> Compiled<Storage> {
        let pos = self.c.program.tc.lobjs[obj].pos();
        let t = self.c.object_type(obj, pos)?;
        let flat = self.c.types.layout(t).components.is_some();
        let storage = if let Some(at) = self.slots.get(&obj) {
            let at = *at;
            match value {
                Some(v) => self.copy_memory(t, at, v.v[0], false),
                None => self.zero_memory(t, at, false),
            }
            Storage::Slot(at)
        } else if flat && !self.escapes.in_heap(obj) {
            let value = match value {
                Some(v) => v,
                None => self.zero(t),
            };
            let vars = self.component_vars(t);
            self.define_vars(&vars, &value);
            Storage::Vars(vars)
        } else {
            let at = self.allocate(t);
            if let Some(v) = value {
                self.store_at(t, at, 0, &v, true);
            }
            let var = self.b.variable(REF);
            self.b.def_var(var, at);
            Storage::Boxed(var)
        };
        self.vars.insert(obj, storage.clone());
        Ok(storage)
    }

    pub(crate) fn component_vars(&mut self, t: Ty) -> Vec<Variable> {
        let parts = abi::parts(&mut self.c.types, t);
        parts.iter().map(|p| self.b.variable(*p)).collect()
    }

    pub(crate) fn define_vars(&mut self, vars: &[Variable], value: &Val) {
        for (var, v) in vars.iter().zip(&value.v) {
            self.b.def_var(*var, *v);
        }
    }
}
