//! Statistics at exit: a summary to read, and JSON.

use crate::options::Options;
use crate::runtime::output;
use serde_json::{Map, Value, json};
use stackmark::Collector;
use stackmark::mark_sweep::MarkSweep;
use stackmark::stats::{Statistics, Summary};

/// Writes what the options ask for.
pub(crate) fn at_exit(options: &Options, collector: &Collector<MarkSweep>) {
    if !options.report && options.stats.is_none() {
        return;
    }
    let statistics = collector.statistics();
    if let Some(file) = &options.stats {
        let text = format!("{:#}\n", as_json(&statistics));
        if let Err(e) = std::fs::write(file, text) {
            output::error(format!("minigo: cannot write {}: {e}\n", file.display()).as_bytes());
        }
    }
    if options.report {
        output::error(summary(&statistics).as_bytes());
    }
}

fn times(s: &Summary) -> Value {
    json!({ "count": s.count, "p50": s.p50, "p99": s.p99, "max": s.max })
}

fn as_json(s: &Statistics) -> Value {
    let cycles: Vec<Value> = s
        .cycles_detail
        .iter()
        .map(|c| {
            json!({
                "deepest_frames": c.deepest_frames,
                "rescanned": c.rescanned,
                "skipped": c.skipped,
                "world_stop_ns": c.world_stop_ns,
                "time_to_stop_ns": c.time_to_stop_ns,
                "longest_hold_ns": c.longest_hold_ns,
                "mark_ns": c.mark_ns,
                "objects_marked": c.objects_marked,
                "bytes_marked": c.bytes_marked,
                "allocated_meanwhile": c.allocated_meanwhile,
            })
        })
        .collect();
    let refused: Map<String, Value> = s.barriers.refused.iter().map(|(why, n)| ((*why).into(), json!(n))).collect();
    json!({
        "cycles": s.cycles,
        "cycles_detail": cycles,
        "pauses_ns": times(&s.pauses_ns),
        "holds_ns": times(&s.holds_ns),
        "frames": {
            "scanned_stopped": s.frames.scanned_stopped,
            "scanned_running": s.frames.scanned_running,
            "rescanned": s.frames.rescanned,
            "skipped": s.frames.skipped,
        },
        "barriers": {
            "placed": s.barriers.placed,
            "hit": s.barriers.hit,
            "leapfrogged": s.barriers.leapfrogged,
            "refused": refused,
            "pool_exhausted": s.barriers.pool_exhausted,
        },
        "stacks": {
            "started": s.stacks.started,
            "grown": s.stacks.grown,
            "shrunk": s.stacks.shrunk,
            "moved_bytes": s.stacks.moved_bytes,
            "largest_move_bytes": s.stacks.largest_move_bytes,
            "deepest_bytes": s.stacks.deepest_bytes,
            "resident_bytes": s.stacks.resident_bytes,
            "resident_peak_bytes": s.stacks.resident_peak_bytes,
        },
        "heap": {
            "allocated_bytes": s.heap.allocated_bytes,
            "objects_marked": s.heap.objects_marked,
            "objects_swept": s.heap.objects_swept,
            "live_bytes": s.heap.live_bytes,
            "resident_bytes": s.heap.resident_bytes,
        },
    })
}

fn bytes(n: u64) -> String {
    match n {
        0..10_240 => format!("{n} B"),
        10_240..10_485_760 => format!("{} KiB", n >> 10),
        _ => format!("{} MiB", n >> 20),
    }
}

fn micros(nanos: u64) -> String {
    format!("{:.1} µs", nanos as f64 / 1000.0)
}

fn summary(s: &Statistics) -> String {
    let line = |what: &str, text: String| format!("{what:<14}{text}\n");
    let spread = |t: &Summary| {
        format!("{} times: p50 {}, p99 {}, max {}", t.count, micros(t.p50), micros(t.p99), micros(t.max))
    };
    let deepest = s.cycles_detail.iter().map(|c| c.deepest_frames).max().unwrap_or(0);
    let refused: u64 = s.barriers.refused.iter().map(|(_, n)| n).sum();
    [
        "\n".to_string(),
        line("collections", format!("{}, deepest stack scanned {deepest} frames", s.cycles)),
        line("world stopped", spread(&s.pauses_ns)),
        line("held", spread(&s.holds_ns)),
        line(
            "frames",
            format!(
                "{} scanned while held, {} while running, {} rescanned, {} skipped",
                s.frames.scanned_stopped, s.frames.scanned_running, s.frames.rescanned, s.frames.skipped
            ),
        ),
        line(
            "barriers",
            format!(
                "{} placed, {} hit, {} leapfrogged, {refused} refused, {} without a stub",
                s.barriers.placed, s.barriers.hit, s.barriers.leapfrogged, s.barriers.pool_exhausted
            ),
        ),
        line(
            "stacks",
            format!(
                "{} started, {} grown, {} shrunk, {} moved (at most {} at once), deepest {}, resident {} (peak {})",
                s.stacks.started,
                s.stacks.grown,
                s.stacks.shrunk,
                bytes(s.stacks.moved_bytes),
                bytes(s.stacks.largest_move_bytes),
                bytes(s.stacks.deepest_bytes),
                bytes(s.stacks.resident_bytes),
                bytes(s.stacks.resident_peak_bytes),
            ),
        ),
        line(
            "heap",
            format!(
                "{} allocated, {} live, {} objects marked, {} swept",
                bytes(s.heap.allocated_bytes),
                bytes(s.heap.live_bytes),
                s.heap.objects_marked,
                s.heap.objects_swept
            ),
        ),
    ]
    .concat()
}
