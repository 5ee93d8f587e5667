//! Moving, growing and shrinking a stack.
//!
//! A move copies the bytes in use to the same depth of other memory. In the copy it rewrites the
//! words that point into the old stack: stack-map slots whose value lies within it (contract C2),
//! and the saved frame pointers of frames whose CFA is computed from theirs. Return addresses and
//! barriers do not depend on the position, and are copied unchanged: but where a function signs its
//! return address, the signature is for the frame's CFA, so the word is signed again.

use super::live::{LiveSlots, ScanError, next_frame, walker};
use crate::goroutine::Goroutine;
use crate::memory::{StackError, StackKind, StackMemory};
use crate::os;
use crate::protocol::StackScan;
use crate::runtime::{ImageTable, Runtime, count, raise};
use stackmark_asm as asm;
use stackmark_unwind::FrameKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The byte that poisoned stack memory is filled with.
pub const POISON: u8 = 0xdb;

/// Why a stack did not grow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowError {
    /// No memory, or the maximum is reached.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// An exception crosses the stack, and room is only to be had by a move.
    #[error(
        "the stack of goroutine {goroutine} would have to move while an exception crosses it that \
         nothing catches: a destructor has called back into managed code"
    )]
    Crossed {
        /// The goroutine's number.
        goroutine: u64,
    },
    /// The stack cannot be walked.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Gives a stack back to the pool, poisoned if the configuration says so.
pub(crate) fn release(runtime: &Runtime, memory: StackMemory) {
    if runtime.config.poison {
        // SAFETY: the stack in use is mapped, and no goroutine uses it any more.
        unsafe { std::ptr::write_bytes(memory.lo as *mut u8, POISON, memory.size()) };
    }
    runtime.stacks.give(memory);
}

/// Bytes that a move copies, and frames that it visits, before a goroutine that moves its own stack
/// answers.
const COPIED: usize = 64 << 10;
const FRAMES: usize = 256;

/// The copy of a stack, which is not in use yet.
struct Copied {
    memory: StackMemory,
    used: usize,
    fp: usize,
}

/// Copies the stack into `new`. The stack in use stays as it is. Calls `between` after each piece
/// of the work.
///
/// # Errors
/// [`ScanError`]: `new` goes back to the pool.
///
/// # Safety
/// The goroutine is at a poll on this thread, or held and not InForeign. `new` has room for the
/// bytes in use.
unsafe fn copy_to(
    runtime: &Runtime,
    goroutine: &Goroutine,
    new: StackMemory,
    between: &mut dyn FnMut(),
) -> Result<Copied, ScanError> {
    let sched = &goroutine.header.sched;
    let old = goroutine.bounds();
    let sp = sched.sp.load(Ordering::Relaxed);
    let used = old.end - sp.max(old.start);
    assert!(used <= new.size(), "the new stack has room");
    assert_eq!(goroutine.stack_kind(), StackKind::Moving, "a fixed stack stays where it is");
    let delta = new.hi.wrapping_sub(old.end);
    for from in (0..used).step_by(COPIED) {
        let (source, target) = (old.end - used + from, new.hi - used + from);
        let bytes = COPIED.min(used - from);
        // SAFETY: both ranges are mapped stacks of ours. The `used` bytes below the high end are in
        // use in the old stack and free in the new one. The goroutine stands still.
        unsafe {
            std::ptr::copy_nonoverlapping(source as *const u8, target as *mut u8, bytes);
        }
        between();
    }

    // The walk reads the old stack, where every address is still true. It
    // rewrites words in the copy.
    // SAFETY: `address` lies in the part in use of the old stack, so `address
    // + delta` lies in the copy.
    let put = |address: usize, word: usize| unsafe {
        *(address.wrapping_add(delta) as *mut usize) = word;
    };
    let rewrite = |address: usize, word: usize| put(address, word.wrapping_add(delta));
    let mut fp = sched.fp.load(Ordering::Relaxed);
    let snapshot = runtime.code.snapshot();
    // SAFETY: the goroutine stands still by our contract.
    let mut walk = unsafe { walker(&snapshot, goroutine) };
    for number in 1.. {
        if number % FRAMES == 0 {
            between();
        }
        let frame = match next_frame(&mut walk) {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                runtime.stacks.give(new);
                return Err(ScanError { goroutine: goroutine.id(), error });
            }
        };
        // In the frames of the assembly the register holds the frame pointer of
        // the managed calling frame.
        let is_frame_pointer =
            frame.cfa_from_fp || matches!(frame.kind, FrameKind::Callback | FrameKind::SystemCall);
        if is_frame_pointer && old.contains(&frame.fp) {
            match frame.fp_slot {
                Some(slot) => rewrite(slot, frame.fp),
                None => fp = frame.fp.wrapping_add(delta),
            }
        }
        if frame.return_is_signed()
            && let Some(slot) = frame.return_slot
        {
            // SAFETY: the walker has read the slot.
            let word = unsafe { *(slot as *const usize) };
            let address = asm::authenticate_return(word, frame.cfa);
            put(slot, asm::sign_return(address, frame.cfa.wrapping_add(delta)));
        }
        for slot in frame.slots() {
            // SAFETY: the walker has checked that the frame lies within the stack, and registration
            // that the slots of a safepoint lie within its frame.
            let word = unsafe { *(slot as *const usize) };
            if old.contains(&word) {
                rewrite(slot, word);
            }
        }
    }

    runtime.statistics.counters.moved_bytes.fetch_add(used as u64, Ordering::Relaxed);
    Ok(Copied { memory: new, used, fp })
}

/// Tells the system's unwinder where the goroutine's frames are now: through barriers, and, if the
/// goroutine runs on this thread, from native code on.
fn tell_unwinder(goroutine: &Goroutine, scan: &StackScan) {
    // SAFETY: the goroutine stands still, and the slots are only named.
    let slots = unsafe { LiveSlots::new(goroutine.bounds()) };
    scan.barriers().describe(&slots, &ImageTable);
    // SAFETY: null, or the machine of this thread.
    if let Some(machine) = unsafe { asm::current().as_ref() }
        && machine.goroutine.load(Ordering::Relaxed) == goroutine.address()
    {
        // SAFETY: the goroutine stands in the native code that calls us.
        unsafe { asm::stack_moved(machine, &goroutine.header) };
    }
}

/// Makes the copy the goroutine's stack. Returns the old one, which the caller
/// [releases](release) when it has left the `scan_lock`, whose `scan` this is.
///
/// # Safety
/// The goroutine has not run, and no thread has written its slots, since [`copy_to`] began.
unsafe fn switch_to(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &StackScan,
    copied: Copied,
) -> StackMemory {
    let Copied { memory, used, fp } = copied;
    let sched = &goroutine.header.sched;
    sched.sp.store(memory.hi - used, Ordering::Relaxed);
    sched.fp.store(fp, Ordering::Relaxed);
    goroutine.publish_bounds(&memory);
    tell_unwinder(goroutine, scan);
    count(&runtime.statistics.counters.moved, scan.barriers().unhit().len() as u64);
    let old = goroutine.memory.lock().replace(memory);
    old.expect("a goroutine that stands still has a stack")
}

/// Moves the stack of this thread's goroutine. It answers handshakes and stops of the world by
/// `between`: until the copy is complete, all there is to scan is the old stack. If a stopped world
/// has scanned it meanwhile, which may write it, the copy is made again, at one go. Returns the
/// bytes copied.
///
/// # Errors
/// [`ScanError`]: the goroutine keeps its old stack, and `new` goes back to the pool.
///
/// # Safety
/// The goroutine is at a poll on this thread. `new` has room for the bytes in use.
unsafe fn move_own(
    runtime: &Runtime,
    goroutine: &Goroutine,
    new: StackMemory,
    between: &mut dyn FnMut(),
) -> Result<usize, ScanError> {
    let scans = runtime.cycle.scans_in_stopped_worlds();
    // SAFETY: our contract. The goroutine counts as Running, so no thread holds it. Besides a
    // holder only scans in a stopped world write its slots. Workers only read.
    let mut copied = unsafe { copy_to(runtime, goroutine, new, between)? };
    if runtime.cycle.scans_in_stopped_worlds() != scans {
        // SAFETY: as above.
        copied = unsafe { copy_to(runtime, goroutine, copied.memory, &mut || {})? };
    }
    let used = copied.used;
    // Workers read the old stack under the lock.
    let scan = goroutine.scan_lock();
    // SAFETY: the goroutine is still at its poll.
    let old = unsafe { switch_to(runtime, goroutine, &scan, copied) };
    drop(scan);
    release(runtime, old);
    Ok(used)
}

/// Grows the stack so that at least `needed` bytes and the guard lie below the goroutine's stack
/// pointer. Calls `between`, which answers handshakes, after each piece of the work.
///
/// # Errors
/// [`StackError::Overflow`], no memory, or a stack that cannot be walked.
///
/// # Safety
/// The goroutine is at a poll on this thread.
pub(crate) unsafe fn grow(
    runtime: &Runtime,
    goroutine: &Goroutine,
    needed: usize,
    between: &mut dyn FnMut(),
) -> Result<(), GrowError> {
    let config = &runtime.config;
    let bounds = goroutine.bounds();
    if goroutine.is_on_thread() {
        return Err(StackError::Overflow { limit: bounds.end - bounds.start }.into());
    }
    let used = bounds.end - goroutine.header.sched.sp.load(Ordering::Relaxed);
    let overflow = StackError::Overflow { limit: config.max_stack };
    let wanted =
        needed.checked_add(used + goroutine.guard()).filter(|&wanted| wanted <= config.max_stack);
    let Some(wanted) = wanted else { return Err(overflow.into()) };
    let mut size = (bounds.end - bounds.start) * 2;
    while size < wanted {
        size *= 2;
    }
    let size = size.min(config.max_stack);
    if size <= bounds.end - bounds.start {
        return Err(overflow.into());
    }
    runtime.statistics.counters.grown.fetch_add(1, Ordering::Relaxed);
    raise(&runtime.statistics.counters.deepest_bytes, used as u64);
    let in_place = goroutine.memory.lock().as_ref().is_some_and(StackMemory::grows_in_place);
    if in_place {
        let mut memory = goroutine.memory.lock();
        let memory = memory.as_mut().expect("just looked");
        runtime.stacks.resize(memory, size)?;
        goroutine.publish_bounds(memory);
        return Ok(());
    }
    if goroutine.is_crossed_by_exception() {
        return Err(GrowError::Crossed { goroutine: goroutine.id() });
    }
    // Memory is taken before `scan_lock`.
    let new = if size > config.move_limit || !size.is_power_of_two() {
        // A maximum that is no power of two is also reached in place. Where no range can be
        // reserved, the stack doubles by a move.
        runtime
            .stacks
            .reserve(size.next_multiple_of(os::page_size()))
            .or_else(|_| runtime.stacks.take(size.next_power_of_two()))?
    } else {
        runtime.stacks.take(size)?
    };
    // SAFETY: the goroutine is at a poll on this thread; the new stack is larger.
    let copied = unsafe { move_own(runtime, goroutine, new, between)? };
    runtime.statistics.counters.largest_move_bytes.fetch_max(copied as u64, Ordering::Relaxed);
    Ok(())
}

/// Bytes of a stack that are used or asked for, if frames use `used`.
fn wanted(goroutine: &Goroutine, used: usize) -> usize {
    used + goroutine.room.load(Ordering::Relaxed) + goroutine.guard()
}

/// Whether less than a quarter of a stack of `size` bytes is used or asked for.
fn is_too_large(runtime: &Runtime, goroutine: &Goroutine, size: usize, used: usize) -> bool {
    size > runtime.config.first_stack() && wanted(goroutine, used) < size / 4
}

/// Whether a stack of `size` bytes shrinks by a move. Larger ones and fixed ones shrink in place. A
/// goroutine that was deep once so comes back to what the others have: a reserved range has two
/// mappings, of which a process may have some 65,000.
fn shrinks_by_a_move(runtime: &Runtime, goroutine: &Goroutine, size: usize) -> bool {
    goroutine.stack_kind() == StackKind::Moving && size / 2 < runtime.config.move_limit
}

/// Bytes of the memory to which a stack of `size` bytes shrinks by a move: half, and a power of
/// two, which a reserved stack's size may not be.
fn smaller_size(size: usize) -> usize {
    (size / 2).next_power_of_two()
}

/// Calls `f`, which takes the goroutine's `scan_lock` and may [`shrink`] its stack, with memory to
/// move it to. What is left of that goes back to the pool, when `f` has left the lock.
pub(crate) fn with_memory_to_shrink<R>(
    runtime: &Runtime,
    goroutine: &Goroutine,
    f: impl FnOnce(&mut Option<StackMemory>) -> R,
) -> R {
    let mut memory = memory_to_shrink(runtime, goroutine);
    let result = f(&mut memory);
    if let Some(memory) = memory {
        release(runtime, memory);
    }
    result
}

/// Memory to which [`shrink`] may move the goroutine's stack, taken before its `scan_lock`. `None`
/// if the stack does not seem too large, if it shrinks in place, or if there is no memory. Called
/// on any thread. The goroutine may run meanwhile, so this is a guess.
fn memory_to_shrink(runtime: &Runtime, goroutine: &Goroutine) -> Option<StackMemory> {
    let bounds = goroutine.bounds();
    let size = bounds.end.checked_sub(bounds.start)?;
    let used = bounds.end.checked_sub(goroutine.header.sched.sp.load(Ordering::Relaxed))?;
    if shrinks_by_a_move(runtime, goroutine, size)
        && used <= size
        && is_too_large(runtime, goroutine, size, used)
    {
        runtime.stacks.take(smaller_size(size)).ok()
    } else {
        None
    }
}

/// Makes the stack smaller if less than a quarter of it is used or asked for. `memory` comes from
/// [`with_memory_to_shrink`], which gives back what is left in it. Nothing here depends on the
/// depth: a stack that shrinks in place keeps its pages until [`Runtime::trim_stacks`], and one
/// that moves has less than half of the move limit in use.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// The goroutine is at a poll on this thread, or held and not InForeign; `scan` is its own.
pub(crate) unsafe fn shrink(
    runtime: &Runtime,
    goroutine: &Arc<Goroutine>,
    scan: &StackScan,
    memory: &mut Option<StackMemory>,
) -> Result<(), ScanError> {
    let bounds = goroutine.bounds();
    let size = bounds.end - bounds.start;
    let used = bounds.end - goroutine.header.sched.sp.load(Ordering::Relaxed);
    if !is_too_large(runtime, goroutine, size, used) {
        return Ok(());
    }
    let in_place = goroutine.memory.lock().as_ref().map(StackMemory::grows_in_place);
    match in_place {
        None => return Ok(()),
        Some(true) if !shrinks_by_a_move(runtime, goroutine, size) => {
            // A reserved stack shrinks in place.
            let mut stack = goroutine.memory.lock();
            let stack = stack.as_mut().expect("just looked");
            let wanted = wanted(goroutine, used);
            let mut smaller = size / 2;
            while wanted < smaller / 4 && smaller > runtime.config.move_limit {
                smaller /= 2;
            }
            if smaller < runtime.config.move_limit {
                return Ok(());
            }
            let resized = runtime.stacks.resize(stack, smaller.next_multiple_of(os::page_size()));
            resized.expect("a smaller stack fits where it is");
            goroutine.publish_bounds(stack);
            runtime.registry.has_shrunk(goroutine.clone());
        }
        Some(_) if goroutine.is_crossed_by_exception() => return Ok(()),
        Some(_) => {
            // Without memory of the right size the stack stays as it is. The guess was wrong, or
            // there is no memory for a smaller stack.
            let Some(new) = memory.take_if(|memory| memory.size() == smaller_size(size)) else {
                return Ok(());
            };
            // SAFETY: by our contract; half the stack has room for what is used.
            let old = unsafe {
                let copied = copy_to(runtime, goroutine, new, &mut || {})?;
                switch_to(runtime, goroutine, scan, copied)
            };
            *memory = Some(old);
        }
    }
    runtime.statistics.counters.shrunk.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Moves the stack to other memory of the same size, unless it is fixed. For debugging.
///
/// # Errors
/// No memory, or a stack that cannot be walked.
///
/// # Safety
/// The goroutine is at a poll on this thread.
pub(crate) unsafe fn move_elsewhere(
    runtime: &Runtime,
    goroutine: &Goroutine,
) -> Result<(), GrowError> {
    if goroutine.stack_kind() == StackKind::Fixed || goroutine.is_crossed_by_exception() {
        return Ok(());
    }
    let (size, in_place) = {
        let memory = goroutine.memory.lock();
        let memory = memory.as_ref().expect("a goroutine at a poll has a stack");
        (memory.size(), memory.grows_in_place())
    };
    let new = if in_place { runtime.stacks.reserve(size)? } else { runtime.stacks.take(size)? };
    // SAFETY: the goroutine is at a poll on this thread; the sizes are the same.
    unsafe { move_own(runtime, goroutine, new, &mut || {})? };
    Ok(())
}
