//! Programs as text: nested lists in parentheses.

use std::fmt;

/// A word, a number, a text or a list, and the line that it begins in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pub(crate) line: usize,
    pub(crate) what: What,
}

/// See [`Form`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Name(String),
    Number(i64),
    Text(String),
    List(Vec<Form>),
}

/// What is wrong with a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) line: usize,
    pub(crate) what: String,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for Wrong {}

impl Form {
    /// Something is wrong here.
    pub(crate) fn wrong(&self, what: impl Into<String>) -> Wrong {
        Wrong { line: self.line, what: what.into() }
    }

    /// # Errors
    /// It is no name.
    pub(crate) fn name(&self) -> Result<&str, Wrong> {
        match &self.what {
            What::Name(name) => Ok(name),
            _ => Err(self.wrong("a name is missing")),
        }
    }

    /// # Errors
    /// It is no list.
    pub(crate) fn list(&self) -> Result<&[Form], Wrong> {
        match &self.what {
            What::List(forms) => Ok(forms),
            _ => Err(self.wrong("a list is missing")),
        }
    }
}

/// Reads the forms of a program.
///
/// # Errors
/// Parentheses or quotes do not match, or a number is too large.
pub(crate) fn read(text: &str) -> Result<Vec<Form>, Wrong> {
    let mut open: Vec<(usize, Vec<Form>)> = vec![(0, Vec::new())];
    for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let wrong = |what: &str| Wrong { line, what: what.into() };
            let len = match first {
                ';' => break,
                '(' | ')' => 1,
                '"' => rest[1..].find('"').ok_or_else(|| wrong("a text has no end"))? + 2,
                _ => rest.find([' ', '(', ')', ';']).unwrap_or(rest.len()),
            };
            let (word, behind) = rest.split_at(len);
            rest = behind.trim_start();
            let what = match word {
                "(" => {
                    open.push((line, Vec::new()));
                    continue;
                }
                ")" => {
                    let (begun, forms) = open.pop().expect("the program's own list");
                    let Some((_, outer)) = open.last_mut() else {
                        return Err(wrong("a parenthesis too many"));
                    };
                    outer.push(Form { line: begun, what: What::List(forms) });
                    continue;
                }
                text if first == '"' => What::Text(text[1..len - 1].into()),
                number if first.is_ascii_digit() || len > 1 && first == '-' => {
                    What::Number(number.parse().map_err(|_| wrong("no number"))?)
                }
                name => What::Name(name.into()),
            };
            open.last_mut().expect("a list").1.push(Form { line, what });
        }
    }
    match open.pop() {
        Some((0, forms)) => Ok(forms),
        other => {
            let line = other.map_or(0, |(line, _)| line);
            Err(Wrong { line, what: "a parenthesis is not closed".into() })
        }
    }
}
