//! `--trace`: a file in Chrome's format, with a track for each thread, on which activities are
//! nested.
#[macro_use]
mod runner;

use runner::{Program, Size};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

#[test]
fn a_trace_has_a_track_for_each_thread_and_nests_its_activities() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trace.json");
    let options = ["--trace", file.to_str().unwrap(), "--threads", "2", "--mark-workers", "2"];
    Program::new("deep_recursion").check(&options, Size::Stress);
    let events: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&file).unwrap()).expect("JSON");
    let events = events.as_array().expect("a list");
    let mut tracks = BTreeMap::new();
    let mut spans: BTreeMap<u64, Vec<(f64, f64)>> = BTreeMap::new();
    let mut names = BTreeSet::new();
    for event in events {
        let track = event["tid"].as_u64().unwrap();
        match event["ph"].as_str().unwrap() {
            "M" => _ = tracks.insert(track, event["args"]["name"].as_str().unwrap()),
            "X" => {
                let (at, length) = (event["ts"].as_f64().unwrap(), event["dur"].as_f64().unwrap());
                assert!(length >= 0.0);
                spans.entry(track).or_default().push((at, at + length));
                names.insert(event["name"].as_str().unwrap());
            }
            other => panic!("an event of kind {other}"),
        }
    }
    for name in ["cycle", "handshake", "pause", "mark", "scan", "sweep", "growth"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    let threads: BTreeSet<&str> = tracks.values().copied().collect();
    assert!(threads.contains("stackmark-cycle"), "{threads:?}");
    assert!(threads.iter().any(|name| name.starts_with("machine-")), "{threads:?}");
    assert!(threads.iter().any(|name| name.starts_with("stackmark-mark-")), "{threads:?}");
    for (track, mut spans) in spans {
        assert!(tracks.contains_key(&track), "track {track} has a name");
        spans.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.total_cmp(&a.1)));
        let mut open: Vec<(f64, f64)> = Vec::new();
        for span in spans {
            while open.last().is_some_and(|last| last.1 <= span.0) {
                open.pop();
            }
            // A thousandth of a microsecond is what the file tells apart.
            assert!(
                open.last().is_none_or(|last| span.1 <= last.1 + 0.002),
                "{span:?} in {open:?} of track {track}"
            );
            open.push(span);
        }
    }
}

#[test]
fn a_trace_that_cannot_be_written_is_an_error() {
    let outcome = runner::minigo(
        &["--trace", "/nonexistent/trace.json"],
        &Program::new("nqueens").file(Size::Stress),
    );
    outcome.expect_status(2).expect_stderr("/nonexistent/trace.json: ");
}
