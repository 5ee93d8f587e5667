//! Nanoseconds to register and to unregister one function, beside 10^2 to 10^5 that are registered,
//! one by one and in bulk, and to trace behind each change.
//!
//! `cargo bench -p stackmark-unwind --bench register [-- --quick]`. Nothing else is told of the
//! functions: that is measured apart. Each time is the median of blocks of operations in random
//! order. The output ends with lines `figure NAME VALUE UNIT`; `register_flat` is the slowest size
//! divided by the fastest.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::Instant;

use stackmark_unwind::{
    Announce, Code, MemorySnapshot, Region, RegionId, RegisterSet, RuleCache, Unwinder,
};

const START: usize = 0x1000_0000;
/// Bytes between two functions.
const STEP: usize = 0x400;
/// The number of functions that a bulk call gets.
const BULK: usize = 64;

/// The `i`th function: 512 bytes of code with two safepoints.
fn function(i: usize, announce: Announce) -> Region {
    let safepoints: &[(usize, u32, &[u32])] = &[(0x20, 32, &[0, 8]), (0x48, 32, &[16])];
    Region { announce, ..support::region(START + i * STEP, &[safepoints]) }
}

/// A sequence of numbers below a limit.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (self.0 >> 33) as usize % limit
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Times in nanoseconds for one function.
struct Times {
    register: f64,
    unregister: f64,
    bulk: f64,
    /// The first trace of 64 frames behind a change, with a cache of 65,536 pcs.
    trace: f64,
}

fn measure(count: usize, blocks: usize) -> Times {
    let code = Code::new();
    let mut ids: Vec<RegionId> = Vec::new();
    for first in (0..count).step_by(1 << 12) {
        let regions: Vec<Region> =
            (first..count.min(first + (1 << 12))).map(|i| function(i, Announce::NONE)).collect();
        ids.extend(code.register_all(&regions).expect("apart from each other"));
    }
    let mut numbers = Numbers(count as u64);
    let mut cache = RuleCache::fixed(1 << 16);
    let words = (0..64).flat_map(|i| [0, START + (i * 37 % count) * STEP + 0x20]).collect();
    let stack = MemorySnapshot { start: 0x7000_0000, words };
    let trace = |cache: &mut RuleCache| {
        let snapshot = code.snapshot();
        let registers = RegisterSet::new(START + 0x20, stack.start, stack.start + 16);
        let mut walk = Unwinder::new(&snapshot, cache, &stack, (), registers);
        while let Ok(Some(frame)) = walk.next_frame() {
            black_box(frame);
        }
    };
    trace(&mut cache);
    let (mut register, mut unregister, mut bulk, mut traced) = (vec![], vec![], vec![], vec![]);
    for _ in 0..blocks {
        let places: Vec<usize> = (0..BULK).map(|_| numbers.below(count)).collect();
        let mut unique = places.clone();
        unique.sort_unstable();
        unique.dedup();
        let each = |nanoseconds: u128| nanoseconds as f64 / unique.len() as f64;
        let regions: Vec<Region> = unique.iter().map(|i| function(*i, Announce::NONE)).collect();
        let again = regions.clone();

        let begun = Instant::now();
        unique.iter().for_each(|i| code.unregister(ids[*i]).expect("registered"));
        unregister.push(each(begun.elapsed().as_nanos()));
        let begun = Instant::now();
        trace(&mut cache);
        traced.push(begun.elapsed().as_nanos() as f64);
        let begun = Instant::now();
        for (i, region) in unique.iter().zip(regions) {
            ids[*i] = code.register(region).expect("a free place");
        }
        register.push(each(begun.elapsed().as_nanos()));

        let old: Vec<RegionId> = unique.iter().map(|i| ids[*i]).collect();
        code.unregister_all(&old).expect("registered");
        let begun = Instant::now();
        let new = code.register_all(&again).expect("free places");
        bulk.push(each(begun.elapsed().as_nanos()));
        unique.iter().zip(new).for_each(|(i, id)| ids[*i] = id);
    }
    Times {
        register: median(register),
        unregister: median(unregister),
        bulk: median(bulk),
        trace: median(traced),
    }
}

/// Nanoseconds to register one function that debuggers and the system's unwinder are told of.
fn announced(count: usize) -> f64 {
    let code = Code::new();
    let times = (0..count).map(|i| {
        let region = function(i, Announce::ALL);
        let begun = Instant::now();
        code.register(region).expect("a free place");
        begun.elapsed().as_nanos() as f64
    });
    median(times.collect())
}

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let machine = quiet::Machine::look();
    let (largest, blocks) = if quick { (4, 10) } else { (5, 60) };
    let mut figures = Vec::new();
    let mut flat: [Vec<f64>; 2] = Default::default();
    for power in 2..=largest {
        let times = measure(10_usize.pow(power), blocks);
        println!(
            "10^{power}: register {:.0} ns, in bulk {:.0} ns, unregister {:.0} ns, trace {:.0} ns",
            times.register, times.bulk, times.unregister, times.trace
        );
        figures.push((format!("register_1e{power}_ns"), times.register, "ns"));
        figures.push((format!("register_bulk_1e{power}_ns"), times.bulk, "ns"));
        figures.push((format!("unregister_1e{power}_ns"), times.unregister, "ns"));
        figures.push((format!("register_trace_1e{power}_ns"), times.trace, "ns"));
        flat[0].push(times.register);
        flat[1].push(times.unregister);
    }
    for (name, times) in ["register_flat", "unregister_flat"].into_iter().zip(flat) {
        let (low, high) = times.iter().fold((f64::MAX, 0.0), |(low, high): (f64, f64), time| {
            (low.min(*time), high.max(*time))
        });
        figures.push((name.into(), high / low, "x"));
    }
    figures.push(("register_announced_ns".into(), announced(if quick { 200 } else { 2000 }), "ns"));
    drop(machine);
    for (name, value, unit) in figures {
        println!("figure {name} {value:.2} {unit}");
    }
}
