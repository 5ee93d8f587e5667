//! `defer`: what a function with defer statements does differently.
//!
//! Such a function begins with a call that makes its *defer frame*, a heap object at the head of
//! the goroutine's chain. Each defer statement hangs a function object into it; the way out runs
//! them, last first. A panic runs them too, from above, and when one of them recovers, the call at
//! the beginning returns a second time, with 0. From there the function runs the rest of them and
//! returns its results. Registers and spill slots are then those of some later moment, so the way
//! out uses no value from outside of itself (see `Emitter::define`): the defer
//! frame and the results are found through stack slots of their own.

use super::abi;
use super::call::Callee;
use super::function::{FuncGen, Storage, Val};
use crate::code::Role;
use crate::error::Compiled;
use crate::runtime::natives::{self, DEFER_HEAD, DEFER_LINK};
use crate::types::{Kind, Sig, Ty};
use crate::walk::{Node as Walk, children};
use cranelift_codegen::ir::{Block, InstBuilder, StackSlot, Value, types as clif};
use go_parser::ast::{BlockStmt, CallExpr, Node, Stmt};
use go_types::{Builtin, ObjKey, OperandMode};
use stackmark_asm::layout::G_LANGUAGE;
use stackmark_cranelift::{FuncId, REF, Start};
use std::rc::Rc;

/// Results of more bytes than this live in the heap while deferred functions may change them.
const MAX_RESULT_SLOT: u64 = 1024;

/// The way out of a function with defer statements.
pub(crate) struct Defers {
    /// Holds the address of the defer frame.
    frame: StackSlot,
    /// Where every return jumps to.
    pub(crate) exit: Block,
    results: Vec<ResultSlot>,
}

/// Where one result is until the function has returned.
struct ResultSlot {
    slot: StackSlot,
    /// The slot holds the address of the result.
    boxed: bool,
}

/// Whether a body has defer statements of its own.
pub(crate) fn has_defer(program: &crate::front::Program, body: &BlockStmt) -> bool {
    fn go(program: &crate::front::Program, n: Walk<'_>) -> bool {
        match n {
            Walk::Stmt(Stmt::Defer(_)) => true,
            Walk::Expr(_) => false,
            Walk::Stmt(_) => {
                let mut found = false;
                children(n, &program.ast, &mut |c| found |= go(program, c));
                found
            }
        }
    }
    body.list.iter().any(|s| go(program, Walk::Stmt(s)))
}

impl FuncGen<'_, '_> {
    /// Makes the slots; in the entry block, before the first call.
    pub(crate) fn prepare_defers(&mut self, results: &[Option<ObjKey>]) {
        let frame = self.word_slot();
        let sig = self.sig.clone();
        let mut slots = vec![];
        for (i, t) in sig.results.iter().enumerate() {
            let obj = results.get(i).copied().flatten();
            let layout = self.c.types.layout(*t);
            let boxed =
                layout.size > MAX_RESULT_SLOT || obj.is_some_and(|o| self.escapes.in_heap(o));
            let slot = match boxed {
                true => self.word_slot(),
                false => {
                    let slot = self.b.slot(layout.size as u32, &layout.words);
                    let (slot, at) = slot.expect("words within the result's size");
                    if !layout.has_refs() {
                        self.b.zero_words(at, (layout.size as u32).next_multiple_of(8));
                    }
                    slot
                }
            };
            slots.push(ResultSlot { slot, boxed });
        }
        let exit = self.b.create_block();
        self.defers = Some(Defers { frame, exit, results: slots });
    }

    fn word_slot(&mut self) -> StackSlot {
        self.b.slot(8, &[true]).expect("a slot of one word").0
    }

    /// The result variables of a function with defer statements, then its defer frame.
    pub(crate) fn begin_defers(&mut self, results: &[Option<ObjKey>]) -> Compiled<()> {
        let sig = self.sig.clone();
        let mut vars = vec![];
        for (i, t) in sig.results.iter().enumerate() {
            let d = self.defers.as_ref().expect("prepared");
            let ResultSlot { slot, boxed } = d.results[i];
            let at = self.b.ins().stack_addr(clif::I64, slot, 0);
            let storage = if boxed {
                let value = self.allocate(*t);
                self.b.store_unreported(REF, value, at, 0);
                let var = self.b.variable(REF);
                self.b.def_var(var, value);
                Storage::Boxed(var)
            } else {
                Storage::Slot(self.b.reference(at))
            };
            if let Some(obj) = results.get(i).copied().flatten() {
                self.vars.insert(obj, storage.clone());
            }
            vars.push(storage);
        }
        self.result_vars = Some(vars);
        let d = self.defers.as_ref().expect("prepared");
        let (slot, exit) = (d.frame, d.exit);
        let frame = self.b.native(natives::defer_enter, &[]);
        let body = self.b.create_block();
        self.b.ins().brif(frame, body, &[], exit, &[]);
        self.b.switch_to_block(body);
        let at = self.b.ins().stack_addr(clif::I64, slot, 0);
        self.b.store_unreported(REF, frame, at, 0);
        Ok(())
    }

    /// The way out: runs what is deferred, last first, and returns the results.
    pub(crate) fn end_defers(&mut self) -> Compiled<()> {
        let Some(Defers { frame, exit, results }) = self.defers.take() else { return Ok(()) };
        let (one, done) = (self.b.create_block(), self.b.create_block());
        self.b.switch_to_block(exit);
        let at = self.b.ins().stack_addr(clif::I64, frame, 0);
        let frame = self.b.load_reference(at, 0);
        let node = self.b.load_reference(frame, DEFER_HEAD);
        self.b.ins().brif(node, one, &[], done, &[]);
        self.b.switch_to_block(one);
        let next = self.b.load_reference(node, NODE_NEXT);
        let function = self.b.load_reference(node, NODE_FUNCTION);
        // The node leaves the list: a barrier that shades what is overwritten shades it.
        self.write_barrier(&[next, node]);
        self.b.store_unreported(REF, next, frame, DEFER_HEAD);
        self.call_object(function);
        self.b.ins().jump(exit, &[]);
        self.b.switch_to_block(done);
        let link = self.b.load_reference(frame, DEFER_LINK);
        let g = self.b.goroutine();
        self.b.store_unreported(REF, link, g, G_LANGUAGE as i32);
        let sig = self.sig.clone();
        let mut values = vec![];
        for (t, r) in sig.results.iter().zip(&results) {
            let at = self.b.ins().stack_addr(clif::I64, r.slot, 0);
            let base = if r.boxed { self.b.load_reference(at, 0) } else { self.b.reference(at) };
            values.push(self.load_at(*t, base, 0));
        }
        self.emit_return(values);
        self.isolated = Some(exit);
        Ok(())
    }

    /// Calls a function object without parameters.
    pub(crate) fn call_object(&mut self, object: Value) {
        let callee = Callee::Object(object);
        self.emit_call(&callee, &Sig::default(), &[]);
        self.poll_behind(&callee);
    }

    /// `defer f(x)`: everything but the call happens now.
    pub(crate) fn defer_statement(&mut self, c: &CallExpr) -> Compiled<()> {
        let object = self.later(c, "deferwrap")?;
        self.hang_in(object);
        Ok(())
    }

    /// Hangs a function object into the function's defer frame.
    pub(super) fn hang_in(&mut self, object: Value) {
        let d = self.defers.as_ref().expect("a function with defer statements");
        let slot = d.frame;
        let info = self.c.words_info(vec![true, true]);
        let node = self.allocate_values(info, 1);
        let at = self.b.ins().stack_addr(clif::I64, slot, 0);
        let frame = self.b.load_reference(at, 0);
        let next = self.b.load_reference(frame, DEFER_HEAD);
        self.write_barrier(&[object, next, node]);
        self.b.store_unreported(REF, object, node, NODE_FUNCTION);
        self.b.store_unreported(REF, next, node, NODE_NEXT);
        self.b.store_unreported(REF, node, frame, DEFER_HEAD);
    }

    /// Evaluates the operands of `c`, and makes a function object without parameters that calls it.
    pub(crate) fn later(&mut self, c: &CallExpr, what: &str) -> Compiled<Value> {
        let pos = c.func.pos(&self.c.program.ast);
        let mode = self.c.program.info().types.get(&c.func.id()).map(|tv| tv.mode.clone());
        match mode {
            Some(OperandMode::TypeExpr) => {
                return Err(self.error(pos, "a conversion cannot be called later"));
            }
            Some(OperandMode::Builtin(b)) => return self.builtin_later(b, c, what),
            _ => {}
        }
        if let Some((package, name)) = self.package_function(&c.func) {
            let (call, operands) = self.standard_operands(&package, &name, c, pos)?;
            return self.late_thunk(what, operands, |g, operands| {
                g.emit_standard(&call, &operands);
                Ok(())
            });
        }
        let p = self.prepare(c)?;
        match p.callee {
            Callee::Object(f) => {
                if what == GO {
                    self.check_go_nil(f);
                }
                match p.args.is_empty() {
                    true => Ok(f),
                    false => self.prepared_later(Callee::Object(f), &p.sig, p.args, what),
                }
            }
            Callee::C(f) => self.late_thunk(what, p.args, |g, args| {
                g.c_call(&f, &p.sig, &args);
                Ok(())
            }),
            Callee::Method { value, name } => {
                let mut all = vec![value];
                all.extend(p.args);
                self.late_thunk(what, all, |g, mut args| {
                    let value = args.remove(0);
                    g.call_interface(&value, &name, &p.sig, &args);
                    Ok(())
                })
            }
            callee => self.prepared_later(callee, &p.sig, p.args, what),
        }
    }

    fn prepared_later(
        &mut self,
        callee: Callee,
        sig: &Rc<Sig>,
        args: Vec<Val>,
        what: &str,
    ) -> Compiled<Value> {
        let mut parts = vec![];
        let mut values = vec![];
        let target = match callee {
            Callee::Direct(id) => Some(id),
            Callee::Object(f) => {
                parts.push(REF);
                values.push(f);
                None
            }
            Callee::C(_) | Callee::Method { .. } => unreachable!("these have thunks of their own"),
        };
        for (t, v) in sig.params.iter().zip(args) {
            parts.extend(abi::parts(&mut self.c.types, *t));
            values.extend(self.snapshot(v).v);
        }
        if parts.is_empty()
            && let Some(id) = target
        {
            let thunk = self.c.plain_thunk(id, sig);
            let at = self.c.emitter.static_closure(thunk);
            return Ok(self.address(at));
        }
        self.literals += 1;
        let name = format!("{}.{what}{}", self.name, self.literals);
        let thunk = self.c.thunk(&name, &parts, target, sig, false);
        Ok(self.function_object(thunk, &parts, &values))
    }

    fn builtin_later(&mut self, b: Builtin, c: &CallExpr, what: &str) -> Compiled<Value> {
        let pos = c.func.pos(&self.c.program.ast);
        match b {
            Builtin::Close => {
                let ch = self.expr(&c.args[0])?;
                self.late_thunk(what, vec![ch], |g, v| {
                    g.b.native(natives::channel_close, &[v[0].v[0]]);
                    Ok(())
                })
            }
            Builtin::Panic => {
                let any = self.c.types.basic.any;
                let v = self.expr_as(&c.args[0], any)?;
                self.late_thunk(what, vec![v], |g, v| {
                    g.emit_panic(v[0].v[0], v[0].v[1]);
                    Ok(())
                })
            }
            Builtin::Print | Builtin::Println => {
                let values = self.print_operands(c)?;
                let at = c.l_paren;
                self.late_thunk(what, values, |g, v| g.emit_print(v, b == Builtin::Println, at))
            }
            Builtin::Copy => {
                let (to, from) = self.copy_operands(c)?;
                self.late_thunk(what, vec![to, from], |g, v| {
                    g.copy(&v[0], &v[1]);
                    Ok(())
                })
            }
            Builtin::Delete => {
                let (map, key) = self.delete_operands(c)?;
                self.late_thunk(what, vec![map, key], |g, v| {
                    g.map_delete(&v[0], &v[1]);
                    Ok(())
                })
            }
            // It is not called by a deferred function, it is one: nothing is recovered.
            Builtin::Recover => self.late_thunk(what, vec![], |_, _| Ok(())),
            _ => Err(self.error(pos, "this builtin cannot be called later")),
        }
    }

    /// A function object that runs `emit` with these values.
    fn late_thunk(
        &mut self,
        what: &str,
        values: Vec<Val>,
        emit: impl FnOnce(&mut FuncGen<'_, '_>, Vec<Val>) -> Compiled<()>,
    ) -> Compiled<Value> {
        let mut parts = vec![];
        let mut words = vec![];
        let mut types: Vec<Ty> = vec![];
        for v in values {
            let v = self.snapshot(v);
            parts.extend(abi::parts(&mut self.c.types, v.ty));
            types.push(v.ty);
            words.extend(v.v);
        }
        self.literals += 1;
        let name = format!("{}.{what}{}", self.name, self.literals);
        let line = self.line;
        let code = self.c.late_function(&name, &types, line, emit)?;
        if words.is_empty() {
            let at = self.c.emitter.static_closure(code);
            return Ok(self.address(at));
        }
        Ok(self.function_object(code, &parts, &words))
    }

    /// `recover()`: the value of the panic that runs this function, or nil.
    pub(crate) fn recover(&mut self) -> Val {
        self.b.native(natives::recover, &[]);
        let ty = self.b.result_word(0, clif::I64);
        let data = self.result_ref(1);
        let any = self.c.types.basic.any;
        debug_assert!(matches!(self.kind(any), Kind::Interface(_)));
        Val { ty: any, v: vec![ty, data] }
    }
}

// An element of a defer frame's list.
const NODE_FUNCTION: i32 = 0;
const NODE_NEXT: i32 = 8;

/// What the wrappers of go statements are called.
pub(crate) const GO: &str = "gowrap";

impl super::Compiler<'_> {
    /// A function that takes a function object with values of these types and runs `emit` with
    /// them.
    fn late_function(
        &mut self,
        name: &str,
        types: &[Ty],
        line: u32,
        emit: impl FnOnce(&mut FuncGen<'_, '_>, Vec<Val>) -> Compiled<()>,
    ) -> Compiled<FuncId> {
        let none = Rc::default();
        let signature = abi::signature(&mut self.types, &none, true);
        let id = self.emitter.declare(name, signature, Role::Wrapper);
        self.try_define(id, &none, |g| {
            g.b.enter(Start::Managed);
            g.set_line(line);
            let (context, mut at) = (g.b.param(0), 8);
            let mut values = vec![];
            for t in types {
                let mut v = vec![];
                for p in abi::parts(&mut g.c.types, *t) {
                    v.push(g.b.load(p, context, at));
                    at += 8;
                }
                values.push(Val { ty: *t, v });
            }
            emit(g, values)?;
            g.b.ins().return_(&[]);
            Ok(())
        })?;
        Ok(id)
    }
}
