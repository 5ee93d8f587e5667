//! Cranelift's user stack maps.
//!
//! `user_stack_maps()` of a compiled function's buffer yields `(return offset, span, map)`: the
//! offset of the return address in the function, the distance from the stack pointer to the frame
//! pointer there, and the live slots as offsets from that stack pointer. It has an entry only for
//! calls across which something is live; every other call is a safepoint too, without slots, or its
//! frame could not be walked at table speed and would get no barrier. `call_sites()` names all
//! calls, and `frame_layout()` their span, which is one for the whole function.
//!
//! Cranelift's x86-64 frames always save the frame pointer, so the CFA lies two words above it.
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
//!     buffer.user_stack_maps(),   // .iter().map(|(at, span, map)| (*at, *span, map.entries().map(|entry| entry.1)))
//! );
//! let layouts: Vec<_> = safepoints.iter().map(|s| (s.return_address, s.cfa_offset, s.slots.len())).collect();
//! assert_eq!(layouts, [(0x1018, 32, 0), (0x1024, 32, 1)]);
//! ```

use std::collections::BTreeMap;

use gimli::X86_64;
use gimli::write::{CallFrameInstruction, FrameDescriptionEntry};

use crate::safepoint::Safepoint;

/// What lies between the frame pointer and the CFA: the saved frame pointer and the return address.
pub const FRAME_RECORD: u32 = 16;

/// The safepoints of a function whose first byte is at `function_start`: its `calls`, as offsets of
/// their return addresses, and its `maps`, which add slots to calls. `span` is that of the calls
/// without a map.
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

/// `mov rsp, rbp; pop rbp; ret`: how every function of Cranelift's that returns ends.
const EPILOGUE: [u8; 5] = [0x48, 0x89, 0xec, 0x5d, 0xc3];

/// Adds to a function's entry what Cranelift leaves out of it: that at the `ret` of an epilogue the
/// frame is gone. Without that, an asynchronous trace, a profiler's say, that finds a thread there
/// goes astray. `code` is the function.
///
/// The system's unwinder and debuggers get it with the entry. Bytes in the middle of an instruction
/// that look like an epilogue do no harm: no thread stands there, and no call ends there.
pub fn describe_epilogues(entry: &mut FrameDescriptionEntry, code: &[u8]) {
    for start in epilogues(code) {
        let ret = (start + EPILOGUE.len() - 1) as u32;
        entry.add_instruction(ret, CallFrameInstruction::RememberState);
        entry.add_instruction(ret, CallFrameInstruction::Cfa(X86_64::RSP, 8));
        for saved in [X86_64::RBP, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15]
        {
            entry.add_instruction(ret, CallFrameInstruction::SameValue(saved));
        }
        // Whatever follows is in the body again.
        if (ret as usize) + 1 < code.len() {
            entry.add_instruction(ret + 1, CallFrameInstruction::RestoreState);
        }
    }
}

fn epilogues(code: &[u8]) -> impl Iterator<Item = usize> {
    code.windows(EPILOGUE.len())
        .enumerate()
        .filter(|(_, bytes)| *bytes == EPILOGUE)
        .map(|(start, _)| start)
}
