//! What `--stats` writes and `--report` prints.

use serde_json::{Map, Value, json};
use stackmark::stack::Census;
use stackmark::stats::{ModeInForce, Statistics, Straggler, Summary, ThreadStats};
use std::collections::BTreeMap;
use std::fmt::Write as _;

fn times(t: &Summary) -> Value {
    json!({ "count": t.count, "p50": t.p50, "p99": t.p99, "max": t.max })
}

fn straggler(s: Option<Straggler>) -> Value {
    s.map_or(Value::Null, |s| json!({ "goroutine": s.goroutine, "ns": s.nanos }))
}

/// How many of the durations lie below each power of two, and not below the power before.
fn powers(by_length: &[(u64, u64)]) -> BTreeMap<u64, u64> {
    let mut powers = BTreeMap::new();
    for (length, count) in by_length {
        *powers.entry((length + 1).next_power_of_two()).or_default() += count;
    }
    powers
}

fn threads(t: &ThreadStats) -> Value {
    json!({ "membarriers": t.membarriers, "waits": t.waits, "wakes": t.wakes })
}

/// The statistics as JSON, with a census of the goroutines at the end. All times are in
/// nanoseconds.
pub(crate) fn json(s: &Statistics, census: &Census, handles: usize) -> Value {
    // First: making the report may need more memory than the program did.
    let resident_peak_bytes = resident_peak_bytes();
    let cycles = s.cycles_detail.iter().map(|c| {
        json!({
            "minor": c.minor,
            "deepest_frames": c.deepest_frames,
            "rescanned": c.rescanned,
            "skipped": c.skipped,
            "world_stop_ns": c.world_stop_ns,
            "time_to_stop_ns": c.time_to_stop_ns,
            "stopped_last": straggler(c.stopped_last),
            "answered_last": straggler(c.answered_last),
            "longest_hold_ns": c.longest_hold_ns,
            "mark_ns": c.mark_ns,
            "objects_marked": c.objects_marked,
            "bytes_marked": c.bytes_marked,
            "allocated_meanwhile": c.allocated_meanwhile,
            "assisted": c.assisted,
            "threads": threads(&c.threads),
        })
    });
    let refused: Map<String, Value> =
        s.barriers.refused.iter().map(|(reason, n)| ((*reason).to_string(), json!(n))).collect();
    json!({
        "cycles": s.cycles,
        "minor_cycles": s.minor_cycles,
        "cycles_detail": cycles.collect::<Vec<_>>(),
        "pauses_ns": times(&s.pauses_ns),
        "pauses_by_length": s.pauses_by_length,
        "holds_ns": times(&s.holds_ns),
        "holds_by_length": s.holds_by_length,
        "own_scans_ns": times(&s.own_scans_ns),
        "frames": {
            "scanned_stopped": s.frames.scanned_stopped,
            "scanned_running": s.frames.scanned_running,
            "scanned_returning": s.frames.scanned_returning,
            "rescanned": s.frames.rescanned,
            "skipped": s.frames.skipped,
            "kept": s.frames.kept,
        },
        "barriers": {
            "mode": s.barriers.mode.mode.to_string(),
            "mode_chosen": s.barriers.mode.chosen.to_string(),
            "protection": s.barriers.mode.protection.map(|p| p.to_string()),
            "placed": s.barriers.placed,
            "hit": s.barriers.hit,
            "leapfrogged": s.barriers.leapfrogged,
            "removed": s.barriers.removed,
            "moved": s.barriers.moved,
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
        "threads": threads(&s.threads),
        "process": {
            "resident_peak_bytes": resident_peak_bytes,
        },
        "census": {
            "goroutines": census.goroutines,
            "stacks": census.stacks,
            "machines": census.machines,
            "machines_for_threads": census.for_threads,
            "machines_spare": census.spare,
            "threads_attached": census.attached,
            "barriers_unsettled": census.unsettled,
            "barriers": census.barriers,
            "stubs": census.stubs,
            "stubs_free": census.free_stubs,
            "stubs_taken": census.taken_stubs,
            "handles": handles,
            "imbalances": census.imbalances(),
        },
    })
}

/// The most memory that the process has had at once. Not from getrusage(2), whose number a process
/// keeps over exec(2): it would be its parent's, if that was larger.
fn resident_peak_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    kibibytes.map_or(0, |kibibytes| kibibytes << 10)
}

/// A number of bytes, in the unit that keeps it short.
fn bytes(n: u64) -> String {
    match n {
        0..10_240 => format!("{n} B"),
        10_240..10_485_760 => format!("{} KiB", n >> 10),
        _ => format!("{} MiB", n >> 20),
    }
}

/// A duration, in the unit that keeps it short.
fn duration(nanos: u64) -> String {
    match nanos {
        0..10_000 => format!("{nanos} ns"),
        10_000..10_000_000 => format!("{:.1} us", nanos as f64 / 1e3),
        _ => format!("{:.1} ms", nanos as f64 / 1e6),
    }
}

/// The mode of barriers, and the reason if it is not the one asked for.
fn mode(m: &ModeInForce) -> String {
    match m.protection {
        Some(protection) if m.mode != m.chosen => {
            format!("{}, not {} ({protection})", m.mode, m.chosen)
        }
        Some(protection) => format!("{}, in spite of {protection}", m.mode),
        None => m.mode.to_string(),
    }
}

/// The share of `part` in `whole`, in percent.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

/// The line of `--progress`.
pub(crate) fn progress(since: std::time::Duration, s: &Statistics, goroutines: usize) -> String {
    let (heap, pauses) = (&s.heap, &s.pauses_ns);
    format!(
        "{:>6.0} s  {} collections, longest pause {}; {} allocated, {} live; stacks {}; \
         {goroutines} goroutines\n",
        since.as_secs_f64(),
        s.cycles,
        duration(pauses.max),
        bytes(heap.allocated_bytes),
        bytes(heap.live_bytes),
        bytes(s.stacks.resident_bytes),
    )
}

/// How many of the newest cycles the report lists.
const LISTED: usize = 10;

/// The summary of `--report`.
pub(crate) fn text(s: &Statistics) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write(&mut out, s);
    out
}

fn write(out: &mut String, s: &Statistics) -> std::fmt::Result {
    let (frames, barriers, stacks, heap) = (&s.frames, &s.barriers, &s.stacks, &s.heap);
    writeln!(out, "collections      {}, {} of them minor", s.cycles, s.minor_cycles)?;
    let times = [
        ("world stops", &s.pauses_ns),
        ("goroutine holds", &s.holds_ns),
        // Holds are time on the clock, these are processor time.
        ("own scans ran", &s.own_scans_ns),
    ];
    for (what, t) in times {
        let (p50, p99, max) = (duration(t.p50), duration(t.p99), duration(t.max));
        writeln!(
            out,
            "{what:<16} {}, median {p50}, 99th percentile {p99}, longest {max}",
            t.count
        )?;
    }
    let stragglers =
        s.cycles_detail.iter().flat_map(|c| [c.stopped_last, c.answered_last]).flatten();
    if let Some(slowest) = stragglers.max_by_key(|s| s.nanos) {
        let after = duration(slowest.nanos);
        writeln!(
            out,
            "slowest to stop  goroutine {}, {after} after it was asked",
            slowest.goroutine
        )?;
    }
    let looked_at = frames.rescanned + frames.skipped;
    writeln!(
        out,
        "frames           {} scanned with their goroutine held; {} of {looked_at} rescanned \
         ({:.3} %); {} unchanged since the last collection",
        frames.scanned_stopped,
        frames.rescanned,
        percent(frames.rescanned, looked_at),
        frames.kept,
    )?;
    let refused: u64 = barriers.refused.iter().map(|(_, n)| n).sum();
    writeln!(
        out,
        "barriers         {}: {} placed, {} hit, {} leapfrogged, {} removed, {} moved; {refused} \
         refused, {} for want of a stub",
        mode(&barriers.mode),
        barriers.placed,
        barriers.hit,
        barriers.leapfrogged,
        barriers.removed,
        barriers.moved,
        barriers.pool_exhausted,
    )?;
    writeln!(
        out,
        "stacks           {} started, {} grown, {} shrunk, {} moved, at most {} at once; \
         deepest {}",
        stacks.started,
        stacks.grown,
        stacks.shrunk,
        bytes(stacks.moved_bytes),
        bytes(stacks.largest_move_bytes),
        bytes(stacks.deepest_bytes),
    )?;
    writeln!(
        out,
        "stack memory     {} now, {} at most",
        bytes(stacks.resident_bytes),
        bytes(stacks.resident_peak_bytes)
    )?;
    writeln!(
        out,
        "heap             {} allocated, {} live; {} objects marked, {} swept",
        bytes(heap.allocated_bytes),
        bytes(heap.live_bytes),
        heap.objects_marked,
        heap.objects_swept,
    )?;
    let t = &s.threads;
    writeln!(
        out,
        "threads          fenced {} times, waited {} times, {} woken",
        t.membarriers, t.waits, t.wakes
    )?;
    let powers = powers(&s.pauses_by_length);
    let most = powers.values().copied().max().unwrap_or(0);
    for (i, (below, n)) in powers.iter().enumerate() {
        let title = if i == 0 { "world stops" } else { "" };
        let bar = "#".repeat((n * 40).div_ceil(most) as usize);
        writeln!(out, "{title:<16} {:>10} {n:>7} {bar}", format!("< {}", duration(*below)))?;
    }
    let newest = &s.cycles_detail[s.cycles_detail.len().saturating_sub(LISTED)..];
    if !newest.is_empty() {
        writeln!(out, "newest cycles    deepest stack      rescanned    world stop  longest hold")?;
    }
    for c in newest {
        writeln!(
            out,
            "                 {:>13} {:>8} ({:>6.3} %) {:>9} {:>13}",
            c.deepest_frames,
            c.rescanned,
            percent(c.rescanned, c.rescanned + c.skipped),
            duration(c.world_stop_ns),
            duration(c.longest_hold_ns),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stackmark::stack::{BarrierMode, ReturnProtection};

    #[test]
    fn the_report_names_every_subject_and_the_newest_cycles() {
        let s = Statistics {
            cycles: 12,
            cycles_detail: vec![Default::default(); 12],
            ..Statistics::default()
        };
        let text = text(&s);
        for subject in [
            "collections",
            "world stops",
            "goroutine holds",
            "own scans ran",
            "frames",
            "barriers",
            "stacks",
            "heap",
            "threads",
        ] {
            assert!(text.contains(subject), "{text}");
        }
        assert_eq!(text.lines().count(), 10 + 1 + LISTED);
    }

    #[test]
    fn the_report_says_which_mode_of_barriers_is_in_force_and_why() {
        let line = |mode, protection| {
            let mut s = Statistics::default();
            s.barriers.mode = ModeInForce { mode, chosen: BarrierMode::RescanLimit, protection };
            text(&s)
                .lines()
                .find(|line| line.starts_with("barriers "))
                .expect("the line")
                .to_owned()
        };
        let stack = Some(ReturnProtection::ShadowStack);
        for (mode, protection, wanted) in [
            (BarrierMode::RescanLimit, None, " rescan limit: 0 placed"),
            (BarrierMode::Off, stack, " off, not rescan limit (shadow stack): 0 placed"),
            (BarrierMode::RescanLimit, stack, " rescan limit, in spite of shadow stack: 0 placed"),
        ] {
            assert!(line(mode, protection).contains(wanted), "{}", line(mode, protection));
        }
    }

    #[test]
    fn pauses_are_shown_as_a_histogram() {
        let s = Statistics {
            pauses_by_length: vec![(9_000, 1), (16_383, 2), (600_000, 40)],
            ..Statistics::default()
        };
        let text = text(&s);
        assert!(text.contains("world stops       < 16.4 us       3 ###\n"), "{text}");
        assert!(text.contains(&format!("< 1048.6 us      40 {}\n", "#".repeat(40))), "{text}");
    }

    #[test]
    fn quantities_are_written_short() {
        assert_eq!(
            (bytes(9), bytes(20 << 10), bytes(64 << 20)),
            ("9 B".into(), "20 KiB".into(), "64 MiB".into())
        );
        assert_eq!((duration(9_999), duration(10_000)), ("9999 ns".into(), "10.0 us".into()));
    }
}
