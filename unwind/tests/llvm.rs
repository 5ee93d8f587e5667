//! LLVM's stack maps, of code that LLVM compiles and this test runs.
// It builds shared objects with LLVM's tools, which wine does not run.
#![cfg(not(windows))]
// Its programs call by assembly for x86-64.
#![cfg(target_arch = "x86_64")]

#[path = "support/llvm.rs"]
mod support;

use std::cell::RefCell;

use gimli::X86_64;
use stackmark_unwind::stack_map::StackMaps;
use stackmark_unwind::stack_map::llvm;
use stackmark_unwind::{Code, LiveMemory, Memory, RegisterSet, RuleCache, Unwinder};
use support::{Library, Tools};

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
