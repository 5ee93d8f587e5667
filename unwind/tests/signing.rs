//! What is known of functions that sign their return addresses, by their CFI.
// Other processors do not sign.
#![cfg(target_arch = "aarch64")]

#[path = "support/programs.rs"]
mod programs;
mod support;
#[path = "support/this_thread.rs"]
mod this_thread;

use gimli::write::{
    Address, CallFrameInstruction as Cfi, EhFrame, EndianVec, Expression, FrameDescriptionEntry,
    FrameTable,
};
use gimli::{
    AArch64, BaseAddresses, CfaRule, DW_OP_lit0, DW_OP_lit1, LittleEndian, RegisterRule,
    UnwindContext, UnwindSection,
};
use proptest::prelude::*;
use stackmark_unwind::{
    CfiError, Code, CodeError, Region, RegionError, RegisterSet, RuleCache, Safepoint, Unwinder,
    WalkError,
};
use std::cell::Cell;
use support::{CFA, FUNCTION, eh_frame};

const START: usize = 0x10_0000;
/// Bytes of an instruction.
const STEP: usize = 4;

/// A function of this CFI, with a safepoint behind each of its instructions but the last.
fn region(instructions: Vec<(u32, Cfi)>) -> Region {
    let safepoint =
        |return_address| Safepoint { return_address, cfa_offset: CFA as u32, slots: vec![] };
    Region {
        eh_frame: eh_frame([(START, FUNCTION as u32, instructions)]),
        safepoints: (START + STEP..START + FUNCTION).step_by(STEP).map(safepoint).collect(),
        ..support::region(START, &[&[]])
    }
}

fn refused(region: Region) -> RegionError {
    match Code::new().register(region).unwrap_err() {
        CodeError::Region { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// As Cranelift says it.
fn set(signed: bool) -> Cfi {
    let mut expression = Expression::new();
    expression.op(if signed { DW_OP_lit1 } else { DW_OP_lit0 });
    Cfi::ValExpression(AArch64::RA_SIGN_STATE, expression)
}

#[derive(Clone, Debug)]
enum Says {
    Negate,
    Set(bool),
    /// What was in force at the matching `Remember`.
    Remember,
    Restore,
}

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        Just(Says::Negate),
        any::<bool>().prop_map(Says::Set),
        Just(Says::Remember),
        Just(Says::Restore),
    ]
}

proptest! {
    #[test]
    fn a_safepoint_knows_whether_the_return_address_is_signed_at_its_call(
        program in prop::collection::vec((1..6_u32, says()), 0..10),
    ) {
        let (mut at, mut signed, mut remembered) = (0, false, Vec::new());
        let mut expected = vec![false; FUNCTION / STEP];
        let mut instructions = Vec::new();
        for (more, says) in program {
            at += more * STEP as u32;
            let instruction = match says {
                Says::Negate => {
                    signed = !signed;
                    Cfi::NegateRaState
                }
                Says::Set(to) => {
                    signed = to;
                    set(to)
                }
                Says::Remember => {
                    remembered.push(signed);
                    Cfi::RememberState
                }
                Says::Restore => match remembered.pop() {
                    Some(was) => {
                        signed = was;
                        Cfi::RestoreState
                    }
                    None => continue,
                },
            };
            instructions.push((at, instruction));
            expected[at as usize / STEP..].fill(signed);
        }
        let code = Code::new();
        code.register(region(instructions)).expect("correct CFI");
        let snapshot = code.snapshot();
        for (i, expected) in expected.into_iter().take(FUNCTION / STEP - 1).enumerate() {
            let safepoint = snapshot.safepoint(START + (i + 1) * STEP).expect("registered");
            prop_assert_eq!(safepoint.return_is_signed(), expected, "instruction {}", i);
        }
    }
}

#[test]
fn a_function_that_signs_must_not_move_its_return_address() {
    let signing = || region(vec![(STEP as u32, Cfi::NegateRaState)]);
    let mut moves = signing();
    moves.functions[0].moves_return_address = true;
    let return_address = START + 2 * STEP;
    let error = refused(moves);
    assert_eq!(error, RegionError::SignedAndMoved { function: "f0".into(), return_address });
    Code::new().register(signing()).expect("it does not move");
}

#[test]
fn a_return_address_that_is_signed_with_a_pc_is_refused_by_name() {
    let mut region = region(vec![(STEP as u32, Cfi::NegateRaState)]);
    // DW_CFA_advance_loc, and the operation behind it.
    let at = region.eh_frame.windows(2).position(|two| two == [0x44, 0x2d]).expect("both");
    region.eh_frame[at + 1] = 0x2c;
    let error = refused(region);
    let named = matches!(
        error,
        RegionError::Cfi(CfiError::SignedWithPc { pc, .. }) if pc == START as u64
    );
    assert!(named, "{error:?}");
    assert!(error.to_string().contains("PAuth_LR"), "{error}");
}

#[test]
fn key_b_is_refused_by_name() {
    let mut region = region(vec![(STEP as u32, Cfi::NegateRaState)]);
    // The common entry of code that signs with key B has an augmentation for that, here in place
    // of the one for signal frames.
    let mut cie = support::cie();
    cie.signal_trampoline = true;
    region.eh_frame = support::eh_frame_with(cie, [(START, FUNCTION as u32, vec![])]);
    let at = region.eh_frame.windows(3).position(|text| text == b"zS\0").expect("an augmentation");
    region.eh_frame[at + 1] = b'B';
    let error = refused(region.clone());
    assert_eq!(error, RegionError::Cfi(CfiError::KeyB { offset: 0 }));
    // One that is not known at all is not called so.
    region.eh_frame[at + 1] = b'?';
    let error = refused(region);
    assert!(matches!(error, RegionError::Cfi(CfiError::Entry { .. })), "{error:?}");
}

/// Where a walk through all images of this process ends, from here on.
fn walk_to_the_error() -> Option<WalkError> {
    let (code, mut cache) = (Code::new(), RuleCache::new());
    code.refresh_images();
    let (snapshot, memory) = (code.snapshot(), this_thread::stack());
    let mut trace = Unwinder::new(&snapshot, &mut cache, &memory, (), RegisterSet::capture());
    loop {
        match trace.next_frame() {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => return Some(error),
        }
    }
}

thread_local! {
    static ERROR: Cell<Option<WalkError>> = const { Cell::new(None) };
}

#[test]
fn a_walk_through_a_library_of_key_b_says_so() {
    extern "C" fn walk() {
        ERROR.set(walk_to_the_error());
    }
    let directory = programs::Directory::new("key-b");
    directory.write("b.c", "void run(void (*f)(void)) { f(); __asm__ volatile(\"\"); }\n");
    let signs = |key: &str| {
        let flag = format!("-mbranch-protection={key}");
        let library = directory.load(&["-O2", &flag, "b.c"])?;
        // SAFETY: the library's function.
        let run = unsafe {
            std::mem::transmute::<usize, extern "C" fn(extern "C" fn())>(library.address("run"))
        };
        run(walk);
        Some(ERROR.take())
    };
    let (Some(key_a), Some(key_b)) = (signs("pac-ret"), signs("pac-ret+b-key")) else { return };
    assert_eq!(key_a, None);
    let Some(WalkError::Cfi { source: CfiError::KeyB { .. }, .. }) = key_b else {
        panic!("{key_b:?}")
    };
}

#[test]
fn a_sign_state_that_is_computed_is_refused() {
    let mut expression = Expression::new();
    expression.op_constu(2);
    let error = refused(region(vec![(
        STEP as u32,
        Cfi::ValExpression(AArch64::RA_SIGN_STATE, expression),
    )]));
    assert!(matches!(error, RegionError::Cfi(CfiError::Instructions { .. })), "{error:?}");
}

/// At each instruction of an epilogue: whether the frame is there, and whether the return address
/// is signed.
fn described(epilogue: &[u32]) -> Vec<(bool, bool)> {
    let end = FUNCTION - 2 * STEP;
    let begin = end - STEP * epilogue.len();
    let mut code = vec![0; FUNCTION];
    for (i, instruction) in epilogue.iter().enumerate() {
        code[begin + i * STEP..][..STEP].copy_from_slice(&instruction.to_le_bytes());
    }
    let mut entry = FrameDescriptionEntry::new(Address::Constant(START as u64), FUNCTION as u32);
    entry.add_instruction(STEP as u32, set(true));
    for (_, instruction) in support::frame_record() {
        entry.add_instruction(3 * STEP as u32, instruction);
    }
    stackmark_unwind::stack_map::cranelift::describe_epilogues(&mut entry, &code);
    let mut table = FrameTable::default();
    let cie = table.add_cie(support::cie());
    table.add_fde(cie, entry);
    let mut written = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut written).expect("correct CFI");
    let bytes = written.0.into_vec();
    let mut section = gimli::EhFrame::new(&bytes, LittleEndian);
    section.set_vendor(gimli::Vendor::AArch64);
    let bases = BaseAddresses::default();
    let row = |at: usize| {
        let (pc, mut context) = ((START + at) as u64, UnwindContext::new());
        let cie = gimli::EhFrame::cie_from_offset;
        let row = section.unwind_info_for_address(&bases, &mut context, pc, cie).expect("a row");
        let Some(RegisterRule::ValExpression(signed)) = row.register(AArch64::RA_SIGN_STATE) else {
            panic!("no sign state at {at:#x}");
        };
        let signed = signed.get(&section).expect("an expression").0.slice()[0] == DW_OP_lit1.0;
        let by_fp = matches!(row.cfa(), CfaRule::RegisterAndOffset { register, .. }
            if *register == AArch64::X29);
        (by_fp, signed)
    };
    assert_eq!((row(begin - STEP), row(end)), ((true, true), (true, true)), "the body");
    (begin..end).step_by(STEP).map(row).collect()
}

#[test]
fn epilogues_of_cranelift_that_check_the_return_address_are_described() {
    const LOAD: u32 = 0xa8c1_7bfd;
    const CHECK: u32 = 0xd503_23bf;
    const RETURN: u32 = 0xd65f_03c0;
    const CHECK_AND_RETURN: u32 = 0xd65f_0bff;
    assert_eq!(described(&[LOAD, CHECK_AND_RETURN]), [(true, true), (false, true)]);
    assert_eq!(described(&[LOAD, CHECK, RETURN]), [(true, true), (false, true), (false, false)]);
}
