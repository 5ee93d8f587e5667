//! Places and memory: where assignable operands are, loads, stores with the write barrier, copies,
//! allocation.

use super::abi;
use super::function::{FuncGen, Storage, Val};
use crate::error::Compiled;
use crate::front::Program;
use crate::runtime::{host, natives};
use crate::types::{Kind, Ty};
use crate::walk::{Node, children};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types as clif};
use cranelift_frontend::Variable;
use go_parser::ast::{Decl, Expr, Node as _, SelectorExpr, Spec, Stmt};
use go_parser::{Pos, Token};
use go_types::{ObjKey, SelectionKind};

/// Copies up to this size are done in line.
const INLINE_BYTES: u64 = 64;

/// What can be assigned to.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Vars(Vec<Variable>),
    /// `barrier`: not a slot of this very frame.
    Memory {
        base: Value,
        offset: i64,
        barrier: bool,
    },
    /// An element of a map: the map's type, the map, the key.
    Map {
        t: Ty,
        map: Value,
        key: Val,
    },
    Blank,
}

/// The variables that `list` declares, without those in function literals.
pub(crate) fn declared_variables(program: &Program, list: &[Stmt], out: &mut Vec<(ObjKey, Pos)>) {
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
    pub(crate) fn storage_place(&mut self, s: &Storage) -> Place {
        match s {
            Storage::Vars(v) => Place::Vars(v.clone()),
            Storage::Boxed(v) => {
                Place::Memory { base: self.b.use_var(*v), offset: 0, barrier: true }
            }
            Storage::Slot(at) => Place::Memory { base: *at, offset: 0, barrier: false },
        }
    }

    /// The place of a variable.
    pub(crate) fn object_place(&mut self, obj: ObjKey, pos: Pos) -> Compiled<Place> {
        if let Some(s) = self.vars.get(&obj) {
            let s = s.clone();
            return Ok(self.storage_place(&s));
        }
        match self.c.globals.get(&obj) {
            Some(at) => Ok(Place::Memory { base: self.address(*at), offset: 0, barrier: true }),
            None => {
                let name = self.c.program.tc.lobjs[obj].name().clone();
                Err(self.error(pos, format!("{name} is not a variable that can be used here")))
            }
        }
    }

    /// The place that an addressable operand denotes; None if it is no variable but only a value.
    pub(crate) fn try_place(&mut self, e: &Expr) -> Compiled<Option<Place>> {
        let pos = e.pos(&self.c.program.ast);
        Ok(match e {
            Expr::Paren(p) => self.try_place(&p.expr)?,
            Expr::Ident(i) => {
                let ident = &self.c.program.ast.idents[*i];
                if ident.name == "_" {
                    return Ok(Some(Place::Blank));
                }
                let info = self.c.program.info();
                let obj = info.uses.get(i).copied().or_else(|| info.defs.get(i).copied().flatten());
                match obj {
                    Some(o) if self.c.program.tc.lobjs[o].entity_type().is_var() => {
                        Some(self.object_place(o, pos)?)
                    }
                    _ => None,
                }
            }
            Expr::Star(s) => {
                let p = self.expr(&s.expr)?.v[0];
                self.check_nil(p);
                Some(Place::Memory { base: p, offset: 0, barrier: true })
            }
            Expr::Index(i) => {
                let t = self.c.type_of_expr(&i.expr)?;
                match self.kind(t) {
                    Kind::Slice(elem) => {
                        let s = self.expr(&i.expr)?;
                        let index = self.index_value(&i.index)?;
                        Some(self.element_place(s.v[0], 0, s.v[1], index, elem, true))
                    }
                    Kind::Pointer(array) => {
                        let p = self.expr(&i.expr)?.v[0];
                        let Kind::Array(n, elem) = self.kind(array) else {
                            return Err(
                                self.error(pos, "an index of this operand is not supported")
                            );
                        };
                        let index = self.index_value(&i.index)?;
                        self.check_nil(p);
                        let n = self.iconst(n as i64);
                        Some(self.element_place(p, 0, n, index, elem, true))
                    }
                    Kind::Array(n, elem) => match self.try_place(&i.expr)? {
                        Some(Place::Memory { base, offset, barrier }) => {
                            let index = self.index_value(&i.index)?;
                            let n = self.iconst(n as i64);
                            Some(self.element_place(base, offset, n, index, elem, barrier))
                        }
                        _ => None,
                    },
                    _ => None,
                }
            }
            Expr::Selector(s) => self.selector_place(s)?,
            _ => None,
        })
    }

    pub(crate) fn place(&mut self, e: &Expr) -> Compiled<Place> {
        let pos = e.pos(&self.c.program.ast);
        let mut inner = e;
        while let Expr::Paren(p) = inner {
            inner = &p.expr;
        }
        if let Expr::Index(i) = inner
            && let t = self.c.type_of_expr(&i.expr)?
            && matches!(self.kind(t), Kind::Map(..))
        {
            return self.map_place(i);
        }
        match self.try_place(e)? {
            Some(p) => Ok(p),
            None => Err(self.error(pos, "this operand cannot be assigned to")),
        }
    }

    fn selector_place(&mut self, s: &SelectorExpr) -> Compiled<Option<Place>> {
        let Some(sel) = self.c.program.info().selections.get(&s.id()).cloned() else {
            return Ok(None);
        };
        if !matches!(sel.kind(), SelectionKind::FieldVal) {
            return Ok(None);
        }
        let t = self.c.type_of_expr(&s.expr)?;
        self.path_place(&s.expr, t, sel.indices())
    }

    /// The place reached from operand `e` of type `t` by the fields `path`; None if `e` is no
    /// variable.
    pub(crate) fn path_place(
        &mut self,
        e: &Expr,
        t: Ty,
        path: &[usize],
    ) -> Compiled<Option<Place>> {
        let mut place = match self.kind(t) {
            Kind::Pointer(_) => {
                let p = self.expr(e)?.v[0];
                // Zero-offset place of the pointer itself: the loop below dereferences it.
                None.or(Some(PointerOr::Pointer(p)))
            }
            _ => self.try_place(e)?.map(PointerOr::Place),
        };
        let mut t = t;
        for index in path {
            if let Kind::Pointer(inner) = self.kind(t) {
                let p = match place {
                    Some(PointerOr::Pointer(p)) => p,
                    Some(PointerOr::Place(p)) => self.load(&p, t).v[0],
                    None => return Ok(None),
                };
                self.check_nil(p);
                place = Some(PointerOr::Place(Place::Memory { base: p, offset: 0, barrier: true }));
                t = inner;
            }
            let Kind::Struct(fields) = self.kind(t) else { return Ok(None) };
            let Some(PointerOr::Place(p)) = place else { return Ok(None) };
            place = Some(PointerOr::Place(self.field_place(&p, t, *index)));
            t = fields[*index].ty;
        }
        Ok(match place {
            Some(PointerOr::Place(p)) => Some(p),
            _ => None,
        })
    }

    pub(crate) fn field_place(&mut self, p: &Place, t: Ty, index: usize) -> Place {
        let Kind::Struct(fields) = self.kind(t) else {
            unreachable!("a selection ends in a struct")
        };
        match p {
            Place::Vars(vars) => {
                let (from, to) = self.field_components(&fields, index);
                Place::Vars(vars[from..to].to_vec())
            }
            Place::Memory { base, offset, barrier } => {
                let at = self.c.types.field_offset(&fields, index) as i64;
                Place::Memory { base: *base, offset: offset + at, barrier: *barrier }
            }
            Place::Map { .. } => unreachable!("a field of a map's element is no variable"),
            Place::Blank => Place::Blank,
        }
    }

    /// Which components of a struct are those of field `index`.
    pub(crate) fn field_components(
        &mut self,
        fields: &[crate::types::Field],
        index: usize,
    ) -> (usize, usize) {
        let mut from = 0;
        for f in &fields[..index] {
            from += abi::parts(&mut self.c.types, f.ty).len();
        }
        (from, from + abi::parts(&mut self.c.types, fields[index].ty).len())
    }

    /// The place of element `index` behind `base`, checked against `len`.
    pub(crate) fn element_place(
        &mut self,
        base: Value,
        offset: i64,
        len: Value,
        index: Value,
        elem: Ty,
        barrier: bool,
    ) -> Place {
        let ok = self.b.ins().icmp(IntCC::UnsignedLessThan, index, len);
        self.check(ok, natives::Failure::Index, &[index, len]);
        self.unchecked_element(base, offset, index, elem, barrier)
    }

    pub(crate) fn unchecked_element(
        &mut self,
        base: Value,
        offset: i64,
        index: Value,
        elem: Ty,
        barrier: bool,
    ) -> Place {
        let size = self.c.types.layout(elem).size as i64;
        let scaled = match size {
            1 => index,
            _ => self.b.ins().imul_imm_s(index, size),
        };
        let at = self.b.ins().iadd(base, scaled);
        let at = self.refv(at);
        Place::Memory { base: at, offset, barrier }
    }

    /// The address of a place in memory.
    pub(crate) fn place_address(&mut self, p: &Place) -> Option<Value> {
        match p {
            Place::Memory { base, offset, .. } => Some(self.iadd_ref(*base, *offset)),
            _ => None,
        }
    }

    /// The value in a place. A value in memory is only borrowed.
    pub(crate) fn load(&mut self, p: &Place, t: Ty) -> Val {
        match p {
            Place::Vars(vars) => {
                Val { ty: t, v: vars.iter().map(|v| self.b.use_var(*v)).collect() }
            }
            Place::Memory { base, offset, .. } => self.load_at(t, *base, *offset),
            Place::Map { t, map, key } => self.map_find(*t, *map, key).0,
            Place::Blank => self.zero(t),
        }
    }

    pub(crate) fn load_at(&mut self, t: Ty, base: Value, offset: i64) -> Val {
        let layout = self.c.types.layout(t);
        let v = match &layout.components {
            None => vec![self.iadd_ref(base, offset)],
            Some(components) => {
                let base = if offset.unsigned_abs() > 1 << 30 {
                    self.iadd_ref(base, offset)
                } else {
                    base
                };
                let offset = if offset.unsigned_abs() > 1 << 30 { 0 } else { offset };
                components
                    .iter()
                    .map(|c| {
                        let at = (offset + i64::from(c.offset)) as i32;
                        let v = self.b.ins().load(c.clif, MemFlagsData::trusted(), base, at);
                        if c.is_ref { self.refv(v) } else { v }
                    })
                    .collect()
            }
        };
        Val { ty: t, v }
    }

    pub(crate) fn store(&mut self, p: &Place, value: &Val) {
        match p {
            Place::Vars(vars) => self.define_vars(vars, value),
            Place::Memory { base, offset, barrier } => {
                self.store_at(value.ty, *base, *offset, value, *barrier)
            }
            Place::Map { t, map, key } => {
                let at = self.map_assign(*t, *map, key);
                self.store_at(value.ty, at, 0, value, true);
            }
            Place::Blank => {}
        }
    }

    pub(crate) fn store_at(&mut self, t: Ty, base: Value, offset: i64, value: &Val, barrier: bool) {
        let layout = self.c.types.layout(t);
        match &layout.components {
            None => {
                let at = self.iadd_ref(base, offset);
                self.copy_memory(t, at, value.v[0], barrier);
            }
            Some(components) => {
                if barrier {
                    let refs: Vec<Value> = components
                        .iter()
                        .zip(&value.v)
                        .filter(|(c, _)| c.is_ref)
                        .map(|(_, v)| *v)
                        .collect();
                    let lost: Vec<i64> = match host::shades_lost() {
                        true => components
                            .iter()
                            .filter(|c| c.is_ref)
                            .map(|c| offset + i64::from(c.offset))
                            .collect(),
                        false => vec![],
                    };
                    let to = self.iadd_ref(base, offset);
                    self.write_barrier_at(&refs, Some(to), base, &lost);
                }
                let base = if offset.unsigned_abs() > 1 << 30 {
                    self.iadd_ref(base, offset)
                } else {
                    base
                };
                let offset = if offset.unsigned_abs() > 1 << 30 { 0 } else { offset };
                for (c, v) in components.iter().zip(&value.v) {
                    let at = (offset + i64::from(c.offset)) as i32;
                    self.b.ins().store(MemFlagsData::trusted(), *v, base, at);
                }
            }
        }
    }

    /// Tells the collector, if it wants to know, of references that are about to be stored, in
    /// various places.
    pub(crate) fn write_barrier(&mut self, refs: &[Value]) {
        let nothing = self.iconst(0);
        self.write_barrier_at(refs, None, nothing, &[]);
    }

    /// As `write_barrier`, of references that are stored for the first time, in a new object.
    pub(crate) fn write_barrier_into(&mut self, object: Value, refs: &[Value]) {
        self.write_barrier_at(refs, Some(object), object, &[]);
    }

    /// As `write_barrier`; they are stored in the object or the variable that has the address `to`,
    /// and replace those at these offsets from `base`.
    fn write_barrier_at(&mut self, refs: &[Value], to: Option<Value>, base: Value, lost: &[i64]) {
        if refs.is_empty() {
            return;
        }
        let flag = self.address(host::write_barrier_flag() as usize);
        let on = self.b.ins().load(clif::I8, MemFlagsData::trusted(), flag, 0);
        let (cold, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(cold);
        self.b.ins().brif(on, cold, &[], go_on, &[]);
        self.b.switch_to_block(cold);
        for v in refs {
            match to {
                Some(to) => self.native(natives::write_barrier_into, &[*v, to]),
                None => self.native(natives::write_barrier, &[*v]),
            };
        }
        for offset in lost {
            let at = self.iadd_ref(base, *offset);
            let v = self.b.ins().load(clif::I64, MemFlagsData::trusted(), at, 0);
            self.native(natives::write_barrier_lost, &[v]);
        }
        self.b.ins().jump(go_on, &[]);
        self.b.switch_to_block(go_on);
    }

    /// Copies a value from memory to memory; the two may overlap.
    pub(crate) fn copy_memory(&mut self, t: Ty, to: Value, from: Value, barrier: bool) {
        let layout = self.c.types.layout(t);
        if layout.size == 0 {
            return;
        }
        if layout.size <= INLINE_BYTES && !(barrier && layout.has_refs()) {
            let mut pieces = vec![];
            let mut at = 0;
            for (size, ty) in [(8, clif::I64), (4, clif::I32), (2, clif::I16), (1, clif::I8)] {
                while layout.size - at >= size {
                    pieces.push((
                        at as i32,
                        self.b.ins().load(ty, MemFlagsData::trusted(), from, at as i32),
                    ));
                    at += size;
                }
            }
            for (at, v) in pieces {
                self.b.ins().store(MemFlagsData::trusted(), v, to, at);
            }
            return;
        }
        let info = self.type_info(t);
        self.native(natives::copy_value, &[info, to, from]);
    }

    pub(crate) fn zero_memory(&mut self, t: Ty, at: Value, _barrier: bool) {
        let size = self.c.types.layout(t).size;
        if size <= 2 * INLINE_BYTES && size.is_multiple_of(8) {
            let zero = self.iconst(0);
            for i in 0..size / 8 {
                self.b.ins().store(MemFlagsData::trusted(), zero, at, 8 * i as i32);
            }
        } else if size > 0 {
            let size = self.iconst(size as i64);
            self.native(natives::zero_memory, &[at, size]);
        }
    }

    /// Zeroes whole words without a call.
    pub(crate) fn zero_words(&mut self, at: Value, bytes: u32) {
        let zero = self.iconst(0);
        if bytes <= 256 {
            for i in 0..bytes / 8 {
                self.b.ins().store(MemFlagsData::trusted(), zero, at, 8 * i as i32);
            }
            return;
        }
        let left = self.b.declare_var(clif::I64);
        let start = self.iconst(i64::from(bytes));
        self.b.def_var(left, start);
        let (head, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        let n = self.b.use_var(left);
        let n = self.b.ins().iadd_imm_s(n, -8);
        self.b.def_var(left, n);
        let to = self.b.ins().iadd(at, n);
        self.b.ins().store(MemFlagsData::trusted(), zero, to, 0);
        self.b.ins().brif(n, head, &[], done, &[]);
        self.b.switch_to_block(done);
    }

    pub(crate) fn type_info(&mut self, t: Ty) -> Value {
        let info = std::ptr::from_ref(self.c.types.info(t)) as usize;
        self.address(info)
    }

    /// The zero value.
    pub(crate) fn zero(&mut self, t: Ty) -> Val {
        let layout = self.c.types.layout(t);
        let v = match &layout.components {
            None if layout.size as usize <= natives::ZEROES => {
                vec![self.address(natives::zero_size_address())]
            }
            None => vec![self.allocate(t)],
            Some(components) => components
                .iter()
                .map(|c| match c.clif {
                    clif::F64 => self.b.ins().f64const(0.0),
                    clif::F32 => self.b.ins().f32const(0.0),
                    ty => self.b.ins().iconst(ty, 0),
                })
                .collect(),
        };
        Val { ty: t, v }
    }

    /// A value that stays as it is whatever is assigned later: memory is copied.
    pub(crate) fn snapshot(&mut self, value: Val) -> Val {
        if self.c.types.layout(value.ty).components.is_some() {
            return value;
        }
        let at = self.allocate(value.ty);
        self.copy_memory(value.ty, at, value.v[0], true);
        Val { ty: value.ty, v: vec![at] }
    }
}

enum PointerOr {
    Pointer(Value),
    Place(Place),
}
