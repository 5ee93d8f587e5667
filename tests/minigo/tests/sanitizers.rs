//! That the sanitizers see what C code does when Go has called it: planted bugs end the program
//! with their report. Built and run by `tests/sanitizers`.
#![cfg(any(stackmark_asan, stackmark_tsan))]

#[macro_use]
mod runner;

use runner::{ALL_STRESS, minigo};
use std::fs;
use std::path::Path;

/// Runs a program, with the collector at its worst or not: it must end with this report.
#[track_caller]
fn expect_report(name: &str, go: &str, c: &str, wanted: &str, options: &[&str]) {
    let own = format!("{name}-{}", options.len());
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("planted").join(own);
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join(format!("{name}.c")), c).unwrap();
    let file = directory.join(format!("{name}.go"));
    fs::write(&file, go).unwrap();
    let outcome = minigo(options, &file);
    assert!(
        !outcome.status.success(),
        "{} has not been caught\n{}",
        outcome.command,
        outcome.stderr
    );
    outcome.expect_stderr(wanted);
}

/// By default, and while everything moves.
#[track_caller]
fn expect_reports(name: &str, go: &str, c: &str, wanted: &str) {
    expect_report(name, go, c, wanted, &[]);
    expect_report(name, go, c, wanted, &["--stress", ALL_STRESS]);
}

/// Go calls `first`, which calls Go back, which grows its stack and calls `second`; then `third`.
#[cfg(stackmark_asan)]
const NESTED: &str = "package main\n\n// void first(void);\n// void second(void);\n\
                      // int third(void);\nimport \"C\"\n\n\
    //export goBack\nfunc goBack() { deep(100) }\n\n\
    func deep(n int) int {\n\tvar buf [256]byte\n\tif n == 0 {\n\t\tC.second()\n\t\treturn 0\n\t}\n\
    \tbuf[n%256] = 1\n\treturn deep(n-1) + int(buf[n%256])\n}\n\n\
    func main() {\n\tC.first()\n\tprintln(C.third())\n}\n";

#[cfg(stackmark_asan)]
#[test]
fn a_use_after_free_is_caught() {
    let c = "#include \"_cgo_export.h\"\n#include <stdlib.h>\n\nstatic int *block;\n\n\
             void first(void)\n{\n    block = malloc(40);\n    goBack();\n}\n\nvoid second(void)\n\
             {\n    free(block);\n}\n\n\
             int third(void)\n{\n    return block[9];\n}\n";
    expect_reports("use_after_free", NESTED, c, "AddressSanitizer: heap-use-after-free");
}

/// Behind a callback during which the goroutine's stack has moved: the frame on the system stack is
/// still known.
#[cfg(stackmark_asan)]
#[test]
fn a_store_beyond_a_local_is_caught() {
    let c = "#include \"_cgo_export.h\"\n\nstatic volatile int end = 4;\n\n\
             void first(void)\n\
             {\n    volatile int local[4] = { 0 };\n    goBack();\n    local[end] = 1;\n}\n\n\
             void second(void)\n{\n}\n\nint third(void)\n{\n    return 0;\n}\n";
    expect_reports("overflow", NESTED, c, "AddressSanitizer: stack-buffer-overflow");
}

#[cfg(stackmark_asan)]
#[test]
fn a_use_of_a_local_after_its_function_has_returned_is_caught() {
    let c = "#include \"_cgo_export.h\"\n\nstatic int *kept;\n\nstatic void keep(int *at)\n\
             {\n    kept = at;\n}\n\n\
             void first(void)\n{\n    goBack();\n}\n\nvoid second(void)\n\
             {\n    int local[4] = { 0 };\n    keep(local);\n}\n\n\
             int third(void)\n{\n    return kept[0];\n}\n";
    expect_reports("after_return", NESTED, c, "AddressSanitizer: stack-use-after-return");
}

/// Two goroutines in C at the same time; nothing orders their stores behind the barrier.
#[cfg(stackmark_tsan)]
#[test]
fn a_data_race_between_two_goroutines_in_c_is_caught() {
    let go = "package main\n\n// void meet(void);\nimport \"C\"\n\nfunc main() {\n\
              \tdone := make(chan bool)\n\
              \tfor i := 0; i < 2; i++ {\n\t\tgo func() {\n\t\t\tC.meet()\n\t\t\tdone <- true\n\
              \t\t}()\n\t}\n\t<-done\n\t<-done\n}\n";
    let c = "#include <pthread.h>\n\nstatic pthread_barrier_t both;\nlong stores;\n\n\
             __attribute__((constructor)) static void begin(void)\n\
             {\n    pthread_barrier_init(&both, 0, 2);\n}\n\n\
             void meet(void)\n{\n    pthread_barrier_wait(&both);\n    stores++;\n}\n";
    expect_reports("race", go, c, "ThreadSanitizer: data race");
}
