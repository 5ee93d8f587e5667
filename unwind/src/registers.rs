//! The registers of a frame, as far as they are known.

use gimli::{Register, X86_64};

use crate::rule::{CALLEE_SAVED, FRAME_POINTER, REGISTERS, RETURN_ADDRESS, STACK_POINTER};

/// The integer registers of a frame by DWARF number, those that are known; its pc in the place of
/// the return address.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RegisterSet {
    values: [usize; REGISTERS],
    /// One bit a register.
    known: u32,
}

impl RegisterSet {
    /// A frame of which only these are known.
    pub fn new(pc: usize, sp: usize, fp: usize) -> RegisterSet {
        let mut context = RegisterSet::unknown();
        context.set(RETURN_ADDRESS, pc);
        context.set(STACK_POINTER, sp);
        context.set(FRAME_POINTER, fp);
        context
    }

    /// A frame of which nothing is known.
    pub(crate) fn unknown() -> RegisterSet {
        RegisterSet { values: [0; REGISTERS], known: 0 }
    }

    /// The registers of the function that calls this: a walk from here on begins with that
    /// function's own frame. Its caller-saved registers are not recorded.
    #[inline(always)]
    pub fn capture() -> RegisterSet {
        let mut saved = [0_usize; 8];
        // SAFETY: writes the eight words of `saved`, by registers that are not among those
        // recorded.
        unsafe {
            std::arch::asm!(
                "lea rcx, [rip]",
                "mov [rax], rcx",
                "mov [rax + 8], rsp",
                "mov [rax + 16], rbp",
                "mov [rax + 24], rbx",
                "mov [rax + 32], r12",
                "mov [rax + 40], r13",
                "mov [rax + 48], r14",
                "mov [rax + 56], r15",
                in("rax") saved.as_mut_ptr(),
                out("rcx") _,
                options(nostack, preserves_flags)
            );
        }
        let [pc, sp, fp, callee_saved @ ..] = saved;
        let mut context = RegisterSet::new(pc, sp, fp);
        for (register, value) in CALLEE_SAVED[1..].iter().zip(callee_saved) {
            context.set(*register, value);
        }
        context
    }

    /// What a signal has interrupted: the third argument of a handler with `SA_SIGINFO`. The pc is
    /// exact.
    pub fn interrupted(context: &libc::ucontext_t) -> RegisterSet {
        /// By DWARF number.
        const ORDER: [i32; REGISTERS] = [
            libc::REG_RAX,
            libc::REG_RDX,
            libc::REG_RCX,
            libc::REG_RBX,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_RBP,
            libc::REG_RSP,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
            libc::REG_RIP,
        ];
        let values = ORDER.map(|index| context.uc_mcontext.gregs[index as usize] as usize);
        RegisterSet { values, known: (1 << REGISTERS) - 1 }
    }

    /// The value of a register, if it is known.
    #[inline]
    pub fn get(&self, register: Register) -> Option<usize> {
        let number = usize::from(register.0);
        (number < REGISTERS && self.known >> number & 1 != 0).then(|| self.values[number])
    }

    /// Makes a register known. Registers that are no integer registers are left out.
    #[inline]
    pub fn set(&mut self, register: Register, value: usize) {
        if let Some(place) = self.values.get_mut(usize::from(register.0)) {
            *place = value;
            self.known |= 1 << register.0;
        }
    }

    /// The pc.
    #[inline]
    pub fn pc(&self) -> usize {
        self.values[usize::from(RETURN_ADDRESS.0)]
    }

    /// The stack pointer.
    #[inline]
    pub fn sp(&self) -> usize {
        self.values[usize::from(STACK_POINTER.0)]
    }
}

impl core::fmt::Debug for RegisterSet {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let known = (0..REGISTERS as u16).filter_map(|number| {
            let register = Register(number);
            Some((X86_64::register_name(register)?, self.get(register)?))
        });
        f.debug_map().entries(known).finish()
    }
}
