//! Maps: heap objects with an array of entries in the order in which they came, and an index of it
//! by hash.
//!
//! Entries stay in that order, and each has a number larger than those before it. A loop over the
//! map holds the number of its last entry, not an index. So the map may grow or be compacted
//! meanwhile: the loop visits every entry that is there all the time exactly once.

use super::alloc;
use super::arguments::natives;
use super::compare;
use super::fail::RuntimeError;
use super::host;
use super::panic;
use super::typeinfo::{Shape, TypeInfo};
use std::sync::OnceLock;

/// How the values of a map type are laid out.
#[derive(Debug)]
pub(crate) struct MapType {
    pub(crate) key: &'static TypeInfo,
    pub(crate) elem: &'static TypeInfo,
    entry: TypeInfo,
    elem_offset: usize,
}

#[repr(C)]
struct Map {
    len: usize,
    /// `capacity` entries, a heap object.
    entries: usize,
    capacity: usize,
    /// Entries that have been used, dead ones too.
    used: usize,
    /// `mask + 1` words of 4 bytes: 0, or the number of an entry in `entries`, from 1 on. A heap
    /// object without references.
    index: usize,
    mask: usize,
    /// The number that the next entry gets.
    next: usize,
}

/// What an entry begins with.
#[repr(C)]
struct Entry {
    /// 0: the entry is dead.
    hash: u64,
    number: usize,
}

const LIVE: u64 = 1 << 63;
const FIRST_CAPACITY: usize = 8;

impl MapType {
    pub(crate) fn new(key: &'static TypeInfo, elem: &'static TypeInfo) -> MapType {
        let key_offset = size_of::<Entry>();
        let elem_offset = key_offset + key.size.next_multiple_of(8);
        let mut words = vec![false; key_offset / 8];
        for (info, end) in [(key, elem_offset), (elem, elem_offset + elem.size.next_multiple_of(8))]
        {
            words.extend(&info.words);
            words.resize(end / 8, false);
        }
        let size = 8 * words.len();
        MapType {
            key,
            elem,
            entry: TypeInfo::new("map entry".into(), size, words, false),
            elem_offset,
        }
    }
}

fn map_info() -> &'static TypeInfo {
    static INFO: OnceLock<TypeInfo> = OnceLock::new();
    INFO.get_or_init(|| {
        let references = [std::mem::offset_of!(Map, entries), std::mem::offset_of!(Map, index)];
        let words = (0..size_of::<Map>() / 8).map(|w| references.contains(&(8 * w))).collect();
        TypeInfo::new("map".into(), size_of::<Map>(), words, false)
    })
}

fn index_info() -> &'static TypeInfo {
    static INFO: OnceLock<TypeInfo> = OnceLock::new();
    INFO.get_or_init(|| TypeInfo::new("map index".into(), 4, vec![], false))
}

fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xd6e8_feb8_6659_fd93;
    (product >> 64) as u64 ^ product as u64
}

fn hash_bytes(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for c in &mut chunks {
        hash = mix(hash, u64::from_le_bytes(c.try_into().expect("8 bytes")));
    }
    let rest = chunks.remainder();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(hash, u64::from_le_bytes(last) ^ (bytes.len() as u64) << 56)
}

/// # Safety
/// A value of type `info` lies at `at`.
unsafe fn hash(hash_so_far: u64, info: &TypeInfo, at: usize) -> u64 {
    // SAFETY: each case reads within a value of the type.
    unsafe {
        match info.shape() {
            Shape::String | Shape::Error => {
                let (to, len) = (*(at as *const usize), *((at + 8) as *const usize));
                let bytes =
                    if len == 0 { &[] } else { std::slice::from_raw_parts(to as *const u8, len) };
                hash_bytes(hash_so_far, bytes)
            }
            Shape::Float => {
                let value = super::print::float(at, info.size);
                // Both zeroes are equal.
                mix(hash_so_far, if value == 0.0 { 0 } else { value.to_bits() })
            }
            Shape::Interface(_) => {
                let (ty, data) = (*(at as *const usize), *((at + 8) as *const usize));
                let Some(dynamic) = (ty as *const TypeInfo).as_ref() else {
                    return mix(hash_so_far, 0);
                };
                if !compare::comparable(dynamic) {
                    panic::raise(RuntimeError::error(format!(
                        "hash of unhashable type {}",
                        dynamic.name
                    )));
                }
                let value = if dynamic.direct { at + 8 } else { data };
                hash(mix(hash_so_far, ty as u64), dynamic, value)
            }
            Shape::Array(n, e) => (0..*n).fold(hash_so_far, |h, i| hash(h, e, at + i * e.size)),
            Shape::Struct(fields) => fields
                .iter()
                .filter(|f| f.name != "_")
                .fold(hash_so_far, |h, f| hash(h, f.ty, at + f.offset)),
            _ if info.size == 8 => mix(hash_so_far, *(at as *const u64)),
            _ => hash_bytes(hash_so_far, std::slice::from_raw_parts(at as *const u8, info.size)),
        }
    }
}

impl Map {
    /// The entry of a key.
    ///
    /// # Safety
    /// A map of this type, and a key at `key`.
    unsafe fn find(&self, ty: &MapType, key: usize, hash: u64) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        let mut i = hash as usize & self.mask;
        loop {
            // SAFETY: the index has mask + 1 words, never all of them used; they name entries.
            unsafe {
                match *(self.index as *const u32).add(i) {
                    0 => return None,
                    n => {
                        let at = self.entries + (n as usize - 1) * ty.entry.size;
                        if (*(at as *const Entry)).hash == hash
                            && compare::equal(ty.key, at + size_of::<Entry>(), key)
                        {
                            return Some(at);
                        }
                    }
                }
            }
            i = (i + 1) & self.mask;
        }
    }

    /// # Safety
    /// As for `find`; the key is not in the map.
    unsafe fn insert(&mut self, ty: &MapType, key: usize, hash: u64) -> usize {
        if self.used == self.capacity {
            let mostly_live = 2 * self.len > self.used;
            let capacity = if mostly_live { 2 * self.capacity } else { self.capacity };
            // SAFETY: a map of this type; the entries fit.
            unsafe { self.rebuild(ty, capacity) };
        }
        let at = self.entries + self.used * ty.entry.size;
        self.used += 1;
        self.len += 1;
        // SAFETY: an unused entry of the array.
        unsafe {
            (at as *mut Entry).write(Entry { hash, number: self.next });
            alloc::copy(ty.key, at + size_of::<Entry>(), key, 1);
            self.note(hash, self.used);
        }
        self.next += 1;
        at
    }

    /// # Safety
    /// The index has a free word.
    unsafe fn note(&mut self, hash: u64, number: usize) {
        let mut i = hash as usize & self.mask;
        // SAFETY: as in find.
        unsafe {
            while *(self.index as *const u32).add(i) != 0 {
                i = (i + 1) & self.mask;
            }
            *(self.index as *mut u32).add(i) = number as u32;
        }
    }

    /// Moves the live entries to a new array.
    ///
    /// # Safety
    /// A map of this type; its live entries fit.
    unsafe fn rebuild(&mut self, ty: &MapType, capacity: usize) {
        let capacity = capacity.max(FIRST_CAPACITY);
        if capacity > u32::MAX as usize / 2 {
            super::fail::out_of_memory(&format!("a map of {capacity} entries"));
        }
        let words = (2 * capacity).next_power_of_two();
        let (entries, index) =
            (alloc::array(&ty.entry, capacity), alloc::array(index_info(), words));
        if host::reports_stores() {
            host::shade(entries);
            host::shade(index);
            host::shade_lost(self.entries);
            host::shade_lost(self.index);
        }
        let (old, used) = (self.entries, self.used);
        (self.entries, self.capacity, self.used, self.index, self.mask) =
            (entries, capacity, 0, index, words - 1);
        for i in 0..used {
            let from = old + i * ty.entry.size;
            // SAFETY: entries of the old array, and as many of the new one.
            unsafe {
                let hash = (*(from as *const Entry)).hash;
                if hash != 0 {
                    alloc::copy(&ty.entry, entries + self.used * ty.entry.size, from, 1);
                    self.used += 1;
                    self.note(hash, self.used);
                }
            }
        }
    }

    /// The first live entry with a number of at least `number`.
    ///
    /// # Safety
    /// A map of this type.
    unsafe fn first_from(&self, ty: &MapType, number: usize) -> Option<usize> {
        // SAFETY: `used` entries lie there, dead ones with their numbers.
        let entry = |i: usize| unsafe { &*((self.entries + i * ty.entry.size) as *const Entry) };
        let (mut low, mut high) = (0, self.used);
        while low < high {
            let middle = low.midpoint(high);
            if entry(middle).number < number { low = middle + 1 } else { high = middle }
        }
        let live = (low..self.used).find(|i| entry(*i).hash != 0)?;
        Some(self.entries + live * ty.entry.size)
    }
}

fn map_type(info: &'static TypeInfo) -> &'static MapType {
    match info.shape() {
        Shape::Map(ty) => ty,
        _ => unreachable!("compiled code passes map types here"),
    }
}

/// The addresses of the keys and elements of a map.
///
/// # Safety
/// `at` is nil or a map of this type.
pub(crate) unsafe fn entries(ty: &MapType, at: usize) -> Vec<(usize, usize)> {
    // SAFETY: the caller's promise.
    let Some(map) = (unsafe { (at as *const Map).as_ref() }) else { return vec![] };
    let all = (0..map.used).map(|i| map.entries + i * ty.entry.size);
    // SAFETY: `used` entries lie there.
    let live = all.filter(|at| unsafe { (*(*at as *const Entry)).hash != 0 });
    live.map(|at| (at + size_of::<Entry>(), at + ty.elem_offset)).collect()
}

natives! {
    /// (map type, hint) -> a map.
    fn map_make(a) {
        let ty = map_type(a.info(0));
        let at = alloc::array(map_info(), 1);
        // SAFETY: a new, zeroed object of this size; nothing is collected before it is returned.
        let map = unsafe { &mut *(at as *mut Map) };
        map.next = 1;
        let hint = a.get(1) as isize;
        if hint > 0 {
            // SAFETY: an empty map.
            unsafe { map.rebuild(ty, (hint as usize).min(1 << 24)) };
        }
        at
    }

    /// (map type, map, address of a key) -> the address of the element, or of zeroes; 1 in the
    /// second word if it is there.
    fn map_find(a) {
        let ty = map_type(a.info(0));
        // SAFETY: compiled code passes a map of that type and a key.
        let found = unsafe {
            let hash = hash(0, ty.key, a.get(2)) | LIVE;
            (a.get(1) as *const Map).as_ref().and_then(|map| map.find(ty, a.get(2), hash))
        };
        a.set(1, usize::from(found.is_some()));
        match found {
            Some(at) => at + ty.elem_offset,
            None if ty.elem.size <= alloc::ZEROES => alloc::zero_size_address(),
            None => alloc::array(ty.elem, 1),
        }
    }

    /// (map type, map, address of a key) -> the address of the element, which is made if there is
    /// none.
    fn map_assign(a) {
        let ty = map_type(a.info(0));
        // SAFETY: as in map_find.
        unsafe {
            let hash = hash(0, ty.key, a.get(2)) | LIVE;
            let Some(map) = (a.get(1) as *mut Map).as_mut() else {
                panic::raise(RuntimeError::plain("assignment to entry in nil map"))
            };
            let at = match map.find(ty, a.get(2), hash) {
                Some(at) => at,
                None => map.insert(ty, a.get(2), hash),
            };
            at + ty.elem_offset
        }
    }

    /// (map type, map, address of a key): deletes it.
    fn map_delete(a) {
        let ty = map_type(a.info(0));
        // SAFETY: as in map_find; the entry is cleared but for its number.
        unsafe {
            let hash = hash(0, ty.key, a.get(2)) | LIVE;
            let Some(map) = (a.get(1) as *mut Map).as_mut() else { return 0 };
            if let Some(at) = map.find(ty, a.get(2), hash) {
                (*(at as *mut Entry)).hash = 0;
                if host::reports_stores() {
                    for (w, _) in ty.entry.words.iter().enumerate().filter(|(_, r)| **r) {
                        host::shade(*((at + 8 * w) as *const usize));
                    }
                }
                let body = at + size_of::<Entry>();
                std::ptr::write_bytes(body as *mut u8, 0, ty.entry.size - size_of::<Entry>());
                map.len -= 1;
            }
        }
        0
    }

    /// (map type, map, number) -> the number of the first entry from that on, 0 if there is none;
    /// the addresses of its key and its element in the result words from the second on.
    fn map_next(a) {
        let ty = map_type(a.info(0));
        // SAFETY: as in map_find.
        let found = unsafe {
            (a.get(1) as *const Map).as_ref().and_then(|map| map.first_from(ty, a.get(2)))
        };
        let Some(at) = found else { return 0 };
        a.set(1, at + size_of::<Entry>());
        a.set(2, at + ty.elem_offset);
        // SAFETY: an entry.
        unsafe { (*(at as *const Entry)).number }
    }
}
