//! The primitives that are inlined where they are called.

use crate::layout::*;
use core::arch::asm;

/// See [`crate::stack_pointer`].
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, sp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// See [`crate::current`].
#[inline(always)]
pub(crate) fn current() -> *mut MachineHeader {
    let machine;
    // SAFETY: reads one word of thread-local storage, which stays the same while native code runs:
    // a goroutine changes its thread only on its way through call_system.
    unsafe {
        asm!(
            "mrs {0}, tpidr_el0",
            "adrp {1}, :gottprel:stackmark_machine",
            "ldr {1}, [{1}, :gottprel_lo12:stackmark_machine]",
            "ldr {0}, [{0}, {1}]",
            out(reg) machine,
            out(reg) _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    machine
}

/// See [`crate::run`]. Announces nothing to a sanitizer.
///
/// # Safety
/// As for [`crate::run`].
#[inline(always)]
pub(crate) unsafe fn run(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    let left;
    // SAFETY: the function's contract. The code that leaves the goroutine restores sp, x29 and x19
    // from the machine; all other registers count as lost. The stack pointer does not change here,
    // so that the CFI of the surrounding function is right.
    unsafe {
        asm!(
            "adr x30, 2f",
            "mov x9, sp",
            "str x30, [x0, #{m_run_pc}]",
            "str x29, [x0, #{m_run_fp}]",
            "str x19, [x0, #{m_run_saved}]",
            "str x9, [x0, #{m_system_sp}]",
            "str x1, [x0, #{m_goroutine}]",
            "ldr x0, [x1, #{g_resume_value}]",
            "ldr x16, [x1, #{g_sched_pc}]",
            "br x16",
            "2:",
            "bti j",
            g_sched_pc = const G_SCHED_PC,
            g_resume_value = const G_RESUME_VALUE,
            m_goroutine = const M_GOROUTINE,
            m_system_sp = const M_SYSTEM_SP,
            m_run_pc = const M_RUN_PC,
            m_run_fp = const M_RUN_FP,
            m_run_saved = const M_RUN_SAVED,
            inlateout("x0") machine => left,
            inlateout("x1") goroutine => _,
            lateout("x20") _,
            lateout("x21") _,
            lateout("x22") _,
            lateout("x23") _,
            lateout("x24") _,
            lateout("x25") _,
            lateout("x26") _,
            lateout("x27") _,
            lateout("x28") _,
            clobber_abi("C"),
        );
    }
    left
}
