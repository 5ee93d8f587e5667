//! That verification finds objects which a broken write barrier has hidden.
#[macro_use]
mod runner;

use runner::minigo;
use std::fs;
use std::path::{Path, PathBuf};

/// References move within a large array all the time, while another goroutine collects: those that
/// come from a part which marking has yet to visit, to one that it has visited, are found through
/// the barrier alone.
const SHUFFLE: &str = "package main

import \"runtime\"

const slots = 200000

type node struct{ value int }

func shuffle(all []*node, done chan bool) {
	at := 1
	for {
		select_ := at % slots
		other := slots - 1 - select_
		all[select_], all[other] = all[other], all[select_]
		at = (at*48271 + 11) % 2147483647
		if stop[0] == 1 {
			break
		}
	}
	done <- true
}

var stop = make([]int, 1)

func main() {
	all := make([]*node, slots)
	for i := 0; i < slots; i++ {
		all[i] = &node{i}
	}
	done := make(chan bool)
	go shuffle(all, done)
	for i := 0; i < CYCLES; i++ {
		runtime.GC()
	}
	stop[0] = 1
	<-done
	sum := 0
	for _, n := range all {
		sum += n.value
	}
	println(sum)
}
";

fn written(name: &str, cycles: usize) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, SHUFFLE.replace("CYCLES", &cycles.to_string())).unwrap();
    file
}

#[test]
fn verification_finds_what_a_broken_write_barrier_hides() {
    let file = written("broken_barrier.go", 100);
    for (threads, kind) in
        [("2", "insertion"), ("4", "insertion"), ("2", "hybrid"), ("4", "hybrid")]
    {
        let options = [
            "--threads",
            threads,
            "--write-barrier",
            kind,
            "--stress",
            "verify",
            "--break-write-barrier",
        ];
        let outcome = minigo(&options, &file);
        // Within the hundred cycles that the program makes.
        assert!(!outcome.status.success(), "{}\n{}", outcome.command, outcome.stderr);
        outcome.expect_stderr("is reachable but unmarked: a goroutine has the root ");
        // The path: the frame that has the array, and the array.
        outcome.expect_stderr(" in main.");
        outcome.expect_stderr(" -> object ");
    }
}

#[test]
fn verification_finds_nothing_where_the_barrier_is_whole() {
    let file = written("whole_barrier.go", 15);
    for threads in ["2", "4"] {
        minigo(&["--threads", threads, "--stress", "verify"], &file)
            .expect(0, "")
            .expect_stderr("19999900000");
    }
}
