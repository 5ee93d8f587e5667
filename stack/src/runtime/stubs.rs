//! The stubs of the program's image, and the registration of the assembly's frames.

use super::config::RuntimeError;
use crate::protocol::{StubPool, Table};
use stackmark_asm::{self as asm, barrier, layout::EntryRecord};
use stackmark_unwind::{Code, CodeError, FrameKind, NativeRule};
use std::mem;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

/// The stubs of the image, shared by all runtimes of the process.
pub(crate) fn stubs() -> &'static StubPool {
    static POOL: OnceLock<StubPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let stubs = (0..barrier::TABLE_WORDS).rev().filter(|&i| barrier::is_stub(i));
        StubPool::new(stubs.map(|i| i as u32))
    })
}

/// Takes `code` for a runtime: registers the frames of the assembly in it, so that walks know them.
/// They are registered once and never forgotten, so of several runtimes one gets it.
pub(crate) fn claim(code: &Code) -> Result<(), RuntimeError> {
    let calls = asm::system_call_range();
    let is_taken = || code.snapshot().kind(calls.start) == Some(FrameKind::SystemCall);
    code.register_native(calls.clone(), FrameKind::SystemCall, NativeRule::FromImage).map_err(
        |error| match error {
            CodeError::Overlap { .. } if is_taken() => RuntimeError::CodeInUse,
            error => error.into(),
        },
    )?;
    let cfa_offset = asm::CALLBACK_FRAME_BYTES as u32;
    code.register_native(
        asm::callback_range(),
        FrameKind::Callback,
        NativeRule::Fixed { cfa_offset },
    )?;
    let anchor = (asm::ENTRY_RECORD_AT + mem::offset_of!(EntryRecord, anchor)) as u32;
    code.register_native(
        asm::enter_range(),
        FrameKind::Callback,
        NativeRule::Anchor { offset: anchor },
    )?;
    Ok(code.register_native(asm::entry_range(), FrameKind::Entry, NativeRule::End)?)
}

/// The table and the stubs of the program's image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageTable;

impl Table for ImageTable {
    fn save(&self, stub: u32, return_address: usize) {
        // SAFETY: the list has taken the stub from the pool, and no slot holds it yet (invariant 2
        // of the barriers).
        let word = unsafe { barrier::saved(stub as usize) };
        // Release: invariant 2. An unwinder on the goroutine's thread reads slot and table without
        // the `scan_lock`.
        word.store(return_address, Ordering::Release);
    }
    fn saved(&self, stub: u32) -> usize {
        // SAFETY: only loads.
        unsafe { barrier::saved(stub as usize) }.load(Ordering::Acquire)
    }
    fn hijacked_word(&self, stub: u32) -> usize {
        barrier::hijacked_word(stub as usize)
    }
}
