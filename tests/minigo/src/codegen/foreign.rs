//! Calls of C functions, and the functions through which C calls Go ones.

use super::function::{FuncGen, Val};
use super::{Compiler, abi};
use crate::cgo::source::{ADDRESS, NAME, WITH_ERRNO, c_name};
use crate::code::Role;
use crate::error::Compiled;
use crate::runtime::natives;
use crate::types::{Sig, Ty};
use cranelift_codegen::ir::{InstBuilder, StackSlotData, StackSlotKind, Value, types as clif};
use go_types::ObjKey;
use stackmark_asm::layout::NativeFn;
use stackmark_cranelift::{FuncId, INT, Start};

/// A function of package C.
#[derive(Clone, Debug)]
pub(crate) struct CFunction {
    pub(crate) name: String,
    pub(crate) with_errno: bool,
}

impl CFunction {
    /// The one that a declaration of this name stands for.
    pub(crate) fn declared_as(name: &str) -> Option<CFunction> {
        let (mark, name) = c_name(name)?;
        Some(CFunction { name: name.into(), with_errno: mark == WITH_ERRNO })
    }
}

/// Offsets of values in an argument block, and its size.
fn block(g: &mut Compiler<'_>, types: &[Ty]) -> (Vec<i64>, u32) {
    let (mut at, mut offsets) = (0u64, vec![]);
    for t in types {
        let layout = g.types.layout(*t);
        at = at.next_multiple_of(layout.align.max(1));
        offsets.push(at as i64);
        at += layout.size;
    }
    (offsets, at.next_multiple_of(8).max(8) as u32)
}

impl Compiler<'_> {
    /// The address of the C function for which a global variable of this name stands.
    pub(crate) fn c_address(&self, name: &str) -> Option<usize> {
        match c_name(name) {
            Some((ADDRESS, name)) => self.c_symbols.as_ref()?.address(name),
            _ => None,
        }
    }

    /// The address of the C variable that a global variable of this name is.
    pub(crate) fn c_variable(&self, name: &str) -> Option<usize> {
        match c_name(name) {
            Some((NAME, name)) => self.c_symbols.as_ref()?.variable(name),
            _ => None,
        }
    }

    /// The managed functions that native code calls back, in the order of their numbers.
    pub(crate) fn export_thunks(&mut self) -> Compiled<Vec<FuncId>> {
        let Some(symbols) = self.c_symbols else { return Ok(vec![]) };
        symbols.exports.iter().map(|obj| self.export_thunk(*obj)).collect()
    }

    /// Takes the address of two words: the goroutine's header and the argument block.
    fn export_thunk(&mut self, obj: ObjKey) -> Compiled<FuncId> {
        let o = &self.program.tc.lobjs[obj];
        let (name, pos) = (format!("main.{}.export", o.name()), o.pos());
        let sig = self.function_sig(obj, pos)?;
        let target = self.functions[&obj];
        let id = self.emitter.declare(&name, abi::of_parts(&[INT], &[INT]), Role::Wrapper);
        self.define(id, &sig, |g| {
            g.b.enter(Start::Callback);
            let incoming = g.b.param(0);
            let at = g.b.load_plain(clif::I64, incoming, 8);
            let types: Vec<Ty> = sig.params.iter().chain(&sig.results).copied().collect();
            let (offsets, _) = block(g.c, &types);
            let (params, results) = offsets.split_at(sig.params.len());
            let args: Vec<Val> =
                sig.params.iter().zip(params).map(|(t, o)| g.load_at(*t, at, *o)).collect();
            let values = g.emit_call(&super::call::Callee::Direct(target), &sig, &args);
            for (v, o) in values.iter().zip(results) {
                g.store_at(v.ty, at, *o, v, false);
            }
            let zero = g.b.int(0);
            g.b.ins().return_(&[zero]);
        });
        Ok(id)
    }
}

impl FuncGen<'_, '_> {
    /// Calls a C function.
    pub(crate) fn c_call(&mut self, f: &CFunction, sig: &Sig, args: &[Val]) -> Vec<Val> {
        if let Some(results) = self.c_helper(&f.name, sig, args) {
            return results;
        }
        let symbols = self.c.c_symbols.expect("a program with C functions has their addresses");
        let wrapper =
            symbols.call(&f.name, f.with_errno).expect("every call was seen before C was compiled");
        let mut types = sig.params.clone();
        let own_results = if f.with_errno { &sig.results[..1] } else { &sig.results[..] };
        types.extend(own_results);
        if f.with_errno {
            types.push(self.c.types.basic.int32);
        }
        let (offsets, size) = block(self.c, &types);
        let slot = self.b.create_sized_stack_slot(StackSlotData::new(
            StackSlotKind::ExplicitSlot,
            size,
            4,
        ));
        for (v, o) in args.iter().zip(&offsets) {
            let at = self.b.ins().stack_addr(clif::I64, slot, 0);
            self.store_at(v.ty, at, *o, v, false);
        }
        let wrapper = self.address(wrapper);
        let at = self.b.ins().stack_addr(clif::I64, slot, 0);
        self.b.native(natives::foreign_call, &[wrapper, at]);
        // What C was given.
        self.keep_alive(args);
        let mut results = vec![];
        for (t, o) in own_results.iter().zip(&offsets[args.len()..]) {
            let at = self.b.ins().stack_addr(clif::I64, slot, 0);
            let v = self.load_at(*t, at, *o);
            results.push(self.snapshot(v));
        }
        if f.with_errno {
            let at = self.b.ins().stack_addr(clif::I64, slot, 0);
            let o = offsets.last().expect("errno's own");
            let e = self.b.load_plain(clif::I32, at, *o as i32);
            let e = self.b.ins().sextend(clif::I64, e);
            self.b.native(natives::errno_value, &[e]);
            let ty = self.b.result_word(0, clif::I64);
            let data = self.result_ref(1);
            results.push(Val { ty: sig.results[1], v: vec![ty, data] });
        }
        results
    }

    /// The references in these values are roots of the calls up to here.
    pub(crate) fn keep_alive(&mut self, values: &[Val]) {
        let mut references = vec![];
        for v in values {
            let parts = abi::parts(&mut self.c.types, v.ty);
            let words = v.v.iter().zip(parts).filter(|(_, part)| part.is_reference());
            references.extend(words.map(|(word, _)| self.b.reference(*word)));
        }
        self.b.keep_alive(&references);
    }

    /// The functions of package C that are the runtime's.
    fn c_helper(&mut self, name: &str, sig: &Sig, args: &[Val]) -> Option<Vec<Val>> {
        let words: Vec<Value> = args.iter().map(|v| self.widened(v)).collect::<Vec<_>>().concat();
        let f: NativeFn = match name {
            "CString" => natives::c_string,
            "CBytes" => natives::c_bytes,
            "GoString" => natives::go_string,
            "GoStringN" => natives::go_string_n,
            "GoBytes" => natives::go_bytes,
            _ => return None,
        };
        let result = self.b.native(f, &words);
        let t = sig.results[0];
        Some(vec![match name {
            "CString" | "CBytes" => Val { ty: t, v: vec![self.b.reference(result)] },
            "GoBytes" => self.slice_result(t),
            _ => self.string_result(t),
        }])
    }

    /// The words of a value; a C.int as 64 bits.
    fn widened(&mut self, v: &Val) -> Vec<Value> {
        match self.kind(v.ty) {
            crate::types::Kind::Int { .. } => vec![self.widen(v)],
            _ => v.v.clone(),
        }
    }
}
