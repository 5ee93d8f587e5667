//! The primitives that are inlined where they are called.

use crate::layout::*;
use core::arch::asm;

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
            // The other syntax has no distances.
            ".att_syntax",
            "3: leal 2f-3b(%ecx), %ecx",
            ".intel_syntax noprefix",
            "mov dword ptr [eax + {m_run_pc}], ecx",
            "mov dword ptr [eax + {m_run_fp}], ebp",
            "mov dword ptr [eax + {m_run_saved}], esi",
            "mov dword ptr [eax + {m_system_sp}], esp",
            "mov dword ptr [eax + {m_goroutine}], edx",
            "mov eax, dword ptr [edx + {g_resume_value}]",
            "jmp dword ptr [edx + {g_sched_pc}]",
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
        );
    }
    left
}
