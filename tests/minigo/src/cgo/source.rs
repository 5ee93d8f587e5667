//! What a Go file says about C: the preamble above `import "C"`, `//export` lines, and every
//! `C.name`.
//!
//! The parser drops comments, and a package C does not exist. So this module reads the text first
//! and writes each `C.name` as one identifier. The point becomes a letter: every place in the file
//! keeps its line and column.

use crate::error::CompileError;

/// Stands for the point in `C.name`, a letter to Go: a type, a constant, or a call with one result.
pub(crate) const NAME: char = '\u{a78f}';
/// The same in a call that also wants errno.
pub(crate) const WITH_ERRNO: char = '\u{a78c}';
/// The same where a function is not called: its address.
pub(crate) const ADDRESS: char = '\u{a78d}';

/// The import that replaces `"C"`; the added declarations use it.
const UNSAFE: &str = "C\u{a78f}unsafe \"unsafe\"";
/// The type `unsafe.Pointer` in those declarations.
pub(crate) const UNSAFE_POINTER: &str = "C\u{a78f}unsafe.Pointer";

/// The name of C in an identifier `C.name`, as rewritten, and what stands for the point.
pub(crate) fn c_name(identifier: &str) -> Option<(char, &str)> {
    let rest = identifier.strip_prefix('C')?;
    let mark = rest.chars().next().filter(|c| [NAME, WITH_ERRNO, ADDRESS].contains(c))?;
    Some((mark, &rest[mark.len_utf8()..]))
}

/// A text about a program, with `C.name` as it was written.
pub(crate) fn with_points(text: &str) -> String {
    text.replace([NAME, WITH_ERRNO, ADDRESS], ".")
}

/// One `C.name`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Use {
    pub(crate) name: String,
    /// Where the point is, in characters.
    pub(crate) point: usize,
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// A function that C may call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Export {
    pub(crate) name: String,
    pub(crate) line: usize,
}

/// A Go file with `import "C"`.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The text with another import in the place of `"C"`, and with `C.name` as identifiers.
    pub(crate) text: Vec<char>,
    /// The line that imports it.
    pub(crate) import_line: usize,
    /// The C text above the import, and the line it begins on.
    pub(crate) preamble: String,
    pub(crate) preamble_line: usize,
    /// What `#cgo CFLAGS:` and `#cgo LDFLAGS:` say.
    pub(crate) compile_flags: Vec<String>,
    pub(crate) link_flags: Vec<String>,
    pub(crate) uses: Vec<Use>,
    pub(crate) exports: Vec<Export>,
}

/// A group of comments with nothing between them but single line ends.
#[derive(Default)]
struct Comments {
    text: String,
    first_line: usize,
    last_line: usize,
}

struct Scanner<'a> {
    file: &'a str,
    chars: &'a [char],
    at: usize,
    line: usize,
    line_start: usize,
    comments: Comments,
    out: Source,
    /// Where `"C"` is imported, in characters.
    found: Option<usize>,
    /// The comments above the keyword of the import declaration that is open.
    import: Option<Comments>,
    in_group: bool,
}

/// Reads a file. None: it does not import C.
pub(crate) fn read(file: &str, text: &str) -> Result<Option<Source>, CompileError> {
    let chars: Vec<char> = text.chars().collect();
    let mut s = Scanner {
        file,
        chars: &chars,
        at: 0,
        line: 1,
        line_start: 0,
        comments: Comments::default(),
        out: Source { text: chars.clone(), ..Source::default() },
        found: None,
        import: None,
        in_group: false,
    };
    s.scan()?;
    let Some(import) = s.found else { return Ok(None) };
    let mut out = s.out;
    out.uses.iter().for_each(|u| out.text[u.point] = NAME);
    let quoted = "\"C\"".len();
    out.text.splice(import..import + quoted, UNSAFE.chars());
    let longer = UNSAFE.chars().count() - quoted;
    out.uses.iter_mut().filter(|u| u.point > import).for_each(|u| u.point += longer);
    out.read_directives(file)?;
    Ok(Some(out))
}

impl Source {
    /// Takes the `#cgo` lines out of the preamble.
    fn read_directives(&mut self, file: &str) -> Result<(), CompileError> {
        let mut rest = String::new();
        for (i, line) in self.preamble.lines().enumerate() {
            let Some(directive) =
                line.trim_start().strip_prefix("#cgo").filter(|d| d.starts_with([' ', '\t']))
            else {
                rest.push_str(line);
                rest.push('\n');
                continue;
            };
            rest.push('\n');
            let flags = |d: &str| d.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            match directive.trim().split_once(':') {
                Some((name, value)) if name.trim() == "CFLAGS" => {
                    self.compile_flags.extend(flags(value))
                }
                Some((name, value)) if name.trim() == "LDFLAGS" => {
                    self.link_flags.extend(flags(value))
                }
                _ => {
                    let place = format!("{file}:{}", self.preamble_line + i);
                    return Err(CompileError {
                        place,
                        message: format!("unknown directive: {}", line.trim()),
                    });
                }
            }
        }
        self.preamble = rest;
        Ok(())
    }
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn step(&mut self) {
        if self.peek(0) == '\n' {
            self.line += 1;
            self.line_start = self.at + 1;
        }
        self.at += 1;
    }

    fn scan(&mut self) -> Result<(), CompileError> {
        // Whether the last token, comments aside, was a point.
        let mut after_point = false;
        while self.at < self.chars.len() {
            match self.peek(0) {
                '/' if self.peek(1) == '/' => self.line_comment()?,
                '/' if self.peek(1) == '*' => self.block_comment(),
                c if c.is_whitespace() => self.step(),
                '"' => {
                    let (from, line) = (self.at, self.line);
                    self.quoted('"');
                    let text: String = self.chars[from..self.at].iter().collect();
                    if self.import.is_some() && text == "\"C\"" {
                        self.import_c(from, line)?;
                    }
                    self.end_import();
                    after_point = false;
                }
                c @ ('\'' | '`') => {
                    self.quoted(c);
                    after_point = false;
                }
                c if c.is_alphabetic() || c == '_' => {
                    let word = self.word();
                    if word == "import" && !after_point {
                        self.import = Some(std::mem::take(&mut self.comments));
                        self.in_group = false;
                    } else if word == "C" && !after_point && self.peek(0) == '.' {
                        self.use_of_c();
                    }
                    after_point = false;
                }
                c => {
                    match c {
                        '(' if self.import.is_some() => self.in_group = true,
                        ')' => {
                            self.in_group = false;
                            self.import = None;
                        }
                        _ => {}
                    }
                    after_point = c == '.';
                    self.step();
                }
            }
        }
        Ok(())
    }

    fn word(&mut self) -> String {
        let from = self.at;
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            self.step();
        }
        self.chars[from..self.at].iter().collect()
    }

    /// A string or rune literal.
    fn quoted(&mut self, quote: char) {
        self.step();
        while self.at < self.chars.len() && self.peek(0) != quote {
            if quote != '`' && self.peek(0) == '\n' {
                return;
            }
            if quote != '`' && self.peek(0) == '\\' {
                self.step();
            }
            self.step();
        }
        self.step();
    }

    fn line_comment(&mut self) -> Result<(), CompileError> {
        let (from, line) = (self.at, self.line);
        let at_margin = from == self.line_start;
        while self.at < self.chars.len() && self.peek(0) != '\n' {
            self.step();
        }
        let text: String = self.chars[from + 2..self.at].iter().collect();
        if at_margin && let Some(names) = text.strip_prefix("export ") {
            let mut names = names.split_whitespace();
            let (Some(name), None) = (names.next(), names.next()) else {
                let place = format!("{}:{line}", self.file);
                return Err(CompileError {
                    place,
                    message: "an export line names one function".into(),
                });
            };
            self.out.exports.push(Export { name: name.to_owned(), line });
        }
        self.comment(&text, line);
        Ok(())
    }

    fn block_comment(&mut self) {
        let (from, line) = (self.at, self.line);
        self.step();
        self.step();
        while self.at < self.chars.len() && !(self.peek(0) == '*' && self.peek(1) == '/') {
            self.step();
        }
        let text: String = self.chars[(from + 2).min(self.at)..self.at].iter().collect();
        self.step();
        self.step();
        self.comment(&text, line);
    }

    fn comment(&mut self, text: &str, line: usize) {
        if self.comments.text.is_empty() || line > self.comments.last_line + 1 {
            self.comments = Comments { text: String::new(), first_line: line, last_line: line };
        }
        self.comments.text.push_str(text);
        self.comments.text.push('\n');
        self.comments.last_line = self.line;
    }

    fn use_of_c(&mut self) {
        let (point, column) = (self.at, self.at - self.line_start);
        self.step();
        if self.peek(0).is_alphabetic() || self.peek(0) == '_' {
            let line = self.line;
            let name = self.word();
            self.out.uses.push(Use { name, point, line, column });
        }
    }

    fn import_c(&mut self, from: usize, line: usize) -> Result<(), CompileError> {
        if self.found.is_some() {
            let place = format!("{}:{line}", self.file);
            return Err(CompileError { place, message: "\"C\" is imported twice".into() });
        }
        self.found = Some(from);
        self.out.import_line = line;
        let above = match self.in_group {
            true => std::mem::take(&mut self.comments),
            false => self.import.take().unwrap_or_default(),
        };
        if !above.text.is_empty() && above.last_line + 1 == line {
            self.out.preamble = above.text;
            self.out.preamble_line = above.first_line;
        }
        Ok(())
    }

    fn end_import(&mut self) {
        if !self.in_group {
            self.import = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        read("x.go", text).expect("no mistakes").expect("it imports C")
    }

    #[test]
    fn the_comment_right_above_the_import_is_the_preamble() {
        let s = source(
            "package main\n\n// a license\n\n// int f(void);\n// int g(void);\nimport \"C\"\n\n\
             func main() { C.f() }\n",
        );
        assert_eq!((&s.preamble[..], s.preamble_line), (" int f(void);\n int g(void);\n", 5));
        assert_eq!(
            s.uses.iter().map(|u| (&u.name[..], u.line, u.column)).collect::<Vec<_>>(),
            [("f", 9, 15)]
        );
        let text: String = s.text.iter().collect();
        assert!(
            text.contains("C\u{a78f}f()") && text.contains("import C\u{a78f}unsafe \"unsafe\"\n"),
            "{text}"
        );
        assert_eq!(s.text[s.uses[0].point], NAME);
    }

    #[test]
    fn a_comment_with_a_line_between_is_none() {
        assert_eq!(source("package main\n\n/* int f; */\n\nimport \"C\"\n").preamble, "");
    }

    #[test]
    fn an_import_in_a_group_has_the_comment_above_it() {
        let s = source(
            "package main\n\nimport (\n\t\"fmt\"\n\t// #cgo LDFLAGS: -lm\n\
             \t// #include <math.h>\n\t\"C\"\n)\n",
        );
        assert_eq!(
            (&s.preamble[..], &s.link_flags[..]),
            ("\n #include <math.h>\n", &["-lm".to_owned()][..])
        );
        let text: String = s.text.iter().collect();
        assert!(text.contains("\"fmt\"") && !text.contains("\"C\""), "{text}");
    }

    #[test]
    fn strings_comments_and_fields_are_no_uses() {
        let s = source(
            "package main\n\nimport \"C\"\n\n\
             // C.a\nvar x = \"C.b\" + `C.c` + x.C.d\nvar r = '\"'\nvar y C.e\n",
        );
        assert_eq!(s.uses.iter().map(|u| &u.name[..]).collect::<Vec<_>>(), ["e"]);
    }

    #[test]
    fn exports_are_lines_at_the_margin() {
        let s = source(
            "package main\n\nimport \"C\"\n\n//export goAdd\nfunc goAdd() {}\n\t//export not\n",
        );
        assert_eq!(s.exports, [Export { name: "goAdd".into(), line: 5 }]);
        assert!(read("x.go", "import \"C\"\n\n//export a b\n").is_err());
    }

    #[test]
    fn other_programs_have_nothing_to_do_with_c() {
        assert!(
            read("x.go", "package main\n\nimport \"fmt\"\n\nvar C = \"C\"\n")
                .expect("no mistakes")
                .is_none()
        );
    }
}
