//! How values lie in memory, for the compiler and for the runtime.

use super::{Component, Field, Kind, Layout, Part, Ty, Types};
use crate::runtime::map::MapType;
use crate::runtime::typeinfo::{FieldInfo, Shape, TypeInfo};
use cranelift_codegen::ir::types as clif;
use stackmark_cranelift::{FLOAT, INT, REF};
use std::rc::Rc;

/// A struct of more words than this lives in memory, a smaller one in SSA values.
const MAX_COMPONENTS: usize = 8;

impl Types {
    /// How values of type `t` lie in memory and in SSA values.
    pub(crate) fn layout(&mut self, t: Ty) -> Rc<Layout> {
        if let Some(l) = &self.all[t.0 as usize].layout {
            return l.clone();
        }
        let one = |part: Part| {
            let size = u64::from(part.clif().bytes());
            let component = Component { part, offset: 0 };
            let words: Rc<[bool]> =
                if size == 8 { Rc::new([part.is_reference()]) } else { Rc::new([]) };
            Layout { size, align: size, words, components: Some(Rc::new([component])) }
        };
        let words = |refs: &[bool]| {
            let components: Rc<[Component]> = refs
                .iter()
                .enumerate()
                .map(|(i, r)| Component { part: if *r { REF } else { INT }, offset: 8 * i as u32 })
                .collect();
            Layout {
                size: 8 * refs.len() as u64,
                align: 8,
                words: refs.into(),
                components: Some(components),
            }
        };
        let layout = match self.kind(t).clone() {
            Kind::Bool => one(Part::Plain(clif::I8)),
            Kind::Int { bits: 8, .. } => one(Part::Plain(clif::I8)),
            Kind::Int { bits: 16, .. } => one(Part::Plain(clif::I16)),
            Kind::Int { bits: 32, .. } => one(Part::Plain(clif::I32)),
            Kind::Int { .. } => one(INT),
            Kind::Float { bits: 32 } => one(Part::Plain(clif::F32)),
            Kind::Float { .. } => one(FLOAT),
            Kind::String => words(&[true, false]),
            Kind::Slice(_) => words(&[true, false, false]),
            Kind::Interface(_) => words(&[false, true]),
            Kind::Tuple(_) | Kind::Unsupported(_) => words(&[]),
            Kind::Pointer(_)
            | Kind::Func(_)
            | Kind::Chan(..)
            | Kind::Map(..)
            | Kind::UnsafePointer
            | Kind::Nil => one(REF),
            Kind::Array(n, e) => {
                let e = self.layout(e);
                let size = e.size.saturating_mul(n);
                let mut map = vec![];
                if e.has_refs() {
                    for _ in 0..n {
                        map.extend_from_slice(&e.words);
                    }
                } else {
                    map = vec![false; usize::try_from(size / 8).unwrap_or(0).min(1 << 24)];
                }
                Layout { size, align: e.align, words: map.into(), components: None }
            }
            Kind::Struct(fields) => {
                let (mut size, mut align) = (0u64, 1u64);
                let mut map: Vec<bool> = vec![];
                let mut components = Some(vec![]);
                for f in fields.iter() {
                    let l = self.layout(f.ty);
                    size = size.next_multiple_of(l.align);
                    align = align.max(l.align);
                    if l.has_refs() {
                        map.resize((size / 8) as usize, false);
                        map.extend_from_slice(&l.words);
                    }
                    match (&mut components, &l.components) {
                        (Some(all), Some(c)) => all.extend(c.iter().map(|c| Component {
                            offset: c.offset + u32::try_from(size).unwrap_or(0),
                            ..*c
                        })),
                        _ => components = None,
                    }
                    size += l.size;
                }
                // Go pads a struct that ends in a zero-size field, so that the field's address
                // stays inside.
                if size > 0 && fields.last().is_some_and(|f| self.layout(f.ty).size == 0) {
                    size += 1;
                }
                size = size.next_multiple_of(align);
                map.resize((size / 8) as usize, false);
                let components = components.filter(|c| c.len() <= MAX_COMPONENTS).map(Rc::from);
                Layout { size, align, words: map.into(), components }
            }
        };
        let layout = Rc::new(layout);
        self.all[t.0 as usize].layout = Some(layout.clone());
        layout
    }

    /// Offset of each field of a struct.
    pub(crate) fn field_offset(&mut self, fields: &[Field], index: usize) -> u64 {
        let mut at = 0;
        for (i, f) in fields.iter().enumerate() {
            let l = self.layout(f.ty);
            at = u64::next_multiple_of(at, l.align);
            if i == index {
                break;
            }
            at += l.size;
        }
        at
    }

    /// The run-time descriptors that were made.
    pub(crate) fn infos(&self) -> impl Iterator<Item = &'static TypeInfo> + '_ {
        self.all.iter().filter_map(|entry| entry.info)
    }

    /// The run-time descriptor of a type; there is one for each type, so that addresses compare as
    /// types do.
    pub(crate) fn info(&mut self, t: Ty) -> &'static TypeInfo {
        if let Some(i) = self.all[t.0 as usize].info {
            return i;
        }
        let layout = self.layout(t);
        let direct = matches!(
            self.kind(t),
            Kind::Pointer(_) | Kind::Func(_) | Kind::Chan(..) | Kind::Map(..) | Kind::UnsafePointer
        );
        let info: &'static TypeInfo = Box::leak(Box::new(TypeInfo::new(
            self.name(t).to_string(),
            layout.size as usize,
            layout.words.to_vec(),
            direct,
        )));
        self.all[t.0 as usize].info = Some(info);
        let shape = match self.kind(t).clone() {
            Kind::Bool => Shape::Bool,
            Kind::Int { signed: true, .. } => Shape::Int,
            Kind::Int { name: "uintptr", .. } => Shape::Uint,
            Kind::Int { .. } => Shape::Uint,
            Kind::Float { .. } => Shape::Float,
            Kind::String => Shape::String,
            Kind::Pointer(e) => Shape::Pointer(self.info(e)),
            Kind::Slice(e) => Shape::Slice(self.info(e)),
            Kind::Array(n, e) => Shape::Array(n as usize, self.info(e)),
            Kind::Struct(fields) => {
                let mut out = vec![];
                for (i, f) in fields.iter().enumerate() {
                    let offset = self.field_offset(&fields, i) as usize;
                    out.push(FieldInfo { name: f.name.clone(), offset, ty: self.info(f.ty) });
                }
                Shape::Struct(out)
            }
            Kind::Interface(methods) => {
                Shape::Interface(methods.iter().map(|(n, t)| (n.clone(), t.number())).collect())
            }
            Kind::Chan(..) => Shape::Chan,
            Kind::Map(k, v) => Shape::Map(Box::new(MapType::new(self.info(k), self.info(v)))),
            Kind::Func(_) => Shape::Func,
            _ => Shape::Opaque,
        };
        info.set_shape(shape);
        info
    }
}
