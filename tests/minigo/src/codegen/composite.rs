//! Composite literals.

use super::constant::integer;
use super::function::{FuncGen, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::types::{Kind, Ty};
use go_parser::ast::{CompositeLit, Expr, Node};

impl FuncGen<'_, '_> {
    pub(crate) fn composite(&mut self, e: &Expr) -> Compiled<Val> {
        let Expr::CompositeLit(lit) = e else { unreachable!("called for composite literals") };
        let pos = e.pos(&self.c.program.ast);
        let t = self.type_of(e)?;
        match self.kind(t) {
            // The elided `&T` of an element.
            Kind::Pointer(inner) => {
                let at = self.allocate(inner);
                self.fill(lit, inner, &Place::Memory { base: at, offset: 0, barrier: true })?;
                Ok(Val { ty: t, v: vec![at] })
            }
            Kind::Slice(elem) => {
                let n = self.element_count(lit)?;
                let info = self.c.types.info(elem);
                let at = self.allocate_values(info, n as usize);
                let n = self.b.int(n as i64);
                self.fill_elements(lit, elem, at, 0, true)?;
                Ok(Val { ty: t, v: vec![at, n, n] })
            }
            Kind::Struct(fields) if self.c.types.layout(t).components.is_some() => {
                let mut v = self.zero(t);
                for (index, value) in self.fields(lit, t)? {
                    let x = self.expr_as(value, fields[index].ty)?;
                    let (from, to) = self.field_components(&fields, index);
                    v.v[from..to].copy_from_slice(&x.v);
                }
                Ok(v)
            }
            Kind::Struct(_) | Kind::Array(..) => {
                let at = self.allocate(t);
                self.fill(lit, t, &Place::Memory { base: at, offset: 0, barrier: true })?;
                Ok(Val { ty: t, v: vec![at] })
            }
            Kind::Map(..) => self.map_literal(lit, t),
            _ => Err(self.error(pos, "this composite literal is not supported")),
        }
    }

    /// Builds a literal in memory that is zero.
    pub(crate) fn composite_at(&mut self, e: &Expr, place: &Place) -> Compiled<()> {
        let t = self.type_of(e)?;
        match (e, self.kind(t)) {
            (Expr::CompositeLit(lit), Kind::Struct(_) | Kind::Array(..)) => {
                self.fill(lit, t, place)
            }
            _ => {
                let v = self.expr(e)?;
                self.store(place, &v);
                Ok(())
            }
        }
    }

    fn fill(&mut self, lit: &CompositeLit, t: Ty, place: &Place) -> Compiled<()> {
        match self.kind(t) {
            Kind::Struct(fields) => {
                for (index, value) in self.fields(lit, t)? {
                    let p = self.field_place(place, t, index);
                    self.element_at(value, fields[index].ty, &p)?;
                }
                Ok(())
            }
            Kind::Array(_, elem) => match place {
                Place::Memory { base, offset, barrier } => {
                    self.fill_elements(lit, elem, *base, *offset, *barrier)
                }
                _ => unreachable!("arrays live in memory"),
            },
            _ => {
                let pos = lit.l_brace;
                Err(self.error(pos, "this composite literal is not supported"))
            }
        }
    }

    fn element_at(&mut self, value: &Expr, t: Ty, place: &Place) -> Compiled<()> {
        let own = self.type_of(value);
        if let Expr::CompositeLit(_) = value
            && own.is_ok_and(|o| o == t)
            && self.c.types.layout(t).components.is_none()
        {
            return self.composite_at(value, place);
        }
        let v = self.expr_as(value, t)?;
        self.store(place, &v);
        Ok(())
    }

    fn fields<'l>(&mut self, lit: &'l CompositeLit, t: Ty) -> Compiled<Vec<(usize, &'l Expr)>> {
        let Kind::Struct(fields) = self.kind(t) else { return Ok(vec![]) };
        let mut out = vec![];
        for (i, e) in lit.elts.iter().enumerate() {
            match e {
                Expr::KeyValue(kv) => {
                    let Expr::Ident(key) = &kv.key else {
                        return Err(self.error(kv.colon, "this field name is not supported"));
                    };
                    let name = &self.c.program.ast.idents[*key].name;
                    match fields.iter().position(|f| f.name == *name) {
                        Some(i) => out.push((i, &kv.val)),
                        None => return Err(self.error(kv.colon, format!("unknown field {name}"))),
                    }
                }
                e => out.push((i, e)),
            }
        }
        Ok(out)
    }

    fn element_index(&self, e: &Expr, next: u64) -> Compiled<u64> {
        let Expr::KeyValue(kv) = e else { return Ok(next) };
        let value = self
            .c
            .program
            .info()
            .types
            .get(&kv.key.id())
            .and_then(|tv| integer(tv.get_const_val()?));
        match value {
            Some(i) if i >= 0 => Ok(i as u64),
            _ => Err(self.error(kv.colon, "this index is not a constant")),
        }
    }

    fn element_count(&self, lit: &CompositeLit) -> Compiled<u64> {
        let (mut next, mut count) = (0, 0);
        for e in &lit.elts {
            next = self.element_index(e, next)? + 1;
            count = count.max(next);
        }
        Ok(count)
    }

    fn fill_elements(
        &mut self,
        lit: &CompositeLit,
        elem: Ty,
        base: cranelift_codegen::ir::Value,
        offset: i64,
        barrier: bool,
    ) -> Compiled<()> {
        let size = self.c.types.layout(elem).size as i64;
        let mut next = 0;
        for e in &lit.elts {
            let index = self.element_index(e, next)?;
            next = index + 1;
            let value = match e {
                Expr::KeyValue(kv) => &kv.val,
                e => e,
            };
            let place = Place::Memory { base, offset: offset + size * index as i64, barrier };
            self.element_at(value, elem, &place)?;
        }
        Ok(())
    }
}
