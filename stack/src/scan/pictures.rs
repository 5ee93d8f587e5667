//! Pictures of stacks.

use super::live::{ScanError, walker};
use crate::goroutine::Goroutine;
use crate::picture::{BarrierRole, FrameScan, Picture, PictureFrame};
use crate::protocol::StackScan;
use crate::runtime::Runtime;
use stackmark_unwind::{Frame, FrameKind, Snapshot};

/// The picture of a goroutine's stack.
///
/// # Errors
/// [`ScanError`]: the stack cannot be walked.
///
/// # Safety
/// `scan` is the goroutine's own, under its `scan_lock`. The goroutine stands still meanwhile.
pub(crate) unsafe fn picture(
    runtime: &Runtime,
    goroutine: &Goroutine,
    scan: &StackScan,
) -> Result<Picture, ScanError> {
    let snapshot = runtime.code.snapshot();
    let bounds = goroutine.bounds();
    // SAFETY: by our contract.
    let mut walk = unsafe { walker(&snapshot, goroutine) };
    let mut frames = Vec::new();
    let fail = |error| ScanError { goroutine: goroutine.id(), error };
    while let Some(frame) = walk.next_frame().map_err(fail)? {
        let (depth, cfa_depth) = (bounds.end - frame.sp, bounds.end - frame.cfa);
        let slot = frame.return_slot.map_or(0, |slot| bounds.end - slot);
        let barrier = scan.barriers().unhit().iter().any(|barrier| barrier.depth == slot);
        let lowest = scan.barriers().lowest().is_some_and(|lowest| lowest.depth == slot);
        let role =
            if lowest && !scan.is_complete() { BarrierRole::Frontier } else { BarrierRole::Rescan };
        frames.push(PictureFrame {
            name: name(&snapshot, &frame),
            kind: frame.kind,
            depth,
            cfa_depth,
            roots: frame.slots().count(),
            scan: state(scan, depth, slot),
            barrier: barrier.then_some(role),
        });
    }
    Ok(Picture {
        goroutine: goroutine.id(),
        status: goroutine.status(),
        bytes: bounds.len(),
        cycle: scan.epoch(),
        frames,
    })
}

/// What `scan` knows of the frame with its stack pointer at `depth` and its return slot at `slot`.
fn state(scan: &StackScan, depth: usize, slot: usize) -> FrameScan {
    if scan.epoch() == 0 || scan.is_unvisited(depth, slot) {
        return FrameScan::Unvisited;
    }
    match scan.limit() {
        Some((limit, _)) if slot < limit => FrameScan::Frozen,
        _ => FrameScan::Young,
    }
}

fn name(snapshot: &Snapshot<'_>, frame: &Frame<'_>) -> String {
    match frame.kind {
        FrameKind::Managed => snapshot
            .function(frame.pc.wrapping_sub(1))
            .map_or_else(|| format!("{:#x}", frame.pc), |function| function.name.to_owned()),
        FrameKind::Callback => "(callback)".into(),
        FrameKind::SystemCall => "(call out)".into(),
        FrameKind::Entry => "(the goroutine's beginning)".into(),
        FrameKind::Stub => "(stub)".into(),
    }
}
