//! What a thread looks at on its way back to managed code: rare events of the whole process that
//! native code has caused.
//!
//! - *A fork.* The child has the memory of all threads, and only the thread that forked. What it
//!   waits for never comes, so a call into the runtime ends it.
//! - *A handler without SA_ONSTACK*, which overruns the small stack of the goroutine that it
//!   interrupts. Looking at all handlers takes some 20 microseconds, so it is done once in a while:
//!   see `look_soon`.
//!
//! One word tells of both, so that the way back costs one load.

use crate::{ending, os};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The word's values. A fork clears it.
const FORKED: u32 = 0;
const QUIET: u32 = 1;
const LOOK: u32 = 2;

/// The word before the first runtime is made.
static NOT_PREPARED: AtomicU32 = AtomicU32::new(QUIET);
/// The word. It is replaced before the first runtime is made, so a thread that has a runtime has
/// seen that. Relaxed but in `prepare`.
static WORD: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const NOT_PREPARED).cast_mut());
/// The signals whose handlers are known to lack SA_ONSTACK, as bits. Relaxed: a set.
static KNOWN: AtomicU64 = AtomicU64::new(0);

/// The word. It is the same one for the whole life of a thread that is attached.
#[inline(always)]
pub(crate) fn word() -> &'static AtomicU32 {
    // SAFETY: the address of a static word.
    unsafe { &*WORD.load(Ordering::Relaxed) }
}

fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Prepares the word. Returns the signals whose handlers lack SA_ONSTACK now: these do not end the
/// process later. Called before the first thread is attached.
pub(crate) fn prepare() -> Vec<i32> {
    let found: Vec<i32> = os::handlers_without_alternate_stack().collect();
    KNOWN.fetch_or(found.iter().fold(0, |set, &signal| set | bit(signal)), Ordering::Relaxed);
    let word = os::word_that_a_fork_clears();
    // Only once: a runtime that is made in a child does not bring back the threads of the others.
    // Acquire and Release: a thread that makes a second runtime, and finds the word replaced, must
    // not read the page as it was, which would mean a fork.
    if WORD.load(Ordering::Acquire) == (&raw const NOT_PREPARED).cast_mut() {
        word.store(LOOK, Ordering::Relaxed);
        WORD.store((&raw const *word).cast_mut(), Ordering::Release);
    }
    found
}

/// Ends the process if something has happened that managed code must not see. Called on a thread
/// that comes from native code, before it waits for anything.
#[inline]
pub fn check() {
    check_word(word());
}

/// As [`check`], by what [`word`] gives.
#[inline(always)]
pub(crate) fn check_word(word: &AtomicU32) {
    if word.load(Ordering::Relaxed) != QUIET {
        act();
    }
}

/// As [`check`], for forks alone: before a thread keeps others waiting, takes a lock of the runtime
/// or hands work to another thread. It does not look at the handlers, which takes long.
#[inline(always)]
pub fn check_fork() {
    if word().load(Ordering::Relaxed) == FORKED {
        end_child();
    }
}

/// Makes the next [`check`] look at the handlers.
pub(crate) fn look_soon() {
    // Relaxed: the word publishes nothing. A child's word stays 0.
    let _ = word().compare_exchange(QUIET, LOOK, Ordering::Relaxed, Ordering::Relaxed);
}

#[cold]
fn act() {
    check_fork();
    let _ = word().compare_exchange(LOOK, QUIET, Ordering::Relaxed, Ordering::Relaxed);
    check_handlers();
}

#[cold]
fn end_child() -> ! {
    ending::end(format_args!(
        "the child of a fork has called into the runtime, whose threads it does not have: it may \
         only call C, exec or exit"
    ))
}

/// Ends the process if a handler has been installed that would overrun a goroutine's stack.
/// Signal-safe.
pub(crate) fn check_handlers() {
    let known = KNOWN.load(Ordering::Relaxed);
    let found = os::handlers_without_alternate_stack().find(|&signal| known & bit(signal) == 0);
    if let Some(signal) = found {
        ending::end(format_args!(
            "a handler of signal {signal} has been installed without SA_ONSTACK: it overruns the \
             stack of a goroutine that it interrupts"
        ));
    }
}
