//! Programs with LLVM's statepoints of every shape, compiled and run: two walks over their frames
//! agree with the system's unwinder, and find exactly the references that are live.
//!
//! A program is a chain of functions, each made from a seed: any number of arguments, of which some
//! are pushed, references, derived pointers, null references, `alloca`s, frames of fixed and of
//! variable size, aligned frames. The last function calls this test.
// It builds shared objects with LLVM's tools, which wine does not run.
#![cfg(not(windows))]
// Its programs are compiled for x86-64.
#![cfg(target_arch = "x86_64")]

#[path = "support/llvm.rs"]
mod llvm_program;
#[path = "support/this_thread.rs"]
mod this_thread;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write;

use llvm_program::Library;
use stackmark_unwind::stack_map::llvm::{self, LlvmError};
use stackmark_unwind::stack_map::{Location, Root, StackMap};
use stackmark_unwind::{
    Code, Function, Memory, Region, RegisterSet, Registers, RuleCache, Unwinder, Walker,
};

/// A sequence of numbers from a seed.
struct Seed(u64);

impl Seed {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Values of references: distinct, and nothing else on the stack looks like them.
fn value(function: usize, reference: u64) -> usize {
    0x5eed_0000_0000 + function * 0x1000 + reference as usize * 0x100
}

/// Bytes from a reference to the pointer derived from it.
const DERIVED: usize = 24;

/// A program, and for each function the values that its map must name.
struct Program {
    text: String,
    live: Vec<BTreeSet<usize>>,
}

const REF: &str = "i8 addrspace(1)*";

fn program(seed: &mut Seed, functions: usize) -> Program {
    let mut text = String::from(
        "declare i8 addrspace(1)* @llvm.experimental.gc.relocate.p1i8(token, i32 immarg, i32 immarg)
@look = global void ()* null
define void @use(i8 addrspace(1)* %p) noinline { ret void }
define void @use_slot(i8 addrspace(1)** %p) noinline { ret void }
define void @use_bytes(i8* %p) noinline { ret void }
",
    );
    let counts: Vec<u64> =
        (0..=functions).map(|_| if seed.one_in(3) { 0 } else { seed.below(15) }).collect();
    let mut live = Vec::new();
    for (i, count) in counts[..functions].iter().enumerate() {
        let mut names = BTreeSet::new();
        function(seed, &mut text, i, (*count, counts[i + 1]), i + 1 == functions, &mut names);
        live.push(names);
    }
    Program { text, live }
}

/// Function `i`, with the numbers of its own arguments and of those that it passes on.
fn function(
    seed: &mut Seed,
    text: &mut String,
    i: usize,
    (own, passed): (u64, u64),
    last: bool,
    live: &mut BTreeSet<usize>,
) {
    let list =
        |n: u64, item: &dyn Fn(u64) -> String| (0..n).map(item).collect::<Vec<_>>().join(", ");
    let parameters = list(own, &|k| format!("i64 %x{k}"));
    let _ = writeln!(text, "define i64 @f{i}({parameters}) uwtable gc \"statepoint-example\" {{");
    let mut gc_live: Vec<String> = Vec::new();
    // Base and derived, as numbers in `gc_live`.
    let mut pairs: Vec<(usize, usize)> = Vec::new();
    let references = seed.below(5);
    let constant = |k: u64| format!("inttoptr (i64 {} to {REF})", value(i, k));
    for k in 0..references {
        // Opaque to the compiler.
        let _ = writeln!(
            text,
            "  %c{k} = alloca {REF}\n  store volatile {REF} {}, {REF}* %c{k}",
            constant(k)
        );
        let _ = writeln!(text, "  %r{k} = load volatile {REF}, {REF}* %c{k}");
        gc_live.push(format!("{REF} %r{k}"));
        live.insert(value(i, k));
        let base = gc_live.len() - 1;
        pairs.push((base, base));
        if seed.one_in(3) {
            let _ = writeln!(text, "  %d{k} = getelementptr i8, {REF} %r{k}, i64 {DERIVED}");
            gc_live.push(format!("{REF} %d{k}"));
            pairs.push((base, base + 1));
        }
    }
    if seed.one_in(4) {
        gc_live.push(format!("{REF} null"));
        pairs.push((gc_live.len() - 1, gc_live.len() - 1));
    }
    let allocas = if seed.one_in(2) { 0 } else { seed.below(4) };
    for k in 0..allocas {
        let _ = writeln!(
            text,
            "  %a{k} = alloca {REF}\n  store volatile {REF} {}, {REF}* %a{k}",
            constant(8 + k)
        );
        gc_live.push(format!("{REF}* %a{k}"));
        live.insert(value(i, 8 + k));
    }
    let mut bytes = Vec::new();
    if own > 0 && seed.one_in(5) {
        let _ = writeln!(text, "  %n = and i64 %x0, 255\n  %dynamic = alloca i8, i64 %n");
        bytes.push("dynamic");
    }
    // A frame that is both has a base pointer beside the frame pointer, and its slots are relative
    // to that: see below.
    if bytes.is_empty() && seed.one_in(5) {
        let _ = writeln!(text, "  %wide = alloca i8, i64 40, align {}", 32 << seed.below(3));
        bytes.push("wide");
    }
    for name in &bytes {
        let _ = writeln!(text, "  call void @use_bytes(i8* %{name})");
    }
    // The call.
    let types = list(passed, &|_| "i64".into());
    let callee = if last {
        let _ = writeln!(text, "  %l = load volatile void ()*, void ()** @look");
        let _ = writeln!(text, "  %callee = bitcast void ()* %l to i64 ({types})*");
        "%callee".into()
    } else {
        format!("@f{}", i + 1)
    };
    let mut arguments = list(passed, &|k| format!("i64 {}", 40 + k));
    if !arguments.is_empty() {
        arguments.insert_str(0, ", ");
    }
    let deopt = if seed.one_in(3) {
        let values = list(1 + seed.below(3), &|k| format!("i64 {k}"));
        format!("\"deopt\"({values}), ")
    } else {
        String::new()
    };
    let _ = writeln!(
        text,
        "  %t = call token (i64, i32, i64 ({types})*, i32, i32, ...) \
         @llvm.experimental.gc.statepoint.f{i}(i64 {i}, i32 0, \
         i64 ({types})* elementtype(i64 ({types})) \
         {callee}, i32 {passed}, i32 0{arguments}, i32 0, i32 0) [{deopt}\"gc-live\"({})]",
        gc_live.join(", ")
    );
    for (k, (base, derived)) in pairs.iter().enumerate() {
        let _ = writeln!(
            text,
            "  %p{k} = call {REF} @llvm.experimental.gc.relocate.p1i8\
             (token %t, i32 {base}, i32 {derived})\n  \
             call void @use({REF} %p{k})"
        );
    }
    for k in 0..allocas {
        let _ = writeln!(text, "  call void @use_slot({REF}* %a{k})");
    }
    for name in &bytes {
        let _ = writeln!(text, "  call void @use_bytes(i8* %{name})");
    }
    let _ = writeln!(text, "  ret i64 {i}\n}}");
    let _ = writeln!(
        text,
        "declare token @llvm.experimental.gc.statepoint.f{i}(i64 immarg, i32 immarg, \
         i64 ({types})*, \
         i32 immarg, i32 immarg, ...)"
    );
}

fn region(library: &Library) -> Region {
    let functions: Vec<Function> = library
        .functions
        .iter()
        .filter(|(name, _)| !name.starts_with('_') && !name.contains("_tm_"))
        .map(|(name, range)| Function {
            name: name.clone(),
            start: range.start,
            len: range.len(),
            ..Function::default()
        })
        .collect();
    let start = functions.iter().map(|function| function.start).min().unwrap();
    let end = functions.iter().map(|function| function.start + function.len).max().unwrap();
    let stack_maps = llvm::stack_maps(library.stack_maps).unwrap();
    let stack_maps: Vec<StackMap> = stack_maps.into_iter().map(Result::unwrap).collect();
    let (name, len) = ("statepoints".into(), end - start);
    Region { name, start, len, functions, stack_maps, ..Region::default() }
}

/// The frames of managed functions, youngest first: CFA minus stack pointer, and the values of the
/// roots.
type Frames = Vec<(String, usize, BTreeSet<usize>)>;

thread_local! {
    static LOOKING: RefCell<Option<(Code, Frames)>> = const { RefCell::new(None) };
}

/// The innermost callee, which ignores its arguments.
extern "C" fn look() -> i64 {
    let system = this_thread::system_frames();
    LOOKING.with_borrow_mut(|looking| {
        let (code, frames) = looking.as_mut().expect("set before the program runs");
        let snapshot = code.snapshot();
        let memory = this_thread::stack();
        let mut cache = RuleCache::new();
        let context = RegisterSet::capture();
        let mut trace = Unwinder::new(&snapshot, &mut cache, &memory, (), context);
        let mut walker = None;
        while let Some(frame) = trace.next_frame().expect("everything here has CFI") {
            let pc = frame.pc;
            let Some(function) = snapshot.function(pc.wrapping_sub(1)) else {
                let register = |register| trace.register(register).unwrap_or(0);
                let registers =
                    Registers { pc: trace.pc(), sp: trace.sp(), fp: register(gimli::X86_64::RBP) };
                if frames.is_empty() && snapshot.function(registers.pc.wrapping_sub(1)).is_some() {
                    let bounds = registers.sp..memory.bounds().end;
                    walker = Some(Walker::new(&snapshot, &memory, (), registers, bounds));
                }
                continue;
            };
            let walked = walker.as_mut().expect("begun").next_frame();
            let walked = walked.unwrap_or_else(|error| panic!("{}: {error}", function.name));
            let walked = walked.expect("as many frames");
            assert_eq!((walked.pc, walked.sp), (pc, frame.sp), "{}", function.name);
            assert_eq!(walked.cfa, frame.cfa, "{}", function.name);
            let at = system.iter().position(|frame| frame.0 == pc).expect("the system sees it");
            assert_eq!(system[at].1, frame.sp, "{}: the system's stack pointer", function.name);
            let word = |address| memory.read(address).expect("in the stack");
            for (base, derived) in walked.roots().filter(|(base, derived)| base != derived) {
                assert_eq!(word(derived) - word(base), DERIVED, "{}", function.name);
            }
            let roots = walked.roots().map(|(base, _)| word(base)).collect();
            frames.push((function.name.into(), frame.cfa - frame.sp, roots));
        }
    });
    7
}

/// Runs `entry` of a program and yields its frames; `None` if LLVM is missing.
fn run(name: &str, text: &str, options: &[&str], entry: &str) -> Option<Frames> {
    let library = llvm_program::load(name, text, options)?;
    let code = Code::new();
    code.refresh_images();
    code.register(region(&library)).unwrap();
    LOOKING.set(Some((code, Vec::new())));
    // SAFETY: the program's own variable, which no other code reads yet.
    unsafe { *(library.address("look") as *mut usize) = look as *const () as usize };
    // SAFETY: every function of a program takes integers only, and any will do.
    unsafe {
        let entry = std::mem::transmute::<
            usize,
            extern "C" fn(u64, u64, u64, u64, u64, u64, [u64; 9]),
        >(library.address(entry));
        entry(1, 2, 3, 4, 5, 6, [7; 9]);
    }
    let (_, mut frames) = LOOKING.take()?;
    frames.retain(|frame| frame.0 != "callee");
    Some(frames)
}

const FRAME_POINTERS: [&[&str]; 2] = [&[], &["-frame-pointer=all"]];

#[test]
fn frames_and_references_of_generated_statepoints_are_those_that_the_system_sees() {
    for seed in 0..6 {
        let Program { text, live } = program(&mut Seed(seed * 0x9e37_79b9), 24);
        for options in FRAME_POINTERS {
            let Some(mut frames) = run(&format!("generated{seed}"), &text, options, "f0") else {
                return;
            };
            frames.reverse();
            assert_eq!(frames.len(), live.len(), "seed {seed} {options:?}");
            for (i, (name, _, roots)) in frames.iter().enumerate() {
                assert_eq!(*name, format!("f{i}"));
                assert_eq!(*roots, live[i], "seed {seed} {options:?} {name}");
            }
        }
    }
}

/// Makes the external callee of a stored program one that calls this test.
fn with_callee(program: &str, declared: &str, arguments: &str) -> String {
    let callee = format!(
        "@look = global void ()* null\ndefine void @callee({arguments}) uwtable {{\n  \
         %l = load volatile void ()*, void ()** @look\n  call void %l()\n  ret void\n}}\n"
    );
    assert!(program.contains(declared));
    program.replace(declared, &callee).replace("gc \"statepoint", "uwtable gc \"statepoint")
}

#[test]
fn arguments_that_a_call_pushes_belong_to_its_frame() {
    let eight = ["i64"; 8].join(", ");
    let declared = format!("declare void @callee({eight})");
    let program = with_callee(include_str!("llvm/pushed_arguments.ll"), &declared, &eight);
    for (options, cfa) in FRAME_POINTERS.into_iter().zip([32, 48]) {
        let Some(frames) = run("pushed", &program, options, "args") else { return };
        let live = BTreeSet::from([1]);
        assert_eq!(frames, [("args".into(), cfa, live)], "{options:?}");
    }
}

#[test]
fn allocas_beside_a_pair_are_words_with_references() {
    let used = "define void @use(i8 addrspace(1)** %p) noinline { ret void }";
    let program = include_str!("llvm/pair_and_allocas.ll")
        .replace("declare void @use(i8 addrspace(1)**)", used);
    let program = with_callee(&program, "declare void @callee()", "");
    for options in FRAME_POINTERS {
        let Some(frames) = run("mixed", &program, options, "mixed") else { return };
        let live = BTreeSet::from([1, 2, 3]);
        assert_eq!(frames[0].2, live, "{options:?}");
    }
}

#[test]
fn an_alloca_alone_and_two_of_them_are_no_pair() {
    let used = "define void @use(i64* %p) noinline { ret void }";
    let program = include_str!("llvm/allocas.ll").replace("declare void @use(i64*)", used);
    let program = with_callee(&program, "declare void @callee()", "");
    for options in FRAME_POINTERS {
        for (entry, live) in [("one", BTreeSet::from([1])), ("two", BTreeSet::from([1, 2]))] {
            let Some(frames) = run("allocas", &program, options, entry) else { return };
            assert_eq!(frames[0].2, live, "{entry} {options:?}");
        }
    }
}

/// LLVM itself writes such a record. It has an error in its place, and its neighbours have none.
#[test]
fn a_pointer_derived_from_null_is_an_error_of_its_own_statepoint() {
    let mut program = include_str!("llvm/pair_and_allocas.ll").to_owned();
    let second = program[program.find("define").expect("a function")..].replace("@mixed", "@odd");
    let live = "\"gc-live\"(i8 addrspace(1)* %p, i8";
    let (with_null, pair) =
        ("\"gc-live\"(i8 addrspace(1)* %p, i8 addrspace(1)* null, i8", "i32 1, i32 0");
    program.push_str(
        &second.replace(live, with_null).replace("%tok, i32 0, i32 0", &format!("%tok, {pair}")),
    );
    let callees = "declare void @callee()\ndeclare void @use(i8 addrspace(1)**)";
    let defined = "define void @callee() { ret void }\n\
                   define void @use(i8 addrspace(1)** %p) noinline { ret void }";
    let program = program.replace(callees, defined);
    let Some(library) = llvm_program::load("null", &program, &[]) else { return };
    let maps = llvm::stack_maps(library.stack_maps).unwrap();
    assert!(matches!(&maps[..], [Ok(_), Err(LlvmError::Root { .. })]), "{maps:?}");
    let Ok(map) = &maps[0] else { return };
    assert!(map.roots.contains(&Root::plain(Location::Stack(8))), "{map:?}");
}

/// A frame that is aligned and of variable size has its slots relative to a third register, which
/// no map of a region can name.
#[test]
fn slots_relative_to_a_base_pointer_are_a_typed_refusal() {
    let program = include_str!("llvm/pair_and_allocas.ll")
        .replace("declare void @callee()", "define void @callee() { ret void }")
        .replace(
            "declare void @use(i8 addrspace(1)**)",
            "define void @use(i8 addrspace(1)** %p) noinline { ret void }\n\
             define void @bytes(i8* %p, i8* %q) noinline { ret void }",
        )
        .replace(
            "entry:",
            "entry:\n  %n = ptrtoint i8 addrspace(1)* %p to i64\n  %d = alloca i8, i64 %n\n  \
             %w = alloca i8, i64 40, align 64\n  call void @bytes(i8* %d, i8* %w)",
        );
    let Some(library) = llvm_program::load("base", &program, &[]) else { return };
    let maps = llvm::stack_maps(library.stack_maps).unwrap();
    assert!(matches!(&maps[..], [Err(LlvmError::Root { .. })]), "{maps:?}");
}
