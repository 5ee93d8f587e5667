//! Registers that walks of this library leave out, by the system's unwinder.

use stackmark_unwind::Registers;
use std::ptr;
use windows_sys::Win32::System::Diagnostics::Debug::{
    CONTEXT, CONTEXT_FULL_AMD64, RtlLookupFunctionEntry, RtlVirtualUnwind, UNW_FLAG_NHANDLER,
};

/// The number that [`Continuation`](stackmark_asm::Continuation) gives the lower word of xmm6.
const WORDS_OF_XMM6: u16 = 256;

/// The system stores vector registers in it.
#[repr(C, align(16))]
struct Aligned(CONTEXT);

/// The words of further registers that functions keep, xmm6 up to xmm15, in the frame whose stack
/// pointer is `target`, by the numbers that `Continuation` takes. The walk begins in a frame of
/// `call_system`, which has saved all of them. It knows none if it does not come to that frame.
pub(crate) fn further_registers(from: Registers, target: usize) -> impl Fn(u16) -> Option<usize> {
    let found = walk(from, target);
    move |number| {
        let word = usize::from(number.checked_sub(WORDS_OF_XMM6)?);
        let Aligned(context) = found.as_ref()?;
        // SAFETY: all of the union is plain numbers.
        let register =
            unsafe { context.Anonymous.FltSave.XmmRegisters }.get(6 + word / 2).copied()?;
        Some(if word % 2 == 0 { register.Low as usize } else { register.High as usize })
    }
}

fn walk(from: Registers, target: usize) -> Option<Aligned> {
    let mut at = Aligned(CONTEXT { ContextFlags: CONTEXT_FULL_AMD64, ..CONTEXT::default() });
    let context = &mut at.0;
    (context.Rip, context.Rsp, context.Rbp) = (from.pc as u64, from.sp as u64, from.fp as u64);
    while (context.Rsp as usize) < target {
        let before = context.Rsp;
        // SAFETY: the frames between stand still, and all of them are described: managed code has
        // UNWIND_INFO here, stubs and the assembly as well.
        unsafe {
            let mut base = 0;
            let entry = RtlLookupFunctionEntry(context.Rip, &raw mut base, ptr::null_mut());
            if entry.is_null() {
                return None;
            }
            let (mut data, mut frame) = (ptr::null_mut(), 0);
            RtlVirtualUnwind(
                UNW_FLAG_NHANDLER,
                base,
                context.Rip,
                entry,
                context,
                &raw mut data,
                &raw mut frame,
                ptr::null_mut(),
            );
        }
        if context.Rsp < before {
            return None;
        }
    }
    (context.Rsp as usize == target).then_some(at)
}
