//! x86-64: 64-bit words, the return address pushed by the call.

use gimli::{Register, X86_64};
use object::elf;

/// Bytes of a word, of a stack slot and of a return address.
pub(crate) const WORD: usize = 8;
/// Bytes of an address in DWARF.
pub(crate) const ADDRESS_SIZE: u8 = 8;

/// What messages call the architecture.
pub(crate) const NAME: &str = "x86-64";
/// The machine of its ELF files.
pub(crate) const ELF_MACHINE: elf::Machine = elf::EM_X86_64;
/// The class of its ELF files.
pub(crate) const ELF_CLASS: elf::FileClass = elf::ELFCLASS64;
/// The architecture of its object files.
pub(crate) const OBJECT_ARCHITECTURE: object::Architecture = object::Architecture::X86_64;
/// The program header of its ELF files.
pub(crate) type ProgramHeader = libc::Elf64_Phdr;

pub(crate) const STACK_POINTER: Register = X86_64::RSP;
pub(crate) const FRAME_POINTER: Register = X86_64::RBP;
/// The column of a register set that holds the pc.
pub(crate) const PC: Register = X86_64::RA;
/// The register whose rule in CFI finds the return address. Here it is no real register, and CFI
/// gives it the number that stands for the pc.
pub(crate) const RETURN_ADDRESS: Register = X86_64::RA;
/// The number of columns in a register set: the general registers and the pc, by DWARF number.
pub(crate) const REGISTERS: usize = PC.0 as usize + 1;
/// The callee-saved registers, in the order of a packed rule's slots. The frame pointer comes
/// first.
pub(crate) const CALLEE_SAVED: [Register; 6] =
    [FRAME_POINTER, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

/// Bytes that a call pushes: the return address. 0 where a call leaves it in a register.
pub(crate) const CALL_PUSHES: usize = WORD;
/// From the CFA to the return slot of a frame with a packed rule or a safepoint, in bytes.
pub(crate) const RETURN_OFFSET: isize = -(WORD as isize);
/// Bytes from the frame pointer to the CFA in a frame that keeps a frame record: the saved frame
/// pointer, and the return address in the word above it.
pub(crate) const FRAME_RECORD: usize = 2 * WORD;
/// From the frame pointer to the return slot in such a frame, in bytes.
pub(crate) const FRAME_RECORD_RETURN: usize = WORD;

/// The end of every Cranelift function that returns: `mov rsp, rbp; pop rbp; ret`.
pub(crate) const CRANELIFT_EPILOGUE: [u8; 5] = [0x48, 0x89, 0xec, 0x5d, 0xc3];
/// Bytes of its last instruction, before which the frame is gone.
pub(crate) const CRANELIFT_RETURN: usize = 1;

/// Whether CFI can say that code signs its return addresses.
pub(crate) const SIGNS_RETURN_ADDRESSES: bool = false;
/// Whether an atomic read-modify-write orders all accesses before it with all behind it.
#[cfg_attr(all(test, stackmark_loom), expect(dead_code, reason = "loom has a model of its own"))]
pub(crate) const RMW_IS_FULL_BARRIER: bool = true;

/// The name of a register.
pub(crate) fn register_name(register: Register) -> Option<&'static str> {
    X86_64::register_name(register)
}

/// The registers at one point in a function.
pub(crate) struct Captured {
    pub(crate) pc: usize,
    pub(crate) sp: usize,
    /// In the order of [`CALLEE_SAVED`].
    pub(crate) callee_saved: [usize; CALLEE_SAVED.len()],
}

/// The registers of the function that this is inlined into.
#[inline(always)]
pub(crate) fn capture() -> Captured {
    let mut saved = [0_usize; 8];
    // SAFETY: the assembly writes the eight words of `saved`. It uses rax and rcx only, whose
    // values are not recorded.
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
    let [pc, sp, callee_saved @ ..] = saved;
    Captured { pc, sp, callee_saved }
}

/// The registers that a signal interrupted, by column. The layout of `ucontext_t` is Linux's.
pub(crate) fn interrupted(context: &libc::ucontext_t) -> [usize; REGISTERS] {
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
    ORDER.map(|index| context.uc_mcontext.gregs[index as usize] as usize)
}

/// Starts to load the word at `address` into the cache. Any address is allowed.
#[inline]
pub fn prefetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) };
}
