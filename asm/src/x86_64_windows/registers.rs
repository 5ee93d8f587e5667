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
            "mov {1:e}, dword ptr [rip + _tls_index]",
            "mov {0}, qword ptr gs:[0x58]",
            "mov {0}, qword ptr [{0} + {1} * 8]",
            "mov {0}, qword ptr [{0} + stackmark_machine@SECREL32]",
            out(reg) machine,
            out(reg) _,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    machine
}

/// See [`crate::run`]. Tells the thread's environment block that the goroutine's stack is in use;
/// the words of before are the machine's.
///
/// # Safety
/// As for [`crate::run`].
#[inline(always)]
pub(crate) unsafe fn run(machine: *mut MachineHeader, goroutine: *mut GoroutineHeader) -> usize {
    let left;
    // SAFETY: the function's contract. The code that leaves the goroutine restores rsp, rbp and rbx
    // from the machine; all other registers count as lost. The stack pointer does not change here,
    // so that the unwind information of the surrounding function is right.
    unsafe {
        asm!(
            "lea rax, [rip + 2f]",
            "mov qword ptr [rcx + {m_system}], rax",
            "mov qword ptr [rcx + {m_system} + 24], rsp",
            "mov qword ptr [rcx + {m_run_fp}], rbp",
            "mov qword ptr [rcx + {m_run_saved}], rbx",
            "mov qword ptr [rcx + {m_system_sp}], rsp",
            "mov qword ptr [rcx + {m_goroutine}], rdx",
            "mov rax, qword ptr gs:[0x0]",
            "mov qword ptr [rcx + {m_system} + 8], rax",
            "mov rax, qword ptr gs:[0x10]",
            "mov qword ptr [rcx + {m_system} + 16], rax",
            "mov rax, qword ptr gs:[0x8]",
            "mov qword ptr [rcx + {m_system} + 32], rax",
            "mov rax, qword ptr gs:[0x1478]",
            "mov qword ptr [rcx + {m_system} + 40], rax",
            // As `stackmark_stack_is_goroutines` does.
            "mov qword ptr gs:[0x10], 0",
            "mov rax, qword ptr [rdx + {g_stack_hi}]",
            "mov qword ptr gs:[0x8], rax",
            "mov rax, qword ptr [rdx + {g_stack_lo}]",
            "mov qword ptr gs:[0x1478], rax",
            "mov qword ptr gs:[0x10], rax",
            "mov qword ptr gs:[0x0], -1",
            "mov rax, qword ptr [rdx + {g_resume_value}]",
            "mov r8, qword ptr [rdx + {g_sched_pc}]",
            "inc r8", // behind the nop
            "jmp r8",
            "2:",
            g_stack_hi = const G_STACK_HI,
            g_stack_lo = const G_STACK_LO,
            g_sched_pc = const G_SCHED_PC,
            g_resume_value = const G_RESUME_VALUE,
            m_goroutine = const M_GOROUTINE,
            m_system_sp = const M_SYSTEM_SP,
            m_run_fp = const M_RUN_FP,
            m_run_saved = const M_RUN_SAVED,
            m_system = const M_SYSTEM,
            inlateout("rcx") machine => _,
            inlateout("rdx") goroutine => _,
            lateout("rax") left,
            lateout("rdi") _,
            lateout("rsi") _,
            lateout("r12") _,
            lateout("r13") _,
            lateout("r14") _,
            lateout("r15") _,
            lateout("xmm6") _,
            lateout("xmm7") _,
            lateout("xmm8") _,
            lateout("xmm9") _,
            lateout("xmm10") _,
            lateout("xmm11") _,
            lateout("xmm12") _,
            lateout("xmm13") _,
            lateout("xmm14") _,
            lateout("xmm15") _,
            clobber_abi("win64"),
        );
    }
    left
}
