//! Memory: loads, stores with the write barrier, copies, zero values.

use super::function::{FuncGen, Val};
use super::place::Place;
use crate::runtime::natives;
use crate::types::Ty;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types as clif};

/// Copies up to this size are done in line.
const INLINE_BYTES: u64 = 64;

impl FuncGen<'_, '_> {
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
                        self.b.load(c.part, base, at)
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
                        .filter(|(c, _)| c.part.is_reference())
                        .map(|(_, v)| *v)
                        .collect();
                    let lost: Vec<i64> = match self.b.barrier().reports_overwritten() {
                        true => components
                            .iter()
                            .filter(|c| c.part.is_reference())
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
                    self.b.store_unreported(c.part, *v, base, at);
                }
            }
        }
    }

    /// Tells the collector, if it wants to know, of references that are about to be stored, in
    /// various places.
    pub(crate) fn write_barrier(&mut self, refs: &[Value]) {
        let nothing = self.b.int(0);
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
        self.b.if_reported(|b| {
            for v in refs {
                match to {
                    Some(to) => b.native(natives::write_barrier_into, &[*v, to]),
                    None => b.native(natives::write_barrier, &[*v]),
                };
            }
            for offset in lost {
                let at = b.ins().iadd_imm_s(base, *offset);
                let at = b.reference(at);
                let v = b.load_reference(at, 0);
                b.native(natives::write_barrier_lost, &[v]);
            }
        });
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
        self.b.native(natives::copy_value, &[info, to, from]);
    }

    pub(crate) fn zero_memory(&mut self, t: Ty, at: Value, _barrier: bool) {
        let size = self.c.types.layout(t).size;
        if size <= 2 * INLINE_BYTES && size.is_multiple_of(8) {
            let zero = self.b.int(0);
            for i in 0..size / 8 {
                self.b.ins().store(MemFlagsData::trusted(), zero, at, 8 * i as i32);
            }
        } else if size > 0 {
            let size = self.b.int(size as i64);
            self.b.native(natives::zero_memory, &[at, size]);
        }
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
                .map(|c| match c.part.clif() {
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
