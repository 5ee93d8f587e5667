//! `print`, `println`, and what package fmt prints.

use super::arguments::{Arguments, natives};
use super::{format, host, output, string, verbs};

/// What `print` is asked to write.
#[derive(Clone, Copy, Debug)]
#[repr(usize)]
pub(crate) enum Print {
    Space,
    Newline,
    Bool,
    Int,
    Uint,
    Float,
    String,
    Slice,
    Interface,
    Pointer,
}

/// A signed integer of `size` bytes at `at`.
///
/// # Safety
/// It lies there.
pub(crate) unsafe fn signed(at: usize, size: usize) -> i64 {
    // SAFETY: the caller's promise.
    unsafe {
        match size {
            1 => i64::from(*(at as *const i8)),
            2 => i64::from(*(at as *const i16)),
            4 => i64::from(*(at as *const i32)),
            _ => *(at as *const i64),
        }
    }
}

/// An unsigned integer of `size` bytes at `at`.
///
/// # Safety
/// It lies there.
pub(crate) unsafe fn unsigned(at: usize, size: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        match size {
            1 => u64::from(*(at as *const u8)),
            2 => u64::from(*(at as *const u16)),
            4 => u64::from(*(at as *const u32)),
            _ => *(at as *const u64),
        }
    }
}

/// A float of `size` bytes at `at`.
///
/// # Safety
/// It lies there.
pub(crate) unsafe fn float(at: usize, size: usize) -> f64 {
    // SAFETY: the caller's promise.
    unsafe {
        match size {
            4 => f64::from(*(at as *const f32)),
            _ => *(at as *const f64),
        }
    }
}

/// A float as `print` writes it: +1.500000e+000.
pub(crate) fn runtime_float(f: f64) -> String {
    if f.is_nan() {
        return "NaN".into();
    }
    if f.is_infinite() {
        return if f > 0.0 { "+Inf" } else { "-Inf" }.into();
    }
    let sign = if f.is_sign_negative() { '-' } else { '+' };
    let text = format!("{:.6e}", f.abs());
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let exponent_sign = if exponent < 0 { '-' } else { '+' };
    format!("{sign}{mantissa}e{exponent_sign}{:03}", exponent.abs())
}

/// The variadic arguments of a print function.
fn operands<'a>(a: &'a Arguments<'_>) -> &'a [format::Any] {
    match a.get(1) {
        0 => &[],
        // SAFETY: a slice of that many interface values lies there; each is two words.
        n => unsafe { std::slice::from_raw_parts(a.get(0) as *const format::Any, n) },
    }
}

natives! {
    /// (what, words): one operand of `print`.
    fn print(a) {
        let text = match a.get(0) {
            w if w == Print::Space as usize => " ".to_string(),
            w if w == Print::Newline as usize => "\n".to_string(),
            w if w == Print::Bool as usize => format!("{}", a.get(1) != 0),
            w if w == Print::Int as usize => format!("{}", a.get(1) as isize),
            w if w == Print::Uint as usize => format!("{}", a.get(1)),
            w if w == Print::Float as usize => runtime_float(f64::from_bits(a.get(1) as u64)),
            w if w == Print::String as usize => {
                output::error(a.bytes(1));
                return 0;
            }
            w if w == Print::Slice as usize => {
                format!("[{}/{}]{:#x}", a.get(2), a.get(3), a.get(1))
            }
            w if w == Print::Interface as usize => format!("({:#x},{:#x})", a.get(1), a.get(2)),
            _ => format!("{:#x}", a.get(1)),
        };
        output::error(text.as_bytes());
        0
    }

    /// (operands): `fmt.Print`.
    fn fmt_print(a) {
        let out = format::print(operands(&a));
        host::may_wait(|| output::write(&out));
        out.len()
    }

    /// (operands): `fmt.Println`.
    fn fmt_println(a) {
        let out = format::println(operands(&a));
        host::may_wait(|| output::write(&out));
        out.len()
    }

    /// (operands, format): `fmt.Printf`.
    fn fmt_printf(a) {
        let out = verbs::printf(a.bytes(2), operands(&a));
        host::may_wait(|| output::write(&out));
        out.len()
    }

    /// (operands): `fmt.Sprint`.
    fn fmt_sprint(a) {
        let out = format::print(operands(&a));
        string::return_string(&a, &[&out])
    }

    /// (operands): `fmt.Sprintln`.
    fn fmt_sprintln(a) {
        let out = format::println(operands(&a));
        string::return_string(&a, &[&out])
    }

    /// (operands, format): `fmt.Sprintf`.
    fn fmt_sprintf(a) {
        let out = verbs::printf(a.bytes(2), operands(&a));
        string::return_string(&a, &[&out])
    }
}
