//! LLVM's stack maps: blobs written by hand, broken blobs, and blobs of code that LLVM compiles and
//! this test runs.
// Its programs call by assembly for x86-64.
#![cfg(target_arch = "x86_64")]

#[path = "support/llvm.rs"]
mod support;

use std::cell::RefCell;

use gimli::X86_64;
use proptest::prelude::*;
use stackmark_unwind::stack_map::llvm::{self, LlvmError, Value};
use stackmark_unwind::stack_map::{
    Location, Root, StackMap, StackMapError, StackMapSource, StackMaps,
};
use stackmark_unwind::{Code, LiveMemory, Memory, RegisterSet, RuleCache, Unwinder};
use support::{Library, Tools};

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

#[test]
fn blobs_that_were_linked_together_are_read_one_after_the_other() {
    let spilled = [
        CALL,
        CALL,
        (4, 8, 0, 1),
        (5, 8, 0, 0),
        (3, 8, 7, 16),
        (3, 8, 7, 16),
        (3, 8, 7, 8),
        (3, 8, 7, 24),
    ];
    let in_registers = [
        CALL,
        CALL,
        CALL,
        (1, 8, 3, 0),
        (1, 8, 3, 0),
        (4, 8, 0, 0),
        (4, 8, 0, 0),
        (3, 16, 6, -32),
        (3, 16, 6, -32),
    ];
    let mut section = blob(0x1000, 56, &[(0x20, &spilled), (0x30, &[CALL, CALL, CALL])]);
    section.extend(blob(0x2000, u64::MAX, &[(0x10, &in_registers)]));
    let records = llvm::records(&section).unwrap();
    assert_eq!(records.len(), 3);
    assert_eq!(
        (records[0].return_address, records[0].stack_size, records[0].id),
        (0x1020, Some(56), 0xabcd_ef00)
    );
    assert_eq!(records[0].values[3], Value::Constant(0x1234_5678_9abc));
    let map = records[0].statepoint().unwrap();
    let derived = Root { base: Location::Stack(8), derived: Location::Stack(24) };
    assert_eq!(map.roots, [Root::plain(Location::Stack(16)), derived]);
    assert_eq!(map.cfa_offset, None, "the stack size leaves out what calls push");
    assert_eq!(records[1].statepoint().unwrap().roots, []);
    assert_eq!(llvm::stack_maps(&section).unwrap()[0], Ok(map));
    let map = records[2].statepoint().unwrap();
    let roots = [Location::Register(X86_64::RBX), Location::Frame(-32), Location::Frame(-24)]
        .map(Root::plain);
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
    for odd in [(1, 4, 3, 0), (3, 7, 7, 0), (3, 8, 0, 0), (4, 8, 0, 1), (2, 8, 7, 0)] {
        let result = statepoint(&[CALL, CALL, CALL, (3, 8, 7, 0), odd]);
        assert_eq!(result, Err(LlvmError::Root { return_address }), "{odd:?}");
    }
    // An address in a register that is no pointer to the frame.
    let odd = statepoint(&[CALL, CALL, CALL, (2, 8, 0, 0)]);
    assert_eq!(odd, Err(LlvmError::Root { return_address }));
}

#[test]
fn a_pointer_derived_from_a_constant_is_an_error_of_its_record_alone() {
    let spilled = (3, 8, 7, 16);
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
        let roots = vec![Root::plain(Location::Stack(16))];
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
    let alloca = |words: i32| (2, 8, 7, words * 8);
    let (base, derived) = ((3, 8, 7, 8), (3, 8, 7, 16));
    let stack = |words: i32| Location::Stack(words * 8);
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
        6 => words().prop_map(|words| Location::Stack(words * 8)),
        1 => words().prop_map(|words| Location::Frame(words * 8)),
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
                let cfa_offset = words.map(|words| words * 8);
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
        let spilled = [CALL, CALL, CALL, (3, 8, 7, 16), (3, 8, 7, 16), (1, 8, 3, 0), (1, 8, 3, 0)];
        let mut section = blob(0x1000, 56, &[(0x20, &spilled), (0x30, &spilled)]);
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
        cfa_offset: Some(64 + (i / 8 % 20 * 8) as u32),
        roots: (0..i / 8 % 5).map(|slot| Root::plain(Location::Stack(slot as i32 * 8))).collect(),
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
        cfa_offset: Some(16),
        roots: vec![Root::plain(Location::Stack(4))],
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
        each(Root::plain(Location::Stack(8)));
        return_address == 0x10
    };
    let mut roots = Vec::new();
    let source: &dyn StackMapSource = &closure;
    assert!(source.roots(0x10, &mut |root| roots.push(root)));
    assert_eq!(roots, [Root::plain(Location::Stack(8))]);
}

const PROGRAM: &str = r#"
define i64 @leaf(void ()* %look, i64 addrspace(1)* %a, i64 addrspace(1)* %b)
    #0 gc "statepoint-example" {
  call void %look()
  %x = load i64, i64 addrspace(1)* %a
  %y = load i64, i64 addrspace(1)* %b
  %s = sub i64 %x, %y
  ret i64 %s
}
define i64 @work(void ()* %look, i64 addrspace(1)* %a, i64 addrspace(1)* %b)
    #0 gc "statepoint-example" {
  %r = call i64 @leaf(void ()* %look, i64 addrspace(1)* %b, i64 addrspace(1)* %a)
  %p = getelementptr i64, i64 addrspace(1)* %a, i64 1
  %x = load i64, i64 addrspace(1)* %p
  %t = add i64 %x, %r
  ret i64 %t
}
attributes #0 = { noinline uwtable }
"#;

/// The state of the collection in the middle of the program, and the number of roots that it found.
struct Collection {
    code: Code,
    maps: StackMaps,
    /// From where each object moves, and to where.
    moves: Vec<(usize, usize)>,
    visited: usize,
}

thread_local! {
    static COLLECTION: RefCell<Option<Collection>> = const { RefCell::new(None) };
}

// Saves all callee-saved registers, so that the program's values in them stand in memory during the
// collection.
std::arch::global_asm!(
    ".globl stackmark_test_look",
    "stackmark_test_look:",
    ".cfi_startproc",
    "push rbx\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset rbx, 0",
    "push rbp\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset rbp, 0",
    "push r12\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset r12, 0",
    "push r13\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset r13, 0",
    "push r14\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset r14, 0",
    "push r15\n .cfi_adjust_cfa_offset 8\n .cfi_rel_offset r15, 0",
    "sub rsp, 8\n .cfi_adjust_cfa_offset 8",
    "call {collect}",
    "add rsp, 8\n .cfi_adjust_cfa_offset -8",
    "pop r15\n .cfi_adjust_cfa_offset -8\n .cfi_restore r15",
    "pop r14\n .cfi_adjust_cfa_offset -8\n .cfi_restore r14",
    "pop r13\n .cfi_adjust_cfa_offset -8\n .cfi_restore r13",
    "pop r12\n .cfi_adjust_cfa_offset -8\n .cfi_restore r12",
    "pop rbp\n .cfi_adjust_cfa_offset -8\n .cfi_restore rbp",
    "pop rbx\n .cfi_adjust_cfa_offset -8\n .cfi_restore rbx",
    "ret",
    ".cfi_endproc",
    collect = sym collect,
);

unsafe extern "C" {
    #[link_name = "stackmark_test_look"]
    safe fn look();
}

/// Moves the objects, as a collector would.
extern "C" fn collect() {
    COLLECTION.with_borrow_mut(|collection| {
        let Collection { code, maps, moves, visited } = collection.as_mut().unwrap();
        let context = RegisterSet::capture();
        let snapshot = code.snapshot();
        let mut cache = RuleCache::new();
        // SAFETY: the part of this thread's stack above this frame, as far as this test's frames
        // can reach.
        let memory = unsafe { LiveMemory::new(context.sp()..context.sp() + 4096) };
        let mut trace = Unwinder::new(&snapshot, &mut cache, memory.clone(), (), context);
        let mut slots = Vec::new();
        while trace.next_frame().is_ok_and(|frame| frame.is_some()) {
            // The frame at which the trace stands now, with its registers.
            let register = |register| trace.register(register).unwrap();
            let Some(map) = maps.get(register(X86_64::RA)) else { continue };
            for root in map.roots() {
                assert_eq!(root.base, root.derived);
                let (sp, fp) = (register(X86_64::RSP), register(X86_64::RBP));
                slots.push(
                    root.base.address(sp, fp, |register| trace.register_slot(register)).unwrap(),
                );
            }
        }
        // Several frames share a slot if none of them changed the register.
        slots.sort_unstable();
        slots.dedup();
        *visited += slots.len();
        for slot in slots {
            let old = memory.read(slot).unwrap();
            let (_, new) = moves
                .iter()
                .find(|(from, _)| *from == old)
                .expect("a reference to one of the objects");
            // SAFETY: the slot is one of the program's, which is stopped in a call and expects it
            // to change.
            unsafe { *(slot as *mut usize) = *new };
        }
    });
}

/// Compiles, loads and runs the program with these options for `llc`. Yields the number of roots
/// that the collection visited.
fn run(name: &str, options: &[&str]) -> Option<usize> {
    let library = support::load(name, PROGRAM, options)?;
    let maps = llvm::stack_maps(library.stack_maps).unwrap();
    let maps = StackMaps::new(maps.into_iter().map(Result::unwrap)).unwrap();
    assert_eq!(maps.len(), 2);
    let work = library.address("work");

    let (old, new) = ([[1_u64, 2], [3, 4]], [[100_u64, 200], [3000, 4000]]);
    let moves = (0..2).map(|i| (old[i].as_ptr() as usize, new[i].as_ptr() as usize)).collect();
    let code = Code::new();
    code.refresh_images();
    COLLECTION.set(Some(Collection { code, maps, moves, visited: 0 }));
    // SAFETY: the program's own type.
    let work = unsafe {
        std::mem::transmute::<usize, extern "C" fn(extern "C" fn(), *const u64, *const u64) -> u64>(
            work,
        )
    };
    let result = work(look, old[0].as_ptr(), old[1].as_ptr());
    assert_eq!(result, 200 + (3000 - 100), "the program saw the objects at their new places");
    Some(COLLECTION.take().unwrap().visited)
}

#[test]
fn a_program_of_llvm_sees_its_objects_move() {
    if let Some(visited) = run("spilled", &[]) {
        assert!(visited >= 3, "two in the leaf, one in its caller: {visited}");
    }
}

#[test]
fn references_in_callee_saved_registers_are_found_where_younger_frames_saved_them() {
    let options = ["--fixup-allow-gcptr-in-csr", "-max-registers-for-gc-values=4"];
    if let Some(visited) = run("registers", &options) {
        assert!(visited >= 3, "two in the leaf, one in its caller: {visited}");
    }
}

/// The library of three objects: two with the function `inline` in a COMDAT group, with so many
/// parameters, and one with what they call.
fn with_inline_functions(tools: &Tools, name: &str, parameters: [usize; 2]) -> Option<Library> {
    let reference = if tools.opaque_pointers { "ptr addrspace(1)" } else { "i8 addrspace(1)*" };
    let object = |own: &str, count: usize| {
        let names: Vec<String> = (0..count).map(|i| format!("{reference} %p{i}")).collect();
        let uses: String = names.iter().map(|p| format!("  call void @take({p})\n")).collect();
        let (names, given) = (names.join(", "), vec![format!("{reference} %p"); count].join(", "));
        format!(
            "$inline = comdat any
declare void @callee()
declare void @take({reference})
define linkonce_odr void @inline({names}) noinline comdat gc \"statepoint-example\" {{
  call void @callee()
{uses}  ret void
}}
define void @{own}({reference} %p) gc \"statepoint-example\" {{
  call void @inline({given})
  call void @take({reference} %p)
  ret void
}}
"
        )
    };
    let [first, second] = parameters;
    let called = format!(
        "define void @callee() {{ ret void }}\ndefine void @take({reference} %p) {{ ret void }}\n"
    );
    let programs = [object("first", first), object("second", second), called];
    let programs = programs.each_ref().map(String::as_str);
    let name = format!("{name}-{}", tools.name());
    support::load_objects(tools, &name, &programs, Some(&[]), &[], &[])
}

#[test]
fn an_inline_function_in_two_objects_of_llvm_is_registered_once() {
    for tools in Tools::installed() {
        let Some(library) = with_inline_functions(&tools, "inline", [2, 2]) else { continue };
        let inline = library.address("inline");
        let records = llvm::records(library.stack_maps).unwrap();
        let of_inline = records.iter().filter(|record| record.function == inline);
        assert_eq!(of_inline.count(), 6, "both objects have maps of its three calls");
        let code = Code::new();
        code.register_image(inline, None).unwrap();
        let snapshot = code.snapshot();
        for record in &records {
            assert!(snapshot.safepoint(record.return_address).is_some(), "{record:?}");
        }
        for name in ["first", "second", "inline"] {
            assert_eq!(snapshot.function(library.address(name)).unwrap().name, name);
        }
    }
}

#[test]
fn an_inline_function_that_two_objects_of_llvm_compile_differently_is_refused() {
    for tools in Tools::installed() {
        let Some(library) = with_inline_functions(&tools, "differs", [2, 3]) else { continue };
        let error = Code::new().register_image(library.address("first"), None).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("function inline has other maps here"), "{text}");
    }
}
