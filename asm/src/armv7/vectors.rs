//! Which vector registers a hit keeps: what the processor has.

use core::ffi::c_ulong;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Once;

/// d0 to d15.
const KIND_16: u32 = 0;
/// d0 to d31.
const KIND_32: u32 = 1;

/// The kind that `barrier_common` keeps. Written before the first goroutine runs.
#[unsafe(no_mangle)]
static stackmark_vector_kind: AtomicU32 = AtomicU32::new(KIND_16);

/// Asks the system once which registers a hit is to keep.
pub(crate) fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| stackmark_vector_kind.store(present(), Relaxed));
}

/// Makes hits keep only what a lesser CPU would have: the number of a kind, from 0. Returns the
/// kind that is kept now. For tests.
///
/// # Safety
/// No goroutine runs, and none uses registers of a greater kind later.
#[doc(hidden)]
pub unsafe fn limit_vectors(kind: u32) -> u32 {
    initialise();
    let kind = kind.min(present());
    stackmark_vector_kind.store(kind, Relaxed);
    kind
}

/// The kind that the processor has.
fn present() -> u32 {
    const AT_HWCAP: c_ulong = 16;
    const HWCAP_NEON: c_ulong = 1 << 12;
    const HWCAP_VFPD32: c_ulong = 1 << 19;
    unsafe extern "C" {
        safe fn getauxval(kind: c_ulong) -> c_ulong;
    }
    if getauxval(AT_HWCAP) & (HWCAP_NEON | HWCAP_VFPD32) != 0 { KIND_32 } else { KIND_16 }
}
