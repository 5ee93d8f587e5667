//! The pool of barrier stubs, its table of saved return addresses, and what is done when an
//! exception has passed a stub.

use crate::layout::{BarrierFn, GoroutineHeader};
use crate::{arch, current};
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::Once;

/// Pages of 4096 bytes in the pool.
pub const BARRIER_PAGES: usize = 64;
/// Stubs in each page: its first 8 bytes hold the distance to the table.
pub const STUBS_PER_PAGE: usize = 511;
/// Words of the table. Not every index names a stub: see [`is_stub`].
pub const TABLE_WORDS: usize = BARRIER_PAGES * (STUBS_PER_PAGE + 1);

const STUB_BYTES: usize = 8;

/// The saved return addresses. Words are read by unwinders of other threads at any time, by plain
/// loads, and written by the holder of a goroutine before its slot is written: see the placing
/// protocol of the crate that owns barriers.
#[unsafe(no_mangle)]
static stackmark_barrier_table: [AtomicUsize; TABLE_WORDS] =
    [const { AtomicUsize::new(0) }; TABLE_WORDS];

/// Which vector registers a hit keeps. Written once, before the first goroutine runs.
#[unsafe(no_mangle)]
static stackmark_vector_kind: AtomicU32 = AtomicU32::new(0);
/// Bytes of the area in which the vector state is saved.
#[unsafe(no_mangle)]
static stackmark_vector_size: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C-unwind" {
    static stackmark_barrier_pool: u8;
    static stackmark_barrier_pool_end: u8;
    fn _Unwind_Resume(exception: *mut c_void) -> !;
}

/// Asks the CPU once how the vector state is to be saved.
pub(crate) fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        keep_vectors(arch::vector_kind());
    });
}

fn keep_vectors(kind: u32) {
    stackmark_vector_size.store(arch::vector_bytes(kind), Relaxed);
    stackmark_vector_kind.store(kind, Relaxed);
}

/// Lets hits keep only what such a CPU would have, if this one has more: the number of a kind, from
/// 0. For tests, before anything runs that uses the other registers. The kind that is kept now.
#[doc(hidden)]
pub fn limit_vectors(kind: u32) -> u32 {
    initialise();
    let kind = kind.min(arch::vector_kind());
    keep_vectors(kind);
    kind
}

/// The addresses of all stubs.
pub fn pool() -> Range<usize> {
    &raw const stackmark_barrier_pool as usize..&raw const stackmark_barrier_pool_end as usize
}

/// Whether `index`, below [`TABLE_WORDS`], names a stub: the first word of each page does not.
pub const fn is_stub(index: usize) -> bool {
    index < TABLE_WORDS && !index.is_multiple_of(STUBS_PER_PAGE + 1)
}

/// The word that a hijacked slot holds: the address of the stub, plus 1.
///
/// # Panics
/// If `index` does not name a stub.
#[inline]
pub fn hijacked_word(index: usize) -> usize {
    assert!(is_stub(index), "{index} is not the index of a stub");
    pool().start + index * STUB_BYTES + 1
}

/// The index of the stub into which `found`, a return address, points; `None` if it is an ordinary
/// return address.
#[inline]
pub fn index_of(found: usize) -> Option<usize> {
    let pool = pool();
    let offset = found.wrapping_sub(pool.start);
    (offset < pool.end - pool.start).then_some(offset / STUB_BYTES)
}

/// The table's word for a stub: the saved return address.
///
/// # Panics
/// If `index` is not below [`TABLE_WORDS`].
#[inline]
pub fn saved(index: usize) -> &'static AtomicUsize {
    &stackmark_barrier_table[index]
}

/// The return address that `found` stands for: the saved one if it points into a stub, else `None`.
#[inline]
pub fn original(found: usize) -> Option<usize> {
    // Relaxed: whoever walks holds the goroutine or is its own thread, and so has seen the placing.
    index_of(found).map(|index| saved(index).load(Relaxed))
}

/// Where the landing pad calls out to: tells the host and goes on unwinding, on the system stack.
///
/// # Safety
/// Called by the landing pad alone.
#[unsafe(no_mangle)]
unsafe extern "C-unwind" fn stackmark_barrier_resume(
    exception: *mut c_void,
    index: usize,
) -> usize {
    // SAFETY: we were called out to, so the machine runs a goroutine; the word that call_system
    // returns through is the slot. The hook was stored by the host as a BarrierFn.
    unsafe {
        let machine = current();
        let goroutine = (*machine).goroutine.load(Relaxed) as *const GoroutineHeader;
        let slot = (*goroutine).sched.sp.load(Relaxed) + arch::PARKED_RETURN;
        let hook = (*machine).on_leapfrog.load(Relaxed);
        if hook != 0 {
            let hook: BarrierFn = core::mem::transmute::<usize, BarrierFn>(hook);
            hook(machine, slot as *mut usize, index);
        }
        _Unwind_Resume(exception)
    }
}
