//! Rust's tokens, with the lines that they are in. Comments are dropped.

/// A token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its text: an identifier, the inside of a string, a punctuation character or `::`.
    pub text: String,
    /// The line that it begins in, from 1 on.
    pub line: usize,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An identifier or keyword; `r#` is dropped.
    Word,
    /// A string, byte string or C string.
    Text,
    /// Anything else.
    Mark,
}

impl Token {
    /// Whether this is that word or mark.
    pub fn is(&self, text: &str) -> bool {
        self.kind != Kind::Text && self.text == text
    }
}

/// The tokens of a source text. Characters and lifetimes are left out, numbers count as marks.
pub fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { rest: source, line: 1, tokens: Vec::new() };
    while lexer.step() {}
    lexer.tokens
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    /// Takes the next token, comment or white space; `false` at the end.
    fn step(&mut self) -> bool {
        let Some(first) = self.rest.chars().next() else { return false };
        if self.rest.starts_with("//") {
            self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
        } else if self.rest.starts_with("/*") {
            self.skip(block_comment(self.rest));
        } else if let Some((before, hashes)) = raw_string(self.rest) {
            let end = format!("\"{}", "#".repeat(hashes));
            let inside = &self.rest[before..];
            let length = inside.find(&end).unwrap_or(inside.len());
            self.push(Kind::Text, inside[..length].to_owned());
            self.skip((before + length + end.len()).min(self.rest.len()));
        } else if let Some(before) = string(self.rest) {
            let length = string_end(&self.rest[before..]);
            self.push(Kind::Text, self.rest[before..before + length].to_owned());
            self.skip((before + length + 1).min(self.rest.len()));
        } else if first.is_alphabetic() || first == '_' {
            let raw = self.rest.strip_prefix("r#").map_or(0, |_| 2);
            let word = word(&self.rest[raw..]);
            self.push(Kind::Word, self.rest[raw..raw + word].to_owned());
            self.skip(raw + word);
        } else if first.is_ascii_digit() {
            let length = word(self.rest);
            self.push(Kind::Mark, self.rest[..length].to_owned());
            self.skip(length);
        } else if first == '\'' {
            self.skip(quote(self.rest));
        } else if first.is_whitespace() {
            self.skip(first.len_utf8());
        } else {
            let length = if self.rest.starts_with("::") { 2 } else { first.len_utf8() };
            self.push(Kind::Mark, self.rest[..length].to_owned());
            self.skip(length);
        }
        true
    }

    fn push(&mut self, kind: Kind, text: String) {
        self.tokens.push(Token { kind, text, line: self.line });
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// The length of the comment that begins here; such comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        if text[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if text[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// If a raw string begins here: the length up to its inside, and its number of hashes.
fn raw_string(text: &str) -> Option<(usize, usize)> {
    let prefix = ["r", "br", "cr"].into_iter().find(|p| {
        text.strip_prefix(p).is_some_and(|rest| rest.trim_start_matches('#').starts_with('"'))
    })?;
    let rest = &text[prefix.len()..];
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    Some((prefix.len() + hashes + 1, hashes))
}

/// If a string begins here: the length up to its inside.
fn string(text: &str) -> Option<usize> {
    ["\"", "b\"", "c\""].into_iter().find(|p| text.starts_with(p)).map(str::len)
}

/// The length of a string's inside.
fn string_end(inside: &str) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at,
            _ => {}
        }
    }
    inside.len()
}

/// The length of the character or lifetime that begins here.
fn quote(text: &str) -> usize {
    let mut inside = text[1..].chars();
    match (inside.next(), inside.next()) {
        // The character after the backslash may be a quote.
        (Some('\\'), Some(escaped)) => {
            let before = 2 + escaped.len_utf8();
            before + text[before..].find('\'').map_or(0, |at| at + 1)
        }
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 1 + word(&text[1..]),
    }
}
