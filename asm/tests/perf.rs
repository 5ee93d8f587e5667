//! What `perf record` sees of a goroutine in whose stack barriers lie: by frame pointers the same
//! depth as without, by DWARF the frames up to the first barrier, since perf keeps a copy of the
//! stack without the table of saved return addresses.
//!
//! The program that perf looks at is a test of this same binary. Where perf is missing, or may not
//! record, the tests say so and pass.
// Windows has no perf.
#![cfg(unix)]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "a test is one setting, stated where it is made: its headers and stacks are its own"
)]

use stackmark_asm::{self as asm, barrier, layout::*};
use std::ffi::c_void;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

mod arch;

arch::assembly!(
    "perf.s",
    hijack = sym hijack,
    frames = const FRAMES,
    busy = const BUSY,
);

unsafe extern "C" {
    fn perf_managed(goroutine: usize, barriers: usize);
}

/// Hijacks a return slot with the stub `index` + 1.
unsafe extern "C" fn hijack(index: usize, slot: *mut usize) {
    unsafe {
        barrier::saved(index + 1).store(*slot, Relaxed);
        *slot = barrier::hijacked_word(index + 1);
    }
}

const FRAMES: usize = 30;
/// About a second.
const BUSY: usize = 2_000_000_000;
/// In the environment of the program that perf looks at: whether there are barriers.
const BARRIERS: &str = "STACKMARK_PERF_BARRIERS";

static HITS: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn on_hit(_m: *mut MachineHeader, slot: *mut usize, index: usize) {
    HITS.fetch_add(1, Relaxed);
    unsafe { *slot = barrier::saved(index).load(Relaxed) };
}

unsafe extern "C-unwind" fn on_exit(_a: *mut c_void, result: usize) -> usize {
    unsafe { asm::leave(asm::current(), result) }
}

#[test]
fn subject() {
    let Ok(barriers) = std::env::var(BARRIERS) else { return };
    let barriers = usize::from(barriers == "1");
    let mut stack = vec![0u128; 1 << 14];
    let (mut machine, goroutine) = (MachineHeader::new(), &mut GoroutineHeader::new());
    machine.on_hit.store(on_hit as *const () as usize, Relaxed);
    goroutine.stack_hi.store(stack.as_mut_ptr_range().end as usize, Relaxed);
    goroutine.entry.store(perf_managed as *const () as usize, Relaxed);
    goroutine.start_arg.store(barriers, Relaxed);
    goroutine.on_exit.store(on_exit as *const () as usize, Relaxed);
    unsafe {
        asm::prepare(goroutine);
        asm::set_current(&mut machine);
        asm::run(&mut machine, goroutine);
        asm::set_current(std::ptr::null_mut());
    }
    assert_eq!(HITS.load(Relaxed), barriers * FRAMES);
}

/// Whether perf would see an emulator instead; says so.
fn is_emulated() -> bool {
    let emulated = arch::is_emulated();
    if emulated {
        eprintln!("skipped: perf sees the emulator");
    }
    emulated
}

/// What most samples of the subject at its bottom show: names of frames, youngest first. `None`,
/// with a message, where perf is missing or not permitted.
fn sampled(graph: &str, barriers: bool) -> Option<Vec<String>> {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("perf-{graph}-{barriers}.data"));
    let perf = |arguments: &[&str]| {
        let mut perf = Command::new("perf");
        perf.args(arguments).env(BARRIERS, if barriers { "1" } else { "0" });
        perf.output().ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    let record = ["record", "-q", "-e", "cpu-clock:u", "-F", "100", "-o", file.to_str().unwrap()];
    if perf(&[&record[..], &["true"]].concat()).is_none() {
        eprintln!("skipped: perf is not installed or may not record");
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let program = [program.to_str().unwrap(), "--exact", "subject", "--test-threads=1"];
    perf(&[&record[..], &["--call-graph", graph], &program].concat())
        .expect("it has recorded before");
    let shown = perf(&["script", "--no-inline", "-F", "ip,sym", "-i", file.to_str().unwrap()])
        .expect("a recording");
    let shown = String::from_utf8_lossy(&shown);
    let samples = shown.split("\n\n").map(|sample| {
        let names = sample
            .lines()
            .filter_map(|line| line.trim().split_once(' ').map(|(_, name)| name.to_owned()));
        names.collect::<Vec<_>>()
    });
    let mut samples: Vec<_> =
        samples.filter(|names| names.first().is_some_and(|name| name == "perf_nested")).collect();
    samples.sort();
    // The middle one of the sorted ones: all but those within the first and last instructions are
    // alike.
    let middle = samples.len() / 2;
    assert!(samples.len() > 5, "{} samples of a second:\n{shown}", samples.len());
    Some(samples.swap_remove(middle))
}

fn count(names: &[String], name: &str) -> usize {
    names.iter().filter(|other| *other == name).count()
}

#[test]
fn by_frame_pointers_shows_the_same_depth() {
    if is_emulated() {
        return;
    }
    let (Some(with), Some(without)) = (sampled("fp", true), sampled("fp", false)) else { return };
    assert_eq!(with.len(), without.len(), "{with:#?}\n{without:#?}");
    assert_eq!(count(&without, "perf_nested"), FRAMES, "{without:#?}");
    // A hijacked word stands in the place of the address returned to.
    assert_eq!(count(&with, "barrier_pool"), FRAMES, "{with:#?}");
    for names in [with, without] {
        assert_eq!(names.last().unwrap(), "goroutine_entry", "{names:#?}");
    }
}

#[test]
fn by_dwarf_ends_at_the_first_barrier() {
    if is_emulated() {
        return;
    }
    if cfg!(target_pointer_width = "32") {
        eprintln!("skipped: a perf of 64 bits does not unwind programs of 32 by DWARF");
        return;
    }
    let (Some(with), Some(without)) = (sampled("dwarf", true), sampled("dwarf", false)) else {
        return;
    };
    // It may follow a word that it takes for the saved return address, once.
    let known: Vec<&String> = with.iter().filter(|name| *name != "[unknown]").collect();
    assert_eq!(known, ["perf_nested", "barrier_pool"], "{with:#?}");
    assert!(with.len() <= 3, "{with:#?}");
    assert_eq!(count(&without, "perf_nested"), FRAMES, "{without:#?}");
    assert_eq!(without.last().unwrap(), "goroutine_entry", "{without:#?}");
}
