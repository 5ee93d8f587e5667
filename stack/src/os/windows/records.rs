//! Where the records of barriers lie, which the system's unwinder reads.

use super::areas::{self, RECORDS};
use parking_lot::Mutex;
use stackmark_asm::barrier::BarrierRecord;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use windows_sys::Win32::System::Memory::{
    MEM_COMMIT, MEM_FREE, MEM_RESERVE, MEMORY_BASIC_INFORMATION, PAGE_READWRITE, VirtualAlloc,
    VirtualQuery,
};

/// The system hands out addresses in multiples of it.
const GRANULARITY: usize = 1 << 16;
/// How far above a stack a record may lie.
const REACH: usize = u32::MAX as usize;

/// Records for threads' own stacks, wherever the system has put those. A few are enough for all
/// threads of a process, and they stay. 0: none yet. Release and Acquire, for threads that find
/// them without the lock.
static FOR_THREADS: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

/// Those that serve a stack at these addresses.
fn for_thread(stack: &Range<usize>) -> Option<usize> {
    let all = FOR_THREADS.iter().map(|at| at.load(Ordering::Acquire));
    let serves = |at: usize| at >= stack.end && at + RECORDS - stack.start < REACH;
    all.take_while(|at| *at != 0).find(|at| serves(*at))
}

/// Looks for room for the records of barriers in a thread's own stack, at these addresses. Where
/// none is found the stack has no barriers.
pub(crate) fn prepare_barriers(stack: &Range<usize>) {
    static GROWS: Mutex<()> = Mutex::new(());
    let _grows = GROWS.lock();
    let free = FOR_THREADS.iter().find(|at| at.load(Ordering::Relaxed) == 0);
    if for_thread(stack).is_none()
        && let Some(free) = free
        && let Some(at) = memory_above(stack)
    {
        free.store(at, Ordering::Release);
    }
}

/// Whether barriers in the stack at these addresses have records. A stack that has them keeps them.
#[inline]
pub(crate) fn has_barrier_records(stack: &Range<usize>) -> bool {
    records(stack).is_some()
}

/// Where the records of all stubs begin for the stack at these addresses.
#[inline]
fn records(stack: &Range<usize>) -> Option<usize> {
    areas::records(stack.start).or_else(|| for_thread(stack))
}

/// New memory for records that serves a stack at these addresses, as far above it as it may be:
/// there it serves the most others.
fn memory_above(stack: &Range<usize>) -> Option<usize> {
    let mut at = stack.end.checked_next_multiple_of(GRANULARITY)?;
    let last = stack.start.checked_add(REACH)? - RECORDS;
    let mut places = Vec::new();
    while at < last {
        let mut found = MEMORY_BASIC_INFORMATION::default();
        let size = size_of_val(&found);
        // SAFETY: the system writes the structure, or says that there is no such address.
        if unsafe { VirtualQuery(at as *const _, &raw mut found, size) } == 0 {
            break;
        }
        let end = found.BaseAddress as usize + found.RegionSize;
        if found.State == MEM_FREE {
            let place = (end.min(last) / GRANULARITY * GRANULARITY).checked_sub(RECORDS);
            places.extend(place.filter(|place| *place >= at));
        }
        at = end.checked_next_multiple_of(GRANULARITY)?;
    }
    let (kind, protection) = (MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    places.into_iter().rev().find(|place| {
        // SAFETY: the system gives memory that nobody has, or fails.
        !unsafe { VirtualAlloc(*place as *const _, RECORDS, kind, protection) }.is_null()
    })
}

/// The record of a stub for a barrier in the stack at these addresses.
///
/// # Panics
/// If the stack [has none](has_barrier_records).
#[inline]
pub(crate) fn barrier_record(stack: &Range<usize>, stub: usize) -> Option<*mut BarrierRecord> {
    let records = records(stack).expect("a stack that may have barriers");
    Some((records as *mut BarrierRecord).wrapping_add(stub))
}
