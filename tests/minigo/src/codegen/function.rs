//! One function: its prologue and polls, calls of natives and run-time checks.

use super::{Compiler, abi};
use crate::error::{CompileError, Compiled};
use crate::escape::Escapes;
use crate::runtime::natives::{self, Failure};
use crate::types::{Kind, Sig, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, Block, InstBuilder, MemFlagsData, StackSlot, TrapCode, UserStackMapEntry, Value,
    types as clif,
};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use cranelift_module::FuncId;
use go_parser::Pos;
use go_parser::ast::{BlockStmt, Expr, NodeId};
use go_types::ObjKey;
use stackmark_asm::layout::{G_RESULTS, G_STACK_LIMIT, NativeFn};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A value: the components of its type, or the address of memory that does not change while
/// the value is in use.
#[derive(Clone, Debug)]
pub(crate) struct Val {
    pub(crate) ty: Ty,
    pub(crate) v: Vec<Value>,
}

/// Where a local variable is.
#[derive(Clone, Debug)]
pub(crate) enum Storage {
    /// One SSA variable for each component.
    Vars(Vec<Variable>),
    /// In the heap: the SSA variable holds the address.
    Boxed(Variable),
    /// In this frame: the address was taken once, in the entry block.
    Slot(Value),
}

/// What `break` and `continue` jump to.
pub(crate) struct Target {
    pub(crate) label: Option<String>,
    pub(crate) break_to: Block,
    pub(crate) continue_to: Option<Block>,
    /// A labelled statement that only a `break` with that label leaves.
    pub(crate) plain: bool,
}

/// A function to be compiled.
pub(crate) struct Source<'s> {
    pub(crate) id: FuncId,
    pub(crate) name: String,
    pub(crate) sig: Rc<Sig>,
    pub(crate) params: Vec<Option<ObjKey>>,
    pub(crate) results: Vec<Option<ObjKey>>,
    pub(crate) body: &'s BlockStmt,
    pub(crate) escapes: Rc<Escapes>,
    pub(crate) depth: u32,
    /// What a literal captures; None for a declared function, which has no function object as a
    /// parameter.
    pub(crate) captures: Option<&'s [ObjKey]>,
}

/// The generator of one function's code.
pub(crate) struct FuncGen<'a, 'p> {
    pub(crate) c: &'a mut Compiler<'p>,
    pub(crate) b: FunctionBuilder<'a>,
    pub(crate) vars: HashMap<ObjKey, Storage>,
    pub(crate) escapes: Rc<Escapes>,
    pub(crate) sig: Rc<Sig>,
    pub(crate) name: String,
    pub(crate) literals: u32,
    pub(crate) depth: u32,
    pub(crate) targets: Vec<Target>,
    pub(crate) labels: HashMap<String, Block>,
    /// The label of the statement that comes next, for `break` and `continue`.
    pub(crate) pending_label: Option<String>,
    /// Result variables, if the results have names.
    pub(crate) result_vars: Option<Vec<Storage>>,
    /// Results of calls that have been made before their statement's other operands.
    pub(crate) hoisted: BTreeMap<NodeId, Val>,
    /// Stack slots of variables declared in this function.
    pub(super) slots: HashMap<ObjKey, Value>,
    /// Slots that hold references: address, slot, their words.
    pub(super) ref_slots: Vec<(StackSlot, Rc<[bool]>)>,
    prologue_poll: Option<ir::Inst>,
    /// The way out, if the function has defer statements.
    pub(crate) defers: Option<super::defer::Defers>,
    /// From this block on nothing computed elsewhere is used, see `defer`.
    pub(crate) isolated: Option<Block>,
    /// The source line of what is compiled, 0 if there is none.
    pub(crate) line: u32,
}

impl<'a, 'p> FuncGen<'a, 'p> {
    /// Compiles a declared function or a literal.
    pub(crate) fn compile(c: &mut Compiler<'p>, s: Source<'_>) -> Compiled<()> {
        let signature = abi::signature(&mut c.types, &s.sig, s.captures.is_some());
        let mut func =
            ir::Function::with_name_signature(ir::UserFuncName::user(0, s.id.as_u32()), signature);
        let mut fbc = FunctionBuilderContext::new();
        // The builder borrows the function, the emitter takes it over afterwards: two steps.
        let isolated = {
            let mut g = FuncGen::new(
                &mut *c,
                FunctionBuilder::new(&mut func, &mut fbc),
                &s.sig,
                &s.name,
                s.escapes,
                s.depth,
            );
            g.at(s.body.l_brace);
            g.enter();
            let defers = super::defer::has_defer(g.c.program, s.body);
            let results = if defers { &[][..] } else { &s.results[..] };
            g.slots_for(s.params.iter().chain(results).flatten(), s.body)?;
            if defers {
                g.prepare_defers(&s.results);
            }
            g.parameters(&s.params, s.captures)?;
            if defers {
                g.begin_defers(&s.results)?;
            } else {
                g.result_variables(&s.results)?;
            }
            g.block(&s.body.list)?;
            g.at(s.body.r_brace);
            g.leave(s.body.r_brace)?;
            g.end_defers()?;
            let isolated = g.isolated;
            g.finish();
            isolated
        };
        let mut refs = vec![true; usize::from(s.captures.is_some())];
        refs.extend(abi::parts_of(&mut c.types, &s.sig.params).iter().map(|p| p.is_ref));
        c.emitter.define_isolated(s.id, &s.name, func, &refs, isolated);
        Ok(())
    }

    /// Compiles the start function.
    pub(crate) fn compile_start(
        c: &mut Compiler<'p>,
        id: FuncId,
        name: String,
        sig: Rc<Sig>,
        variables: Vec<(Vec<ObjKey>, Expr, Rc<Escapes>)>,
        inits: &[FuncId],
        main: FuncId,
    ) -> Compiled<()> {
        let signature = abi::signature(&mut c.types, &sig, true);
        let mut func =
            ir::Function::with_name_signature(ir::UserFuncName::user(0, id.as_u32()), signature);
        let mut fbc = FunctionBuilderContext::new();
        {
            let mut g = FuncGen::new(
                &mut *c,
                FunctionBuilder::new(&mut func, &mut fbc),
                &sig,
                &name,
                Rc::default(),
                0,
            );
            g.enter();
            for (lhs, rhs, escapes) in variables {
                g.escapes = escapes;
                g.initialise_globals(&lhs, &rhs)?;
            }
            for f in inits.iter().chain([&main]) {
                let f = g.c.emitter.reference(*f, g.b.func);
                g.b.ins().call(f, &[]);
            }
            g.await_panics();
            g.native(natives::exit, &[]);
            g.b.ins().return_(&[]);
            g.finish();
        }
        c.emitter.define(id, "minigo.start", func, &[true]);
        Ok(())
    }

    /// Before the program ends: lets panics of other goroutines run what is deferred. As in Go, if
    /// that takes no more than so many yields.
    fn await_panics(&mut self) {
        const YIELDS: i64 = 1000;
        let yields = self.b.declare_var(clif::I64);
        let none = self.iconst(0);
        self.b.def_var(yields, none);
        let [head, count, again, done] = [(); 4].map(|()| self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        let n = self.b.use_var(yields);
        let running = self.native(natives::panics_running, &[n]);
        self.b.ins().brif(running, count, &[], done, &[]);
        self.b.switch_to_block(count);
        let n = self.b.use_var(yields);
        let n = self.b.ins().iadd_imm_s(n, 1);
        self.b.def_var(yields, n);
        let patient = self.b.ins().icmp_imm_s(IntCC::SignedLessThan, n, YIELDS);
        self.b.ins().brif(patient, again, &[], done, &[]);
        self.b.switch_to_block(again);
        self.yield_now();
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(done);
    }

    pub(crate) fn new(
        c: &'a mut Compiler<'p>,
        b: FunctionBuilder<'a>,
        sig: &Rc<Sig>,
        name: &str,
        escapes: Rc<Escapes>,
        depth: u32,
    ) -> FuncGen<'a, 'p> {
        FuncGen {
            c,
            b,
            vars: HashMap::new(),
            escapes,
            sig: sig.clone(),
            name: name.to_string(),
            literals: 0,
            depth,
            targets: vec![],
            labels: HashMap::new(),
            pending_label: None,
            result_vars: None,
            hoisted: BTreeMap::new(),
            slots: HashMap::new(),
            ref_slots: vec![],
            prologue_poll: None,
            defers: None,
            isolated: None,
            line: 0,
        }
    }

    /// The prologue: makes the entry block and compares the stack pointer with the limit.
    pub(crate) fn enter(&mut self) {
        let entry = self.b.create_block();
        self.b.append_block_params_for_function_params(entry);
        self.b.switch_to_block(entry);
        self.check_stack();
    }

    /// Polls if the stack pointer is below the limit.
    pub(crate) fn check_stack(&mut self) {
        let (poll, body) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(poll);
        let g = self.goroutine();
        // The one read of sp; it is dead after the comparison.
        let sp = self.b.ins().get_stack_pointer(clif::I64);
        let limit = self.b.ins().load(clif::I64, MemFlagsData::trusted(), g, G_STACK_LIMIT as i32);
        let low = self.b.ins().icmp(IntCC::UnsignedLessThan, sp, limit);
        self.b.ins().brif(low, poll, &[], body, &[]);
        self.b.switch_to_block(poll);
        let call = self.call_poll();
        self.prologue_poll = Some(call);
        self.b.ins().jump(body, &[]);
        self.b.switch_to_block(body);
    }

    fn call_poll(&mut self) -> ir::Inst {
        let zero = self.b.ins().iconst(clif::I64, 0);
        let f = self.address(natives::poll_address());
        self.call_system(f, zero, zero)
    }

    /// A poll in a loop: it tests the request alone.
    pub(crate) fn poll(&mut self) {
        let g = self.goroutine();
        let (poll, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(poll);
        let at = self.b.ins().iadd_imm_s(g, G_STACK_LIMIT as i64);
        // Atomic: the compiler must not take an earlier load for this one.
        let limit = self.b.ins().atomic_load(clif::I64, MemFlagsData::trusted(), at);
        let asked = self.b.ins().icmp_imm_s(IntCC::Equal, limit, -1);
        self.b.ins().brif(asked, poll, &[], go_on, &[]);
        self.b.switch_to_block(poll);
        self.call_poll();
        self.b.ins().jump(go_on, &[]);
        self.b.switch_to_block(go_on);
    }

    fn finish(mut self) {
        // Every reference word of a slot is a root at every call, once the slot has been zeroed
        // behind the prologue.
        if !self.ref_slots.is_empty() {
            let calls: Vec<ir::Inst> = self
                .b
                .func
                .layout
                .blocks()
                .flat_map(|block| self.b.func.layout.block_insts(block))
                .filter(|i| self.b.func.dfg.insts[*i].opcode().is_call())
                .filter(|i| Some(*i) != self.prologue_poll)
                .collect();
            for call in calls {
                for (slot, words) in &self.ref_slots {
                    for (i, _) in words.iter().enumerate().filter(|(_, is_ref)| **is_ref) {
                        let entry =
                            UserStackMapEntry { ty: clif::I64, slot: *slot, offset: 8 * i as u32 };
                        self.b.func.dfg.append_user_stack_map_entry(call, entry);
                    }
                }
            }
        }
        self.b.seal_all_blocks();
        let config = self.c.emitter.frontend_config();
        self.b.finalize(config);
    }

    pub(crate) fn finish_thunk(self) {
        self.finish();
    }

    /// Marks a value as a reference: it is in the stack map of every call that it lives across.
    pub(crate) fn refv(&mut self, v: Value) -> Value {
        self.b.declare_value_needs_stack_map(v);
        v
    }

    pub(crate) fn goroutine(&mut self) -> Value {
        self.b.ins().get_pinned_reg(clif::I64)
    }

    /// A constant address outside of the heap.
    pub(crate) fn address(&mut self, at: usize) -> Value {
        self.b.ins().iconst(clif::I64, at as i64)
    }

    pub(crate) fn iconst(&mut self, v: i64) -> Value {
        self.b.ins().iconst(clif::I64, v)
    }

    pub(crate) fn iadd_ref(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 {
            return base;
        }
        let v = self.b.ins().iadd_imm_s(base, offset);
        self.refv(v)
    }

    fn call_system(&mut self, f: Value, a: Value, b: Value) -> ir::Inst {
        let callee = self.c.emitter.call_system(self.b.func);
        self.b.ins().call(callee, &[f, a, b])
    }

    /// Lets other goroutines run.
    pub(crate) fn yield_now(&mut self) {
        let gosched = self.c.gosched();
        let callee = self.c.emitter.reference(gosched, self.b.func);
        self.b.ins().call(callee, &[]);
    }

    /// Calls a native on the system stack. The first argument is passed as its second parameter,
    /// the others in the goroutine's result words from the second on; its first parameter is the
    /// goroutine's header.
    pub(crate) fn native(&mut self, f: NativeFn, args: &[Value]) -> Value {
        let g = self.goroutine();
        for (i, a) in args.iter().enumerate().skip(1) {
            self.b.ins().store(MemFlagsData::trusted(), *a, g, (G_RESULTS + 8 * i) as i32);
        }
        let first = match args.first() {
            Some(a) => *a,
            None => self.iconst(0),
        };
        let f = self.address(f as *const () as usize);
        let call = self.call_system(f, g, first);
        self.b.inst_results(call)[0]
    }

    /// Loads a word that a native, or a function with many results, has left.
    pub(crate) fn result_word(&mut self, index: usize, ty: ir::Type) -> Value {
        let g = self.goroutine();
        self.b.ins().load(ty, MemFlagsData::trusted(), g, (G_RESULTS + 8 * index) as i32)
    }

    pub(crate) fn result_ref(&mut self, index: usize) -> Value {
        let v = self.result_word(index, clif::I64);
        self.refv(v)
    }

    /// What comes next is compiled from this place. Returns the line before.
    pub(crate) fn at(&mut self, pos: Pos) -> u32 {
        let line = self.c.program.files.position(pos).map_or(self.line, |p| p.line as u32);
        let before = self.line;
        self.set_line(line);
        before
    }

    pub(crate) fn set_line(&mut self, line: u32) {
        self.line = line;
        self.b.set_srcloc(ir::SourceLoc::new(line));
    }

    /// Goes on if `ok`, else panics with a run-time error.
    pub(crate) fn check(&mut self, ok: Value, failure: Failure, args: &[Value]) {
        let (bad, go_on) = (self.b.create_block(), self.b.create_block());
        self.b.set_cold_block(bad);
        self.b.ins().brif(ok, go_on, &[], bad, &[]);
        self.b.switch_to_block(bad);
        self.fail(failure, args);
        self.b.switch_to_block(go_on);
    }

    /// Panics with a run-time error. The block is filled.
    pub(crate) fn fail(&mut self, failure: Failure, args: &[Value]) {
        let which = self.iconst(failure as i64);
        let mut all = vec![which];
        all.extend_from_slice(args);
        all.resize_with(3, || self.b.ins().iconst(clif::I64, 0));
        let f = self.c.emitter.reference(self.c.panicking.fail, self.b.func);
        self.b.ins().call(f, &all);
        self.b.ins().trap(TrapCode::unwrap_user(1));
    }

    pub(crate) fn check_nil(&mut self, pointer: Value) {
        let ok = self.b.ins().icmp_imm_s(IntCC::NotEqual, pointer, 0);
        self.check(ok, Failure::NilDereference, &[]);
    }

    /// Starts a block that nothing jumps to, for code behind a jump.
    pub(crate) fn start_dead_block(&mut self) {
        let dead = self.b.create_block();
        self.b.switch_to_block(dead);
    }

    pub(crate) fn error(&self, pos: Pos, message: impl Into<String>) -> CompileError {
        self.c.program.error(pos, message)
    }

    pub(crate) fn kind(&self, t: Ty) -> Kind {
        self.c.types.kind(t).clone()
    }
}
