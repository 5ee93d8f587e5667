//! x86-64: 64-bit words, the return address pushed by the call.

use gimli::{Register, Vendor, X86_64};
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
pub(crate) const CALLEE_SAVED: [Register; 6] =
    [FRAME_POINTER, X86_64::RBX, X86_64::R12, X86_64::R13, X86_64::R14, X86_64::R15];

/// The column of a register; `None` for one that has none.
#[inline]
pub(crate) const fn column(register: Register) -> Option<usize> {
    if register.0 <= PC.0 { Some(register.0 as usize) } else { None }
}

/// The register of a column.
#[inline]
pub(crate) const fn register_of(column: usize) -> Register {
    Register(column as u16)
}

/// Bytes that a call pushes: the return address. 0 where a call leaves it in a register.
pub(crate) const CALL_PUSHES: usize = WORD;
/// Bytes from the frame pointer to the CFA in a frame that keeps a frame record: the saved frame
/// pointer, and the return address in the word above it.
pub(crate) const FRAME_RECORD: usize = 2 * WORD;
/// From the frame pointer to the return slot in such a frame, in bytes.
pub(crate) const FRAME_RECORD_RETURN: usize = WORD;

/// From the CFA to the return slot of a frame with a packed rule or a safepoint, in bytes, wherever
/// the frame pointer was saved.
#[inline]
pub(crate) const fn return_offset(_saved_fp: usize) -> isize {
    -(WORD as isize)
}

/// Whether a packed rule can say that the return address is saved at this offset from the CFA, and
/// the frame pointer, if it is, at the other.
pub(crate) fn return_fits(at: i64, _saved_fp: Option<i64>) -> bool {
    at == -(WORD as i64)
}

/// The bits of a packed rule that say where registers are saved, and how many of them, from the
/// lowest on, say it of the frame pointer: six bits a register.
pub(crate) const SLOTS_BITS: u32 = FP_SLOT_BITS * CALLEE_SAVED.len() as u32;
pub(crate) const FP_SLOT_BITS: u32 = 6;
/// The largest number of words between the CFA and a saved register.
pub(crate) const LARGEST_SLOT: i64 = SLOT_MASK as i64;
/// The slots of a frame that has saved nothing.
pub(crate) const PLAIN_SLOTS: u64 = 0;
const SLOT_MASK: u64 = (1 << FP_SLOT_BITS) - 1;

/// Six bits for each of [`CALLEE_SAVED`].
pub(crate) type SavedBits = u64;

/// Packs the slots of [`CALLEE_SAVED`], in words below the CFA; 0 for registers that are not saved.
pub(crate) fn pack_slots(slots: &[u64; CALLEE_SAVED.len()]) -> Option<u64> {
    let pack = |bits: u64, (i, slot): (usize, &u64)| bits | slot << (FP_SLOT_BITS * i as u32);
    Some(slots.iter().enumerate().fold(0, pack))
}

/// The slot of register `index` of [`CALLEE_SAVED`]; 0 if it is not saved.
#[inline]
pub(crate) const fn slot(bits: u64, index: usize) -> usize {
    (bits >> (FP_SLOT_BITS * index as u32) & SLOT_MASK) as usize
}

/// Which registers have slots: the bits of one that has none are 0.
#[inline]
pub(crate) const fn saved_bits(bits: u64) -> SavedBits {
    bits
}

/// The place of register `index` of [`CALLEE_SAVED`] in [`SavedBits`].
#[inline]
pub(crate) const fn register_bits(index: usize) -> SavedBits {
    SLOT_MASK << (FP_SLOT_BITS * index as u32)
}

/// How Cranelift functions that return end: the code, the bytes at its end before which the frame
/// is gone, and those before which the return address is not signed any more.
pub(crate) const CRANELIFT_EPILOGUES: &[(&[u8], usize, usize)] = &[
    // `mov rsp, rbp; pop rbp; ret`
    (&[0x48, 0x89, 0xec, 0x5d, 0xc3], 1, 1),
];

/// The register of CFI that says whether the return address is signed: none is here.
pub(crate) const SIGN_STATE: Option<Register> = None;
/// Whether an atomic read-modify-write orders all accesses before it with all behind it.
#[cfg_attr(all(test, stackmark_loom), expect(dead_code, reason = "loom has a model of its own"))]
pub(crate) const RMW_IS_FULL_BARRIER: bool = true;

/// The return address in a word that may be a signed one.
#[inline(always)]
pub(crate) const fn without_signature(word: usize) -> usize {
    word
}

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

/// The registers that a signal interrupted, by column, and which of them are known. The layout of
/// `ucontext_t` is Linux's.
pub(crate) fn interrupted(context: &libc::ucontext_t) -> ([usize; REGISTERS], u64) {
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

/// The code to which a signal handler returns, where no CFI describes it.
pub(crate) const SIGNAL_RETURN: Option<u64> = None;

/// Where a frame whose code that is has the words of its caller, by column.
pub(crate) fn signal_frame(
    _sp: usize,
    _read: impl Fn(usize) -> Option<usize>,
) -> [Option<usize>; REGISTERS] {
    [None; REGISTERS]
}

/// A frame that a stub of the procedure linkage table has made so far.
pub(crate) type LinkageFrame = (usize, Option<isize>);

/// Where a stub of the procedure linkage table stands: linkers describe it by CFI.
pub(crate) fn linkage_stub(
    _pc: usize,
    _code: impl Fn(usize) -> Option<u64>,
) -> Option<LinkageFrame> {
    None
}

/// Starts to load the word at `address` into the cache. Any address is allowed.
#[inline]
pub fn prefetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a prefetch reads nothing and faults at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address as *const i8) };
}
