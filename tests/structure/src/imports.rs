//! Which file imports which.

use crate::lexer::{Kind, Token};
use crate::tree::Module;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A path in one file that leads to another file of the crate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The file with the path.
    pub from: PathBuf,
    /// The line of the path.
    pub line: usize,
    /// The file of the module that the path leads to. Where that one re-exports the name, it is the
    /// one that is imported.
    pub to: PathBuf,
    /// The path, from the root of the crate.
    pub path: String,
}

/// All imports between files of a crate, sorted by file and line: by `use`, and by paths in code
/// that begin with `crate`, `self`, `super` or a module within.
///
/// A path leads to the file of the last module that it names. A `mod` alone imports nothing. After
/// `use child as other;` in a parent, `other` is one more name of the module `child`.
pub fn imports(modules: &[Module]) -> Vec<Import> {
    let mut files: BTreeMap<Vec<String>, &Path> =
        modules.iter().map(|module| (module.path.clone(), module.file.as_path())).collect();
    for module in modules {
        for [used, child, renamed, other, end] in module.tokens.array_windows() {
            let path =
                |name: &Token| [module.path.as_slice(), std::slice::from_ref(&name.text)].concat();
            if used.is("use")
                && renamed.is("as")
                && end.is(";")
                && let Some(&file) = files.get(&path(child))
            {
                files.insert(path(other), file);
            }
        }
    }
    let mut all = Vec::new();
    for module in modules {
        for (line, path) in paths(&module.tokens) {
            let Some(path) = from_root(&path, module, &files) else { continue };
            let lengths = (0..=path.len()).rev();
            let file = lengths.filter_map(|length| files.get(&path[..length])).next();
            let file = *file.expect("the root is a module");
            if file != module.file {
                let path = [&["crate".to_owned()], path.as_slice()].concat().join("::");
                all.push(Import { from: module.file.clone(), line, to: file.to_owned(), path });
            }
        }
    }
    all.sort_by(|a, b| (&a.from, a.line, &a.to).cmp(&(&b.from, b.line, &b.to)));
    all.dedup_by(|a, b| (&a.from, a.line, &a.to) == (&b.from, b.line, &b.to));
    all
}

/// A path as the root of the crate would write it; `None` if it leads to another crate, or begins
/// with something that a `use` has brought.
fn from_root(
    path: &[String],
    module: &Module,
    files: &BTreeMap<Vec<String>, &Path>,
) -> Option<Vec<String>> {
    let mut base = module.path.clone();
    let mut rest = path;
    match &*path[0] {
        "crate" => (base, rest) = (Vec::new(), &path[1..]),
        "self" => rest = &path[1..],
        "super" => {}
        _ => {
            base.push(path[0].clone());
            files.get(&base)?;
            return Some([base, path[1..].to_vec()].concat());
        }
    }
    while rest.first().is_some_and(|name| name == "super") {
        base.pop()?;
        rest = &rest[1..];
    }
    Some([base.as_slice(), rest].concat())
}

/// All paths of at least two names, with their lines. Those of a `use` are taken apart.
fn paths(tokens: &[Token]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        if token.is("pub") && tokens.get(at + 1).is_some_and(|next| next.is("(")) {
            // The path in `pub(in path)` is no import.
            at += tokens[at..].iter().position(|t| t.is(")")).expect("it is closed");
        } else if token.is("use") && tokens.get(at + 1).is_some_and(|next| !next.is("<")) {
            // Not the `use<..>` of a type.
            at += 1;
            at += use_tree(&tokens[at..], &[], &mut found);
        } else if token.kind == Kind::Word && !(at > 0 && tokens[at - 1].is("::")) {
            let (length, names) = names(&tokens[at..]);
            let is_macro = tokens.get(at + length).is_some_and(|next| next.is("!"));
            if names.len() > 1 && !is_macro {
                found.push((token.line, names));
            }
            at += length;
        } else {
            at += 1;
        }
    }
    found
}

/// The names that `::` joins from here on, and the number of tokens.
fn names(tokens: &[Token]) -> (usize, Vec<String>) {
    let mut names = vec![tokens[0].text.clone()];
    let mut at = 1;
    while let [colons, name, ..] = &tokens[at..]
        && colons.is("::")
        && name.kind == Kind::Word
    {
        names.push(name.text.clone());
        at += 2;
    }
    (at, names)
}

/// Takes apart what stands after `use`; the number of tokens.
fn use_tree(tokens: &[Token], before: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = before.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match &*token.text {
            "::" => at += 1,
            "{" => {
                at += 1;
                while !tokens[at].is("}") {
                    at += use_tree(&tokens[at..], &path, found);
                    if tokens[at].is(",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            "*" => at += 1,
            "as" => at += 2,
            // In braces: what stands before them. Otherwise it begins the path.
            "self" if !before.is_empty() => at += 1,
            _ if token.kind == Kind::Word => {
                path.push(token.text.clone());
                at += 1;
            }
            _ => break,
        }
    }
    found.push((tokens[0].line, path));
    at
}
