//! Images with all that a compiler makes by LLVM, with each version of LLVM that is installed.

use std::sync::atomic::Ordering;

use stackmark::stack::{BarrierMode, UnregisterError};

use crate::support::{self, Library, Tools};
use crate::world::{CAUGHT, Run, When};

/// The program in the language of a version.
fn program(tools: &Tools) -> String {
    let types = if tools.opaque_pointers {
        [
            ("$REFP", "ptr addrspace(1)"),
            ("$REF", "ptr addrspace(1)"),
            ("$CELL", "ptr"),
            ("$PTABLE", "ptr"),
            ("$P64", "ptr"),
            ("$P8", "ptr"),
            ("$FCALL", "ptr"),
            ("$FREF", "ptr"),
            ("$FCHURN", "ptr"),
            ("$PERSONALITY", "ptr @__gxx_personality_v0"),
            ("$STATEPOINT", "@llvm.experimental.gc.statepoint.p0"),
            ("$RELOCATE", "@llvm.experimental.gc.relocate.p1"),
        ]
    } else {
        [
            ("$REFP", "i64 addrspace(1)* addrspace(1)*"),
            ("$REF", "i64 addrspace(1)*"),
            ("$CELL", "i64 addrspace(1)**"),
            ("$PTABLE", "[7 x i64]*"),
            ("$P64", "i64*"),
            ("$P8", "i8*"),
            ("$FCALL", "i64 (i64, i64, i64)*"),
            ("$FREF", "i64 addrspace(1)* (i64, i64, i64)*"),
            ("$FCHURN", "void (i64)*"),
            ("$PERSONALITY", "i8* bitcast (i32 (...)* @__gxx_personality_v0 to i8*)"),
            ("$STATEPOINT", "@llvm.experimental.gc.statepoint.p0f_isVoidi64f"),
            ("$RELOCATE", "@llvm.experimental.gc.relocate.p1i64"),
        ]
    };
    let mut checks = 0;
    let mut text = String::new();
    for line in include_str!("image.ll").lines() {
        if line.starts_with("define") {
            checks = 0;
        }
        match line.trim() {
            // Whether the stack pointer is below the limit; whether a request makes it so.
            "$CHECK" => text += &check("icmp ult i64 %sp.N, %limit.N", checks),
            "$POLL" => text += &check("icmp eq i64 %limit.N, -1", checks),
            _ => {
                text += line;
                text.push('\n');
                continue;
            }
        }
        checks += 1;
    }
    let stack_pointer = if cfg!(target_arch = "x86_64") { "rsp" } else { "sp" };
    let text = text.replace("$SP", stack_pointer);
    types.iter().fold(text, |text, (word, of)| text.replace(word, of))
}

fn check(condition: &str, number: usize) -> String {
    format!(
        "  %sp.N = call i64 @llvm.read_register.i64(metadata !0)
  %limit.at.N = inttoptr i64 %g to $P64
  %limit.N = load volatile i64, $P64 %limit.at.N
  %asked.N = {condition}
  br i1 %asked.N, label %slow.N, label %go.N
slow.N:
  %answer.N = call i64 @native(i64 1, i64 0)
  br label %go.N
go.N:
"
    )
    .replace(".N", &format!(".{number}"))
}

pub(crate) const WITH_FRAME_POINTERS: &[&str] = &["-frame-pointer=all"];
/// Without frame pointers, where the processor's calls push the return address. On others LLVM then
/// saves it anywhere in the frame.
pub(crate) const PLAIN: &[&str] =
    if cfg!(target_arch = "x86_64") { &[] } else { WITH_FRAME_POINTERS };

/// Whether return barriers may lie in all frames. On arm64 LLVM saves other registers above the
/// return address, and then none may.
pub(crate) const HAS_BARRIERS: bool = cfg!(target_arch = "x86_64");

/// The libraries of each version, without and with frame pointers. Derived pointers are kept, not
/// computed again from their bases.
pub(crate) fn libraries() -> Vec<(String, Library)> {
    let mut libraries = Vec::new();
    for tools in Tools::installed() {
        for (kind, options) in [("plain", PLAIN), ("frame-pointers", WITH_FRAME_POINTERS)] {
            let name = format!("{}-{kind}", tools.name());
            let rewrite = Some(&["-spp-rematerialization-threshold=0"][..]);
            let link = ["-lstdc++"];
            let program = program(&tools);
            let library = support::load_with(&tools, &name, &program, rewrite, options, &link);
            libraries.extend(library.map(|library| (name, library)));
        }
    }
    if libraries.is_empty() {
        eprintln!("skipped: no llc-N is installed");
    }
    libraries
}

/// The argument, with room for the results, and what it must be afterwards.
pub(crate) fn argument(n: u64, depth: u64) -> ([u64; 7], [u64; 7]) {
    let results = [82, n / 2 * 5 + n + 15, 2 * n + 4, 14, 29];
    let mut expected = [n, depth, 0, 0, 0, 0, 0];
    let argument = expected;
    expected[2..].copy_from_slice(&results);
    (argument, expected)
}

#[test]
fn images_run_a_hundred_times_while_they_are_collected() {
    let libraries = libraries();
    let modes = [BarrierMode::Incremental, BarrierMode::EveryFrame];
    let mut barriers = 0;
    let before = CAUGHT.load(Ordering::Relaxed);
    for i in 0..100 {
        let Some((name, library)) = libraries.get(i % libraries.len().max(1)) else { return };
        let mode = modes[i / libraries.len() % modes.len()];
        let run = Run { library, barriers: mode, when: When::AllTheTime, parked: &|_, _| {} };
        let (mut argument, expected) = argument(40, 30 + i as u64);
        let statistics = run.run(&mut argument);
        assert_eq!(argument, expected, "{name}, run {i}, {mode:?}");
        assert!(statistics.cycles > 2, "{name}: {} cycles", statistics.cycles);
        assert_eq!(statistics.heap.live_bytes, 0, "{name}: afterwards everything is garbage");
        barriers += statistics.barriers.placed;
    }
    assert!(barriers > 0);
    assert!(CAUGHT.load(Ordering::Relaxed) - before >= 200, "two exceptions land in each run");
}

#[test]
fn images_are_collected_at_every_safepoint_and_stay_registered_while_they_run() {
    for (name, library) in libraries() {
        let parked = |runtime: &stackmark::stack::Runtime, image: &_| {
            let error = runtime.unregister_image(image).expect_err("the goroutine has frames");
            let UnregisterError::Running { function, .. } = &error else { panic!("{error}") };
            let text = error.to_string();
            assert!(text.contains("a.so") && text.contains(function.as_str()), "{text}");
        };
        for mode in [BarrierMode::Incremental, BarrierMode::EveryFrame] {
            let library = &library;
            let run = Run { library, barriers: mode, when: When::EveryPoll, parked: &parked };
            let (mut argument, expected) = argument(4, 20);
            let statistics = run.run(&mut argument);
            assert_eq!(argument, expected, "{name}, {mode:?}");
            assert!(statistics.cycles > 200, "{name}: {} cycles", statistics.cycles);
        }
    }
}
