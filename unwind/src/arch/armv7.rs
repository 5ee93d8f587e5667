//! armv7: 32-bit words, the return address in a register that functions save where they like. Its
//! lowest bit says that the caller is Thumb code.
//!
//! The frame pointer is r11, as in ARM code. GCC's Thumb code may have r7 for it: to this crate
//! that is a register like others, and what depends on it is no packed rule.
//!
//! Half of the floating-point registers are callee-saved, and have two words each. A register set
//! holds the words, under the numbers that DWARF once gave to s16 up to s31. CFI tells of d8 up to
//! d15.

use gimli::{Arm, Register, Vendor};
use object::elf;

/// Bytes of a word, of a stack slot and of a return address.
pub(crate) const WORD: usize = 4;
/// Bytes of an address in DWARF.
pub(crate) const ADDRESS_SIZE: u8 = 4;

/// What messages call the architecture.
pub(crate) const NAME: &str = "armv7";
/// The machine of its ELF files.
pub(crate) const ELF_MACHINE: elf::Machine = elf::EM_ARM;
/// The class of its ELF files.
pub(crate) const ELF_CLASS: elf::FileClass = elf::ELFCLASS32;
/// The architecture of its object files.
pub(crate) const OBJECT_ARCHITECTURE: object::Architecture = object::Architecture::Arm;
/// The program header of its ELF files.
pub(crate) type ProgramHeader = libc::Elf32_Phdr;
/// Whether images in Microsoft's format for it have UNWIND_INFO in the form that is read here.
pub(crate) const HAS_UNWIND_INFO: bool = false;
/// Whose extensions of CFI its code uses.
pub(crate) const CFI_VENDOR: Vendor = Vendor::Default;

/// The stack pointer.
pub const STACK_POINTER: Register = Arm::R13;
/// The frame pointer.
pub const FRAME_POINTER: Register = Arm::R11;
/// The column of a register set that holds the pc. Signal frames alone have a rule for it.
pub const PC: Register = Arm::R15;
/// The register whose rule in CFI finds the return address.
pub const RETURN_ADDRESS: Register = Arm::R14;
/// The number of columns in a register set: the general registers, and the words of the
/// callee-saved floating-point registers.
pub(crate) const REGISTERS: usize = FIRST_VECTOR_COLUMN + 2 * DOUBLES;
/// The callee-saved registers, in the order in which a packed rule tells their slots. The frame
/// pointer comes first.
pub(crate) const CALLEE_SAVED: [Register; 1 + GENERAL + 2 * DOUBLES] = {
    let mut all = [FRAME_POINTER; 1 + GENERAL + 2 * DOUBLES];
    let mut i = 0;
    while i < GENERAL {
        all[1 + i] = Register(Arm::R4.0 + i as u16);
        i += 1;
    }
    i = 0;
    while i < 2 * DOUBLES {
        all[1 + GENERAL + i] = Register(S16.0 + i as u16);
        i += 1;
    }
    all
};

/// The callee-saved general registers beside the frame pointer: r4 to r10.
const GENERAL: usize = 7;
/// The callee-saved floating-point registers: d8 to d15.
const DOUBLES: usize = 8;
const FIRST_VECTOR_COLUMN: usize = PC.0 as usize + 1;
/// The lower word of d8.
const S16: Register = Register(80);
/// The upper word of d15.
const S31: Register = Register(S16.0 + 2 * DOUBLES as u16 - 1);

/// The column of a register; `None` for one that has none.
#[inline]
pub(crate) const fn column(register: Register) -> Option<usize> {
    match register {
        Register(number) if number <= PC.0 => Some(number as usize),
        Register(number) if number >= S16.0 && number <= S31.0 => {
            Some((number - S16.0) as usize + FIRST_VECTOR_COLUMN)
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
        Register(S16.0 + (column - FIRST_VECTOR_COLUMN) as u16)
    }
}

/// The words of a register that has two, by ascending addresses.
#[inline]
pub(crate) const fn words_of(register: Register) -> Option<[Register; 2]> {
    let Register(number) = register;
    if number < Arm::D8.0 || number > Arm::D15.0 {
        return None;
    }
    let low = S16.0 + 2 * (number - Arm::D8.0);
    Some([Register(low), Register(low + 1)])
}

/// Bytes that a call pushes: none, it leaves the return address in a register.
pub(crate) const CALL_PUSHES: usize = 0;
/// Bytes from the frame pointer to the CFA in a frame that keeps a frame record right below its
/// CFA: the saved frame pointer, and the return address in the word above it.
pub(crate) const FRAME_RECORD: usize = 2 * WORD;
/// From the frame pointer to the return slot in such a frame, in bytes.
pub(crate) const FRAME_RECORD_RETURN: usize = WORD;

/// From the CFA to the return slot of a frame with a packed rule or a safepoint, in bytes: above
/// the saved frame pointer or, where that is not saved, right below the CFA.
#[inline]
pub(crate) const fn return_offset(saved_fp: usize) -> isize {
    let word = WORD as isize;
    if saved_fp == 0 { -word } else { word - saved_fp as isize }
}

/// Whether a packed rule can say that the return address is saved at this offset from the CFA, and
/// the frame pointer, if it is, at the other.
pub(crate) fn return_fits(at: i64, saved_fp: Option<i64>) -> bool {
    let word = WORD as i64;
    at < 0 && at == saved_fp.map_or(-word, |saved| saved + word)
}

// A packed rule's slots. An instruction saves many registers, in the order of their numbers: so
// general registers lie without gaps, and so do the others, below them (compilers), at times with a
// word between that keeps them aligned, or above them (Stackmark's assembly).
//
// bits  0..8   the frame pointer's slot
// bits  8..16  the slot of the register that is saved first
// bits 16..31  which of r4 to r10 and d8 to d15 are saved
// bit   31     the doubles lie above the general registers
// bit   32     if below: a word is left out between them

/// The bits of a packed rule that say where registers are saved, and how many of them, from the
/// lowest on, say it of the frame pointer.
pub(crate) const SLOTS_BITS: u32 = 33;
pub(crate) const FP_SLOT_BITS: u32 = 8;
/// The largest number of words between the CFA and a saved register.
pub(crate) const LARGEST_SLOT: i64 = 255;
/// The slots of a frame with a frame record right below its CFA and nothing else.
pub(crate) const PLAIN_SLOTS: u64 = (FRAME_RECORD / WORD) as u64;
const FIRST_SHIFT: u32 = 8;
const MASK_SHIFT: u32 = 16;
const GENERAL_MASK: u64 = (1 << GENERAL) - 1;
const MASK: u64 = (1 << (GENERAL + DOUBLES)) - 1;
const ABOVE: u64 = 1 << 31;
const GAP: u64 = 1 << 32;

/// One bit for each of [`CALLEE_SAVED`], and one for both words of a double.
pub(crate) type SavedBits = u32;

/// The bit of the mask for register `index` of [`CALLEE_SAVED`], from the second on.
const fn place(index: usize) -> usize {
    if index <= GENERAL { index - 1 } else { GENERAL + (index - 1 - GENERAL) / 2 }
}

/// Packs the slots of [`CALLEE_SAVED`], in words below the CFA; 0 for registers that are not saved.
pub(crate) fn pack_slots(slots: &[u64; CALLEE_SAVED.len()]) -> Option<u64> {
    let saved = || slots.iter().enumerate().skip(1).filter(|(_, slot)| **slot != 0);
    let mask = saved().fold(0, |mask, (i, _)| mask | 1 << place(i));
    let first = saved().next().map_or(0, |(_, slot)| *slot);
    let plain = slots[0] | first << FIRST_SHIFT | mask << MASK_SHIFT;
    let fits = |bits: &u64| (0..slots.len()).all(|i| slot(*bits, i) as u64 == slots[i]);
    [plain, plain | ABOVE, plain | GAP].into_iter().find(fits)
}

/// The slot of register `index` of [`CALLEE_SAVED`]; 0 if it is not saved.
#[inline]
pub(crate) const fn slot(bits: u64, index: usize) -> usize {
    if index == 0 {
        return (bits & ((1 << FP_SLOT_BITS) - 1)) as usize;
    }
    let (mask, bit) = (bits >> MASK_SHIFT & MASK, 1 << place(index));
    if mask & bit == 0 {
        return 0;
    }
    let first = (bits >> FIRST_SHIFT & 0xff) as usize;
    let behind = (mask & (bit - 1)).count_ones() as usize;
    // What does not fit is found by `pack_slots`.
    if bit <= GENERAL_MASK {
        return first.wrapping_sub(behind);
    }
    let general = (mask & GENERAL_MASK).count_ones() as usize;
    let doubles = (mask & !GENERAL_MASK).count_ones() as usize;
    let lowest = if general == 0 {
        first
    } else if bits & ABOVE != 0 {
        first.wrapping_sub(general)
    } else {
        first + 2 * doubles + (bits & GAP != 0) as usize
    };
    lowest.wrapping_sub(2 * (behind - general) + (index - 1 - GENERAL) % 2)
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
    if index == 0 { 1 } else { 2 << place(index) }
}

/// How Cranelift functions that return end: it has none for this architecture.
pub(crate) const CRANELIFT_EPILOGUES: &[(&[u8], usize, usize)] = &[];

/// The register of CFI that says whether the return address is signed: none is here.
pub(crate) const SIGN_STATE: Option<Register> = None;
/// Whether an atomic read-modify-write orders all accesses before it with all behind it.
#[cfg_attr(all(test, stackmark_loom), expect(dead_code, reason = "loom has a model of its own"))]
pub(crate) const RMW_IS_FULL_BARRIER: bool = false;

/// The address in a return address, without the bit for Thumb code.
#[inline(always)]
pub(crate) const fn without_signature(word: usize) -> usize {
    word & !1
}

/// The name of a register.
pub(crate) fn register_name(register: Register) -> Option<&'static str> {
    const WORDS: [&str; 2 * DOUBLES] = [
        "S16", "S17", "S18", "S19", "S20", "S21", "S22", "S23", "S24", "S25", "S26", "S27", "S28",
        "S29", "S30", "S31",
    ];
    let word = column(register).and_then(|column| column.checked_sub(FIRST_VECTOR_COLUMN));
    word.map_or_else(|| Arm::register_name(register), |word| Some(WORDS[word]))
}

/// The registers of the function that this is inlined into: pc, stack pointer, and the rest in the
/// order of [`CALLEE_SAVED`].
#[inline(always)]
pub(crate) fn captured() -> [usize; 2 + CALLEE_SAVED.len()] {
    let mut saved = [0_usize; 2 + CALLEE_SAVED.len()];
    // SAFETY: the assembly writes the words of `saved`, from the first to the last. It changes r12
    // and lr only, whose values are not recorded.
    unsafe {
        std::arch::asm!(
            "mov r12, pc",
            "str r12, [lr], #4",
            "str sp, [lr], #4",
            "str r11, [lr], #4",
            "stm lr!, {{r4-r10}}",
            "vstm lr, {{d8-d15}}",
            inout("lr") saved.as_mut_ptr() => _,
            out("r12") _,
            options(nostack, preserves_flags)
        );
    }
    saved
}

/// The words before the registers of a record of floating-point registers: Linux's `VFP_MAGIC`, and
/// the record's size.
const VECTORS: [usize; 2] = [0x5646_5001, 288];
/// Bytes from the beginning of the record to d8.
const D8_AT: usize = (VECTORS.len() + 2 * 8) * WORD;
/// The records are told by no more than the first one, and that one is it on processors of this
/// architecture.
const fn has_vectors(magic: usize, size: usize) -> bool {
    magic == VECTORS[0] && size == VECTORS[1]
}

/// The registers that a signal interrupted, by column, and which of them are known. The layout of
/// `ucontext_t` is Linux's.
pub(crate) fn interrupted(context: &libc::ucontext_t) -> ([usize; REGISTERS], u64) {
    let mut values = [0; REGISTERS];
    let words = std::ptr::from_ref(context).cast::<usize>();
    // SAFETY: the structure begins with words, up to the end of its records.
    let word = |at: usize| unsafe { words.byte_add(at).read() };
    for (i, value) in values[..FIRST_VECTOR_COLUMN].iter_mut().enumerate() {
        *value = word(GENERAL_AT + i * WORD);
    }
    if !has_vectors(word(RECORDS_AT), word(RECORDS_AT + WORD)) {
        return (values, (1 << FIRST_VECTOR_COLUMN) - 1);
    }
    for (i, value) in values[FIRST_VECTOR_COLUMN..].iter_mut().enumerate() {
        *value = word(RECORDS_AT + D8_AT + i * WORD);
    }
    (values, (1 << REGISTERS) - 1)
}

/// Where in `ucontext_t` the general registers lie, from r0 to the pc.
const GENERAL_AT: usize = 32;
/// Where the records lie.
const RECORDS_AT: usize = 232;
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(libc::ucontext_t, uc_mcontext.arm_r0) == GENERAL_AT);
    assert!(offset_of!(libc::ucontext_t, uc_mcontext.arm_sp) == GENERAL_AT + 13 * WORD);
    assert!(offset_of!(libc::ucontext_t, uc_mcontext.arm_pc) == GENERAL_AT + 15 * WORD);
    assert!(offset_of!(libc::ucontext_t, uc_regspace) == RECORDS_AT);
};

/// Whether these eight bytes begin with the system call `rt_sigreturn`. A signal handler returns to
/// it, and no CFI describes it.
pub(crate) const fn is_signal_return(code: u64) -> bool {
    /// `mov r7, #173; svc #0`
    const ARM: u64 = 0xef00_0000_e3a0_70ad;
    /// The same as Thumb code, which has six bytes.
    const THUMB: u64 = 0xdf00_07ad_f04f;
    code == ARM || code & 0xffff_ffff_ffff == THUMB
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
    let record = [read(records), read(records.wrapping_add(WORD))];
    let known = matches!(record, [Some(magic), Some(size)] if has_vectors(magic, size));
    std::array::from_fn(|column| match column.checked_sub(FIRST_VECTOR_COLUMN) {
        None => Some(context.wrapping_add(GENERAL_AT + column * WORD)),
        Some(i) => known.then(|| records.wrapping_add(D8_AT + i * WORD)),
    })
}

/// A frame that a stub of the procedure linkage table has made so far.
pub(crate) type LinkageFrame = (usize, Option<isize>);

/// Where a stub of the procedure linkage table stands at `pc`: its CFA minus its stack pointer, and
/// the return slot minus the CFA, or `None` where the return address is in its register. Linkers
/// describe these stubs by no CFI, but write the same instructions, which need no frame. `code`
/// reads eight bytes.
pub(crate) fn linkage_stub(pc: usize, code: impl Fn(usize) -> Option<u64>) -> Option<LinkageFrame> {
    // `add r12, pc, #n`, `add r12, r12, #n`, `ldr pc, [r12, #n]!`
    let stub = [0xe28f_c000, 0xe28c_c000, 0xe5bc_f000];
    let instruction = |at: usize| code(at).map(|two| two as u32 & 0xffff_f000);
    let here = instruction(pc)?;
    let place = stub.iter().position(|found| *found == here)?;
    let begin = pc.wrapping_sub(4 * place);
    let fits = |i: usize| instruction(begin.wrapping_add(4 * i)) == Some(stub[i]);
    (0..stub.len()).all(fits).then_some((0, None))
}

/// Starts to load the word at `address` into the cache. Any address is allowed.
#[inline]
pub fn prefetch(address: usize) {
    // SAFETY: a prefetch reads nothing and faults at no address.
    unsafe {
        std::arch::asm!(
            "pld [{0}]",
            in(reg) address,
            options(nostack, preserves_flags, readonly)
        )
    };
}

#[cfg(all(test, not(stackmark_loom)))]
mod tests {
    use super::*;

    /// The slots of r4 and on, d8 and on, with those of r11 and all others.
    fn slots(fp: u64, general: &[u64], doubles: &[u64]) -> [u64; CALLEE_SAVED.len()] {
        let mut slots = [0; CALLEE_SAVED.len()];
        slots[0] = fp;
        slots[1..=general.len()].copy_from_slice(general);
        for (words, slot) in slots[1 + GENERAL..].chunks_mut(2).zip(doubles) {
            words.copy_from_slice(&[*slot, slot.saturating_sub(1)]);
        }
        slots
    }

    #[test]
    fn what_compilers_save_is_packed() {
        let layouts = [
            slots(2, &[], &[]),
            slots(0, &[2], &[]),
            slots(2, &[4, 3], &[]),
            slots(2, &[9, 8, 7, 6, 5, 4, 3], &[]),
            slots(2, &[0, 0, 0, 3], &[]),
            slots(2, &[], &[4]),
            slots(2, &[], &[0, 6, 4]),
            // Below the general registers, and with a word between.
            slots(2, &[8, 7, 6, 5, 4, 3], &[24, 22, 20, 18, 16, 14, 12, 10]),
            slots(2, &[3], &[6]),
            slots(2, &[4, 3], &[7]),
            // `call_system`'s part.
            slots(2, &[25, 24, 23, 22, 21, 20, 19], &[18, 16, 14, 12, 10, 8, 6, 4]),
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
        assert_eq!(pack_slots(&slots(2, &[3], &[20])), None);
        let mut half = slots(2, &[], &[4]);
        half[2 + GENERAL] = 0;
        assert_eq!(pack_slots(&half), None);
    }

    #[test]
    fn columns_and_registers_are_one_to_one() {
        for i in 0..REGISTERS {
            assert_eq!(column(register_of(i)), Some(i));
        }
        assert_eq!(column(Arm::D8), None);
        assert_eq!(words_of(Arm::D15), Some([Register(S31.0 - 1), S31]));
        assert_eq!([words_of(Arm::D7), words_of(Arm::D16), words_of(Arm::R4)], [None; 3]);
    }
}
