//! Native code with CFI in this image.

use std::ops::Range;

// The frame of an assembly routine that leaves the goroutine's stack: it pushes six callee-saved
// registers.
#[cfg(all(target_arch = "x86_64", not(windows)))]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "push rbx",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbx, -24",
    "push r12",
    ".cfi_def_cfa_offset 32",
    "push r13",
    ".cfi_def_cfa_offset 40",
    "push r14",
    ".cfi_def_cfa_offset 48",
    "push r15",
    ".cfi_def_cfa_offset 56",
    "nop",
    "unwind_test_system_call_label:",
    "ud2",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

// The same for Windows.
#[cfg(all(target_arch = "x86_64", windows))]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    ".seh_proc unwind_test_system_call",
    "unwind_test_system_call:",
    "push rbp",
    ".seh_pushreg rbp",
    "push rbx",
    ".seh_pushreg rbx",
    "push r12",
    ".seh_pushreg r12",
    "push r13",
    ".seh_pushreg r13",
    "push r14",
    ".seh_pushreg r14",
    "push r15",
    ".seh_pushreg r15",
    ".seh_endprologue",
    "nop",
    "unwind_test_system_call_label:",
    "ud2",
    "unwind_test_system_call_end:",
    ".seh_endproc",
);

// The same for i686, which has four: two more words are there for them.
#[cfg(target_arch = "x86")]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "push ebp",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset ebp, -8",
    "push ebx",
    ".cfi_def_cfa_offset 12",
    ".cfi_offset ebx, -12",
    "push esi",
    ".cfi_def_cfa_offset 16",
    "push edi",
    ".cfi_def_cfa_offset 20",
    "sub esp, 8",
    ".cfi_def_cfa_offset 28",
    "nop",
    "unwind_test_system_call_label:",
    "ud2",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

// The same for arm64, with the words that matter at the same places.
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "stp x29, x30, [sp, #-56]!",
    ".cfi_def_cfa_offset 56",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "nop",
    "unwind_test_system_call_label:",
    "brk #1",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

// The same for armv7, where assembly has CFI that is loaded if it asks for that: see `code`.
#[cfg(target_arch = "arm")]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "push {{r11, lr}}",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset r11, -8",
    ".cfi_offset lr, -4",
    "sub sp, sp, #20",
    ".cfi_def_cfa_offset 28",
    "nop",
    "unwind_test_system_call_label:",
    "udf #0",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

unsafe extern "C" {
    fn unwind_test_system_call();
    fn unwind_test_system_call_label();
    fn unwind_test_system_call_end();
}

/// Where it lies, and the label in it at which it stands.
///
/// It stays in this module and out of line: for functions with debugging information LLVM asks its
/// assembler for `.debug_frame` alone, once for each module that it compiles, and what was asked
/// for last holds for all of it.
#[inline(never)]
pub(crate) fn code() -> (Range<usize>, usize) {
    #[cfg(target_arch = "arm")]
    // SAFETY: a directive to the assembler, no instruction.
    unsafe {
        std::arch::asm!(
            ".cfi_sections .eh_frame, .debug_frame",
            options(nomem, nostack, preserves_flags)
        )
    };
    let range = unwind_test_system_call as *const () as usize
        ..unwind_test_system_call_end as *const () as usize;
    (range, unwind_test_system_call_label as *const () as usize)
}
