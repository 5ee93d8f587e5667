//! Stack maps of all kinds in a region, and how walks see them: Cranelift's, LLVM's with derived
//! pointers, a host's closure.

mod support;

use gimli::write::{
    Address, CallFrameInstruction as Cfi, EhFrame, EndianVec, FrameDescriptionEntry, FrameTable,
};
use gimli::{DW_EH_PE_pcrel, DW_EH_PE_sdata4, LittleEndian};
use proptest::prelude::*;
use stackmark_unwind::stack_map::{self, Location, Root, StackMap};
use stackmark_unwind::{
    Code, CodeError, MemorySnapshot, Region, RegionError, Registers, Safepoint, WalkError, Walker,
};
use support::arch::{CALLEE_SAVED, FP, W, WORD, bytes_of};
use support::{FUNCTION, eh_frame, region};

const START: usize = 0x10_0000;
const CALL: usize = START + 0x20;
const STACK: usize = 0x7000_0000;

/// One function with `maps` instead of a safepoint. Its frame is as Cranelift's, with four words
/// below the frame pointer.
fn with_maps(maps: Vec<StackMap>) -> Region {
    Region { stack_maps: maps, ..region(START, &[&[]]) }
}

fn map(cfa_offset: Option<u32>, roots: Vec<Root>) -> StackMap {
    StackMap { return_address: CALL, cfa_offset, roots }
}

fn stack(words: i32) -> Location {
    Location::Stack(words * W)
}

fn frame(words: i32) -> Location {
    Location::Frame(words * W)
}

/// The size of that frame, in bytes and as maps have it.
const SIZE: usize = 6 * WORD;
const KNOWN: Option<u32> = Some(bytes_of(6));

/// The roots and the slots of the one frame, as words of the stack.
fn walked(region: Region) -> (Vec<(usize, usize)>, Vec<usize>) {
    let code = Code::new();
    code.register(region).unwrap();
    let snapshot = code.snapshot();
    let memory = MemorySnapshot { start: STACK, words: vec![0; 64] };
    let registers = Registers { pc: CALL, sp: STACK, fp: STACK + 4 * WORD };
    let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
    let frame = walker.next_frame().unwrap().unwrap();
    assert_eq!(frame.cfa, STACK + SIZE);
    let word = |address: usize| (address - STACK) / WORD;
    let roots = frame.roots().map(|(base, derived)| (word(base), word(derived))).collect();
    (roots, frame.slots().map(word).collect())
}

fn refusal(region: Region) -> RegionError {
    match Code::new().register(region).unwrap_err() {
        CodeError::Region { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[test]
fn derived_pointers_come_with_their_bases_and_each_word_once() {
    let pairs = [(2, 3), (2, 2), (0, 0), (2, 1), (2, 3)];
    let roots = pairs.map(|(base, derived)| Root { base: stack(base), derived: stack(derived) });
    let (roots, slots) = walked(with_maps(vec![map(KNOWN, roots.to_vec())]));
    assert_eq!(roots, [(0, 0), (2, 1), (2, 2), (2, 3)]);
    assert_eq!(slots, [0, 2, 1, 3]);
}

/// As LLVM's JITs leave it: pointers are relative to where they lie, and the length of a function
/// stands in the CFI alone.
#[test]
fn cfi_that_is_relative_to_its_own_place_gives_rules_and_lengths() {
    const SECTION: usize = START + 0x8000;
    let mut cie = support::cie();
    cie.fde_address_encoding = gimli::DwEhPe(DW_EH_PE_pcrel.0 | DW_EH_PE_sdata4.0);
    let mut table = FrameTable::default();
    let cie = table.add_cie(cie);
    // The writer takes the section to lie at 0.
    let start = Address::Constant((START as u64).wrapping_sub(SECTION as u64));
    let mut entry = FrameDescriptionEntry::new(start, FUNCTION as u32);
    for (offset, instruction) in support::frame_record() {
        entry.add_instruction(offset, instruction);
    }
    table.add_fde(cie, entry);
    let mut section = EhFrame::from(EndianVec::new(LittleEndian));
    table.write_eh_frame(&mut section).unwrap();
    let maps = vec![map(KNOWN, vec![Root::plain(stack(1))])];
    let mut region = Region { eh_frame: section.0.into_vec(), ..with_maps(maps) };
    region.functions[0].len = 0;
    assert!(matches!(refusal(region.clone()), RegionError::Cfi(_)), "it is not absolute");
    region.eh_frame_address = SECTION;
    let code = Code::new();
    let id = code.register(region.clone()).unwrap();
    assert_eq!(code.range_of(id), Some(START..START + FUNCTION));
    assert_eq!(code.snapshot().function(START).unwrap().range, START..START + FUNCTION);
    code.unregister(id).unwrap();
    assert_eq!(code.range_of(id), None);
    assert_eq!(walked(region).0, [(1, 1)]);
}

#[test]
fn slots_relative_to_the_frame_pointer_are_those_relative_to_the_stack_pointer() {
    let (roots, _) = walked(with_maps(vec![map(KNOWN, vec![Root::plain(frame(-1))])]));
    assert_eq!(roots, [(3, 3)]);
    let mut plain = with_maps(vec![map(KNOWN, vec![Root::plain(frame(-1))])]);
    plain.eh_frame = eh_frame([(START, FUNCTION as u32, vec![(1, Cfi::CfaOffset(6 * W))])]);
    let refused = refusal(plain);
    assert!(matches!(refused, RegionError::SafepointLayout { .. }), "no frame pointer: {refused}");
}

#[test]
fn the_size_of_a_frame_is_taken_from_its_cfi_where_the_map_has_none() {
    let mut region =
        with_maps(vec![map(None, vec![Root::plain(stack(1)), Root::plain(frame(-1))])]);
    // By the frame pointer, at each walk.
    assert_eq!(walked(region.clone()).1, [1, 3]);
    let limited = Region { max_frame: KNOWN, ..region.clone() };
    let (function, limit) = ("f0".into(), bytes_of(6));
    let unknown = RegionError::FrameSizeUnknown { function, return_address: CALL, limit };
    assert_eq!(refusal(limited), unknown);
    region.eh_frame = eh_frame([(START, FUNCTION as u32, vec![(1, Cfi::CfaOffset(6 * W))])]);
    let refused = refusal(region.clone());
    assert!(matches!(refused, RegionError::SafepointLayout { .. }), "no frame pointer: {refused}");
    region.stack_maps[0].roots.pop();
    assert_eq!(walked(region).1, [1]);
}

/// A map without a CFA says by its roots how large the frame is at least.
#[test]
fn a_map_that_does_not_fit_into_the_frame_that_the_cfi_finds_is_refused() {
    let walk = |root: Location, fp: usize| {
        let code = Code::new();
        code.register(with_maps(vec![map(None, vec![Root::plain(root)])])).unwrap();
        let snapshot = code.snapshot();
        let memory = MemorySnapshot { start: STACK, words: vec![0; 64] };
        let registers = Registers { pc: CALL, sp: STACK, fp };
        let mut walker = Walker::new(&snapshot, &memory, (), registers, memory.bounds());
        walker.next_frame().map(|frame| {
            let frame = frame.unwrap();
            assert!(frame.slots().all(|slot| (frame.sp..frame.cfa).contains(&slot)));
            frame.cfa - STACK
        })
    };
    let refused = |by_table, by_cfi| Err(WalkError::Disagreement { pc: CALL, by_table, by_cfi });
    // The word below the saved frame pointer is the frame's highest.
    for words in [0, 3, 20] {
        let fp = STACK + (4 + words) * WORD;
        assert_eq!(walk(stack(3), fp), Ok(SIZE + words * WORD));
        assert_eq!(walk(frame(-4), fp), Ok(SIZE + words * WORD));
    }
    let fp = STACK + 4 * WORD;
    assert_eq!(walk(stack(5), fp), refused(STACK + 7 * WORD, STACK + SIZE));
    assert_eq!(walk(frame(-5), fp), refused(STACK + 7 * WORD, STACK + SIZE));
    assert_eq!(walk(stack(0), STACK - WORD), refused(STACK + 2 * WORD, STACK + WORD));
}

#[test]
fn a_frame_that_is_smaller_than_what_its_cfi_saves_in_it_is_refused() {
    let saved = vec![
        (1, Cfi::CfaOffset(2 * W)),
        (1, Cfi::Offset(FP, -2 * W)),
        (4, Cfi::CfaRegister(FP)),
        (8, Cfi::Offset(CALLEE_SAVED[1], -7 * W)),
    ];
    let mut region = with_maps(vec![map(KNOWN, vec![])]);
    region.eh_frame = eh_frame([(START, FUNCTION as u32, saved)]);
    let refused = refusal(region.clone());
    assert!(matches!(refused, RegionError::SafepointLayout { .. }), "{refused}");
    region.stack_maps[0].cfa_offset = Some(bytes_of(7));
    Code::new().register(region).unwrap();
}

#[test]
fn a_host_closure_gives_what_a_safepoint_would() {
    let source = |return_address: usize, each: &mut dyn FnMut(Root)| {
        for word in [1, 0] {
            each(Root::plain(stack(word)));
        }
        return_address == CALL
    };
    let from_host = with_maps(stack_map::from_source(&source, [(CALL, KNOWN), (CALL + 8, None)]));
    let mut given = region(START, &[&[]]);
    let slots = vec![0, bytes_of(1)];
    given.safepoints.push(Safepoint { return_address: CALL, cfa_offset: bytes_of(6), slots });
    assert_eq!(walked(from_host), walked(given));
}

#[test]
fn roots_that_walks_of_a_region_cannot_find_are_refused() {
    let in_register =
        with_maps(vec![map(KNOWN, vec![Root::plain(Location::Register(CALLEE_SAVED[1]))])]);
    assert_eq!(
        refusal(in_register),
        RegionError::RegisterRoot { function: "f0".into(), return_address: CALL }
    );
    for (location, slot) in [
        (stack(-1), i64::from(-W as u32)),
        (stack(5), 5 * i64::from(W)),
        (frame(-5), -i64::from(W)),
    ] {
        let refused =
            refusal(with_maps(vec![map(KNOWN, vec![Root { base: stack(0), derived: location }])]));
        assert_eq!(
            refused,
            RegionError::Slot { function: "f0".into(), return_address: CALL, slot }
        );
    }
    let mut twice = region(START, &[&[(0x20, bytes_of(4), &[])]]);
    twice.stack_maps = vec![map(KNOWN, vec![])];
    assert_eq!(
        refusal(twice),
        RegionError::SafepointTwice { function: "f0".into(), return_address: CALL }
    );
}

proptest! {
    /// Finds any number of safepoints, close together and far apart, with few and many distinct
    /// maps.
    #[test]
    fn every_safepoint_is_found_and_nothing_else(
        gaps in prop::collection::vec(prop_oneof![1..9_usize, 1..300_usize], 1..600),
        distinct in 1..500_usize,
    ) {
        let mut at = START;
        let safepoints: Vec<Safepoint> = gaps
            .iter()
            .enumerate()
            .map(|(i, gap)| {
                at += gap;
                let live = (0..32).filter(|slot| (i % distinct) >> slot & 1 != 0);
                let slots = live.map(bytes_of).collect();
                Safepoint { return_address: at, cfa_offset: bytes_of(34), slots }
            })
            .collect();
        let len = at - START;
        let mut region = region(START, &[]);
        region.len = len;
        region.eh_frame = eh_frame([(START, len as u32, vec![(0, Cfi::CfaOffset(34 * W))])]);
        region.functions.push(stackmark_unwind::Function {
            name: "f".into(),
            start: START,
            len,
            ..Default::default()
        });
        region.safepoints = safepoints.iter().rev().cloned().collect();
        let code = Code::new();
        code.register(region).unwrap();
        let snapshot = code.snapshot();
        let mut expected = safepoints.iter().peekable();
        for return_address in START..=START + len {
            let found = snapshot
                .safepoint(return_address)
                .map(|safepoint| safepoint.slots().collect::<Vec<_>>());
            let safepoint =
                expected.next_if(|safepoint| safepoint.return_address == return_address);
            let slots = safepoint.map(|safepoint| safepoint.slots.clone());
            prop_assert_eq!(found, slots, "{:#x}", return_address);
        }
        prop_assert_eq!(snapshot.safepoint_tables().0, safepoints.len());
    }
}
