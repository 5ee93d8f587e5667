//! Places: where assignable operands are.

use super::abi;
use super::function::{FuncGen, Storage, Val};
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use go_parser::Pos;
use go_parser::ast::{Expr, Node as _, SelectorExpr};
use go_types::{ObjKey, SelectionKind};

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

enum PointerOr {
    Pointer(Value),
    Place(Place),
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
                        let n = self.b.int(n as i64);
                        Some(self.element_place(p, 0, n, index, elem, true))
                    }
                    Kind::Array(n, elem) => match self.try_place(&i.expr)? {
                        Some(Place::Memory { base, offset, barrier }) => {
                            let index = self.index_value(&i.index)?;
                            let n = self.b.int(n as i64);
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
                // The loop below dereferences the pointer.
                Some(PointerOr::Pointer(p))
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
        let at = self.b.reference(at);
        Place::Memory { base: at, offset, barrier }
    }

    /// The address of a place in memory.
    pub(crate) fn place_address(&mut self, p: &Place) -> Option<Value> {
        match p {
            Place::Memory { base, offset, .. } => Some(self.iadd_ref(*base, *offset)),
            _ => None,
        }
    }
}
