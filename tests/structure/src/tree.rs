//! The modules of a crate.

use crate::lexer::{Kind, Token, tokens};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A module that an ordinary build compiles.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its path from the root of the crate: empty for the root itself.
    pub path: Vec<String>,
    /// The file that it is in.
    pub file: PathBuf,
    /// Its tokens, without those of modules within and of what only tests compile.
    pub tokens: Vec<Token>,
}

/// Where source texts come from.
pub trait Source {
    /// The text of a file, if there is such a file.
    fn read(&self, file: &Path) -> Option<String>;
}

/// The file system.
impl Source for () {
    fn read(&self, file: &Path) -> Option<String> {
        std::fs::read_to_string(file).ok()
    }
}

/// Files in memory, for tests.
impl Source for BTreeMap<&str, &str> {
    fn read(&self, file: &Path) -> Option<String> {
        self.get(file.to_str()?).map(|text| (*text).to_owned())
    }
}

/// All modules of the crate whose root is this file.
///
/// # Panics
/// If the file of a module is missing.
pub fn crate_tree(source: &dyn Source, root: &Path) -> Vec<Module> {
    let mut reader = Reader { source, modules: Vec::new() };
    reader.file(Vec::new(), root);
    reader.modules
}

struct Reader<'a> {
    source: &'a dyn Source,
    modules: Vec<Module>,
}

impl Reader<'_> {
    fn file(&mut self, path: Vec<String>, file: &Path) {
        let text = self.source.read(file);
        let text = text.unwrap_or_else(|| panic!("{}: cannot be read", file.display()));
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a file name");
        let directory = file.parent().expect("a file in a directory");
        let children = match stem {
            "lib" | "main" | "mod" => directory.to_owned(),
            _ => directory.join(stem),
        };
        self.module(path, file, &children, &tokens(&text));
    }

    /// Takes a module's tokens, those within its braces if it has braces. `children` is the
    /// directory of the modules within that are files.
    fn module(&mut self, path: Vec<String>, file: &Path, children: &Path, all: &[Token]) {
        let mut kept = Vec::new();
        let mut within = Vec::new();
        let mut named = None;
        let mut at = 0;
        while at < all.len() {
            let rest = &all[at..];
            if let Some(length) = attribute(rest) {
                if never(&rest[..length]) {
                    let after = attributes(rest);
                    at += after + item(&rest[after..]);
                    continue;
                }
                if is(rest, &["#", "[", "path", "="]) {
                    named = Some(&*rest[4].text);
                }
                kept.extend_from_slice(&rest[..length]);
                at += length;
            } else if is(rest, &["macro_rules", "!"]) {
                at += 3 + group(&rest[3..]);
            } else if rest[0].is("mod") && rest.get(1).is_some_and(|t| t.kind == Kind::Word) {
                let length = if is(&rest[2..], &[";"]) { 3 } else { 2 + group(&rest[2..]) };
                within.push((named.take(), &rest[..length]));
                at += length;
            } else {
                kept.push(rest[0].clone());
                at += 1;
            }
        }
        self.modules.push(Module { path: path.clone(), file: file.to_owned(), tokens: kept });
        for (named, declaration) in within {
            let name = &declaration[1].text;
            let path = [path.as_slice(), std::slice::from_ref(name)].concat();
            match declaration {
                [_, _, _] => {
                    let places = match named {
                        Some(place) => vec![file.with_file_name(place)],
                        None => vec![
                            children.join(format!("{name}.rs")),
                            children.join(name).join("mod.rs"),
                        ],
                    };
                    let file = places.iter().find(|place| self.source.read(place).is_some());
                    let file = file.unwrap_or_else(|| panic!("no file of module {path:?}"));
                    self.file(path, file);
                }
                [_, _, _, inside @ .., _] => {
                    self.module(path, file, &children.join(name), inside);
                }
                _ => unreachable!("a declaration has three tokens at least"),
            }
        }
    }
}

fn is(tokens: &[Token], texts: &[&str]) -> bool {
    tokens.len() >= texts.len() && tokens.iter().zip(texts).all(|(token, text)| token.is(text))
}

/// The length of the attribute that begins here, if one does.
fn attribute(tokens: &[Token]) -> Option<usize> {
    if is(tokens, &["#", "["]) {
        Some(1 + group(&tokens[1..]))
    } else if is(tokens, &["#", "!", "["]) {
        Some(2 + group(&tokens[2..]))
    } else {
        None
    }
}

/// The length of all attributes that begin here.
fn attributes(tokens: &[Token]) -> usize {
    let mut at = 0;
    while let Some(length) = attribute(&tokens[at..]) {
        at += length;
    }
    at
}

/// The length of the group in braces, brackets or parentheses that begins here.
fn group(tokens: &[Token]) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match &*token.text {
            _ if token.kind == Kind::Text => {}
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth <= 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// The length of the item, field, variant, arm or statement that begins here.
fn item(tokens: &[Token]) -> usize {
    let visibility = match tokens {
        [public, open, ..] if public.is("pub") && open.is("(") => 1 + group(&tokens[1..]),
        [public, ..] if public.is("pub") => 1,
        _ => 0,
    };
    let word = |at: usize| tokens.get(visibility + at).map_or("", |token| &token.text);
    let function = ["fn", "unsafe", "extern", "async"].contains(&word(1));
    let to_semicolon = match word(0) {
        "use" | "static" | "type" | "let" => true,
        "const" => !function,
        "extern" => word(1) == "crate",
        _ => false,
    };
    let braced = [
        "fn",
        "unsafe",
        "async",
        "const",
        "extern",
        "impl",
        "trait",
        "struct",
        "enum",
        "union",
        "mod",
        "macro_rules",
    ];
    let braced = braced.contains(&word(0));
    let mut at = visibility;
    while let Some(token) = tokens.get(at) {
        match &*token.text {
            _ if token.kind == Kind::Text => at += 1,
            ";" => return at + 1,
            "," if !to_semicolon && !braced => return at + 1,
            ")" | "]" | "}" => return at,
            "{" if !to_semicolon => return at + group(&tokens[at..]),
            "(" | "[" | "{" => at += group(&tokens[at..]),
            _ => at += 1,
        }
    }
    at
}

/// Whether an attribute is a `cfg` that no ordinary build meets.
fn never(attribute: &[Token]) -> bool {
    is(attribute, &["#", "[", "cfg", "("]) && holds(&attribute[4..]) == Some(false)
}

/// Whether a condition of a `cfg` holds in an ordinary build, if that is known.
fn holds(condition: &[Token]) -> Option<bool> {
    if !is(&condition[1..], &["("]) {
        let no = ["test", "fuzzing", "doctest"].iter().any(|name| condition[0].is(name));
        return if no { Some(false) } else { None };
    }
    let inside = &condition[2..1 + group(&condition[1..])];
    let mut parts = Vec::new();
    let mut at = 0;
    while at + 1 < inside.len() {
        parts.push(holds(&inside[at..]));
        while at < inside.len() && !inside[at].is(",") {
            at += if inside[at].is("(") { group(&inside[at..]) } else { 1 };
        }
        at += 1;
    }
    match &*condition[0].text {
        "not" => parts[0].map(|holds| !holds),
        "all" if parts.contains(&Some(false)) => Some(false),
        "any" if parts.iter().all(|part| *part == Some(false)) => Some(false),
        "any" if parts.contains(&Some(true)) => Some(true),
        "all" if parts.iter().all(|part| *part == Some(true)) => Some(true),
        _ => None,
    }
}
