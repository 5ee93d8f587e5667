//! The one row of CFI that all stubs have, step by step, while a scan changes what it reads.
// Windows' unwinder reads no CFI.
#![cfg(unix)]

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EhFrameHdr, EvaluationResult, Location, NativeEndian,
    Register, RegisterRule, UnwindContext, UnwindSection, Value,
};
use stackmark_asm::barrier;
use std::collections::HashMap;
use std::ffi::c_void;

#[cfg(target_pointer_width = "64")]
type Header = libc::Elf64_Phdr;
#[cfg(target_pointer_width = "32")]
type Header = libc::Elf32_Phdr;
type Bytes = gimli::EndianSlice<'static, NativeEndian>;

mod arch;

/// The register that has the return address.
const RETURN: Register = Register(arch::RETURN_REGISTER);
/// Bytes of a word.
const WORD: usize = size_of::<usize>();

/// The program's CFI: its table of functions, and the entries.
fn cfi() -> (gimli::ParsedEhFrameHdr<Bytes>, EhFrame<Bytes>, BaseAddresses) {
    /// Notes where the image that holds the pool has its table, and where that segment ends.
    unsafe extern "C" fn look(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        found: *mut c_void,
    ) -> i32 {
        // SAFETY: the loader describes an image whose headers stay where they are.
        let (image, headers) = unsafe {
            let info = &*info;
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            (info.dlpi_addr as usize, headers)
        };
        let place = |header: &Header| {
            let start = image + header.p_vaddr as usize;
            start..start + header.p_memsz as usize
        };
        let holds = |address: usize| {
            let loaded = headers.iter().filter(|header| header.p_type == libc::PT_LOAD).map(place);
            loaded.into_iter().find(|range| range.contains(&address))
        };
        let table = headers.iter().find(|header| header.p_type == libc::PT_GNU_EH_FRAME);
        if let (Some(_), Some(table)) = (holds(barrier::hijacked_word(1)), table.map(place)) {
            let end = holds(table.start).expect("the table is loaded").end;
            // SAFETY: `found` is what `dl_iterate_phdr` was called with, below.
            unsafe { *found.cast() = Some((table.start, end)) };
            return 1;
        }
        0
    }
    let mut found: Option<(usize, usize)> = None;
    // SAFETY: the callback has the loader's signature, and `found` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut found).cast()) };
    let (start, end) = found.expect("the image of the pool has CFI");
    // SAFETY: a loaded segment, which is read only.
    let bytes = |from: usize| unsafe { std::slice::from_raw_parts(from as *const u8, end - from) };
    let bases = BaseAddresses::default().set_eh_frame_hdr(start as u64);
    let table =
        EhFrameHdr::new(bytes(start), NativeEndian).parse(&bases, WORD as u8).expect("a table");
    let gimli::Pointer::Direct(entries) = table.eh_frame_ptr() else { panic!("no direct pointer") };
    let bases = bases.set_eh_frame(entries);
    (table, EhFrame::new(bytes(entries as usize), NativeEndian), bases)
}

/// What the row reads: the slot of a frame, and words of the table.
struct Memory {
    slot: usize,
    words: HashMap<usize, usize>,
}

impl Memory {
    fn read(&self, address: usize, size: usize) -> usize {
        match (self.words.get(&address), size) {
            _ if address == CFA - WORD => self.slot,
            (Some(word), WORD) => *word,
            // SAFETY: the pages of the pool stay; the rest is code of this program.
            (None, 4) => unsafe { *(address as *const u32) as usize },
            _ => panic!("{size} bytes at {address:#x} are read"),
        }
    }
}

/// Where the stub's frame ends.
const CFA: usize = 0x7000_0000;

/// Evaluates the stubs' row on this memory. `scan` is called before each read with the number of
/// reads before it.
fn evaluate(mut memory: Memory, mut scan: impl FnMut(usize, &mut Memory)) -> (usize, usize) {
    let (table, frame, bases) = cfi();
    let table = table.table().expect("a table of functions");
    let at = barrier::hijacked_word(3) as u64;
    let entry = table.fde_for_address(&frame, &bases, at, EhFrame::cie_from_offset);
    let entry = entry.expect("the pool has an entry");
    let mut context = UnwindContext::new();
    let row = entry.unwind_info_for_address(&frame, &bases, &mut context, at).expect("a row");
    assert!(matches!(row.cfa(), CfaRule::RegisterAndOffset { offset: 0, .. }));
    // On x86 the row says where the return address lies, on arm64 what it is.
    let (expression, at_a_place) = match row.register(RETURN) {
        Some(RegisterRule::Expression(expression)) => (expression, true),
        Some(RegisterRule::ValExpression(expression)) => (expression, false),
        other => panic!("{other:?}"),
    };
    let expression = expression.get(&frame).expect("within the section");
    let mut evaluation = expression.evaluation(entry.cie().encoding());
    evaluation.set_initial_value(CFA as u64);
    evaluation.set_max_iterations(1000);
    let mut reads = 0;
    let mut state = evaluation.evaluate().expect("a sound expression");
    loop {
        state = match state {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                assert_eq!(register, RETURN);
                scan(reads, &mut memory);
                reads += 1;
                evaluation.resume_with_register(Value::Generic(memory.slot as u64))
            }
            EvaluationResult::RequiresMemory { address, size, .. } => {
                scan(reads, &mut memory);
                reads += 1;
                let word = memory.read(address as usize, size.into());
                evaluation.resume_with_memory(Value::Generic(word as u64))
            }
            other => panic!("{other:?}"),
        }
        .expect("a sound expression");
    }
    let result = evaluation.result();
    let Location::Address { address } = result[0].location else { panic!("{result:?}") };
    if at_a_place {
        scan(reads, &mut memory);
        return (memory.read(address as usize, WORD), reads + 1);
    }
    (address as usize, reads)
}

/// Code of this program, which a frame may return to.
fn returns_to() -> usize {
    cfi as *const () as usize + 1
}

/// A frame whose slot holds this stub.
fn with_barrier(stub: usize) -> Memory {
    Memory {
        slot: barrier::hijacked_word(stub),
        words: HashMap::from([(word(stub), returns_to())]),
    }
}

/// The address of a stub's word in the table.
fn word(stub: usize) -> usize {
    // SAFETY: only its address is taken.
    std::ptr::from_ref(unsafe { barrier::saved(stub) }).addr()
}

#[test]
fn the_row_finds_the_return_address_with_a_barrier_and_without() {
    for stub in [1, 2, 500, 600] {
        assert_eq!(evaluate(with_barrier(stub), |_, _| ()).0, returns_to());
    }
    let without = Memory { slot: returns_to(), words: HashMap::new() };
    assert_eq!(evaluate(without, |_, _| ()).0, returns_to());
}

#[test]
fn the_row_finds_the_return_address_whenever_a_scan_takes_the_barrier_away() {
    let (_, reads) = evaluate(with_barrier(5), |_, _| ());
    assert_eq!(reads, 4, "the slot, two words of the page, the table's");
    for at in 0..=reads {
        // The stub's word stays while the goroutine runs no managed code.
        let taken_away = |reads: usize, memory: &mut Memory| {
            if reads == at {
                memory.slot = returns_to();
            }
        };
        assert_eq!(evaluate(with_barrier(5), taken_away).0, returns_to(), "before read {at}");
    }
}

#[test]
fn the_row_finds_the_return_address_whenever_a_scan_sets_another_barrier() {
    for first in 0..5 {
        for second in first..6 {
            let moved = |reads: usize, memory: &mut Memory| {
                for (at, stub) in [(first, 700), (second, 9)] {
                    if reads == at {
                        memory.words.insert(word(stub), returns_to());
                        memory.slot = barrier::hijacked_word(stub);
                    }
                }
            };
            assert_eq!(evaluate(with_barrier(5), moved).0, returns_to(), "{first} {second}");
        }
    }
}
