//! Moving a stack, growing and shrinking it.
//!
//! A move copies the bytes in use to the same depth of other memory and rewrites, in the copy, what
//! points into the old stack: stack-map slots whose value lies within it (contract C2), and the
//! saved frame pointers of frames whose CFA is computed from theirs. Return slots and barriers are
//! position independent and are copied as they are.

use crate::goroutine::Goroutine;
use crate::memory::{Origin, StackError, StackKind, StackMemory};
use crate::runtime::Runtime;
use crate::scan::{ScanError, walker};
use crate::{MIN_STACK, STACK_GUARD};
use stackmark_unwind::FrameKind;
use std::sync::atomic::Ordering;

/// What poisoned stack memory holds.
pub const POISON: u8 = 0xdb;

/// Why a stack did not grow.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GrowError {
    /// No memory, or the maximum is reached.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The stack cannot be walked.
    #[error(transparent)]
    Scan(#[from] ScanError),
}

/// Gives a stack back.
pub(crate) fn release(runtime: &Runtime, memory: StackMemory) {
    if runtime.config.poison {
        // SAFETY: the stack in use is mapped, and nobody uses it any more.
        unsafe { std::ptr::write_bytes(memory.lo as *mut u8, POISON, memory.size()) };
    }
    runtime.stacks.give(memory);
}

/// Copies the stack into `new` and makes that the goroutine's. Returns the bytes copied.
///
/// # Errors
/// [`ScanError`]; the goroutine keeps its old stack then, and `new` goes back to the pool.
///
/// # Safety
/// The goroutine is at a poll on this thread, or held and not InForeign; the caller has its
/// `scan_lock`. `new` has room for the bytes in use.
pub(crate) unsafe fn move_to(
    runtime: &Runtime,
    goroutine: &Goroutine,
    new: StackMemory,
) -> Result<usize, ScanError> {
    let sched = &goroutine.header.sched;
    let old = goroutine.bounds();
    let sp = sched.sp.load(Ordering::Relaxed);
    let used = old.end - sp.max(old.start);
    assert!(used <= new.size(), "the new stack has room");
    assert_eq!(goroutine.stack_kind(), StackKind::Moving, "a fixed stack stays where it is");
    let delta = new.hi.wrapping_sub(old.end);
    // SAFETY: both ranges are mapped stacks of ours: `used` bytes below hi are in use here and free
    // there.
    unsafe {
        std::ptr::copy_nonoverlapping(
            (old.end - used) as *const u8,
            (new.hi - used) as *mut u8,
            used,
        )
    };

    // The walk goes over the old stack, where every address is still true; what it finds is
    // rewritten in the copy. SAFETY: `address` lies in the part in use of the old stack, so address
    // + delta lies in the copy.
    let rewrite = |address: usize, word: usize| unsafe {
        *(address.wrapping_add(delta) as *mut usize) = word.wrapping_add(delta);
    };
    let mut fp = sched.fp.load(Ordering::Relaxed);
    let snapshot = runtime.code.snapshot();
    // SAFETY: the goroutine stands still by our contract.
    let mut walk = unsafe { walker(&snapshot, goroutine) };
    loop {
        let frame = match walk.next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => break,
            Err(error) => {
                runtime.stacks.give(new);
                return Err(ScanError { goroutine: goroutine.id(), error });
            }
        };
        // In the frames of the assembly the register still holds the managed caller's frame
        // pointer.
        let is_frame_pointer =
            frame.cfa_from_fp || matches!(frame.kind, FrameKind::Callback | FrameKind::SystemCall);
        if is_frame_pointer && old.contains(&frame.fp) {
            match frame.fp_slot {
                Some(slot) => rewrite(slot, frame.fp),
                None => fp = frame.fp.wrapping_add(delta),
            }
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

    sched.sp.store(new.hi - used, Ordering::Relaxed);
    sched.fp.store(fp, Ordering::Relaxed);
    goroutine.publish_bounds(&new);
    let replaced =
        goroutine.memory.lock().replace(new).expect("a goroutine that stands still has a stack");
    release(runtime, replaced);
    runtime.counters.moved_bytes.fetch_add(used as u64, Ordering::Relaxed);
    Ok(used)
}

/// Makes room for `needed` bytes below the guard of the goroutine's stack pointer.
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
) -> Result<(), GrowError> {
    let config = &runtime.config;
    let bounds = goroutine.bounds();
    let used = bounds.end - goroutine.header.sched.sp.load(Ordering::Relaxed);
    let wanted = used + needed + STACK_GUARD;
    let mut size = (bounds.end - bounds.start) * 2;
    while size < wanted {
        size *= 2;
    }
    let size = size.min(config.max_stack);
    if size < wanted || size <= bounds.end - bounds.start {
        return Err(StackError::Overflow { limit: config.max_stack }.into());
    }
    runtime.counters.grown.fetch_add(1, Ordering::Relaxed);
    runtime.counters.deepest_bytes.fetch_max(used as u64, Ordering::Relaxed);
    let in_place = goroutine.memory.lock().as_ref().is_some_and(Goroutine::grows_in_place);
    if in_place {
        let mut memory = goroutine.memory.lock();
        let memory = memory.as_mut().expect("just looked");
        runtime.stacks.resize(memory, size)?;
        goroutine.publish_bounds(memory);
        return Ok(());
    }
    // New memory before scan_lock.
    let new = if size > config.move_limit || !size.is_power_of_two() {
        // A maximum that is no power of two is reached in place too. Where no range can be
        // reserved, doubling by moving goes on.
        runtime
            .stacks
            .reserve(size.next_multiple_of(4096))
            .or_else(|_| runtime.stacks.take(size.next_power_of_two()))?
    } else {
        runtime.stacks.take(size)?
    };
    let _scan_lock = goroutine.scan_lock();
    // SAFETY: the goroutine is at a poll on this thread; the new stack is larger.
    let copied = unsafe { move_to(runtime, goroutine, new)? };
    runtime.counters.largest_move_bytes.fetch_max(copied as u64, Ordering::Relaxed);
    Ok(())
}

/// Halves the stack if less than a quarter of it is used or asked for.
///
/// # Errors
/// [`ScanError`].
///
/// # Safety
/// As for [`move_to`]; the goroutine is not InForeign.
pub(crate) unsafe fn shrink(runtime: &Runtime, goroutine: &Goroutine) -> Result<(), ScanError> {
    let bounds = goroutine.bounds();
    let size = bounds.end - bounds.start;
    let used = bounds.end - goroutine.header.sched.sp.load(Ordering::Relaxed);
    let wanted = used + goroutine.room.load(Ordering::Relaxed) + STACK_GUARD;
    if size <= MIN_STACK || wanted >= size / 4 {
        return Ok(());
    }
    let origin = goroutine.memory.lock().as_ref().map(|memory| memory.origin);
    match origin {
        None => return Ok(()),
        Some(Origin::Reserved { .. }) => {
            // A reserved stack stays where it is: giving pages back costs nothing that depends on
            // the depth.
            let mut memory = goroutine.memory.lock();
            let memory = memory.as_mut().expect("just looked");
            let mut smaller = size / 2;
            while wanted < smaller / 4 && smaller > runtime.config.move_limit {
                smaller /= 2;
            }
            if smaller < runtime.config.move_limit {
                return Ok(());
            }
            let resized = runtime.stacks.resize(memory, smaller.next_multiple_of(4096));
            resized.expect("a smaller stack fits where it is");
            goroutine.publish_bounds(memory);
        }
        Some(Origin::Small | Origin::Medium) => {
            // No memory for a smaller stack is no reason to fail.
            let Ok(new) = runtime.stacks.take(size / 2) else { return Ok(()) };
            // SAFETY: by our contract; half the stack has room for what is used.
            unsafe { move_to(runtime, goroutine, new)? };
        }
    }
    runtime.counters.shrunk.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Moves the stack to other memory of the same size, unless it is fixed: for debugging.
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
    if goroutine.stack_kind() == StackKind::Fixed {
        return Ok(());
    }
    let (size, in_place) = {
        let memory = goroutine.memory.lock();
        let memory = memory.as_ref().expect("a goroutine at a poll has a stack");
        (memory.size(), Goroutine::grows_in_place(memory))
    };
    let new = if in_place { runtime.stacks.reserve(size)? } else { runtime.stacks.take(size)? };
    let _scan_lock = goroutine.scan_lock();
    // SAFETY: the goroutine is at a poll on this thread; the sizes are the same.
    unsafe { move_to(runtime, goroutine, new)? };
    Ok(())
}
