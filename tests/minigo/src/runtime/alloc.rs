//! Objects: allocation, copies with the write barrier, the descriptors of the heap.

use super::arguments::natives;
use super::host;
use super::typeinfo::TypeInfo;
use std::sync::OnceLock;

/// Bytes of zeroes that may be read as the zero value of any type of at most this size.
pub(crate) const ZEROES: usize = 64 << 10;

static ZERO: [u64; ZEROES / 8] = [0; ZEROES / 8];

/// Where values without size are, and zero values that are only read.
pub(crate) fn zero_size_address() -> usize {
    ZERO.as_ptr() as usize
}

/// The heap's name for arrays of elements of `size` bytes with references in `words`.
pub(crate) fn descriptor(size: usize, words: &[bool]) -> usize {
    /// That of memory without references, which every new string asks for.
    static PLAIN: OnceLock<usize> = OnceLock::new();
    match words.iter().any(|w| *w) {
        true => host::descriptor(size / 8, words),
        false => *PLAIN.get_or_init(|| host::descriptor(1, &[false])),
    }
}

/// Zeroed memory of `bytes` bytes.
pub(crate) fn bytes(descriptor: usize, bytes: usize) -> usize {
    host::try_allocate(descriptor, bytes)
        .unwrap_or_else(|error| super::fail::out_of_memory(&error.to_string()))
}

/// Whether some small objects can be allocated.
pub(crate) fn has_room() -> bool {
    let none = descriptor(1, &[]);
    let references = descriptor(16, &[true, false]);
    [(none, 64), (none, 128), (none, 256), (references, 16)]
        .iter()
        .all(|(d, n)| host::try_allocate(*d, *n).is_ok())
}

/// Zeroed memory for `count` values of type `info`.
pub(crate) fn array(info: &TypeInfo, count: usize) -> usize {
    match array_bytes(info, count) {
        0 => zero_size_address(),
        n => bytes(info.descriptor, n),
    }
}

fn array_bytes(info: &TypeInfo, count: usize) -> usize {
    let bytes = info.size.checked_mul(count);
    bytes.unwrap_or_else(|| {
        super::fail::out_of_memory(&format!("{count} values of {} bytes", info.size))
    })
}

/// Copies `count` values between memory that may overlap; references that are stored go through the
/// write barrier.
///
/// # Safety
/// Both ranges hold that many values of type `info`.
pub(crate) unsafe fn copy(info: &TypeInfo, to: usize, from: usize, count: usize) {
    let bytes = info.size * count;
    if bytes == 0 {
        return;
    }
    // The destination may lie in an older frame of this very stack (contract C3): what is stored
    // there is shaded too.
    if info.has_refs() && host::reports_stores() {
        for i in 0..count {
            for (w, _) in info.words.iter().enumerate().filter(|(_, is_ref)| **is_ref) {
                let at = i * info.size + 8 * w;
                // SAFETY: word `w` of value `i` lies in both ranges.
                unsafe {
                    host::store(*((from + at) as *const usize), to + at);
                    host::shade_lost(*((to + at) as *const usize));
                }
            }
        }
    }
    // SAFETY: the caller's promise.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
}

natives! {
    /// (type, count) -> address of zeroed memory.
    fn allocate(a) {
        let info = a.info(0);
        match array_bytes(info, a.get(1)) {
            0 => zero_size_address(),
            n => host::allocate_or_collect(info.descriptor, n)
                .unwrap_or_else(|error| super::fail::out_of_memory(&error.to_string())),
        }
    }

    /// (type, to, from): copies one value.
    fn copy_value(a) {
        // SAFETY: compiled code passes addresses of values of that type.
        unsafe { copy(a.info(0), a.get(1), a.get(2), 1) };
        0
    }

    /// (address, bytes): zeroes memory.
    fn zero_memory(a) {
        // SAFETY: compiled code passes a variable of its own.
        unsafe { std::ptr::write_bytes(a.get(0) as *mut u8, 0, a.get(1)) };
        0
    }

    /// (word): a reference is about to be stored.
    fn write_barrier(a) {
        host::shade(a.get(0));
        0
    }

    /// (word, address): a reference is about to be stored there.
    fn write_barrier_into(a) {
        host::store(a.get(0), a.get(1));
        0
    }

    /// (word): a reference is about to be overwritten.
    fn write_barrier_lost(a) {
        host::shade_lost(a.get(0));
        0
    }
}
