//! Values as package fmt prints them.

use super::print::{float, signed, unsigned};
use super::string;
use super::typeinfo::{Shape, TypeInfo};

/// A value of interface type.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Any {
    pub(crate) ty: Option<&'static TypeInfo>,
    pub(crate) data: usize,
}

/// A value of a type, in memory.
#[derive(Clone, Copy)]
pub(crate) struct Value {
    pub(crate) ty: &'static TypeInfo,
    pub(crate) at: usize,
}

/// The flags, width and precision of a verb.
#[derive(Clone, Debug, Default)]
pub(crate) struct Spec {
    pub(crate) minus: bool,
    pub(crate) plus: bool,
    pub(crate) sharp: bool,
    pub(crate) space: bool,
    pub(crate) zero: bool,
    /// `%+v`: field names.
    pub(crate) plus_v: bool,
    /// `%#v`.
    pub(crate) sharp_v: bool,
    /// The value is in a field that is not exported.
    pub(crate) hidden: bool,
    /// The value is part of a complaint about its verb: its methods are not asked.
    pub(crate) complaint: bool,
    /// The value is that of a panic of a method that was asked.
    pub(crate) panicking: bool,
    pub(crate) width: Option<usize>,
    pub(crate) precision: Option<usize>,
}

impl Any {
    /// The value in the interface. `self` must outlive it: a direct value lies in its data word.
    pub(crate) fn value(&self) -> Option<Value> {
        let ty = self.ty?;
        let at = if ty.direct { std::ptr::from_ref(&self.data) as usize } else { self.data };
        Some(Value { ty, at })
    }
}

impl Value {
    /// A word of the value.
    pub(crate) fn word(&self, index: usize) -> usize {
        // SAFETY: a Value is made of memory that holds a value of its type; callers ask for words
        // of that type.
        unsafe { *((self.at + 8 * index) as *const usize) }
    }

    pub(crate) fn signed(&self) -> i64 {
        // SAFETY: as in word.
        unsafe { signed(self.at, self.ty.size) }
    }

    pub(crate) fn unsigned(&self) -> u64 {
        // SAFETY: as in word.
        unsafe { unsigned(self.at, self.ty.size) }
    }

    pub(crate) fn float(&self) -> f64 {
        // SAFETY: as in word.
        unsafe { float(self.at, self.ty.size) }
    }

    pub(crate) fn bool(&self) -> bool {
        self.unsigned() != 0
    }

    /// The bytes of a string, or of a slice or array of bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let (at, len) = match self.ty.shape() {
            Shape::Array(n, _) => (self.at, *n),
            _ => (self.word(0), self.word(1)),
        };
        match len {
            0 => &[],
            // SAFETY: as in word.
            len => unsafe { std::slice::from_raw_parts(at as *const u8, len) },
        }
    }

    /// An element of a slice or array, and the object of a slice's elements.
    pub(crate) fn element(&self, index: usize) -> Option<(Value, usize)> {
        let (at, len, ty, base) = match self.ty.shape() {
            Shape::Array(n, e) => (self.at, *n, *e, 0),
            Shape::Slice(e) => (self.word(0), self.word(1), *e, self.word(0)),
            _ => return None,
        };
        (index < len).then(|| (Value { ty, at: at + index * ty.size }, base))
    }

    /// The elements of an array.
    pub(crate) fn elements(&self) -> impl Iterator<Item = Value> + use<'_> {
        (0..).map_while(|i| self.element(i)).map(|(element, _)| element)
    }

    /// What an interface holds.
    pub(crate) fn dynamic(&self) -> Any {
        // SAFETY: a value of interface type is two words: a type or nil, and data.
        unsafe { *(self.at as *const Any) }
    }

    pub(crate) fn is_byte(ty: &TypeInfo) -> bool {
        ty.size == 1 && matches!(ty.shape(), Shape::Uint)
    }
}

/// `fmt.Println`.
pub(crate) fn println(operands: &[Any]) -> Vec<u8> {
    let mut out = vec![];
    for (i, a) in operands.iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        any(&mut out, a);
    }
    out.push(b'\n');
    out
}

/// `fmt.Print`: a space between two operands if neither is a string.
pub(crate) fn print(operands: &[Any]) -> Vec<u8> {
    let mut out = vec![];
    let mut after_string = true;
    for (i, a) in operands.iter().enumerate() {
        let is_string = a.ty.is_some_and(|t| matches!(t.shape(), Shape::String));
        if i > 0 && !is_string && !after_string {
            out.push(b' ');
        }
        any(&mut out, a);
        after_string = is_string;
    }
    out
}

fn any(out: &mut Vec<u8>, a: &Any) {
    match a.value() {
        Some(v) => super::verbs::format(out, &v, b'v', &Spec::default(), 0),
        None => out.extend_from_slice(b"<nil>"),
    }
}

/// Pads `text` to the width: on the left, on the right, or with zeroes.
pub(crate) fn pad(out: &mut Vec<u8>, text: &[u8], spec: &Spec, zero: bool) {
    let width = string::runes(text).count();
    let missing = spec.width.unwrap_or(0).saturating_sub(width);
    if spec.minus {
        out.extend_from_slice(text);
        out.extend(std::iter::repeat_n(b' ', missing));
    } else if zero {
        out.extend(std::iter::repeat_n(b'0', missing));
        out.extend_from_slice(text);
    } else {
        out.extend(std::iter::repeat_n(b' ', missing));
        out.extend_from_slice(text);
    }
}

/// An integer in a base.
pub(crate) fn integer(
    out: &mut Vec<u8>,
    magnitude: u64,
    negative: bool,
    base: u32,
    upper: bool,
    verb: u8,
    spec: &Spec,
) {
    let mut digits = match base {
        2 => format!("{magnitude:b}"),
        8 => format!("{magnitude:o}"),
        16 if upper => format!("{magnitude:X}"),
        16 => format!("{magnitude:x}"),
        _ => format!("{magnitude}"),
    };
    let mut zero = spec.zero && !spec.minus;
    if let Some(p) = spec.precision {
        zero = false;
        if p == 0 && magnitude == 0 {
            // Nothing but padding.
            pad(out, b"", &Spec { zero: false, ..spec.clone() }, false);
            return;
        }
        while digits.len() < p {
            digits.insert(0, '0');
        }
    } else if zero && let Some(w) = spec.width {
        // Zeroes fill the width, the sign included, the prefix excluded.
        let sign = usize::from(negative || spec.plus || spec.space);
        while digits.len() + sign < w {
            digits.insert(0, '0');
        }
        zero = false;
    }
    let prefix = match (verb, spec.sharp, base) {
        (b'O', ..) => "0o",
        (_, true, 2) => "0b",
        (_, true, 8) if !digits.starts_with('0') => "0",
        (_, true, 16) if upper => "0X",
        (_, true, 16) => "0x",
        _ => "",
    };
    let sign = match (negative, spec.plus, spec.space) {
        (true, ..) => "-",
        (_, true, _) => "+",
        (_, _, true) => " ",
        _ => "",
    };
    pad(out, format!("{sign}{prefix}{digits}").as_bytes(), spec, zero);
}

/// A float in the format of `verb`: e, f, g; `shortest` without a precision for g and v.
pub(crate) fn float_text(f: f64, single: bool, verb: u8, precision: Option<usize>) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let exponent_form = |text: String| {
        let (m, e) = text
            .split_once('e')
            .map_or((text.clone(), 0), |(m, e)| (m.to_string(), e.parse::<i32>().unwrap_or(0)));
        format!("{m}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs())
    };
    match verb {
        b'e' => exponent_form(format!("{:.*e}", precision.unwrap_or(6), f)),
        b'f' => format!("{:.*}", precision.unwrap_or(6), f),
        _ => {
            // The shortest digits that give the number back, or as many as asked for.
            let (digits, exponent) = match precision {
                None => {
                    let t = if single { format!("{:e}", f as f32) } else { format!("{f:e}") };
                    let (m, e) = t.split_once('e').unwrap_or((&t, "0"));
                    (m.replace(['.', '-'], ""), e.parse::<i32>().unwrap_or(0))
                }
                Some(p) => {
                    let t = format!("{:.*e}", p.max(1) - 1, f);
                    let (m, e) = t.split_once('e').unwrap_or((&t, "0"));
                    let digits = m.replace(['.', '-'], "");
                    let trimmed = digits.trim_end_matches('0');
                    (
                        if trimmed.is_empty() { "0".into() } else { trimmed.to_string() },
                        e.parse::<i32>().unwrap_or(0),
                    )
                }
            };
            let sign = if f.is_sign_negative() { "-" } else { "" };
            let (nd, dp) = (digits.len() as i32, exponent + 1);
            let limit = match precision {
                None => 6,
                Some(p) if p.max(1) as i32 > nd && nd >= dp => nd,
                Some(p) => p.max(1) as i32,
            };
            if exponent < -4 || exponent >= limit {
                let (first, rest) = digits.split_at(1);
                let point = if rest.is_empty() { "" } else { "." };
                let e = if exponent < 0 { '-' } else { '+' };
                return format!("{sign}{first}{point}{rest}e{e}{:02}", exponent.abs());
            }
            if exponent < 0 {
                return format!("{sign}0.{}{digits}", "0".repeat((-exponent - 1) as usize));
            }
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
            } else {
                format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
            }
        }
    }
}

/// A quoted string.
pub(crate) fn quote(text: &[u8], with: char, ascii: bool) -> String {
    let mut out = String::new();
    out.push(with);
    let mut rest = text;
    while !rest.is_empty() {
        let (c, len) = string::decode(rest);
        if c == char::REPLACEMENT_CHARACTER && len == 1 {
            out.push_str(&format!("\\x{:02x}", rest[0]));
        } else {
            quote_rune(&mut out, c, with, ascii);
        }
        rest = &rest[len..];
    }
    out.push(with);
    out
}

/// One rune of a quoted string.
pub(crate) fn quote_rune(out: &mut String, c: char, with: char, ascii: bool) {
    match c {
        '\\' => out.push_str("\\\\"),
        c if c == with => {
            out.push('\\');
            out.push(c);
        }
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
        c if c.is_ascii() => out.push(c),
        c if !ascii && printable(c) => out.push(c),
        c if (c as u32) < 0x10000 => out.push_str(&format!("\\u{:04x}", c as u32)),
        c => out.push_str(&format!("\\U{:08x}", c as u32)),
    }
}

fn printable(c: char) -> bool {
    !(c.is_control()
        || (c.is_whitespace() && c != ' ')
        || matches!(c as u32, 0xad | 0xe000..=0xf8ff | 0xfeff)
        || matches!(c as u32, 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f))
}

#[cfg(test)]
mod tests {
    use super::{float_text, quote};

    #[test]
    fn floats_look_as_in_go() {
        let shortest = |f: f64| float_text(f, false, b'g', None);
        for (f, text) in [
            (0.0, "0"),
            (100_000.0, "100000"),
            (1e6, "1e+06"),
            (1e20, "1e+20"),
            (2_147_483_000.75, "2.14748300075e+09"),
            (1e21, "1e+21"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.5, "-1.5"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(shortest(f), text);
        }
        assert_eq!(float_text(f64::from(0.1f32), true, b'g', None), "0.1");
        assert_eq!(float_text(123_456.789, false, b'e', None), "1.234568e+05");
        assert_eq!(float_text(123_456.789, false, b'g', Some(3)), "1.23e+05");
    }

    #[test]
    fn quoted_strings_escape_what_is_not_printable() {
        assert_eq!(quote(b"a\"\n\xff", '"', false), r#""a\"\n\xff""#);
        assert_eq!(quote("é".as_bytes(), '"', true), r#""\u00e9""#);
    }
}
