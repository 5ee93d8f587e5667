//! What becomes of barriers and scans when a goroutine leaves frames: by a return through a
//! barrier, without a return, or by a return to a foreign call.

use super::live::{self, position, youngest};
use super::{visit, young};
use crate::goroutine::Goroutine;
use crate::protocol::{FramePointer, Position, Settled, StackScan};
use crate::runtime::{Activity, MachineEntry, Runtime, count, stubs};
use stackmark_asm as asm;
use stackmark_unwind::{Registers, prefetch};

/// The goroutine of this thread, on `machine`, returns through the stub in `slot`, with this frame
/// pointer.
#[inline]
pub(crate) fn hit(
    runtime: &Runtime,
    machine: &MachineEntry,
    goroutine: &Goroutine,
    (slot, stub, fp): (usize, usize, usize),
) {
    let observed = &runtime.statistics.observed;
    let _span = observed.span_within(Activity::BarrierHit, || goroutine.id());
    let bounds = goroutine.bounds();
    let depth = bounds.end - slot;
    let mut scan = goroutine.scan_lock();
    // SAFETY: the goroutine is Running on this thread: it writes its own slots.
    let mut access = unsafe { live::access(bounds) };
    let settled =
        scan.hit(&mut access, depth, stub as u32).unwrap_or_else(|error| runtime.fatal(&error));
    if let Some(next) = scan.next_stub() {
        // Nothing has used them since they were placed.
        prefetch(asm::barrier::hijacked_word(next as usize));
        // SAFETY: the address alone is used.
        prefetch(std::ptr::from_ref(unsafe { asm::barrier::saved(next as usize) }) as usize);
    }
    machine.count_hit();
    runtime.statistics.counters.settle(Settled { hit: 0, ..settled });
    let depth = depth - size_of::<usize>();
    if scan.is_protected(depth) {
        goroutine.watch(&scan);
    } else {
        protect(runtime, goroutine, &mut scan, depth);
    }
    if runtime.cycle.bounds_young() {
        follow_hit(runtime, goroutine, &mut scan, (slot, fp));
    }
}

/// The goroutine returns to the frame beyond `slot`, with the frame pointer `fp`: its young part
/// stays within the bound.
#[cold]
fn follow_hit(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &mut StackScan,
    (slot, fp): (usize, usize),
) {
    // SAFETY: the hit has written the return address over the slot of this thread's goroutine.
    let pc = unsafe { (slot as *const usize).read() };
    let at = position(&goroutine.bounds(), Registers { pc, sp: slot + size_of::<usize>(), fp });
    follow(runtime, goroutine, scan, at);
    young::lower_bound(runtime, goroutine, scan, at.depth);
}

/// An exception has passed the barrier in the slot at `depth`. The goroutine of this thread stands
/// in a call out of the frame that it has come to.
pub(crate) fn leapfrog(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    let at = youngest(goroutine, &goroutine.bounds());
    // Leaves the barrier in the slot itself, too: the stub has restored the slot.
    leave(runtime, goroutine, Position { depth: depth - size_of::<usize>(), ..at }, at, false);
}

/// The goroutine of this thread has left all frames younger than the one with these registers,
/// without returning from them. It is about to run that frame.
pub(crate) fn leave_frames(runtime: &Runtime, goroutine: &Goroutine, registers: Registers) {
    let at = position(&goroutine.bounds(), registers);
    leave(runtime, goroutine, at, at, false);
}

/// The goroutine of this thread has left a callback, and all frames younger than its own, without
/// a return. The foreign call that called back has its stack pointer at `depth`.
pub(crate) fn leave_callback(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    // The frame of `call_system` has kept the frame pointer.
    let at = Position { pc: asm::resume_pc(), depth, fp: FramePointer::Word(0) };
    leave(runtime, goroutine, at, at, true);
}

/// The goroutine of this thread has left all managed frames without a return. Its oldest frame has
/// its stack pointer at `depth`.
pub(crate) fn leave_all(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    let at = Position { pc: asm::entry_pc(), depth, fp: FramePointer::Word(0) };
    leave(runtime, goroutine, at, at, false);
}

/// The goroutine of this thread, on a native stack, has left entries to managed code without a
/// return. It stands in native code that the managed frame of its anchor has called.
pub(crate) fn leave_entry(runtime: &Runtime, goroutine: &Goroutine) {
    let at = youngest(goroutine, &goroutine.bounds());
    leave(runtime, goroutine, at, at, true);
}

/// A native call comes back to the managed frame with these registers, on this thread's own stack.
/// A scan may rest there, or younger barriers may be left of frames that no longer are.
pub(crate) fn watched(runtime: &Runtime, goroutine: &Goroutine, registers: Registers) {
    let at = position(&goroutine.bounds(), registers);
    leave(runtime, goroutine, at, at, true);
}

/// Leaves the frames younger than `to`. A walk from `from` comes to it. `foreign_call` says that
/// the frame there is that of a foreign call.
fn leave(
    runtime: &Runtime,
    goroutine: &Goroutine,
    to: Position,
    from: Position,
    foreign_call: bool,
) {
    let mut scan = goroutine.scan_lock();
    let settled = scan.leave_for(stubs(), to, foreign_call);
    runtime.statistics.counters.settle(settled);
    protect(runtime, goroutine, &mut scan, to.depth);
    if runtime.cycle.bounds_young() {
        if settled.leapfrogged > 0 {
            follow(runtime, goroutine, &mut scan, from);
        }
        young::lower_bound(runtime, goroutine, &scan, to.depth);
    }
}

/// The goroutine of this thread comes back to the frame of its foreign call, whose
/// stack pointer is at `depth`.
pub(crate) fn come_back(runtime: &Runtime, goroutine: &Goroutine, depth: usize) {
    let mut scan = goroutine.scan_lock();
    protect(runtime, goroutine, &mut scan, depth);
    if runtime.cycle.bounds_young() {
        young::lower_bound(runtime, goroutine, &scan, depth);
    }
}

fn protect(runtime: &Runtime, goroutine: &Goroutine, scan: &mut StackScan, depth: usize) {
    let to = |words: &[usize]| runtime.roots(words);
    // SAFETY: the goroutine is on its way out of frames, on this thread.
    let visited = unsafe { visit::protect(runtime, goroutine, scan, depth, &to) };
    let visited = visited.unwrap_or_else(|error| runtime.fatal(&error));
    count(&runtime.statistics.counters.scanned_returning, visited);
}

/// The goroutine is about to run the frame at `at`, and has settled a barrier: the next one is to
/// be near.
#[cold]
fn follow(runtime: &Runtime, goroutine: &Goroutine, scan: &mut StackScan, at: Position) {
    // SAFETY: the goroutine is on its way out of frames, on this thread.
    let followed = unsafe { visit::follow(runtime, goroutine, scan, at) };
    followed.unwrap_or_else(|error| runtime.fatal(&error));
}
