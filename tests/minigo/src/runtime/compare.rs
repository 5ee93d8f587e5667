//! Equality and order of values.

use super::arguments::natives;
use super::fail::RuntimeError;
use super::panic;
use super::typeinfo::{Shape, TypeInfo};

/// Whether two values in memory are equal.
///
/// # Safety
/// Values of type `info` lie at both addresses.
pub(crate) unsafe fn equal(info: &TypeInfo, x: usize, y: usize) -> bool {
    // SAFETY: each case reads within a value of the type.
    unsafe {
        let word = |at: usize, i: usize| *((at + 8 * i) as *const usize);
        match info.shape() {
            Shape::Float if info.size == 4 => *(x as *const f32) == *(y as *const f32),
            Shape::Float => *(x as *const f64) == *(y as *const f64),
            Shape::String | Shape::Error => {
                word(x, 1) == word(y, 1)
                    && (word(x, 1) == 0
                        || std::slice::from_raw_parts(word(x, 0) as *const u8, word(x, 1))
                            == std::slice::from_raw_parts(word(y, 0) as *const u8, word(y, 1)))
            }
            Shape::Interface(_) => equal_words(word(x, 0), word(x, 1), word(y, 0), word(y, 1)),
            Shape::Array(n, elem) => {
                (0..*n).all(|i| equal(elem, x + i * elem.size, y + i * elem.size))
            }
            Shape::Struct(fields) => fields
                .iter()
                .filter(|f| f.name != "_")
                .all(|f| equal(f.ty, x + f.offset, y + f.offset)),
            _ => {
                std::slice::from_raw_parts(x as *const u8, info.size)
                    == std::slice::from_raw_parts(y as *const u8, info.size)
            }
        }
    }
}

pub(crate) fn comparable(info: &TypeInfo) -> bool {
    match info.shape() {
        Shape::Slice(_) | Shape::Func | Shape::Map(_) => false,
        Shape::Array(_, e) => comparable(e),
        Shape::Struct(f) => f.iter().all(|f| comparable(f.ty)),
        _ => true,
    }
}

/// Whether two values of interface type, as type and data words, are equal.
///
/// # Safety
/// The words are those of interface values.
unsafe fn equal_words(xt: usize, xd: usize, yt: usize, yd: usize) -> bool {
    if xt != yt {
        return false;
    }
    if xt == 0 {
        return true;
    }
    // SAFETY: a type word that is not nil is the address of a leaked TypeInfo, the data word fits
    // it.
    unsafe {
        let info = &*(xt as *const TypeInfo);
        if !comparable(info) {
            panic::raise(RuntimeError::error(format!("comparing uncomparable type {}", info.name)));
        }
        if info.direct { xd == yd } else { equal(info, xd, yd) }
    }
}

natives! {
    /// (type, address, address) -> 1 if the values there are equal.
    fn equal_memory(a) {
        // SAFETY: compiled code passes addresses of values of that type.
        usize::from(unsafe { equal(a.info(0), a.get(1), a.get(2)) })
    }

    /// (type word, data word, type word, data word) -> 1 if the interface values are equal.
    fn equal_interfaces(a) {
        // SAFETY: compiled code passes the words of interface values.
        usize::from(unsafe { equal_words(a.get(0), a.get(1), a.get(2), a.get(3)) })
    }

    /// (string, string) -> negative, 0 or positive.
    fn compare_strings(a) {
        a.bytes(0).cmp(a.bytes(2)) as isize as usize
    }
}
