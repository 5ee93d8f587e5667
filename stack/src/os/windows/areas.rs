//! Addresses for stacks, and above them what the system's unwinder reads of barriers.
//!
//! The unwinder finds the frame beyond a barrier by a record above the stack, less than 4 GiB away.
//! So stacks lie in *areas*: 4 GiB of reserved addresses, at a multiple of that. The upper end of
//! an area has a record for each stub of the process, since a stub is in one slot at a time. The
//! rest is handed out. The place of a record follows from an address of the stack and the number of
//! the stub. A record is written when its barrier is placed and when the stack moves, by the holder
//! of the slot. Heaps lie between the areas.

use parking_lot::Mutex;
use stackmark_asm::barrier::{BarrierRecord, TABLE_WORDS};
use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use windows_sys::Win32::Foundation::ERROR_NOT_ENOUGH_MEMORY;
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_RELEASE, MEM_RESERVE, PAGE_NOACCESS, PAGE_READWRITE, VirtualAlloc, VirtualFree,
};

/// Bytes of a record for each stub, used or not.
pub(super) const RECORDS: usize = TABLE_WORDS * size_of::<BarrierRecord>();
/// Bytes of an area.
const AREA: usize = 1 << 32;
/// The first one that is tried: programs and their libraries mostly lie lower, or much higher.
const FIRST: usize = 16;
/// Areas that have room in the addresses of a process.
const MOST: usize = 1 << 15;

/// Which areas are ours, as bits. Relaxed: who has an address has got it from here.
static OURS: [AtomicU64; MOST / 64] = [const { AtomicU64::new(0) }; MOST / 64];

/// What is free in all areas: bytes by first address. The records lie between two areas, so no
/// range belongs to both.
struct Free {
    ranges: BTreeMap<usize, usize>,
    /// Where the search for another area begins.
    next: usize,
}

static FREE: Mutex<Free> = Mutex::new(Free { ranges: BTreeMap::new(), next: FIRST });

/// Where the records of the stubs begin for a stack that lies at this address. `None` if that is in
/// no area.
#[inline]
pub(super) fn records(address: usize) -> Option<usize> {
    let number = address / AREA;
    let bits = OURS.get(number / 64)?.load(Relaxed);
    (bits >> (number % 64) & 1 != 0).then_some((number + 1) * AREA - RECORDS)
}

/// Takes `bytes` of addresses, which are not accessible.
///
/// # Errors
/// The system's error, or that no area has so many.
pub(super) fn take(bytes: usize) -> io::Result<usize> {
    if bytes > AREA - RECORDS {
        let most = (AREA - RECORDS) >> 20;
        return Err(io::Error::other(format!("a stack has at most {most} MiB here")));
    }
    let mut free = FREE.lock();
    let found = |free: &Free| {
        let fits = free.ranges.iter().find(|(_, len)| **len >= bytes);
        fits.map(|(at, len)| (*at, *len))
    };
    let (at, len) = match found(&free) {
        Some(found) => found,
        None => reserve_area(&mut free.next)?,
    };
    free.ranges.remove(&at);
    if len > bytes {
        free.ranges.insert(at + bytes, len - bytes);
    }
    Ok(at)
}

/// Gives addresses back, which are not accessible any more.
pub(super) fn give(at: usize, bytes: usize) {
    let ranges = &mut FREE.lock().ranges;
    let (mut at, mut bytes) = (at, bytes);
    if let Some(above) = ranges.remove(&(at + bytes)) {
        bytes += above;
    }
    if let Some((&below, &len)) = ranges.range(..at).next_back()
        && below + len == at
    {
        (at, bytes) = (below, len + bytes);
    }
    ranges.insert(at, bytes);
}

/// Reserves `bytes` of addresses for a heap, where areas lie too. The system would choose them
/// directly above the stacks of threads that it makes next: no records for those could lie there.
///
/// # Errors
/// The system's error.
pub(super) fn reserve_apart(bytes: usize) -> io::Result<usize> {
    let beyond = MOST.saturating_sub(bytes.div_ceil(AREA));
    // Null in the end: the system chooses.
    let mut places = (FIRST..beyond).map(|number| number * AREA).chain([0]);
    let reserved = places.find_map(|at| {
        // SAFETY: the system gives addresses that nobody has, or fails.
        let at = unsafe { VirtualAlloc(at as *const _, bytes, MEM_RESERVE, PAGE_NOACCESS) };
        (!at.is_null()).then_some(at as usize)
    });
    reserved.ok_or_else(io::Error::last_os_error)
}

/// Reserves an area from number `next` on. Yields what is free in it.
fn reserve_area(next: &mut usize) -> io::Result<(usize, usize)> {
    while *next < MOST - 1 {
        let (number, at) = (*next, *next * AREA);
        *next += 1;
        // SAFETY: the system gives addresses that nobody has, or fails.
        let reserved = unsafe { VirtualAlloc(at as *const _, AREA, MEM_RESERVE, PAGE_NOACCESS) };
        if reserved.is_null() {
            continue;
        }
        let records = (at + AREA - RECORDS) as *const _;
        // SAFETY: the upper end of the new area.
        let committed = unsafe { VirtualAlloc(records, RECORDS, MEM_COMMIT, PAGE_READWRITE) };
        if committed.is_null() {
            let error = io::Error::last_os_error();
            // SAFETY: nobody knows the area. It is tried again.
            unsafe { VirtualFree(reserved, 0, MEM_RELEASE) };
            *next = number;
            return Err(error);
        }
        OURS[number / 64].fetch_or(1 << (number % 64), Relaxed);
        return Ok((at, AREA - RECORDS));
    }
    // Others may have left addresses meanwhile.
    *next = FIRST;
    Err(io::Error::from_raw_os_error(ERROR_NOT_ENOUGH_MEMORY as i32))
}
