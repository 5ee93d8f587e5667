//! Cranelift's user stack maps.
//!
//! `user_stack_maps()` of a compiled function's buffer yields `(return offset, span, map)`: the
//! offset of the return address in the function, the distance from the stack pointer to the frame
//! pointer there, and the live slots as offsets from that stack pointer. It has an entry only for
//! calls over which something is live. Every other call must be a safepoint too, without slots;
//! otherwise its frame is walked slowly and gets no barrier. `call_sites()` names all calls, and
//! `frame_layout()` the one span of the function.
//!
//! Cranelift's frames always save the frame pointer, so the CFA lies one frame record above it.
//! This module takes numbers, not types, and so depends on no version of Cranelift:
//!
//! ```
//! # struct Buffer;
//! # impl Buffer {
//! #     fn call_sites(&self) -> Vec<u32> { vec![0x18, 0x24] }
//! #     fn user_stack_maps(&self) -> Vec<(u32, u32, Vec<u32>)> { vec![(0x24, 16, vec![0])] }
//! # }
//! # let (function_start, buffer, frame_to_fp_offset) = (0x1000, Buffer, 16);
//! use stackmark_unwind::stack_map::cranelift;
//!
//! let safepoints = cranelift::safepoints(
//!     function_start,
//!     frame_to_fp_offset,         // buffer.frame_layout().unwrap().frame_to_fp_offset
//!     buffer.call_sites(),        // .map(|call| call.ret_addr)
//!     // .iter().map(|(at, span, map)| (*at, *span, map.entries().map(|entry| entry.1)))
//!     buffer.user_stack_maps(),
//! );
//! let layouts = safepoints.iter().map(|s| (s.return_address, s.cfa_offset, s.slots.len()));
//! let size = frame_to_fp_offset + cranelift::FRAME_RECORD;
//! assert_eq!(layouts.collect::<Vec<_>>(), [(0x1018, size, 0), (0x1024, size, 1)]);
//! ```

use std::collections::BTreeMap;

use gimli::DW_OP_lit0;
use gimli::write::{
    CallFrameInstruction, CommonInformationEntry, Expression, FrameDescriptionEntry,
};

use crate::arch::{
    self, CALL_PUSHES, CALLEE_SAVED, CRANELIFT_EPILOGUES, RETURN_ADDRESS, SIGN_STATE, STACK_POINTER,
};
use crate::safepoint::Safepoint;
use crate::unwind_info::of_cfi;

/// What lies between the frame pointer and the CFA: the saved frame pointer and the return address.
pub const FRAME_RECORD: u32 = arch::FRAME_RECORD as u32;

/// The safepoints of the function at `function_start`. `calls` are the offsets of their return
/// addresses, `maps` add slots to calls, and `span` is that of the calls without a map.
pub fn safepoints<S: IntoIterator<Item = u32>>(
    function_start: usize,
    span: u32,
    calls: impl IntoIterator<Item = u32>,
    maps: impl IntoIterator<Item = (u32, u32, S)>,
) -> Vec<Safepoint> {
    let mut by_offset: BTreeMap<u32, Safepoint> = calls
        .into_iter()
        .map(|offset| (offset, safepoint(function_start, offset, span, [])))
        .collect();
    for (offset, span, slots) in maps {
        by_offset.insert(offset, safepoint(function_start, offset, span, slots));
    }
    by_offset.into_values().collect()
}

/// One call: the offset of its return address, the distance from the stack pointer to the frame
/// pointer there, and the live slots.
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

/// Adds to a function's entry what Cranelift leaves out of it: at the return of an epilogue the
/// frame is gone. Without it, a profiler's trace goes astray where it finds a thread there. `code`
/// is the function.
///
/// The system's unwinder and debuggers get it with the entry. Bytes inside of an instruction that
/// look like an epilogue do no harm: no thread stands there, and no call ends there.
pub fn describe_epilogues(entry: &mut FrameDescriptionEntry, code: &[u8]) {
    for (end, gone, unsigned) in epilogues(code) {
        let last = |bytes: usize| (end - bytes) as u32;
        let mut add = |bytes, what| entry.add_instruction(last(bytes), what);
        add(gone, CallFrameInstruction::RememberState);
        add(gone, CallFrameInstruction::Cfa(STACK_POINTER, CALL_PUSHES as i32));
        // A return address that a call pushes stays where it is.
        let in_register = (CALL_PUSHES == 0).then_some(RETURN_ADDRESS);
        for saved in CALLEE_SAVED.into_iter().chain(in_register) {
            add(gone, CallFrameInstruction::SameValue(saved));
        }
        if let Some(state) = SIGN_STATE
            && (1..gone).contains(&unsigned)
        {
            // As Cranelift says it.
            let mut no = Expression::new();
            no.op(DW_OP_lit0);
            add(unsigned, CallFrameInstruction::ValExpression(state, no));
        }
        // The code behind it is in the body again.
        if end < code.len() {
            add(0, CallFrameInstruction::RestoreState);
        }
    }
}

/// The UNWIND_INFO of a function, for
/// [`FunctionUnwindInfo::bytes`](crate::FunctionUnwindInfo::bytes), made of its CFI as Cranelift
/// emits it: before [`describe_epilogues`]. `None` if the CFI is of another kind, the prologue is
/// longer than 255 bytes, a register is saved more than 240 bytes below the frame record, or a
/// vector register is: Cranelift has such frames by the convention of Windows.
///
/// Cranelift's own UNWIND_INFO finds the callers, and other registers at wrong places. Their
/// offsets count in words, and it writes sixteenths of bytes; and it loses the distance of the
/// frame pointer from the frame's base.
pub fn unwind_info(
    common: CommonInformationEntry,
    function: FrameDescriptionEntry,
) -> Option<Vec<u8>> {
    of_cfi(common, function)
}

/// Where the epilogues of a function end, each with the bytes at its end before which the frame is
/// gone, and the signature.
fn epilogues(code: &[u8]) -> impl Iterator<Item = (usize, usize, usize)> {
    (1..=code.len()).filter_map(|end| {
        let forms = &mut CRANELIFT_EPILOGUES.iter();
        let (_, gone, unsigned) = forms.find(|(bytes, _, _)| code[..end].ends_with(bytes))?;
        Some((end, *gone, *unsigned))
    })
}
