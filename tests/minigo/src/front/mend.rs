//! Changes of a program's text before it is checked again.
//!
//! The front end is a port of Go 1.12's checker. Where it refuses what Go 1.19 accepts, or computes
//! something else, text is put in that has the meaning wanted, and the text is checked again.

use crate::types::{Kind, Types};
use crate::walk::{Node, everything};
use go_parser::ast::{self, CallExpr, Expr, Node as _, SelectorExpr, Stmt};
use go_parser::{AstObjects, ErrorList, FileSet, Pos, Token};
use go_types::{ConstValue, TCObjects, check::TypeInfo};
use std::collections::BTreeMap;
use std::path::Path;

/// Text to be put in: where, in characters.
pub(super) struct Piece {
    at: usize,
    text: String,
    closes: bool,
}

/// A program's text with what has been put in.
#[derive(Clone, Default)]
pub(super) struct Text {
    pub(super) text: String,
    /// The pieces by their places in the text as it is now.
    pieces: BTreeMap<usize, String>,
}

/// Begins a conversion around a signed shift count, which Go has allowed since 1.13.
const COUNT: &str = "uint(";
/// Between an expression and its right value: what is used stays used, and constant.
const CORRECTION: &str = "*0+";
/// Begins a conversion that hides the type of a type assertion's operand.
const HIDE: &str = "interface{}(";

impl Text {
    pub(super) fn new(text: String) -> Text {
        Text { text, ..Text::default() }
    }

    /// The column in the text as it was written of a place in the text as it is.
    pub(super) fn column(&self, p: &go_parser::FilePos) -> usize {
        let line_start = p.offset + 1 - p.column.max(1);
        let pieces = self.pieces.range(line_start..p.offset);
        let before: usize = pieces.map(|(_, piece)| piece.chars().count()).sum();
        p.column.saturating_sub(before).max(1)
    }

    fn has(&self, offset: usize, piece: &str) -> bool {
        self.pieces.get(&offset).is_some_and(|p| p == piece)
    }

    /// The range of an expression with the corrections of its value around it, and the value of the
    /// outermost, if there is one.
    fn corrected(&self, (mut from, mut to): (usize, usize)) -> ((usize, usize), Option<u64>) {
        let mut value = None;
        while let Some(before) = from.checked_sub(1).filter(|at| self.has(*at, "("))
            && let Some(piece) = self.pieces.get(&to)
            && let Some(rest) = piece.strip_prefix(CORRECTION)
        {
            value = rest.trim_end_matches(')').parse().ok();
            (from, to) = (before, to + piece.chars().count());
        }
        ((from, to), value)
    }

    /// Whether a conversion around a shift count was put in at this offset.
    pub(super) fn has_count(&self, offset: usize) -> bool {
        self.has(offset, COUNT)
    }

    /// Wraps shift counts.
    pub(super) fn wrap_counts(&mut self, mut ranges: Vec<(usize, usize)>) {
        ranges.sort_unstable();
        ranges.dedup();
        self.put_in(ranges.iter().flat_map(|r| around(*r, COUNT, ")")).collect());
    }

    pub(super) fn put_in(&mut self, mut pieces: Vec<Piece>) {
        // What ends somewhere ends before what begins there.
        pieces.sort_by_key(|p| (p.at, !p.closes));
        let len = |p: &Piece| p.text.chars().count();
        let moved =
            |old: usize| old + pieces.iter().take_while(|p| p.at <= old).map(len).sum::<usize>();
        let mut now: BTreeMap<usize, String> =
            std::mem::take(&mut self.pieces).into_iter().map(|(at, p)| (moved(at), p)).collect();
        let chars: Vec<char> = self.text.chars().collect();
        let mut out = String::with_capacity(self.text.len() + 16 * pieces.len());
        let (mut next, mut written) = (0, 0);
        for p in &pieces {
            out.extend(&chars[next..p.at]);
            written += p.at - next;
            next = p.at;
            now.insert(written, p.text.clone());
            out.push_str(&p.text);
            written += len(p);
        }
        out.extend(&chars[next..]);
        (self.text, self.pieces) = (out, now);
    }

    /// Writes each `uint8` as `byte` and each `int32` as `rune`, which are the same types: the
    /// front end converts strings only from and to slices of those names. False: there are none.
    pub(super) fn rename_elements(&mut self, path: &Path) -> bool {
        let Some(parsed) = Parsed::of(path, &self.text) else { return false };
        let mut chars: Vec<char> = self.text.chars().collect();
        let mut found = false;
        parsed.expressions(&mut |e| {
            let Expr::Ident(i) = e else { return };
            let ident = &parsed.ast.idents[*i];
            let other = match &ident.name[..] {
                "uint8" => "byte ",
                "int32" => "rune ",
                _ => return,
            };
            if let Some(from) = parsed.offset(ident.pos) {
                chars.splice(from..from + other.len(), other.chars());
                found = true;
            }
        });
        self.text = chars.into_iter().collect();
        found
    }
}

/// Pieces on both sides of a range.
fn around((from, to): (usize, usize), open: &str, close: &str) -> [Piece; 2] {
    [
        Piece { at: from, text: open.into(), closes: false },
        Piece { at: to, text: close.into(), closes: true },
    ]
}

/// A text that has been parsed.
pub(super) struct Parsed {
    pub(super) files: FileSet,
    pub(super) ast: AstObjects,
    pub(super) file: ast::File,
}

impl Parsed {
    pub(super) fn of(path: &Path, text: &str) -> Option<Parsed> {
        let (mut files, mut ast) = (FileSet::new(), AstObjects::new());
        let errors = ErrorList::new();
        let name = path.display().to_string();
        let (_, file) = go_parser::parse_file(&mut ast, &mut files, &errors, &name, text, false);
        Some(Parsed { file: file.filter(|_| errors.len() == 0)?, files, ast })
    }

    fn offset(&self, pos: Pos) -> Option<usize> {
        self.files.position(pos).map(|p| p.offset)
    }

    fn range(&self, e: &Expr) -> Option<(usize, usize)> {
        range(&self.files, &self.ast, e)
    }

    fn expressions(&self, visit: &mut dyn FnMut(&Expr)) {
        everything(&self.file, &self.ast, &mut |n| {
            if let Node::Expr(e) = n {
                visit(e);
            }
        });
    }

    /// The ranges of the shift counts that begin at these offsets.
    pub(super) fn shift_counts(&self, offsets: &[usize]) -> Vec<(usize, usize)> {
        let mut found = vec![];
        let mut count = |e: &Expr| {
            found.extend(self.range(e).filter(|range| offsets.contains(&range.0)));
        };
        everything(&self.file, &self.ast, &mut |n| match n {
            Node::Expr(Expr::Binary(b)) if matches!(b.op, Token::SHL | Token::SHR) => {
                count(&b.expr_b)
            }
            Node::Stmt(Stmt::Assign(a)) => {
                let a = &self.ast.a_stmts[*a];
                if matches!(a.token, Token::SHL_ASSIGN | Token::SHR_ASSIGN) {
                    a.rhs.iter().for_each(&mut count);
                }
            }
            _ => {}
        });
        found
    }

    /// Pieces that hide the static type of the operand of a type assertion: the one whose operand
    /// begins at this offset, or the guard of the type switch with a case there.
    pub(super) fn hidden_operand(&self, offset: usize) -> Vec<Piece> {
        let mut operand = None;
        everything(&self.file, &self.ast, &mut |n| match n {
            Node::Expr(Expr::TypeAssert(a)) if a.typ.is_some() => {
                operand = operand.or(self.range(&a.expr).filter(|r| r.0 == offset));
            }
            Node::Stmt(Stmt::TypeSwitch(s)) => {
                let types = s.body.list.iter().filter_map(|c| match c {
                    Stmt::Case(c) => c.list.as_ref(),
                    _ => None,
                });
                let guard = match &s.assign {
                    Stmt::Expr(e) => Some(&**e),
                    Stmt::Assign(a) => self.ast.a_stmts[*a].rhs.first(),
                    _ => None,
                };
                if types.flatten().any(|t| self.offset(t.pos(&self.ast)) == Some(offset))
                    && let Some(Expr::TypeAssert(a)) = guard
                {
                    operand = operand.or(self.range(&a.expr));
                }
            }
            _ => {}
        });
        operand.map_or(vec![], |range| around(range, HIDE, ")").into())
    }
}

fn range(files: &FileSet, ast: &AstObjects, e: &Expr) -> Option<(usize, usize)> {
    let end = match e {
        Expr::Ident(i) => {
            let i = &ast.idents[*i];
            i.pos + i.name.chars().count()
        }
        _ => e.end(ast),
    };
    Some((files.position(e.pos(ast))?.offset, files.position(end)?.offset))
}

/// Pieces that correct the calls of `unsafe.Sizeof`, `Alignof` and `Offsetof` of which the value is
/// not Go's: `(unsafe.Sizeof(x)*0+16)`. Sizes may depend on others: the text is checked until all
/// are right.
pub(super) fn sizes(
    text: &Text,
    files: &FileSet,
    ast: &AstObjects,
    tc: &TCObjects,
    info: &TypeInfo,
) -> Vec<Piece> {
    let mut sizes = Sizes { ast, tc, info, types: Types::new() };
    let mut pieces = vec![];
    for file in &info.ast_files {
        everything(file, ast, &mut |n| {
            if let Node::Expr(e @ Expr::Call(c)) = n
                && let Some(right) = sizes.value(c)
                && let Some(known) = info.types.get(&e.id()).and_then(|tv| tv.get_const_val())
                && let Some(range) = range(files, ast, e)
            {
                let (range, corrected) = text.corrected(range);
                if corrected.map_or(*known == ConstValue::with_u64(right), |v| v == right) {
                    return;
                }
                pieces.extend(around(range, "(", &format!("{CORRECTION}{right})")));
            }
        });
    }
    pieces
}

struct Sizes<'a> {
    ast: &'a AstObjects,
    tc: &'a TCObjects,
    info: &'a TypeInfo,
    types: Types,
}

impl Sizes<'_> {
    fn value(&mut self, c: &CallExpr) -> Option<u64> {
        let function = self.unsafe_function(&c.func)?;
        let argument = c.args.first()?;
        if function == "Offsetof" {
            let mut argument = argument;
            while let Expr::Paren(p) = argument {
                argument = &p.expr;
            }
            let Expr::Selector(s) = argument else { return None };
            return self.offset(s);
        }
        let typ = self.info.types.get(&argument.id())?.typ;
        let t = self.types.of(typ, self.tc);
        let layout = self.types.layout(t);
        Some(if function == "Sizeof" { layout.size } else { layout.align })
    }

    /// The name of a function of package unsafe.
    fn unsafe_function(&self, f: &Expr) -> Option<&'static str> {
        match f {
            Expr::Paren(p) => self.unsafe_function(&p.expr),
            Expr::Selector(s) => {
                let Expr::Ident(i) = &s.expr else { return None };
                let o = &self.tc.lobjs[*self.info.uses.get(i)?];
                let is_unsafe = o.entity_type().is_pkg_name()
                    && self.tc.pkgs[o.pkg_name_imported()].path() == "unsafe";
                let name = &self.ast.idents[s.sel].name;
                let known = ["Sizeof", "Alignof", "Offsetof"].into_iter().find(|n| n == name);
                known.filter(|_| is_unsafe)
            }
            _ => None,
        }
    }

    /// The field's offset from the last pointer on the way to it.
    fn offset(&mut self, s: &SelectorExpr) -> Option<u64> {
        let selection = self.info.selections.get(&s.id())?;
        let mut t = self.types.of(self.info.types.get(&s.expr.id())?.typ, self.tc);
        let mut at = 0;
        for index in selection.indices() {
            if let Kind::Pointer(inner) = self.types.kind(t).clone() {
                (t, at) = (inner, 0);
            }
            let Kind::Struct(fields) = self.types.kind(t).clone() else { return None };
            at += self.types.field_offset(&fields, *index);
            t = fields[*index].ty;
        }
        Some(at)
    }
}

/// A type assertion to a type that is no interface, of those whose operands are hidden: Go refuses
/// what the operand's own type rules out there.
pub(super) fn hidden_from_concrete(
    text: &Text,
    files: &FileSet,
    ast: &AstObjects,
    tc: &TCObjects,
    info: &TypeInfo,
) -> bool {
    let mut found = false;
    for file in &info.ast_files {
        everything(file, ast, &mut |n| {
            if let Node::Expr(Expr::TypeAssert(a)) = n
                && let Some(typ) = &a.typ
                && range(files, ast, &a.expr).is_some_and(|r| text.has(r.0, HIDE))
                && let Some(tv) = info.types.get(&typ.id())
            {
                let under = go_types::typ::deep_underlying_type(tv.typ, tc);
                found |= tc.types[under].try_as_interface().is_none();
            }
        });
    }
    found
}
