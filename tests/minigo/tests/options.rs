//! The command line: statistics, the report, limits, where messages go, and options that make no
//! sense.
#[macro_use]
mod runner;

use runner::{Program, Size, minigo, number, programs};
use std::fs;
use std::path::{Path, PathBuf};

fn written(name: &str, source: &str) -> PathBuf {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, source).unwrap();
    file
}

#[test]
fn statistics_have_every_field() {
    let statistics = Program::new("collections").statistics(&[], Size::Full);
    for path in [
        "cycles",
        "pauses_ns.count",
        "pauses_ns.p50",
        "pauses_ns.p99",
        "pauses_ns.max",
        "holds_ns.count",
        "holds_ns.p50",
        "holds_ns.p99",
        "holds_ns.max",
        "own_scans_ns.count",
        "own_scans_ns.p50",
        "own_scans_ns.p99",
        "own_scans_ns.max",
        "frames.scanned_stopped",
        "frames.scanned_running",
        "frames.rescanned",
        "frames.skipped",
        "barriers.placed",
        "barriers.hit",
        "barriers.leapfrogged",
        "barriers.moved",
        "barriers.pool_exhausted",
        "stacks.started",
        "stacks.grown",
        "stacks.shrunk",
        "stacks.moved_bytes",
        "stacks.largest_move_bytes",
        "stacks.deepest_bytes",
        "stacks.resident_bytes",
        "stacks.resident_peak_bytes",
        "heap.allocated_bytes",
        "heap.objects_marked",
        "heap.objects_swept",
        "heap.live_bytes",
        "threads.membarriers",
        "threads.waits",
        "threads.wakes",
    ] {
        number(&statistics, path);
    }
    assert!(statistics["barriers"]["refused"].is_object(), "refusals are counted by reason");
    assert!(
        statistics["barriers"]["mode"].is_string()
            && statistics["barriers"]["mode_chosen"].is_string()
    );
    let cycles = statistics["cycles_detail"].as_array().expect("cycles_detail is a list");
    assert_eq!(cycles.len() as u64, number(&statistics, "cycles"));
    assert!(!cycles.is_empty());
    for cycle in cycles {
        for key in ["deepest_frames", "rescanned", "skipped", "world_stop_ns", "longest_hold_ns"] {
            number(cycle, key);
        }
        for key in ["membarriers", "waits", "wakes"] {
            number(cycle, &format!("threads.{key}"));
        }
    }
    assert!(number(&statistics, "threads.waits") > 0);
    assert!(number(&statistics, "heap.allocated_bytes") > 0);
    assert!(number(&statistics, "heap.objects_marked") > 0);
    assert!(number(&statistics, "stacks.started") >= 2);
    for times in ["pauses_ns", "holds_ns"] {
        let of = |key: &str| number(&statistics, &format!("{times}.{key}"));
        assert!(of("count") > 0 && of("p50") <= of("p99") && of("p99") <= of("max"), "{times}");
    }
}

#[test]
fn statistics_of_a_failed_program_are_written_too() {
    let stats = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failed.json");
    let _ = fs::remove_file(&stats);
    let options = ["--stats", stats.to_str().unwrap(), "--report"];
    minigo(&options, &programs().join("fail/panic_string.go")).expect(2, "before\n");
    let text = fs::read_to_string(&stats).expect("statistics are written when a program fails");
    let _: serde_json::Value = serde_json::from_str(&text).unwrap();
}

#[test]
fn garbage_is_collected_without_being_asked() {
    let source = "package main\n\ntype node struct {\n\tnext *node\n\tpad  [20]int\n}\n\n\
                  func main() {\n\
                  \tvar list *node\n\tfor i := 0; i < 1000000; i++ {\n\t\tif i%100 == 0 {\n\
                  \t\t\tlist = nil\n\t\t}\n\
                  \t\tlist = &node{next: list}\n\t}\n}\n";
    let stats = Path::new(env!("CARGO_TARGET_TMPDIR")).join("garbage.json");
    let options = ["--stats", stats.to_str().unwrap()];
    minigo(&options, &written("garbage.go", source)).expect(0, "");
    let statistics: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&stats).unwrap()).unwrap();
    let (allocated, live) =
        (number(&statistics, "heap.allocated_bytes"), number(&statistics, "heap.live_bytes"));
    assert!(number(&statistics, "cycles") >= 3);
    assert!(allocated >= 168_000_000, "allocated {allocated}");
    assert!(live < allocated / 4, "{live} of {allocated} bytes are live");
    assert!(number(&statistics, "heap.objects_swept") > 500_000);
}

#[test]
fn a_lower_percentage_collects_more_often() {
    let program = Program::new("binary_trees");
    let often = number(&program.statistics(&["--gc-percent", "25"], Size::Full), "cycles");
    let seldom = number(&program.statistics(&["--gc-percent", "400"], Size::Full), "cycles");
    assert!(often > seldom, "{often} cycles at 25 %, {seldom} at 400 %");
}

#[test]
fn print_and_println_write_to_standard_error() {
    let source = "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tprintln(\"a\", 1, true, -2)\n\
                  \tprint(\"b\", 3, \"\\n\")\n\
                  \tfmt.Println(\"out\")\n\tprintln()\n}\n";
    let outcome = minigo(&[], &written("printing.go", source));
    outcome.expect(0, "out\n");
    assert_eq!(outcome.stderr, "a 1 true -2\nb3\n\n");
}

/// Not among the stored programs: Go 1.19's compiler panics at the parentheses.
#[test]
fn offsetof_takes_a_field_in_parentheses() {
    let source = "package main\n\nimport \"unsafe\"\n\nfunc main() {\n\tvar v struct{ a, b int }\n\
                  \tprintln(unsafe.Offsetof((v.b)))\n}\n";
    let outcome = minigo(&[], &written("parentheses.go", source));
    outcome.expect(0, "");
    assert_eq!(outcome.stderr, "8\n");
}

#[test]
fn nothing_but_the_output_is_printed_by_default() {
    assert_eq!(Program::new("nqueens").check(&[], Size::Full).stderr, "");
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let file = programs().join("ints.go");
    for (options, wanted) in [
        (&["--stress", "no-such-item"][..], "no-such-item"),
        (&["--stress", ""][..], "--stress"),
        (&["--threads", "0"][..], "threads"),
        (&["--threads", "many"][..], "many"),
        (&["--gc-percent", "few"][..], "few"),
        (&["--max-stack", "lots"][..], "lots"),
        (&["--barriers", "sideways"][..], "sideways"),
        (&["--no-such-option"][..], "--no-such-option"),
    ] {
        let outcome = minigo(options, &file);
        assert!(
            matches!(outcome.status.code(), Some(1 | 2)),
            "{} ended with {}",
            outcome.command,
            outcome.status
        );
        assert_eq!(outcome.stdout, "", "{}", outcome.command);
        outcome.expect_stderr(wanted);
    }
}

#[test]
fn where_return_addresses_are_protected_stacks_are_scanned_whole_and_the_statistics_say_so() {
    let program = Program::new("deep_recursion");
    let protected = program.statistics(&["--assume-shadow-stack"], Size::Stress);
    let barriers = &protected["barriers"];
    assert_eq!(barriers["mode"], "off");
    assert_eq!(barriers["mode_chosen"], "incremental");
    assert_eq!(barriers["protection"], "shadow stack");
    assert_eq!(number(&protected, "barriers.placed"), 0);
    assert_eq!(number(&protected, "frames.skipped"), 0, "without barriers nothing bounds a rescan");
    assert_eq!(number(&protected, "frames.scanned_returning"), 0);
    let visits = ["frames.scanned_stopped", "frames.scanned_running", "frames.rescanned"];
    assert!(visits.iter().map(|visit| number(&protected, visit)).sum::<u64>() > 0);
    let report = minigo(&["--assume-shadow-stack", "--report"], &program.file(Size::Stress));
    report.expect_stderr("stackmark: return addresses are protected (shadow stack): no barriers");
    report.expect_stderr("off, not incremental (shadow stack): 0 placed");
    // Named by hand, a mode stays what it is.
    for mode in ["incremental", "rescan-limit"] {
        let by_hand =
            program.statistics(&["--assume-shadow-stack", "--barriers", mode], Size::Stress);
        assert_eq!(by_hand["barriers"]["mode"], mode.replace('-', " "));
        assert_eq!(by_hand["barriers"]["mode_chosen"], by_hand["barriers"]["mode"]);
        assert!(number(&by_hand, "barriers.placed") > 0);
    }
}

#[test]
fn statistics_that_cannot_be_written_are_reported() {
    let program = Program::new("ints");
    let outcome = minigo(&["--stats", "/no/such/directory/stats.json"], &program.file(Size::Full));
    assert_ne!(outcome.status.code(), Some(0), "{}", outcome.command);
    outcome.expect_stderr("/no/such/directory/stats.json");
}

#[test]
fn a_small_maximum_is_enough_for_a_small_stack() {
    Program::new("nqueens").check(&["--max-stack", "65536"], Size::Full);
}

#[test]
fn collect_every_poll_goes_on_after_a_goroutine_has_waited() {
    let file = written(
        "waited.go",
        "package main\n\nfunc f(n int) int {\n\tif n == 0 {\n\t\treturn 0\n\t}\n\
         \treturn f(n-1) + 1\n}\n\n\
         func main() {\n\tc := make(chan int)\n\tgo func() { c <- 1 }()\n\tprintln(<-c + f(300))\n\
         }\n",
    );
    let report = file.with_extension("json");
    let options = ["--stress", "collect-every-poll", "--stats", report.to_str().unwrap()];
    minigo(&options, &file).expect(0, "").expect_stderr("301");
    let statistics = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    // Each of the 301 calls of f polls, and all of them come after the wait.
    assert!(number(&statistics, "cycles") > 300, "{} cycles", number(&statistics, "cycles"));
}
