//! The pages of the guide: their code is included from files that the workspace compiles, and what
//! they refer to exists.

use crate::tree::Source;
use std::path::{Component, Path, PathBuf};

/// Languages of blocks that are no code of the workspace: commands, and what programs print.
const FREE: &[&str] = &["sh", "text"];

/// The other languages, and the extensions of the files that their blocks include.
const LANGUAGES: &[(&str, &[&str])] =
    &[("rust", &["rs"]), ("c", &["c", "h"]), ("cpp", &["cc"]), ("llvm", &["ll"]), ("asm", &["s"])];

/// A page of the guide, which is Markdown with the includes of mdBook.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The directory of the guide. Its own files hold no code.
    pub guide: &'a Path,
    /// The file of the page.
    pub file: &'a Path,
    /// Its text.
    pub text: &'a str,
}

/// A fenced block.
struct Block<'a> {
    /// The line that it begins in.
    line: usize,
    /// The characters of its fence.
    fence: &'a str,
    /// The first word behind it.
    language: &'a str,
    /// Whether it holds anything.
    is_empty: bool,
}

impl Page<'_> {
    /// What is wrong with it: the line and the fault. Code of its own, also where Markdown takes it
    /// from the indentation; an include without its file or anchor; a link to no page.
    pub fn faults(&self, source: &dyn Source) -> Vec<(usize, String)> {
        let mut faults = Vec::new();
        let mut block: Option<Block<'_>> = None;
        for (line, text) in self.text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
            let trimmed = text.trim();
            let Some(open) = &mut block else {
                if let Some(fence) = fence(trimmed) {
                    let language = trimmed[fence.len()..].split([',', ' ']).next().unwrap_or("");
                    block = Some(Block { line, fence, language, is_empty: true });
                } else if text.starts_with("    ") || text.starts_with('\t') {
                    faults.push((line, "an indented block".into()));
                } else if text.contains("{{#") {
                    faults.push((line, "an include outside of a block".into()));
                } else {
                    let links = links(text).filter_map(|link| self.link(link, source));
                    faults.extend(links.map(|fault| (line, fault)));
                }
                continue;
            };
            if fence(trimmed).is_some_and(|f| f.starts_with(open.fence) && f == trimmed) {
                if open.is_empty {
                    faults.push((open.line, "an empty block".into()));
                }
                block = None;
                continue;
            }
            if trimmed.is_empty() {
                continue;
            }
            open.is_empty = false;
            let fault = match included(trimmed) {
                Some(include) => self.include(open.language, include, source),
                None if FREE.contains(&open.language) => None,
                None => Some(format!("code of its own in a block of {:?}", open.language)),
            };
            faults.extend(fault.map(|fault| (line, fault)));
        }
        faults.extend(block.map(|open| (open.line, "a block without an end".into())));
        faults
    }

    /// The file that a page names, without `.` and `..`.
    fn place(&self, path: &str) -> PathBuf {
        let mut place = self.file.parent().unwrap_or(Path::new("")).to_owned();
        for component in Path::new(path).components() {
            match component {
                Component::ParentDir => drop(place.pop()),
                Component::CurDir => {}
                other => place.push(other),
            }
        }
        place
    }

    /// What is wrong with an include of `FILE` or `FILE:ANCHOR`. Lines are not counted: they would
    /// shift with the file.
    fn include(&self, language: &str, include: &str, source: &dyn Source) -> Option<String> {
        let (path, anchor) = include.split_once(':').unwrap_or((include, ""));
        let file = self.place(path);
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        let known = LANGUAGES.iter().find(|(name, _)| *name == language);
        if !FREE.contains(&language) && !known.is_some_and(|(_, all)| all.contains(&extension)) {
            return Some(format!("{path} in a block of {language:?}"));
        }
        if file.starts_with(self.guide) {
            return Some(format!("{path} is a file of the guide"));
        }
        let Some(text) = source.read(&file) else {
            return Some(format!("there is no file {path}"));
        };
        if anchor.is_empty() {
            return (include != path).then(|| format!("{include} names no anchor"));
        }
        let at = |mark: &str| text.lines().position(|line| marks(line, mark, anchor));
        match (at("ANCHOR:"), at("ANCHOR_END:")) {
            (Some(begin), Some(end)) if begin + 1 < end => None,
            (Some(_), Some(_)) => Some(format!("nothing is in the anchor {anchor} of {path}")),
            _ => Some(format!("{path} has no anchor {anchor}")),
        }
    }

    /// What is wrong with a link, which leads to a page or out of the guide by a URL.
    fn link(&self, link: &str, source: &dyn Source) -> Option<String> {
        let path = link.split('#').next().unwrap_or("");
        let is_right = path.is_empty()
            || link.contains("://")
            || self.place(path).starts_with(self.guide) && source.read(&self.place(path)).is_some();
        (!is_right).then(|| format!("a link to {link}, which is no page"))
    }
}

/// The fence that a line begins with: three or more of one character.
fn fence(line: &str) -> Option<&str> {
    let kind = line.chars().next().filter(|first| matches!(first, '`' | '~'))?;
    let length = line.len() - line.trim_start_matches(kind).len();
    (length >= 3).then(|| &line[..length])
}

/// What a line includes, if it does nothing else.
fn included(line: &str) -> Option<&str> {
    line.strip_prefix("{{#include ")?.strip_suffix("}}").map(str::trim)
}

/// Whether a line has this mark of mdBook's with this name.
fn marks(line: &str, mark: &str, name: &str) -> bool {
    line.split_once(mark).is_some_and(|(_, rest)| rest.split_whitespace().next() == Some(name))
}

/// The targets of the links in a line.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}
