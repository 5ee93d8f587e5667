//! arm64: 64-bit words, the return address in a register that functions save where they like.

use gimli::{AArch64, Register, Vendor};
use object::elf;

/// Bytes of a word, of a stack slot and of a return address.
pub(crate) const WORD: usize = 8;
/// Bytes of an address in DWARF.
pub(crate) const ADDRESS_SIZE: u8 = 8;

/// What messages call the architecture.
pub(crate) const NAME: &str = "arm64";
/// The machine of its ELF files.
pub(crate) const ELF_MACHINE: elf::Machine = elf::EM_AARCH64;
/// The class of its ELF files.
pub(crate) const ELF_CLASS: elf::FileClass = elf::ELFCLASS64;
/// The architecture of its object files.
pub(crate) const OBJECT_ARCHITECTURE: object::Architecture = object::Architecture::Aarch64;
/// The program header of its ELF files.
pub(crate) type ProgramHeader = libc::Elf64_Phdr;
/// Whether images in Microsoft's format for it have UNWIND_INFO in the form that is read here.
pub(crate) const HAS_UNWIND_INFO: bool = false;
/// Whose extensions of CFI its code uses.
pub(crate) const CFI_VENDOR: Vendor = Vendor::AArch64;

/// The stack pointer.
pub const STACK_POINTER: Register = AArch64::SP;
/// The frame pointer.
pub const FRAME_POINTER: Register = AArch64::X29;
/// The column of a register set that holds the pc. Signal frames alone have a rule for it.
pub const PC: Register = AArch64::PC;
/// The register whose rule in CFI finds the return address.
pub const RETURN_ADDRESS: Register = AArch64::X30;
/// The number of columns in a register set: the general registers, stack pointer and pc, and the
/// callee-saved halves of vectors.
pub(crate) const REGISTERS: usize = FIRST_VECTOR_COLUMN + 8;
/// The callee-saved registers, in the order in which a packed rule tells their slots. The frame
/// pointer comes first.
pub(crate) const CALLEE_SAVED: [Register; 19] = [
    FRAME_POINTER,
    AArch64::X19,
    AArch64::X20,
    AArch64::X21,
    AArch64::X22,
    AArch64::X23,
    AArch64::X24,
    AArch64::X25,
    AArch64::X26,
    AArch64::X27,
    AArch64::X28,
    AArch64::V8,
    AArch64::V9,
    AArch64::V10,
    AArch64::V11,
    AArch64::V12,
    AArch64::V13,
    AArch64::V14,
    AArch64::V15,
];

const FIRST_VECTOR_COLUMN: usize = PC.0 as usize + 1;

/// The column of a register; `None` for one that has none.
#[inline]
pub(crate) const fn column(register: Register) -> Option<usize> {
    match register {
        Register(number) if number <= PC.0 => Some(number as usize),
        Register(number) if number >= AArch64::V8.0 && number <= AArch64::V15.0 => {
            Some((number - AArch64::V8.0) as usize + FIRST_VECTOR_COLUMN)
        }
        _ => None,
    }
}

/// The register of a column.
#[inline]
pub(crate) const fn register_of(column: usize) -> Register {
    if column < FIRST_VECTOR_COLUMN {
        Register(column as u16)
    } else {
        Register(AArch64::V8.0 + (column - FIRST_VECTOR_COLUMN) as u16)
    }
}

/// The words of a register that has two: only the lower halves of vectors are kept.
#[inline]
pub(crate) const fn words_of(_register: Register) -> Option<[Register; 2]> {
    None
}

/// Bytes that a call pushes: none, it leaves the return address in a register.
pub(crate) const CALL_PUSHES: usize = 0;
/// Bytes from the frame pointer to the CFA in a frame that keeps a frame record right below its
/// CFA: the saved frame pointer, and the return address in the word above it.
pub(crate) const FRAME_RECORD: usize = 2 * WORD;
/// From the frame pointer to the return slot in such a frame, in bytes.
pub(crate) const FRAME_RECORD_RETURN: usize = WORD;

/// From the CFA to the return slot of a frame with a packed rule or a safepoint, in bytes: the
/// return address is saved above the frame pointer, so far below the CFA.
#[inline]
pub(crate) const fn return_offset(saved_fp: usize) -> isize {
    WORD as isize - saved_fp as isize
}

/// Whether a packed rule can say that the return address is saved at this offset from the CFA, and
/// the frame pointer, if it is, at the other.
pub(crate) fn return_fits(at: i64, saved_fp: Option<i64>) -> bool {
    at < 0 && saved_fp == Some(at - WORD as i64)
}

// A packed rule's slots. Compilers save registers in the order of their numbers, without gaps:
// upwards (GCC), upwards with the vectors below the others (Cranelift), or downwards in pairs,
// where the last of an odd number leaves a gap (LLVM).
//
// bits  0..8   the frame pointer's slot
// bits  8..16  the slot of the register that is saved first
// bits 16..34  which registers of `CALLEE_SAVED` are saved, from the second on
// bit   34     upwards
// bit   35     if downwards: a word is left out in front of the last register; if upwards: the
//              vectors lie below the general registers, in pairs

/// The bits of a packed rule that say where registers are saved, and how many of them, from the
/// lowest on, say it of the frame pointer.
pub(crate) const SLOTS_BITS: u32 = 36;
pub(crate) const FP_SLOT_BITS: u32 = 8;
/// The largest number of words between the CFA and a saved register.
pub(crate) const LARGEST_SLOT: i64 = 255;
/// The slots of a frame with a frame record right below its CFA and nothing else.
pub(crate) const PLAIN_SLOTS: u64 = (FRAME_RECORD / WORD) as u64;
const FIRST_SHIFT: u32 = 8;
const MASK_SHIFT: u32 = 16;
const MASK: u64 = (1 << (CALLEE_SAVED.len() - 1)) - 1;
const UPWARDS: u64 = 1 << 34;
const GAP: u64 = 1 << 35;
const VECTORS_BELOW: u64 = UPWARDS | GAP;
/// The general registers of the mask.
const GENERAL: u64 = (1 << 10) - 1;

/// One bit for each of [`CALLEE_SAVED`].
pub(crate) type SavedBits = u32;

/// Packs the slots of [`CALLEE_SAVED`], in words below the CFA; 0 for registers that are not saved.
pub(crate) fn pack_slots(slots: &[u64; CALLEE_SAVED.len()]) -> Option<u64> {
    let mut mask = 0;
    for (i, _) in slots.iter().enumerate().skip(1).filter(|(_, slot)| **slot != 0) {
        mask |= 1 << (i - 1);
    }
    let first = slots[1..].iter().copied().find(|slot| *slot != 0).unwrap_or(0);
    let plain = slots[0] | first << FIRST_SHIFT | mask << MASK_SHIFT;
    let forms = [plain | UPWARDS, plain, plain | VECTORS_BELOW, plain | GAP];
    let fits = |bits: &u64| (0..slots.len()).all(|i| slot(*bits, i) as u64 == slots[i]);
    forms.into_iter().find(fits)
}

/// The slot of register `index` of [`CALLEE_SAVED`]; 0 if it is not saved.
#[inline]
pub(crate) const fn slot(bits: u64, index: usize) -> usize {
    if index == 0 {
        return (bits & ((1 << FP_SLOT_BITS) - 1)) as usize;
    }
    let (mask, bit) = (bits >> MASK_SHIFT & MASK, 1 << (index - 1));
    if mask & bit == 0 {
        return 0;
    }
    let first = (bits >> FIRST_SHIFT & 0xff) as usize;
    let behind = (mask & (bit - 1)).count_ones() as usize;
    // What does not fit is found by `pack_slots`.
    if bits & UPWARDS == 0 {
        let is_last = mask >> index == 0;
        first + behind + (is_last && bits & GAP != 0) as usize
    } else if bits & GAP != 0 && bit > GENERAL {
        let general = (mask & GENERAL).count_ones() as usize;
        let vectors = (mask & !GENERAL).count_ones() as usize;
        first + vectors.next_multiple_of(2) - (behind - general)
    } else {
        first.wrapping_sub(behind)
    }
}

/// Which registers have slots.
#[inline]
pub(crate) const fn saved_bits(bits: u64) -> SavedBits {
    let has_fp = bits & ((1 << FP_SLOT_BITS) - 1) != 0;
    ((bits >> MASK_SHIFT & MASK) << 1) as SavedBits | has_fp as SavedBits
}

/// The place of register `index` of [`CALLEE_SAVED`] in [`SavedBits`].
#[inline]
pub(crate) const fn register_bits(index: usize) -> SavedBits {
    1 << index
}

/// How Cranelift functions that return end: the code, the bytes at its end before which the frame
/// is gone, and those before which the return address is not signed any more.
pub(crate) const CRANELIFT_EPILOGUES: &[(&[u8], usize, usize)] = &[
    // `ldp x29, x30, [sp], #16; ret`
    (&[0xfd, 0x7b, 0xc1, 0xa8, 0xc0, 0x03, 0x5f, 0xd6], 4, 4),
    // `ldp x29, x30, [sp], #16; autiasp; ret`
    (&[0xfd, 0x7b, 0xc1, 0xa8, 0xbf, 0x23, 0x03, 0xd5, 0xc0, 0x03, 0x5f, 0xd6], 8, 4),
    // `ldp x29, x30, [sp], #16; retaa`
    (&[0xfd, 0x7b, 0xc1, 0xa8, 0xff, 0x0b, 0x5f, 0xd6], 4, 0),
];

/// The register of CFI that says whether the return address is signed.
pub(crate) const SIGN_STATE: Option<Register> = Some(AArch64::RA_SIGN_STATE);
/// Whether an atomic read-modify-write orders all accesses before it with all behind it.
#[cfg_attr(all(test, stackmark_loom), expect(dead_code, reason = "loom has a model of its own"))]
pub(crate) const RMW_IS_FULL_BARRIER: bool = false;

/// The return address in a word that may be a signed one. The signature takes the upper bits:
/// Linux maps code above 48 bits only where a program asks for it.
#[inline(always)]
pub(crate) const fn without_signature(word: usize) -> usize {
    word & ((1 << 48) - 1)
}

/// The name of a register.
pub(crate) fn register_name(register: Register) -> Option<&'static str> {
    AArch64::register_name(register)
}

/// The registers of the function that this is inlined into: pc, stack pointer, and the rest in the
/// order of [`CALLEE_SAVED`].
#[inline(always)]
pub(crate) fn captured() -> [usize; 2 + CALLEE_SAVED.len()] {
    let mut saved = [0_usize; 21];
    // SAFETY: the assembly writes the words of `saved`. It changes x9 only, whose value is not
    // recorded.
    unsafe {
        std::arch::asm!(
            "adr x9, .",
            "str x9, [{0}]",
            "mov x9, sp",
            "stp x9, x29, [{0}, #8]",
            "stp x19, x20, [{0}, #24]",
            "stp x21, x22, [{0}, #40]",
            "stp x23, x24, [{0}, #56]",
            "stp x25, x26, [{0}, #72]",
            "stp x27, x28, [{0}, #88]",
            "stp d8, d9, [{0}, #104]",
            "stp d10, d11, [{0}, #120]",
            "stp d12, d13, [{0}, #136]",
            "stp d14, d15, [{0}, #152]",
            in(reg) saved.as_mut_ptr(),
            out("x9") _,
            options(nostack, preserves_flags)
        );
    }
    saved
}

/// The first record of what a signal has interrupted, if it has the vectors: Linux's
/// `fpsimd_context`, whose size is in the upper half.
const VECTORS: u64 = 0x210 << 32 | 0x4650_8001;
/// Bytes from there to the first of the vectors, of 16 bytes each.
const VECTORS_AT: usize = 16;

/// The registers that a signal interrupted, by column, and which of them are known. The layout of
/// `ucontext_t` is Linux's.
pub(crate) fn interrupted(context: &libc::ucontext_t) -> ([usize; REGISTERS], u64) {
    let machine = &context.uc_mcontext;
    let mut values = [0; REGISTERS];
    let general = machine.regs.iter().chain([&machine.sp, &machine.pc]);
    values.iter_mut().zip(general).for_each(|(value, word)| *value = *word as usize);
    let mut known = (1 << FIRST_VECTOR_COLUMN) - 1;
    // libc does not name the records.
    let records = std::ptr::from_ref(context).cast::<u8>().wrapping_add(RECORDS_AT);
    // SAFETY: the kernel has written the records, 4096 bytes behind the registers.
    unsafe {
        if records.cast::<u64>().read() == VECTORS {
            let vectors = records.add(VECTORS_AT).cast::<[usize; 2]>();
            for (i, value) in values[FIRST_VECTOR_COLUMN..].iter_mut().enumerate() {
                *value = (*vectors.add(8 + i))[0];
            }
            known = (1 << REGISTERS) - 1;
        }
    }
    (values, known)
}

/// Where in `ucontext_t` the general registers lie, from x0 to x30, then sp and pc.
const GENERAL_AT: usize = 184;
/// Where the records lie.
const RECORDS_AT: usize = 464;
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(libc::ucontext_t, uc_mcontext.regs) == GENERAL_AT);
    assert!(offset_of!(libc::ucontext_t, uc_mcontext.sp) == GENERAL_AT + 31 * WORD);
    assert!(offset_of!(libc::ucontext_t, uc_mcontext.pc) == GENERAL_AT + 32 * WORD);
    assert!(size_of::<libc::ucontext_t>() >= RECORDS_AT + 4096);
};

/// Whether these eight bytes are `mov x8, #139; svc #0`, the system call `rt_sigreturn`. A signal
/// handler returns to it, and no CFI describes it.
pub(crate) const fn is_signal_return(code: u64) -> bool {
    code == 0xd400_0001_d280_1168
}

/// Where a frame whose code that is, with this stack pointer, has the words of its caller, by
/// column; `None` if it is not known. `read` reads a word.
pub(crate) fn signal_frame(
    sp: usize,
    read: impl Fn(usize) -> Option<usize>,
) -> [Option<usize>; REGISTERS] {
    /// Bytes of `siginfo_t`, behind which the context lies.
    const INFO: usize = 128;
    let context = sp.wrapping_add(INFO);
    let records = context.wrapping_add(RECORDS_AT);
    let has_vectors = read(records) == Some(VECTORS as usize);
    std::array::from_fn(|column| match column.checked_sub(FIRST_VECTOR_COLUMN) {
        None => Some(context.wrapping_add(GENERAL_AT + column * WORD)),
        Some(i) => has_vectors.then(|| records.wrapping_add(VECTORS_AT + (8 + i) * 16)),
    })
}

/// A frame that a stub of the procedure linkage table has made so far.
pub(crate) type LinkageFrame = (usize, Option<isize>);

/// Where a stub of the procedure linkage table stands at `pc`: its CFA minus its stack pointer, and
/// the return slot minus the CFA, or `None` where the return address is in its register. Linkers
/// for arm64 describe these stubs by no CFI, but write the same instructions. `code` reads eight
/// bytes.
pub(crate) fn linkage_stub(pc: usize, code: impl Fn(usize) -> Option<u64>) -> Option<LinkageFrame> {
    /// `bti c`.
    const LANDS: u32 = 0xd503_245f;
    /// `stp x16, x30, [sp, #-16]!`: the stub that has the loader find the function.
    const SAVES: u32 = 0xa9bf_7bf0;
    /// `autia1716`.
    const CHECKS: u32 = 0xd503_219f;
    /// `br x17`.
    const JUMPS: u32 = 0xd61f_0220;
    const BYTES: usize = 4;
    let instruction = |at: usize| code(at).map(|two| two as u32);
    // `adrp x16, page`, `ldr x17, [x16, offset]`, `add x16, x16, offset`.
    let is_page = |found: u32| found & 0x9f00_001f == 0x9000_0010;
    let is_load = |found: u32| found & 0xffc0_03ff == 0xf940_0211;
    let is_sum = |found: u32| found & 0xffc0_03ff == 0x9100_0210;
    let here = instruction(pc)?;
    // From the `adrp` to the pc, in instructions.
    let places: &[isize] = match here {
        LANDS => &[-1, -2],
        SAVES => &[-1],
        CHECKS => &[3],
        JUMPS => &[3, 4],
        _ if is_page(here) => &[0],
        _ if is_load(here) => &[1],
        _ if is_sum(here) => &[2],
        _ => return None,
    };
    let at = |page: usize, i: isize| page.wrapping_add_signed(i * BYTES as isize);
    let is_stub = |page: usize| {
        let found = |i| instruction(at(page, i));
        let jumps = match found(3)? {
            CHECKS => found(4)?,
            other => other,
        };
        let fits = is_page(found(0)?) && is_load(found(1)?) && is_sum(found(2)?) && jumps == JUMPS;
        fits.then_some(())
    };
    let saves = |page| instruction(at(page, -1)) == Some(SAVES);
    let place = places.iter().copied().find(|place| {
        let page = at(pc, -place);
        is_stub(page).is_some() && (*place != -2 || saves(page))
    })?;
    let saved = place >= 0 && saves(at(pc, -place));
    Some(if saved { (2 * WORD, Some(-(WORD as isize))) } else { (0, None) })
}

/// Starts to load the word at `address` into the cache. Any address is allowed.
#[inline]
pub fn prefetch(address: usize) {
    // SAFETY: a prefetch reads nothing and faults at no address.
    unsafe {
        std::arch::asm!(
            "prfm pldl1keep, [{0}]",
            in(reg) address,
            options(nostack, preserves_flags, readonly)
        )
    };
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// The slots of the registers from x19 on, with those of x29 and all others.
    fn slots(fp: u64, general: &[u64], vectors: &[u64]) -> [u64; CALLEE_SAVED.len()] {
        let mut slots = [0; CALLEE_SAVED.len()];
        slots[0] = fp;
        slots[1..=general.len()].copy_from_slice(general);
        slots[11..11 + vectors.len()].copy_from_slice(vectors);
        slots
    }

    #[test]
    fn what_compilers_save_is_packed() {
        let layouts = [
            // LLVM: pairs downwards, an odd one with a gap.
            slots(2, &[], &[]),
            slots(4, &[2], &[]),
            slots(4, &[1, 2], &[]),
            slots(6, &[1, 2, 4], &[]),
            slots(12, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[]),
            // GCC: upwards from the frame record, vectors behind.
            slots(4, &[2, 1], &[]),
            slots(100, &[98, 97, 96], &[]),
            slots(20, &[18, 17, 16, 15, 14, 13, 12, 11, 10, 9], &[8, 7, 6, 5, 4, 3, 2, 1]),
            // Cranelift: upwards, the record at the top, vectors below.
            slots(2, &[8, 7, 6, 5, 4], &[]),
            slots(2, &[4], &[0, 6]),
            slots(2, &[12, 11, 0, 10, 9, 8, 7, 6, 5, 4], &[20, 19, 18, 17, 16, 15, 14, 13]),
            slots(2, &[4], &[8, 7, 6]),
        ];
        for layout in layouts {
            let bits = pack_slots(&layout).unwrap_or_else(|| panic!("{layout:?}"));
            assert_eq!(bits >> SLOTS_BITS, 0);
            for (i, wanted) in layout.iter().enumerate() {
                assert_eq!(slot(bits, i) as u64, *wanted, "{i} of {layout:?}");
                let has = saved_bits(bits) & register_bits(i) != 0;
                assert_eq!(has, *wanted != 0, "{i} of {layout:?}");
            }
        }
        assert_eq!(pack_slots(&slots(2, &[3, 9, 4], &[])), None);
        assert_eq!(pack_slots(&slots(2, &[1, 2, 4, 5], &[])), None);
    }

    #[test]
    fn columns_and_registers_are_one_to_one() {
        for i in 0..REGISTERS {
            assert_eq!(column(register_of(i)), Some(i));
        }
        assert_eq!(column(AArch64::V16), None);
        assert_eq!(column(AArch64::RA_SIGN_STATE), None);
    }
}
