//! x86-64: 64-bit words, the return address pushed by the call.

use gimli::{Register, Vendor, X86_64};
use object::elf;

use crate::os_context::InterruptedContext;

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
#[cfg(target_os = "linux")]
pub(crate) type ProgramHeader = libc::Elf64_Phdr;
/// Whether images in Microsoft's format for it have UNWIND_INFO in the form that is read here.
pub(crate) const HAS_UNWIND_INFO: bool = true;
/// Whose extensions of CFI its code uses.
pub(crate) const CFI_VENDOR: Vendor = Vendor::Default;

/// The stack pointer.
pub const STACK_POINTER: Register = X86_64::RSP;
/// The frame pointer.
pub const FRAME_POINTER: Register = X86_64::RBP;
/// The column of a register set that holds the pc.
pub const PC: Register = X86_64::RA;
/// The register whose rule in CFI finds the return address. Here it is no real register, and CFI
/// gives it the number that stands for the pc.
pub const RETURN_ADDRESS: Register = X86_64::RA;
/// The number of columns in a register set: the general registers and the pc, by DWARF number.
pub(crate) const REGISTERS: usize = PC.0 as usize + 1;
/// The callee-saved registers, in the order of a packed rule's slots. The frame pointer comes
/// first.
#[cfg(not(windows))]
pub(crate) const CALLEE_SAVED: [Register; 6] =
    [FRAME_POINTER, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];
/// The same by the convention of Windows. Its functions keep xmm6 to xmm15 as well, which no walk
/// needs.
#[cfg(windows)]
pub(crate) const CALLEE_SAVED: [Register; 8] = [
    FRAME_POINTER,
    X86_64::RBX,
    X86_64::R12,
    X86_64::R13,
    X86_64::R14,
    X86_64::R15,
    X86_64::RDI,
    X86_64::RSI,
];

/// Bits of a packed rule for each register's slot.
#[cfg(not(windows))]
pub(crate) const FP_SLOT_BITS: u32 = 6;
/// Compilers push all of them first: the eighth lies nine words below the CFA.
#[cfg(windows)]
pub(crate) const FP_SLOT_BITS: u32 = 4;

/// How Cranelift functions that return end: the code, the bytes at its end before which the frame
/// is gone, and those before which the return address is not signed any more.
pub(crate) const CRANELIFT_EPILOGUES: &[(&[u8], usize, usize)] = &[
    // `mov rsp, rbp; pop rbp; ret`
    (&[0x48, 0x89, 0xec, 0x5d, 0xc3], 1, 1),
];

/// The name of a register.
pub(crate) fn register_name(register: Register) -> Option<&'static str> {
    X86_64::register_name(register)
}

/// The registers of the function that this is inlined into: pc, stack pointer, and the rest in the
/// order of [`CALLEE_SAVED`].
#[inline(always)]
pub(crate) fn captured() -> [usize; 2 + CALLEE_SAVED.len()] {
    // More than there are by some conventions.
    let mut saved = [0_usize; 10];
    // SAFETY: the assembly writes the ten words of `saved`. It uses rax and rcx only, whose values
    // are not recorded.
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
            "mov [rax + 64], rdi",
            "mov [rax + 72], rsi",
            in("rax") saved.as_mut_ptr(),
            out("rcx") _,
            options(nostack, preserves_flags)
        );
    }
    std::array::from_fn(|i| saved[i])
}

/// The registers that a signal interrupted, by column, and which of them are known. The layout of
/// `ucontext_t` is Linux's.
#[cfg(target_os = "linux")]
pub(crate) fn interrupted(context: &InterruptedContext) -> ([usize; REGISTERS], u64) {
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
    (values, (1 << REGISTERS) - 1)
}

/// The registers in a `CONTEXT` of Windows, by column, and which of them are known.
#[cfg(windows)]
pub(crate) fn interrupted(context: &InterruptedContext) -> ([usize; REGISTERS], u64) {
    let values = [
        context.Rax,
        context.Rdx,
        context.Rcx,
        context.Rbx,
        context.Rsi,
        context.Rdi,
        context.Rbp,
        context.Rsp,
        context.R8,
        context.R9,
        context.R10,
        context.R11,
        context.R12,
        context.R13,
        context.R14,
        context.R15,
        context.Rip,
    ];
    (values.map(|value| value as usize), (1 << REGISTERS) - 1)
}

/// Starts to load the word at `address` into the cache. Any address is allowed.
#[inline]
pub fn prefetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) };
}
