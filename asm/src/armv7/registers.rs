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
            "mrc p15, 0, {0}, c13, c0, 3",
            "ldr {1}, 3f",
            "2: ldr {1}, [pc, {1}]",
            "b 4f",
            "3: .word stackmark_machine(GOTTPOFF) + (. - 2b - 8)",
            "4: ldr {0}, [{0}, {1}]",
            out(reg) machine,
            out(reg) _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    machine
}

/// See [`crate::run`].
///
/// # Safety
/// As for [`crate::run`].
#[inline(always)]
pub(crate) unsafe fn run(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    let left;
    // SAFETY: the function's contract. The code that leaves the goroutine restores sp, r11 and r6,
    // which the compiler keeps for itself, from the machine; all other registers count as lost. The
    // stack pointer does not change here, so that what describes the surrounding function is right.
    unsafe {
        asm!(
            "adr lr, 2f",
            "str lr, [r0, #{m_run_pc}]",
            "str r11, [r0, #{m_run_fp}]",
            "str r6, [r0, #{m_run_saved}]",
            "str sp, [r0, #{m_system_sp}]",
            "str r1, [r0, #{m_goroutine}]",
            "ldr r0, [r1, #{g_resume_value}]",
            "ldr pc, [r1, #{g_sched_pc}]",
            "2:",
            g_sched_pc = const G_SCHED_PC,
            g_resume_value = const G_RESUME_VALUE,
            m_goroutine = const M_GOROUTINE,
            m_system_sp = const M_SYSTEM_SP,
            m_run_pc = const M_RUN_PC,
            m_run_fp = const M_RUN_FP,
            m_run_saved = const M_RUN_SAVED,
            inlateout("r0") machine => left,
            inlateout("r1") goroutine => _,
            lateout("r4") _,
            lateout("r5") _,
            lateout("r7") _,
            lateout("r8") _,
            lateout("r9") _,
            lateout("r10") _,
            lateout("d8") _,
            lateout("d9") _,
            lateout("d10") _,
            lateout("d11") _,
            lateout("d12") _,
            lateout("d13") _,
            lateout("d14") _,
            lateout("d15") _,
            clobber_abi("C"),
        );
    }
    left
}
