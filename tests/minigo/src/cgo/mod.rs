//! `import "C"`: calls of C functions from Go, and of Go functions from C.
//!
//! `source` rewrites the text of a Go file. `declarations` asks the C compiler about the names of C
//! in it and declares them in Go. After the check, `library` compiles the C text above the import,
//! a wrapper for each function that is called either way, and the C files in the program's
//! directory.

mod compiler;
mod constants;
mod declarations;
pub(crate) mod library;
mod sections;
pub(crate) mod source;

use crate::error::{CompileError, Compiled};
use crate::os::{self, Missing};
use crate::walk::{Node, children};
use declarations::{Descriptions, Function, Kind, c_spelling, function_declarations, go_name};
use go_parser::ast::{CallExpr, Decl, Expr, Spec, Stmt};
use go_parser::{AstObjects, ErrorList, FileSet, IdentKey};
use sections::Sections;
use source::{ADDRESS, Source, UNSAFE_POINTER, WITH_ERRNO};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The C side of a program.
pub(crate) struct Unit {
    file: String,
    directory: PathBuf,
    source: Source,
    functions: BTreeMap<String, Function>,
    /// C functions that the program calls, calls with errno, and takes the address of.
    called: BTreeSet<String>,
    with_errno: BTreeSet<String>,
    addresses: BTreeSet<String>,
    /// C variables that the program uses.
    variables: BTreeSet<String>,
}

/// Functions of package C that C does not have.
const HELPERS: [(&str, &str); 5] = [
    ("CString", "(s string) *C\u{a78f}char"),
    ("GoString", "(p *C\u{a78f}char) string"),
    ("GoStringN", "(p *C\u{a78f}char, n C\u{a78f}int) string"),
    ("GoBytes", "(p C\u{a78f}unsafe.Pointer, n C\u{a78f}int) []byte"),
    ("CBytes", "(b []byte) C\u{a78f}unsafe.Pointer"),
];

/// What the helpers' declarations need.
const HELPER_TYPES: [&str; 2] = ["char", "int"];

/// Reads a Go file. If it imports C: its C side, and the text to be checked in the place of the
/// file's.
pub(crate) fn read(path: &Path, text: &str) -> Compiled<Option<(Unit, String)>> {
    let file = path.display().to_string();
    let Some(mut source) = source::read(&file, text)? else { return Ok(None) };
    os::has(Missing::C).map_err(|missing| CompileError {
        place: format!("{file}:{}", source.import_line),
        message: missing.to_string(),
    })?;
    source.compile_flags.splice(0..0, compiler::flags("CGO_CFLAGS"));
    source.link_flags.splice(0..0, compiler::flags("CGO_LDFLAGS"));
    let mut places = BTreeMap::new();
    for u in &source.uses {
        places.entry(u.name.clone()).or_insert_with(|| format!("{file}:{}:{}", u.line, u.column));
    }
    let mut names: Vec<String> = places.keys().filter(|n| !is_helper(n)).cloned().collect();
    for t in HELPER_TYPES {
        if !names.iter().any(|n| n == t) {
            names.push(t.into());
        }
    }
    let scratch = Scratch::new(&file)?;
    let kinds = classify(&file, &source, &scratch, &names, &places)?;
    let Described { types, mut declarations, functions, variables } =
        describe(&file, &source, &scratch, &kinds, &places)?;
    let marks = Marks::of(path, &source.text.iter().collect::<String>());
    let [mut called, mut with_errno, mut addresses] = [(); 3].map(|()| BTreeSet::new());
    for u in &source.uses {
        if !functions.contains_key(&u.name) {
            continue;
        }
        let (mark, set) = match (marks.errno.contains(&u.point), marks.called.contains(&u.point)) {
            (true, _) => (Some(WITH_ERRNO), &mut with_errno),
            (_, true) => (None, &mut called),
            _ => (Some(ADDRESS), &mut addresses),
        };
        set.insert(u.name.clone());
        if let Some(mark) = mark {
            source.text[u.point] = mark;
        }
    }
    declarations.push_str(&types);
    for (name, rest) in HELPERS {
        let _ = writeln!(declarations, "func {}{rest}", go_name(name));
    }
    let _ = writeln!(declarations, "var _ {UNSAFE_POINTER}");
    let mut checked: String = source.text.iter().collect();
    checked.push('\n');
    checked.push_str(&declarations);
    let directory =
        path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let unit =
        Unit { file, directory, source, functions, called, with_errno, addresses, variables };
    Ok(Some((unit, checked)))
}

fn is_helper(name: &str) -> bool {
    HELPERS.iter().any(|(h, _)| *h == name)
}

/// A directory for the C compiler, removed in the end.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    fn new(file: &str) -> Compiled<Scratch> {
        static COUNT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("minigo-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|e| io_error(file, &path, &e))?;
        Ok(Scratch(path))
    }

    /// Writes a file into it.
    fn write(&self, file: &str, name: &str, text: &str) -> Compiled<PathBuf> {
        let path = self.0.join(name);
        std::fs::write(&path, text).map_err(|e| io_error(file, &path, &e))?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn io_error(file: &str, path: &Path, e: &std::io::Error) -> CompileError {
    CompileError { place: file.into(), message: format!("{}: {e}", path.display()) }
}

/// What a preamble may use of Go's strings.
const GO_STRINGS: &str = "typedef struct { const char *p; ptrdiff_t n; } _GoString_;
static inline size_t _GoStringLen(_GoString_ s) { return (size_t)s.n; }
static inline const char *_GoStringPtr(_GoString_ s) { return s.p; }
";

/// The preamble as C text, with the lines of the Go file.
fn preamble(source: &Source, file: &str) -> String {
    format!(
        "#include <stddef.h>\n{GO_STRINGS}{}{}\n",
        compiler::line_directive(source.preamble_line, file),
        source.preamble
    )
}

/// What a name is in C, as its compiler sees it.
#[derive(Clone, Copy, PartialEq)]
enum Class {
    Type,
    Integer,
    Float,
    String,
    /// A function or a variable.
    Object,
    /// Another expression.
    Expression,
}

/// C's spelling of `name` where an expression is wanted.
fn expression(name: &str) -> String {
    match name.strip_prefix("sizeof_") {
        Some(t) => format!("sizeof({})", c_spelling(t)),
        None => c_spelling(name),
    }
}

/// Asks the C compiler which of some uses of each name it accepts.
fn classify(
    file: &str,
    source: &Source,
    scratch: &Scratch,
    names: &[String],
    places: &BTreeMap<String, String>,
) -> Compiled<Vec<(String, Class)>> {
    let mut text = preamble(source, file);
    for (i, name) in names.iter().enumerate() {
        let (c, line) = (expression(name), i + 1);
        let _ = write!(
            text,
            "#line {line} \"minigo-declared\"\n\
             void __minigo_a{i}(void) {{ __typeof__({c}) *__minigo; }}\n\
             #line {line} \"minigo-type\"\n\
             void __minigo_b{i}(void) {{ {c} *__minigo; }}\n\
             #line {line} \"minigo-constant\"\n\
             void __minigo_c{i}(void) {{ enum {{ __minigo = ({c})*1 }}; }}\n\
             #line {line} \"minigo-number\"\n\
             void __minigo_d{i}(void) {{ static const double __minigo = ({c}); }}\n\
             #line {line} \"minigo-string\"\n\
             void __minigo_e{i}(void) {{ static const char __minigo[] = ({c}); }}\n\
             #line {line} \"minigo-object\"\n\
             void __minigo_f{i}(void) {{ (void)&({c}); }}\n"
        );
    }
    let path = scratch.write(file, "classify.c", &text)?;
    let mut arguments: Vec<String> =
        ["-w", "-fsyntax-only", "-fmax-errors=0"].map(String::from).to_vec();
    arguments.extend(source.compile_flags.iter().cloned());
    arguments.extend(include_directory(file));
    arguments.push(compiler::argument(&path));
    let messages = compiler::run(file, &arguments)?.messages;
    let mut refused: HashMap<&str, HashSet<usize>> = HashMap::new();
    for line in
        messages.lines().filter(|l| l.contains(": error: ") || l.contains(": fatal error: "))
    {
        let mut parts = line.splitn(3, ':');
        match (parts.next(), parts.next().and_then(|n| n.parse().ok())) {
            (Some(probe), Some(n)) if probe.starts_with("minigo-") => {
                refused.entry(probe).or_default().insert(n);
            }
            _ => return Err(compiler::first_error(file, line)),
        }
    }
    let is = |probe: &str, i: usize| !refused.get(probe).is_some_and(|r| r.contains(&(i + 1)));
    let mut out = vec![];
    for (i, name) in names.iter().enumerate() {
        if !is("minigo-declared", i) {
            let place = places.get(name).cloned().unwrap_or_else(|| file.into());
            return Err(CompileError { place, message: format!("C.{name} is not declared in C") });
        }
        let classes = [
            ("minigo-type", Class::Type),
            ("minigo-constant", Class::Integer),
            ("minigo-number", Class::Float),
            ("minigo-string", Class::String),
            ("minigo-object", Class::Object),
        ];
        let found = classes.iter().find(|(probe, _)| is(probe, i));
        let class = found.map_or(Class::Expression, |(_, class)| *class);
        out.push((name.clone(), class));
    }
    Ok(out)
}

fn include_directory(file: &str) -> Vec<String> {
    let directory =
        Path::new(file).parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    vec![format!("-I{}", directory.display())]
}

/// What is declared in Go for the names of C.
struct Described {
    types: String,
    /// All the others.
    declarations: String,
    functions: BTreeMap<String, Function>,
    variables: BTreeSet<String>,
}

fn describe(
    file: &str,
    source: &Source,
    scratch: &Scratch,
    kinds: &[(String, Class)],
    places: &BTreeMap<String, String>,
) -> Compiled<Described> {
    let mut text = preamble(source, file);
    for (i, (name, class)) in kinds.iter().enumerate() {
        let c = expression(name);
        let _ = match class {
            Class::Integer => writeln!(
                text,
                "unsigned long long __minigo_{i}[] = \
                 {{ (unsigned long long)({c}), ({c}) < 0 }};"
            ),
            Class::Float => writeln!(text, "double __minigo_{i} = ({c});"),
            Class::String => writeln!(text, "char __minigo_{i}[] = ({c});"),
            _ => writeln!(text, "__typeof__({c}) *__minigo_{i};"),
        };
    }
    let path = scratch.write(file, "describe.c", &text)?;
    let object = scratch.0.join("describe.o");
    let mut arguments: Vec<String> =
        ["-w", "-g", "-O0", "-gdwarf-4", "-fno-lto", "-fno-common", "-c"]
            .map(String::from)
            .to_vec();
    arguments.extend(source.compile_flags.iter().cloned());
    arguments.extend(include_directory(file));
    arguments.extend(["-o".into(), compiler::argument(&object), compiler::argument(&path)]);
    compiler::must_run(file, &arguments)?;
    let bytes = std::fs::read(&object).map_err(|e| io_error(file, &object, &e))?;
    let whole = |e: declarations::DeclarationError| CompileError {
        place: file.into(),
        message: e.to_string(),
    };
    let sections = Sections::read(&bytes).map_err(|e| whole(e.into()))?;
    let mut descriptions = Descriptions::read(&sections).map_err(whole)?;
    let mut out = Described {
        types: String::new(),
        declarations: String::new(),
        functions: BTreeMap::new(),
        variables: BTreeSet::new(),
    };
    for (i, (name, class)) in kinds.iter().enumerate() {
        let variable = format!("__minigo_{i}");
        let failed = |message: String| {
            let place = places.get(name).cloned().unwrap_or_else(|| file.into());
            CompileError { place, message }
        };
        if let Some(value) = match class {
            Class::Integer => constants::integer(&bytes, &variable),
            Class::Float => constants::float(&bytes, &variable),
            Class::String => constants::string(&bytes, &variable),
            _ => None,
        } {
            let _ = writeln!(out.declarations, "const {} = {value}", go_name(name));
            continue;
        }
        if name == "errno" {
            return Err(failed(
                "C.errno cannot be used: a call has it as its second result".into(),
            ));
        }
        if *class == Class::Expression {
            return Err(failed(format!("C.{name} is an expression in C, which is not supported")));
        }
        match descriptions.kind(&variable, name, *class == Class::Type) {
            Ok(Kind::Type) => {}
            Ok(Kind::Function(f)) => {
                if f.c_params.iter().chain(&f.c_result).any(String::is_empty) {
                    return Err(failed(format!(
                        "C.{name} has a parameter or result of a type without a name in C"
                    )));
                }
                out.declarations.push_str(&function_declarations(name, &f));
                out.functions.insert(name.clone(), f);
            }
            Ok(Kind::Variable(go)) => {
                let _ = writeln!(out.declarations, "var {} {go}", go_name(name));
                out.variables.insert(name.clone());
            }
            Err(e) => return Err(failed(format!("C.{name}: {e}"))),
        }
    }
    out.types = descriptions.types();
    Ok(out)
}

/// Where in a text, in characters, the points of called C names are.
#[derive(Default)]
struct Marks {
    called: HashSet<usize>,
    errno: HashSet<usize>,
}

impl Marks {
    /// None in a text that cannot be parsed: its errors are reported later.
    fn of(path: &Path, text: &str) -> Marks {
        let (mut files, mut ast) = (FileSet::new(), AstObjects::new());
        let errors = ErrorList::new();
        let (_, file) = go_parser::parse_file(
            &mut ast,
            &mut files,
            &errors,
            &path.display().to_string(),
            text,
            false,
        );
        let mut marks = Marks::default();
        let point = |i: IdentKey| files.position(ast.idents[i].pos).map(|p| p.offset + 1);
        let mut each = |n: Node<'_>| match n {
            Node::Expr(Expr::Call(c)) => marks.called.extend(callee(c).and_then(point)),
            Node::Stmt(Stmt::Assign(a)) => {
                let a = &ast.a_stmts[*a];
                if let ([_, _], [Expr::Call(c)]) = (&a.lhs[..], &a.rhs[..]) {
                    marks.errno.extend(callee(c).and_then(point));
                }
            }
            Node::Stmt(Stmt::Decl(d)) => {
                if let Decl::Gen(g) = &**d {
                    g.specs.iter().for_each(|s| spec(&ast.specs[*s], &mut marks.errno, &point));
                }
            }
            _ => {}
        };
        for d in file.iter().flat_map(|f| &f.decls) {
            match d {
                Decl::Gen(g) => {
                    for s in &g.specs {
                        if let Spec::Value(v) = &ast.specs[*s] {
                            v.values.iter().for_each(|e| visit(Node::Expr(e), &ast, &mut each));
                        }
                    }
                }
                Decl::Func(f) => {
                    for s in ast.fdecls[*f].body.iter().flat_map(|b| &b.list) {
                        visit(Node::Stmt(s), &ast, &mut each);
                    }
                }
                Decl::Bad(_) => {}
            }
        }
        for d in file.iter().flat_map(|f| &f.decls) {
            if let Decl::Gen(g) = d {
                g.specs.iter().for_each(|s| spec(&ast.specs[*s], &mut marks.errno, &point));
            }
        }
        marks
    }
}

/// `var r, err = C.f()`.
fn spec(s: &Spec, errno: &mut HashSet<usize>, point: &impl Fn(IdentKey) -> Option<usize>) {
    if let Spec::Value(v) = s
        && let ([_, _], [Expr::Call(c)]) = (&v.names[..], &v.values[..])
    {
        errno.extend(callee(c).and_then(point));
    }
}

fn visit(n: Node<'_>, ast: &AstObjects, f: &mut dyn FnMut(Node<'_>)) {
    f(n);
    children(n, ast, &mut |c| visit(c, ast, f));
}

fn callee(c: &CallExpr) -> Option<IdentKey> {
    let mut func = &c.func;
    while let Expr::Paren(p) = func {
        func = &p.expr;
    }
    match func {
        Expr::Ident(i) => Some(*i),
        _ => None,
    }
}
