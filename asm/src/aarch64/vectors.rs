//! Which vector registers a hit keeps: what the CPU and the system have.

use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::Once;

/// 32 registers of 16 bytes.
const KIND_NEON: u32 = 0;
/// 32 registers whose size the processor knows, and 16 predicates.
const KIND_SVE: u32 = 1;

/// The kind that `barrier_common` keeps. Written before the first goroutine runs.
#[unsafe(no_mangle)]
static stackmark_vector_kind: AtomicU32 = AtomicU32::new(KIND_NEON);

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

/// The kind that the CPU and the system have.
fn present() -> u32 {
    if std::arch::is_aarch64_feature_detected!("sve") { KIND_SVE } else { KIND_NEON }
}
