//! The same in Java, under its collectors that scan stacks concurrently and one that does not.

use super::{Run, numbers, succeed};
use std::error::Error;
use std::path::Path;
use std::process::Command;

pub(crate) const COLLECTORS: [(&str, &str); 3] =
    [("ZGC", "-XX:+UseZGC"), ("Shenandoah", "-XX:+UseShenandoahGC"), ("G1", "-XX:+UseG1GC")];

/// Runs `Deep.java`.
///
/// # Errors
/// If there is no Java, or it does not know the collector.
pub(crate) fn run(
    directory: &Path,
    collector: &str,
    depth: usize,
    collections: usize,
) -> Result<Run, Box<dyn Error>> {
    let source = directory.join("Deep.java");
    std::fs::write(&source, include_str!("Deep.java"))?;
    let mut command = Command::new("java");
    command.args([
        "-XX:+UnlockExperimentalVMOptions",
        collector,
        "-Xms1g",
        "-Xmx1g",
        "-XX:-UseDynamicNumberOfGCThreads",
    ]);
    command.args(["-XX:ConcGCThreads=1", "-Xlog:safepoint:stdout:none"]).arg(&source);
    let out = succeed(command.args([depth.to_string(), collections.to_string()]))?;
    Ok(Run { gaps: numbers(&out, "gap "), stops: stops(&out), ..Run::default() })
}

/// The longest safepoint before each line that ends a collection. Those of the first three go with
/// what comes before.
fn stops(log: &str) -> Vec<u64> {
    let mut stops = Vec::new();
    let mut longest = 0;
    for line in log.lines() {
        if line.starts_with("gap ") {
            stops.push(std::mem::take(&mut longest));
        } else if let Some(total) =
            line.split_once("Total: ").and_then(|(_, rest)| rest.split(' ').next())
        {
            longest = longest.max(total.parse().unwrap_or(0));
        }
    }
    stops.split_off(1.min(stops.len()))
}
