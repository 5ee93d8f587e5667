//! That minor collections keep what only old objects and old frames refer to, and that verification
//! finds objects which a broken write barrier between collections has hidden.
#[macro_use]
mod runner;

use runner::{minigo, number};
use std::fs;
use std::path::{Path, PathBuf};

/// Young objects replace the entries of an old table all the time. Minor collections do not trace
/// the table: they find the young objects through the barrier's records alone.
const OLD_TABLE: &str = "package main

import \"runtime\"

type node struct {
	value int
	next  *node
}

func main() {
	table := make([]*node, 1000)
	for i := range table {
		table[i] = &node{i, nil}
	}
	runtime.GC()
	for i := 0; i < ROUNDS; i++ {
		table[i%1000] = &node{i, &node{-i, nil}}
	}
	sum := 0
	for _, n := range table {
		sum += n.value + 2*n.next.value
	}
	println(sum)
}
";

/// Young objects are stored through pointers into variables of frames far below, which short scans
/// do not visit, and nowhere else.
const OLD_FRAMES: &str = "package main

type node struct {
	value int
	next  *node
}

type pair struct{ one, other *node }

func deep(n int, kept *pair, rounds int) int {
	if n > 0 {
		return deep(n-1, kept, rounds) + n - n
	}
	for i := 0; i < rounds; i++ {
		kept.one = &node{i, &node{i, nil}}
		if i%7 == 0 {
			*kept = pair{kept.one, &node{2 * i, kept.one}}
		}
	}
	return 1
}

func main() {
	var kept pair
	deep(2000, &kept, ROUNDS)
	println(kept.one.value+kept.one.next.value, kept.other.value-2*kept.other.next.value)
}
";

/// Slices that are dropped at once, over a table that stays.
const GARBAGE: &str = "package main

var table [1000]*int

func waste(n int) int {
	s := make([]int, n%8+1)
	s[0] = n
	return s[0]
}

func main() {
	for i := range table {
		table[i] = new(int)
	}
	sum := 0
	for i := 0; i < ROUNDS; i++ {
		sum += waste(i)
	}
	println(sum)
}
";

fn written(name: &str, text: &str, rounds: usize) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, text.replace("ROUNDS", &rounds.to_string())).unwrap();
    file
}

#[test]
fn verification_finds_what_a_broken_write_barrier_hides_between_collections() {
    for (name, text) in [("broken_table.go", OLD_TABLE), ("broken_frames.go", OLD_FRAMES)] {
        let file = written(name, text, 2_000);
        let options =
            ["--generational", "--stress", "collect-every-poll,verify", "--break-write-barrier"];
        let outcome = minigo(&options, &file);
        assert!(!outcome.status.success(), "{}\n{}", outcome.command, outcome.stderr);
        outcome.expect_stderr("is reachable but unmarked");
    }
}

#[test]
fn verification_finds_nothing_where_the_barrier_is_whole() {
    for kind in ["insertion", "hybrid"] {
        for list in ["verify,poison", "verify,poison,scan-few-frames,barrier-every-frame"] {
            let options = ["--generational=65536", "--write-barrier", kind, "--stress", list];
            let file = written("whole_table.go", OLD_TABLE, 200_000);
            minigo(&options, &file).expect(0, "").expect_stderr("-199499500");
            let file = written("whole_frames.go", OLD_FRAMES, 200_000);
            minigo(&options, &file).expect(0, "").expect_stderr("399998 0");
        }
    }
}

#[test]
fn most_collections_at_polls_are_minor_and_what_is_dropped_is_swept() {
    const ROUNDS: usize = 3000;
    let file = written("garbage.go", GARBAGE, ROUNDS);
    let stats = Path::new(env!("CARGO_TARGET_TMPDIR")).join("garbage.json");
    let options =
        ["--generational", "--stress", "collect-every-poll", "--stats", stats.to_str().unwrap()];
    minigo(&options, &file).expect(0, "").expect_stderr(&(ROUNDS * (ROUNDS - 1) / 2).to_string());
    let statistics: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
    let (cycles, minor) = (number(&statistics, "cycles"), number(&statistics, "minor_cycles"));
    // At polls every eighth is a major one.
    assert!(
        minor > ROUNDS as u64 && cycles - minor <= cycles / 8 + 8,
        "{minor} of {cycles} are minor"
    );
    let swept = number(&statistics, "heap.objects_swept");
    assert!(swept + 10 > ROUNDS as u64, "{swept} objects swept");
}
