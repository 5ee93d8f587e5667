//! Slices: growth as Go's, append and copy.

use super::alloc;
use super::arguments::{Arguments, natives};
use super::fail::RuntimeError;
use super::panic;
use super::typeinfo::TypeInfo;

/// Sizes to which Go 1.19 rounds small objects: they show in `cap`.
const SIZE_CLASSES: [usize; 67] = [
    8, 16, 24, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240, 256, 288, 320, 352,
    384, 416, 448, 480, 512, 576, 640, 704, 768, 896, 1024, 1152, 1280, 1408, 1536, 1792, 2048,
    2304, 2688, 3072, 3200, 3456, 4096, 4864, 5120, 5376, 6144, 6528, 6784, 6912, 8192, 9472, 9728,
    10240, 10880, 12288, 13568, 14336, 16384, 18432, 19072, 20480, 21760, 24576, 27264, 28672,
];

fn round_up(bytes: usize) -> usize {
    match SIZE_CLASSES.iter().find(|c| **c >= bytes) {
        Some(c) => *c,
        None if bytes <= 32768 => 32768,
        None => bytes.next_multiple_of(8192),
    }
}

/// The capacity with which a slice grows to at least `needed` elements.
fn new_capacity(old: usize, needed: usize, size: usize) -> usize {
    let double = old.wrapping_mul(2);
    let mut cap = old;
    if needed > double {
        cap = needed;
    } else if old < 256 {
        cap = double;
    } else {
        while cap < needed {
            cap += (cap + 3 * 256) / 4;
        }
    }
    match size {
        0 => needed,
        _ => match cap.checked_mul(size) {
            Some(bytes) if bytes < 1 << 47 => round_up(bytes) / size,
            _ => panic::raise(RuntimeError::error("growslice: cap out of range".into())),
        },
    }
}

fn grow(info: &TypeInfo, at: usize, len: usize, cap: usize, needed: usize) -> (usize, usize) {
    let cap = new_capacity(cap, needed, info.size);
    let new = alloc::array(info, cap);
    // SAFETY: `len` elements are in the old array and fit in the new one.
    unsafe { alloc::copy(info, new, at, len) };
    (new, cap)
}

fn set_slice(a: &Arguments<'_>, at: usize, len: usize, cap: usize) -> usize {
    a.set(0, at);
    a.set(1, len);
    a.set(2, cap);
    0
}

natives! {
    /// (type, address, len, cap, needed): a larger array with the old elements.
    fn grow_slice(a) {
        let (at, cap) = grow(a.info(0), a.get(1), a.get(2), a.get(3), a.get(4));
        set_slice(&a, at, a.get(2), cap)
    }

    /// (type, slice, address, len): the slice with more elements behind.
    fn append_slice(a) {
        let info = a.info(0);
        let (mut at, len, mut cap) = (a.get(1), a.get(2), a.get(3));
        let (more, count) = (a.get(4), a.get(5));
        if len + count > cap {
            (at, cap) = grow(info, at, len, cap, len + count);
        }
        // SAFETY: `count` elements are there, and the array has room for them behind `len`.
        unsafe { alloc::copy(info, at + len * info.size, more, count) };
        set_slice(&a, at, len + count, cap)
    }

    /// (type, address, len, address, len) -> how many elements were copied.
    fn copy_slice(a) {
        let n = a.get(2).min(a.get(4));
        // SAFETY: both arrays have that many elements.
        unsafe { alloc::copy(a.info(0), a.get(1), a.get(3), n) };
        n
    }
}

#[cfg(test)]
mod tests {
    use super::new_capacity;

    #[test]
    fn capacities_are_those_of_go() {
        assert_eq!(new_capacity(0, 1, 8), 1);
        assert_eq!(new_capacity(4, 5, 8), 8);
        assert_eq!(new_capacity(0, 5, 8), 6);
        assert_eq!(new_capacity(512, 513, 8), 848);
        assert_eq!(new_capacity(0, 3, 1), 8);
    }
}
