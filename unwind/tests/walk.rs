//! Walks over stacks that the tests write word by word.

mod support;

use stackmark_unwind::{
    BarrierRefusal, Code, FrameKind, LiveMemory, Memory, MemorySnapshot, NativeRule, Registers,
    ReturnAddresses, WalkError, Walker,
};
use support::arch::{W, WORD, bytes_of};
use support::{FUNCTION, region};

const STACK: usize = 0x7000_0000;
const CODE: usize = 0x10_0000;
const ENTRY: usize = 0x20_0000;
const CALLBACK: usize = 0x30_0000;
/// Frames that keep an anchor, from this word on.
const ENTERED: usize = 0x38_0000;
const ANCHOR: usize = 1;
const STUBS: std::ops::Range<usize> = 0x40_0000..0x40_0800;

/// Stubs of 8 bytes. A hijacked slot holds stub + 1; the saved addresses are found by index.
struct Stubs(Vec<usize>);

impl ReturnAddresses for Stubs {
    fn original(&self, found: usize) -> Option<usize> {
        STUBS.contains(&found).then(|| self.0[(found - STUBS.start) / 8])
    }
}

/// Two managed functions, `f0` with a frame of four words and `f1` with one of six, and the native
/// ranges.
fn code() -> Code {
    let code = Code::new();
    let f0: &[_] = &[(0x20, bytes_of(4), &[0, bytes_of(1)][..])];
    let f1: &[_] = &[(0x40, bytes_of(6), &[bytes_of(2)][..]), (0x60, bytes_of(6), &[])];
    code.register(region(CODE, &[f0, f1])).unwrap();
    code.register_native(ENTRY..ENTRY + 0x40, FrameKind::Entry, NativeRule::End).unwrap();
    code.register_native(
        CALLBACK..CALLBACK + 0x40,
        FrameKind::Callback,
        NativeRule::Fixed { cfa_offset: bytes_of(3) },
    )
    .unwrap();
    let rule = NativeRule::Anchor { offset: bytes_of(ANCHOR as u32) };
    code.register_native(ENTERED..ENTERED + 0x40, FrameKind::Callback, rule).unwrap();
    code
}

const IN_F0: usize = CODE + 0x20;
const IN_F1: usize = CODE + FUNCTION + 0x40;
const IN_ENTRY: usize = ENTRY + 0x10;

/// The entry, with a frame of two words, called f1, which called f1, which called f0.
fn stack() -> (MemorySnapshot, Registers) {
    stack_at(STACK)
}

fn stack_at(start: usize) -> (MemorySnapshot, Registers) {
    let at = |word: usize| start + word * WORD;
    let mut words = vec![0; 6 + 8 + 8 + 2];
    // f0: 4 words, saved fp, return address.
    words[4] = at(6 + 6);
    words[5] = IN_F1;
    // f1: 6 words, saved fp, return address.
    words[12] = at(14 + 6);
    words[13] = IN_F1;
    words[20] = 0;
    words[21] = IN_ENTRY;
    (MemorySnapshot { start, words }, Registers { pc: IN_F0, sp: start, fp: at(4) })
}

fn walk<R: ReturnAddresses + Copy>(
    code: &Code,
    memory: &MemorySnapshot,
    returns: R,
    registers: Registers,
) -> Result<Vec<(FrameKind, usize, usize)>, WalkError> {
    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, memory, returns, registers, memory.bounds());
    let (mut frames, mut live) = (Vec::new(), Vec::new());
    let result = loop {
        match walker.next_frame() {
            Ok(Some(frame)) => {
                frames.push((frame.kind, frame.pc, (frame.cfa - STACK) / WORD));
                live.push((frame.sp, frame.slots().collect(), frame.roots().collect()));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    for most in [1, 2, u64::MAX] {
        let walker = Walker::new(&snapshot, memory, returns, registers, memory.bounds());
        assert_eq!(pass(walker, most), (live.clone(), result), "at most {most} in a row");
    }
    result?;
    assert_eq!(walker.next_frame().map(|frame| frame.is_none()), Ok(true), "the end stays the end");
    Ok(frames)
}

/// The stack pointer, the slots and the roots of a frame.
type Live = (usize, Vec<usize>, Vec<(usize, usize)>);

/// The frames of a walk that passes safepoints, at most so many in a row.
fn pass<R: ReturnAddresses>(
    mut walker: Walker<'_, &MemorySnapshot, R>,
    most: u64,
) -> (Vec<Live>, Result<(), WalkError>) {
    let mut live = Vec::new();
    loop {
        let before = live.len();
        let passed = walker.pass_safepoints(usize::MAX, most, |safepoint, sp, fp| {
            live.push((
                sp,
                safepoint.slots_at(sp, fp).collect(),
                safepoint.roots_at(sp, fp).collect(),
            ));
        });
        assert_eq!(passed as usize, live.len() - before);
        assert!(passed <= most);
        match walker.next_frame() {
            Ok(Some(frame)) => {
                live.push((frame.sp, frame.slots().collect(), frame.roots().collect()));
            }
            Ok(None) => return (live, Ok(())),
            Err(error) => return (live, Err(error)),
        }
    }
}

/// Fails the test on a read outside of the words or of an unaligned address.
struct Guarded<'a>(&'a MemorySnapshot);

impl Memory for Guarded<'_> {
    fn read(&self, address: usize) -> Option<usize> {
        assert!(
            self.0.bounds().contains(&address) && address.is_multiple_of(WORD),
            "read at {address:#x}"
        );
        self.0.read(address)
    }
}

#[test]
fn frames_in_a_row_are_passed_up_to_a_return_slot() {
    let code = code();
    let (memory, registers) = stack();
    let snapshot = code.snapshot();
    let all = pass(Walker::new(&snapshot, &memory, (), registers, memory.bounds()), 0).0;
    for (end, frames) in [(STACK + 5 * WORD, 0), (STACK + 6 * WORD, 1), (STACK + 13 * WORD, 1)]
        .into_iter()
        .chain([(STACK + 14 * WORD, 2), (STACK + 21 * WORD, 2), (STACK + 22 * WORD, 3)])
    {
        let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
        let mut seen = Vec::new();
        let passed = walker.pass_safepoints(end, 9, |_, sp, _| seen.push(sp));
        assert_eq!((passed, seen.len()), (frames, frames as usize), "up to {end:#x}");
        assert_eq!(seen, all[..seen.len()].iter().map(|frame| frame.0).collect::<Vec<_>>());
        let next = walker.next_frame().unwrap().unwrap();
        assert_eq!(next.sp, all[seen.len()].0, "the walk goes on there");
        assert_eq!(next.fp_slot.is_some(), frames > 0, "it knows where the frame pointer is");
    }
}

#[test]
fn a_walk_goes_through_managed_frames_to_the_entry() {
    let code = code();
    let (memory, registers) = stack();
    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
    let f0 = walker.next_frame().unwrap().unwrap();
    assert_eq!(
        (f0.kind, f0.pc, f0.sp, f0.cfa),
        (FrameKind::Managed, IN_F0, STACK, STACK + 6 * WORD)
    );
    assert_eq!((f0.fp, f0.fp_slot, f0.cfa_from_fp), (registers.fp, None, true));
    assert_eq!(
        (f0.return_slot, f0.return_address, f0.hijacked),
        (Some(STACK + 5 * WORD), IN_F1, false)
    );
    assert_eq!(f0.slots().collect::<Vec<_>>(), [STACK, STACK + WORD]);
    assert_eq!(f0.barrier_slot(), Ok(STACK + 5 * WORD));
    let f1 = walker.next_frame().unwrap().unwrap();
    assert_eq!((f1.fp, f1.fp_slot), (STACK + 12 * WORD, Some(STACK + 4 * WORD)));
    assert_eq!(f1.slots().collect::<Vec<_>>(), [STACK + 6 * WORD + 2 * WORD]);
    assert_eq!(
        walker.registers(),
        Registers { pc: IN_F1, sp: STACK + 14 * WORD, fp: STACK + 20 * WORD }
    );
    let oldest = walker.next_frame().unwrap().unwrap();
    assert_eq!(oldest.barrier_slot(), Err(BarrierRefusal::CallerNotSafepoint));
    let entry = walker.next_frame().unwrap().unwrap();
    assert_eq!((entry.kind, entry.pc, entry.return_slot), (FrameKind::Entry, IN_ENTRY, None));
    assert_eq!(entry.slots().count(), 0);
    assert_eq!(entry.barrier_slot(), Err(BarrierRefusal::Kind(FrameKind::Entry)));
    assert!(walker.next_frame().unwrap().is_none());
}

/// Where stacks of 32-bit programs lie.
#[test]
fn a_stack_at_the_top_of_the_address_space_is_walked_and_nothing_is_read_behind_it() {
    let code = code();
    let (memory, registers) = stack();
    let kinds = |frames: Vec<(FrameKind, usize, usize)>| -> Vec<_> {
        frames.into_iter().map(|frame| (frame.0, frame.1)).collect()
    };
    let expected = kinds(walk(&code, &memory, (), registers).unwrap());
    // Its last word is the last but one of the address space.
    let start = usize::MAX - WORD * (memory.words.len() + 1) + 1;
    let (memory, registers) = stack_at(start);
    assert_eq!(kinds(walk(&code, &memory, (), registers).unwrap()), expected);
    let snapshot = code.snapshot();
    let bounds = memory.bounds();
    let mut walker = Walker::new(&snapshot, &memory, (), registers, bounds.clone());
    let passed = walker.pass_safepoints(usize::MAX, 9, |_, _, _| {});
    assert_eq!(passed, if WORD == 4 { 3 } else { 0 });
    // Frames that end behind it, and so at its bottom.
    for words in 1..8 {
        let sp = bounds.end - words * WORD;
        let fp = sp.wrapping_add(4 * WORD);
        let registers = Registers { pc: IN_F0, sp, fp };
        let walker = || Walker::new(&snapshot, Guarded(&memory), (), registers, bounds.clone());
        let passed = walker().pass_safepoints(usize::MAX, 1, |_, _, _| {});
        assert_eq!(passed, u64::from(WORD == 4 && words >= 6), "{words} words");
        assert_eq!(walker().next_frame().is_err(), words < 6, "{words} words");
    }
}

#[test]
fn a_later_walk_goes_on_from_the_registers_of_an_earlier_one() {
    let code = code();
    let (memory, registers) = stack();
    let all = walk(&code, &memory, (), registers).unwrap();
    let snapshot = code.snapshot();
    let mut first = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
    first.next_frame().unwrap();
    first.next_frame().unwrap();
    assert_eq!(walk(&code, &memory, (), first.registers()).unwrap(), all[2..]);
}

#[test]
fn a_hijacked_slot_yields_the_saved_address_and_takes_no_second_barrier() {
    let code = code();
    let (mut memory, registers) = stack();
    let plain = walk(&code, &memory, (), registers).unwrap();
    let saved = vec![memory.words[5], memory.words[13], memory.words[21]];
    for (i, slot) in [5, 13, 21].into_iter().enumerate() {
        memory.words[slot] = STUBS.start + 8 * i + 1;
    }
    let stubs = Stubs(saved);
    assert_eq!(walk(&code, &memory, &stubs, registers).unwrap(), plain);
    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, &memory, &stubs, registers, memory.bounds());
    let frame = walker.next_frame().unwrap().unwrap();
    assert_eq!((frame.return_address, frame.hijacked), (IN_F1, true));
    assert_eq!(frame.barrier_slot(), Err(BarrierRefusal::Hijacked));
    // Without the table of saved addresses the stub is an unknown pc.
    let lost = walk(&code, &memory, (), registers);
    assert_eq!(lost, Err(WalkError::NoRule { pc: STUBS.start + 1 }));
}

// The frame of an assembly routine that leaves the goroutine's stack: it pushes six callee-saved
// registers.
#[cfg(all(target_arch = "x86_64", not(windows)))]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "push rbp",
    ".cfi_def_cfa_offset 16",
    ".cfi_offset rbp, -16",
    "push rbx",
    ".cfi_def_cfa_offset 24",
    ".cfi_offset rbx, -24",
    "push r12",
    ".cfi_def_cfa_offset 32",
    "push r13",
    ".cfi_def_cfa_offset 40",
    "push r14",
    ".cfi_def_cfa_offset 48",
    "push r15",
    ".cfi_def_cfa_offset 56",
    "nop",
    "unwind_test_system_call_label:",
    "ud2",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

// The same for Windows.
#[cfg(all(target_arch = "x86_64", windows))]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    ".seh_proc unwind_test_system_call",
    "unwind_test_system_call:",
    "push rbp",
    ".seh_pushreg rbp",
    "push rbx",
    ".seh_pushreg rbx",
    "push r12",
    ".seh_pushreg r12",
    "push r13",
    ".seh_pushreg r13",
    "push r14",
    ".seh_pushreg r14",
    "push r15",
    ".seh_pushreg r15",
    ".seh_endprologue",
    "nop",
    "unwind_test_system_call_label:",
    "ud2",
    "unwind_test_system_call_end:",
    ".seh_endproc",
);

// The same for i686, which has four: two more words are there for them.
#[cfg(target_arch = "x86")]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "push ebp",
    ".cfi_def_cfa_offset 8",
    ".cfi_offset ebp, -8",
    "push ebx",
    ".cfi_def_cfa_offset 12",
    ".cfi_offset ebx, -12",
    "push esi",
    ".cfi_def_cfa_offset 16",
    "push edi",
    ".cfi_def_cfa_offset 20",
    "sub esp, 8",
    ".cfi_def_cfa_offset 28",
    "nop",
    "unwind_test_system_call_label:",
    "ud2",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

// The same for arm64, with the words that matter at the same places.
#[cfg(target_arch = "aarch64")]
std::arch::global_asm!(
    ".globl unwind_test_system_call, unwind_test_system_call_label, unwind_test_system_call_end",
    "unwind_test_system_call:",
    ".cfi_startproc",
    "stp x29, x30, [sp, #-56]!",
    ".cfi_def_cfa_offset 56",
    ".cfi_offset x29, -16",
    ".cfi_offset x30, -8",
    "nop",
    "unwind_test_system_call_label:",
    "brk #1",
    ".cfi_endproc",
    "unwind_test_system_call_end:",
);

unsafe extern "C" {
    fn unwind_test_system_call();
    fn unwind_test_system_call_label();
    fn unwind_test_system_call_end();
}

#[test]
fn a_walk_crosses_a_system_call_a_callback_and_what_called_out() {
    let code = code();
    let system_call = unwind_test_system_call as *const () as usize
        ..unwind_test_system_call_end as *const () as usize;
    let label = unwind_test_system_call_label as *const () as usize;
    code.register_native(system_call.clone(), FrameKind::SystemCall, NativeRule::FromImage)
        .unwrap();

    let (older, managed) = stack();
    let older_start = 7 + 6 + 3 + 7;
    let at = |word: usize| STACK + word * WORD;
    let mut words = vec![0; older_start];
    // The goroutine stands in a system call, made by f0.
    words[5] = at(7 + 4);
    words[6] = IN_F0;
    // f0, called by native code.
    words[7 + 4] = at(older_start + 4);
    words[7 + 5] = CALLBACK + 0x18;
    // The callback's frame. Its slot holds the pc at which the older code called out.
    words[13 + 2] = label;
    // The older system call, and f0, which made it.
    words[16 + 5] = at(older_start + 4);
    words[16 + 6] = IN_F0;
    let move_up =
        |word: usize| if older.bounds().contains(&word) { word + older_start * WORD } else { word };
    words.extend(older.words.iter().map(|word| move_up(*word)));
    let memory = MemorySnapshot { start: STACK, words };

    let registers = Registers { pc: label, sp: STACK, fp: at(7 + 4) };
    use FrameKind::{Callback, Entry, Managed, SystemCall};
    let kinds = [SystemCall, Managed, Callback, SystemCall, Managed, Managed, Managed, Entry];
    let frames = walk(&code, &memory, (), registers).unwrap();
    assert_eq!(frames.iter().map(|frame| frame.0).collect::<Vec<_>>(), kinds);
    assert_eq!(frames[4].2, older_start + 6);
    assert_eq!(frames[4].1, managed.pc);

    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
    let mut refusals = Vec::new();
    let mut fp_slots = Vec::new();
    while let Some(frame) = walker.next_frame().unwrap() {
        refusals.push(frame.barrier_slot().err());
        fp_slots.push(frame.fp_slot);
    }
    let kind = |kind| Some(BarrierRefusal::Kind(kind));
    let no_caller = Some(BarrierRefusal::CallerNotSafepoint);
    assert_eq!(
        refusals,
        [
            kind(SystemCall),
            no_caller,
            kind(Callback),
            kind(SystemCall),
            None,
            None,
            no_caller,
            kind(Entry)
        ]
    );
    // Each system call saved the frame pointer of its f0.
    assert_eq!((fp_slots[1], fp_slots[4]), (Some(at(5)), Some(at(21))));

    assert_eq!(snapshot.kind(label - 1), Some(SystemCall));
    assert_eq!(snapshot.kind(system_call.end), None);
}

/// The code, and a stack with frames that keep an anchor. `f0`, entered by native
/// code, which f1 has called; it was entered by native code that no managed frame has called. Says
/// at which words the two frames that keep anchors begin.
fn entered() -> (Code, MemorySnapshot, Registers, [usize; 2]) {
    let code = code();
    let at = |word: usize| STACK + word * WORD;
    let records = [6, 30];
    // Between the anchors lie native frames, with anything in them.
    let mut words = vec![IN_F0; 40];
    words[4] = at(35);
    words[5] = ENTERED + 0x18;
    let [young, old] = records;
    words[young + ANCHOR..young + ANCHOR + 4].copy_from_slice(&[IN_F1, at(22), at(28), at(old)]);
    words[28] = at(36);
    words[29] = ENTERED + 0x18;
    words[old + ANCHOR..old + ANCHOR + 4].copy_from_slice(&[IN_F1, 0, IN_F1, 0]);
    let registers = Registers { pc: IN_F0, sp: STACK, fp: at(4) };
    (code, MemorySnapshot { start: STACK, words }, registers, records)
}

#[test]
fn a_walk_goes_from_a_frame_that_keeps_an_anchor_to_the_anchor() {
    use FrameKind::{Callback, Managed};
    let (code, memory, registers, [young, old]) = entered();
    let frames = walk(&code, &memory, (), registers).unwrap();
    let expected = [
        (Managed, IN_F0, young),
        (Callback, ENTERED + 0x18, 22),
        (Managed, IN_F1, old),
        (Callback, ENTERED + 0x18, memory.words.len()),
    ];
    assert_eq!(frames, expected);
    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
    let (mut refusals, mut fps) = (Vec::new(), Vec::new());
    while let Some(frame) = walker.next_frame().unwrap() {
        refusals.push(frame.barrier_slot().err());
        fps.push((frame.fp - STACK) / WORD);
    }
    let kept = Some(BarrierRefusal::Kind(Callback));
    let no_caller = Some(BarrierRefusal::CallerNotSafepoint);
    assert_eq!(refusals, [no_caller, kept, no_caller, kept]);
    assert_eq!(fps, [4, 35, 28, 36]);
}

#[test]
fn an_anchor_that_is_missing_or_wrong_is_an_error() {
    let (code, memory, registers, [young, old]) = entered();
    let with = |word: usize, value: usize| {
        let mut memory = memory.clone();
        memory.words[word] = value;
        walk(&code, &memory, (), registers)
    };
    let pc = ENTERED + 0x18;
    // Neither is the end of the stack: there is an older frame of the kind.
    let previous = old + ANCHOR + 3;
    assert_eq!(with(previous, 1), Err(WalkError::NoAnchor { pc }));
    assert_eq!(with(young + ANCHOR + 1, 0), Err(WalkError::NoAnchor { pc }));
    let sp = STACK + WORD * young;
    let younger = with(young + ANCHOR + 1, STACK);
    assert_eq!(younger, Err(WalkError::NotIncreasing { pc, sp, cfa: STACK }));
    let cfa = memory.bounds().end + WORD;
    let beyond = with(young + ANCHOR + 1, cfa);
    assert_eq!(beyond, Err(WalkError::OutOfBounds { pc, cfa }));
    assert_eq!(with(young + ANCHOR, 0x77), Err(WalkError::NoRule { pc: 0x77 }));
    // An anchor that the memory does not hold.
    let mut cut = memory.clone();
    cut.words.truncate(old + ANCHOR + 1);
    let address = cut.bounds().end;
    assert_eq!(walk(&code, &cut, (), registers), Err(WalkError::Unreadable { pc, address }));
}

#[test]
fn frames_that_move_their_return_address_or_stand_at_no_safepoint_take_no_barrier() {
    let code = Code::new();
    let mut moving = region(CODE, &[&[(0x20, bytes_of(4), &[])], &[(0x40, bytes_of(6), &[])]]);
    moving.functions[0].moves_return_address = true;
    code.register(moving).unwrap();
    let (memory, registers) = stack();
    let snapshot = code.snapshot();
    let refusal = |pc| {
        let registers = Registers { pc, ..registers };
        let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
        walker.next_frame().unwrap().unwrap().barrier_slot()
    };
    assert_eq!(refusal(IN_F0), Err(BarrierRefusal::ReturnAddressMoves));
    assert_eq!(refusal(IN_F0 + 1), Err(BarrierRefusal::NotAtSafepoint));
}

#[test]
fn live_memory_is_walked_like_a_snapshot_of_it_a_million_frames_deep() {
    const DEPTH: usize = 1_000_000;
    let code = code();
    // f0 DEPTH times, called by the entry.
    let mut words = vec![0_usize; DEPTH * 6];
    let start = words.as_ptr() as usize;
    for frame in 0..DEPTH {
        words[frame * 6 + 4] = start + (frame * 6 + 10) * WORD;
        words[frame * 6 + 5] = if frame + 1 < DEPTH { IN_F0 } else { IN_ENTRY };
    }
    let bounds = start..start + words.len() * WORD;
    // SAFETY: `words` lives to the end of the test.
    let live = unsafe { LiveMemory::new(bounds.clone()) };
    assert_eq!(live.bounds(), bounds);
    let memory = MemorySnapshot { start, words };
    let registers = Registers { pc: IN_F0, sp: start, fp: start + 4 * WORD };
    let snapshot = code.snapshot();
    let mut by_live = Walker::new(&snapshot, live, (), registers, bounds.clone());
    let mut by_copy = Walker::new(&snapshot, &memory, (), registers, bounds);
    let mut frames = 0;
    while let Some(frame) = by_live.next_frame().unwrap() {
        let same = by_copy.next_frame().unwrap().unwrap();
        assert_eq!(
            (frame.pc, frame.sp, frame.fp, frame.fp_slot),
            (same.pc, same.sp, same.fp, same.fp_slot)
        );
        frames += 1;
    }
    assert_eq!(frames, DEPTH + 1);
}

#[test]
fn live_memory_reads_whole_aligned_words_within_its_bounds_only() {
    let words = [1_usize, 2, 3];
    let start = words.as_ptr() as usize;
    // SAFETY: `words` lives to the end of the test.
    let memory = unsafe { LiveMemory::new(start + 1..start + 3 * WORD - 1) };
    assert_eq!(memory.bounds(), start + WORD..start + 2 * WORD);
    assert_eq!(memory.read(start + WORD), Some(2));
    for address in
        [start, start + WORD + 1, start + 2 * WORD, 0, usize::MAX, usize::MAX - (WORD - 1)]
    {
        assert_eq!(memory.read(address), None);
    }
}

#[test]
fn eight_bytes_of_code_are_read_of_whatever_words_hold_them() {
    let bytes: Vec<u8> = (1..=24).collect();
    let words = bytes.chunks(WORD).map(|word| usize::from_le_bytes(word.try_into().unwrap()));
    let memory = MemorySnapshot { start: 0x7000, words: words.collect() };
    for at in 0..=16 {
        let expected = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(memory.read_code(0x7000 + at), Some(expected));
    }
    for outside in [0x6fff, 0x7011, 0x7018, 0, usize::MAX] {
        assert_eq!(memory.read_code(outside), None);
    }
    // Those of this process are read from there.
    let start = bytes.as_ptr() as usize;
    // SAFETY: nothing is read of it.
    let live = unsafe { LiveMemory::new(start..start) };
    assert_eq!(live.read_code(start + 3), Some(u64::from_le_bytes([4, 5, 6, 7, 8, 9, 10, 11])));
}

#[test]
fn cfi_that_leaves_the_return_address_undefined_ends_a_walk() {
    use gimli::write::CallFrameInstruction as Cfi;
    use support::arch::RA;
    let code = code();
    let mut oldest = region(0x60_0000, &[&[]]);
    oldest.eh_frame =
        support::eh_frame([(0x60_0000, FUNCTION as u32, vec![(1, Cfi::Undefined(RA))])]);
    code.register(oldest).unwrap();
    let (mut memory, registers) = stack();
    memory.words[21] = 0x60_0020;
    // It stands at the very end of the stack; its CFA would lie above.
    memory.words.truncate(22);
    let frames = walk(&code, &memory, (), registers).unwrap();
    assert_eq!(frames.last(), Some(&(FrameKind::Managed, 0x60_0020, 22)));
}

mod errors {
    use super::*;
    use gimli::write::{CallFrameInstruction as Cfi, Expression};
    use stackmark_unwind::{ExpressionError, Function, Region};
    use support::arch::{FP, SP};
    use support::{eh_frame, frame_record};

    const ODD: usize = 0x50_0000;

    /// `by_fp` has its CFA relative to the frame pointer and no safepoints; `by_expression` has its
    /// CFA by an expression; `red_zone` saves the frame pointer below its stack pointer;
    /// `realigned` is as GCC does it.
    fn odd_code() -> Code {
        let code = code();
        let mut expression = Expression::new();
        expression.op_breg(SP, 2 * i64::from(W));
        let mut spilled = Expression::new();
        spilled.op_breg(FP, -i64::from(W));
        let mut saved_fp = Expression::new();
        saved_fp.op_breg(FP, 0);
        spilled.op_deref();
        code.register(Region {
            name: "odd".into(),
            start: ODD,
            len: 0x400,
            eh_frame: eh_frame([
                (ODD, 0x100, frame_record()),
                (ODD + 0x100, 0x100, vec![(1, Cfi::CfaExpression(expression))]),
                (ODD + 0x200, 0x100, vec![(1, Cfi::Offset(FP, -W - support::CFA as i32))]),
                (
                    ODD + 0x300,
                    0x100,
                    vec![(1, Cfi::CfaExpression(spilled)), (1, Cfi::Expression(FP, saved_fp))],
                ),
            ]),
            functions: vec![Function {
                name: "all".into(),
                start: ODD,
                len: 0x400,
                ..Function::default()
            }],
            ..Region::default()
        })
        .unwrap();
        code
    }

    fn first(registers: Registers) -> WalkError {
        let code = odd_code();
        let (memory, _) = stack();
        let snapshot = code.snapshot();
        let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
        let error = walker.next_frame().unwrap_err();
        assert_eq!(walker.next_frame().unwrap_err(), error, "the walk stands still");
        assert_eq!(walker.registers(), registers);
        error
    }

    #[test]
    fn an_unknown_pc_has_no_rule() {
        for pc in [0, 1, CODE, CODE + 2 * FUNCTION + 1, ODD + 0x401, usize::MAX] {
            assert_eq!(first(Registers { pc, sp: STACK, fp: 0 }), WalkError::NoRule { pc });
        }
    }

    #[test]
    fn an_expression_that_cannot_be_evaluated_is_refused_with_the_reason() {
        let (pc, sp) = (ODD + 0x380, STACK);
        let source = ExpressionError::Unreadable(0x18 - WORD);
        assert_eq!(first(Registers { pc, sp, fp: 0x18 }), WalkError::Expression { pc, source });
    }

    #[test]
    fn expressions_and_realigned_frames_are_walked_by_what_they_yield() {
        let code = odd_code();
        let mut memory = MemorySnapshot { start: STACK, words: vec![0; 16] };
        memory.words[2] = IN_ENTRY;
        // The realigned frame keeps its CFA in the word below the saved frame pointer.
        memory.words[6] = STACK + 14 * WORD;
        memory.words[7] = 0x123;
        memory.words[13] = ODD + 0x180;
        memory.words[15] = IN_ENTRY;
        let snapshot = code.snapshot();
        let registers = Registers { pc: ODD + 0x380, sp: STACK + WORD, fp: STACK + 7 * WORD };
        let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
        let realigned = walker.next_frame().unwrap().unwrap();
        assert_eq!(
            (realigned.cfa, realigned.return_slot),
            (STACK + 14 * WORD, Some(STACK + 13 * WORD))
        );
        // Where calls push return addresses, GCC's realigned frames have a packed rule.
        let from_fp = support::arch::CALL_PUSHES != 0;
        assert_eq!((realigned.cfa_from_fp, realigned.return_address), (from_fp, ODD + 0x180));
        let by_expression = walker.next_frame().unwrap().unwrap();
        assert_eq!((by_expression.fp, by_expression.fp_slot), (0x123, Some(STACK + 7 * WORD)));
        assert_eq!(
            (by_expression.cfa, by_expression.return_address),
            (STACK + 16 * WORD, IN_ENTRY)
        );
        assert_eq!(walker.next_frame().unwrap().unwrap().kind, FrameKind::Entry);
        assert!(walker.next_frame().unwrap().is_none());
    }

    #[test]
    fn a_stack_pointer_outside_of_the_stack_or_unaligned_is_refused() {
        let (memory, good) = stack();
        for sp in
            [STACK - WORD, memory.bounds().end + WORD, STACK + WORD / 2, 0, usize::MAX - (WORD - 1)]
        {
            for pc in [good.pc, ODD + 0x80] {
                assert_eq!(
                    first(Registers { pc, sp, fp: STACK + 4 * WORD }),
                    WalkError::StackPointer { pc, sp }
                );
            }
        }
    }

    #[test]
    fn a_cfa_that_does_not_go_up_is_refused() {
        let pc = ODD + 0x80;
        let sp = STACK + 8 * WORD;
        for fp in [STACK, STACK + 6 * WORD, usize::MAX - (2 * WORD - 1)] {
            let cfa = fp.wrapping_add(2 * WORD);
            assert_eq!(first(Registers { pc, sp, fp }), WalkError::NotIncreasing { pc, sp, cfa });
        }
    }

    #[test]
    fn a_cfa_above_the_stack_is_refused() {
        let pc = ODD + 0x80;
        let end = stack().0.bounds().end;
        assert_eq!(
            first(Registers { pc, sp: STACK, fp: end }),
            WalkError::OutOfBounds { pc, cfa: end + 2 * WORD }
        );
    }

    #[test]
    fn an_unaligned_cfa_is_refused() {
        let pc = ODD + 0x80;
        let fp = STACK + 4 * WORD + WORD / 2;
        let cfa = fp + 2 * WORD;
        assert_eq!(first(Registers { pc, sp: STACK, fp }), WalkError::Misaligned { pc, cfa });
    }

    #[test]
    fn a_slot_outside_of_the_stack_is_not_read() {
        let pc = ODD + 0x280;
        let address = STACK - WORD;
        assert_eq!(
            first(Registers { pc, sp: STACK, fp: 0 }),
            WalkError::Unreadable { pc, address }
        );
    }

    #[test]
    fn memory_that_ends_within_the_bounds_is_an_error_and_no_end() {
        let code = code();
        let (mut memory, registers) = stack();
        let bounds = memory.bounds();
        memory.words.truncate(13);
        let snapshot = code.snapshot();
        let mut walker = Walker::new(&snapshot, &memory, (), registers, bounds);
        walker.next_frame().unwrap();
        let error = walker.next_frame().unwrap_err();
        assert_eq!(error, WalkError::Unreadable { pc: IN_F1, address: STACK + 13 * WORD });
    }

    #[test]
    fn a_frame_pointer_that_contradicts_the_safepoint_is_refused() {
        let (memory, registers) = stack();
        for wrong in [registers.fp + WORD, registers.fp - WORD, 0, usize::MAX - WORD] {
            let wrong = Registers { fp: wrong, ..registers };
            let (by_table, by_cfi) = (STACK + 6 * WORD, wrong.fp.wrapping_add(2 * WORD));
            let code = code();
            let snapshot = code.snapshot();
            let mut walker = Walker::new(&snapshot, &memory, (), wrong, memory.bounds());
            let error = WalkError::Disagreement { pc: IN_F0, by_table, by_cfi };
            assert_eq!(walker.next_frame().unwrap_err(), error);
        }
    }
}

mod corrupt {
    use super::*;
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = usize> {
        prop_oneof![
            3 => prop::sample::select(vec![
                IN_F0, IN_F1, IN_F1 + 0x20, IN_ENTRY, CALLBACK + 8, CODE + 2, CODE + 0x50,
                ENTERED + 8, 0,
            ]),
            2 => (0..64_usize).prop_map(|word| STACK + word * WORD),
            1 => STUBS,
            1 => any::<usize>(),
        ]
    }

    proptest! {
        #[test]
        fn a_walk_over_any_words_ends_and_reads_only_the_stack(
            words in prop::collection::vec(word(), 0..64),
            pc in word(),
            sp in (0..70_usize).prop_map(|word| STACK - 2 * WORD + word * WORD),
            fp in word(),
        ) {
            let code = code();
            let memory = MemorySnapshot { start: STACK, words };
            let stubs = Stubs((0..256).map(|i| if i % 3 == 0 { IN_F1 } else { IN_F0 }).collect());
            let snapshot = code.snapshot();
            let registers = Registers { pc, sp, fp };
            let bounds = memory.bounds();
            let mut walker =
                Walker::new(&snapshot, Guarded(&memory), &stubs, registers, bounds.clone());
            let mut last = 0;
            for _ in 0..=memory.words.len() + 1 {
                match walker.next_frame() {
                    Ok(Some(frame)) => {
                        let oldest = frame.return_slot.is_none();
                        let up = frame.cfa > last || oldest && frame.cfa == bounds.end;
                        prop_assert!(up && frame.cfa <= bounds.end);
                        let in_frame = frame.sp..frame.cfa;
                        prop_assert!(frame.slots().all(|slot| in_frame.contains(&slot)));
                        last = frame.cfa;
                    }
                    Ok(None) | Err(_) => return Ok(()),
                }
            }
            prop_assert!(false, "the walk does not end");
        }
    }
}
