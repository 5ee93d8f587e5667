//! Walks over stacks that a test writes word by word.

mod support;

use stackmark_unwind::{
    BarrierRefusal, Code, FrameKind, MemorySnapshot, NativeRule, Registers, ReturnAddresses, WalkError, Walker,
};
use support::{FUNCTION, region};

const STACK: usize = 0x7000_0000;
const CODE: usize = 0x10_0000;
const ENTRY: usize = 0x20_0000;
const CALLBACK: usize = 0x30_0000;
const STUBS: std::ops::Range<usize> = 0x40_0000..0x40_0800;

/// Stubs of 8 bytes, hijacked slots hold stub+1, the saved addresses by index.
struct Stubs(Vec<usize>);

impl ReturnAddresses for Stubs {
    fn original(&self, found: usize) -> Option<usize> {
        STUBS.contains(&found).then(|| self.0[(found - STUBS.start) / 8])
    }
}

/// Two managed functions, `f0` with a frame of 32 bytes and `f1` with one of 48, and the native ranges.
fn code() -> Code {
    let code = Code::new();
    code.register(region(CODE, &[&[(0x20, 32, &[0, 8])], &[(0x40, 48, &[16]), (0x60, 48, &[])]])).unwrap();
    code.register_native(ENTRY..ENTRY + 0x40, FrameKind::Entry, NativeRule::End).unwrap();
    code.register_native(CALLBACK..CALLBACK + 0x40, FrameKind::Callback, NativeRule::Fixed { cfa_offset: 24 })
        .unwrap();
    code
}

const IN_F0: usize = CODE + 0x20;
const IN_F1: usize = CODE + FUNCTION + 0x40;
const IN_ENTRY: usize = ENTRY + 0x10;

/// f0 called by f1 called by f1 called by the entry, whose frame has two words.
fn stack() -> (MemorySnapshot, Registers) {
    let at = |word: usize| STACK + word * 8;
    let mut words = vec![0; 6 + 8 + 8 + 2];
    // f0: 4 words, saved fp, return address.
    words[4] = at(6 + 6);
    words[5] = IN_F1;
    // f1: 6 words, saved fp, return address.
    words[12] = at(14 + 6);
    words[13] = IN_F1;
    words[20] = 0;
    words[21] = IN_ENTRY;
    (MemorySnapshot { start: STACK, words }, Registers { pc: IN_F0, sp: STACK, fp: at(4) })
}

fn walk<R: ReturnAddresses>(
    code: &Code,
    memory: &MemorySnapshot,
    returns: R,
    registers: Registers,
) -> Result<Vec<(FrameKind, usize, usize)>, WalkError> {
    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, memory, returns, registers, memory.bounds()).checked(true);
    let mut frames = Vec::new();
    while let Some(frame) = walker.next_frame()? {
        frames.push((frame.kind, frame.pc, (frame.cfa - STACK) / 8));
    }
    assert_eq!(walker.next_frame().map(|frame| frame.is_none()), Ok(true), "the end stays the end");
    Ok(frames)
}

#[test]
fn a_walk_goes_through_managed_frames_to_the_entry() {
    let code = code();
    let (memory, registers) = stack();
    let snapshot = code.snapshot();
    let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
    let f0 = walker.next_frame().unwrap().unwrap();
    assert_eq!((f0.kind, f0.pc, f0.sp, f0.cfa), (FrameKind::Managed, IN_F0, STACK, STACK + 48));
    assert_eq!((f0.fp, f0.fp_slot, f0.cfa_from_fp), (registers.fp, None, true));
    assert_eq!((f0.return_slot, f0.return_address, f0.hijacked), (Some(STACK + 40), IN_F1, false));
    assert_eq!(f0.slots().collect::<Vec<_>>(), [STACK, STACK + 8]);
    assert_eq!(f0.barrier_slot(), Ok(STACK + 40));
    let f1 = walker.next_frame().unwrap().unwrap();
    assert_eq!((f1.fp, f1.fp_slot), (STACK + 12 * 8, Some(STACK + 4 * 8)));
    assert_eq!(f1.slots().collect::<Vec<_>>(), [STACK + 48 + 16]);
    assert_eq!(walker.registers(), Registers { pc: IN_F1, sp: STACK + 14 * 8, fp: STACK + 20 * 8 });
    let oldest = walker.next_frame().unwrap().unwrap();
    assert_eq!(oldest.barrier_slot(), Err(BarrierRefusal::CallerNotSafepoint));
    let entry = walker.next_frame().unwrap().unwrap();
    assert_eq!((entry.kind, entry.pc, entry.return_slot), (FrameKind::Entry, IN_ENTRY, None));
    assert_eq!(entry.slots().len(), 0);
    assert_eq!(entry.barrier_slot(), Err(BarrierRefusal::Kind(FrameKind::Entry)));
    assert!(walker.next_frame().unwrap().is_none());
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
