//! The primitives that are inlined where they are called.

use crate::layout::*;
use core::arch::asm;

/// How many vector registers there are, without AVX-512 and with it.
pub(super) const VECTOR_REGISTERS: [usize; 2] = [16, 32];

/// See [`crate::stack_pointer`].
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let sp;
    // SAFETY: reads a register.
    unsafe { asm!("mov {0}, rsp", out(reg) sp, options(nomem, nostack, preserves_flags)) };
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
            "mov {0}, qword ptr [rip + stackmark_machine@GOTTPOFF]",
            "mov {0}, qword ptr fs:[{0}]",
            out(reg) machine,
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
    // SAFETY: the function's contract. The code that leaves the goroutine restores rsp, rbp and rbx
    // from the machine; all other registers count as lost. The stack pointer does not change here,
    // so that the CFI of the surrounding function is right.
    unsafe {
        asm!(
            "lea rcx, [rip + 2f]",
            "mov qword ptr [rdi + {m_run_pc}], rcx",
            "mov qword ptr [rdi + {m_run_fp}], rbp",
            "mov qword ptr [rdi + {m_run_saved}], rbx",
            "mov qword ptr [rdi + {m_system_sp}], rsp",
            "mov qword ptr [rdi + {m_goroutine}], rsi",
            "mov rax, qword ptr [rsi + {g_resume_value}]",
            "jmp qword ptr [rsi + {g_sched_pc}]",
            "2:",
            g_sched_pc = const G_SCHED_PC,
            g_resume_value = const G_RESUME_VALUE,
            m_goroutine = const M_GOROUTINE,
            m_system_sp = const M_SYSTEM_SP,
            m_run_pc = const M_RUN_PC,
            m_run_fp = const M_RUN_FP,
            m_run_saved = const M_RUN_SAVED,
            inlateout("rdi") machine => _,
            inlateout("rsi") goroutine => _,
            lateout("rax") left,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            clobber_abi("sysv64"),
        );
    }
    left
}
