//! Light and heavy fences over membarrier(2), and what follows when the system takes it away.
//!
//! A process may lose membarrier at any time: a sandbox that is entered after start-up refuses it.
//! The light fences of other threads are then only the compiler's, so the change needs one more
//! fence of all threads, by other means.
//!
//! Invariants:
//!
//! 1. While `LIGHT` is true, `REACHES` is true: a heavy fence reaches all threads.
//! 2. [`fall_back`] makes light fences full ones, then reaches all threads once, then lets heavy
//!    fences be plain ones. Let `p` be the moment at which a thread is reached. A light fence that
//!    reads `LIGHT` behind `p` reads false and is full. One that reads it before `p` has its store
//!    before `p`, too, so a later heavy fence finds that store in memory.
//! 3. A heavy fence that reads `REACHES` as false is behind all these moments, by the Release of
//!    `fall_back`. One that reads true and is refused falls back itself.

use super::counts::count_membarrier;
use crate::{ending, os};
use std::hint::cold_path;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering, compiler_fence, fence};

/// Whether light fences are the compiler's alone. Relaxed in `light_fence`: invariant 2.
static LIGHT: AtomicBool = AtomicBool::new(false);
/// Whether heavy fences must reach other threads. Acquire and Release: invariant 3.
static REACHES: AtomicBool = AtomicBool::new(false);

/// Asks the system, once, for membarrier, which makes light fences light. Called before the first
/// thread is attached.
pub fn prepare_fences() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        if os::prepare_fence_of_all_threads() {
            set_light();
        }
    });
}

fn set_light() {
    REACHES.store(true, Ordering::SeqCst);
    LIGHT.store(true, Ordering::SeqCst);
}

/// The frequent half of a pair of fences between two threads. Each thread writes one word, fences,
/// and reads the other's word. A light and a [heavy](heavy_fence) fence order as two
/// `fence(SeqCst)` do. Two light fences order nothing.
#[inline(always)]
pub fn light_fence() {
    // Keeps the read of `LIGHT` behind the store: invariant 2.
    compiler_fence(Ordering::SeqCst);
    if LIGHT.load(Ordering::Relaxed) {
        compiler_fence(Ordering::SeqCst);
    } else {
        cold_path();
        fence(Ordering::SeqCst);
    }
}

/// The rare half of the pair: takes microseconds. It is also a `fence(SeqCst)`. Where the system
/// refuses every fence of all threads, the process ends with status 2.
pub fn heavy_fence() {
    fence(Ordering::SeqCst);
    if REACHES.load(Ordering::Acquire) {
        count_membarrier();
        if let Err(refusal) = os::fence_all_threads() {
            fall_back(&refusal);
        }
    }
}

/// Does without membarrier from now on. Several threads may do so at once: each reaches all
/// threads before it goes on.
#[cold]
fn fall_back(refusal: &io::Error) {
    LIGHT.store(false, Ordering::SeqCst);
    if let Err(error) = os::visit_all_processors() {
        ending::end(format_args!(
            "membarrier is refused ({refusal}), and so is a visit to each processor ({error})"
        ));
    }
    REACHES.store(false, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};

    /// One litmus test of store buffering: two words, and what each thread read of the other's.
    #[derive(Default)]
    struct Slot {
        light: AtomicBool,
        heavy: AtomicBool,
        light_saw: AtomicBool,
        /// 0: the heavy thread has left this slot out. 1: it saw nothing. 2: it saw the store.
        heavy_saw: AtomicU8,
    }

    const SLOTS: usize = 1 << 18;

    /// A thread with light fences goes through the slots as fast as it can. A thread with heavy
    /// fences meets it a little ahead, again and again. In each slot both store a word and read the
    /// other's: one of them must see the other's store. `before` runs before each heavy
    /// fence. Returns in how many slots they met.
    fn one_of_two_sees_the_other(mut before: impl FnMut(usize)) -> usize {
        let slots: Vec<Slot> = (0..SLOTS).map(|_| Slot::default()).collect();
        let progress = AtomicUsize::new(0);
        let mut met = 0;
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for (number, slot) in slots.iter().enumerate() {
                    slot.light.store(true, Ordering::Relaxed);
                    light_fence();
                    let saw = slot.heavy.load(Ordering::Relaxed);
                    slot.light_saw.store(saw, Ordering::Relaxed);
                    progress.store(number, Ordering::Relaxed);
                }
            });
            let mut last = 0;
            loop {
                before(met);
                let ahead = progress.load(Ordering::Relaxed) + 1 + met % 600;
                let next = ahead.max(last + 1);
                let Some(slot) = slots.get(next) else { break };
                slot.heavy.store(true, Ordering::Relaxed);
                heavy_fence();
                let saw = slot.light.load(Ordering::Relaxed);
                slot.heavy_saw.store(1 + u8::from(saw), Ordering::Relaxed);
                (last, met) = (next, met + 1);
            }
        });
        for (number, slot) in slots.iter().enumerate() {
            let neither = slot.heavy_saw.load(Ordering::Relaxed) == 1
                && !slot.light_saw.load(Ordering::Relaxed);
            assert!(!neither, "in slot {number} neither saw the other's store");
        }
        met
    }

    /// The flags belong to the process, and other tests use fences: so this runs in one of its own.
    #[test]
    fn light_and_heavy_fences_order_with_membarrier_without_it_and_in_between() {
        const ALONE: &str = "STACKMARK_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return all_three();
        }
        let name = std::thread::current().name().expect("a test's thread").to_owned();
        let mut alone = limits::this_program();
        alone.args([&*name, "--exact", "--nocapture", "--test-threads=1"]).env(ALONE, "1");
        let output = alone.output().expect("this program runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
    }

    fn all_three() {
        const PASSES: usize = 40;
        prepare_fences();
        if !REACHES.load(Ordering::Relaxed) {
            println!("skipped: the system has no membarrier");
            return;
        }
        let refusal = io::Error::from(io::ErrorKind::PermissionDenied);
        let with: usize = (0..PASSES).map(|_| one_of_two_sees_the_other(|_| {})).sum();
        // Each time the thread with light fences is somewhere else when membarrier goes.
        let mut between = 0;
        while between < 3000 {
            between += one_of_two_sees_the_other(|met| match met % 6 {
                0 => set_light(),
                3 => fall_back(&refusal),
                _ => {}
            });
        }
        fall_back(&refusal);
        let without: usize = (0..PASSES).map(|_| one_of_two_sees_the_other(|_| {})).sum();
        println!("met {with} times, {between} in changes, {without} without");
    }
}
