//! The primitives that are inlined where they are called.

use crate::layout::*;
use core::arch::asm;

/// How many vector registers there are, without AVX-512 and with it.
pub(super) const VECTOR_REGISTERS: [usize; 2] = [8, 8];

/// See [`crate::stack_pointer`].
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, esp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
    sp
}

/// See [`crate::current`].
#[inline(always)]
pub(crate) fn current() -> *mut MachineHeader {
    let machine;
    // SAFETY: reads one word of thread-local storage, which stays the same while native code runs:
    // a goroutine changes its thread only on its way through call_system. The function that it
    // calls changes no other register.
    unsafe {
        asm!("call stackmark_current", out("eax") machine, options(pure, readonly));
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
    // SAFETY: the function's contract. The code that leaves the goroutine restores esp, ebp and esi
    // from the machine; all other registers count as lost. The stack pointer does not change here,
    // so that the CFI of the surrounding function is right.
    unsafe {
        asm!(
            "call stackmark_here_ecx",
            "3: leal 2f-3b(%ecx), %ecx",
            "movl %ecx, {m_run_pc}(%eax)",
            "movl %ebp, {m_run_fp}(%eax)",
            "movl %esi, {m_run_saved}(%eax)",
            "movl %esp, {m_system_sp}(%eax)",
            "movl %edx, {m_goroutine}(%eax)",
            "movl {g_resume_value}(%edx), %eax",
            "jmpl *{g_sched_pc}(%edx)",
            "2:",
            g_sched_pc = const G_SCHED_PC,
            g_resume_value = const G_RESUME_VALUE,
            m_goroutine = const M_GOROUTINE,
            m_system_sp = const M_SYSTEM_SP,
            m_run_pc = const M_RUN_PC,
            m_run_fp = const M_RUN_FP,
            m_run_saved = const M_RUN_SAVED,
            inlateout("eax") machine => left,
            inlateout("edx") goroutine => _,
            lateout("ebx") _,
            lateout("edi") _,
            clobber_abi("cdecl"),
            // The other syntax has no distances between labels.
            options(att_syntax),
        );
    }
    left
}
