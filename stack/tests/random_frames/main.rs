//! Random programs of compiled frames against a simple model: see `run.rs`. The fuzz target
//! `compiled_frames` runs the same.
//!
//! `STACKMARK_RANDOM_PROGRAMS` says how many programs there are, `STACKMARK_SEED` with which they
//! begin. So many in a row run on one runtime; a failure says how they are run again.

mod code;
mod model;
mod run;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Unless more are asked for.
const PROGRAMS: u64 = 128 * IN_A_ROW;
/// The longest input, in bytes.
const LONGEST: usize = 80;

/// Programs on one runtime.
const IN_A_ROW: u64 = 10;
/// Frames at once, in most programs and in one of fifty.
const DEEPEST: [usize; 2] = [30, 300];

/// The seed of the program that runs.
static SEED: AtomicU64 = AtomicU64::new(0);

fn variable(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text}")))
}

/// The bytes of a seed.
fn bytes(seed: u64) -> impl Iterator<Item = u8> {
    // SplitMix64, by Steele, Lea and Flood.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = seed.wrapping_add(1).wrapping_mul(STEP);
    std::iter::repeat_with(move || {
        state = state.wrapping_add(STEP);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as u8
    })
}

#[test]
fn random_programs_hold_what_the_model_holds() {
    let programs = variable("STACKMARK_RANDOM_PROGRAMS", PROGRAMS);
    let first = variable("STACKMARK_SEED", 0);
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let (seed, row) = (SEED.load(Relaxed), SEED.load(Relaxed) / IN_A_ROW * IN_A_ROW);
        let count = seed + 1 - row;
        eprintln!("again: STACKMARK_SEED={row} STACKMARK_RANDOM_PROGRAMS={count}");
        hook(panic);
    }));
    let mut setting = None;
    for seed in first..first + programs {
        SEED.store(seed, Relaxed);
        let row = seed / IN_A_ROW;
        if seed % IN_A_ROW == 0 {
            setting = None;
        }
        // All ways in turn.
        let setting = setting.get_or_insert_with(|| run::Setting::new((row % 128) as u8));
        let mut bytes = bytes(seed);
        let len = bytes.next().map_or(0, usize::from) % LONGEST;
        let deepest = DEEPEST[usize::from(seed % 50 == 49)];
        setting.run(&bytes.take(len).collect::<Vec<u8>>(), deepest);
    }
    drop(setting);
    for (name, count) in ["placed", "hit", "moved", "leapfrogged"].iter().zip(&run::BARRIERS) {
        let count = count.load(Relaxed);
        println!("barriers.{name} {count}");
        assert!(count > 0 || programs < PROGRAMS, "no barrier was {name}");
    }
}
