//! Stack maps: blobs in LLVM's form, written by hand and broken, and the tables that all maps are
//! kept in.

#[path = "support/arch.rs"]
mod arch;

use arch::{CALLEE_SAVED, FP, SCRATCH, SP, W, WORD, bytes_of};
use proptest::prelude::*;
use stackmark_unwind::stack_map::llvm::{self, LlvmError, Value};
use stackmark_unwind::stack_map::{
    Location, Root, StackMap, StackMapError, StackMapSource, StackMaps,
};

/// Kind, size, register and number of a location.
type RawLocation = (u8, u16, u16, i32);

/// One blob: a function at `address` with a frame of `stack_size`, and its records as offset and
/// locations.
fn blob(address: u64, stack_size: u64, records: &[(u32, &[RawLocation])]) -> Vec<u8> {
    let mut bytes = vec![3, 0, 0, 0];
    bytes.extend([1, 1, records.len() as u32].map(u32::to_le_bytes).concat());
    bytes.extend([address, stack_size, records.len() as u64].map(u64::to_le_bytes).concat());
    bytes.extend(0x1234_5678_9abc_u64.to_le_bytes());
    for (offset, locations) in records {
        bytes.extend(0xabcd_ef00_u64.to_le_bytes());
        bytes.extend(offset.to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend((locations.len() as u16).to_le_bytes());
        for (kind, size, register, number) in *locations {
            bytes.extend([*kind, 0]);
            bytes.extend([*size, *register, 0].map(u16::to_le_bytes).concat());
            bytes.extend(number.to_le_bytes());
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend([0; 8]);
    }
    bytes
}

const CALL: RawLocation = (4, 8, 0, 0);

/// A word of the stack that is spilled to.
const fn spilled(words: i32) -> RawLocation {
    (3, WORD as u16, SP.0, words * W)
}

/// A callee-saved register.
const KEPT: RawLocation = (1, WORD as u16, CALLEE_SAVED[1].0, 0);

#[test]
fn blobs_that_were_linked_together_are_read_one_after_the_other() {
    let in_memory =
        [CALL, CALL, (4, 8, 0, 1), (5, 8, 0, 0), spilled(2), spilled(2), spilled(1), spilled(3)];
    let in_registers = [
        CALL,
        CALL,
        CALL,
        KEPT,
        KEPT,
        (4, 8, 0, 0),
        (4, 8, 0, 0),
        (3, 2 * WORD as u16, FP.0, -4 * W),
        (3, 2 * WORD as u16, FP.0, -4 * W),
    ];
    let mut section = blob(0x1000, 56, &[(0x20, &in_memory), (0x30, &[CALL, CALL, CALL])]);
    section.extend(blob(0x2000, u64::MAX, &[(0x10, &in_registers)]));
    let records = llvm::records(&section).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(
        (records[0].return_address, records[0].stack_size, records[0].id),
        (0x1020, Some(56), 0xabcd_ef00)
    );
    assert_eq!(records[0].values[3], Value::Constant(0x1234_5678_9abc));
    let map = records[0].statepoint().unwrap();
    let derived = Root { base: Location::Stack(W), derived: Location::Stack(3 * W) };
    assert_eq!(map.roots, [Root::plain(Location::Stack(2 * W)), derived]);
    assert_eq!(map.cfa_offset, None, "the stack size leaves out what calls push");
    assert_eq!(records[1].statepoint().unwrap().roots, []);
    assert_eq!(llvm::stack_maps(&section).unwrap()[0], Ok(map));
    let map = records[2].statepoint().unwrap();
    let kept = Location::Register(CALLEE_SAVED[1]);
    let roots = [kept, Location::Frame(-4 * W), Location::Frame(-3 * W)].map(Root::plain);
    assert_eq!((map.roots.as_slice(), map.cfa_offset), (&roots[..], None));
    let table = StackMaps::new(records.iter().map(|record| record.statepoint().unwrap())).unwrap();
    assert_eq!(table.get(0x2010).unwrap().roots().collect::<Vec<_>>(), roots);
}

#[test]
fn what_is_no_stack_map_is_refused_with_its_place() {
    let section = blob(0x1000, 56, &[(0x20, &[CALL, CALL, CALL])]);
    for len in 1..section.len() {
        assert_eq!(llvm::records(&section[..len]), Err(LlvmError::Truncated { offset: len }));
    }
    assert_eq!(llvm::records(&[2]), Err(LlvmError::Version { offset: 0, version: 2 }));
    assert_eq!(
        llvm::records(&blob(0, 0, &[(0, &[(6, 8, 0, 0)])])),
        Err(LlvmError::Location { offset: 64 })
    );
    assert_eq!(
        llvm::records(&blob(0, 0, &[(0, &[(5, 8, 0, 1)])])),
        Err(LlvmError::Location { offset: 64 })
    );
    let statepoint = |locations: &[RawLocation]| {
        llvm::records(&blob(0x10, 0, &[(4, locations)])).unwrap()[0].statepoint()
    };
    let return_address = 0x14;
    assert_eq!(statepoint(&[CALL]), Err(LlvmError::NoStatepoint { return_address }));
    assert_eq!(
        statepoint(&[CALL, CALL, CALL, CALL]),
        Err(LlvmError::NoStatepoint { return_address })
    );
    let (word, half) = (WORD as u16, WORD as u16 / 2);
    let odd: [RawLocation; 5] = [
        (1, half, CALLEE_SAVED[1].0, 0),
        (3, word - 1, SP.0, 0),
        (3, word, SCRATCH.0, 0),
        (4, 8, 0, 1),
        (2, word, SP.0, 0),
    ];
    for odd in odd {
        let result = statepoint(&[CALL, CALL, CALL, spilled(0), odd]);
        assert_eq!(result, Err(LlvmError::Root { return_address }), "{odd:?}");
    }
    // An address in a register that is no pointer to the frame.
    let odd = statepoint(&[CALL, CALL, CALL, (2, word, SCRATCH.0, 0)]);
    assert_eq!(odd, Err(LlvmError::Root { return_address }));
}

#[test]
fn a_pointer_derived_from_a_constant_is_an_error_of_its_record_alone() {
    let spilled = spilled(2);
    let section = blob(
        0x1000,
        56,
        &[
            (0x20, &[CALL, CALL, CALL, spilled, spilled]),
            (0x30, &[CALL, CALL, CALL, CALL, spilled]),
            (0x40, &[CALL]),
            (0x50, &[CALL, CALL, CALL, spilled, spilled]),
        ],
    );
    let maps = llvm::stack_maps(&section).unwrap();
    assert_eq!(maps[1], Err(LlvmError::Root { return_address: 0x1030 }));
    assert_eq!(maps[2], Err(LlvmError::NoStatepoint { return_address: 0x1040 }));
    for (map, return_address) in [(&maps[0], 0x1020), (&maps[3], 0x1050)] {
        let roots = vec![Root::plain(Location::Stack(2 * W))];
        assert_eq!(*map, Ok(StackMap { return_address, cfa_offset: None, roots }));
    }
}

#[test]
fn allocas_are_single_words_behind_the_pairs() {
    let roots = |locations: &[RawLocation]| {
        let values = [&[CALL, CALL, CALL][..], locations].concat();
        let map = llvm::records(&blob(0x10, 0, &[(4, &values)])).unwrap()[0].statepoint();
        map.map(|map| map.roots)
    };
    let alloca = |words: i32| (2, WORD as u16, SP.0, words * W);
    let (base, derived) = (spilled(1), spilled(2));
    let stack = |words: i32| Location::Stack(words * W);
    let plain = |words: i32| Root::plain(stack(words));
    let pair = Root { base: stack(1), derived: stack(2) };
    assert_eq!(roots(&[alloca(3)]), Ok(vec![plain(3)]));
    assert_eq!(roots(&[alloca(3), alloca(4)]), Ok(vec![plain(3), plain(4)]));
    assert_eq!(roots(&[base, derived, alloca(3)]), Ok(vec![plain(3), pair]));
    assert_eq!(roots(&[base, derived, alloca(3), alloca(4)]), Ok(vec![plain(3), plain(4), pair]));
    // One that the program relocates is in a pair as well.
    assert_eq!(roots(&[alloca(3), derived, alloca(3)]), Ok(vec![plain(3)]));
    assert_eq!(roots(&[alloca(3), alloca(3), alloca(3)]), Ok(vec![plain(3)]));
}

fn location() -> impl Strategy<Value = Location> {
    let words = || prop_oneof![4 => -4..64_i32, 1 => -100_000..100_000_i32];
    prop_oneof![
        6 => words().prop_map(|words| Location::Stack(words * W)),
        1 => words().prop_map(|words| Location::Frame(words * W)),
        1 => (0..16_u16).prop_map(|number| Location::Register(gimli::Register(number))),
    ]
}

fn root() -> impl Strategy<Value = Root> {
    (location(), prop::option::weighted(0.1, location()))
        .prop_map(|(base, derived)| Root { base, derived: derived.unwrap_or(base) })
}

proptest! {
    #[test]
    fn compact_maps_say_what_went_into_them(
        maps in prop::collection::btree_map(
            0x1000..0x10_0000_usize,
            (prop::option::of(0..1000_u32), prop::collection::vec(root(), 0..6)),
            0..200,
        ),
    ) {
        let maps: Vec<StackMap> = maps
            .into_iter()
            .map(|(return_address, (words, roots))| {
                let cfa_offset = words.map(bytes_of);
                StackMap { return_address, cfa_offset, roots }
            })
            .collect();
        let table = StackMaps::new(maps.iter().rev().cloned()).unwrap();
        prop_assert_eq!(table.len(), maps.len());
        for map in &maps {
            let found = table.get(map.return_address).unwrap();
            prop_assert_eq!(found.cfa_offset(), map.cfa_offset);
            prop_assert_eq!(&found.roots().collect::<Vec<_>>(), &map.roots);
            let neighbour = map.return_address + 1;
            let known = maps.iter().any(|map| map.return_address == neighbour);
            prop_assert_eq!(table.get(neighbour).is_some(), known);
        }
        prop_assert!(table.get(0).is_none() && table.get(usize::MAX).is_none());
    }

    #[test]
    fn broken_sections_are_refused_or_read_and_never_a_panic(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let values = [CALL, CALL, CALL, spilled(2), spilled(2), KEPT, KEPT];
        let mut section = blob(0x1000, 56, &[(0x20, &values), (0x30, &values)]);
        section.extend(section.clone());
        for (at, byte) in mutations {
            let at = at.index(section.len());
            section[at] = byte;
        }
        section.truncate(cut.index(section.len() * 2).max(1));
        for record in llvm::records(&section).unwrap_or_default() {
            let _ = record.statepoint();
        }
    }
}

#[test]
fn safepoints_take_a_few_bytes_each() {
    // Maps as a compiler makes them: many calls, few distinct sets of slots.
    let maps = (0..10_000_usize).map(|i| StackMap {
        return_address: 0x40_0000 + i * 23,
        cfa_offset: Some(bytes_of(8 + (i / 8 % 20) as u32)),
        roots: (0..i / 8 % 5).map(|slot| Root::plain(Location::Stack(slot as i32 * W))).collect(),
    });
    let table = StackMaps::new(maps).unwrap();
    let bytes = table.bytes() as f64 / table.len() as f64;
    println!("figure stack_map_bytes_per_safepoint {bytes:.2} B");
    assert!(bytes < 6.0, "{bytes}");
}

#[test]
fn impossible_maps_are_refused() {
    let map = StackMap {
        return_address: 0x10,
        cfa_offset: Some(bytes_of(2)),
        roots: vec![Root::plain(Location::Stack(W / 2))],
    };
    let plain = StackMap { roots: vec![], ..map.clone() };
    let return_address = 0x10;
    assert_eq!(StackMaps::new([map]), Err(StackMapError::Unaligned { return_address }));
    assert_eq!(
        StackMaps::new([plain.clone(), plain]),
        Err(StackMapError::Twice { return_address })
    );
}

#[test]
fn a_closure_of_the_host_serves_as_stack_maps() {
    let closure = |return_address: usize, each: &mut dyn FnMut(Root)| {
        each(Root::plain(Location::Stack(W)));
        return_address == 0x10
    };
    let mut roots = Vec::new();
    let source: &dyn StackMapSource = &closure;
    assert!(source.roots(0x10, &mut |root| roots.push(root)));
    assert_eq!(roots, [Root::plain(Location::Stack(W))]);
}
