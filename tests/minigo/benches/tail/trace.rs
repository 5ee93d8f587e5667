//! What a trace says about a gap.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// A gap that the program has seen. In nanoseconds, from the program's first collection on.
pub(crate) struct Gap {
    pub(crate) begin: u64,
    pub(crate) length: u64,
}

/// An activity of a thread, in nanoseconds.
struct Event {
    name: String,
    begin: u64,
    length: u64,
}

/// The activities, but for calls of native code: clients wait there.
pub(crate) struct Trace {
    events: Vec<Event>,
    /// When the first collection began.
    first: u64,
}

impl Trace {
    /// Reads a file of `--trace`: one event in each line.
    ///
    /// # Errors
    /// If it cannot be read, or has no collection.
    pub(crate) fn read(file: &Path) -> Result<Trace, Box<dyn Error>> {
        let mut events = Vec::new();
        for line in BufReader::new(File::open(file)?).lines() {
            let line = line?;
            let Ok(event) = serde_json::from_str::<serde_json::Value>(line.trim_end_matches(','))
            else {
                continue;
            };
            let nanos = |key: &str| Some((event[key].as_f64()? * 1e3) as u64);
            let (Some(name), Some(begin), Some(length)) =
                (event["name"].as_str(), nanos("ts"), nanos("dur"))
            else {
                continue;
            };
            if name != "foreign call" {
                events.push(Event { name: name.to_owned(), begin, length });
            }
        }
        let cycles = events.iter().filter(|event| event.name == "cycle");
        let first = cycles.map(|event| event.begin).min().ok_or("a trace without a collection")?;
        Ok(Trace { events, first })
    }

    /// The activities that overlap a gap, each with its time in it, the longest first. All threads
    /// count: a goroutine waits where another one's thread has its processor.
    pub(crate) fn causes(&self, gap: &Gap) -> Vec<String> {
        let (begin, end) = (self.first + gap.begin, self.first + gap.begin + gap.length);
        let mut overlaps = BTreeMap::<&str, u64>::new();
        for event in &self.events {
            let overlap =
                end.min(event.begin + event.length).saturating_sub(begin.max(event.begin));
            if overlap > 0 {
                *overlaps.entry(&event.name).or_default() += overlap;
            }
        }
        // A cycle is all of the others.
        overlaps.remove("cycle");
        let mut causes: Vec<(&str, u64)> = overlaps.into_iter().collect();
        causes.sort_unstable_by_key(|(_, overlap)| std::cmp::Reverse(*overlap));
        match causes.is_empty() {
            true => vec!["the system, or other goroutines".to_owned()],
            false => causes
                .into_iter()
                .map(|(name, overlap)| format!("{name} {:.1} us", overlap as f64 / 1e3))
                .collect(),
        }
    }
}
