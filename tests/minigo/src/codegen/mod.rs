//! The back end: from the checked syntax tree to Cranelift's IR and on to machine code, one
//! function at a time.

mod abi;
mod allocation;
mod assignment;
mod builtin;
mod call;
mod closure;
mod composite;
mod constant;
mod convert;
mod defer;
mod expression;
mod foreign;
mod function;
mod hoist;
mod interface;
mod map;
mod memory;
mod operator;
mod panicking;
mod place;
mod range;
mod select;
mod standard;
mod statement;
mod target;
mod text;
mod thunk;
mod variables;

use crate::cgo::library::Symbols;
use crate::code::Code;
use crate::error::Compiled;
use crate::escape::{self, Escapes};
use crate::front::Program;
use crate::module::{Emitter, Entries, Target};
use crate::recursion::Recursion;
use crate::types::{Kind, Sig, Ty, Types};
use function::FuncGen;
use go_parser::ast::{Decl, Expr, FuncLit, Spec};
use go_parser::{FuncDeclKey, IdentKey, Pos};
use go_types::ObjKey;
use stackmark_cranelift::FuncId;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

/// Everything that outlives the compilation of one function.
pub(crate) struct Compiler<'p> {
    pub(crate) program: &'p Program,
    pub(crate) types: Types,
    pub(crate) emitter: Emitter,
    functions: HashMap<ObjKey, FuncId>,
    /// By receiver: names, objects and functions.
    methods: HashMap<Ty, Vec<(String, ObjKey, FuncId)>>,
    globals: HashMap<ObjKey, usize>,
    /// Types whose method tables are made.
    tables: HashSet<Ty>,
    literals: VecDeque<Literal>,
    recursion: Recursion,
    /// The function that is compiled, or whose literals are; None: the initialisers.
    outermost: Option<FuncId>,
    panicking: panicking::Panicking,
    /// See [`Compiler::gosched`].
    gosched: Option<FuncId>,
    /// Where C functions are.
    c_symbols: Option<&'p Symbols>,
    c_functions: HashMap<ObjKey, foreign::CFunction>,
    /// Float constants.
    exact: crate::exact::Exact,
}

/// A function literal that has been referred to and is yet to be compiled.
struct Literal {
    lit: Rc<FuncLit>,
    id: FuncId,
    sig: Rc<Sig>,
    captures: Vec<ObjKey>,
    escapes: Rc<Escapes>,
    depth: u32,
}

/// As large as Go's linker lets all variables of a program become.
const MAX_GLOBAL_BYTES: u64 = 2_000_000_000;

/// Compiles a program. What runs first is `Code::start`.
pub(crate) fn compile(program: &Program, c_symbols: Option<&Symbols>) -> Compiled<Code> {
    let (c, entries) = generate(program, c_symbols, Target::Memory)?;
    c.emitter.finish(&entries)
}

/// Compiles a program without C code for a linker. Returns the object file.
pub(crate) fn build(program: &Program) -> Compiled<Vec<u8>> {
    let (c, entries) = generate(program, None, Target::Object)?;
    c.emitter.finish_object(&entries, c.types.infos())
}

/// All code of a program.
fn generate<'p>(
    program: &'p Program,
    c_symbols: Option<&'p Symbols>,
    target: Target,
) -> Compiled<(Compiler<'p>, Entries)> {
    let types = Types::new();
    let mut emitter = Emitter::new(program.file_name(), target)?;
    let panicking = panicking::declare(&mut emitter);
    let mut c = Compiler {
        program,
        types,
        emitter,
        panicking,
        gosched: None,
        c_symbols,
        c_functions: HashMap::new(),
        functions: HashMap::new(),
        methods: HashMap::new(),
        globals: HashMap::new(),
        tables: HashSet::new(),
        literals: VecDeque::new(),
        recursion: Recursion::default(),
        outermost: None,
        exact: crate::exact::constants(program)?,
    };
    c.lay_out_globals()?;
    let (functions, inits, main) = c.declare_functions()?;
    c.recursion = Recursion::new(program, &c.functions);
    for (decl, id, obj) in functions {
        c.outermost = Some(id);
        c.function(decl, id, obj)?;
        c.drain_literals()?;
    }
    c.outermost = None;
    let start = c.start(&inits, main)?;
    c.drain_literals()?;
    c.define_panicking();
    let exports = c.export_thunks()?;
    let goroutine = c.goroutine_start();
    let (raise, exports) = (c.panicking.raise, c_symbols.map(|_| exports));
    let [error, runtime_error] = c.error_methods();
    let text = c.text_caller()?;
    let entries = Entries { start, goroutine, raise, exports, error, runtime_error, text };
    Ok((c, entries))
}

impl<'p> Compiler<'p> {
    pub(crate) fn object_type(&mut self, obj: ObjKey, pos: Pos) -> Compiled<Ty> {
        match self.program.tc.lobjs[obj].typ() {
            Some(t) => self.supported(t, pos),
            None => Err(self.program.error(pos, "a variable without a type")),
        }
    }

    /// The back end's view of a type, or an error that names the part it cannot represent.
    pub(crate) fn supported(&mut self, key: go_types::TypeKey, pos: Pos) -> Compiled<Ty> {
        let t = self.types.of(key, &self.program.tc);
        match self.types.unsupported(t) {
            Some(what) => Err(self.program.error(pos, format!("{what} are not supported"))),
            None => Ok(t),
        }
    }

    fn file_decls(&self) -> impl Iterator<Item = &'p Decl> + use<'p> {
        self.program.info().ast_files.iter().flat_map(|f| &f.decls)
    }

    fn lay_out_globals(&mut self) -> Compiled<()> {
        let program = self.program;
        for d in self.file_decls() {
            let Decl::Gen(g) = d else { continue };
            for s in &g.specs {
                match &program.ast.specs[*s] {
                    Spec::Value(v) if g.token == go_parser::Token::VAR => {
                        for i in &v.names {
                            if let Some(Some(obj)) = program.info().defs.get(i) {
                                let pos = program.ast.idents[*i].pos;
                                let t = self.object_type(*obj, pos)?;
                                let layout = self.types.layout(t);
                                if layout.size > MAX_GLOBAL_BYTES {
                                    return Err(program
                                        .error(pos, "a variable of this size is not supported"));
                                }
                                if let Some(at) = self.c_variable(&program.ast.idents[*i].name) {
                                    self.globals.insert(*obj, at);
                                    continue;
                                }
                                let at = self.emitter.global(&layout);
                                if let Some(function) = self.c_address(&program.ast.idents[*i].name)
                                {
                                    // SAFETY: a new variable of one word, and no managed code runs
                                    // yet.
                                    unsafe { *(at as *mut usize) = function };
                                }
                                self.globals.insert(*obj, at);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    #[allow(clippy::type_complexity, reason = "used once, right above")]
    fn declare_functions(
        &mut self,
    ) -> Compiled<(Vec<(FuncDeclKey, FuncId, ObjKey)>, Vec<FuncId>, FuncId)> {
        let program = self.program;
        let (mut all, mut inits, mut main) = (vec![], vec![], None);
        for d in self.file_decls() {
            let Decl::Func(key) = d else { continue };
            let decl = &program.ast.fdecls[*key];
            let ident = &program.ast.idents[decl.name];
            if decl.body.is_none() {
                if let (Some(f), Some(obj)) =
                    (foreign::CFunction::declared_as(&ident.name), self.definition(decl.name))
                {
                    self.c_functions.insert(obj, f);
                    continue;
                }
                return Err(
                    program.error(ident.pos, format!("missing function body of {}", ident.name))
                );
            }
            let Some(obj) = self.definition(decl.name) else { continue };
            let sig = self.function_sig(obj, ident.pos)?;
            let mut name = format!("main.{}", ident.name);
            let mut receiver = None;
            if let Some(recv) = self.receiver_type(obj) {
                let recv = self.supported(recv, ident.pos)?;
                receiver = Some(recv);
                name = match self.types.kind(recv) {
                    Kind::Pointer(_) if !self.types.is_named(recv) => {
                        format!(
                            "main.(*{}).{}",
                            self.types.name(recv).trim_start_matches("*main."),
                            ident.name
                        )
                    }
                    _ => format!("{}.{}", self.types.name(recv), ident.name),
                };
            }
            let signature = abi::signature(&mut self.types, &sig, false);
            let id = self.emitter.declare_signature(&name, signature);
            self.functions.insert(obj, id);
            if let Some(receiver) = receiver {
                self.methods.entry(receiver).or_default().push((ident.name.clone(), obj, id));
            }
            if decl.recv.is_none() && ident.name == "init" {
                inits.push(id);
            } else if decl.recv.is_none() && ident.name == "main" {
                main = Some(id);
            }
            all.push((*key, id, obj));
        }
        let Some(main) = main else {
            let pos = program.info().ast_files.first().map_or(0, |f| f.package);
            return Err(program.error(pos, "function main is undeclared in the main package"));
        };
        Ok((all, inits, main))
    }

    /// The object that an identifier declares.
    pub(crate) fn definition(&self, ident: IdentKey) -> Option<ObjKey> {
        self.program.info().defs.get(&ident).copied().flatten()
    }

    fn receiver_type(&self, func: ObjKey) -> Option<go_types::TypeKey> {
        let tc = &self.program.tc;
        let sig = tc.types[tc.lobjs[func].typ()?].try_as_signature()?;
        tc.lobjs[(*sig.recv())?].typ()
    }

    /// The signature of a declared function; the receiver of a method is its first parameter.
    pub(crate) fn function_sig(&mut self, func: ObjKey, pos: Pos) -> Compiled<Rc<Sig>> {
        let t = self.object_type(func, pos)?;
        let Kind::Func(sig) = self.types.kind(t).clone() else {
            return Err(self.program.error(pos, "not a function"));
        };
        match self.receiver_type(func) {
            None => Ok(sig),
            Some(recv) => {
                let mut sig = (*sig).clone();
                sig.params.insert(0, self.supported(recv, pos)?);
                Ok(Rc::new(sig))
            }
        }
    }

    fn function(&mut self, key: FuncDeclKey, id: FuncId, obj: ObjKey) -> Compiled<()> {
        let program = self.program;
        let decl = &program.ast.fdecls[key];
        let Some(body) = &decl.body else { return Ok(()) };
        let sig = self.function_sig(obj, program.ast.idents[decl.name].pos)?;
        let typ = &program.ast.ftypes[decl.typ];
        let params = decl.recv.iter().flat_map(|r| &r.list).chain(&typ.params.list);
        let params: Vec<Option<ObjKey>> = self.parameter_objects(params.copied());
        let results = self.result_objects(decl.typ);
        let known: Vec<ObjKey> = params.iter().copied().flatten().collect();
        let escapes = Rc::new(escape::analyse(program, &mut self.types, &known, &body.list));
        FuncGen::compile(
            self,
            function::Source { id, sig, params, results, body, escapes, depth: 0, captures: None },
        )
    }

    fn drain_literals(&mut self) -> Compiled<()> {
        while let Some(l) = self.literals.pop_front() {
            let typ = &self.program.ast.ftypes[l.lit.typ];
            let params = self.parameter_objects(typ.params.list.iter().copied());
            let results = self.result_objects(l.lit.typ);
            let source = function::Source {
                id: l.id,
                sig: l.sig,
                params,
                results,
                body: &l.lit.body,
                escapes: l.escapes,
                depth: l.depth,
                captures: Some(&l.captures),
            };
            FuncGen::compile(self, source)?;
        }
        Ok(())
    }

    /// One entry for each parameter; None for those without a name.
    fn parameter_objects(
        &self,
        fields: impl Iterator<Item = go_parser::FieldKey>,
    ) -> Vec<Option<ObjKey>> {
        let mut out = vec![];
        for f in fields {
            let f = &self.program.ast.fields[f];
            if f.names.is_empty() {
                out.push(None);
            }
            out.extend(f.names.iter().map(|i| self.definition(*i)));
        }
        out
    }

    /// The named results, if they have names.
    fn result_objects(&self, typ: go_parser::FuncTypeKey) -> Vec<Option<ObjKey>> {
        let fields =
            self.program.ast.ftypes[typ].results.iter().flat_map(|r| r.list.iter().copied());
        self.parameter_objects(fields)
    }

    /// Compiles what the first goroutine runs: the initialisation of the package, then `main`.
    fn start(&mut self, inits: &[FuncId], main: FuncId) -> Compiled<FuncId> {
        let sig = Rc::default();
        let name = "main.init".to_string();
        let signature = abi::signature(&mut self.types, &sig, true);
        let id = self.emitter.declare("minigo.start", signature, crate::code::Role::Runtime);
        let program = self.program;
        let mut variables = vec![];
        for i in crate::init_order::initialisers(program) {
            let Some(rhs) = i.rhs else { continue };
            let statement = [go_parser::ast::Stmt::Expr(Box::new(rhs.clone()))];
            let escapes = Rc::new(escape::analyse(program, &mut self.types, &[], &statement));
            variables.push((i.lhs, rhs, escapes));
        }
        FuncGen::compile_start(self, id, name, sig, variables, inits, main)?;
        Ok(id)
    }

    /// The function object of a function that captures nothing.
    pub(crate) fn type_of_expr(&mut self, e: &Expr) -> Compiled<Ty> {
        let pos = go_parser::ast::Node::pos(e, &self.program.ast);
        match self.program.info().types.get(&go_parser::ast::Node::id(e)) {
            Some(tv) => self.supported(tv.typ, pos),
            None => match e {
                Expr::Ident(i) => {
                    let info = self.program.info();
                    match info.uses.get(i).copied().or_else(|| info.defs.get(i).copied().flatten())
                    {
                        Some(obj) => self.object_type(obj, pos),
                        None => Err(self.program.error(pos, "an expression without a type")),
                    }
                }
                _ => Err(self.program.error(pos, "an expression without a type")),
            },
        }
    }
}
