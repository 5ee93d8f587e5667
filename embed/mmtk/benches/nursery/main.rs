//! What barriers save MMTk's collections: `cargo bench --bench nursery
//! [-- --quick]`.
//!
//! A goroutine recurses to a depth, with an object in each frame, and makes garbage at the bottom.
//! Minor collections of GenImmix visit the whole stack and the young frames alone, by turns. Then
//! ConcurrentImmix marks under 300,000 frames; in every second of its cycles the first pause visits
//! the stack whole. A time is that of a pause, from MMTk's request to stop until it resumes.
//! Figures are medians, and of the pauses of ConcurrentImmix the longest as well. A pause has two
//! parts: what is done for stacks, which is to stop the world and to visit roots, and the rest,
//! which is MMTk's own.

#[path = "../../tests/vm/mod.rs"]
mod vm;

use stackmark_mmtk::{Pause, PauseKind};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use vm::Run;
use vm::binding::{ALTERNATES, PAUSES, STACKS};
use vm::code::{BOTTOM, Work};

/// Bytes of the nursery, and of an object.
const NURSERY: usize = 1 << 20;
const OBJECT: usize = 32;
/// How deep the stack is that ConcurrentImmix marks.
const DEEP: usize = 300_000;
/// What the process that runs ConcurrentImmix gets.
const CONCURRENT: &str = "--concurrent-immix";

fn run(plan: &str, heap: &[(&str, &str)], at_bottom: usize) -> Run {
    let work = Work { at_bottom, on_return: 0, every: 1 << 30, wiggle: 10 };
    Run { work, ..Run::on(plan, heap) }
}

/// The pauses at the bottom of recursions of these depths, one after the other. Every second one is
/// whole, if it is said so.
fn pauses(run: &Run, depths: &[(usize, bool)]) -> Vec<Vec<Pause>> {
    let (runtime, code, threads) = vm::start(run);
    let entry = vm::code::compile(&code, run.work).entry;
    let at_bottom = |&(depth, alternates): &(usize, bool)| {
        ALTERNATES.store(alternates, Relaxed);
        STACKS.get().expect("made at the start").set_whole_scans(false);
        vm::run_goroutines(&runtime, entry, depth, 1);
        let [from, to] = BOTTOM.each_ref().map(|pauses| pauses.load(Relaxed));
        // The first two see what is new of the deep stack.
        PAUSES.lock().expect("no panic")[from..to].iter().skip(2).copied().collect()
    };
    let pauses = depths.iter().map(at_bottom).collect();
    threads.stop();
    pauses
}

fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// What is done for stacks in a pause: until the world stands, and until roots are visited.
fn for_stacks(pause: &Pause) -> Duration {
    pause.stopping + pause.roots
}

/// The rest of a pause.
fn rest(pause: &Pause) -> Duration {
    pause.total.saturating_sub(for_stacks(pause))
}

fn longest(times: impl Iterator<Item = Duration>) -> f64 {
    micros(times.max().unwrap_or_default())
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    micros(times.get(times.len() / 2).copied().unwrap_or_default())
}

fn nursery(quick: bool) {
    let (depths, rounds) =
        if quick { ([1_000, 10_000, 20_000], 5) } else { ([1_000, 100_000, 1_000_000], 51) };
    let fixed = format!("Fixed:{NURSERY}");
    let heap = [("gc_trigger", "FixedHeapSize:2g"), ("nursery", &*fixed), ("threads", "1")];
    let run = run("GenImmix", &heap, (2 * rounds + 4) * NURSERY / OBJECT);
    let mut medians = Vec::new();
    println!("GenImmix, minor collections: medians in us (stop, roots of stacks, rest)");
    let times: [fn(&Pause) -> Duration; 4] =
        [|pause| pause.total, |pause| pause.stopping, |pause| pause.roots, rest];
    let of = |pauses: &[Pause], kind| {
        let minor: Vec<_> =
            pauses.iter().filter(|pause| pause.nursery && pause.kind == kind).collect();
        times.map(|time| median(minor.iter().map(|pause| time(pause)).collect()))
    };
    let show = |[total, stopping, roots, rest]: [f64; 4]| {
        format!("{total:>9.1} ({stopping:>6.1}, {roots:>8.1}, {rest:>7.1})")
    };
    // Behind a whole scan a short one finds nothing in the caches, so it is measured alone as well.
    let wanted: Vec<_> = depths.iter().flat_map(|&depth| [(depth, true), (depth, false)]).collect();
    for (depth, pauses) in depths.iter().zip(pauses(&run, &wanted).chunks_exact(2)) {
        let [mixed, alone] = pauses else { unreachable!("two") };
        let (whole, short) = (of(mixed, PauseKind::Whole), of(mixed, PauseKind::Short));
        let own = of(alone, PauseKind::Short);
        println!("{depth:>9} frames: whole {}, {} pauses", show(whole), mixed.len());
        println!("{:>17} short {}", "", show(short));
        println!("{:>17} short {} without whole ones between", "", show(own));
        medians.push((whole[0], short[0], own[0], own[1] + own[2]));
    }
    let [flat, at_1e5, at_1e6] = medians[..] else { unreachable!("three depths") };
    if !quick {
        println!("figure mmtk_nursery_whole_1e5 {:.1} us", at_1e5.0);
        println!("figure mmtk_nursery_short_1e5 {:.1} us", at_1e5.1);
        println!("figure mmtk_nursery_ratio_1e5 {:.1} ratio", at_1e5.0 / at_1e5.1);
        println!("figure mmtk_nursery_ratio_1e6 {:.1} ratio", at_1e6.0 / at_1e6.1);
        println!("figure mmtk_nursery_short_1e6_vs_1e3 {:.2} ratio", at_1e6.1 / flat.1);
        println!("figure mmtk_nursery_alone_1e6_vs_1e3 {:.2} ratio", at_1e6.2 / flat.2);
        println!("figure mmtk_nursery_stacks_1e6_vs_1e3 {:.2} ratio", at_1e6.3 / flat.3);
    }
}

fn concurrent(quick: bool) {
    let (depth, cycles) = if quick { (20_000, 4) } else { (DEEP, 30) };
    // One worker, so that the parts of a pause add up.
    let heap = [("gc_trigger", "FixedHeapSize:64m"), ("threads", "1")];
    // A cycle begins after each half of the heap.
    let run = run("ConcurrentImmix", &heap, cycles * (32 << 20) / OBJECT);
    let pauses = pauses(&run, &[(depth, true)]).remove(0);
    println!("ConcurrentImmix under {depth} frames: longest and median in us (stacks, rest)");
    let mut figures = Vec::new();
    for (name, kind) in [("whole", PauseKind::Whole), ("incremental", PauseKind::InitialMark)] {
        let cycles = pauses
            .windows(2)
            .filter(|pair| pair[0].kind == kind && pair[1].kind == PauseKind::FinalMark);
        let (first, last): (Vec<_>, Vec<_>) = cycles.map(|pair| (pair[0], pair[1])).unzip();
        for (which, pauses) in [("first", &first), ("last", &last)] {
            let times = [|pause: &Pause| pause.total, for_stacks, rest].map(|time| {
                let times = || pauses.iter().map(time);
                format!("{:>9.1} {:>9.1}", longest(times()), median(times().collect()))
            });
            let [total, stacks, rest] = times;
            println!("{name:>12}, {which:>5}: {total} ({stacks}, {rest}), {} pauses", pauses.len());
        }
        let both = || first.iter().chain(&last);
        figures.push([
            longest(both().map(|pause| pause.total)),
            median(first.iter().map(for_stacks).collect()),
            longest(both().map(rest)),
            median(first.iter().map(|pause| pause.total).collect()),
        ]);
    }
    let [whole, incremental] = figures[..] else { unreachable!("two kinds") };
    if !quick {
        println!("figure mmtk_concurrent_longest_whole_3e5 {:.1} us", whole[0]);
        println!("figure mmtk_concurrent_longest_3e5 {:.1} us", incremental[0]);
        println!("figure mmtk_concurrent_longest_ratio_3e5 {:.1} ratio", whole[0] / incremental[0]);
        println!("figure mmtk_concurrent_first_ratio_3e5 {:.1} ratio", whole[3] / incremental[3]);
        println!("figure mmtk_concurrent_stacks_ratio_3e5 {:.1} ratio", whole[1] / incremental[1]);
        println!("figure mmtk_concurrent_rest_whole_3e5 {:.1} us", whole[2]);
        println!("figure mmtk_concurrent_rest_3e5 {:.1} us", incremental[2]);
    }
}

fn main() {
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let quick = has("--quick") || has("--test");
    if has(CONCURRENT) {
        return concurrent(quick);
    }
    nursery(quick);
    // MMTk is a singleton: another plan has another process.
    let mut other = limits::this_program();
    other.arg(CONCURRENT).args(quick.then_some("--quick"));
    assert!(other.status().expect("this benchmark").success());
}
