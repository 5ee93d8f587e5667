//! The front end: reads, parses and type-checks a program with `go-parser` and `go-types`.
//!
//! Two gaps of that port of Go 1.12 are closed here. It refuses signed shift counts, which Go has
//! allowed since 1.13: the source is checked again with the count wrapped in `uint(…)`, and the
//! back end is told where. And it may panic on broken input.

use crate::cgo;
use crate::error::{CompileError, Compiled};
use crate::walk::{Node, children};
use go_parser::ast::{self, Decl, Expr, Node as _, Spec, Stmt};
use go_parser::{AstObjects, ErrorList, FileSet, Map, Pos, Token};
use go_types::check::TypeInfo;
use go_types::{ImportKey, Importer, PackageKey, SourceRead, TCObjects, TraceConfig};
use std::collections::BTreeSet;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// The standard packages: what they declare; the runtime implements it.
const STANDARD: &[(&str, &str)] = &[
    ("fmt", include_str!("../std/fmt.go")),
    ("runtime", include_str!("../std/runtime.go")),
    ("time", include_str!("../std/time.go")),
];

/// A checked program.
pub(crate) struct Program {
    pub(crate) files: FileSet,
    pub(crate) ast: AstObjects,
    pub(crate) tc: TCObjects,
    pub(crate) results: Map<PackageKey, TypeInfo>,
    pub(crate) main: PackageKey,
    /// The C side, if the program imports C.
    pub(crate) c: Option<cgo::Unit>,
    /// Character offsets, in the text as checked, at which `uint(` was put before a shift count.
    wrapped: BTreeSet<usize>,
}

const WRAP: &str = "uint(";

impl Program {
    pub(crate) fn info(&self) -> &TypeInfo {
        &self.results[&self.main]
    }

    /// `FILE.go:LINE:COLUMN` in the text as it was written.
    pub(crate) fn place(&self, pos: Pos) -> String {
        match self.files.position(pos) {
            Some(p) => place(&p, &self.wrapped),
            None => "?".into(),
        }
    }

    /// Whether the conversion at `pos` was put there around a signed shift count.
    pub(crate) fn is_wrapped_count(&self, pos: Pos) -> bool {
        self.files.position(pos).is_some_and(|p| self.wrapped.contains(&p.offset))
    }

    /// The program's file, as it was named.
    pub(crate) fn file_name(&self) -> String {
        let pos = self.info().ast_files.first().map_or(0, |f| f.package);
        self.files.position(pos).map_or(String::new(), |p| p.filename.to_string())
    }

    pub(crate) fn error(&self, pos: Pos, message: impl Into<String>) -> CompileError {
        CompileError { place: self.place(pos), message: message.into() }
    }
}

fn place(p: &go_parser::FilePos, wrapped: &BTreeSet<usize>) -> String {
    // Both ends of a wrapping lie on one line; only those before this column shift it.
    let line_start = p.offset + 1 - p.column.max(1);
    let before = wrapped.range(line_start..p.offset).count();
    let column = p.column.saturating_sub(before * (WRAP.len() + 1)).max(1);
    format!("{}:{}:{}", p.filename, p.line, column)
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl SourceRead for Reader<'_> {
    fn working_dir(&self) -> &Path {
        Path::new("./")
    }
    fn base_dir(&self) -> Option<&Path> {
        None
    }
    fn read_file(&self, path: &Path) -> io::Result<String> {
        if path == self.path {
            return Ok(self.text.to_owned());
        }
        STANDARD
            .iter()
            .find(|(name, _)| path == Path::new(&format!("std/{name}.go")))
            .map(|(_, text)| (*text).to_owned())
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
    fn read_dir(&self, _: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(vec![])
    }
    fn is_file(&self, _: &Path) -> bool {
        true
    }
    fn is_dir(&self, _: &Path) -> bool {
        false
    }
    fn canonicalize_import(&self, key: &ImportKey) -> io::Result<(PathBuf, String)> {
        if key.path == "main" && key.dir == "main" {
            return Ok((self.path.to_owned(), "main".into()));
        }
        match STANDARD.iter().find(|(name, _)| *name == key.path) {
            Some((name, _)) => Ok((format!("std/{name}.go").into(), (*name).into())),
            None => Err(io::Error::other(format!(
                "package {:?} is not supported (only fmt, runtime, unsafe and C are)",
                key.path
            ))),
        }
    }
}

/// Reads and checks the program in `path`.
pub(crate) fn check(path: &Path) -> Compiled<Program> {
    let whole = |message: String| CompileError { place: path.display().to_string(), message };
    if path.extension().is_none_or(|e| e != "go") {
        return Err(whole("not a .go file".into()));
    }
    let text = std::fs::read(path).map_err(|e| whole(format!("cannot read the file: {e}")))?;
    let mut text = String::from_utf8(text).map_err(|_| whole("the file is not UTF-8".into()))?;
    if text.is_empty() {
        return Err(whole("the file is empty".into()));
    }
    let mut wrapped = BTreeSet::new();
    let c = match cgo::read(path, &text)? {
        Some((unit, checked)) => {
            text = checked;
            Some(unit)
        }
        None => None,
    };
    // Wrapping one count can bring the next error of this kind to light. The loop ends: each round
    // wraps at least one more count.
    loop {
        let quiet = QuietPanics::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| check_text(path, &text, &wrapped)));
        drop(quiet);
        match outcome {
            Err(_) => return Err(whole("the front end cannot handle this program".into())),
            Ok(Ok(program)) => return Ok(Program { c, ..program }),
            Ok(Err(Failure::Error(e))) => return Err(e),
            Ok(Err(Failure::SignedCounts(counts))) => wrap(&mut text, &mut wrapped, counts),
        }
    }
}

/// Keeps the message of a caught panic off stderr.
struct QuietPanics;

impl QuietPanics {
    fn new() -> QuietPanics {
        std::panic::set_hook(Box::new(|_| {}));
        QuietPanics
    }
}

impl Drop for QuietPanics {
    fn drop(&mut self) {
        let _ = std::panic::take_hook();
    }
}

enum Failure {
    Error(CompileError),
    /// Character ranges of shift counts that are signed.
    SignedCounts(Vec<(usize, usize)>),
}

fn wrap(text: &mut String, wrapped: &mut BTreeSet<usize>, mut counts: Vec<(usize, usize)>) {
    counts.sort();
    counts.dedup();
    let chars: Vec<char> = text.chars().collect();
    let mut inserts: Vec<(usize, &str)> = vec![];
    for (from, to) in &counts {
        inserts.push((*from, WRAP));
        inserts.push((*to, ")"));
    }
    inserts.sort_by_key(|(at, what)| (*at, what.len()));
    let shift = |old: usize| {
        old + inserts
            .iter()
            .filter(|(at, what)| *at < old || (*at == old && what.len() == 1))
            .map(|i| i.1.len())
            .sum::<usize>()
    };
    let before: Vec<usize> = wrapped.iter().copied().collect();
    *wrapped = before
        .into_iter()
        .map(|o| o + inserts.iter().filter(|(at, _)| *at <= o).map(|i| i.1.len()).sum::<usize>())
        .collect();
    wrapped.extend(counts.iter().map(|(from, _)| shift(*from)));
    let mut out = String::with_capacity(text.len() + 6 * counts.len());
    let mut next = 0;
    for (at, what) in inserts {
        out.extend(&chars[next..at]);
        out.push_str(what);
        next = at;
    }
    out.extend(&chars[next..]);
    *text = out;
}

fn check_text(path: &Path, text: &str, wrapped: &BTreeSet<usize>) -> Result<Program, Failure> {
    let config = TraceConfig { trace_parser: false, trace_checker: false };
    let reader = Reader { path, text };
    let (mut files, mut ast, mut tc) = (FileSet::new(), AstObjects::new(), TCObjects::new());
    let (mut packages, mut results) = (Map::new(), Map::new());
    let errors = ErrorList::new();
    let key = ImportKey::new("main", "main");
    let main = Importer::new(
        &config,
        &reader,
        &mut files,
        &mut packages,
        &mut results,
        &mut ast,
        &mut tc,
        &errors,
        0,
    )
    .import(&key);
    if errors.len() > 0 {
        let counts = signed_counts(path, text, &errors);
        if !counts.is_empty() {
            return Err(Failure::SignedCounts(counts));
        }
        errors.sort();
        let list = errors.borrow();
        // A failed import says why in an error that has no place of its own.
        let imports = list.iter().find(|e| e.msg.contains("canonicalize import error"));
        let first = list.iter().find(|e| e.pos.is_valid() && e.pos.line > 0).or(list.first());
        let e = first.expect("the list is not empty");
        let message = match imports {
            Some(i) if e.msg.contains("could not import") || !e.pos.is_valid() => {
                i.msg.replace("canonicalize import error: ", "")
            }
            _ => e.msg.clone(),
        };
        let message = cgo::source::with_points(&message);
        let place = match e.pos.line {
            0 => path.display().to_string(),
            _ => place(&e.pos, wrapped),
        };
        return Err(Failure::Error(CompileError { place, message }));
    }
    let whole = |m: &str| {
        Failure::Error(CompileError { place: path.display().to_string(), message: m.into() })
    };
    let main = main.map_err(|()| whole("the front end refuses this program without saying why"))?;
    if tc.pkgs[main].name().as_deref() != Some("main") {
        return Err(whole("the package is not main"));
    }
    let program = Program { files, ast, tc, results, main, c: None, wrapped: wrapped.clone() };
    Ok(program)
}

/// Where the checker refused a shift count for being signed.
fn signed_counts(path: &Path, text: &str, errors: &ErrorList) -> Vec<(usize, usize)> {
    let offsets: Vec<usize> = errors
        .borrow()
        .iter()
        .filter(|e| {
            e.msg.starts_with("shift count ") && e.msg.ends_with(" must be unsigned integer")
        })
        .map(|e| e.pos.offset)
        .collect();
    if offsets.is_empty() {
        return vec![];
    }
    let (mut files, mut ast) = (FileSet::new(), AstObjects::new());
    let ignored = ErrorList::new();
    let (_, file) = go_parser::parse_file(
        &mut ast,
        &mut files,
        &ignored,
        &path.display().to_string(),
        text,
        false,
    );
    let Some(file) = file else { return vec![] };
    let mut found = vec![];
    let mut visit = |count: &Expr| {
        let offset = |pos: Pos| files.position(pos).map(|p| p.offset);
        if let (Some(from), Some(to)) =
            (offset(count.pos(&ast)), end_of(count, &ast).and_then(offset))
            && offsets.contains(&from)
        {
            found.push((from, to));
        }
    };
    for_each_shift_count(&file, &ast, &mut visit);
    found
}

fn for_each_shift_count(file: &ast::File, ast: &AstObjects, found: &mut dyn FnMut(&Expr)) {
    fn go(node: Node<'_>, ast: &AstObjects, found: &mut dyn FnMut(&Expr)) {
        match node {
            Node::Expr(Expr::Binary(b)) if matches!(b.op, Token::SHL | Token::SHR) => {
                found(&b.expr_b)
            }
            Node::Stmt(Stmt::Assign(a)) => {
                let a = &ast.a_stmts[*a];
                if matches!(a.token, Token::SHL_ASSIGN | Token::SHR_ASSIGN) {
                    a.rhs.iter().for_each(&mut *found);
                }
            }
            _ => {}
        }
        children(node, ast, &mut |n| go(n, ast, found));
    }
    for d in &file.decls {
        match d {
            Decl::Gen(g) => {
                for s in &g.specs {
                    if let Spec::Value(v) = &ast.specs[*s] {
                        v.values.iter().for_each(|e| go(Node::Expr(e), ast, found));
                    }
                }
            }
            Decl::Func(f) => {
                for s in ast.fdecls[*f].body.iter().flat_map(|b| &b.list) {
                    go(Node::Stmt(s), ast, found);
                }
            }
            Decl::Bad(_) => {}
        }
    }
}

fn end_of(e: &Expr, ast: &AstObjects) -> Option<Pos> {
    Some(match e {
        ast::Expr::Ident(i) => {
            let i = &ast.idents[*i];
            i.pos + i.name.chars().count()
        }
        _ => e.end(ast),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, text: &str) -> Compiled<Program> {
        let dir = std::env::temp_dir().join(format!("minigo-front-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let path = dir.join(format!("{name}.go"));
        std::fs::write(&path, text).expect("a temporary file");
        check(&path)
    }

    #[test]
    fn signed_shift_counts_are_accepted() {
        let text =
            "package main\n\nfunc main() {\n\tn := 3\n\tprintln(1<<n, 8>>(n-1), 1<<(n<<n))\n}\n";
        let program = checked("shifts", text).expect("Go accepts it");
        assert_eq!(program.wrapped.len(), 4);
    }

    #[test]
    fn errors_behind_a_wrapped_count_keep_their_column() {
        let text = "package main\n\nfunc main() {\n\tn := 3\n\tprintln(1<<n, undefined)\n}\n";
        let Err(e) = checked("column", text) else { panic!("an undefined name") };
        assert!(e.place.ends_with("column.go:5:16"), "{e}");
    }

    #[test]
    fn an_unknown_package_is_named_with_its_line() {
        let Err(e) =
            checked("imports", "package main\n\nimport \"os\"\n\nfunc main() { os.Exit(0) }\n")
        else {
            panic!("package os is not supported")
        };
        assert!(e.message.contains("\"os\""), "{e}");
        assert!(e.place.contains("imports.go:3"), "{e}");
    }
}
