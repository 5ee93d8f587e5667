//! One function: its prologue and polls, calls of natives and run-time checks.

use super::Compiler;
use crate::error::{CompileError, Compiled};
use crate::escape::Escapes;
use crate::runtime::natives::{self, Failure};
use crate::types::{Kind, Sig, Ty};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, Block, InstBuilder, TrapCode, Value, types as clif};
use cranelift_frontend::{FunctionBuilderContext, Variable};
use go_parser::Pos;
use go_parser::ast::{BlockStmt, Expr, NodeId};
use go_types::ObjKey;
use stackmark_cranelift::{Apart, FuncId, Start};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
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
    pub(crate) b: Builder<'a>,
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
    /// The way out, if the function has defer statements.
    pub(crate) defers: Option<super::defer::Defers>,
    /// From this block on nothing computed elsewhere is used, see `defer`.
    pub(crate) isolated: Option<Block>,
    /// The source line of what is compiled, 0 if there is none.
    pub(crate) line: u32,
}

impl<'p> Compiler<'p> {
    /// Defines a declared function. `body` enters it and fills it.
    pub(crate) fn try_define<E>(
        &mut self,
        id: FuncId,
        sig: &Rc<Sig>,
        body: impl FnOnce(&mut FuncGen<'_, 'p>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut func = self.emitter.empty(id);
        let mut context = FunctionBuilderContext::new();
        let b = self.emitter.builder(id, &mut func, &mut context);
        let mut g = FuncGen::new(self, b, sig);
        body(&mut g)?;
        let FuncGen { b, isolated, .. } = g;
        if let Err(error) = b.finish() {
            unreachable!("{error}");
        }
        self.emitter.define(id, func, isolated);
        Ok(())
    }

    /// As [`Compiler::try_define`], with a body that does not fail.
    pub(crate) fn define(
        &mut self,
        id: FuncId,
        sig: &Rc<Sig>,
        body: impl FnOnce(&mut FuncGen<'_, 'p>),
    ) {
        let Ok(()) = self.try_define(id, sig, |g| -> Result<(), Infallible> {
            body(g);
            Ok(())
        });
    }

    /// As [`Compiler::define`], for a function of the runtime, which has no signature in Go.
    pub(crate) fn define_own(&mut self, id: FuncId, body: impl FnOnce(&mut FuncGen<'_, 'p>)) {
        self.define(id, &Rc::default(), body);
    }
}

/// A function of the crate's, apart from its module: literals and thunks are compiled meanwhile.
pub(crate) type Builder<'a> = stackmark_cranelift::Function<'a, Apart>;

impl<'a, 'p> FuncGen<'a, 'p> {
    /// Compiles a declared function or a literal.
    pub(crate) fn compile(c: &mut Compiler<'p>, s: Source<'_>) -> Compiled<()> {
        c.try_define(s.id, &s.sig.clone(), |g| {
            (g.escapes, g.depth) = (s.escapes, s.depth);
            g.at(s.body.l_brace);
            g.b.enter(Start::Managed);
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
            g.end_defers()
        })
    }

    /// Compiles the start function, which is called `name` in the names of its literals.
    pub(crate) fn compile_start(
        c: &mut Compiler<'p>,
        id: FuncId,
        name: String,
        sig: Rc<Sig>,
        variables: Vec<(Vec<ObjKey>, Expr, Rc<Escapes>)>,
        inits: &[FuncId],
        main: FuncId,
    ) -> Compiled<()> {
        c.try_define(id, &sig, |g| {
            g.name = name;
            g.b.enter(Start::Managed);
            for (lhs, rhs, escapes) in variables {
                g.escapes = escapes;
                g.initialise_globals(&lhs, &rhs)?;
            }
            for f in inits.iter().chain([&main]) {
                g.call_function(*f, &[]);
            }
            g.await_panics();
            g.b.native(natives::exit, &[]);
            g.b.ins().return_(&[]);
            Ok(())
        })
    }

    /// Before the program ends: lets panics of other goroutines run what is deferred. As in Go, if
    /// that takes no more than so many yields.
    fn await_panics(&mut self) {
        const YIELDS: i64 = 1000;
        let yields = self.b.declare_var(clif::I64);
        let none = self.b.int(0);
        self.b.def_var(yields, none);
        let [head, count, again, done] = [(); 4].map(|()| self.b.create_block());
        self.b.ins().jump(head, &[]);
        self.b.switch_to_block(head);
        let n = self.b.use_var(yields);
        let running = self.b.native(natives::panics_running, &[n]);
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

    pub(super) fn new(c: &'a mut Compiler<'p>, b: Builder<'a>, sig: &Rc<Sig>) -> FuncGen<'a, 'p> {
        FuncGen {
            c,
            name: b.name().to_string(),
            b,
            vars: HashMap::new(),
            escapes: Rc::default(),
            sig: sig.clone(),
            literals: 0,
            depth: 0,
            targets: vec![],
            labels: HashMap::new(),
            pending_label: None,
            result_vars: None,
            hoisted: BTreeMap::new(),
            slots: HashMap::new(),
            defers: None,
            isolated: None,
            line: 0,
        }
    }

    /// A constant address outside of the heap.
    pub(crate) fn address(&mut self, at: usize) -> Value {
        self.b.address(at)
    }

    pub(crate) fn iadd_ref(&mut self, base: Value, offset: i64) -> Value {
        if offset == 0 {
            return base;
        }
        let v = self.b.ins().iadd_imm_s(base, offset);
        self.b.reference(v)
    }

    /// Calls a managed function.
    pub(crate) fn call_function(&mut self, f: FuncId, args: &[Value]) -> Vec<Value> {
        let called = self.c.emitter.call(&mut self.b, f, args);
        called.expect("the arguments of the signature")
    }

    /// Lets other goroutines run.
    pub(crate) fn yield_now(&mut self) {
        let gosched = self.c.gosched();
        self.call_function(gosched, &[]);
    }

    pub(crate) fn result_ref(&mut self, index: usize) -> Value {
        self.b.result_reference(index)
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
        let which = self.b.int(failure as i64);
        let mut all = vec![which];
        all.extend_from_slice(args);
        all.resize_with(3, || self.b.int(0));
        self.call_function(self.c.panicking.fail, &all);
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
