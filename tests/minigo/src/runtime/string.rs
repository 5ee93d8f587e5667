//! Strings and their conversions.

use super::alloc;
use super::arguments::{Arguments, natives};

/// A new string with these bytes: its address. The bytes may come from the heap: nothing is
/// collected in a native.
pub(crate) fn new_string(parts: &[&[u8]]) -> (usize, usize) {
    let len = parts.iter().map(|p| p.len()).sum();
    if len == 0 {
        return (alloc::zero_size_address(), 0);
    }
    let at = alloc::bytes(alloc::descriptor(1, &[]), len);
    let mut to = at;
    for p in parts {
        // SAFETY: the object has room for all parts.
        unsafe { std::ptr::copy_nonoverlapping(p.as_ptr(), to as *mut u8, p.len()) };
        to += p.len();
    }
    (at, len)
}

pub(crate) fn return_string(a: &Arguments<'_>, parts: &[&[u8]]) -> usize {
    let (at, len) = new_string(parts);
    a.set(0, at);
    a.set(1, len);
    0
}

/// The rune at the start of `bytes`, which is not empty, and its length; U+FFFD and 1 where there
/// is none.
pub(crate) fn decode(bytes: &[u8]) -> (char, usize) {
    let len = match bytes[0] {
        0..0x80 => 1,
        0xc2..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0..0xf5 => 4,
        _ => return (char::REPLACEMENT_CHARACTER, 1),
    };
    match bytes.get(..len).and_then(|b| std::str::from_utf8(b).ok()).and_then(|s| s.chars().next())
    {
        Some(c) => (c, len),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}

/// The runes of a string.
pub(crate) fn runes(mut bytes: &[u8]) -> impl Iterator<Item = char> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let (c, len) = decode(bytes);
        bytes = &bytes[len..];
        Some(c)
    })
}

pub(crate) fn rune_or_replacement(code: i64) -> char {
    u32::try_from(code).ok().and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER)
}

natives! {
    /// (string, string): both, one behind the other.
    fn concatenate(a) {
        let (x, y) = (a.bytes(0), a.bytes(2));
        match (x.len(), y.len()) {
            (0, len) => {
                let at = a.get(2);
                a.set(0, at);
                a.set(1, len);
                0
            }
            (len, 0) => {
                a.set(0, a.get(0));
                a.set(1, len);
                0
            }
            _ => return_string(&a, &[x, y]),
        }
    }

    /// (code point): its UTF-8.
    fn string_of_rune(a) {
        let c = rune_or_replacement(a.get(0) as i64);
        return_string(&a, &[c.encode_utf8(&mut [0; 4]).as_bytes()])
    }

    /// (address, len): a copy of the bytes.
    fn string_of_bytes(a) {
        let bytes = a.bytes(0);
        return_string(&a, &[bytes])
    }

    /// (address, len) of 32-bit code points: their UTF-8.
    fn string_of_runes(a) {
        let runes: &[i32] = match a.get(1) {
            0 => &[],
            // SAFETY: a slice of that many runes lies there.
            len => unsafe { std::slice::from_raw_parts(a.get(0) as *const i32, len) },
        };
        let text: String = runes.iter().map(|r| rune_or_replacement(i64::from(*r))).collect();
        return_string(&a, &[text.as_bytes()])
    }

    /// (string, byte type): a slice of its bytes.
    fn bytes_of_string(a) {
        let bytes = a.bytes(0);
        let (at, len) = new_string(&[bytes]);
        a.set(0, at);
        a.set(1, len);
        a.set(2, len);
        0
    }

    /// (string, rune type): a slice of its runes.
    fn runes_of_string(a) {
        let runes: Vec<i32> = runes(a.bytes(0)).map(|c| c as i32).collect();
        let at = alloc::array(a.info(2), runes.len());
        // SAFETY: the new array has that many elements.
        unsafe { std::ptr::copy_nonoverlapping(runes.as_ptr(), at as *mut i32, runes.len()) };
        a.set(0, at);
        a.set(1, runes.len());
        a.set(2, runes.len());
        0
    }

    /// (string, index) -> the index behind the rune there; the rune is in the first result word.
    fn decode_rune(a) {
        let at = a.get(2);
        let (c, len) = decode(&a.bytes(0)[at..]);
        a.set(0, c as usize);
        at + len
    }
}
