//! What a core file of x86-64 Linux says of a thread.

use object::elf;
use stackmark_unwind::RegisterSet;

/// The machine of such files.
pub(crate) const MACHINE: elf::Machine = elf::EM_X86_64;

/// Where `struct elf_prstatus` has the thread's number, and its registers.
const THREAD: usize = 32;
const REGISTERS: usize = 112;

/// The DWARF numbers of the registers in the order of `struct user_regs_struct`.
const NUMBERS: [Option<u16>; 20] = [
    Some(15),
    Some(14),
    Some(13),
    Some(12),
    Some(6),
    Some(3),
    Some(11),
    Some(10),
    Some(9),
    Some(8),
    Some(0),
    Some(2),
    Some(1),
    Some(4),
    Some(5),
    // orig_rax
    None,
    Some(16),
    // cs, eflags
    None,
    None,
    Some(7),
];

/// The system's number of a thread, and its registers, from a note `NT_PRSTATUS`.
pub(crate) fn thread(note: &[u8]) -> Option<(i32, RegisterSet)> {
    let thread = i32::from_le_bytes(*note.get(THREAD..)?.first_chunk()?);
    let mut registers = RegisterSet::unknown();
    for (i, number) in NUMBERS.iter().enumerate() {
        let word = u64::from_le_bytes(*note.get(REGISTERS + 8 * i..)?.first_chunk()?);
        if let Some(number) = number {
            registers.set(gimli::Register(*number), word as usize);
        }
    }
    Some((thread, registers))
}
