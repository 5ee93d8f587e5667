//! `Printf`: the format string, and each verb for each kind of value.

use super::format::{Any, Spec, Value, float_text, integer, pad, quote, quote_rune};
use super::host;
use super::interface::{self, Answer};
use super::map::{self, MapType};
use super::string;
use super::typeinfo::Shape;
use std::cmp::Ordering;

/// `fmt.Printf`.
pub(crate) fn printf(format: &[u8], operands: &[Any]) -> Vec<u8> {
    let mut out = vec![];
    let mut next = 0;
    let mut i = 0;
    while i < format.len() {
        if format[i] != b'%' {
            out.push(format[i]);
            i += 1;
            continue;
        }
        i += 1;
        let mut spec = Spec::default();
        while let Some(c) = format.get(i) {
            match c {
                b'-' => {
                    spec.minus = true;
                    spec.zero = false;
                }
                b'+' => spec.plus = true,
                b'#' => spec.sharp = true,
                b' ' => spec.space = true,
                b'0' => spec.zero = !spec.minus,
                _ => break,
            }
            i += 1;
        }
        if format.get(i) == Some(&b'*') {
            i += 1;
            match star(operands, &mut next) {
                Some(w) => {
                    spec.minus |= w < 0;
                    spec.zero &= w >= 0;
                    spec.width = Some(w.unsigned_abs() as usize);
                }
                None => out.extend_from_slice(b"%!(BADWIDTH)"),
            }
        } else {
            spec.width = number(format, &mut i);
        }
        if format.get(i) == Some(&b'.') {
            i += 1;
            if format.get(i) == Some(&b'*') {
                i += 1;
                match star(operands, &mut next) {
                    Some(p) if p >= 0 => spec.precision = Some(p as usize),
                    Some(_) => {}
                    None => out.extend_from_slice(b"%!(BADPREC)"),
                }
            } else {
                spec.precision = Some(number(format, &mut i).unwrap_or(0));
            }
        }
        if i >= format.len() {
            out.extend_from_slice(b"%!(NOVERB)");
            break;
        }
        let (verb, len) = string::decode(&format[i..]);
        i += len;
        if verb == '%' {
            out.push(b'%');
            continue;
        }
        let Some(operand) = operands.get(next) else {
            out.extend_from_slice(format!("%!{verb}(MISSING)").as_bytes());
            continue;
        };
        next += 1;
        if verb == 'v' {
            spec.plus_v = spec.plus;
            spec.sharp_v = spec.sharp;
            spec.plus = false;
            spec.sharp = false;
        }
        one(&mut out, operand, verb, &spec);
    }
    if next < operands.len() {
        out.extend_from_slice(b"%!(EXTRA ");
        for (i, a) in operands[next..].iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            match a.value() {
                Some(v) => {
                    out.extend_from_slice(v.ty.name.as_bytes());
                    out.push(b'=');
                    self::format(&mut out, &v, b'v', &Spec::default(), 0);
                }
                None => out.extend_from_slice(b"<nil>"),
            }
        }
        out.push(b')');
    }
    out
}

fn star(operands: &[Any], next: &mut usize) -> Option<i64> {
    let a = operands.get(*next)?;
    *next += 1;
    let v = a.value()?;
    match v.ty.shape() {
        Shape::Int => Some(v.signed()),
        Shape::Uint => i64::try_from(v.unsigned()).ok(),
        _ => None,
    }
    .filter(|n| n.unsigned_abs() <= 1_000_000)
}

fn number(format: &[u8], i: &mut usize) -> Option<usize> {
    let from = *i;
    while format.get(*i).is_some_and(|c| c.is_ascii_digit()) {
        *i += 1;
    }
    std::str::from_utf8(&format[from..*i]).ok()?.parse().ok().filter(|n| *n <= 1_000_000)
}

fn one(out: &mut Vec<u8>, operand: &Any, verb: char, spec: &Spec) {
    let Some(v) = operand.value() else {
        match verb {
            'T' | 'v' => pad(out, b"<nil>", spec, spec.zero),
            _ => out.extend_from_slice(format!("%!{verb}(<nil>)").as_bytes()),
        }
        return;
    };
    match verb {
        'T' => string_verb(out, v.ty.name.as_bytes(), b's', spec),
        'p' => pointer(out, &v, b'p', spec),
        c if c.is_ascii() => format(out, &v, c as u8, spec, 0),
        c => bad_verb(out, &v, c, spec),
    }
}

/// A verb that does not fit the value. The flags stay in force, as in Go.
fn bad_verb(out: &mut Vec<u8>, v: &Value, verb: char, spec: &Spec) {
    out.extend_from_slice(format!("%!{verb}({}=", v.ty.name).as_bytes());
    let spec = Spec { complaint: true, ..spec.clone() };
    format(out, v, b'v', &spec, 0);
    out.push(b')');
}

/// The text that the value makes of itself, if it has a method for the verb.
fn own_text(out: &mut Vec<u8>, v: &Value, verb: u8, spec: &Spec) -> bool {
    let names: &[&str] = match verb {
        _ if spec.sharp_v => &["GoString"],
        b'v' | b's' | b'x' | b'X' | b'q' => &["Error", "String"],
        _ => return false,
    };
    let Some(m) = interface::text_method(v.ty, names) else { return false };
    match interface::ask_text(m, v) {
        Answer::Text(text) => {
            string_verb(out, &text, if verb == b'v' { b's' } else { verb }, spec);
        }
        Answer::Panic(_) if matches!(v.ty.shape(), Shape::Pointer(_)) && v.word(0) == 0 => {
            out.extend_from_slice(b"<nil>");
        }
        // As in Go: a panic of the panic's value is the printing function's own.
        Answer::Panic(panicked) if spec.panicking => super::panic::raise_again(panicked),
        Answer::Panic(panicked) => {
            out.extend_from_slice(
                format!("%!{}(PANIC={} method: ", verb as char, m.name).as_bytes(),
            );
            if let Some(v) = panicked.value.value() {
                format(out, &v, b'v', &Spec { panicking: true, ..Spec::default() }, 0);
            }
            out.push(b')');
        }
    }
    true
}

/// One value by one verb. `depth` is 0 for an operand, more inside of a composite value.
pub(crate) fn format(out: &mut Vec<u8>, v: &Value, verb: u8, spec: &Spec, depth: usize) {
    // Methods may run from here on. What is read after them is held: they may store other things
    // where it was found.
    let in_place = matches!(v.ty.shape(), Shape::Array(..) | Shape::Struct(_));
    let _operand = (depth == 0 && in_place).then(|| host::hold(v.at));
    if !spec.hidden && !spec.complaint && own_text(out, v, verb, spec) {
        return;
    }
    match v.ty.shape() {
        Shape::Bool => match verb {
            b't' | b'v' => pad(out, if v.bool() { b"true" } else { b"false" }, spec, spec.zero),
            _ => bad_verb(out, v, verb as char, spec),
        },
        Shape::Int => {
            let n = v.signed();
            int_verb(out, v, n.unsigned_abs(), n < 0, verb, spec);
        }
        Shape::Uint => int_verb(out, v, v.unsigned(), false, verb, spec),
        Shape::Float => match verb {
            b'v' | b'g' | b'G' | b'e' | b'E' | b'f' | b'F' => float_verb(out, v, verb, spec),
            _ => bad_verb(out, v, verb as char, spec),
        },
        Shape::String | Shape::Error => match verb {
            b'v' if spec.sharp_v => pad(out, quote(v.bytes(), '"', false).as_bytes(), spec, false),
            b'v' | b's' | b'q' | b'x' | b'X' => string_verb(out, v.bytes(), verb, spec),
            _ => bad_verb(out, v, verb as char, spec),
        },
        Shape::Slice(e) | Shape::Array(_, e) => {
            if Value::is_byte(e) && matches!(verb, b's' | b'q' | b'x' | b'X') {
                return string_verb(out, v.bytes(), verb, spec);
            }
            if verb == b'p' {
                return pointer(out, v, verb, spec);
            }
            if spec.sharp_v {
                out.extend_from_slice(v.ty.name.as_bytes());
                if matches!(v.ty.shape(), Shape::Slice(_)) && v.word(0) == 0 {
                    out.extend_from_slice(b"(nil)");
                    return;
                }
                list(out, v, verb, spec, depth, [b"{", b", ", b"}"]);
                return;
            }
            list(out, v, verb, spec, depth, [b"[", b" ", b"]"]);
        }
        Shape::Struct(fields) => {
            if spec.sharp_v {
                out.extend_from_slice(v.ty.name.as_bytes());
            }
            out.push(b'{');
            for (i, f) in fields.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(if spec.sharp_v { b", " } else { b" " });
                }
                if spec.plus_v || spec.sharp_v {
                    out.extend_from_slice(f.name.as_bytes());
                    out.push(b':');
                }
                // Methods of what is in a field that is not exported are not called.
                let hidden = spec.hidden || !f.name.starts_with(char::is_uppercase);
                let spec = Spec { hidden, ..spec.clone() };
                format(out, &Value { ty: f.ty, at: v.at + f.offset }, verb, &spec, depth + 1);
            }
            out.push(b'}');
        }
        Shape::Map(ty) => format_map(out, v, ty, verb, spec, depth),
        Shape::Interface(_) => {
            let a = v.dynamic();
            let _dynamic = host::hold(a.data);
            match a.value() {
                Some(v) => format(out, &v, verb, spec, depth + 1),
                None if spec.sharp_v => {
                    out.extend_from_slice(v.ty.name.as_bytes());
                    out.extend_from_slice(b"(nil)");
                }
                None => out.extend_from_slice(b"<nil>"),
            }
        }
        Shape::Pointer(to) => {
            let at = v.word(0);
            let composite =
                matches!(to.shape(), Shape::Array(..) | Shape::Slice(_) | Shape::Struct(_));
            if depth == 0 && at != 0 && composite && verb != b'p' {
                out.push(b'&');
                let _target = host::hold(at);
                return format(out, &Value { ty: to, at }, verb, spec, depth + 1);
            }
            pointer(out, v, verb, spec);
        }
        Shape::Chan | Shape::Func | Shape::Opaque => pointer(out, v, verb, spec),
    }
}

/// The elements of a slice or array, between two brackets and with something between each two. As
/// in Go a slice is read again for each element: methods may have stored another in its place.
fn list(
    out: &mut Vec<u8>,
    v: &Value,
    verb: u8,
    spec: &Spec,
    depth: usize,
    [open, between, close]: [&[u8]; 3],
) {
    out.extend_from_slice(open);
    let mut i = 0;
    while let Some((element, base)) = v.element(i) {
        if i > 0 {
            out.extend_from_slice(between);
        }
        let _held = host::hold(base);
        format(out, &element, verb, spec, depth + 1);
        i += 1;
    }
    out.extend_from_slice(close);
}

fn pointer(out: &mut Vec<u8>, v: &Value, verb: u8, spec: &Spec) {
    let at = v.word(0);
    match verb {
        b'v' if at == 0 => pad(out, b"<nil>", spec, spec.zero),
        b'v' | b'p' => {
            let with_prefix = Spec { sharp: verb == b'v' || !spec.sharp, ..spec.clone() };
            integer(out, at as u64, false, 16, false, b'x', &with_prefix);
        }
        b'b' | b'o' | b'd' | b'x' | b'X' => int_verb(out, v, at as u64, false, verb, spec),
        _ => {
            out.extend_from_slice(format!("%!{}({}=", verb as char, v.ty.name).as_bytes());
            if at == 0 {
                out.extend_from_slice(b"<nil>");
            } else {
                out.extend_from_slice(format!("{at:#x}").as_bytes());
            }
            out.push(b')');
        }
    }
}

fn int_verb(out: &mut Vec<u8>, v: &Value, magnitude: u64, negative: bool, verb: u8, spec: &Spec) {
    let base = match verb {
        b'v' if spec.sharp_v && matches!(v.ty.shape(), Shape::Uint) => {
            return integer(
                out,
                magnitude,
                false,
                16,
                false,
                verb,
                &Spec { sharp: true, ..spec.clone() },
            );
        }
        b'v' | b'd' => 10,
        b'b' => 2,
        b'o' | b'O' => 8,
        b'x' | b'X' => 16,
        b'c' | b'q' | b'U' => {
            let code = if negative { -1 } else { i64::try_from(magnitude).unwrap_or(-1) };
            let c = string::rune_or_replacement(code);
            return match verb {
                b'c' => pad(out, c.encode_utf8(&mut [0; 4]).as_bytes(), spec, spec.zero),
                b'q' => {
                    let mut text = String::from("'");
                    quote_rune(&mut text, c, '\'', spec.plus);
                    text.push('\'');
                    pad(out, text.as_bytes(), spec, spec.zero);
                }
                _ => pad(out, format!("U+{magnitude:04X}").as_bytes(), spec, false),
            };
        }
        _ => return bad_verb(out, v, verb as char, spec),
    };
    integer(out, magnitude, negative, base, verb == b'X', verb, spec);
}

fn float_verb(out: &mut Vec<u8>, v: &Value, verb: u8, spec: &Spec) {
    let f = v.float();
    let lower = match verb {
        b'v' => b'g',
        v => v.to_ascii_lowercase(),
    };
    let mut text = float_text(f, v.ty.size == 4, lower, spec.precision);
    if verb.is_ascii_uppercase() {
        text = text.to_uppercase();
        if !f.is_finite() {
            text = float_text(f, false, lower, None);
        }
    }
    if !text.starts_with(['-', '+']) {
        if spec.plus {
            text.insert(0, '+');
        } else if spec.space {
            text.insert(0, ' ');
        }
    } else if text.starts_with('+') && !spec.plus && f.is_infinite() {
        // "+Inf" has its sign only where one is asked for, or by %v.
        if !matches!(verb, b'v' | b'e' | b'E' | b'f' | b'F' | b'g' | b'G') {
            text.remove(0);
        }
    }
    let zero = spec.zero && f.is_finite();
    match text.as_bytes() {
        // Zeroes come between the sign and the digits.
        [sign @ (b'+' | b'-' | b' '), digits @ ..] if zero && !spec.minus => {
            out.push(*sign);
            pad(
                out,
                digits,
                &Spec { width: spec.width.map(|w| w.saturating_sub(1)), ..spec.clone() },
                true,
            );
        }
        text => pad(out, text, spec, zero),
    }
}

fn string_verb(out: &mut Vec<u8>, bytes: &[u8], verb: u8, spec: &Spec) {
    let cut = |bytes: &[u8]| match spec.precision {
        None => bytes.to_vec(),
        Some(p) => {
            let mut end = 0;
            for _ in 0..p {
                if end >= bytes.len() {
                    break;
                }
                end += string::decode(&bytes[end..]).1;
            }
            bytes[..end].to_vec()
        }
    };
    match verb {
        b'q' => {
            let text = cut(bytes);
            let quoted = if spec.sharp
                && !text.contains(&b'`')
                && std::str::from_utf8(&text)
                    .is_ok_and(|t| !t.contains(|c: char| c.is_control() && c != '\t'))
            {
                format!("`{}`", String::from_utf8_lossy(&text))
            } else {
                quote(&text, '"', spec.plus)
            };
            pad(out, quoted.as_bytes(), spec, spec.zero);
        }
        b'x' | b'X' => {
            let bytes = &bytes[..spec.precision.map_or(bytes.len(), |p| p.min(bytes.len()))];
            let mut text = String::new();
            let prefix = match (spec.sharp, verb) {
                (true, b'x') => "0x",
                (true, _) => "0X",
                _ => "",
            };
            for (i, b) in bytes.iter().enumerate() {
                if spec.space && i > 0 {
                    text.push(' ');
                }
                if i == 0 || spec.space {
                    text.push_str(prefix);
                }
                text.push_str(&if verb == b'x' { format!("{b:02x}") } else { format!("{b:02X}") });
            }
            pad(out, text.as_bytes(), spec, spec.zero);
        }
        _ => pad(out, &cut(bytes), spec, spec.zero),
    }
}

/// `map[key:element …]`, in the order of the keys.
fn format_map(out: &mut Vec<u8>, v: &Value, ty: &MapType, verb: u8, spec: &Spec, depth: usize) {
    if verb == b'p' {
        return pointer(out, v, verb, spec);
    }
    // SAFETY: a value of map type is nil or a map of it.
    let mut entries = unsafe { map::entries(ty, v.word(0)) };
    // They lie in one object, which the map may leave.
    let _entries = entries.first().map(|entry| host::hold(entry.0));
    let key = |at: usize| Value { ty: ty.key, at };
    entries.sort_by(|x, y| order(&key(x.0), &key(y.0)));
    if spec.sharp_v {
        out.extend_from_slice(v.ty.name.as_bytes());
        if v.word(0) == 0 {
            return out.extend_from_slice(b"(nil)");
        }
    }
    out.extend_from_slice(if spec.sharp_v { b"{" } else { b"map[" });
    for (i, (k, e)) in entries.into_iter().enumerate() {
        if i > 0 {
            out.extend_from_slice(if spec.sharp_v { b", " } else { b" " });
        }
        format(out, &key(k), verb, spec, depth + 1);
        out.push(b':');
        format(out, &Value { ty: ty.elem, at: e }, verb, spec, depth + 1);
    }
    out.push(if spec.sharp_v { b'}' } else { b']' });
}

/// How package fmt sorts keys.
fn order(x: &Value, y: &Value) -> Ordering {
    match x.ty.shape() {
        Shape::Int => x.signed().cmp(&y.signed()),
        Shape::Bool | Shape::Uint => x.unsigned().cmp(&y.unsigned()),
        Shape::Float => x
            .float()
            .partial_cmp(&y.float())
            .unwrap_or_else(|| y.float().is_nan().cmp(&x.float().is_nan())),
        Shape::String => x.bytes().cmp(y.bytes()),
        Shape::Struct(fields) => {
            let field =
                |v: &Value, i: usize| Value { ty: fields[i].ty, at: v.at + fields[i].offset };
            (0..fields.len())
                .map(|i| order(&field(x, i), &field(y, i)))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        }
        Shape::Array(..) => {
            let pairs = x.elements().zip(y.elements());
            pairs.map(|(x, y)| order(&x, &y)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        }
        Shape::Interface(_) => match (x.dynamic(), y.dynamic()) {
            (a, b) if a.ty.map(std::ptr::from_ref) == b.ty.map(std::ptr::from_ref) => {
                match (a.value(), b.value()) {
                    (Some(a), Some(b)) => order(&a, &b),
                    _ => Ordering::Equal,
                }
            }
            (a, b) => a.ty.map(std::ptr::from_ref).cmp(&b.ty.map(std::ptr::from_ref)),
        },
        _ => x.word(0).cmp(&y.word(0)),
    }
}
