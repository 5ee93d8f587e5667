//! Goroutines and stacks from core files: one that is whole, and many that are cut off or damaged.

mod own_core;

use compiler::{Embedder, Ignoring};
use inspect::{Core, Error, Process, State, report};
use own_core::Contents;
use proptest::prelude::*;
use stackmark_stack::unwind::Code;
use stackmark_stack::{BarrierMode, Config, CycleDriver, Left, Machine, Runtime, ScanScope};
use std::ffi::c_void;
use std::sync::{Arc, LazyLock};

/// Recursive calls of each goroutine.
const DEPTH: [usize; 3] = [0, 5, 60];

unsafe extern "C-unwind" fn bottom(_object: *mut c_void, _n: usize) -> usize {
    0
}

/// Three goroutines that stand still, with a barrier in every frame.
static CONTENTS: LazyLock<Contents> = LazyLock::new(|| {
    let code = Arc::new(Code::new());
    let compiled = compiler::compile_yielding(&code, bottom);
    let config = Config { barriers: BarrierMode::EveryFrame, ..Config::default() };
    let runtime = Runtime::new(config, code, Box::new(Embedder)).expect("the assembly's frames");
    let mut cycles = CycleDriver::new(&runtime, Arc::new(Ignoring)).expect("one collector");
    let machine = Machine::attach(&runtime).expect("a fresh thread");
    let object = Box::leak(Box::new(7_usize));
    let goroutines: Vec<_> = DEPTH
        .iter()
        .map(|n| {
            let argument = Box::leak(Box::new([*n, &raw const *object as usize, 0]));
            // SAFETY: the entry is compiled code that keeps the contracts.
            let goroutine =
                unsafe { runtime.spawn(compiled.entry, argument.as_mut_ptr() as usize) };
            match machine.run(goroutine.expect("memory")) {
                Left::Yielded(goroutine) => goroutine,
                left => panic!("{left:?}"),
            }
        })
        .collect();
    cycles.handshake();
    assert!(cycles.begin_scanning(1, ScanScope::Whole));
    cycles.scan_goroutines(|| {}).expect("stacks that can be walked");
    let contents = Contents::of(&goroutines);
    // All of it stays, since the core shares nothing with the process.
    drop(machine);
    contents
});

fn read(core: &[u8]) -> Result<(Vec<State>, String), Error> {
    let process = Process::new(Core::parse(core)?, None)?;
    let mut text = process.complaints().join("\n");
    let states = process.goroutines()?.iter().map(|goroutine| goroutine.state).collect();
    report(&process, &mut text)?;
    Ok((states, text))
}

#[test]
fn a_whole_core_has_all_goroutines_and_frames() {
    let core = CONTENTS.core(&CONTENTS.program.2);
    let (states, text) = read(&core).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(states, [State::Runnable; 3], "{text}");
    let stacks: Vec<&str> = text.split("goroutine ").skip(1).collect();
    for (stack, depth) in stacks.iter().zip(DEPTH) {
        let frames = stack.lines().filter(|line| line.ends_with(" in rec")).count();
        assert_eq!(frames, depth + 1, "{text}");
    }
    for complaint in ["cut off", "??", "barrier", "__morestack", "[", "malformed"] {
        let found = text.replace("[runnable]", "").contains(complaint);
        assert!(!found, "{complaint:?} in\n{text}");
    }
}

#[test]
fn what_is_no_core_is_an_error() {
    assert!(matches!(read(b""), Err(Error::Malformed(_))));
    assert!(matches!(read(b"\x7fELF"), Err(Error::Malformed(_))));
    let program = std::fs::read(std::env::current_exe().expect("a path")).expect("a file");
    assert!(matches!(read(&program), Err(Error::NoCore(_))));
    let mut core = CONTENTS.core("/nowhere");
    core[18] = 183;
    assert!(matches!(read(&core), Err(Error::Machine(183))));
    // No segment of the file has the data.
    let empty = Contents { pages: Vec::new(), program: CONTENTS.program.clone() };
    assert!(matches!(read(&empty.core("/nowhere")), Err(Error::NoRuntime)));
}

#[test]
fn without_the_program_stacks_are_cut_off_and_say_so() {
    let (states, text) = read(&CONTENTS.core("/nowhere")).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(states.len(), 3);
    assert_eq!(text.matches("the stack is cut off: ").count(), 3, "{text}");
    assert!(text.contains("/nowhere: "), "{text}");
}

/// Offsets in a file and the words that are put there.
fn damage(core: &mut [u8], changes: &[(prop::sample::Index, u64)]) {
    for (at, word) in changes {
        let at = at.index(core.len() / 8) * 8;
        core[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
}

/// Words that lead somewhere, and others.
fn words() -> impl Strategy<Value = u64> {
    let addresses = CONTENTS.pages.iter().map(|(page, _)| *page as u64).collect::<Vec<_>>();
    let within = (prop::sample::select(addresses), 0..512u64).prop_map(|(page, i)| page + 8 * i);
    prop_oneof![within, any::<u64>(), 0..4096u64, Just(u64::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_core_that_is_cut_off_is_an_error_or_says_what_is_missing(
        at in any::<prop::sample::Index>(),
    ) {
        let whole = CONTENTS.core("/nowhere");
        let (states, text) = match read(&whole[..at.index(whole.len())]) {
            Ok(found) => found,
            Err(_) => return Ok(()),
        };
        prop_assert!(states.len() == 3 && text.contains("cut off"), "{}", text);
    }

    #[test]
    fn a_damaged_core_is_no_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), words()), 1..20),
    ) {
        let mut core = CONTENTS.core("/nowhere");
        damage(&mut core, &changes);
        let _ = read(&core);
    }
}

proptest! {
    // Each reads the program's CFI.
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    #[test]
    fn walks_over_damaged_stacks_end(
        changes in prop::collection::vec((any::<prop::sample::Index>(), words()), 1..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut core = CONTENTS.core(&CONTENTS.program.2);
        // The headers stay whole.
        let memory = core.len() - 4096 * CONTENTS.pages.len();
        damage(&mut core[memory..], &changes);
        let _ = read(&core);
        core.truncate(memory + cut.index(core.len() - memory));
        let _ = read(&core);
    }
}
