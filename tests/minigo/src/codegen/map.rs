//! Maps.

use super::function::{FuncGen, Val};
use super::place::Place;
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::{Kind, Ty};
use cranelift_codegen::ir::{InstBuilder, Value, types as clif};
use go_parser::ast::{CompositeLit, Expr, IndexExpr, RangeStmt};
use stackmark_asm::layout::G_RESULTS;

/// The result word from which on a key that is not in memory travels: behind a native's arguments.
const KEY_WORD: usize = 8;

impl FuncGen<'_, '_> {
    /// The address of a key.
    fn key_address(&mut self, key: &Val) -> Value {
        if self.c.types.layout(key.ty).components.is_none() {
            return key.v[0];
        }
        let g = self.b.goroutine();
        let at = (G_RESULTS + 8 * KEY_WORD) as i64;
        self.store_at(key.ty, g, at, key, false);
        self.b.ins().iadd_imm_s(g, at)
    }

    /// The map and the key of `m[k]`.
    fn map_operands(&mut self, i: &IndexExpr) -> Compiled<(Ty, Value, Val)> {
        let t = self.type_of(&i.expr)?;
        let Kind::Map(key, _) = self.kind(t) else { unreachable!("called for maps") };
        let m = self.expr(&i.expr)?.v[0];
        let k = self.expr_as(&i.index, key)?;
        Ok((t, m, k))
    }

    /// `m[k]`: the element, or zero, and whether it is there.
    pub(crate) fn map_index(&mut self, i: &IndexExpr) -> Compiled<(Val, Value)> {
        let (t, m, key) = self.map_operands(i)?;
        Ok(self.map_find(t, m, &key))
    }

    pub(crate) fn map_find(&mut self, t: Ty, m: Value, key: &Val) -> (Val, Value) {
        let Kind::Map(_, elem) = self.kind(t) else { unreachable!("called for maps") };
        let info = self.type_info(t);
        let key = self.key_address(key);
        let at = self.b.native(natives::map_find, &[info, m, key]);
        let found = self.b.result_word(1, clif::I64);
        let at = self.b.reference(at);
        let v = self.load_at(elem, at, 0);
        // What is stored in the map later must not show here.
        let v = self.snapshot(v);
        (v, self.as_bool(found))
    }

    /// `m[k]` on the left of an assignment.
    pub(crate) fn map_place(&mut self, i: &IndexExpr) -> Compiled<Place> {
        let (t, map, key) = self.map_operands(i)?;
        let key = self.snapshot(key);
        Ok(Place::Map { t, map, key })
    }

    /// The address of the element to be stored to.
    pub(crate) fn map_assign(&mut self, t: Ty, m: Value, key: &Val) -> Value {
        let info = self.type_info(t);
        let key = self.key_address(key);
        let at = self.b.native(natives::map_assign, &[info, m, key]);
        self.b.reference(at)
    }

    pub(crate) fn map_make(&mut self, t: Ty, hint: Value) -> Val {
        let info = self.type_info(t);
        let at = self.b.native(natives::map_make, &[info, hint]);
        Val { ty: t, v: vec![self.b.reference(at)] }
    }

    pub(crate) fn map_delete(&mut self, map: &Val, key: &Val) {
        let info = self.type_info(map.ty);
        let key = self.key_address(key);
        self.b.native(natives::map_delete, &[info, map.v[0], key]);
    }

    /// `len(m)`: the first word of a map that is not nil.
    pub(crate) fn map_length(&mut self, m: Value) -> Value {
        let n = self.b.declare_var(clif::I64);
        let zero = self.b.int(0);
        self.b.def_var(n, zero);
        let (some, done) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(m, some, &[], done, &[]);
        self.b.switch_to_block(some);
        let len = self.b.load_plain(clif::I64, m, 0);
        self.b.def_var(n, len);
        self.b.ins().jump(done, &[]);
        self.b.switch_to_block(done);
        self.b.use_var(n)
    }

    pub(crate) fn map_literal(&mut self, lit: &CompositeLit, t: Ty) -> Compiled<Val> {
        let Kind::Map(key, elem) = self.kind(t) else { unreachable!("called for maps") };
        let n = self.b.int(lit.elts.len() as i64);
        let m = self.map_make(t, n);
        for e in &lit.elts {
            let Expr::KeyValue(kv) = e else {
                return Err(self.error(lit.l_brace, "a map literal needs keys"));
            };
            // One entry after the other: `m[key] = value`.
            self.hoist(&kv.key)?;
            self.hoist(&kv.val)?;
            let k = self.expr_as(&kv.key, key)?;
            let k = self.snapshot(k);
            let v = self.expr_as(&kv.val, elem)?;
            let at = self.map_assign(t, m.v[0], &k);
            self.store_at(elem, at, 0, &v, true);
        }
        Ok(m)
    }

    /// `for k, v := range m`: `put` takes the key and the element of each round, `body` compiles
    /// the rest of it.
    pub(crate) fn range_map(
        &mut self,
        r: &RangeStmt,
        t: Ty,
        body: impl FnOnce(&mut Self, Val, Val) -> Compiled<()>,
        blocks: [cranelift_codegen::ir::Block; 3],
    ) -> Compiled<()> {
        let [head, inside, done] = blocks;
        let Kind::Map(key, elem) = self.kind(t) else { unreachable!("called for maps") };
        self.hoist(&r.expr)?;
        let m = self.expr(&r.expr)?.v[0];
        let number = self.b.declare_var(clif::I64);
        let zero = self.b.int(0);
        self.b.def_var(number, zero);
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        self.b.poll();
        let info = self.type_info(t);
        let from = self.b.use_var(number);
        let found = self.b.native(natives::map_next, &[info, m, from]);
        let (k, v) = (self.result_ref(1), self.result_ref(2));
        let next = self.b.ins().iadd_imm_s(found, 1);
        self.b.def_var(number, next);
        self.b.ins().brif(found, inside, &[], done, &[]);
        self.b.switch_to_block(inside);
        let k = self.load_at(key, k, 0);
        let v = self.load_at(elem, v, 0);
        body(self, k, v)?;
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(done);
        Ok(())
    }
}
