//! The others: corosensei in this process, Go in one of its own.

use super::go;
use corosensei::Coroutine;
use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
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

/// `None`, and said so, if there is no Go here, or none that can build with cgo.
pub(crate) fn go(rounds: usize, n: usize, quick: bool) -> Option<Go> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let directory = target.join("calls_peer");
    std::fs::create_dir_all(&directory).expect("a directory of ours");
    std::fs::write(directory.join("main.go"), include_str!("peer.go")).expect("a file of ours");
    // A quick run installs nothing.
    let wanted = quick.then_some(Path::new("go"));
    let program = directory.join("peer");
    let built = go::Go::find(wanted, target).and_then(|go| go.build_package(&directory, &program));
    if let Err(error) = built {
        println!("Go is skipped: {error}");
        return None;
    }
    let output = Command::new(program).args([rounds.to_string(), n.to_string()]).output();
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
