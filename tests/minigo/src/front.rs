//! The front end: reads, parses and type-checks a program with `go-parser` and `go-types`.
//!
//! Gaps of that port of Go 1.12 are closed by `mend`, which changes the text and has it checked
//! again, and by `overflow`. And it may panic on broken input.

mod mend;
mod overflow;

use crate::cgo;
use crate::error::{CompileError, Compiled};
use go_parser::{AstObjects, ErrorList, FileSet, Map, Pos};
use go_types::check::TypeInfo;
use go_types::{ImportKey, Importer, PackageKey, SourceRead, TCObjects, TraceConfig};
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
    /// The text as checked.
    text: mend::Text,
}

impl Program {
    pub(crate) fn info(&self) -> &TypeInfo {
        &self.results[&self.main]
    }

    /// `FILE.go:LINE:COLUMN` in the text as it was written.
    pub(crate) fn place(&self, pos: Pos) -> String {
        match self.files.position(pos) {
            Some(p) => place(&p, &self.text),
            None => "?".into(),
        }
    }

    /// Whether the conversion at `pos` was put there around a signed shift count.
    pub(crate) fn is_wrapped_count(&self, pos: Pos) -> bool {
        self.files.position(pos).is_some_and(|p| self.text.has_count(p.offset))
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

fn place(p: &go_parser::FilePos, text: &mend::Text) -> String {
    format!("{}:{}:{}", p.filename, p.line, text.column(p))
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
    let c = match cgo::read(path, &text)? {
        Some((unit, checked)) => {
            text = checked;
            Some(unit)
        }
        None => None,
    };
    let mut text = mend::Text::new(text);
    refuse_large_constants(path, &text)?;
    // The error behind which type assertions have been changed.
    let mut impossible = None;
    // One change can bring the next error of its kind to light. The loop ends: each round changes
    // at least one more place.
    loop {
        let quiet = QuietPanics::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| check_text(path, &text)));
        drop(quiet);
        match outcome {
            Err(_) => return Err(whole("the front end cannot handle this program".into())),
            Ok(Ok(program)) => {
                let Program { files, ast, tc, .. } = &program;
                if let Some(error) = impossible
                    && mend::hidden_from_concrete(&text, files, ast, tc, program.info())
                {
                    return Err(error);
                }
                return Ok(Program { c, ..program });
            }
            Ok(Err(Failure::Error(e))) => return Err(e),
            Ok(Err(Failure::SignedCounts(counts))) => text.wrap_counts(counts),
            Ok(Err(Failure::Sizes(pieces))) => text.put_in(pieces),
            Ok(Err(Failure::Impossible(error, pieces))) => {
                impossible.get_or_insert(error);
                text.put_in(pieces);
            }
            Ok(Err(Failure::Conversion(error))) => {
                if !text.rename_elements(path) {
                    return Err(error);
                }
                // Still wrong, or a name that means something else in this program.
                if let Err(Failure::Conversion(_) | Failure::Error(_)) = check_text(path, &text) {
                    return Err(error);
                }
            }
        }
    }
}

fn refuse_large_constants(path: &Path, text: &mend::Text) -> Compiled<()> {
    let Some(parsed) = mend::Parsed::of(path, &text.text) else { return Ok(()) };
    match overflow::check(&parsed.file, &parsed.ast) {
        None => Ok(()),
        Some(e) => {
            let place = parsed.files.position(e.pos).map(|p| place(&p, text));
            let place = place.unwrap_or_else(|| path.display().to_string());
            Err(CompileError { place, message: e.message })
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
    /// Sizes have been computed that are not Go's.
    Sizes(Vec<mend::Piece>),
    /// A type assertion that the operand's type rules out.
    Impossible(CompileError, Vec<mend::Piece>),
    /// A conversion that may be one between strings and slices of their elements.
    Conversion(CompileError),
}

fn check_text(path: &Path, mended: &mend::Text) -> Result<Program, Failure> {
    let text = &mended.text;
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
    // Before the errors: they may come of wrong sizes.
    let checked = main.ok().and_then(|main| results.get(&main));
    let sizes = checked.map_or(vec![], |info| mend::sizes(mended, &files, &ast, &tc, info));
    if !sizes.is_empty() {
        return Err(Failure::Sizes(sizes));
    }
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
            _ => place(&e.pos, mended),
        };
        let error = CompileError { place, message };
        if e.msg.contains(" cannot have dynamic type ") && e.msg.contains("(wrong type for method")
        {
            let parsed = mend::Parsed::of(path, text);
            let pieces = parsed.map_or(vec![], |parsed| parsed.hidden_operand(e.pos.offset));
            if !pieces.is_empty() {
                return Err(Failure::Impossible(error, pieces));
            }
        }
        if e.msg.starts_with("cannot convert ") {
            return Err(Failure::Conversion(error));
        }
        return Err(Failure::Error(error));
    }
    let whole = |m: &str| {
        Failure::Error(CompileError { place: path.display().to_string(), message: m.into() })
    };
    let main = main.map_err(|()| whole("the front end refuses this program without saying why"))?;
    if tc.pkgs[main].name().as_deref() != Some("main") {
        return Err(whole("the package is not main"));
    }
    Ok(Program { files, ast, tc, results, main, c: None, text: mended.clone() })
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
    mend::Parsed::of(path, text).map_or(vec![], |parsed| parsed.shift_counts(&offsets))
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
        assert_eq!(program.text.text.matches("uint(").count(), 4);
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
