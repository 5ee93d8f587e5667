//! The values of C constants, from the variables of an object file that the C compiler has
//! initialised with them; as Go writes them.

use object::{Object, ObjectSection, ObjectSymbol};

/// The bytes of the variable `name` and of what lies behind it; none if it is in no section with
/// data.
fn bytes<'o>(file: &object::File<'o>, name: &str) -> Option<&'o [u8]> {
    let symbol = file.symbols().find(|s| s.name() == Ok(name))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    section.data().ok()?.get(symbol.address() as usize..)
}

/// As [`bytes`], so many; zeroes where they are in no data.
fn words<const N: usize>(object: &[u8], name: &str) -> Option<[u64; N]> {
    let file = object::File::parse(object).ok()?;
    let Some(bytes) = bytes(&file, name).filter(|b| !b.is_empty()) else { return Some([0; N]) };
    let mut words = bytes.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("8")));
    let all: Vec<u64> = words.by_ref().take(N).collect();
    all.try_into().ok()
}

/// An integer: its 64 bits, and 1 if it is negative.
pub(super) fn integer(object: &[u8], name: &str) -> Option<String> {
    let [bits, negative] = words(object, name)?;
    Some(if negative == 0 { bits.to_string() } else { (bits as i64).to_string() })
}

/// A `double`, with the six digits that cgo keeps. None: it is not finite.
pub(super) fn float(object: &[u8], name: &str) -> Option<String> {
    let [bits] = words(object, name)?;
    let value = f64::from_bits(bits);
    value.is_finite().then(|| format!("{value:.6}"))
}

/// A string that ends at its first zero.
pub(super) fn string(object: &[u8], name: &str) -> Option<String> {
    let file = object::File::parse(object).ok()?;
    let bytes = bytes(&file, name).unwrap_or_default();
    let bytes = bytes.split(|b| *b == 0).next().unwrap_or_default();
    let escaped: String = bytes
        .iter()
        .map(|b| match b {
            b' ' | b'!' | b'#'..=b'[' | b']'..=b'~' => char::from(*b).to_string(),
            b => format!("\\x{b:02x}"),
        })
        .collect();
    Some(format!("\"{escaped}\""))
}
