//! Which vector registers a hit keeps: what the CPU and the system have.

use super::registers::VECTOR_REGISTERS;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::Once;

const KIND_SSE: u32 = 0;
pub(super) const KIND_AVX: u32 = 1;
/// AVX-512 with masks of 16 bits.
const KIND_AVX512F: u32 = 2;
/// AVX-512 with masks of 64 bits.
pub(super) const KIND_AVX512BW: u32 = 3;

/// The kind that `barrier_common` keeps. Written before the first goroutine runs.
#[unsafe(no_mangle)]
static stackmark_vector_kind: AtomicU32 = AtomicU32::new(KIND_SSE);
/// Bytes of the area in which it keeps them, from the x87 state on.
#[unsafe(no_mangle)]
static stackmark_vector_size: AtomicUsize = AtomicUsize::new(0);

/// Asks the CPU once which registers a hit is to keep.
pub(crate) fn initialise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| keep(present()));
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
    keep(kind);
    kind
}

fn keep(kind: u32) {
    stackmark_vector_size.store(bytes(kind), Relaxed);
    stackmark_vector_kind.store(kind, Relaxed);
}

const fn bytes(kind: u32) -> usize {
    const X87_AND_MASKS: usize = 256 - 64;
    let [narrow, wide] = VECTOR_REGISTERS;
    X87_AND_MASKS
        + match kind {
            KIND_SSE => narrow * 16,
            KIND_AVX => narrow * 32,
            _ => wide * 64,
        }
}

/// The kind that the CPU and the system have. Each implies that the system keeps the registers, and
/// the kind before.
fn present() -> u32 {
    if is_x86_feature_detected!("avx512bw") {
        KIND_AVX512BW
    } else if is_x86_feature_detected!("avx512f") {
        KIND_AVX512F
    } else if is_x86_feature_detected!("avx") {
        KIND_AVX
    } else {
        KIND_SSE
    }
}
