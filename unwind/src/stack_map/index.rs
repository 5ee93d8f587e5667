//! From a return address to the row of its safepoint.
//!
//! Code is divided into buckets. A return address is one byte, its distance from its bucket's
//! start. The return addresses of a bucket lie side by side, and eight of them are compared at
//! once.

use std::ops::Range;

use super::compact::Row;

const BUCKET_SHIFT: u32 = 7;
const BUCKET_MASK: usize = (1 << BUCKET_SHIFT) - 1;
/// The number of keys that are compared at once, and of bytes behind the last key.
const LANES: usize = 8;

/// Where the maps of the safepoints of one piece of code are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    start: usize,
    len: usize,
    /// The first key of each bucket, and one more for the end.
    buckets: Box<[u32]>,
    keys: Box<[u8]>,
    rows: Box<[Row]>,
}

impl Index {
    /// The index of `safepoints`, ascending return addresses with their rows. Each lies behind
    /// `start`, within `len`.
    pub(crate) fn build(start: usize, len: usize, safepoints: &[(usize, Row)]) -> Index {
        let mut buckets = Vec::with_capacity((len >> BUCKET_SHIFT) + 2);
        let mut keys = Vec::with_capacity(safepoints.len() + LANES);
        for (return_address, _) in safepoints {
            let at = return_address.wrapping_sub(start);
            buckets.resize((at >> BUCKET_SHIFT) + 1, keys.len() as u32);
            keys.push((at & BUCKET_MASK) as u8);
        }
        buckets.resize((len >> BUCKET_SHIFT) + 2, keys.len() as u32);
        keys.extend([0; LANES]);
        Index {
            start,
            len,
            buckets: buckets.into_boxed_slice(),
            keys: keys.into_boxed_slice(),
            rows: safepoints.iter().map(|safepoint| safepoint.1).collect(),
        }
    }

    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Bytes of memory that the index takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets) + self.keys.len() + size_of_val(&*self.rows)
    }

    /// How many safepoints it has.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether `return_address` lies in the code, its first byte excepted and its end included.
    #[inline]
    pub(crate) fn covers(&self, return_address: usize) -> bool {
        return_address.wrapping_sub(self.start).wrapping_sub(1) < self.len
    }

    /// The row of `return_address`.
    // Always: the loop over frames has it in line.
    #[inline(always)]
    pub(crate) fn get(&self, return_address: usize) -> Option<Row> {
        if !self.covers(return_address) {
            return None;
        }
        let at = return_address.wrapping_sub(self.start);
        let bucket = at >> BUCKET_SHIFT;
        let (behind, first) = (*self.buckets.get(bucket + 1)?, self.buckets[bucket]);
        let key = (at & BUCKET_MASK) as u8;
        // Few buckets have more keys than are compared at once.
        let i = match self.compare(first as usize, key) {
            Some(i) => i,
            None if first as usize + LANES < behind as usize => {
                self.compare_rest(first as usize + LANES..behind as usize, key)?
            }
            None => return None,
        };
        // An equal key behind the bucket belongs to the next one.
        if i < behind as usize { self.rows.get(i).copied() } else { None }
    }

    /// The first of the keys from `i` on that is `key`, of those that are compared at once.
    #[inline(always)]
    fn compare(&self, i: usize, key: u8) -> Option<usize> {
        const LOW_BITS: u64 = u64::from_le_bytes([1; LANES]);
        const HIGH_BITS: u64 = LOW_BITS << 7;
        let keys = u64::from_le_bytes(*self.keys.get(i..i + LANES)?.first_chunk()?);
        let differ = keys ^ u64::from(key).wrapping_mul(LOW_BITS);
        // The lowest bit that this sets belongs to the first byte that is zero.
        let equal = differ.wrapping_sub(LOW_BITS) & !differ & HIGH_BITS;
        (equal != 0).then(|| i + equal.trailing_zeros() as usize / 8)
    }

    #[cold]
    #[inline(never)]
    fn compare_rest(&self, keys: Range<usize>, key: u8) -> Option<usize> {
        keys.step_by(LANES).find_map(|i| self.compare(i, key))
    }
}
