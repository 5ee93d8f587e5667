//! Cranelift's user stack maps.
//!
//! `user_stack_maps()` of a compiled function's buffer yields `(return offset, span, map)`: the offset of the return
//! address in the function, the distance from the stack pointer to the frame pointer there, and the live slots as
//! offsets from that stack pointer. Cranelift's x86-64 frames always save the frame pointer, so the CFA lies two
//! words above it. This module takes the numbers, not the types, and so depends on no version of Cranelift:
//!
//! ```
//! # let function_start = 0x1000;
//! # let maps: Vec<(u32, u32, Vec<u32>)> = vec![(0x18, 16, vec![0])];
//! use stackmark_unwind::stack_map::cranelift;
//!
//! // for (offset, span, map) in compiled.buffer.user_stack_maps() { (*offset, *span, map.entries().map(|e| e.1)) }
//! let safepoints: Vec<_> = maps
//!     .into_iter()
//!     .map(|(offset, span, slots)| cranelift::safepoint(function_start, offset, span, slots))
//!     .collect();
//! assert_eq!((safepoints[0].return_address, safepoints[0].cfa_offset), (0x1018, 32));
//! ```

use crate::safepoint::Safepoint;

/// What lies between the frame pointer and the CFA: the saved frame pointer and the return address.
pub const FRAME_RECORD: u32 = 16;

/// One entry of a function's user stack maps: the function's absolute start, then what Cranelift says.
///
/// Every call of managed code is a safepoint, also one without live slots: `buffer.call_sites()` names the calls, and
/// the frame layout gives their span.
pub fn safepoint(
    function_start: usize,
    return_offset: u32,
    span: u32,
    slots: impl IntoIterator<Item = u32>,
) -> Safepoint {
    let mut slots: Vec<u32> = slots.into_iter().collect();
    slots.sort_unstable();
    slots.dedup();
    Safepoint {
        return_address: function_start.wrapping_add(return_offset as usize),
        cfa_offset: span.saturating_add(FRAME_RECORD),
        slots,
    }
}
