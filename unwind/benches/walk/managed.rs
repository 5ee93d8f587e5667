//! Walks over managed frames at safepoints, as a collector does them: a stack of one function, and
//! one of 1,024 functions in random order.

use std::hint::black_box;
use std::time::Instant;

use gimli::write::{
    Address, CallFrameInstruction as Cfi, CommonInformationEntry, EhFrame, EndianVec,
    FrameDescriptionEntry, FrameTable,
};
use gimli::{Encoding, Format, LittleEndian, X86_64};
use stackmark_unwind::{
    Code, FrameKind, Function, LiveMemory, NativeRule, Region, Registers, Safepoint, Walker,
};

const CODE: usize = 0x7000_0000_0000;
const ENTRY: usize = 0x7000_1000_0000;
const FUNCTIONS: usize = 1024;
const FUNCTION: usize = 0x100;
const FRAMES: usize = 100_000;
const WORDS: usize = 6;
/// Calls in a function. The number is usual for this many bytes of code.
const CALLS: usize = 8;

/// Where a function's call number `call` returns to.
fn return_offset(call: usize) -> usize {
    0x18 + call * 0x1c
}

fn code() -> Code {
    let encoding = Encoding { format: Format::Dwarf32, version: 1, address_size: 8 };
    let mut cie = CommonInformationEntry::new(encoding, 1, -8, X86_64::RA);
    cie.add_instruction(Cfi::Cfa(X86_64::RSP, 8));
    cie.add_instruction(Cfi::Offset(X86_64::RA, -8));
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    for i in 0..FUNCTIONS {
        let mut fde = FrameDescriptionEntry::new(
            Address::Constant((CODE + i * FUNCTION) as u64),
            FUNCTION as u32,
        );
        fde.add_instruction(1, Cfi::CfaOffset(16));
        fde.add_instruction(1, Cfi::Offset(X86_64::RBP, -16));
        fde.add_instruction(4, Cfi::CfaRegister(X86_64::RBP));
        table.add_fde(cie, fde);
    }
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut section).expect("CFI");
    let at = |i: usize| CODE + i * FUNCTION;
    let code = Code::new();
    code.register(Region {
        name: "managed".into(),
        start: CODE,
        len: FUNCTIONS * FUNCTION,
        eh_frame: section.0.into_vec(),
        functions: (0..FUNCTIONS)
            .map(|i| Function {
                name: format!("f{i}"),
                start: at(i),
                len: FUNCTION,
                ..Function::default()
            })
            .collect(),
        safepoints: (0..FUNCTIONS)
            .flat_map(|i| (0..CALLS).map(move |call| (at(i) + return_offset(call), call)))
            .map(|(return_address, call)| {
                // What is live differs from call to call.
                let slots = if call == 0 {
                    vec![0, 8]
                } else {
                    (0..call as u32 % 4).map(|slot| slot * 8).collect()
                };
                Safepoint { return_address, cfa_offset: WORDS as u32 * 8, slots }
            })
            .collect(),
        max_frame: None,
        ..Region::default()
    })
    .expect("a correct region");
    code.register_native(ENTRY..ENTRY + 64, FrameKind::Entry, NativeRule::End).expect("a range");
    code
}

/// Bytes that the tables take for a safepoint.
pub(crate) fn safepoint_bytes() -> f64 {
    let (count, bytes) = code().snapshot().safepoint_tables();
    bytes as f64 / count as f64
}

/// Nanoseconds a frame, for one function and for many: frame by frame, in a row, and along the
/// frame pointers alone.
pub(crate) fn measure(rounds: usize) -> [[f64; 3]; 2] {
    let code = code();
    [1, FUNCTIONS].map(|functions| {
        let mut state = 1_u64;
        let mut stack = vec![0_usize; FRAMES * WORDS + 2];
        let base = stack.as_ptr() as usize;
        for frame in 0..FRAMES {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            let next = (state >> 33) as usize % functions;
            stack[frame * WORDS + WORDS - 2] = base + (frame * WORDS + 2 * WORDS - 2) * 8;
            let last = frame + 1 == FRAMES;
            stack[frame * WORDS + WORDS - 1] =
                if last { ENTRY + 16 } else { CODE + next * FUNCTION + return_offset(0) };
        }
        let bounds = base..base + stack.len() * 8;
        let registers =
            Registers { pc: CODE + return_offset(0), sp: base, fp: base + (WORDS - 2) * 8 };
        let frame_by_frame = || {
            let snapshot = code.snapshot();
            // SAFETY: the vector, which stays in place.
            let memory = unsafe { LiveMemory::new(bounds.clone()) };
            let mut walker = Walker::new(&snapshot, &memory, (), registers, bounds.clone());
            let (mut slots, mut frames) = (0, 0);
            while let Some(frame) = walker.next_frame().expect("a whole stack") {
                slots += frame.slots().sum::<usize>();
                frames += 1;
            }
            (frames, slots)
        };
        let in_a_row = || {
            let snapshot = code.snapshot();
            // SAFETY: as above.
            let memory = unsafe { LiveMemory::new(bounds.clone()) };
            let mut walker = Walker::new(&snapshot, &memory, (), registers, bounds.clone());
            let (mut slots, mut frames) = (0, 0);
            loop {
                frames += walker.pass_safepoints(usize::MAX, u64::MAX, |safepoint, sp, fp| {
                    slots += safepoint.slots_at(sp, fp).sum::<usize>();
                });
                if walker.next_frame().expect("a whole stack").is_none() {
                    return (frames as usize, slots);
                }
                frames += 1;
            }
        };
        let along_frame_pointers = || {
            let (mut fp, mut sum) = (registers.fp as *const usize, 0);
            for _ in 0..FRAMES {
                // SAFETY: the frames keep a frame pointer each.
                unsafe {
                    sum ^= *fp.add(1);
                    fp = *fp as *const usize;
                }
            }
            // The oldest frame has none.
            (FRAMES + 1, sum)
        };
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            let walks: [&dyn Fn() -> (usize, usize); 3] =
                [&frame_by_frame, &in_a_row, &along_frame_pointers];
            for (walk, times) in walks.into_iter().zip(&mut times) {
                let begun = Instant::now();
                let (frames, sum) = walk();
                times.push(begun.elapsed().as_nanos() as f64 / FRAMES as f64);
                assert_eq!(frames, FRAMES + 1);
                black_box(sum);
            }
        }
        times.map(|mut times| super::median(&mut times))
    })
}
