//! i686: 32-bit words, the return address pushed by the call.

use gimli::{Register, Vendor, X86};
use object::elf;

/// Bytes of a word, of a stack slot and of a return address.
pub(crate) const WORD: usize = 4;
/// Bytes of an address in DWARF.
pub(crate) const ADDRESS_SIZE: u8 = 4;

/// What messages call the architecture.
pub(crate) const NAME: &str = "i686";
/// The machine of its ELF files.
pub(crate) const ELF_MACHINE: elf::Machine = elf::EM_386;
/// The class of its ELF files.
pub(crate) const ELF_CLASS: elf::FileClass = elf::ELFCLASS32;
/// The architecture of its object files.
pub(crate) const OBJECT_ARCHITECTURE: object::Architecture = object::Architecture::I386;
/// The program header of its ELF files.
pub(crate) type ProgramHeader = libc::Elf32_Phdr;
/// Whether images in Microsoft's format for it have UNWIND_INFO in the form that is read here.
pub(crate) const HAS_UNWIND_INFO: bool = false;
/// Whose extensions of CFI its code uses.
pub(crate) const CFI_VENDOR: Vendor = Vendor::Default;

/// The stack pointer.
pub const STACK_POINTER: Register = X86::ESP;
/// The frame pointer.
pub const FRAME_POINTER: Register = X86::EBP;
/// The column of a register set that holds the pc.
pub const PC: Register = X86::RA;
/// The register whose rule in CFI finds the return address. Here it is no real register, and CFI
/// gives it the number that stands for the pc.
pub const RETURN_ADDRESS: Register = X86::RA;
/// The number of columns in a register set: the general registers and the pc, by DWARF number.
pub(crate) const REGISTERS: usize = PC.0 as usize + 1;
/// The callee-saved registers, in the order of a packed rule's slots. The frame pointer comes
/// first.
pub(crate) const CALLEE_SAVED: [Register; 4] = [FRAME_POINTER, X86::EBX, X86::ESI, X86::EDI];

/// Bits of a packed rule for each register's slot.
pub(crate) const FP_SLOT_BITS: u32 = 8;

/// How Cranelift functions that return end: it has none for this architecture.
pub(crate) const CRANELIFT_EPILOGUES: &[(&[u8], usize, usize)] = &[];

/// The name of a register.
pub(crate) fn register_name(register: Register) -> Option<&'static str> {
    X86::register_name(register)
}

// Returns the address that it returns to.
std::arch::global_asm!(
    "    .hidden stackmark_unwind_here",
    "    .globl stackmark_unwind_here",
    "    .type stackmark_unwind_here,@function",
    "stackmark_unwind_here:",
    "    .cfi_startproc",
    "    mov ecx, dword ptr [esp]",
    "    ret",
    "    .cfi_endproc",
    "    .size stackmark_unwind_here, .-stackmark_unwind_here",
);

/// The registers of the function that this is inlined into: pc, stack pointer, and the rest in the
/// order of [`CALLEE_SAVED`].
#[inline(always)]
pub(crate) fn captured() -> [usize; 2 + CALLEE_SAVED.len()] {
    let mut saved = [0_usize; 6];
    // SAFETY: the assembly writes the six words of `saved`. It uses eax and ecx only, whose values
    // are not recorded.
    unsafe {
        std::arch::asm!(
            "call stackmark_unwind_here",
            "mov [eax], ecx",
            "mov [eax + 4], esp",
            "mov [eax + 8], ebp",
            "mov [eax + 12], ebx",
            "mov [eax + 16], esi",
            "mov [eax + 20], edi",
            in("eax") saved.as_mut_ptr(),
            out("ecx") _,
            options(preserves_flags)
        );
    }
    saved
}

/// The registers that a signal interrupted, by column, and which of them are known. The layout of
/// `ucontext_t` is Linux's.
pub(crate) fn interrupted(context: &libc::ucontext_t) -> ([usize; REGISTERS], u64) {
    const ORDER: [i32; REGISTERS] = [
        libc::REG_EAX,
        libc::REG_ECX,
        libc::REG_EDX,
        libc::REG_EBX,
        libc::REG_ESP,
        libc::REG_EBP,
        libc::REG_ESI,
        libc::REG_EDI,
        libc::REG_EIP,
    ];
    let values = ORDER.map(|index| context.uc_mcontext.gregs[index as usize] as usize);
    (values, (1 << REGISTERS) - 1)
}

/// Starts to load the word at `address` into the cache. Any address is allowed.
#[inline]
pub fn prefetch(address: usize) {
    use std::arch::x86::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) };
}
