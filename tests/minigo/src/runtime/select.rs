//! `select`.
//!
//! The cases come in a block of the caller's frame, CASE_WORDS words each: a channel or nil, 1 for
//! a receive, room for its place in the channel's queue, and the element that a send sends. The
//! channels are locked together, in the order of their addresses. A goroutine that must wait stands
//! in the queues of all of them. The first partner to claim it wakes it; then it takes itself out
//! of the other queues.

use super::arguments::{Arguments, natives};
use super::channel::{Channel, ELEMENT_WORDS, Outcome, locked};
use super::host;
use super::queue::{Case, SELECTED, Waiting, Wake};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Word of a case from which on its element lies.
pub(crate) const CASE_ELEMENT: usize = 3;
/// Words of a case.
pub(crate) const CASE_WORDS: usize = CASE_ELEMENT + ELEMENT_WORDS;

struct Cases<'b>(&'b mut [[usize; CASE_WORDS]]);

impl Cases<'_> {
    fn channel(&self, i: usize) -> usize {
        self.0[i][0]
    }

    fn receives(&self, i: usize) -> bool {
        self.0[i][1] != 0
    }

    /// The place in the channel's queue, for a goroutine that waits.
    fn place(&mut self, i: usize) -> &mut usize {
        &mut self.0[i][2]
    }

    fn element(&self, i: usize, words: usize) -> &[usize] {
        &self.0[i][CASE_ELEMENT..CASE_ELEMENT + words]
    }

    /// The channels, each once, by address.
    fn channels(&self) -> Vec<usize> {
        let mut all: Vec<usize> = self.0.iter().map(|c| c[0]).filter(|c| *c != 0).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// # Safety
/// The words are a block's address and the number of its cases.
unsafe fn cases<'b>(at: usize, count: usize) -> Cases<'b> {
    match count {
        0 => Cases(&mut []),
        // SAFETY: the caller's promise: the frame's own block, which nothing else uses meanwhile.
        _ => Cases(unsafe { std::slice::from_raw_parts_mut(at as *mut _, count) }),
    }
}

/// # Safety
/// `at` is a channel that this thread has locked.
unsafe fn held<'c>(at: usize) -> &'c mut Channel {
    // SAFETY: the caller's promise; one reference at a time is made of it.
    unsafe { &mut *(at as *mut Channel) }
}

/// Where the look at the cases begins: no case is preferred.
fn start(count: usize) -> usize {
    // Relaxed: any number will do.
    static TURN: AtomicUsize = AtomicUsize::new(1);
    let turn = TURN.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (turn >> 33) % count
}

/// Does the first case that need not wait: its number, and whether an element was handed over. All
/// channels are locked.
fn try_all(a: &Arguments<'_>, cases: &Cases<'_>, wake: &mut Option<Wake>) -> Option<(usize, bool)> {
    let count = cases.0.len();
    let first = start(count.max(1));
    for i in (0..count).map(|i| (first + i) % count).filter(|i| cases.channel(*i) != 0) {
        // SAFETY: locked by our caller.
        let c = unsafe { held(cases.channel(i)) };
        if !c.is_ready(cases.receives(i)) {
            continue;
        }
        let outcome = match cases.receives(i) {
            true => c.receive(a),
            false => {
                let element = cases.element(i, ELEMENT_WORDS);
                c.shade(element);
                c.send(element)
            }
        };
        match outcome {
            Outcome::Done(other) => {
                *wake = other;
                return Some((i, true));
            }
            Outcome::Closed => return Some((i, false)),
            Outcome::Wait => {}
        }
    }
    None
}

natives! {
    /// (cases, count, 1 if there is a default) -> twice the case that was done (the count for the
    /// default), and 1 more if an element was handed over; or that and SELECTED more from a
    /// goroutine that has waited.
    fn select(a) {
        // SAFETY: compiled code passes its block, which is only used before anything can move.
        let mut cases = unsafe { cases(a.get(0), a.get(1)) };
        let channels = cases.channels();
        if channels.is_empty() && a.get(2) == 0 {
            drop(channels);
            return host::park(host::Wait::Select, |_| {});
        }
        for c in &channels {
            // SAFETY: channels of the program.
            unsafe { locked(*c) };
        }
        let unlock = |channels: &[usize]| {
            for c in channels {
                // SAFETY: locked right above.
                unsafe { held(*c) }.unlock();
            }
        };
        let mut wake = None;
        let done = try_all(&a, &cases, &mut wake);
        if done.is_some() || a.get(2) != 0 {
            unlock(&channels);
            if let Some(wake) = wake {
                wake.wake();
            }
            let (case, handed_over) = done.unwrap_or((cases.0.len(), false));
            return 2 * case + usize::from(handed_over);
        }
        let claimed = Arc::new(AtomicBool::new(false));
        let mut words = vec![];
        for i in 0..cases.0.len() {
            if cases.channel(i) == 0 {
                continue;
            }
            // SAFETY: as above.
            let c = unsafe { held(cases.channel(i)) };
            let from = words.len();
            if !cases.receives(i) {
                words.extend_from_slice(cases.element(i, c.words()));
            }
            let case = Case { claimed: claimed.clone(), index: i, element: from..words.len() };
            let me = Waiting { waiter: host::Waiter::current(), select: Some(Box::new(case)) };
            let queue = if cases.receives(i) { &mut c.receivers } else { &mut c.senders };
            *cases.place(i) = queue.push(me) as usize;
        }
        host::set_transfer(&words);
        drop((words, claimed));
        host::park(host::Wait::Select, move |_| {
            unlock(&channels);
            drop(channels);
        })
    }

    /// (cases, count, what `select` returned): takes the goroutine out of the queues; the element
    /// that it was handed is in the result words. -> twice the case, and 1 more if an element was
    /// handed over.
    fn select_woken(a) {
        // SAFETY: as in select; the block is where the stack is now.
        let cases = unsafe { cases(a.get(0), a.get(1)) };
        let result = a.get(2) - SELECTED;
        let me = host::Waiter::current();
        for i in (0..cases.0.len()).filter(|i| cases.channel(*i) != 0) {
            // SAFETY: the program's channels, alive as the block's operands are.
            let c = unsafe { locked(cases.channel(i)) };
            let queue = if cases.receives(i) { &mut c.receivers } else { &mut c.senders };
            queue.remove(cases.0[i][2] as u64, &me);
            c.unlock();
        }
        let words = me.take_transfer();
        if cases.receives(result / 2) {
            for i in 0..ELEMENT_WORDS {
                a.set(1 + i, if result % 2 == 1 { words.get(i).copied().unwrap_or(0) } else { 0 });
            }
        }
        result
    }
}
